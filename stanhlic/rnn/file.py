"""What a layered file says of itself, where it may be cut, and cutting it; no network is needed."""
from ..container import Header, Prefix, pack, unpack_prefix
from ..entropy import write_varint
from ..errors import CutFile, DamagedFile, StanhlicError, check_layers

TRUNCATABLE = True


def quality_of(
    layers: int,
    there: int,      # layers of the model
) -> float:
    """Quality of a number of layers; the inverse of `layers_at`."""
    return 100.0 if there == 1 else 100 * (layers - 1) / (there - 1)


def check_params(header: Header, there: int = 64) -> int:  # layers of the file
    """Number of layers a header claims; raises `DamagedFile` if no model of `there` layers writes it."""
    if len(header.params) != 1: raise DamagedFile(f"{len(header.params)} bytes of parameters where 1 belongs; the file is damaged")
    if not 1 <= header.params[0] <= there: raise DamagedFile(f"the file claims {header.params[0]} layers, the model has {there}; the file is damaged")
    return header.params[0]


def _layered(data):
    "A file that may be cut, its layers, chunks of each, and layers that are present"
    found = unpack_prefix(data)
    if found.header.kind != "rnn": raise StanhlicError(f"a file of the codec {found.header.kind!r} has no layers to keep; give one of a layered model")
    there = check_params(found.header)
    each, rest = divmod(found.count, there)
    if each not in (1, 2) or rest: raise DamagedFile(f"{found.count} chunks do not make {there} layers; the file is damaged")
    return found, there, each, len(found.chunks) // each


def cuts(
    data: bytes,  # a layered `.slic` file, perhaps cut
) -> list:        # bytes
    """Lengths at which a beginning of the file ends with a layer, for all layers that are present and sound."""
    found, _, each, have = _layered(data)
    return list(found.ends[each::each][:have])


def truncate(
    data: bytes,            # a layered `.slic` file, perhaps cut
    num_bytes: int = None,  # largest size of the new file,
    layers: int = None,     # or layers to keep
) -> bytes:                 # a complete file of fewer layers
    """Keep the first layers of a file; give one of `num_bytes` and `layers`.

    Raises `StanhlicError` if the file has fewer layers, if not even one fits, or if the file is of another codec."""
    if (layers is None) == (num_bytes is None): raise StanhlicError("give exactly one of layers and num_bytes")
    found, there, each, have = _layered(data)
    h = found.header
    make = lambda n: pack(Header(h.kind, h.fingerprint, h.height, h.width, bytes([n])), found.chunks[:n * each], found.extras, each)
    if layers is not None:
        if check_layers(layers, there, "file") > have: raise (DamagedFile if found.damaged else CutFile)(f"the file is {'damaged' if found.damaged else 'cut'} in layer {have + 1}, so {layers} cannot be kept; fetch it again")
        return make(layers)
    fits = [n for n in range(1, have + 1) if len(make(n)) <= num_bytes]
    if not fits: raise StanhlicError(f"not one layer fits into {num_bytes} bytes; the first takes {len(make(1)) if have else 'more than the file has'}")
    return make(fits[-1])


def remark(
    found: Prefix,
    received: int,  # bytes
) -> str | None:
    """What is missing or damaged, and what is shown nevertheless; None for a whole file."""
    if found.complete: return None
    declared = check_params(found.header)
    have = len(found.chunks) * declared // max(found.count, 1)
    if have == declared: return found.lacks or f"the picture is whole, but its {' and '.join(found.absent)} {'is damaged' if found.damaged else 'is cut off'}"
    shown = f"{'the layer before it is' if have == 1 else f'the {have} layers before it are'} shown"
    if found.damaged: return f"layer {have + 1} fails its checksum" + (f": {shown}; fetch the file again for the rest" if have else ", so there is no picture; fetch the file again")
    if have: return f"the file is cut inside layer {have + 1} of {declared}; {shown}" + (f"; {found.lacks}" if found.lacks else "")
    coming = [found.declared] if found.declared else []
    unknown = found.count // declared - len(found.chunks) - len(coming)  # chunks of layer 1 whose size has not arrived
    n = found.at + sum(len(write_varint(n)) + n + 4 for n in (*coming, *[1] * unknown)) - received  # none is empty
    if unknown > 0: return f"no picture yet: layer 1 needs at least {n} more bytes"
    return f"no picture yet: {n} more byte{' completes' if n == 1 else 's complete'} layer 1"


def describe_params(
    header: Header,
    config: dict,   # of the model
) -> dict:
    """A file's own parameters, readable: layers, of how many, and their quality."""
    n = check_params(header, config["layers"])
    return {"layers": n, "model_layers": config["layers"], "quality": round(quality_of(n, config["layers"]), 3), "hyperprior": config.get("hyperprior", True)}
