"""One look for all figures: a method keeps its colour, a mark says where a number comes from, and the numbers are saved beside the picture."""

import io, json, math, zlib
from dataclasses import dataclass
from pathlib import Path
import matplotlib.pyplot as plt
import numpy as np
from ..errors import StanhlicError
from ..images import atomic_write
from ..metrics import to_db
from .records import against, percent

COLOURS = {
    "stanh": "#D55E00", "stanh-fixed": "#000000", "stanh-manual": "#E69F00", "stanh-msssim": "#AA3377", "stanh-1a-a60": "#FFB000",
    "rnn": "#009E73", "rnn-no-hyper": "#785EF0", "progressive": "#0072B2",
    "jpeg": "#999999", "jpeg2000": "#CC79A7", "webp": "#56B4E9", "avif": "#A58A00", "av1": "#A58A00",
    "vtm": "#4D4D4D", "hm": "#B0B0B0", "bpg": "#7B6A58", "zou22": "#332288", "mbt2018": "#882255", "bmshj2018": "#004488",
    "mlic": "#117733", "elic": "#999933", "tcm": "#AA4499", "cheng2020": "#DDAA33", "dpict": "#AA4499", "ctc": "#117733",
    "gain": "#CC6677", "gained": "#CC6677", "evc": "#117733", "scr": "#AA4499", "dcvc": "#88CCEE", "joint-qvrf": "#999933", "qarv": "#6699CC",
}
_SPARE = ("#661100", "#225522", "#777711", "#BB5566")

def colour(
    method: str,  # name of a method
) -> str:         # "#rrggbb"
    """Colour of a method, the same in every figure."""
    words = method.lower().replace("_", "-").split("-")
    known = ("-".join(words[:n]) for n in range(len(words), 0, -1))
    return next((COLOURS[k] for k in known if k in COLOURS), None) or _SPARE[zlib.crc32(method.lower().encode()) % len(_SPARE)]

def style():
    """Set matplotlib's defaults for all figures of this package: small, light grid, 80 dpi on screen and 150 in files."""
    plt.rcParams.update({
        "figure.figsize": (5.4, 3.6), "figure.dpi": 80, "savefig.dpi": 150, "savefig.bbox": "tight", "font.size": 9, "axes.titlesize": 9,
        "legend.fontsize": 7.5, "legend.title_fontsize": 7.5, "legend.frameon": True, "legend.framealpha": 0.85, "legend.edgecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "0.9", "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.3, "svg.hashsalt": "stanhlic",
    })

KINDS = {
    "published": dict(marker="o", markersize=4.5, markerfacecolor="white", linestyle="-", linewidth=1.0),
    "full": dict(marker="o", markersize=4.5, linestyle="-"),
    "compact": dict(marker="D", markersize=2.8, linestyle="--"),
    "measured": dict(marker=".", markersize=4, linestyle="-", linewidth=0.8),
    "smoke": dict(marker="x", markersize=4, linestyle=":", color="0.6"),
}
METRICS = {"psnr": "PSNR, 8-bit RGB (dB)", "ms-ssim": "MS-SSIM, RGB (dB)"}

@dataclass
class Curve:
    "A rate-distortion curve and where it comes from; raises `StanhlicError` for an unknown kind or uneven lists"
    method: str                  # chooses the colour
    kind: str                    # published, full, compact, measured or smoke
    bpp: list                    # rates [n]
    psnr: list | None = None     # dB [n]
    ms_ssim: list | None = None  # in [0, 1] [n]
    label: str | None = None     # name in the legend, default the method
    source: str | None = None    # file, repository or table of the numbers
    def __post_init__(self):
        if self.kind not in KINDS: raise StanhlicError(f"unknown kind of curve '{self.kind}'; choose {', '.join(KINDS)}")
        for v in (self.psnr, self.ms_ssim):
            if v is not None and len(v) != len(self.bpp): raise StanhlicError(f"curve {self.method}: {len(self.bpp)} rates but {len(v)} qualities")
        if self.kind == "published" and not self.source: raise StanhlicError(f"curve {self.method}: published numbers need a source")
        self.label = self.label or self.method

    def quality(self, metric):  # dB [n], or None where the curve has no such metric
        "Quality axis in dB"
        values = self.psnr if metric == "psnr" else self.ms_ssim
        if values is None or None in list(values): return None
        return np.asarray(values, float) if metric == "psnr" else to_db(np.asarray(values, float))

