"""One look for all figures: a method keeps its color, a mark says where a number comes from, and the numbers are saved beside the picture."""

import io, json, math, warnings, zlib
from pathlib import Path
import numpy as np
from PIL import Image
from ..errors import StanhlicError, needs
from ..images import atomic_write
from .curves import Curve, against, excess
from .tables import percent

with needs("figures"):
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogFormatterSciNotation
    from matplotlib.transforms import ScaledTranslation

COLORS = {
    "stanh": "#D55E00", "stanh-fixed": "#000000", "stanh-manual": "#E69F00", "stanh-msssim": "#AA3377", "stanh-1a-a60": "#FFB000",
    "rnn": "#009E73", "rnn-no-hyper": "#785EF0", "progressive": "#0072B2",
    "jpeg": "#999999", "jpeg2000": "#CC79A7", "webp": "#56B4E9", "avif": "#A58A00", "av1": "#A58A00",
    "vtm": "#4D4D4D", "hm": "#B0B0B0", "bpg": "#7B6A58", "zou22": "#332288", "mbt2018": "#882255", "bmshj2018": "#004488",
    "mlic": "#117733", "elic": "#999933", "tcm": "#AA4499", "cheng2020": "#DDAA33", "dpict": "#AA4499", "ctc": "#117733",
    "gain": "#CC6677", "gained": "#CC6677", "evc": "#117733", "scr": "#AA4499", "dcvc": "#88CCEE", "joint-qvrf": "#999933", "qarv": "#6699CC",
}
_SPARE = ("#661100", "#225522", "#777711", "#BB5566")

def color(
    method: str,  # name of a method
) -> str:         # "#rrggbb"
    """Color of a method, the same in every figure."""
    words = method.lower().replace("_", "-").split("-")
    known = ("-".join(words[:n]) for n in range(len(words), 0, -1))
    return next((COLORS[k] for k in known if k in COLORS), None) or _SPARE[zlib.crc32(method.lower().encode()) % len(_SPARE)]

def style():
    """Set matplotlib's defaults for all figures of this package: small, light grid, 80 dpi on screen and 150 in files."""
    plt.rcParams.update({
        "figure.figsize": (5.4, 3.6), "figure.dpi": 80, "savefig.dpi": 150, "savefig.bbox": "tight", "font.size": 9, "axes.titlesize": 9,
        "legend.fontsize": 8, "legend.title_fontsize": 8, "legend.frameon": True, "legend.framealpha": 0.85, "legend.edgecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "0.9", "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.3, "svg.hashsalt": "stanhlic",
    })

MARKS = {
    "published": dict(marker="o", markersize=4.5, markerfacecolor="white", linestyle="-", linewidth=1.0),
    "full": dict(marker="o", markersize=4.5, linestyle="-"),
    "compact": dict(marker="D", markersize=2.8, linestyle="--"),
    "measured": dict(marker=".", markersize=4, linestyle="-", linewidth=0.8),
    "smoke": dict(marker="x", markersize=4, linestyle=":"),
}
METRICS = {"psnr": "PSNR, 8-bit RGB (dB)", "ms-ssim": "MS-SSIM, RGB (dB)"}

def _bd(curve, reference, metric, method):
    "BD-rate against the reference, or why there is none: (dict, text for the legend)"
    if curve.kind == "smoke": return {"bd_rate": None, "bd_note": "a smoke run has no BD-rate"}, ""
    bd = against(curve, reference, metric, method)
    if bd["value"] is None: return {"bd_rate": None, "bd_note": bd["why"]}, "BD n/a"
    note = "" if bd["overlap"] >= 0.5 else f" ({bd['overlap']:.0%} overlap)"
    return {"bd_rate": bd["value"], "bd_low_db": bd["low"], "bd_high_db": bd["high"], "bd_overlap": bd["overlap"]}, percent(bd["value"]) + note

def _draw(ax, curve, y):
    "One curve with the mark of its kind: (line, name for the legend)"
    order = np.argsort(curve.bpp)
    line, = ax.plot(np.asarray(curve.bpp, float)[order], y[order], **({"color": color(curve.method)} | MARKS[curve.kind]))
    word = "smoke run" if curve.kind == "smoke" else curve.kind
    return line, curve.label if curve.label.rstrip(")").endswith(word) else f"{curve.label} ({word})"

