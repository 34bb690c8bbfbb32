"""One self-contained HTML page of a file that may be cut: a slider over received bytes, the picture, its rate and its PSNR."""

import base64, html, io, json, math
from string import Template
import numpy as np
from PIL import Image
from .container import read_header
from .errors import StanhlicError
from .metrics import bpp, psnr

def choose_stops(
    lengths,     # lengths at which a file may be cut, in increasing order
    count: int,  # stops wanted, at least 2
) -> list:       # lengths, the first and the last among them
    """About `count` of the lengths, at equal ratios; all of them if there are fewer."""
    lengths = np.asarray(lengths)
    if len(lengths) <= count: return lengths.tolist()
    at = np.searchsorted(lengths, np.geomspace(lengths[0], lengths[-1], count)).clip(max=len(lengths) - 1)
    return np.unique(lengths[[0, *at[1:-1], -1]]).tolist()

QUALITY, SIDE = 92, 4096  # of WebP; pixels of the longer side

def embed(
    picture: np.ndarray,           # uint8 [H, W, 3]
    most: int,                     # bytes
    start: tuple = (QUALITY, 1.0), # WebP quality and scale to begin with
) -> tuple:                        # WebP bytes, quality, scale
    """A picture as WebP within a number of bytes."""
    quality, scale = start[0], min(start[1], SIDE / max(picture.shape))
    while True:
        size = [max(1, round(s * scale)) for s in picture.shape[1::-1]]
        image, out = Image.fromarray(picture), io.BytesIO()
        if scale < 1: image = image.resize(size, Image.Resampling.LANCZOS)
        image.save(out, "WEBP", quality=quality, method=4)
        if out.tell() <= most or size == [1, 1]: return out.getvalue(), quality, scale
        quality, scale = (quality - 12, scale) if quality > 60 else (quality, scale * 0.7)

def decode_stops(
    codec,
    data: bytes,                  # a `.slic` file that may be cut
    original: np.ndarray = None,  # uint8 [H, W, 3] to compare with; else the best picture in the file
    count: int = 24,              # stops, about
    limit: int = 8_000_000,       # bytes of all pictures together, as text in the page
) -> list:                        # {"bytes", "share", "bpp", "psnr", "src"} for each stop, as text
    """Pictures and numbers at the stops. Raises `StanhlicError` if there is no picture, or the original has another size."""
    header, lengths = read_header(data), codec.cuts(data)
    best, shape = codec.decoder().feed(data[:lengths[-1]] if len(lengths) else data).image(), (header.height, header.width)
    if original is not None and original.shape[:2] != shape:
        raise StanhlicError(f"the original is {original.shape[1]}x{original.shape[0]}, the file holds {shape[1]}x{shape[0]}; give the picture it was made from")
    stops = choose_stops(lengths, count)
    most, decoder, seen, found = limit * 3 // 4 // len(stops), codec.decoder(), 0, []
    _, *start = embed(best, most)
    for n in stops:
        picture, seen = decoder.feed(data[seen:n]).image(), n
        value = psnr(best if original is None else original, picture)
        uri = "data:image/webp;base64," + base64.b64encode(embed(picture, most, start)[0]).decode()
        found.append({"bytes": f"{n:,}", "share": f"{100 * n / len(data):.3g} %", "bpp": f"{bpp(n, *shape):.4f}",
                      "psnr": f"{value:.2f} dB" if math.isfinite(value) else "identical", "src": uri})
    return found

STYLE = """
:root { color-scheme: dark; font: 16px/1.45 system-ui, sans-serif; background: #161718; color: #ececec }
body { margin: 0 auto; padding: 1rem; max-width: 72rem }
h1 { font-size: 1.15rem; font-weight: 600; margin: 0; overflow-wrap: anywhere }
p { margin: 0; color: #a6a8ab; font-size: .875rem }
figure { margin: 1rem auto; background: #000; width: min(100%, calc(var(--w) * 1px), calc(66vh * var(--w) / var(--h))); aspect-ratio: var(--w) / var(--h) }
figure img { display: block; width: 100%; height: 100% }
label { display: flex; justify-content: space-between; font-size: .875rem; color: #a6a8ab }
input { width: 100%; height: 2.75rem; margin: 0; accent-color: #f2b544; cursor: pointer }
dl { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; margin: .25rem 0 1rem }
dt { font-size: .8rem; color: #a6a8ab }
dd { margin: 0; font-size: clamp(1rem, 4.4vw, 1.35rem); font-variant-numeric: tabular-nums }
dd small { color: #a6a8ab; font-size: .65em; white-space: nowrap }
"""

SCRIPT = """
const stops = JSON.parse(document.getElementById("stops").textContent), at = id => document.getElementById(id);
const pictures = stops.map((s, i) => Object.assign(new Image(), {src: s.src, alt: "picture after " + s.bytes + " bytes"}));
function show(k) {
  k = Math.min(stops.length, Math.max(1, k));
  const s = stops[k - 1];
  for (const id of ["bytes", "share", "bpp", "psnr"]) at(id).textContent = s[id];
  at("number").textContent = k + " of " + stops.length;
  at("stop").value = k;
  at("stop").setAttribute("aria-valuetext", s.bytes + " bytes, " + s.bpp + " bits per pixel, PSNR " + s.psnr);
  at("picture").replaceChildren(pictures[k - 1]);
}
const asked = () => Number((/^#stop=([0-9]+)/.exec(location.hash) || [0, stops.length])[1]);
at("stop").oninput = () => show(Number(at("stop").value));
at("stop").onchange = () => location.replace("#stop=" + at("stop").value);
addEventListener("hashchange", () => show(asked()));
show(asked());
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$name</title>
<style>$style</style>
<h1>$name</h1>
<p>$about</p>
<figure id="picture" style="--w: $width; --h: $height"></figure>
<label for="stop">Bytes received <span id="number"></span></label>
<input id="stop" type="range" min="1" max="$count" value="$count" step="1">
<dl>
<div><dt>received</dt><dd><span id="bytes"></span> bytes <small id="share"></small></dd></div>
<div><dt>bits per pixel</dt><dd id="bpp"></dd></div>
<div><dt>PSNR</dt><dd id="psnr"></dd></div>
</dl>
<p>$remark</p>
<noscript>The slider needs JavaScript.</noscript>
<script id="stops" type="application/json">$stops</script>
<script>$script</script>
</html>
""")

def make_page(
    codec,
    data: bytes,                  # a `.slic` file that may be cut
    name: str,                    # title of the page
    original: np.ndarray = None,  # uint8 [H, W, 3] to compare with; else the best picture in the file
    count: int = 24,              # stops, about
) -> tuple:                       # HTML; one line if the file is cut or damaged, else None
    """A self-contained page of a file; raises `StanhlicError` as `decode_stops` does."""
    stops, header = decode_stops(codec, data, original, count), read_header(data)
    note = codec.decoder().feed(data).note
    against = "the original" if original is not None else "the best picture in this file, not the original"
    words = dict(name=name, about=f"{header.width} × {header.height} pixels, {header.kind} file of {len(data):,} bytes, model {codec.name}" + f"; {note}" * bool(note),
                 remark=f"PSNR is measured against {against}. The pictures in this page are WebP copies; their numbers are those of the decoded pictures.")
    return PAGE.substitute({k: html.escape(v) for k, v in words.items()}, style=STYLE, script=SCRIPT, count=len(stops),
                           width=header.width, height=header.height, stops=json.dumps(stops)), note
