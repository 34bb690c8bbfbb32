"""Learned image compression at any rate: three trained codecs, real files, and what you need to build on them.

    import stanhlic
    data = stanhlic.encode("photo.png", target_bpp=0.3)       # bytes of a .slic file; also quality=, target_bytes=, target_psnr=, layers=
    picture = stanhlic.decode(data)                           # uint8 [H, W, 3]; a path will do as well
    beside = stanhlic.extras(data)                            # what else the picture carries: alpha uint8 [H, W]; icc, exif, xmp as bytes
    codec = stanhlic.load("progressive-compact")              # a name or a path; codec.encode(image, 50), codec.decode(data)
    stanhlic.info("photo.slic"); stanhlic.models()            # what a file holds, which models there are
    import stanhlic.pillow                                    # Image.open("photo.slic"), image.save("photo.slic", quality=50)

Everything refused is a `StanhlicError` with one line that says what to do; its kinds are `DamagedFile`, `CutFile`, `WrongModel`,
`OutOfReach` and `NotEnoughMemory`. Torch is imported when a codec is first needed, not before.

    images, metrics        pictures in and out; PSNR, MS-SSIM, bits per pixel, Bjøntegaard measures
    entropy, priors, sync  range coder with integer tables; probability models; arithmetic that two machines agree on
    container, modelfile   the .slic file; weights on disk
    backbone, lean         networks that the systems share
    codec, strips          the class behind all codecs: quality, targets, encode, decode; pictures of any size in pieces
    refine                 more effort: latents of the picture at hand, refined before they are coded
    training, soap         one loop for all systems, and its optimizer
    stanh                  variable rate by learned quantizers (STanH)
    rnn                    layered files from a recurrent model
    progressive            files that may be cut at any byte
    zoo                    models by name or fingerprint
    export, parts          networks as ONNX files; networks cut into what runs one after another
    evaluate, view, cli    measuring on pictures; a page that shows a codec; the command `stanhlic`
    datasets, lab          pictures to measure on; what only the papers' figures need
"""
from functools import lru_cache as _lru_cache
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPES

from .errors import CutFile, CutFileWarning, DamagedFile, NotEnoughMemory, OutOfReach, StanhlicError, WrongModel

if _TYPES:
    import numpy
    from .codec import Codec

__version__ = "0.2.0"
DEFAULT_MODEL = "stanh-compact"  # of `load`, `encode` and the command line

__all__ = ["CutFile", "CutFileWarning", "DEFAULT_MODEL", "DamagedFile", "NotEnoughMemory", "OutOfReach", "StanhlicError", "WrongModel",
           "decode", "encode", "extras", "info", "load", "models"]
_MODULES = ("backbone", "cli", "codec", "container", "datasets", "entropy", "errors", "evaluate", "export", "files", "images", "lab", "lean", "metrics", "modelfile",
            "parts", "pillow", "priors", "progressive", "refine", "rnn", "soap", "stanh", "strips", "sync", "training", "view", "zoo")


def __getattr__(name: str):
    "Modules are imported when they are first asked for"
    if name in _MODULES: return _import_module(f".{name}", __name__)
    raise AttributeError(f"module 'stanhlic' has no attribute {name!r}")


def __dir__() -> list[str]:
    "The face alone; `help` looks at every name, and would import torch to look at the modules"
    return sorted({*__all__, *(n for n in globals() if n.startswith("__"))})


def load(
    name_or_path=None,        # model's name or file; default: `DEFAULT_MODEL`
    device: str = "auto",  # auto, cpu, cuda or cuda:N; or a `torch.device`
    precision: str = "fp32",  # of the networks from which nothing is decoded: "fp32", "bf16", or "auto" for bf16 where the device has instructions for it
) -> "Codec":
    """A model as a codec: `codec.encode(image, quality)`, `codec.decode(data)`. Raises `StanhlicError` for a model or a device that is missing here."""
    from .zoo import load_codec
    return load_codec(DEFAULT_MODEL if name_or_path is None else name_or_path, device, precision)


@_lru_cache(2)
def _loaded(path, written, device):
    "Codec of a model file; the last two are kept"
    return load(path, device)


