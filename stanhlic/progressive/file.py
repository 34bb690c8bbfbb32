"""What a progressive file says of itself, how much of it has arrived, and cutting it; no network is needed."""
import math
import zlib
from dataclasses import dataclass

from ..container import Guarded, Header, Prefix, seal, unguard, unpack_prefix
from ..entropy import read_varint, write_varint
from ..errors import CutFile, DamagedFile, StanhlicError

TRUNCATABLE = True
RANKINGS = ("global", "slice", "random", "channel")  # orders in which the residual may be sent
MULTIPLE = 64                                        # pixels; sides are padded to it


def share_count(
    quality: float,  # percentage of elements, 0 to 100
    elements: int,   # n
) -> int:            # elements sent
    """Number of elements that a quality sends; raises `StanhlicError` outside 0 to 100."""
    if not 0 <= quality <= 100: raise StanhlicError(f"quality {quality:g} is outside 0 to 100; choose one in between")
    if quality in (0, 100): return elements if quality else 0
    return min(elements, math.floor(quality / 100 * (elements - 1)) + 1)


def stage_counts(
    config: dict,   # of the model
    elements: int,  # of one latent
) -> list[int]:
    """Elements that each stage of a whole file sends: of lean parts a share of all, else those from one checkpoint to the next."""
    ends = [share_count(q, elements) for q in (*config["rems"], 100.0)]
    return ends if "steps" in config else [b - a for a, b in zip((0, *ends), ends)]


def share_quality(
    count: int,     # elements sent, 0 to n
    elements: int,  # n
) -> float:         # percentage
    """A quality that sends exactly `count` elements; the inverse of `share_count`."""
    if count in (0, elements): return 100.0 if count else 0.0
    return 100 * (count - 0.5) / (elements - 1)


@dataclass(frozen=True)
class Layout:
    """A progressive file's own parameters."""
    ranking: str               # order of the residual
    elements: int              # residual elements coded in the whole file
    base_bytes: int            # length of the base chunk
    crossover: int             # code of the share at which the top decoder takes over; see `crossover_count`
    checks: tuple[int, ...]    # CRC-32 of the scale indexes: base; then each stage that is in the file, with its order

    def to_bytes(self) -> bytes:
        """Encode the parameters: at most 32 bytes with three checkpoints."""
        head = bytes([RANKINGS.index(self.ranking), self.crossover]) + write_varint(self.elements) + write_varint(self.base_bytes)
        return head + b"".join(c.to_bytes(4, "little") for c in self.checks)

    @staticmethod
    def from_bytes(data: bytes) -> "Layout":
        """Read the parameters; raises `StanhlicError` if they are damaged."""
        if len(data) < 2 or data[0] >= len(RANKINGS): raise DamagedFile("the file's progressive parameters are damaged; fetch it again")
        elements, offset = read_varint(data, 2)
        base_bytes, offset = read_varint(data, offset)
        checks = [int.from_bytes(data[i:i + 4], "little") for i in range(offset, len(data), 4)]
        if not checks or (len(data) - offset) % 4: raise DamagedFile("the file's progressive parameters are damaged; fetch it again")
        return Layout(RANKINGS[data[0]], elements, base_bytes, data[1], tuple(checks))


def crossover_count(
    code: int,      # 0 to 255
    elements: int,  # of the whole residual
) -> int:           # from this many elements on the top decoder is used
    """Elements that must have arrived before the top decoder shows the picture."""
    if code in (0, 255): return elements + 1 if code else 1
    return max(1, round(elements * 2 ** ((code - 254) / 16)))


def seed_of(
    params: bytes,  # `Layout.to_bytes`
    base: bytes,    # base chunk
) -> int:
    """CRC-32 with which the checks of a residual begin."""
    return zlib.crc32(base, zlib.crc32(params))


def arrived(
    found: Prefix,  # of a file whose base is there
) -> Guarded:       # its end is counted from the beginning of the file
    """The residual as far as it is there; of a chunk that fails its checksum, as far as it is checked."""
    seed, whole = seed_of(found.header.params, found.chunks[0]), len(found.chunks) > 1
    chunk = found.chunks[1] if whole else b"" if found.name else found.tail
    got = unguard(chunk, seed)
    if whole: return got._replace(checked=len(got.stream), end=found.ends[2])
    if found.damaged: got = got._replace(stream=got.stream[:got.checked], sound=False)
    return got._replace(end=found.at + (len(write_varint(found.declared)) + got.end if got.end else 0))


