"""The page that shows what a codec does, in a real browser: split, zoom, errors, slider, keyboard, phone width, and nothing fetched."""
import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

import stanhlic.view as view
from stanhlic.datasets import sample_photograph
from stanhlic.errors import CutFile, StanhlicError
from stanhlic.lab import classical
from stanhlic.metrics import ms_ssim, psnr
from stanhlic.view import Rival, choose_stops, embed, make_page, stop_count

torch.set_num_threads(1)
RIGHT, LEFT, HOME, END, TAB, SHIFT = "\ue014", "\ue012", "\ue011", "\ue010", "\ue004", "\ue008"  # WebDriver's names of keys
H, W = 200, 180


# %% without a browser

@pytest.mark.parametrize("lengths, count", [(range(500, 90_000), 24), (range(500, 530), 24), (range(7, 8), 24), ([300, 310, 90_000], 2), (range(10, 500_000), 24)])
def test_stops(lengths, count):
    stops = choose_stops(lengths, count)
    assert stops == sorted(set(stops)) and set(stops) <= set(lengths)
    assert (stops[0], stops[-1]) == (lengths[0], lengths[-1]) and min(len(lengths), count) >= len(stops) >= min(len(lengths), count) * 0.8


def test_neighboring_stops_differ_enough_to_be_seen():
    assert [stop_count(1000, n, 400_000) for n in (1000, 1100, 1949, 10**6)] == [1, 2, 8, 24]
    assert stop_count(1000, 10**6, 2_800_000) == 12
    stops = choose_stops(range(1000, 1950), stop_count(1000, 1949, 1))
    assert min(b / a for a, b in zip(stops, stops[1:])) > 1.08


def test_copies_of_pictures():
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    read = lambda data: np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(read(embed(noise, True)), noise) and embed(noise, False)[:2] == b"\xff\xd8"
    wide = np.zeros((1, 20_000, 3), np.uint8)  # more than WebP takes
    assert embed(wide, True)[1:4] == b"PNG" and read(embed(wide, False)).shape == wide.shape


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_rivals_use_their_bytes(name):
    if not classical.available(name): pytest.skip(f"this Pillow has no {name}")
    photo = sample_photograph(300)[:H, :W]
    r = Rival(name, photo, True)
    for size in (9000, 3000, 5000, 4000):
        row = r.within(size)
        assert row["bytes"] == len(row["file"]) <= size
        decoded = classical.decode(name, row["file"])
        assert row["psnr"] == pytest.approx(psnr(photo, decoded), abs=1e-4) and row["ssim"] == pytest.approx(ms_ssim(photo, decoded), abs=1e-4)
        q = next(q for q, data in r.files.items() if data == row["file"])
        assert row["bytes"] >= 0.97 * size or len(r.files[q + 1]) > size
    assert r.within(50) is None and len(r.files) < 45  # what was tried is kept


@pytest.fixture(scope="module")
def coded():
    """A progressive codec of random weights, a picture and its file."""
    from stanhlic.progressive.codec import ProgressiveCodec
    from stanhlic.progressive.model import random_model
    from stanhlic.progressive.networks import PROGRESSIVE_SMOKE
    torch.manual_seed(0)
    codec, photo = ProgressiveCodec(random_model(PROGRESSIVE_SMOKE), "tiny"), sample_photograph(300)[:H, :W]
    return codec, photo, codec.encode(photo)


@pytest.fixture(scope="module")
def dialed(models):
    """A stanh codec of random weights."""
    from stanhlic.zoo import load_codec
    return load_codec("tiny", "cpu")


def data_of(text): return json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])


def picture_of(data, row): return np.array(Image.open(io.BytesIO(base64.b64decode(data["pictures"][row["picture"]].partition(",")[2]))).convert("RGB"))


