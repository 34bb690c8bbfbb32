"""What others measured, as curves; and the small tables that set it beside ours."""

import csv
import warnings
from functools import cache
from pathlib import Path
import stanhlic
from ..errors import StanhlicError

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
    method: str,                 # as data/published names it
    dataset: str = "kodak",      # likewise
    label: str | None = None,    # in the legend; default: the method
    colour: str | None = None,   # method whose colour it takes; default: its own
    interpolated: bool = False,  # STanH's interpolated points too
    file: str | None = None,     # only from this file of data/published
):                               # Curve of published points
    """A published curve with its source; raises `StanhlicError` if there is none."""
    from stanhlic.lab.plots import Curve
    own = [r for r in archive() if r["method"] == method and r["dataset"] == dataset and (interpolated or r["kind"] != "interpolated") and file in (None, r["file"])]
    points = {m: sorted((r["bpp"], r["value"]) for r in own if r["metric"] == m) for m in ("psnr", "ms-ssim-db")}
    main = points["psnr"] or points["ms-ssim-db"]
    if not main: raise StanhlicError(f"no published curve '{method}' on {dataset}; data/published holds {', '.join(sorted({r['method'] for r in archive() if r['dataset'] == dataset})) or 'none there'}")
    whole = len(points["ms-ssim-db"]) == len(main)
    return Curve(colour or method, "published", [b for b, _ in main], [v for _, v in points["psnr"]] or None,
                 [1 - 10 ** (-v / 10) for _, v in points["ms-ssim-db"]] if whole else None, label or method, own[0]["source"])

def against(
    tested,                # Curve
    reference,             # Curve
    metric: str = "psnr",  # psnr or ms-ssim
    method: str = "pchip", # pchip, akima or cubic
) -> dict:                 # value (percent of rate, or None), low, high (dB), overlap, or why
    """BD-rate of a curve against another, each without the points that another of its own beats; `why` says what is in the way."""
    from stanhlic.metrics import bd_rate, pareto
    if tested.quality(metric) is None or reference.quality(metric) is None: return {"value": None, "why": f"no {metric}"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of little overlap; the row says it
            return bd_rate(*(v for c in (reference, tested) for v in pareto(c.bpp, c.quality(metric))), method)._asdict()
    except StanhlicError as e: return {"value": None, "why": str(e)}

def percent(
    value: float | None,  # in percent
    digits: int = 1,      # after the point
) -> str | None:          # with sign; None stays None
    """A percentage as tables show it."""
    return None if value is None else f"{value:+.{digits}f} %".replace("-", "−")

def table(
    rows: list,       # mappings with equal keys
    digits: int = 4,  # significant ones of a float
):                    # IPython Markdown, to be shown
    """Rows as a Markdown table; an empty list says so."""
    from IPython.display import Markdown
    if not rows: return Markdown("*nothing to show*")
    def show(v): return "" if v is None else f"{v:.{digits}g}" if isinstance(v, float) else str(v)
    lines = [list(rows[0]), ["---"] * len(rows[0])] + [[show(v).replace("|", "\\|") for v in r.values()] for r in rows]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))

def figure_numbers(
    path: str | Path,  # .json beside a picture
) -> dict | None:      # None if it is not there
    """The numbers behind a figure, looked for here and in the folders above; raises `StanhlicError` if the file is no JSON."""
    import json
    from stanhlic.images import read_bytes
    found = next((p for p in (folder / path for folder in (Path.cwd(), *Path.cwd().parents)) if p.is_file()), None)
    if found is None: return None
    try: return json.loads(read_bytes(found))
    except ValueError as e: raise StanhlicError(f"{found}: not JSON; remove it and run its item again") from e

def measured(
    path: str | Path,            # .json of an item that has a table of bpp and psnr
    method: str,                 # chooses the colour
    label: str | None = None,    # in the legend
    trained: bool = False,       # leave interpolated points out
):                               # Curve, or None if the item was not run
    """Our own curve from the numbers of an earlier item."""
    from stanhlic.lab.plots import Curve
    numbers = figure_numbers(path)
    rows = [r for r in (numbers or {}).get("table", []) if not (trained and str(r.get("point", "")).startswith("interpolated"))]
    if not rows: return None
    similar = [r.get("ms_ssim_db") for r in rows]
    return Curve(method, numbers["kind"], [r["bpp"] for r in rows], [r["psnr"] for r in rows],
                 None if None in similar else [1 - 10 ** (-v / 10) for v in similar], label, f"{Path(path).name}, model {numbers.get('fingerprint', 'unknown')}")

def classical_curves(
    path: str | Path,  # .json of an item that measured classical codecs
    images: str,       # what the pictures were, as `demo_images` says
) -> dict:             # codec -> Curve; none if the item was not run, or ran on other pictures
    """Curves of classical codecs from the numbers of an earlier item."""
    from stanhlic.lab.classical import CODECS
    from stanhlic.lab.plots import Curve
    numbers = figure_numbers(path) or {}
    if numbers.get("images") != images: return {}
    return {n: Curve(n, "measured", c["bpp"], c["psnr-rgb"], c["ms-ssim-rgb"], CODECS[n].label) for n, c in numbers.get("classical", {}).items()}

def rivals(
    path: str | Path,  # .json of an item that measured a model and classical codecs
    images: str,       # what the pictures were, as `demo_images` says
    name: str,         # key of that model's curve
    method: str,       # chooses its colour
    label: str,        # in the legend
) -> dict:             # key -> Curve; none if the item was not run, or ran on other pictures
    """Trained points of an earlier item's model, the classical codecs beside it, and the published curve of BPG."""
    classical = classical_curves(path, images)
    if not classical or figure_numbers(path)["kind"] == "smoke": return {}
    return {name: measured(path, method, label, trained=True), **classical, "bpg": published("bpg", label="BPG 4:4:4, published")}
