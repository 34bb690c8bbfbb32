"""The page of a file that may be cut, in a real browser: slider, keyboard, address, phone width, and nothing fetched."""
import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.metrics import psnr
from stanhlic.view import choose_stops, decode_stops, embed, make_page

torch.set_num_threads(1)
RIGHT, LEFT, HOME, END = "\ue014", "\ue012", "\ue011", "\ue010"  # WebDriver's names of keys


# %% without a browser

@pytest.mark.parametrize("lengths, count", [(range(500, 90_000), 24), (range(500, 530), 24), (range(7, 8), 24), ([300, 310, 90_000], 2), (range(10, 500_000), 24)])
def test_stops(lengths, count):
    stops = choose_stops(lengths, count)
    assert stops == sorted(set(stops)) and set(stops) <= set(lengths)
    assert (stops[0], stops[-1]) == (lengths[0], lengths[-1]) and min(len(lengths), count) >= len(stops) >= min(len(lengths), count) * 0.8


def test_pictures_stay_within_their_share():
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    for most in (10**6, 20_000, 2_000, 300):
        data, quality, scale = embed(noise, most)
        assert len(data) <= most and Image.open(io.BytesIO(data)).size == (round(200 * scale), round(300 * scale))
    assert embed(noise, 10**6)[1:] == (92, 1.0)


@pytest.fixture(scope="module")
def coded():
    """A codec of random weights, a picture and its progressive file."""
    from stanhlic.progressive.codec import ProgressiveCodec
    from stanhlic.progressive.model import random_model
    from stanhlic.progressive.networks import PROGRESSIVE_SMOKE
    codec, photo = ProgressiveCodec(random_model(PROGRESSIVE_SMOKE), "tiny"), sample_photograph(300)[:200, :180]
    return codec, photo, codec.encode(photo)


def test_stops_are_measured_against_the_original_or_the_best_picture(coded):
    codec, photo, data = coded
    alone, beside = decode_stops(codec, data, count=4), decode_stops(codec, data, photo, count=4)
    assert alone[-1]["psnr"] == "identical" and beside[-1]["psnr"] == f"{psnr(photo, codec.decode(data)):.2f} dB"
    assert [s["bytes"] for s in alone] == [s["bytes"] for s in beside] and alone[-1]["bytes"] == f"{len(data):,}"
    assert sum(len(s["src"]) for s in decode_stops(codec, data, count=4, limit=100_000)) < 103_000
    with pytest.raises(StanhlicError, match="the original is 180x199"): decode_stops(codec, data, photo[1:])


def test_a_page_is_whole_and_fetches_nothing(coded):
    page, note = make_page(coded[0], coded[2], "rows & columns", count=4)
    assert note is None and page.count("data:image/webp") == 4 and "<title>rows &amp; columns</title>" in page and "not the original" in page
    assert "http:" not in page and "https:" not in page and "$" not in page


# %% in a browser

def open_page(browser, address): browser("/url", {"url": "about:blank"}); browser("/url", {"url": address})


def press(browser, keys): browser(f"/element/{next(iter(browser('/element', {'using': 'css selector', 'value': '#stop'}).values()))}/value", {"text": keys})


def shown(browser): return browser.run("['number', 'bytes', 'share', 'bpp', 'psnr'].map(id => document.getElementById(id).textContent)")


def pixels(browser):
    """The picture that is shown, as the page holds it."""
    uri = browser.run("document.querySelector('#picture img').src")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture(scope="module")
def page(coded, tmp_path_factory):
    """A page of a progressive file, its address and its stops."""
    codec, photo, data = coded
    path, (text, note) = tmp_path_factory.mktemp("page") / "a.html", make_page(codec, data, "photo <1>.slic", photo, 12)
    path.write_text(text)
    assert note is None
    return path.as_uri(), json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])


def wanted(stops, k): return [f"{k} of {len(stops)}", *(stops[k - 1][n] for n in ("bytes", "share", "bpp", "psnr"))]


def test_opens_at_the_best_picture_and_fetches_nothing(browser, page):
    address, stops = page
    open_page(browser, address)
    assert shown(browser) == wanted(stops, len(stops)) and 8 <= len(stops) <= 12
    assert browser.run("document.title") == "photo <1>.slic"
    assert browser.run("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    assert browser.run("document.querySelector('#picture img').naturalWidth") == 180 and pixels(browser).size == (180, 200)
    assert browser("/se/log", {"type": "browser"}) == []  # neither an error nor a refusal of the content security policy


def test_the_address_chooses_a_stop(browser, page):
    address, stops = page
    for asked, k in (("#stop=5", 5), ("#stop=1", 1), ("#stop=999", len(stops)), ("#stop=0", 1), ("#elsewhere", len(stops))):
        open_page(browser, address + asked)
        assert shown(browser) == wanted(stops, k)
        assert browser.run("document.getElementById('stop').value") == str(k)
    open_page(browser, address)
    browser.run("location.hash = '#stop=3'")
    assert shown(browser) == wanted(stops, 3)


def test_the_slider_obeys_the_keyboard(browser, page):
    address, stops = page
    open_page(browser, address + "#stop=5")
    before = pixels(browser).tobytes()
    for key, k in ((RIGHT, 6), (LEFT, 5), (LEFT + LEFT, 3), (HOME, 1), (END, len(stops))):
        press(browser, key)
        assert shown(browser) == wanted(stops, k)
        assert browser.run("location.hash") == f"#stop={k}"
        assert stops[k - 1]["bytes"] in browser.run("document.getElementById('stop').getAttribute('aria-valuetext')")
    assert pixels(browser).tobytes() != before


@pytest.mark.parametrize("width, height", [(360, 640), (1280, 800)])
def test_fits_the_screen(browser, page, width, height):
    browser("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}})
    open_page(browser, page[0])
    assert browser.run("innerWidth") == width and browser.run("document.documentElement.scrollWidth") <= width
    box = browser.run("(r => [r.width, r.height, r.bottom])(document.getElementById('stop').getBoundingClientRect())")
    assert box[0] > 0.85 * min(width, 1152) and box[1] >= 44 and box[2] <= height  # as wide as a thumb wants it, and to be reached without scrolling
    picture = browser.run("(r => [r.width, r.height])(document.querySelector('#picture img').getBoundingClientRect())")
    assert picture[0] / picture[1] == pytest.approx(180 / 200, rel=0.02)
