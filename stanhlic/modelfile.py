"""Weights in one file that says what it is, a fingerprint that ties a picture to its model, and the names that files are known by here."""
import contextlib
import hashlib
import json
import math
import os
import numbers
import re
import stat
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import stanhlic
from .container import KINDS
from .errors import DamagedFile, KeysDoNotFit, StanhlicError, WrongModel
from .images import atomic_write

if TYPE_CHECKING: from torch.nn import Module

FORMAT = 1

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

MAX_HEADER = 2**22  # bytes; the largest model here needs about 0.2 MB
MAX_SIZE = 4096     # of any width, number of layers or of parts in a configuration
MAX_LIST = 256      # entries of a list in a configuration

def _no_constant(word): raise ValueError(f"{word} is no number")

def _once(pairs):
    "A JSON object, each of whose names occurs once"
    if len(found := dict(pairs)) < len(pairs): raise ValueError("a name occurs twice")
    return found

def read_json(
    text: str | bytes,
) -> object:
    """Value of a JSON text from outside; raises `ValueError` for anything that is not strictly JSON: NaN, a name twice, nesting or digits without end."""
    try: return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError: raise ValueError("it is nested too deeply") from None

def check_sizes(
    config,         # dataclass of whole numbers, tuples of them, real numbers, switches and words; fields of other types are left alone
    **least: int,   # smallest whole number of a field, 1 if it is not named
) -> None:
    """Raise `StanhlicError` unless every size is a whole number within bounds, every tuple short, every number finite and every switch a truth value."""
    for f in fields(config):
        value, low = getattr(config, f.name), least.get(f.name, 1)
        if f.type in (bool, str): sound = isinstance(value, f.type)
        elif f.type is int: sound = _is_size(value, low)
        elif f.type is float: sound = isinstance(value, numbers.Real) and not isinstance(value, bool) and abs(value) < 1e9
        else: sound = f.type != tuple[int, ...] or isinstance(value, tuple) and len(value) <= 16 and all(_is_size(n, low) for n in value)
        if not sound: raise StanhlicError(f"{f.name} {str(value)[:40]} cannot be" + (f"; a size is a whole number from {low} to {MAX_SIZE}" if f.type in (int, tuple[int, ...]) else ""))

def _is_size(n, least): return isinstance(n, numbers.Integral) and not isinstance(n, bool) and least <= n <= MAX_SIZE

def _check_config(value, depth=0):
    "Raise `ValueError` for a configuration that no model here has"
    if depth > 6: raise ValueError("nested too deeply")
    if isinstance(value, (dict, list, tuple)):
        if len(value) > MAX_LIST: raise ValueError(f"{len(value)} entries where at most {MAX_LIST} may be")
        for entry in value.values() if isinstance(value, dict) else value: _check_config(entry, depth + 1)
    elif isinstance(value, str):
        if len(value) > 64: raise ValueError("a word of more than 64 letters")
    elif value is not None and not (isinstance(value, numbers.Real) and abs(value) < 1e9): raise ValueError(f"a number out of all bounds, {str(value)[:20]}")

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
    if not isinstance(text := header.get("description", ""), str) or len(text) > 2000: raise StanhlicError(f"{path}: its description is no text of at most 2,000 letters; shorten it")
    try: _check_config(header["config"])
    except ValueError as e: raise StanhlicError(f"{path}: its configuration holds {e}; give a file that stanhlic saved") from e
    return header