def test_numbers_and_pictures_of_a_file(coded):
    codec, photo, whole = coded
    data = data_of(make_page(codec, "a", whole, photo, 5).text)
    assert 2 <= len(data["stops"]) <= 5 and data["stops"][-1]["bytes"] == len(whole) and data["first"] == len(data["stops"]) and data["share"]
    for s in data["stops"]:
        decoded = codec.decode(whole[:s["bytes"]])
        assert np.array_equal(picture_of(data, s), decoded) and s["psnr"] == pytest.approx(psnr(photo, decoded), abs=1e-4)
    assert np.array_equal(picture_of(data, {"picture": data["original"]}), photo) and "without loss" in data["notes"][-1]
    assert len(data["pictures"]) == len(set(data["pictures"]))
    for r in data["rivals"]:
        assert all(row is None or row["bytes"] <= s["bytes"] for row, s in zip(r["rows"], data["stops"])) and len(r["rows"]) == len(data["stops"])
    assert data_of(make_page(codec, "a", original=photo, count=5).text)["stops"] == data["stops"]  # a picture is compressed first


def test_without_the_original_the_whole_file_is_the_measure(coded):
    codec, _, whole = coded
    data = data_of(make_page(codec, "a", whole, count=4).text)
    assert data["original"] is None and data["rivals"] == [] and data["first"] == 1 and data["stops"][-1]["psnr"] is None and "not the original" in data["notes"][0]
    assert data["stops"][0]["psnr"] == pytest.approx(psnr(codec.decode(whole), codec.decode(whole[:data["stops"][0]["bytes"]])), abs=1e-4)


def test_a_dial_has_a_real_file_at_each_stop(dialed):
    photo = sample_photograph(300)[:H, :W]
    data = data_of(make_page(dialed, "a", original=photo, count=4).text)
    expected = [dialed.encode(photo, q) for q in (0, 100 / 3, 200 / 3, 100)]
    assert [s["bytes"] for s in data["stops"]] == sorted(map(len, expected)) and not data["share"]
    for s, file in zip(data["stops"], sorted(expected, key=len)): assert np.array_equal(picture_of(data, s), dialed.decode(file))


def test_a_file_of_a_dial(dialed):
    photo = sample_photograph(300)[:H, :W]
    own = dialed.encode(photo, 37)
    one, more = (data_of(make_page(dialed, "a", own, p, 3).text) for p in (None, photo))
    assert [s["bytes"] for s in one["stops"]] == [len(own)] and "psnr" not in one["stops"][0]
    assert more["stops"][more["first"] - 1]["bytes"] == len(own) and len(more["stops"]) == 4
    with pytest.raises(CutFile): make_page(dialed, "a", own[:-1])


def test_large_pictures_are_copied_with_a_loss_that_is_stated(coded, monkeypatch):
    codec, photo, whole = coded
    monkeypatch.setattr(view, "LOSSLESS", 50_000)
    monkeypatch.setattr(view, "LARGE", 30_000)
    data = data_of(make_page(codec, "a", whole, photo).text)
    worst = min(psnr(picture_of(data, s), codec.decode(whole[:s["bytes"]])) for s in data["stops"])
    assert len(data["stops"]) <= 12 and f"at least {worst:.1f} dB" in data["notes"][-1] and "MS-SSIM is left out" in data["notes"][1]
    assert all(s["psnr"] == pytest.approx(psnr(photo, codec.decode(whole[:s["bytes"]])), abs=1e-4) for s in data["stops"])
    assert all(row["ssim"] is None for r in data["rivals"] for row in r["rows"] if row)


def test_every_stop_is_told(coded):
    said = []
    page = make_page(coded[0], "a", coded[2], count=4, say=lambda k, n: said.append((k, n)))
    assert said == [(k, said[0][1]) for k in range(1, said[0][1] + 1)] and page.stops <= said[0][1] <= 4


def test_another_original_is_refused(coded):
    with pytest.raises(StanhlicError, match="the original is 180x199"): make_page(coded[0], "a", coded[2], coded[1][1:])


