"""One self-contained HTML page that shows what a codec does to a picture: a slider over bytes, beside the original and JPEG, WebP and AVIF of the same size."""

import base64, hashlib, html, io, json, math, re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
import numpy as np
from PIL import Image, __version__ as pillow_version
from .container import read_header
from .errors import StanhlicError, printable
from .evaluate import measures_similarity
from .files import cores
from .lab import classical
from .metrics import MS_SSIM_MIN_SIDE, ms_ssim, psnr

RATIO = 1.1                    # of the bytes of neighboring stops: a third of a decibel or so, a step that can be seen
LARGE = 2_000_000              # pixels from which a page has fewer stops
LOSSLESS = 8_000_000           # pixels of all stops together up to which their copies are lossless
COPY = 92                      # quality of the JPEG copies (4:4:4) beyond that
CLOSE = 0.97                   # share of the bytes that a file of JPEG, WebP or AVIF must fill to be taken

class Plan(NamedTuple):
    """Stops before they are made; `make` takes them in order."""
    places: list     # lengths of a file that may be cut, or positions of a dial
    make: Callable   # place -> bytes of the file, label, picture uint8 [H, W, 3]
    first: int       # number of the stop at which the page opens
    before: str      # what the page says of the bytes before the first stop

class Page(NamedTuple):
    """A page, and what to say about it."""
    text: str          # HTML
    note: str | None   # one line if the file is cut or damaged
    stops: int

def stop_count(
    least: int,   # bytes of the first stop
    most: int,    # and of the last one
    pixels: int,  # of the picture
) -> int:         # 1 to 24; at most 12 for a large picture
    """Stops of which each has at least a tenth more bytes than the one before."""
    return min(12 if pixels >= LARGE else 24, 1 + math.floor(math.log(max(most / least, 1)) / math.log(RATIO) + 1e-9))

def choose_stops(
    lengths,     # lengths at which a file may be cut, in increasing order
    count: int,  # stops wanted, at least 1
) -> list:       # lengths, the first and the last among them
    """About `count` of the lengths, at equal ratios; all of them if there are fewer."""
    lengths = np.asarray(lengths)
    if len(lengths) <= count: return lengths.tolist()
    at = np.searchsorted(lengths, np.geomspace(lengths[0], lengths[-1], max(count, 2))).clip(max=len(lengths) - 1)
    return np.unique(lengths[[0, *at[1:-1], -1]]).tolist()

def plan_file(
    codec,
    data: bytes,        # a `.slic` file, perhaps cut
    count: int = None,  # stops, about; by default every layer, or as many as `stop_count` says
) -> Plan:
    """Stops of a file: beginnings of it, decoded as they would arrive. Raises `StanhlicError` if there is no picture in it."""
    header, lengths, seen = read_header(data), codec.cuts(data), 0
    decoder = codec.decoder()
    if not len(lengths): decoder.feed(data).image()  # says why
    layers = codec.describe(header)["layers"] if codec.layers else 0
    def make(n):
        nonlocal seen
        decoder.feed(data[seen:n]); seen = n
        label = f"layer {lengths.index(n) + 1} of {layers}" if layers else f"{100 * n / len(data):.0f} % of the file" if codec.truncatable else f"quality {codec.describe(header)['quality']:.3g}"
        return n, label, decoder.image()
    places = choose_stops(lengths, count or layers or stop_count(lengths[0], lengths[-1], header.height * header.width))
    return Plan(places, make, len(places), "no picture before")

def plan_dial(
    codec,
    original: np.ndarray,  # uint8 [H, W, 3]
    data: bytes = None,    # a file of it, which becomes one of the stops
    count: int = None,     # stops, about; by default round qualities, as many as `stop_count` allows
    effort: int = 0,       # of the encoder, 0 to 9
) -> Plan:
    """Stops of a picture on a dial: a real file at each position."""
    a = codec.analyze(original)
    def write(n): return codec.encode(a, codec.quality_at(n, a), effort=effort)
    last, quality = codec.last(a), codec.default_quality if data is None else codec.describe(read_header(data))["quality"]
    files = {0: write(0), last: write(last)}
    if data is not None: files[codec.position_at(quality, a)] = data
    def make(n):
        found = files.get(n) or write(n)
        return len(found), f"quality {codec.quality_at(n, a):.3g}", codec.decode(found)
    most = stop_count(len(files[0]), len(files[last]), a.height * a.width)
    steps = count - 1 if count else max(n for n in (1, 2, 4, 5, 10, 20) if n < max(most, 2))
    places = sorted({*(codec.position_at(100 * i / steps, a) for i in range(steps + 1)), *files})
    return Plan(places, make, 1 + min(range(len(places)), key=lambda i: abs(places[i] - codec.position_at(quality, a))), "the dial begins at")

