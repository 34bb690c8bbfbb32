"""A codec from any model that has a name here, what a file holds, read with the help of its model, and models from the files of others."""
import contextlib
import importlib
from pathlib import Path
from types import ModuleType

import stanhlic
from stanhlic import DEFAULT_MODEL
from .container import Header, describe, read_header, unpack, unpack_prefix
from .errors import CutFile, StanhlicError, WrongModel
from .modelfile import check_name, find_model, inspect_weights, list_models, load_weights, model_path, save_weights  # noqa: F401  names are looked up there

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


RELEASES = {"zou22": "zou22", "stanh": "stanh-zou22", "progressive": "progressive-zou22"}  # whose files can be imported, and the name of what comes of them, which profile paper looks for

def _imported(release, files, lambdas, rems):
    "System, network and configuration of the authors' files"
    if release == "progressive":
        from .progressive.importers import import_progressive
        from .progressive.model import model_config
        model = import_progressive(*files, rems=rems)
        return "progressive", model, model_config(model)
    from .stanh.importers import import_stanh, import_zou22
    from .stanh.model import StanhModel, model_config, rounding_point
    model = import_stanh(*files) if release == "stanh" else StanhModel([import_zou22(*files)], [rounding_point(None)])
    if lambdas and len(lambdas) != len(model.points): raise StanhlicError(f"{len(lambdas)} lambdas for {len(model.points)} rate points; give one for each, lowest rate first")
    for point, lmbda in zip(model.points, lambdas or ()): point.lmbda = lmbda
    return "stanh", model, model_config(model)

def import_model(
    release: str,        # zou22, stanh or progressive
    files: list,         # the authors': one, or of stanh the anchor and its rate points, or their folder
    out: str | Path,     # model file to write
    name: str = "",      # of the model; default: as in `RELEASES`
    lambdas: list = (),  # λ of each rate point, which the files do not record and which training goes on from
    rems: list = None,   # qualities of the REM checkpoints in percent; default: from the file, else the usual ones
) -> dict:               # as `inspect_weights` has it
    """Make a model file of what the authors of a method released.

    Raises `KeysDoNotFit` if keys are missing, unexpected or of another shape, `StanhlicError` for anything else that does not fit."""
    import hashlib
    if release not in RELEASES: raise StanhlicError(f"unknown release '{release}'; choose {', '.join(RELEASES)}")
    if (release == "stanh") != (len(files) > 1): raise StanhlicError("stanh takes the anchor's file and the rate points, or their folder" if release == "stanh" else f"{release} takes one file, not {len(files)}")
    if lambdas and release == "progressive" or rems and release != "progressive": raise StanhlicError(f"{'rems' if rems else 'lambdas'} do not belong to {release}; leave them out")
    check_name(name := name or RELEASES[release])
    system, model, config = _imported(release, files, lambdas, rems)
    sources = {Path(f).name: hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in files if Path(f).is_file()}
    save_weights(out, model.state_dict(), {"system": system, "name": name, "config": config, "provenance": {"release": release, "files": [Path(f).name for f in files], "sha256": sources},
                                           "description": f"imported from the authors' files, release {release}"})
    return inspect_weights(out)