def test_a_page_is_whole_and_safe(coded):
    page = make_page(coded[0], "</script><b>&", coded[2], count=2)
    assert page.note is None and "<title>&lt;/script&gt;&lt;b&gt;&amp;</title>" in page.text and "</script><b>" not in page.text
    assert "https:" not in page.text and page.text.replace("http://www.w3.org/2000/svg", "").count("http:") == 0 and "{{" not in page.text


# %% in a browser

@pytest.fixture(scope="module")
def page(coded, tmp_path_factory):
    """A page of a progressive file with its original: address and data."""
    codec, photo, data = coded
    path = tmp_path_factory.mktemp("page") / "a.html"
    path.write_text(make_page(codec, "photo <1>.slic", data, photo, 6).text)
    return path.as_uri(), data_of(path.read_text())


@pytest.fixture(autouse=True)
def usual_window(request):
    if "browser" in request.fixturenames: window(request.getfixturevalue("browser"), 1440, 900)


def window(browser, width, height):
    browser("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}})


def open_page(browser, address): browser("/url", {"url": "about:blank"}); browser("/url", {"url": address})


def element(browser, css): return next(iter(browser("/element", {"using": "css selector", "value": css}).values()))


def press(browser, css, keys): browser(f"/element/{element(browser, css)}/value", {"text": keys})


def click(browser, css): browser(f"/element/{element(browser, css)}/click", {})


def choose(browser, name): browser.run(f"[...document.querySelectorAll('#against button')].find(b => b.textContent === '{name}').click()")


def drag(browser, start, end, kind="mouse"):
    steps = [{"type": "pointerMove", "x": round(start[0]), "y": round(start[1]), "duration": 0}, {"type": "pointerDown", "button": 0},
             {"type": "pointerMove", "x": round(end[0]), "y": round(end[1]), "duration": 0}, {"type": "pointerUp", "button": 0}]
    browser("/actions", {"actions": [{"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}]})


def box(browser, css): return browser.run(f"(r => [r.left, r.top, r.width, r.height])(document.querySelector('{css}').getBoundingClientRect())")


def text(browser, css): return browser.run(f"document.querySelector('{css}').textContent")


def stop(browser): return browser.run("k + 1")


def split(browser): return browser.run("Number(document.getElementById('split').getAttribute('aria-valuenow'))")


def screenshot(browser, css):
    return np.array(Image.open(io.BytesIO(base64.b64decode(browser(f"/element/{element(browser, css)}/screenshot")))).convert("RGB"))


def test_opens_and_fetches_nothing(browser, page):
    address, data = page
    open_page(browser, address)
    assert (stop(browser), text(browser, "#bytes")) == (len(data["stops"]), f"{data['stops'][-1]['bytes']:,}") and text(browser, "#share") == "100 %"
    assert text(browser, "#psnr") == f"{data['stops'][-1]['psnr']:.2f} dB" and text(browser, "#ssim") == f"{data['stops'][-1]['ssim']:.4f}"
    assert browser.run("document.title") == "photo <1>.slic" == text(browser, "h1")
    assert browser.run("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    assert browser.run("[...document.images].length > 1 && [...document.images].every(i => !i.draggable && i.naturalWidth === 180)")
    assert browser.run("document.querySelectorAll('main').length") == 1
    assert f"{data['stops'][0]['bytes']:,}" in text(browser, "#least") and box(browser, "#before")[2] > 10  # the part without a picture
    assert browser("/se/log", {"type": "browser"}) == []  # neither an error nor a refusal of the content security policy


def test_the_policy_refuses_other_scripts_and_the_network(browser, page):
    open_page(browser, page[0])
    browser.run("(() => { const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s); new Image().src = 'http://127.0.0.1:9/a.png'; return 0; })()")
    assert browser.run("document.title") == "photo <1>.slic"
    assert len([e for e in browser("/se/log", {"type": "browser"}) if "Content Security Policy" in e["message"]]) == 2


def test_the_split_moves(browser, page):
    open_page(browser, page[0])
    left, top, width, height = box(browser, "#stage")
    assert split(browser) == 50
    for kind, share in (("mouse", 0.25), ("touch", 0.75)):
        knob = box(browser, "#split")
        drag(browser, (knob[0] + knob[2] / 2, top + height / 2), (left + share * width, top + height / 3), kind)
        assert split(browser) == pytest.approx(100 * share, abs=1)
        assert browser.run("getComputedStyle(document.getElementById('left')).clipPath") != "none"
    press(browser, "#split", LEFT); assert split(browser) == pytest.approx(73, abs=1)
    press(browser, "#split", HOME); assert split(browser) == 0
    press(browser, "#split", END + LEFT); assert split(browser) == 98


def test_both_sides_hold_their_pictures(browser, page, coded):
    """At 1:1, left of the split is the original and right of it what was decoded, pixel by pixel."""
    codec, photo, whole = coded
    address, data = page
    open_page(browser, address + "#stop=1")
    click(browser, "#one")
    left, top, width, height = box(browser, "#stage")
    seen = screenshot(browser, "#stage")
    x, y = (round(v) for v in np.subtract(box(browser, "#left img")[:2], (left, top)))
    seen = seen[y:y + H, x:x + W].astype(int)
    decoded = picture_of(data, data["stops"][0]).astype(int)
    assert np.abs(seen[60:, :60] - photo[60:, :60]).max() <= 1 and np.abs(seen[60:, -60:] - decoded[60:, -60:]).max() <= 1
    browser.run("document.getElementById('errors').click()")
    seen = screenshot(browser, "#stage")[y:y + H, x:x + W].astype(int)
    assert np.abs(seen[60:, -60:] - np.minimum(255, 8 * np.abs(decoded - photo))[60:, -60:]).max() <= 8  # the compositor rounds before it multiplies
    assert np.abs(seen[60:, :60] - photo[60:, :60]).max() <= 1 and text(browser, "#righttag").startswith("error of tiny")


def together(browser):
    """Where the pictures of both sides are, which is the same."""
    left, right = box(browser, "#left img"), box(browser, "#right img")
    assert left == right
    return left


def test_zoom_is_synchronous(browser, page):
    open_page(browser, page[0])
    fitted = together(browser)
    click(browser, "#in"); larger = together(browser)
    assert larger[2] == pytest.approx(1.5 * fitted[2], rel=1e-3)
    for _ in range(3): click(browser, "#in")
    larger = together(browser)
    stage = box(browser, "#stage")
    middle = (stage[0] + 0.7 * stage[2], stage[1] + stage[3] / 2)
    drag(browser, middle, (middle[0] - 40, middle[1] - 30))
    moved = together(browser)
    assert moved[:2] == pytest.approx([larger[0] - 40, larger[1] - 30], abs=1) and split(browser) == 50
    click(browser, "#one"); assert together(browser)[2:] == pytest.approx([W, H], abs=0.01) and text(browser, "#zoom") == "100 %"
    press(browser, "#stage", "+"); assert together(browser)[2] == pytest.approx(1.5 * W, rel=1e-3)
    press(browser, "#stage", "0"); assert together(browser) == pytest.approx(fitted, abs=1)
    under = lambda: [(middle[i] - r) / s for r in [together(browser)] for i, r, s in ((0, r[0], r[2]), (1, r[1], r[3]))]
    wheel = lambda dy: browser("/actions", {"actions": [{"type": "wheel", "id": "w", "actions": [{"type": "scroll", "x": round(middle[0]), "y": round(middle[1]), "deltaX": 0, "deltaY": dy, "duration": 0}]}]})
    for _ in range(8): wheel(-100)
    point = under()
    wheel(-100); assert under() == pytest.approx(point, abs=0.005)  # what is under the pointer stays there
    for _ in range(30): wheel(100)
    assert together(browser) == pytest.approx(fitted, abs=1)


def test_rivals_by_button(browser, page):
    address, data = page
    open_page(browser, address)
    assert [r["name"] for r in data["rivals"]][:2] == ["JPEG", "WebP"] and not text(browser, "#bytes2")
    for r in data["rivals"]:
        row = r["rows"][-1]
        choose(browser, r["name"])
        assert text(browser, "#bytes2") == f"{r['name']} {row['bytes']:,}" and text(browser, "#psnr2") == f"{r['name']} {row['psnr']:.2f} dB"
        assert browser.run("document.querySelector('#left img').src") == data["pictures"][row["picture"]]
        assert browser.run("[...document.querySelectorAll('#against [aria-pressed=true]')].map(b => b.textContent)") == [r["name"]]
        assert browser.run("document.querySelectorAll('#chart .chosen').length") == 1 == browser.run("document.querySelectorAll('#legend .chosen').length")
    assert browser.run("new Set([...document.querySelectorAll('#chart polyline')].map(p => getComputedStyle(p).strokeDasharray + getComputedStyle(p).stroke)).size") == 1 + len(data["rivals"])  # lines that can be told apart
    browser.run("rivals[0].rows[k] = null, draw()")
    choose(browser, "JPEG")
    assert browser.run("!document.getElementById('none').hidden") and f"its smallest takes {data['rivals'][0]['least']:,} bytes" in text(browser, "#none")


def test_the_address_chooses_a_stop(browser, page):
    address, data = page
    n = len(data["stops"])
    for asked, k in (("#stop=2", 2), ("#stop=1", 1), ("#stop=999", n), ("#stop=0", 1), ("#elsewhere", n)):
        open_page(browser, address + asked)
        assert stop(browser) == k and browser.run("Number(document.getElementById('stop').value)") == data["stops"][k - 1]["bytes"]


def test_the_slider_counts_bytes(browser, page):
    address, data = page
    stops, n = data["stops"], len(data["stops"])
    open_page(browser, address + "#stop=3")
    for key, k in ((RIGHT, 4), (LEFT, 3), (LEFT + LEFT, 1), (LEFT, 1), (END, n), (HOME, 1)):
        press(browser, "#stop", key)
        assert stop(browser) == k and browser.run("location.hash") == f"#stop={k}"
        assert f"{stops[k - 1]['bytes']:,} bytes" in browser.run("document.getElementById('stop').getAttribute('aria-valuetext')")
    left, top, width, height = box(browser, "#stop")
    at = lambda k: left + 11 + (width - 22) * stops[k]["bytes"] / stops[-1]["bytes"]  # the track begins at zero bytes
    thumb = box(browser, "#chart .now")
    assert thumb[0] + thumb[2] / 2 == pytest.approx(at(0), abs=1.5)  # the moving point stands over it
    drag(browser, (at(0), top + height / 2), (at(2) + 2, top + height / 2))
    assert stop(browser) == 3 and browser.run("Number(document.getElementById('stop').value)") == stops[2]["bytes"]


def test_play(browser, page):
    address, data = page
    open_page(browser, address + f"#stop={len(data['stops']) - 1}")
    browser.run("(window.setInterval = f => { window.tick = f; return 1; }, 0)")  # the clock is ours
    click(browser, "#play"); assert "Pause" in text(browser, "#play")
    browser.run("tick()")
    assert stop(browser) == len(data["stops"]) and "Play" in text(browser, "#play")
    click(browser, "#play"); assert stop(browser) == 1  # from the beginning
    click(browser, "#play"); assert "Play" in text(browser, "#play")


def test_the_keyboard_reaches_everything(browser, page):
    open_page(browser, page[0])
    reached = []
    for _ in range(20):
        browser("/actions", {"actions": [{"type": "key", "id": "k", "actions": [{"type": "keyDown", "value": TAB}, {"type": "keyUp", "value": TAB}]}]})
        reached.append(browser.run("document.activeElement === document.body ? '' : document.activeElement.id || document.activeElement.textContent"))
        assert reached[-1] == "" or browser.run("(s => s.outlineStyle !== 'none' || getComputedStyle(document.activeElement, '::after').outlineStyle !== 'none')(getComputedStyle(document.activeElement))"), reached[-1]
    assert {"stage", "split", "Original", "JPEG", "WebP", "errors", "out", "in", "fit", "one", "stop", "play"} <= set(reached)


def contrast(browser, css, what):
    """Between the color of an element and the sheet behind it, as WCAG counts it."""
    light = lambda e, w: np.array([int(v) / 255 for v in browser.run(f"getComputedStyle(document.querySelector('{e}')).{w}.match(/[0-9]+/g).slice(0, 3)")])
    a, b = sorted(0.05 + np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722] for c in (light(css, what), light(".rate", "backgroundColor")))
    return b / a


@pytest.mark.parametrize("width, height", [(390, 844), (1440, 900)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits_the_screen(browser, page, width, height, theme):
    window(browser, width, height)
    browser("/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": [{"name": "prefers-color-scheme", "value": theme}]}})
    open_page(browser, page[0])
    choose(browser, "JPEG")
    assert browser.run("innerWidth") == width and browser.run("document.documentElement.scrollWidth") <= width
    shade = [sum(map(int, browser.run(f"getComputedStyle(document.{e}).{what}.match(/[0-9]+/g).slice(0, 3)"))) for e, what in (("documentElement", "backgroundColor"), ("body", "color"))]
    assert (shade[0] > 600 and shade[1] < 200) if theme == "light" else (shade[0] < 150 and shade[1] > 600)
    lines = browser.run("[...document.querySelectorAll('dd, .ends span, #where, .tag, button')].filter(e => e.offsetParent && e.textContent)"
                        ".map(e => { const r = document.createRange(); r.selectNodeContents(e); return [e.textContent, new Set([...r.getClientRects()].map(b => Math.round(b.bottom / 12))).size, e.scrollWidth - e.clientWidth]; })")
    assert len(lines) > 15 and [row for row in lines if row[1] > 2 or row[2] > 1 and "tiny" not in row[0]] == []  # one line each, numbers beside small print included
    assert min(box(browser, css)[3] for css in ("#stop", "#play", "#one", "#errors")) >= 39 and box(browser, "#stop")[2] > 0.8 * min(width, 400)
    marks = browser.run("[...document.querySelectorAll('#chart .grid span')].map(e => e.getBoundingClientRect()).map(r => [r.left, r.right, r.top, r.bottom])")
    assert len(marks) > 1 and min(m[0] for m in marks) >= box(browser, ".rate")[0] and max(m[1] for m in marks) <= box(browser, "#empty")[0] and min(b[2] - a[3] for a, b in zip(marks[1:], marks)) > 2  # beside the plot, apart
    assert min(contrast(browser, e, "stroke") for e in ("#chart polyline.ours", "#chart polyline.chosen", "#chart .r1", "#chart .r2")) >= 3  # lines can be seen
    bottom = sum(box(browser, "#stage")[1::2])
    assert bottom < height
    picture = box(browser, "#right img")
    assert picture[2] / picture[3] == pytest.approx(W / H, rel=0.01)


def test_one_stop_and_no_original(browser, dialed, coded, tmp_path):
    photo = sample_photograph(300)[:H, :W]
    (tmp_path / "one.html").write_text(make_page(dialed, "one", dialed.encode(photo, 50)).text)
    open_page(browser, (tmp_path / "one.html").as_uri())
    hidden = lambda: {i for i in ("split", "against", "errors", "dial", "psnr", "ssim") if browser.run(f"document.getElementById('{i}').getClientRects().length") == 0}
    assert hidden() == {"split", "against", "errors", "dial", "psnr", "ssim"} and text(browser, "#bpp")
    (tmp_path / "more.html").write_text(make_page(coded[0], "more", coded[2], count=3).text)
    open_page(browser, (tmp_path / "more.html").as_uri())
    assert hidden() == {"against"} and stop(browser) == 1 and "whole file" in text(browser, "#psnrname") and text(browser, "#lefttag") == "whole file"
    press(browser, "#stop", END)
    assert text(browser, "#psnr") == "identical" and browser("/se/log", {"type": "browser"}) == []