def embed(
    picture: np.ndarray,  # uint8 [H, W, 3]
    lossless: bool,
) -> bytes:               # WebP or PNG if lossless, else JPEG
    """A picture as a browser reads it."""
    side = max(picture.shape)
    kind = ("PNG" if side > 16_383 else "WEBP") if lossless or side > 65_500 else "JPEG"
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **{"WEBP": dict(lossless=True, method=2, quality=50), "JPEG": dict(quality=COPY, subsampling=0, optimize=True)}.get(kind, {}))
    return out.getvalue()

def _uri(data):
    kind = "png" if data[:4] == b"\x89PNG" else "jpeg" if data[:2] == b"\xff\xd8" else "webp" if data[8:12] == b"WEBP" else "avif"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

def measure(
    reference: np.ndarray,  # uint8 [H, W, 3]
    picture: np.ndarray,    # uint8 [H, W, 3]
    similarity: bool,       # MS-SSIM too, which takes longer than most codecs
) -> dict:                  # psnr in dB, None if the pictures are equal; ssim, None if not measured
    """How near a picture is to another."""
    value = psnr(reference, picture)
    similar = similarity and measures_similarity() and min(reference.shape[:2]) >= MS_SSIM_MIN_SIDE
    return {"psnr": round(value, 4) if math.isfinite(value) else None, "ssim": round(ms_ssim(reference, picture), 6) if similar else None}

class Rival:
    """JPEG, WebP or AVIF beside ours: `within(size)` finds its largest file of so many bytes; what was tried is kept."""

    def __init__(
        self,
        name: str,              # of `lab.classical`
        original: np.ndarray,   # uint8 [H, W, 3]
        similarity: bool,       # measure MS-SSIM too
    ):
        self.name, self.original, self.similarity, self.files, self.rows = name, original, similarity, {}, {}
        self.codec = classical.CODECS[name]

    def fits(self, quality: int, size: int) -> bool:
        """Is the file of this quality within a size?"""
        if quality not in self.files: self.files[quality] = classical.encode(self.name, self.original, quality)
        return len(self.files[quality]) <= size

    def within(self, size: int) -> dict | None:  # bytes, psnr, ssim, file
        """Its file of at most `size` bytes, at least 3 % below only where no quality lies between; None if the smallest is larger."""
        low, tried = int(self.codec.low), list(self.files)
        if not self.fits(low, size): return None
        below = max(q for q in (low, *tried) if self.fits(q, size))
        above = min((q for q in tried if not self.fits(q, size)), default=int(self.codec.high) + 1)
        while above - below > 1 and len(self.files[below]) < CLOSE * size:
            middle = (below + above) // 2
            below, above = (middle, above) if self.fits(middle, size) else (below, middle)
        if below not in self.rows:
            data = self.files[below]
            self.rows[below] = {"bytes": len(data), "file": data} | measure(self.original, classical.decode(self.name, data), self.similarity)
        return self.rows[below]

def rivals(
    original: np.ndarray,  # uint8 [H, W, 3]
    similarity: bool,      # measure MS-SSIM too
) -> list:
    """The codecs that this Pillow has, for pictures of this size."""
    sides = {"webp": 16_383, "jpeg": 65_500}
    return [Rival(n, original, similarity) for n in ("jpeg", "webp", "avif") if classical.available(n) and max(original.shape) <= sides.get(n, 65_535)]

def take_stops(
    plan: Plan,
    original: np.ndarray | None,  # uint8 [H, W, 3] to measure against; else the picture of the last stop
    lossless: bool,               # copies of the pictures
    say: Callable,                # called with the number of each stop and how many there are
) -> tuple:                       # stops by size [{bytes, label, psnr, ssim, file}, ...], rivals [(Rival, [row or None for each stop]), ...], PSNR of the worst copy or None
    """All pictures and numbers of a page. While one stop is decoded, those before it are measured, copied and coded by the others."""
    large = original is not None and original.shape[0] * original.shape[1] >= LARGE
    others = [] if original is None else rivals(original, not large)
    lanes, pool = [ThreadPoolExecutor(1) for _ in others], ThreadPoolExecutor(min(4, cores()))  # what a rival has tried is its own thread's
    made = []
    def copied(picture):
        data = embed(picture, lossless)
        return data, None if lossless else psnr(picture, np.array(Image.open(io.BytesIO(data)).convert("RGB")))
    def measured(reference, picture): return {} if len(made) == 1 and original is None else measure(reference, picture, True)
    try:
        for i, place in enumerate(plan.places, 1):
            n, label, picture = plan.make(place)
            say(i, len(plan.places))
            if 1 < i < len(plan.places) and np.array_equal(picture, made[-1][2]): continue  # more bytes, and nothing to see yet
            made.append((n, label, picture, pool.submit(copied, picture), original is not None and pool.submit(measured, original, picture), [lane.submit(o.within, n) for lane, o in zip(lanes, others)]))
        best, found = made[-1][2], []
        for n, label, picture, copy, numbers, rows in sorted(made, key=lambda m: m[0]):
            data, loss = copy.result()
            numbers = numbers.result() if numbers else measured(best, picture)
            found.append({"bytes": n, "label": label, "file": data, "loss": loss, "rows": [r.result() for r in rows]} | numbers)
    finally:
        for p in (pool, *lanes): p.shutdown(cancel_futures=True)
    losses = [s.pop("loss") for s in found]
    columns = list(zip(*(s.pop("rows") for s in found)))
    return found, list(zip(others, columns)), min((v for v in losses if v is not None), default=None)

