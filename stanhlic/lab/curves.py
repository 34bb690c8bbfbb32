"""Rate-distortion curves and where they come from: published, measured here, or kept from an earlier item; one against another."""

import csv, json, warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
import numpy as np
import stanhlic
from ..errors import StanhlicError
from ..images import read_bytes
from ..metrics import bd_rate, bpp, pareto, psnr, to_db
from .classical import CODECS

ORIGINS = ("published", "full", "compact", "measured", "smoke")  # kinds of a curve; classical codecs are "measured", they have no size

@dataclass
class Curve:
    "A rate-distortion curve and where it comes from; raises `StanhlicError` for an unknown kind or uneven lists"
    method: str                  # chooses the color
    kind: str                    # published, full, compact, measured or smoke
    bpp: list                    # rates [n]
    psnr: list | None = None     # dB [n]
    ms_ssim: list | None = None  # in [0, 1] [n]
    label: str | None = None     # name in the legend, default the method
    source: str | None = None    # file, repository or table of the numbers
    def __post_init__(self):
        if self.kind not in ORIGINS: raise StanhlicError(f"unknown kind of curve '{self.kind}'; choose {', '.join(ORIGINS)}")
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
    method: str,   # chooses the color
    kind: str,     # published, full, compact, measured or smoke
    label: str | None = None,   # default: the name in the data
    source: str | None = None,  # default: the description in the data
) -> Curve:
    """A curve from a result file; raises `StanhlicError` if it has no rates."""
    r = data.get("results", {})
    if not r.get("bpp"): raise StanhlicError(f"results of {method} have no 'bpp'; expected CompressAI's schema")
    return Curve(method, kind, r["bpp"], r.get("psnr-rgb"), r.get("ms-ssim-rgb", r.get("ms-ssim")), label or data.get("name"), source or data.get("description"))

def published_folder() -> Path:  # holds the .csv files
    """Where the published numbers are: inside the installed package, else in the repository."""
    package = Path(stanhlic.__file__).resolve().parent
    for folder in (package / "published", package.parent / "data" / "published"):
        if any(folder.glob("*.csv")): return folder
    raise StanhlicError("the published numbers are missing from this installation; install stanhlic again")