def _warn(ax, kinds, lines):
    "A line in the upper left for each kind that must not be taken for a paper's, in their color where they share one: number of lines"
    words = [word for kind, word in (("compact", "◆ dashed: compact model"), ("smoke", "× dotted: smoke run")) if kind in kinds]
    tones = {line.get_color() for kind, line in zip(kinds, lines) if kind in ("compact", "smoke")}
    if words: ax.text(0.015, 0.985, "\n".join(words), transform=ax.transAxes, va="top", fontsize=8, color=tones.pop() if len(tones) == 1 else "0.25", bbox=dict(facecolor="white", edgecolor="none", alpha=0.85, pad=1.5))
    return len(words)

def plot_rd(
    curves: list[Curve],    # those without the metric are left out
    metric: str = "psnr",   # psnr or ms-ssim
    reference: str | None = None,  # label of the curve that BD-rates are against; None: no BD-rates
    ax=None,                # matplotlib axes, default new ones
    bd_method: str = "pchip",  # pchip, akima or cubic
    title: str | None = None,  # say the data set and the number of images
    xlim: tuple | None = None, # bpp
    ylim: tuple | None = None, # dB
) -> tuple:                 # (axes, numbers for save_figure)
    """Draw rate-distortion curves, each with the mark of its kind, BD-rates in the legend.

    Raises `StanhlicError` for an unknown metric or reference, or if no curve has the metric."""
    if metric not in METRICS: raise StanhlicError(f"unknown metric '{metric}'; choose {', '.join(METRICS)}")
    shown = [c for c in curves if c.quality(metric) is not None]
    if not shown: raise StanhlicError(f"no curve has {metric}; measure it first")
    anchor = next((c for c in shown if c.label == reference), None)
    if reference and anchor is None: raise StanhlicError(f"no curve with {metric} is labeled '{reference}'; there are {', '.join(c.label for c in shown)}")
    ax = ax or plt.subplots()[1]
    numbers = {"metric": metric, "reference": reference, "bd_method": bd_method if reference else None, "title": title, "curves": []}
    lines, names = [], []
    for c in shown:
        y = c.quality(metric)
        line, name = _draw(ax, c, y)
        bd, text = ({}, "") if anchor is None else ({}, "reference") if c is anchor else _bd(c, anchor, metric, bd_method)
        lines.append(line); names.append(f"{name}  {text}".rstrip())
        numbers["curves"].append({"method": c.method, "kind": c.kind, "label": c.label, "source": c.source, "bpp": c.bpp, f"{metric}_db": y, **bd})
    above = 0.07 * _warn(ax, [c.kind for c in shown], lines)
    legend = ax.legend(lines, names, title=f"BD-rate against {reference} ({bd_method})" if reference else None, alignment="left", loc="lower right")
    if len(names) > 6: _below(legend)
    ax.set(xlabel="rate (bits per pixel)", ylabel=METRICS[metric], title=title or "", xlim=xlim, ylim=ylim)
    if ylim is None: ax.set_ylim(top=ax.get_ylim()[1] + above * np.ptp(ax.get_ylim()))
    return ax, numbers

def plot_excess(
    pairs: list,  # (label, curve, the curve that it is held against)
    ax,           # matplotlib axes
    title: str,
):
    """Draw how much more rate curves need than others at equal PSNR, each line in the color of its first curve."""
    for k, (label, tested, reference) in enumerate(pairs):
        ax.plot(*excess(tested, reference), ("-", "--", ":", "-.")[k % 4], color=color(tested.method), label=label + " (smoke run)" * (tested.kind == "smoke"))
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set(xlabel=METRICS["psnr"], ylabel="rate at equal PSNR (%)", title=title)
    ax.legend()

def plain(
    value,  # nested dicts, lists, arrays, numbers
):          # the same of plain Python types; floats to 7 digits, not-finite ones as text
    """Anything with numbers in it, as JSON can hold it."""
    if isinstance(value, dict): return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)): return [plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)): return bool(value)
    if isinstance(value, np.integer): return int(value)
    if isinstance(value, (float, np.floating)): return float(f"{value:.7g}") if math.isfinite(value) else str(float(value))
    return value if value is None or isinstance(value, (int, str)) else str(value)

def write_numbers(
    path: str | Path,  # .json
    numbers: dict,
):
    """Numbers behind a figure as JSON; raises `StanhlicError` if they cannot be written."""
    atomic_write(path, (json.dumps(plain(numbers), indent=1, ensure_ascii=False) + "\n").encode())

def place_of(
    stem: str | Path,  # path without suffix
    kind: str,         # of the numbers to be written there
) -> Path:             # where they may be written
    """Where a figure goes: a smoke run never replaces other numbers, but goes to the same path under `runs`."""
    stem = Path(stem)
    try: there = json.loads(stem.with_name(f"{stem.name}.json").read_bytes()).get("kind")
    except (OSError, ValueError, AttributeError): return stem
    if kind != "smoke" or there == "smoke": return stem
    aside = Path("runs", stem) if not stem.is_absolute() else stem.parent / "smoke" / stem.name
    warnings.warn(f"{stem}.json holds numbers of kind {there}, which a smoke run does not replace; it was written to {aside}.json", stacklevel=3)
    return aside