def _notes(note, original, stops, others, loss):
    "What the page says about itself"
    if note: yield note[0].upper() + note[1:] + "."
    yield "A rate is the size of the whole file, header included. " + ("PSNR and MS-SSIM are measured against the original, over RGB." if original is not None
        else "PSNR and MS-SSIM are measured against the best picture in this file, not the original; stanhlic view --original adds it." if len(stops) > 1
        else "With --original IMAGE the page compares the picture with the one it was made from.")
    if others:
        yield (f"{', '.join(o.codec.label for o, _ in others)}: the largest file of at most the same bytes, by Pillow {pillow_version} (" +
               "; ".join(f"{o.codec.label} {o.codec.settings}" for o, _ in others) + "). Their files are in this page as they are." +
               " Their MS-SSIM is left out, as the picture is large." * (not others[0][0].similarity))
    yield ("Pictures are in this page without loss: every pixel is the decoder's." if loss is None else
           f"So that this page stays small, the decoder's pictures are in it as JPEG of quality {COPY}, at least {loss:.1f} dB from what was decoded; all numbers are those of the decoded pictures.")

def fill(
    data: dict,   # what the page shows
    title: str,
) -> str:         # HTML
    """The page's template with its data, and a policy that lets it load nothing and run nothing but its own script."""
    page = Path(__file__).with_name("view.html").read_text(encoding="utf-8")
    own = {tag: base64.b64encode(hashlib.sha256(re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)[0].encode()).digest()).decode() for tag in ("style", "script")}
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{own['style']}'; script-src 'sha256-{own['script']}'; base-uri 'none'; form-action 'none'"
    values = {"policy": policy, "title": html.escape(printable(title)), "data": json.dumps(data).replace("<", "\\u003c")}
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], page)

def make_page(
    codec,
    name: str,                        # title of the page
    data: bytes = None,               # a `.slic` file, or
    original: np.ndarray = None,      # uint8 [H, W, 3] to show what the codec does to it; both: the picture the file was made from
    count: int = None,                # stops, about; by default as many as can be told apart
    effort: int = 0,                  # of the encoder, 0 to 9, where it makes files
    say: Callable = lambda k, n: None,  # called with the number of each stop and how many there are
) -> Page:
    """A self-contained page. Raises `StanhlicError` if there is no picture in the file, or if the original has another size."""
    if data is None and codec.truncatable: data = codec.encode(original, effort=effort)
    shape = original.shape[:2] if data is None else (lambda h: (h.height, h.width))(read_header(data))
    if original is not None and original.shape[:2] != shape:
        raise StanhlicError(f"the original is {original.shape[1]}x{original.shape[0]}, the file holds {shape[1]}x{shape[0]}; give the picture it was made from")
    plan = plan_file(codec, data, count) if codec.truncatable or original is None else plan_dial(codec, original, data, count, effort)
    note = None if data is None else codec.decoder().feed(data).note
    lossless = len(plan.places) * shape[0] * shape[1] <= LOSSLESS
    stops, others, loss = take_stops(plan, original, lossless, say)
    files = []
    def keep(file):
        if file not in files: files.append(file)
        return files.index(file)
    first = keep(embed(original, shape[0] * shape[1] <= LOSSLESS)) if original is not None else None
    shown = lambda row: row and {k: v for k, v in row.items() if k != "file"} | {"picture": keep(row["file"])}
    what = f", {codec.kind} file of {len(data):,} bytes" if data is not None else ""
    page = {"width": shape[1], "height": shape[0], "model": codec.name, "about": f"{shape[1]} × {shape[0]} pixels, model {codec.name}{what}", "share": codec.truncatable,
            "first": 1 if original is None else min(plan.first, len(stops)), "before": plan.before, "original": first, "stops": [shown(s) for s in stops],
            "rivals": [{"name": o.codec.label, "least": min(map(len, o.files.values())), "rows": [shown(r) for r in rows]} for o, rows in others],
            "notes": list(_notes(note, original, stops, others, loss)), "pictures": list(map(_uri, files))}
    return Page(fill(page, name), note, len(stops))