@cache
def archive() -> tuple:  # rows: method, dataset, metric, bpp, value, kind, source, file
    """All published points, in the order of the files."""
    rows = []
    for path in sorted(published_folder().glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as f:
            rows += [dict(r, bpp=float(r["bpp"]), value=float(r["value"]), file=path.name) for r in csv.DictReader(f)]
    return tuple(rows)

def published(
    method: str,                 # as in data/published
    dataset: str = "kodak",      # likewise
    label: str | None = None,    # in the legend; default: the method
    color: str | None = None,    # method whose color it takes; default: its own
    interpolated: bool = False,  # STanH's interpolated points too
    file: str | None = None,     # only from this file of data/published
) -> Curve:
    """A published curve with its source; raises `StanhlicError` if there is none."""
    own = [r for r in archive() if r["method"] == method and r["dataset"] == dataset and (interpolated or r["kind"] != "interpolated") and file in (None, r["file"])]
    points = {m: sorted((r["bpp"], r["value"]) for r in own if r["metric"] == m) for m in ("psnr", "ms-ssim-db")}
    main = points["psnr"] or points["ms-ssim-db"]
    if not main: raise StanhlicError(f"no published curve '{method}' on {dataset}; data/published holds {', '.join(sorted({r['method'] for r in archive() if r['dataset'] == dataset})) or 'none there'}")
    whole = len(points["ms-ssim-db"]) == len(main)
    return Curve(color or method, "published", [b for b, _ in main], [v for _, v in points["psnr"]] or None,
                 [1 - 10 ** (-v / 10) for _, v in points["ms-ssim-db"]] if whole else None, label or method, own[0]["source"])

def against(
    tested: Curve,
    reference: Curve,
    metric: str = "psnr",  # psnr or ms-ssim
    method: str = "pchip", # pchip, akima or cubic
) -> dict:                 # value (percent of rate, or None), low, high (dB), overlap, or why
    """BD-rate of a curve against another, each without the points that another of its own beats; `why` says what prevents it."""
    if tested.quality(metric) is None or reference.quality(metric) is None: return {"value": None, "why": f"no {metric}"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of little overlap; the row says it
            return bd_rate(*(v for c in (reference, tested) for v in pareto(c.bpp, c.quality(metric))), method)._asdict()
    except StanhlicError as e: return {"value": None, "why": str(e)}

def follow(
    codec,              # one whose files may be cut at any byte
    array: np.ndarray,  # picture, uint8 (H, W, 3)
    data: bytes,        # its file
    cuts: int,          # places to cut it at, evenly in log rate from its base to its end
) -> list:              # (bpp, PSNR in dB) at each place
    """What the beginnings of one file show, as a decoder sees them that is fed in portions."""
    d, at, points = codec.decoder(), 0, []
    for place in np.geomspace(codec.cuts(data)[0], len(data), cuts).round().astype(int):
        points.append((bpp(place, *array.shape[:2]), psnr(array, d.feed(data[at:place]).image())))
        at = place
    return points

def excess(
    tested: Curve,
    reference: Curve,
    points: int = 60,
) -> tuple:  # PSNR in dB [points], percent of the reference's rate [points]; both empty if they share no quality
    """How much more rate a curve needs than another at each PSNR that both reach, log rates interpolated linearly between undominated points."""
    (b, q), (b0, q0) = (pareto(c.bpp, c.quality("psnr")) for c in (tested, reference))
    at = np.linspace(max(q[0], q0[0]), min(q[-1], q0[-1]), points)
    if at[0] >= at[-1]: return np.array([]), np.array([])
    return at, 100 * (np.exp(np.interp(at, q, np.log(b)) - np.interp(at, q0, np.log(b0))) - 1)

def figure_numbers(
    path: str | Path,  # .json beside a picture
) -> dict | None:      # None if it is not there
    """The numbers behind a figure, looked for here and in the folders above; raises `StanhlicError` if the file is not JSON."""
    found = next((p for p in (folder / path for folder in (Path.cwd(), *Path.cwd().parents)) if p.is_file()), None)
    if found is None: return None
    try: return json.loads(read_bytes(found))
    except ValueError as e: raise StanhlicError(f"{found}: not JSON; remove it and run its item again") from e

def made_with(
    numbers: dict,  # behind a figure
) -> str:
    """The weights behind a figure's numbers, in words."""
    return ", ".join(f"{name} {fingerprint}" for name, fingerprint in (numbers.get("made_by") or {}).get("weights", {}).items()) or "unknown"

def measured(
    path: str | Path,            # .json of an item that has a table of bpp and psnr
    method: str,                 # chooses the color
    label: str | None = None,    # in the legend
    trained: bool = False,       # leave interpolated points out
) -> Curve | None:               # None if the item was not run
    """Our own curve from the numbers of an earlier item."""
    numbers = figure_numbers(path)
    rows = [r for r in (numbers or {}).get("table", []) if not (trained and str(r.get("point", "")).startswith("interpolated"))]
    if not rows: return None
    similar = [r.get("ms_ssim_db") for r in rows]
    return Curve(method, numbers["kind"], [r["bpp"] for r in rows], [r["psnr"] for r in rows],
                 None if None in similar else [1 - 10 ** (-v / 10) for v in similar], label, f"{Path(path).name}, weights {made_with(numbers)}")

def classical_curves(
    path: str | Path,  # .json of an item that measured classical codecs
    images: str,       # what the pictures were, as `demo_images` says
) -> dict:             # codec -> Curve; none if the item was not run, or ran on other pictures
    """Curves of classical codecs from the numbers of an earlier item."""
    numbers = figure_numbers(path) or {}
    if numbers.get("images") != images: return {}
    return {n: Curve(n, "measured", c["bpp"], c["psnr-rgb"], c["ms-ssim-rgb"], CODECS[n].label) for n, c in numbers.get("classical", {}).items()}
