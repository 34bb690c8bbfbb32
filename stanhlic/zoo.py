"""A codec from any model that has a name here, and what a file holds, read with the help of its model."""
import contextlib
import importlib
from pathlib import Path
from types import ModuleType

import stanhlic
from stanhlic import DEFAULT_MODEL
from .container import Header, describe, read_header, unpack, unpack_prefix
from .errors import CutFile, StanhlicError, WrongModel
from .modelfile import find_model, inspect_weights, list_models, load_weights, model_path  # noqa: F401  names are looked up there

def load_codec(
    model: str | Path = DEFAULT_MODEL,  # name, or path of a model file
    device: str = "auto",  # auto, cpu, cuda or cuda:N; or a `torch.device`
    precision: str = "fp32",            # of analysis and synthesis: "fp32", "bf16", or "auto" for bf16 where the device has instructions for it
) -> "stanhlic.codec.Codec":
    """Load a model as a codec, ready to encode and decode; what is coded stays in fp32 at any precision.

    Raises `StanhlicError` for an unknown name, a file that is not a sound model, a missing device, or a system this installation lacks."""
    from .codec import codec_class  # brings torch, which looking at models must not
    weights = load_weights(model_path(model))
    return codec_class(weights.header["system"]).from_weights(weights, device, precision)

def codec_for(
    header: Header,                   # of a `.slic` file
    model: str | Path | None = None,  # name or path; default: the known model of that fingerprint
    device: str = "auto",  # auto, cpu, cuda or cuda:N
    precision: str = "fp32",          # of synthesis, as for `load_codec`
) -> "stanhlic.codec.Codec":          # that can decode the file
    """Load the codec that wrote a file; raises as `load_codec` and `model_for` do."""
    return load_codec(model_for(header, model)["path"], device, precision)

def model_for(
    header: Header,                   # of a `.slic` file
    model: str | Path | None = None,  # name or path; default: the known model of that fingerprint
) -> dict:                            # as `list_models` has it
    """The model that wrote a file. Raises `WrongModel` if no known model has the file's fingerprint, if the one named has a different one, or if it belongs to a different system."""
    held = find_model(header.fingerprint) if model is None else inspect_weights(model_path(model))
    if held["fingerprint"] != header.fingerprint.hex():
        raise WrongModel(f"the file was written by the model with fingerprint {header.fingerprint.hex()}, {model} has {held['fingerprint']}; name the right one with model=, or --model on the command line")
    if held["system"] != header.kind: raise WrongModel(f"the file says {header.kind}, but its model {held['name']} belongs to system {held['system']}; the file is damaged or forged")
    return held

def file_rules(
    kind: str,        # as a header has it
) -> ModuleType:      # `TRUNCATABLE` and `describe_params`; where files may be cut, `cuts`, `truncate` and `remark` too
    """What can be said and done about the files of a codec without its networks; raises `StanhlicError` if this installation lacks it."""
    try: return importlib.import_module(f"stanhlic.{kind}.file")
    except ModuleNotFoundError as e: raise StanhlicError(f"this stanhlic has no {kind} codec; upgrade stanhlic") from e

def check_start(
    head: bytes,  # the first bytes of a file
) -> None:
    """Raise `StanhlicError` as `read_header` does if no `.slic` file begins like this."""
    with contextlib.suppress(CutFile): read_header(head)

def sound_header(
    data: bytes,  # a `.slic` file, perhaps cut
) -> Header:
    """Header of a file that can give a picture; raises as `unpack` does if a file that must be whole is not. Needs no model."""
    if not unpack_prefix(data).complete and not file_rules(read_header(data).kind).TRUNCATABLE: unpack(data)
    return read_header(data)

def describe_file(
    data: bytes,  # a `.slic` file, perhaps cut
) -> dict:        # plain values: what the container holds, the model's name (None if it is not known here), a note or None, and the codec's own parameters
    """What a file holds; no network is loaded. Raises `StanhlicError` as `sound_header` does."""
    header, found = sound_header(data), describe(data)
    try: model = model_for(header)
    except WrongModel:
        if header.fingerprint.hex() in (m["fingerprint"] for m in list_models()): raise
        return found | {"model": None}
    rules = file_rules(header.kind)
    try:
        note = None if found["complete"] else rules.remark(unpack_prefix(data), len(data)) or "the file is cut; the parameters below are those of the whole file"
        return found | {"model": model["name"], "note": note} | rules.describe_params(header, model["config"])
    except (KeyError, IndexError, TypeError, AttributeError, ArithmeticError) as e: raise StanhlicError(f"the configuration of {model['name']} is not that of a model; save the model again") from e

def import_progressive(
    path: str | Path,  # the authors' .pth.tar
    rems=None,         # qualities of the REM checkpoints in percent; default: from the file's arguments, else the usual ones
):                     # ProgressiveModel, with REMs where the file has them
    """Read a checkpoint of the variance-aware release; raises `StanhlicError` naming what does not fit."""
    from stanhlic.progressive.importers import import_progressive  # brings torch, which looking at models must not
    return import_progressive(path, rems)