def _codec(path, device):
    import os
    return _loaded(str(path), os.stat(path).st_mtime_ns, str(device))


def encode(
    image,                      # path of a picture, uint8 [H, W, 3] or [H, W, 4], a PIL image, or a `stanhlic.images.Picture`
    quality: float = None,      # 0 (smallest file) to 100 (best picture)
    target_bpp: float = None,   # best picture within this many bits per pixel
    target_bytes: int = None,   # best picture within this many bytes
    target_psnr: float = None,  # smallest file that reaches this many dB
    layers: int = None,         # of a layered model
    model=None,                 # name or file; default: `DEFAULT_MODEL`
    device: str = "auto",  # auto, cpu, cuda or cuda:N; or a `torch.device`
    effort: int = 0,            # 0 (one pass) to 9: how long the encoder refines; decoding stays as it is
    max_pixels: int = None,     # refuse larger pictures
    max_memory: float = None,   # refuse pictures that take more, in bytes, even where more is free
) -> bytes:                     # a `.slic` file
    """Compress a picture at a quality, to a target or to a number of layers; give one of them, or none for the model's default quality.

    Alpha, color profile, EXIF and XMP of a path or a PIL image are kept; `stanhlic.images.read_picture` leaves them out, flattens or converts on request.
    Warns of what cannot be kept. Raises `OutOfReach` if no file meets the target, `NotEnoughMemory`, and `StanhlicError` for anything else that cannot be served."""
    import os
    from .images import read_picture
    from .zoo import model_path
    path = model_path(DEFAULT_MODEL if model is None else model)
    codec = lambda: _codec(path, device).within(max_pixels, max_memory)
    if isinstance(image, (str, os.PathLike)): image = read_picture(image, lambda height, width: codec().check_room(height, width))
    return codec().encode(image, quality, target_bpp, target_bytes, target_psnr, layers, effort)


def _bytes(data):
    "Bytes of a file, given as a path or as bytes of any form"
    import os
    from .images import read_bytes
    from .zoo import check_start
    if isinstance(data, (str, os.PathLike)): return read_bytes(data, check_start)
    from .codec import as_bytes
    return as_bytes(data)


def decode(
    data,                # path or bytes of a `.slic` file
    layers: int = None,  # show the first layers only, of a layered file
    model=None,          # name or file; default: the known model with the file's fingerprint
    device: str = "auto",  # auto, cpu, cuda or cuda:N; or a `torch.device`
    strict: bool = False,  # show nothing of a cut file that no check has tested
    max_pixels: int = None,    # refuse larger pictures
    max_memory: float = None,  # refuse pictures that take more, in bytes, even where more is free
) -> "numpy.ndarray":    # uint8 [H, W, 3]; `extras` gives alpha and metadata
    """The picture in a file. Warns if a part of it is missing or damaged, as `Codec.decode` does.

    Raises `WrongModel` if no model here wrote it, `CutFile` or `DamagedFile` if there is no picture in it."""
    from .zoo import model_for, sound_header
    data = _bytes(data)
    return _codec(model_for(sound_header(data), model)["path"], device).within(max_pixels, max_memory).decode(data, layers, strict)


def extras(
    data,    # path or bytes of a `.slic` file, perhaps cut
) -> dict:   # "alpha": uint8 [H, W]; "icc", "exif", "xmp": bytes; those that are there
    """What a file carries beside the colors; needs no model. Raises `DamagedFile` for a part that is not what it says."""
    from .container import extras
    return extras(_bytes(data))


def info(
    data,    # path or bytes of a `.slic` file, perhaps cut
) -> dict:   # plain values
    """What a file says of itself: kind, size, rate, chunks, and with its model at hand also the model's name and the codec's own parameters."""
    from .zoo import describe_file
    return describe_file(_bytes(data))


def models() -> list[dict]:  # name, system, description, parameters, bytes, fingerprint, config, provenance, path
    """The models known by name: shipped ones, then those in the folders that STANHLIC_MODELS names."""
    from .zoo import list_models
    return list_models()
