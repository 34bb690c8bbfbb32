"""JPEG, JPEG 2000, WebP and AVIF on the same pictures, in the same run, from real bytes: the yardstick for a learned codec."""

import functools, io, time
from dataclasses import dataclass
from collections.abc import Callable
import numpy as np
from PIL import Image, __version__ as pillow_version
from tqdm import tqdm
from ..errors import StanhlicError
from ..metrics import MS_SSIM_MIN_SIDE, bpp, ms_ssim, psnr

@dataclass(frozen=True)
class Classical:
    "A codec behind Pillow: how its dial is called and turned"
    label: str         # name in figures
    fmt: str           # Pillow's format
    unit: str          # meaning of its quality
    low: float         # smallest quality
    high: float        # largest quality
    defaults: tuple    # qualities of a sweep, about 0.15 to 1.5 bpp on photographs
    options: Callable  # quality -> Pillow's save options
    settings: str = "" # the fixed options, in words

CODECS = {
    "jpeg": Classical("JPEG", "JPEG", "quality", 1, 95, (5, 10, 20, 35, 50, 65, 80, 90),
        lambda q: dict(quality=round(q), optimize=True), "4:2:0, optimized Huffman tables"),
    "jpeg2000": Classical("JPEG 2000", "JPEG2000", "bits per pixel", 0.01, 24, (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5),
        lambda q: dict(quality_mode="rates", quality_layers=[24 / q], irreversible=True, mct=1, no_jp2=True), "9/7 wavelet, color transform, bare codestream"),
    "webp": Classical("WebP", "WEBP", "quality", 0, 100, (1, 10, 25, 45, 65, 80, 90),
        lambda q: dict(quality=round(q), method=6), "method 6"),
    "avif": Classical("AVIF", "AVIF", "quality", 0, 100, (15, 25, 35, 45, 55, 65, 75),
        lambda q: dict(quality=round(q), speed=6, subsampling="4:4:4", codec="aom", max_threads=1, advanced={"tune": "psnr"}), "aom, speed 6, 4:4:4, tune=psnr, one thread"),
}

def _codec(name):
    if name not in CODECS: raise StanhlicError(f"unknown classical codec '{name}'; choose {', '.join(CODECS)}")
    return CODECS[name]

def encode(
    name: str,          # jpeg, jpeg2000, webp or avif
    array: np.ndarray,  # picture, uint8 (H, W, 3)
    quality: float,     # in the codec's own unit, see CODECS[name].unit
) -> bytes:             # the file
    """Compress a picture with a classical codec.

    Raises `StanhlicError` for an unknown codec, one this Pillow lacks, a quality out of range or a picture it cannot take."""
    c = _codec(name)
    if not c.low <= quality <= c.high: raise StanhlicError(f"{c.label}: {c.unit} {quality} is out of range; choose {c.low} to {c.high}")
    out = io.BytesIO()
    try: Image.fromarray(array).save(out, c.fmt, **c.options(quality))
    except (OSError, ValueError, KeyError) as e:
        raise StanhlicError(f"{c.label}: Pillow {pillow_version} cannot encode this ({e or type(e).__name__}); install Pillow's own wheel or leave {name} out") from e
    return out.getvalue()

def decode(
    name: str,    # codec the bytes come from
    data: bytes,  # the file
) -> np.ndarray:  # picture, uint8 (H, W, 3)
    """Decompress the bytes of a classical codec; raises `StanhlicError` if they are not from it."""
    c = _codec(name)
    try: return np.array(Image.open(io.BytesIO(data), formats=[c.fmt]).convert("RGB"))
    except Exception as e: raise StanhlicError(f"{c.label}: cannot decode {len(data)} bytes ({type(e).__name__}); the file is damaged or another codec's") from e

@functools.cache
def available(
    name: str,  # codec
) -> bool:      # it encodes and decodes here
    """Does the installed Pillow have this codec? AVIF is missing from some builds."""
    try: return decode(name, encode(name, np.zeros((16, 16, 3), np.uint8), _codec(name).defaults[0])).shape == (16, 16, 3)
    except StanhlicError: return False

def measure(
    name: str,                # codec
    array: np.ndarray,        # picture, uint8 (H, W, 3)
    quality: float,           # in the codec's unit
    similarity: bool = True,  # MS-SSIM too, which takes longer than most codecs
) -> dict:                    # bpp, psnr-rgb, ms-ssim-rgb, encoding_time, decoding_time
    """One picture through one codec at one quality, from real bytes; raises as `encode` does."""
    t0 = time.perf_counter(); data = encode(name, array, quality)
    t1 = time.perf_counter(); out = decode(name, data)
    t2 = time.perf_counter()
    similar = ms_ssim(array, out) if similarity and min(array.shape[:2]) >= MS_SSIM_MIN_SIDE else None
    return {"bpp": bpp(len(data), *array.shape[:2]), "psnr-rgb": psnr(array, out), "ms-ssim-rgb": similar, "encoding_time": t1 - t0, "decoding_time": t2 - t1}

def sweep(
    name: str,                     # jpeg, jpeg2000, webp or avif
    images: list,                  # [(name, uint8 (H, W, 3)), ...]
    qualities: tuple | None = None,  # in the codec's unit, default CODECS[name].defaults
    similarity: bool = True,       # MS-SSIM too
    progress: bool = True,         # draw a bar
) -> dict:                         # CompressAI's schema: name, description, results; plus codec, settings, images
    """Mean rate, distortion and times of a classical codec over pictures, one row per quality.

    Raises `StanhlicError` as `encode` does, or if there are no images."""
    c = _codec(name)
    if not images: raise StanhlicError("no images to measure; give at least one (name, array)")
    qualities = c.defaults if qualities is None else tuple(qualities)
    results = {"quality": [float(q) for q in qualities]}
    with tqdm(total=len(qualities) * len(images), desc=c.label, unit="image", disable=not progress) as bar:
        for q in qualities:
            rows = []
            for _, array in images: rows.append(measure(name, array, q, similarity)); bar.update()
            for k in rows[0]:
                values = [r[k] for r in rows]
                results.setdefault(k, []).append(None if None in values else float(np.mean(values)))
    return {"name": c.label, "description": f"{c.label} by Pillow {pillow_version}, {c.settings}; 8-bit RGB, means over {len(images)} images",
            "codec": name, "settings": c.settings, "images": [n for n, _ in images], "results": results}
