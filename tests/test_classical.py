"""Classical codecs through Pillow, and the figures they appear in."""
import json

import matplotlib
matplotlib.use("Agg")
import numpy as np
import pytest

from stanhlic.lab.classical import CODECS, available, decode, encode, measure, sweep
from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.metrics import psnr
from stanhlic.lab.curves import Curve, from_results
from stanhlic.lab.plots import plot_rd, save_figure

NAMES = [n for n in CODECS if available(n)]


@pytest.fixture(scope="module")
def photo(): return sample_photograph(200)


def test_pillow_has_the_usual_codecs(): assert {"jpeg", "webp", "jpeg2000"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_quality_is_monotone(name, photo):
    c = CODECS[name]
    files = [encode(name, photo, q) for q in c.defaults]
    quality = [psnr(photo, decode(name, f)) for f in files]
    assert all(a < b for a, b in zip(quality, quality[1:])) and all(len(a) < len(b) for a, b in zip(files, files[1:]))


@pytest.mark.parametrize("name", NAMES)
def test_odd_sizes_and_refusals(name, photo):
    for h, w in ((1, 1), (17, 33)): assert decode(name, encode(name, photo[:h, :w], CODECS[name].defaults[-1])).shape == (h, w, 3)
    for q in (CODECS[name].low - 1, CODECS[name].high + 1):
        with pytest.raises(StanhlicError, match="out of range"): encode(name, photo, q)
    for bad in (b"", b"junk", encode(name, photo, CODECS[name].defaults[2])[:40]):
        with pytest.raises(StanhlicError, match="cannot decode"): decode(name, bad)


def test_jpeg2000_obeys_the_rate(photo):
    assert measure("jpeg2000", photo, 0.8, similarity=False)["bpp"] == pytest.approx(0.8, rel=0.03)


def test_sweep_has_the_schema_and_means(photo):
    images = [("a", photo), ("b", photo[:, ::-1].copy())]
    s = sweep("jpeg", images, (20, 60), progress=False)
    each = [measure("jpeg", a, 60) for _, a in images]
    assert {"name", "description", "results"} <= set(s) and json.loads(json.dumps(s)) == s
    assert {len(v) for v in s["results"].values()} == {2}
    for k in ("bpp", "psnr-rgb", "ms-ssim-rgb"): assert s["results"][k][1] == pytest.approx(np.mean([m[k] for m in each]))
    small = sweep("jpeg", [("c", photo[:100])], (50,), progress=False)
    assert small["results"]["ms-ssim-rgb"] == [None] and from_results(small, "jpeg", "measured").quality("ms-ssim") is None


def test_figure_and_numbers(photo, tmp_path):
    images = [("a", photo)]
    curves = [from_results(sweep(n, images, similarity=False, progress=False), n, "measured") for n in ("jpeg", "webp")]
    compact = Curve("stanh", "compact", [0.9 * r for r in curves[0].bpp], curves[0].psnr, label="STanH")
    ax, numbers = plot_rd(curves + [compact], reference="JPEG", title="sample photograph")
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert "STanH (compact)  −10.0 %" in texts and "JPEG (measured)  reference" in texts
    assert [t.get_text() for t in ax.texts] == ["◆ dashed: compact model"]
    png, saved = save_figure(ax, tmp_path / "stanh" / "fig", numbers)
    matplotlib.pyplot.close("all")
    assert png.read_bytes()[:4] == b"\x89PNG" and json.loads(saved.read_text())["curves"][2]["bd_rate"] == pytest.approx(-10)
    with pytest.raises(StanhlicError, match="cannot be created"): save_figure(ax, saved / "fig", numbers)


def test_marks_tell_kinds_apart():
    ax, _ = plot_rd([Curve("stanh", k, [0.1, 0.2], [30, 32], source="x") for k in ("published", "full", "compact")])
    looks = [(l.get_marker(), l.get_markerfacecolor(), l.get_linestyle()) for l in ax.get_lines()]
    matplotlib.pyplot.close("all")
    assert len(set(looks)) == 3 and looks[0][1] == "white" and len({l.get_color() for l in ax.get_lines()}) == 1