def base_end(
    found: Prefix,  # of a progressive file
) -> int:           # bytes
    """Length of the shortest prefix that gives a picture."""
    base = Layout.from_bytes(found.header.params).base_bytes
    return found.ends[0] + len(write_varint(base)) + base + 4


def no_base(found: Prefix, received: int) -> str:
    """Why there is no picture yet."""
    if found.damaged: return "the base of the file is damaged, so there is no picture; fetch it again"
    return f"no picture yet: {base_end(found) - received} more bytes are needed for the base"


def remark(
    found: Prefix,
    received: int,         # bytes
    damaged: bool = False, # a decoder found it to be
    strict: bool = False,  # it shows tested bytes only
) -> str | None:
    """One line if there is no picture yet, if damage ends it early, if it shows bytes that no check has tested, or if it lacks its alpha or color profile; else None."""
    if not found.chunks: return no_base(found, received)
    got = arrived(found)
    said, open_end = [], len(got.stream) - got.checked
    if found.damaged or damaged or not got.sound: said.append(f"the file is damaged behind byte {got.end} of {received}; the picture holds what is sound before")
    elif open_end and not strict: said.append(f"the file is cut, and its last {open_end} byte{'s' * (open_end > 1)} cannot be tested, since the check behind is missing; strict leaves {'them' if open_end > 1 else 'it'} out")
    return "; ".join(said + [found.lacks] * bool(found.lacks)) or None


def cuts(
    data: bytes,  # a progressive `.slic` file, perhaps cut
) -> range:       # bytes
    """Lengths at which a beginning of the file gives a picture; none if the base is not there."""
    found = unpack_prefix(data)
    least = base_end(found)
    if not found.chunks: return range(least, least if found.damaged else len(data) + 1)
    got = arrived(found)
    return range(least, (len(data) if got.sound and not found.damaged else got.end if len(found.chunks) < found.count else found.at) + 1)


def truncate(
    data: bytes,            # a progressive `.slic` file, perhaps cut
    num_bytes: int = None,  # largest size of the new file
    layers: int = None,     # always refused; only layered files have layers
) -> bytes:
    """A smaller file: the first bytes of a file, ending with a check. Raises `StanhlicError` if they would not hold the base, and says how many do."""
    found = unpack_prefix(data)
    if found.header.kind != "progressive": raise StanhlicError(f"a file of the codec {found.header.kind!r} cannot be cut like a progressive one; give a progressive file")
    if num_bytes is None or layers is not None: raise StanhlicError("a progressive file has no layers; give a number of bytes")
    if not found.chunks: raise (DamagedFile if found.damaged else CutFile)(no_base(found, len(data)))
    least = base_end(found)
    if num_bytes < least: raise StanhlicError(f"{num_bytes} bytes hold no picture: header and base of this file take {least}; keep at least that many")
    if num_bytes >= len(data): return data
    cut = unpack_prefix(data[:num_bytes])
    if not cut.chunks: raise DamagedFile("the header and the base of the file disagree; it is damaged, fetch it again")
    start = cut.at + len(write_varint(cut.declared))
    kept = b"" if cut.name or start >= num_bytes else seal(data[start:num_bytes], seed_of(cut.header.params, cut.chunks[0]))
    return data[:start] + kept if kept else data[:cut.at]


def describe_params(
    header: Header,
    config: dict,   # of the model
) -> dict:
    """A file's own parameters, readable: order, elements, base and takeover."""
    layout = Layout.from_bytes(header.params)
    latent = config["level"].get("latent") or sum(config["level"]["widths"])
    elements = sum(stage_counts(config, 16 * -(-header.height // MULTIPLE) * -(-header.width // MULTIPLE) * latent))
    if layout.elements > elements: raise DamagedFile("the file claims more elements than the picture has; it is damaged, fetch it again")
    return {"quality": round(share_quality(layout.elements, elements), 3), "ranking": layout.ranking, "elements": layout.elements, "base_bytes": layout.base_bytes,
            "top_decoder_from": crossover_count(layout.crossover, elements), "checkpoints": list(config["rems"]), "checks": [f"{c:08x}" for c in layout.checks]}
