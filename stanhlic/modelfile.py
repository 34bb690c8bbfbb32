"""Weights in one file that says what it is, a fingerprint that ties a picture to its model, and the names that files are known by here."""
import contextlib
import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import stanhlic
from .container import KINDS
from .errors import DamagedFile, StanhlicError, WrongModel
from .images import atomic_write

if TYPE_CHECKING: from torch.nn import Module

FORMAT = 1

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

MAX_HEADER = 2**24  # bytes; the largest model here needs about 0.1 MB

def fingerprint(
    tensors: dict,  # name -> tensor, any device
    config: dict,   # the system's configuration, plain JSON values
) -> bytes:         # 8 bytes
    """Fingerprint of a model: the beginning of the SHA-256 of its tensors and configuration."""
    import torch
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(t.dtype).removeprefix("torch."), list(t.shape)]).encode() + b"\n")
        digest.update(t.reshape(-1).view(torch.uint8).numpy())
    digest.update(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    return digest.digest()[:8]


def check_name(
    name: str,        # of a model
    place: str = "",  # where it was found, for the message
) -> None:
    """Raise `StanhlicError` if a model may not have this name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name): raise StanhlicError(f"{place or 'name'}: model name {str(name)[:80]!r}; use up to 64 of a-z 0-9 . _ -")


def _check_header(header, path):
    "The JSON header of a model, or one line"
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise StanhlicError(f"{path}: its header is not a model's; give a file that stanhlic saved")
    if header["format"] > FORMAT:
        raise StanhlicError(f"{path}: weights of format {header['format']}, this stanhlic reads up to {FORMAT}; upgrade stanhlic")
    if header.get("system") not in KINDS.values():
        raise StanhlicError(f"{path}: a model of system {str(header.get('system'))[:32]!r}, this stanhlic knows {', '.join(KINDS.values())}; upgrade stanhlic")
    check_name(header.get("name"), path)
    if not re.fullmatch("[0-9a-f]{16}", str(header.get("fingerprint"))): raise StanhlicError(f"{path}: the header lacks a fingerprint; give a file that stanhlic saved")
    for key in ("config", "provenance"):
        if not isinstance(header.get(key), dict): raise StanhlicError(f"{path}: the header lacks {key!r}; give a file that stanhlic saved")
    return header


class Weights(NamedTuple):
    """What a model file holds."""
    tensors: dict       # name -> tensor, on the CPU
    header: dict        # format, system, name, description (optional), config, provenance, fingerprint
    fingerprint: bytes  # 8 bytes


def save_weights(
    path: str | Path,  # target, usually <name>.safetensors
    tensors: dict,     # name -> tensor
    header: dict,      # system, name, config, provenance; description (optional)
) -> Weights:          # what was written
    """Save a model, whole or not at all.

    Raises `StanhlicError` if the header is not a model's or the file cannot be written."""
    from safetensors.torch import save
    computed = fingerprint(tensors, header.get("config", {}))
    header = _check_header({"format": FORMAT} | header | {"fingerprint": computed.hex()}, path)
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    atomic_write(path, save(tensors, {"stanhlic": json.dumps(header)}))
    return Weights(tensors, header, computed)


def halved(
    state: dict,  # name -> tensor
) -> dict:        # floating-point tensors of 1,024 elements and more in half precision
    """State dict at half its size, for `save_weights`; loads into a model like any other."""
    return {k: v.half() if v.is_floating_point() and v.numel() >= 1024 else v for k, v in state.items()}


def storage(
    store: str = "",  # "fp16", or nothing for the precision of training
) -> Callable:        # state dict -> state dict, for `save_weights`
    """How a run stores its weights; raises `StanhlicError` for an unknown way."""
    if store not in ("", "fp16"): raise StanhlicError(f"unknown storage {store!r}; use store=fp16, or leave it out for single precision")
    return halved if store else dict


def _read_head(path):
    "safetensors' own JSON header: tensor entries and metadata"
    refusal = DamagedFile(f"{path}: not a safetensors file, or damaged; give a model file that stanhlic saved")
    if Path(path).is_dir(): raise StanhlicError(f"{path}: is a folder, not a model file")
    try:
        with open(path, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            if not 2 <= size <= min(MAX_HEADER, os.fstat(f.fileno()).st_size - 8): raise refusal
            head = json.loads(f.read(size))
    except FileNotFoundError as e: raise StanhlicError(f"{path}: no such model file") from e
    except OSError as e: raise StanhlicError(f"{path}: cannot be read ({e.strerror or e})") from e
    except StanhlicError: raise
    except (ValueError, RecursionError) as e: raise refusal from e
    if not isinstance(head, dict): raise refusal
    return head


def _header(head, path):
    "The model's own header out of safetensors' one"
    metadata = head.get("__metadata__")
    text = metadata.get("stanhlic") if isinstance(metadata, dict) else None
    if not isinstance(text, str): raise StanhlicError(f"{path}: safetensors, but not a stanhlic model; authors' files are read by the importers of stanhlic.zoo")
    try: return _check_header(json.loads(text), path)
    except (RecursionError, json.JSONDecodeError) as e: raise DamagedFile(f"{path}: its header is damaged; fetch it again") from e


def inspect_weights(
    path: str | Path,  # model file
) -> dict:             # header, parameters (floating-point numbers), bytes, path
    """What a model file holds, without loading it; raises `StanhlicError` if it is not one."""
    head = _read_head(path)
    header = _header(head, path)
    entries = [v for k, v in head.items() if k != "__metadata__"]
    try: shapes = [e["shape"] for e in entries if e["dtype"].startswith(("F", "BF"))]
    except (KeyError, TypeError, AttributeError): shapes = [None]
    if not all(isinstance(s, list) and all(type(n) is int and 0 <= n < 2**32 for n in s) for s in shapes): raise DamagedFile(f"{path}: its list of tensors is damaged; fetch it again")
    count = sum(map(math.prod, shapes))
    return header | dict(parameters=count, bytes=Path(path).stat().st_size, path=str(path))


def load_weights(
    path: str | Path,  # model file
) -> Weights:          # tensors on the CPU
    """Load a model file.

    Raises `StanhlicError` if it is missing, foreign, cut, damaged or of a later format."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    header = _header(_read_head(path), path)
    try: tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, OverflowError) as e:
        raise DamagedFile(f"{path}: cut or damaged ({str(e).splitlines()[0][:120]}); fetch it again") from e
    computed = fingerprint(tensors, header["config"])
    if header.get("fingerprint") != computed.hex():
        raise DamagedFile(f"{path}: its tensors give fingerprint {computed.hex()}, its header says {str(header.get('fingerprint'))[:16]}; the file is damaged, fetch it again")
    return Weights(tensors, header, computed)


def _folders():
    given = os.environ.get("STANHLIC_MODELS", "")
    return [Path(stanhlic.__file__).resolve().parent / "weights", *(Path(p) for p in given.split(os.pathsep) if p)]

def _every_model():
    "What `inspect_weights` returns for each model file in the folders, in their order"
    for path in (p for folder in _folders() if folder.is_dir() for p in sorted(folder.glob("*.safetensors"), key=lambda p: p.stem)):
        try: yield {"description": ""} | inspect_weights(path)
        except StanhlicError: continue

def list_models() -> list:  # [{name, system, description, parameters, bytes, fingerprint, config, provenance, path}, ...]
    """The models known by name: shipped ones, then those in the folders of STANHLIC_MODELS."""
    found = {}
    for model in _every_model(): found.setdefault(model["name"], model)
    return list(found.values())

def _known(): return ", ".join(m["name"] for m in list_models()) or "none; this installation ships none"

def find_model(
    fingerprint: bytes,  # of a `.slic` file
) -> dict:               # as `list_models` has it
    """The model with this fingerprint, listed or not; raises `WrongModel` if none here has it."""
    for model in _every_model():
        if model["fingerprint"] == fingerprint.hex(): return model
    raise WrongModel(f"no model here has fingerprint {fingerprint.hex()} (known: {_known()}); name the right file with model=PATH, or --model PATH on the command line; CHANGELOG.md says where to find replaced weights")

def model_path(
    model: str | Path,  # name, or path of a model file
) -> Path:              # the file
    """File of a model. A name takes precedence over a file of the same name; raises `StanhlicError` if it is neither."""
    for known in list_models():
        if known["name"] == str(model): return Path(known["path"])
    path = Path(model)
    if path.is_file(): return path
    if path.suffix or os.sep in str(model): raise StanhlicError(f"{model}: no such model file")
    raise StanhlicError(f"unknown model '{model}'; known: {_known()}; or give the path of a .safetensors file")


def restore(
    build: Callable,   # configuration -> untrained model
    weights: Weights,  # as `load_weights` returns them
) -> "Module":         # the model with its weights
    """Model of a weight file; raises `StanhlicError` if its configuration and tensors do not fit."""
    import torch
    refusal = lambda why: StanhlicError(f"{weights.header['name']}: configuration and tensors do not fit ({why}); save the model again")
    given = {k: tuple(t.shape) for k, t in weights.tensors.items()}
    try:
        try:
            with torch.device("meta"): wanted = {k: tuple(t.shape) for k, t in build(weights.header["config"]).state_dict().items()}
        except RuntimeError: wanted = given  # a plugged-in network that computes values while it is built
        odd = sorted(k for k in wanted.keys() | given.keys() if wanted.get(k) != given.get(k))
        if odd: raise refusal(f"first at {odd[0]}")
        model = build(weights.header["config"])
        model.load_state_dict(weights.tensors)
    except StanhlicError: raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError, RecursionError) as e: raise refusal(type(e).__name__) from None
    return model


class _Inert:
    """Stands in for any class or function the reader does not know."""
    def __new__(cls, *args, **kwargs): return super().__new__(cls)
    def __init__(self, *args, **kwargs): pass
    def __setstate__(self, state): pass


def _load(path, known):
    """What `torch.save` wrote, on the CPU; unknown names become stand-ins, or are refused if the `known` classes are given."""
    import torch
    names = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", lambda path: [])  # torch 2.6
    if known is None: known = [(_Inert, n) for n in names(path)] if zipfile.is_zipfile(path) else []
    admitted = torch.serialization.safe_globals(known) if known else contextlib.nullcontext()
    with admitted: return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(
    path,                # file written by `torch.save`
    known: list = None,  # classes it may hold besides tensors and plain values; default: any, all come back inert
) -> dict:               # its contents, tensors on the CPU
    """Contents of a PyTorch checkpoint, read without running code from it; foreign objects come back inert.

    Raises `StanhlicError` if the file is missing, damaged, not such a checkpoint, or holds a class that is not among the `known`."""
    path = str(path)
    try: open(path, "rb").close()
    except OSError as error: raise StanhlicError(f"{path}: {error.strerror or 'cannot be read'}; give the path of a checkpoint") from error
    try: found = _load(path, known)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        raise StanhlicError(f"{path}: not a whole PyTorch checkpoint{'' if known is None else ' of tensors and plain values'} ({reason}); download it again") from error
    if not isinstance(found, dict): raise StanhlicError(f"{path}: holds a {type(found).__name__} where a checkpoint holds a dictionary; give another file")
    return found


def resolve_device(
    device: str = "auto",  # auto, cpu, cuda or cuda:N; or a `torch.device`
) -> str:           # cpu, cuda or cuda:N
    """Device to run on: `auto` takes CUDA if available. Raises `StanhlicError` for a device that is missing."""
    import torch
    device = str(device)
    if device == "auto": return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu": return device
    if not re.fullmatch(r"cuda(:\d+)?", device): raise StanhlicError(f"unknown device '{device[:40]}'; choose auto, cpu or cuda")
    number = int(device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count(): raise StanhlicError(f"device {device} is not here ({torch.cuda.device_count()} CUDA devices); choose cpu")
    return device