def from_results(
    data: dict,    # CompressAI's schema: name, results {bpp, psnr-rgb, ms-ssim-rgb}
    method: str,   # chooses the colour
    kind: str,     # published, full, compact, measured or smoke
    label: str | None = None,   # default: the name in the data
    source: str | None = None,  # default: the description in the data
) -> Curve:
    """A curve from a result file; raises `StanhlicError` if it has no rates."""
    r = data.get("results", {})
    if not r.get("bpp"): raise StanhlicError(f"results of {method} have no 'bpp'; expected CompressAI's schema")
    return Curve(method, kind, r["bpp"], r.get("psnr-rgb"), r.get("ms-ssim-rgb", r.get("ms-ssim")), label or data.get("name"), source or data.get("description"))

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
    line, = ax.plot(np.asarray(curve.bpp, float)[order], y[order], **({"color": colour(curve.method)} | KINDS[curve.kind]))
    word = "smoke run" if curve.kind == "smoke" else curve.kind
    return line, curve.label if curve.label.rstrip(")").endswith(word) else f"{curve.label} ({word})"

def _warn(ax, kinds, lines):
    "A line in the upper left for each kind that must not be taken for a paper's, in their colour where they share one: number of lines"
    words = [word for kind, word in (("compact", "◆ dashed: compact model"), ("smoke", "× dotted: smoke run")) if kind in kinds]
    tones = {line.get_color() for kind, line in zip(kinds, lines) if kind in ("compact", "smoke")}
    if words: ax.text(0.015, 0.985, "\n".join(words), transform=ax.transAxes, va="top", fontsize=8, color=tones.pop() if len(tones) == 1 else "0.25", bbox=dict(facecolor="white", edgecolor="none", alpha=0.85, pad=1.5))
    return len(words)

def plot_rd(
    curves: list,           # of Curve; those without the metric are left out
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
    if reference and anchor is None: raise StanhlicError(f"no curve with {metric} is labelled '{reference}'; there are {', '.join(c.label for c in shown)}")
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
    place = dict(loc="upper left", bbox_to_anchor=(1.01, 1)) if len(names) > 6 else dict(loc="lower right")
    ax.legend(lines, names, title=f"BD-rate against {reference} ({bd_method})" if reference else None, alignment="left", **place)
    ax.set(xlabel="rate (bits per pixel)", ylabel=METRICS[metric], title=title or "", xlim=xlim, ylim=ylim)
    if ylim is None: ax.set_ylim(top=ax.get_ylim()[1] + above * np.ptp(ax.get_ylim()))
    return ax, numbers

def plain(
    value,  # nested dicts, lists, arrays, numbers
):          # the same of plain Python types; floats to 7 digits, not-finite ones as text
    """Anything with numbers in it as JSON can hold it."""
    if isinstance(value, dict): return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)): return [plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)): return bool(value)
    if isinstance(value, np.integer): return int(value)
    if isinstance(value, (float, np.floating)): return float(f"{value:.7g}") if math.isfinite(value) else str(float(value))
    return value if value is None or isinstance(value, (int, str)) else str(value)

def save_figure(
    fig,                   # matplotlib figure, or axes
    stem: str | Path,      # path without suffix, e.g. figures/stanh/fig05
    numbers: dict,         # what the figure shows, from plot_rd or made by hand
    vector: bool = False,  # also a .pdf
    dpi: int = 150,        # of the .png
) -> list:                 # paths written
    """Save a figure as .png with the numbers behind it as .json, and as .pdf if asked.

    Raises `StanhlicError` if there are no numbers or the place cannot be written."""
    if not numbers: raise StanhlicError(f"{stem}: a figure is saved with its numbers; pass a dict")
    fig, stem, written = fig.get_figure(), Path(stem), []
    try: stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e: raise StanhlicError(f"{stem.parent}: cannot be made ({e.strerror})") from e
    for kind, options in [("png", dict(dpi=dpi, metadata={"Software": None}))] + ([("pdf", dict(metadata={"CreationDate": None}))] if vector else []):
        out = io.BytesIO(); fig.savefig(out, format=kind, bbox_inches="tight", **options)
        written.append(stem.with_name(f"{stem.name}.{kind}")); atomic_write(written[-1], out.getvalue())
    written.append(stem.with_name(f"{stem.name}.json"))
    atomic_write(written[-1], (json.dumps(plain(numbers), indent=1, ensure_ascii=False) + "\n").encode())
    return written
