"""The picture on the front page: one photograph at equal bytes as JPEG, WebP, AVIF and ours, one detail enlarged. `python -m stanhlic.lab.hero`"""
import io
import json
import sys
from bisect import bisect_right

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .. import DEFAULT_MODEL, load
from ..datasets import sample_photograph
from ..errors import StanhlicError
from ..images import atomic_write
from ..metrics import bpp, bytes_within, ms_ssim, psnr
from . import classical
from .plots import plain

RATE = 0.2                       # bits per pixel that no file exceeds
BOX = (174, 118, 362, 286)       # the detail: left, top, right, bottom
TIMES, EDGE, LINE = 2, 6, 70     # enlargement, white between cells, height of a caption
MARK = "#d08700"


def largest_within(
    name: str,          # jpeg, webp or avif
    image: np.ndarray,  # uint8 [H, W, 3]
    size: int,          # bytes
) -> bytes:             # the file
    """The best file of a classical codec that is no larger than `size`; raises `StanhlicError` if there is none."""
    qualities = range(int(classical.CODECS[name].low), int(classical.CODECS[name].high) + 1)
    first_above = bisect_right(qualities, size, key=lambda q: len(classical.encode(name, image, q)))
    if not first_above: raise StanhlicError(f"{name} has no file of at most {size} bytes for this picture; ask for more")
    return classical.encode(name, image, qualities[first_above - 1])


def coded(
    image: np.ndarray,  # uint8 [H, W, 3]
    model: str,         # name or path
    rate: float = RATE, # bits per pixel that no file exceeds
) -> tuple:             # ({label: decoded uint8 [H, W, 3]}, numbers behind the figure)
    """The picture through JPEG, WebP, AVIF and a model, each within the same number of bytes."""
    size, codec = bytes_within(rate, *image.shape[:2]), load(model, "cpu")
    files = {name: largest_within(name, image, size) for name in ("jpeg", "webp", "avif")}
    decoded = {classical.CODECS[name].label: classical.decode(name, data) for name, data in files.items()}
    ours = codec.encode(image, target_bytes=size)
    decoded[codec.name], sizes = codec.decode(ours), [*map(len, files.values()), len(ours)]
    rows = [{"codec": label, "bytes": n, "bpp": bpp(n, *image.shape[:2]), "psnr": psnr(image, out), "ms_ssim": ms_ssim(image, out)}
            for (label, out), n in zip(decoded.items(), sizes)]
    return decoded, {"model": codec.name, "fingerprint": codec.fingerprint.hex(), "at most": {"bpp": rate, "bytes": size}, "table": rows}


def cell(
    picture: np.ndarray,  # uint8 [h, w, 3], small enough for the cell
    lines: list,          # caption: a bold line, then a plain one
    size: tuple,          # width and height of the picture's part
) -> Image.Image:         # the picture centered over its caption
    """One picture with its caption."""
    from matplotlib import get_data_path
    out = Image.new("RGB", (size[0], size[1] + LINE), "white")
    out.paste(Image.fromarray(picture), ((size[0] - picture.shape[1]) // 2, (size[1] - picture.shape[0]) // 2))
    for k, (text, font) in enumerate(zip(lines, ("DejaVuSans-Bold", "DejaVuSans"))):
        font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{font}.ttf", 27)
        ImageDraw.Draw(out).text((size[0] / 2, size[1] + 2 + 31 * k), text, "black", font, anchor="ma")
    return out


def marked(
    image: np.ndarray,  # uint8 [H, W, 3]
    size: tuple,        # width and height that it must fit
) -> np.ndarray:        # reduced, with a frame around `BOX`
    """The whole picture with the detail framed."""
    small = Image.fromarray(image)
    small.thumbnail(size, Image.Resampling.LANCZOS)
    scale = small.width / image.shape[1]
    ImageDraw.Draw(small).rectangle([round(v * scale) for v in BOX], outline=MARK, width=3)
    return np.array(small)


def draw(
    image: np.ndarray,  # the original, uint8 [H, W, 3]
    decoded: dict,      # as `coded` returns it
    numbers: dict,      # likewise
) -> bytes:             # PNG
    """Two rows of three: the whole original, the detail of it and of ours, then of JPEG, WebP and AVIF, pixel by pixel."""
    left, top, right, bottom = BOX
    size = TIMES * (right - left), TIMES * (bottom - top)
    detail = lambda x: x[top:bottom, left:right].repeat(TIMES, 0).repeat(TIMES, 1)
    said = {r["codec"]: f"{r['bytes']:,} bytes, {r['psnr']:.1f} dB" for r in numbers["table"]}
    cells = {label: cell(detail(x), ["stanhlic" if label == numbers["model"] else label, said[label]], size) for label, x in decoded.items()}
    whole = cell(marked(image, size), ["Original", f"{image.shape[1]} × {image.shape[0]} pixels"], size)
    order = [whole, cell(detail(image), ["Original, detail", f"{image.size:,} bytes of RGB"], size), cells.pop(numbers["model"]), *cells.values()]
    out = Image.new("RGB", (3 * size[0] + 2 * EDGE, 2 * (size[1] + LINE)), "white")
    for k, c in enumerate(order): out.paste(c, (k % 3 * (size[0] + EDGE), k // 3 * (size[1] + LINE)))
    file = io.BytesIO()
    out.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def main(
    stem: str = "figures/hero",  # path without suffix
):
    """Draw the figure and write the numbers behind it."""
    image = sample_photograph()
    decoded, numbers = coded(image, DEFAULT_MODEL)
    atomic_write(f"{stem}.png", draw(image, decoded, numbers))
    numbers = {"picture": "matplotlib's sample photograph, grace_hopper.jpg (public domain)", "box": BOX, **numbers}
    atomic_write(f"{stem}.json", (json.dumps(plain(numbers), indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__": main(*sys.argv[1:])
