"""Models by name: what is shipped or lies in the folders of STANHLIC_MODELS, and a codec from any of them."""
import importlib
import os
from pathlib import Path

import stanhlic
from .container import Header
from .errors import StanhlicError
from .images import keep_memory
from .modelfile import inspect_weights, load_weights, resolve_device

def _folders():
    given = os.environ.get("STANHLIC_MODELS", "")
    return [Path(stanhlic.__file__).resolve().parent / "weights", *(Path(p) for p in given.split(os.pathsep) if p)]

def _every_model():
    "What `inspect_weights` says of each model file in the folders, in their order"
    for path in (p for folder in _folders() if folder.is_dir() for p in sorted(folder.glob("*.safetensors"), key=lambda p: p.stem)):
        try: yield {"description": ""} | inspect_weights(path)
        except StanhlicError: continue

def list_models() -> list:  # [{name, system, description, parameters, bytes, fingerprint, config, provenance, path}, ...]
    """The models known by name: shipped ones, then those in the folders of STANHLIC_MODELS."""
    found = {}
    for model in _every_model(): found.setdefault(model["name"], model)
    return list(found.values())

def _known(): return ", ".join(m["name"] for m in list_models()) or "none, none are shipped with this installation"

def find_model(
    fingerprint: bytes,  # of a `.slic` file
) -> dict:               # as `list_models` has it
    """The model that a fingerprint belongs to, listed or not; raises `StanhlicError` if none here does."""
    for model in _every_model():
        if model["fingerprint"] == fingerprint.hex(): return model
    raise StanhlicError(f"no model here has fingerprint {fingerprint.hex()} (known: {_known()}); name the file of the right one with --model PATH; CHANGELOG.md says where weights are that were replaced")

def model_path(
    model: str | Path,  # name, or path of a model file
) -> Path:              # the file
    """File of a model. A name goes before a file of the same name; raises `StanhlicError` if it is neither."""
    for known in list_models():
        if known["name"] == str(model): return Path(known["path"])
    path = Path(model)
    if path.is_file(): return path
    if path.suffix or os.sep in str(model): raise StanhlicError(f"{model}: no such model file")
    raise StanhlicError(f"unknown model '{model}'; known: {_known()}; or give the path of a .safetensors file")

def load_codec(
    model: str | Path,     # name, or path of a model file
    device: str = "auto",  # auto, cpu, cuda or cuda:N
    precision: str = "fp32",  # of analysis and synthesis: "fp32", or "bf16" where the device is fast in it
):                         # codec
    """Load a model as a codec, ready to encode and decode; what is coded stays in fp32 at any precision.

    On a CPU the process is told to keep freed memory, up to 512 MB (`images.keep_memory`). Raises `StanhlicError` for an unknown name, a file that is no sound model, a device that is not here, or a system this installation lacks."""
    if precision not in ("fp32", "bf16"): raise StanhlicError(f"unknown precision {precision!r}; use fp32 or bf16")
    weights = load_weights(model_path(model))
    module = f"stanhlic.{weights.header['system']}.codec"
    try: codec = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and module.startswith(e.name): raise StanhlicError(f"{model}: this stanhlic has no {weights.header['system']} codec; upgrade stanhlic") from e
        raise
    if (device := resolve_device(device)) == "cpu": keep_memory()
    return codec.from_weights(weights, device, precision)

def codec_for(
    header: Header,                   # of a `.slic` file
    model: str | Path | None = None,  # name or path; default: the known model of that fingerprint
    device: str = "auto",             # auto, cpu, cuda or cuda:N
):                                    # codec that can decode the file
    """Load the codec that wrote a file.

    Raises `StanhlicError` if no known model has the file's fingerprint, if the one named has another, if it is of another system, or as `load_codec` does."""
    held = find_model(header.fingerprint) if model is None else inspect_weights(model_path(model))
    if held["fingerprint"] != header.fingerprint.hex():
        raise StanhlicError(f"the file was written by the model with fingerprint {header.fingerprint.hex()}, {model} has {held['fingerprint']}; name the right one with --model")
    if held["system"] != header.kind: raise StanhlicError(f"the file says {header.kind}, but its model {held['name']} is of system {held['system']}; the file is damaged or forged")
    return load_codec(held["path"], device)

def import_progressive(
    path: str | Path,  # the authors' .pth.tar
    rems=None,         # qualities of the REM checkpoints in percent; default: from the file's arguments, else the usual ones
):                     # ProgressiveModel, with REMs where the file has them
    """Read a checkpoint of the variance-aware release; raises `StanhlicError` naming what does not fit."""
    from stanhlic.progressive.importers import import_progressive  # brings torch, which looking at models must not
    return import_progressive(path, rems)
