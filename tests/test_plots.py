"""What is drawn side by side can be told apart, and the word that warns of small networks covers nothing."""
import importlib.util
import io
import itertools
import json
from pathlib import Path

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from stanhlic.lab.curves import Curve
from stanhlic.lab.plots import COLORS, WIDTH, as_png, color, place_of, plot_rd, stacked, style

FIGURES = Path(__file__).resolve().parent.parent / "figures"
SEES = {  # linear RGB as people with full deuteranopia and protanopia see it (Machado, Oliveira and Fernandes 2009), and as others do
    "others": np.eye(3),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])}


def lab(code, sees):
    """CIELAB of "#rrggbb" through someone's eyes."""
    c = np.array([int(code[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    c = np.clip(sees @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), 0, 1)
    x, y, z = np.cbrt(np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ c / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(a, b): return min(np.linalg.norm(lab(a, sees) - lab(b, sees)) for sees in SEES.values())


@pytest.mark.parametrize("methods", [("rnn-hyper", "rnn-no-hyper", "bmshj2018-hyperprior", "mbt2018", "stanh", "jpeg2000"), ("stanh-1a-a40", "stanh-1a-a60", "vtm-rebuttal", "evc", "scr", "dcvc-intra"),
                                     ("stanh", "rnn", "progressive"), ("stanh", "stanh-fixed", "stanh-manual")], ids=" ".join)
def test_colors_of_one_figure_differ(methods):
    assert {(a, b): round(apart(color(a), color(b))) for a, b in itertools.combinations(methods, 2) if apart(color(a), color(b)) < 15} == {}


def test_colors_are_readable(): assert all(len(c) == 7 and c[0] == "#" and lab(c, SEES["others"])[0] < 82 for c in COLORS.values())


def stored():
    """(item, numbers of one panel) of every figure that plot_rd drew."""
    def find(node):
        if not isinstance(node, dict): return
        if "curves" in node and "metric" in node: yield node
        else: yield from (panel for v in node.values() for panel in find(v))
    for path in sorted(FIGURES.glob("*/*.json")):
        for panel in find(json.loads(path.read_text(encoding="utf-8")).get("figure")): yield f"{path.parent.name}/{path.stem} {panel['metric']}", panel


def hidden(ax):
    """Names of what a text of the axes lies on."""
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts]
    found = [line.get_label() for line in ax.get_lines() for box in boxes if line.get_transform().transform_path(line.get_path()).intersects_bbox(box, filled=False)]
    return found + ["legend" for box in boxes if ax.get_legend().get_window_extent().overlaps(box)] + ["text" for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize("name, panel", list(stored()), ids=lambda v: v if isinstance(v, str) else "")
def test_the_word_covers_nothing(name, panel):
    style()
    size = (6.4, 3.9) if len(panel["curves"]) > 6 else (4.1, 3.6)  # with the legend outside, and one panel of three
    curves = [Curve(c["method"], c["kind"], c["bpp"], c.get("psnr_db"), [1 - 10 ** (-v / 10) for v in c["ms-ssim_db"]] if "ms-ssim_db" in c else None, c["label"], "stored") for c in panel["curves"]]
    ax, _ = plot_rd(curves, panel["metric"], panel["reference"], plt.subplots(figsize=size, layout="tight")[1], bd_method=panel["bd_method"] or "pchip", title=panel["title"])
    warned = [t.get_text() for t in ax.texts]
    on = hidden(ax)
    plt.close("all")
    assert on == [] and warned == (["◆ dashed: compact model"] if any(c.kind == "compact" for c in curves) else [])


def test_curves_that_end_together_get_one_word():
    """Three compact curves with one end: once drawn as three words on one another."""
    r = [0.2, 0.4, 0.6]
    ax, _ = plot_rd([Curve("stanh", "compact", r, [27.5, 30, 31.8]), Curve("stanh-fixed", "compact", r, [27.2, 29.8, 31.8]), Curve("stanh-manual", "smoke", r, [27, 29.9, 31.8])])
    assert [t.get_text() for t in ax.texts] == ["◆ dashed: compact model\n× dotted: smoke run"] and hidden(ax) == []
    ax, _ = plot_rd([Curve("stanh", "full", r, [27.5, 30, 31.8]), Curve("vtm", "published", r, [27, 30, 32], source="x")])
    assert list(ax.texts) == []
    ax, _ = plot_rd([Curve("rnn", "compact", r, [27.5, 30, 31.8])])
    assert ax.texts[0].get_color() == color("rnn")
    plt.close("all")


def test_curves_of_a_smoke_run_can_be_told_apart():
    ax, _ = plot_rd([Curve(m, "smoke", [0.2, 0.4], [27, 30]) for m in ("stanh", "stanh-fixed", "stanh-manual")])
    assert len({line.get_color() for line in ax.get_lines()}) == 3
    plt.close("all")


def over(legend):
    """Does it lie on a line, a bar or a point?"""
    box, ax = legend.get_window_extent(), legend.axes
    lines = [line.get_transform().transform_path(line.get_path()) for line in ax.get_lines()]
    return any(p.intersects_bbox(box, filled=False) or any(box.contains(*v) for v in p.vertices) for p in lines) or any(p.get_window_extent().overlaps(box) for p in ax.patches)


def test_a_kept_figure_is_as_narrow_as_a_phone_and_its_legends_cover_nothing():
    style()
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(12, 3.6))
    for k in range(9): a.plot([0, 1], [k, k + 0.5], label=f"a curve of some method, number {k}")
    a.legend(loc="center")
    b.bar(range(4), [1, 1, 1, 1], label="bars that fill their axes to the top"); b.set_ylim(0, 1); b.legend()
    c.plot([0, 1], [0.2, 1], label="rising"); c.set_yscale("log"); c.set_ylim(0.1, 1); c.legend(loc="lower right")
    fig.legend(*a.get_legend_handles_labels(), loc="upper center", ncols=9)
    stacked(fig)
    fig.canvas.draw()
    tops = [ax.get_window_extent().y1 for ax in (a, b, c)]
    assert fig.get_figwidth() == WIDTH and tops[0] > tops[1] > tops[2] and len({round(ax.get_window_extent().x0) for ax in (a, b, c)}) == 1
    assert [over(ax.get_legend()) for ax in (a, b, c)] == [False] * 3 and c.get_legend().get_window_extent().y0 > c.get_window_extent().y0
    boxes = [ax.get_legend().get_window_extent() for ax in (a, b)]
    assert all(box.y1 < ax.get_window_extent().y0 for box, ax in zip(boxes, (a, b))) and boxes[0].y0 > tops[1]
    assert Image.open(io.BytesIO(as_png(fig))).width <= 150 * (WIDTH + 0.3)
    plt.close("all")


def test_figures_of_pictures_stay_as_they_are():
    fig, axes = plt.subplots(1, 3, figsize=(9, 3))
    axes[0].imshow(np.zeros((4, 4)))
    stacked(fig)
    assert fig.get_figwidth() == 9
    plt.close("all")


@pytest.mark.long
def test_figures_are_drawn_again_from_their_numbers():
    """What takes minutes to measure; a notebook that draws something else says so here."""
    spec = importlib.util.spec_from_file_location("redraw", FIGURES.parent / "tools/redraw.py")
    redraw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(redraw)
    assert len(redraw.kept()) > 15
    for name in redraw.kept():
        item = redraw.find_item(name)
        assert redraw.drawn(item, json.loads(redraw.files(item)[0].read_text(encoding="utf-8"))).axes, name
        plt.close("all")


def test_a_smoke_run_takes_the_place_of_no_other_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stem = Path("figures/stanh/rd_kodak")
    assert place_of(stem, "smoke") == stem  # nothing is there yet
    stem.parent.mkdir(parents=True)
    for kind, where in (("smoke", stem), ("compact", Path("runs") / stem), ("drawn", Path("runs") / stem)):
        stem.with_suffix(".json").write_text(json.dumps({"kind": kind}))
        if where == stem: assert place_of(stem, "smoke") == stem
        else:
            with pytest.warns(UserWarning, match=f"holds numbers of kind {kind}, .* written to runs"): assert place_of(stem, "smoke") == where
        assert place_of(stem, "compact") == stem