WIDTH = 5.2  # inches of a figure in a file: on a phone its text of 9 points is then as large as the page's notes

def _below(legend):
    "The legend of axes anew, under their labels"
    ax = legend.axes
    return ax.legend(legend.legend_handles, [t.get_text() for t in legend.get_texts()], title=legend.get_title().get_text() or None, alignment="left", loc="upper left",
                     bbox_to_anchor=(0, 0), bbox_transform=ax.transAxes + ScaledTranslation(-0.3, -0.45, ax.figure.dpi_scale_trans))

def _covers(legend):
    "Does a legend lie outside its axes, or on a line, a bar or a point?"
    ax, box = legend.axes, legend.get_window_extent()
    paths = [line.get_transform().transform_path(line.get_path()) for line in ax.get_lines()]
    on = any(p.intersects_bbox(box, filled=False) or any(box.contains(x, y) for x, y in p.vertices) for p in paths) or any(p.get_window_extent().overlaps(box) for p in ax.patches)
    return on or not (ax.bbox.x0 - 1 <= box.x0 and box.x1 <= ax.bbox.x1 + 1)

def stacked(
    fig,  # matplotlib figure of panels in a grid; one that shows pictures stays as it is
):
    """Lay the panels of a figure out for files: one below another (two in a row if they have no legends of their own), legends where they cover nothing."""
    panels = [ax for ax in fig.axes if ax.get_subplotspec()]
    if fig.subfigs or len(panels) < len(fig.axes) or any(ax.images for ax in fig.axes): return
    columns = 2 if len(panels) > 3 and not any(ax.get_legend() for ax in panels) else 1
    grid, rows = panels[0].get_gridspec(), -(-len(panels) // columns)
    parts = np.array(grid.get_height_ratios() or [1] * grid.nrows, float)
    tall = [min(3.9, fig.get_figheight() * parts[ax.get_subplotspec().rowspan].sum() / parts.sum()) for ax in panels]
    heights = [max(tall[k * columns:(k + 1) * columns]) / (1.3 if columns > 1 else 1) for k in range(rows)]
    for ax, place in zip(panels, fig.add_gridspec(rows, columns, height_ratios=heights)):
        ax.set_subplotspec(place)
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_scale() == "log": axis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))  # else an axis of two decades has two numbers
    fig.set_layout_engine("constrained", h_pad=0.06)
    fig.set_size_inches(WIDTH, sum(heights))
    for old in list(fig.legends):
        old.remove()
        for many in (3, 2, 1):
            new = fig.legend(old.legend_handles, [t.get_text() for t in old.get_texts()], loc="outside lower center", ncols=many)
            fig.canvas.draw()
            if new.get_window_extent().width <= fig.bbox.width or many == 1: break
            new.remove()
    fig.canvas.draw()
    outside = [_below(legend) for ax in panels if (legend := ax.get_legend()) and _covers(legend)]
    fig.canvas.draw()
    fig.set_size_inches(WIDTH, sum(heights) + sum(legend.get_window_extent().height for legend in (*outside, *fig.legends)) / fig.dpi)

def as_png(
    fig,  # matplotlib figure
) -> bytes:
    """A figure as it is kept: laid out by `stacked`, 150 dpi, 256 colors."""
    stacked(fig)
    drawn, file = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", bbox_inches="tight", dpi=150)
    Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()

def save_figure(
    fig,                   # matplotlib figure, or axes
    stem: str | Path,      # path without suffix, e.g. figures/stanh/rd_kodak
    numbers: dict,         # what the figure shows, from plot_rd or made by hand; `kind` says what they are
) -> list:                 # paths written: .png, .json
    """Save a figure as .png, with the numbers behind it as .json; a smoke run spares what it would replace (`place_of`).

    Raises `StanhlicError` if there are no numbers or the place cannot be written."""
    if not numbers: raise StanhlicError(f"{stem}: a figure is saved with its numbers; pass a dict")
    fig, stem = fig.get_figure(), place_of(stem, numbers.get("kind"))
    try: stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e: raise StanhlicError(f"{stem.parent}: cannot be created ({e.strerror})") from e
    written = [stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.json")]
    atomic_write(written[0], as_png(fig))
    write_numbers(written[1], numbers)
    return written