def _check_finite(tensors, path):
    "Refuse weights with which nothing can be computed"
    bad = next((k for k, t in tensors.items() if t.is_floating_point() and not t.float().isfinite().all()), None)
    if bad: raise StanhlicError(f"{path}: {str(bad)[:80]} holds numbers that are not finite, as a training that diverged leaves them; take an earlier checkpoint")


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

    Raises `StanhlicError` if the header is not a model's, a number is not finite, or the file cannot be written."""
    from safetensors.torch import save
    _check_finite(tensors, path)
    computed = fingerprint(tensors, header.get("config", {}))
    header = _check_header({"format": FORMAT} | header | {"fingerprint": computed.hex()}, path)
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    try: text = json.dumps(header, allow_nan=False)
    except ValueError as e: raise StanhlicError(f"{path}: the header holds a number that is not finite; leave it out") from e
    atomic_write(path, save(tensors, {"stanhlic": text}))
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
    try:
        if not stat.S_ISREG(mode := os.stat(path).st_mode): raise StanhlicError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}, not a model file")
        with open(path, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            if not 2 <= size <= min(MAX_HEADER, os.fstat(f.fileno()).st_size - 8): raise refusal
            head = read_json(f.read(size))
    except FileNotFoundError as e: raise StanhlicError(f"{path}: no such model file") from e
    except OSError as e: raise StanhlicError(f"{path}: cannot be read ({e.strerror or e})") from e
    except StanhlicError: raise
    except ValueError as e: raise refusal from e
    if not isinstance(head, dict): raise refusal
    return head


def _header(head, path):
    "The model's own header out of safetensors' one"
    metadata = head.get("__metadata__")
    text = metadata.get("stanhlic") if isinstance(metadata, dict) else None
    if not isinstance(text, str): raise StanhlicError(f"{path}: safetensors, but not a stanhlic model; authors' files are read by stanhlic import")
    try: return _check_header(read_json(text), path)
    except StanhlicError: raise
    except ValueError as e: raise DamagedFile(f"{path}: its header is damaged; fetch it again") from e


def inspect_weights(
    path: str | Path,  # model file
) -> dict:             # header, parameters (floating-point numbers), bytes, path
    """What a model file holds, without loading it; raises `StanhlicError` if it is not one."""
    head = _read_head(path)
    header = _header(head, path)
    entries = [v for k, v in head.items() if k != "__metadata__"]
    try: shapes = [e["shape"] for e in entries if e["dtype"].startswith(("F", "BF"))]
    except (KeyError, TypeError, AttributeError): shapes = [None]
    sound, size = all(isinstance(s, list) and len(s) <= 8 and all(type(n) is int and 0 <= n < 2**32 for n in s) for s in shapes), Path(path).stat().st_size
    if not sound or (count := sum(map(math.prod, shapes))) > size: raise DamagedFile(f"{path}: its list of tensors is damaged; fetch it again")
    return header | dict(parameters=count, bytes=size, path=str(path))


def load_weights(
    path: str | Path,  # model file
) -> Weights:          # tensors on the CPU
    """Load a model file.

    Raises `StanhlicError` if it is missing, foreign, cut, damaged, of a later format, or holds numbers that are not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    header = _header(_read_head(path), path)
    try: tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, OverflowError) as e:
        raise DamagedFile(f"{path}: cut or damaged ({str(e).splitlines()[0][:120]}); fetch it again") from e
    computed = fingerprint(tensors, header["config"])
    if header.get("fingerprint") != computed.hex():
        raise DamagedFile(f"{path}: its tensors give fingerprint {computed.hex()}, its header says {str(header.get('fingerprint'))[:16]}; the file is damaged, fetch it again")
    _check_finite(tensors, path)
    return Weights(tensors, header, computed)


def _folders():
    given = os.environ.get("STANHLIC_MODELS", "")
    return [Path(stanhlic.__file__).resolve().parent / "weights", *(Path(p) for p in given.split(os.pathsep) if p)]

def _files(folder):
    "Model files of a folder by name, as far as it can be read"
    try: return sorted(folder.glob("*.safetensors"), key=lambda p: p.stem)
    except OSError: return []

def list_models() -> list:  # [{name, system, description, parameters, bytes, fingerprint, config, provenance, path}, ...]
    """The models known by name: shipped ones, then those in the folders of STANHLIC_MODELS.

    Other weights under a name that is taken are listed as NAME@ and the first digits of their fingerprint; files that are no sound models are passed over."""
    found = {}
    for path in (p for folder in _folders() for p in _files(folder)):
        try: model = {"description": ""} | inspect_weights(path)
        except StanhlicError: continue
        if model["fingerprint"] in (m["fingerprint"] for m in found.values()): continue
        if (name := model["name"]) in found: model |= {"name": f"{name}@{model['fingerprint'][:8]}", "description": f"other weights under the name {name}, for the files that they wrote"}
        found.setdefault(model["name"], model)
    return list(found.values())

def _known(): return ", ".join(m["name"] for m in list_models()) or "none; this installation ships none"

def find_model(
    fingerprint: bytes,  # of a `.slic` file
) -> dict:               # as `list_models` has it
    """The model with this fingerprint; raises `WrongModel` if none here has it."""
    for model in list_models():
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


_DRAWN = {"uniform_", "normal_", "kaiming_uniform_"}  # initial values, which the file replaces
_FACTORIES = {"empty", "zeros", "ones", "full", "rand", "randn", "eye", "arange", "linspace", "tensor"}

def _count(name, args, kwargs):
    "Numbers that a factory makes; a short range or a tensor of given values counts as one"
    if name in ("arange", "linspace", "tensor"): return 1
    size = args[0] if args and isinstance(args[0], (tuple, list)) else kwargs.get("size", args)
    return math.prod(size) ** (2 if name == "eye" else 1)

def _frame(tensors: dict):
    "Context in which a network is built without values of its own, and with no more numbers than twice what the file holds"
    import torch
    from torch.overrides import TorchFunctionMode
    class Frame(TorchFunctionMode):
        left, parts = 2 * sum(t.numel() for t in tensors.values()) + 2 ** 16, 4 * len(tensors) + 256
        def __torch_function__(self, func, types, args=(), kwargs=None):
            name, kwargs = getattr(func, "__name__", ""), kwargs or {}
            if name in _DRAWN: return (args[0] if args else kwargs["tensor"]).detach().zero_()
            if name in _FACTORIES:
                self.left, self.parts = self.left - _count(name, args, kwargs), self.parts - 1
                if min(self.left, self.parts) < 0: raise StanhlicError("the configuration asks for more than the file holds")
                if name == "rand": func = torch.zeros
            return func(*args, **kwargs)
    return Frame()


def restore(
    build: Callable,   # configuration -> untrained model
    weights: Weights,  # as `load_weights` returns them
) -> "Module":         # the model with its weights, in single precision
    """Model of a weight file; raises `StanhlicError` if its configuration and tensors do not fit. Draws no random numbers."""
    import torch
    from .sync import on_cpu
    refusal = lambda why: StanhlicError(f"{str(weights.header['name'])[:80]}: configuration and tensors do not fit ({why}); save the model again")
    given = weights.tensors
    try:
        with on_cpu(), _frame(given): model = build(weights.header["config"])
        wanted = model.state_dict()
        odd = sorted(k for k in wanted.keys() | given.keys() if not (k in wanted and k in given and _fits(wanted[k], given[k])))
        if odd: raise refusal(f"first at {odd[0][:80]}")
        model.load_state_dict({k: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True) for k, t in given.items()}, assign=True)
    except StanhlicError as e: raise e if "do not fit" in str(e) else refusal(str(e)[:200]) from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError, RecursionError) as e: raise refusal(type(e).__name__) from None
    return model

def _fits(wanted, given):
    "Can a tensor take another's place? Whole numbers are part of the network's form and must be the same"
    if wanted.shape != given.shape or wanted.is_floating_point() != given.is_floating_point(): return False
    return wanted.is_floating_point() or (wanted.dtype == given.dtype and bool((wanted == given.cpu()).all()))


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


def check_keys(
    own: dict,        # name -> tensor of the network, on any device or none
    given: dict,      # name -> tensor of the checkpoint
    path: str | Path, # of the checkpoint, for the message
    what: str,        # the network, for the message
    constants=(),     # names of `own` whose values have to agree as well
) -> None:
    """Raise `KeysDoNotFit` for keys that are missing or unexpected, and for tensors of another shape, that are not finite, or constants of another value."""
    import torch
    shaped = [k for k in own if k in given and own[k].shape == given[k].shape]
    differ = lambda k: not torch.allclose(own[k].double(), given[k].double())
    found = {
        "missing": [k for k in own if k not in given],
        "unexpected": [k for k in given if k not in own],
        "of another shape": [f"{k} {list(given[k].shape)} for {list(own[k].shape)}" for k in own if k in given and own[k].shape != given[k].shape],
        "constants of another value": [k for k in shaped if k in constants and differ(k)],
        "not finite": [k for k in shaped if not torch.isfinite(given[k]).all()]}
    parts = [f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" for kind, names in found.items() if names]
    if parts: raise KeysDoNotFit(f"{path}: keys do not fit a {what} network: {', '.join(parts)}; give an unmodified checkpoint", [f"{kind}: {n}" for kind, names in found.items() for n in names])


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
    if number >= torch.cuda.device_count(): raise StanhlicError(f"device {device} is not available ({torch.cuda.device_count()} CUDA devices); choose cpu")
    return device


def resolve_precision(
    precision: str = "fp32",  # fp32, bf16 or auto
    device: str = "cpu",      # or a `torch.device`
) -> str:                     # fp32 or bf16
    """Precision of transforms: `auto` takes bfloat16 if the device has instructions for it. Raises `StanhlicError` for an unknown one."""
    import torch
    if precision in ("fp32", "bf16"): return precision
    if precision != "auto": raise StanhlicError(f"unknown precision {str(precision)[:40]!r}; use fp32, bf16 or auto")
    if str(device).startswith("cuda"): fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else: fast = any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return "bf16" if fast else "fp32"
