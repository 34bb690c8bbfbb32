"""Bytes that nobody wrote, thrown at everything that reads bytes: `python -m tests.fuzz SECONDS [KIND...]`, kinds as in `TARGETS`.

A case follows from its number alone: `python -m tests.fuzz --case KIND NUMBER` runs it again. Whatever is wrong (an exception that is no
refusal, a refusal that does not fit on a line, a wrong picture without a word, half a minute without an answer) is printed, its bytes kept
in a folder for temporary files, and the exit code is 1. `python -m tests.fuzz --corpus` makes the files of `tests/corpus` again, which a
new version of a format needs."""
import contextlib
import copy
import io
import json
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from stanhlic.errors import StanhlicError

CORPUS = Path(__file__).resolve().parent / "corpus"
SYSTEMS = ("stanh", "rnn", "progressive")
PATIENCE = 30  # seconds after which a case counts as hanging; most take a hundredth of one


class Wrong(Exception):
    """What a case must not do."""


# %% the corpus: small models of random numbers, and files that they wrote

def drawing(height, width, seed=0):
    """A picture of waves, edges and noise, uint8 [height, width, 3]."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:height, :width]
    waves = sum(np.sin((a * y + b * x) / 20 + c)[..., None] * rng.normal(0, 25, 3) for a, b, c in rng.normal(0, 2, (5, 3)))
    return (128 + waves + 60 * ((x // 16 + y // 16) % 2)[..., None] + rng.normal(0, 4, (height, width, 3))).clip(0, 255).astype(np.uint8)


def small_models():
    """{system: (configuration, state dict in half precision)}, from seeds."""
    import torch
    from stanhlic.backbone import Zou22, Zou22Config
    from stanhlic.modelfile import halved
    from stanhlic.progressive.model import model_config as progressive_config, random_model
    from stanhlic.progressive.networks import ProgressiveConfig
    from stanhlic.rnn.model import RnnHyper
    from stanhlic.rnn.networks import RnnConfig
    from stanhlic.stanh.model import StanhModel, model_config, rounding_point
    level = Zou22Config(width=8, latent=8, slices=2, support=1, context=(8,), heads=2, units=1, outer_gate=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Zou22(level)
        net.g_a[7].weight.data *= 20  # so that there is something to quantize
        stanh = StanhModel([net], [rounding_point(extrema=(60 * step, 20), step=step) for step in (4, 2, 1)])
        rnn = RnnHyper(RnnConfig(layers=3, width=0.03125, latent=8, hyper=8, hidden_kernel=1, latent_gain=2000.0))
        progressive = random_model(ProgressiveConfig(level, support=1, rems=(20.0,)))
    return {"stanh": (model_config(stanh), halved(stanh.state_dict())), "rnn": (asdict(rnn.config), halved(rnn.state_dict())),
            "progressive": (progressive_config(progressive), halved(progressive.state_dict()))}


def make_corpus(folder=CORPUS):
    """Write models and files."""
    from stanhlic.images import Picture
    from stanhlic.modelfile import save_weights
    from stanhlic.zoo import load_codec
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*"): old.unlink()
    for kind, (config, state) in small_models().items():
        save_weights(folder / f"{kind}.safetensors", state, dict(system=kind, name=f"fuzz-{kind}", config=config, provenance={"made by": "python -m tests.fuzz --corpus"}))
        codec = load_codec(folder / f"{kind}.safetensors", "cpu")
        for name, picture, quality in (("middle", drawing(80, 112), 50), ("best", drawing(64, 64, 1), 100), ("least", drawing(64, 64, 2), 0), ("dot", drawing(1, 1), 50), ("strip", drawing(3, 130), 50), ("flat", np.full((40, 40, 3), 200, np.uint8), 50)):
            (folder / f"{kind}-{name}.slic").write_bytes(codec.encode(picture, quality))
        carrying = Picture(drawing(48, 72, 3), drawing(48, 72, 4)[..., 0] // 16 * 16, {"icc": bytes(range(64)), "exif": b"Exif" * 20, "xmp": b"<x/>"})
        (folder / f"{kind}-carrying.slic").write_bytes(codec.encode(carrying, 50))


@cache
def codec_of(kind):
    """The small codec of a system."""
    from stanhlic.zoo import load_codec
    return load_codec(CORPUS / f"{kind}.safetensors", "cpu")


@cache
def files(kind):
    """Its files: [(bytes, picture), ...]."""
    return [(p.read_bytes(), codec_of(kind).decode(p.read_bytes())) for p in sorted(CORPUS.glob(f"{kind}-*.slic"))]


# %% ways to be wrong

def _flip(rng, data):
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)): data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)

def _set(rng, data):
    data = bytearray(data)
    for _ in range(rng.integers(1, 9)): data[rng.integers(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
    return bytes(data)

def _cut(rng, data): return data[:rng.integers(len(data) + 1)]

def _lose(rng, data):
    a = rng.integers(len(data))
    return data[:a] + data[a + rng.integers(1, 40):]

def _double(rng, data):
    a = rng.integers(len(data))
    b = a + rng.integers(1, 200)
    return data[:b] + data[a:]

def _insert(rng, data):
    a = rng.integers(len(data) + 1)
    return data[:a] + rng.bytes(int(rng.integers(1, 40))) + data[a:]

def _swap(rng, data):
    a, b = sorted(rng.integers(0, len(data) + 1, 2))
    n = min(int(rng.integers(1, 100)), b - a)
    return data[:a] + data[b:b + n] + data[a + n:b] + data[a:a + n] + data[b + n:]

def _noise(rng, data): return rng.bytes(int(rng.integers(0, 300)))

DAMAGE = (_flip, _flip, _set, _cut, _lose, _double, _insert, _swap, _noise)


def damaged(rng, data):
    """The bytes after one to three accidents."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])): data = DAMAGE[rng.integers(len(DAMAGE))](rng, data) if data else data
    return data


def number(rng):
    """A number as somebody hostile would choose it."""
    return int(rng.choice([0, 1, 2, 63, 64, 65, 127, 128, 255, 256, 4096, 65535, 65536, 2 ** 24, 2 ** 28, 2 ** 31, 2 ** 32 - 1, int(rng.integers(0, 300)), int(rng.integers(0, 2 ** 20))]))


def signed(kind, fingerprint, numbers, params, places, count, payloads):
    """A `.slic` file whose checksums are right, whatever it claims."""
    from stanhlic.container import HAS_EXTRAS, KINDS, MAGIC, VERSIONS, write_varint
    code = next(c for c, k in KINDS.items() if k == kind) | HAS_EXTRAS * bool(places)
    listed = b"".join([write_varint(len(places)), *(bytes([number % 256]) + write_varint(place) for number, place in places)]) if places else b""
    head = MAGIC + bytes([VERSIONS[kind], code]) + fingerprint + b"".join(map(write_varint, (*numbers, len(params)))) + params + listed + write_varint(count)
    crc, out = zlib.crc32(head), []
    for i, payload in enumerate(payloads):
        length = write_varint(len(payload))
        out += [length, payload, zlib.crc32(payload, zlib.crc32(length, (crc + i) & 0xFFFFFFFF)).to_bytes(4, "little")]
    return head + crc.to_bytes(4, "little") + b"".join(out)


def forged(rng, data):
    """A file of sound checksums and false claims: its sides, parameters, lists or payloads changed, and signed anew."""
    from stanhlic.container import arrange, unpack_prefix
    found = unpack_prefix(data)
    h, (payloads, places) = found.header, arrange(found.chunks, found.extras, codec_of(found.header.kind).first)
    kind, sides, params, count, payloads, places = h.kind, [h.height, h.width], h.params, found.count, list(payloads), list(places)
    for _ in range(rng.choice([1, 1, 2])):
        what, i = rng.integers(10), int(rng.integers(len(payloads) or 1))
        if what < 2: sides[what] = number(rng)
        elif what == 2: params = damaged(rng, params)
        elif what in (3, 4, 5) and payloads: payloads[i] = damaged(rng, payloads[i])
        elif what == 6: payloads = payloads[:i] + payloads[i + 1:]; count += int(rng.integers(-1, 1))
        elif what == 7: count = number(rng)
        elif what == 8: places = [*places, (number(rng), number(rng))] if rng.random() < 0.5 else places[1:]
        else: kind = str(rng.choice(SYSTEMS))
    return signed(kind, h.fingerprint, sides, params, places, max(count, 0), payloads)


# %% what must hold

@contextlib.contextmanager
def patience(seconds=PATIENCE):
    """`Wrong` after some seconds; only where there are alarms."""
    def late(*_): raise Wrong(f"no answer after {seconds} s")
    if not hasattr(signal, "SIGALRM"): yield; return
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try: yield
    finally: signal.alarm(0); signal.signal(signal.SIGALRM, before)


def attempt(call):
    """What a call returns, or None if it refuses in one printable line."""
    try: return call()
    except StanhlicError as e:
        text = str(e)
        if not text or "\n" in text or len(text) > 500 or not text.isprintable(): raise Wrong(f"a refusal of {len(text)} characters: {text[:200]!r}") from e


def _close(a, b): return a.shape == b.shape and abs(a.astype(int) - b).max() <= 1


def _shared(a, b):
    n = min(len(a), len(b))
    differ = np.flatnonzero(np.frombuffer(a[:n], np.uint8) != np.frombuffer(b[:n], np.uint8))
    return int(differ[0]) if len(differ) else n


def _error(a, b): return float(np.mean((a.astype(float) - b) ** 2))


def judge(kind, data, picture, note):
    """`Wrong` if a picture is shown that is worse than what is sound, without a word; accidents only, since whoever can sign can lie."""
    if any(data == whole[:len(data)] for whole, _ in files(kind)): return
    shared, (whole, best) = max(((_shared(data, whole), (whole, shown)) for whole, shown in files(kind)), key=lambda s: s[0])
    sound = attempt(lambda: codec_of(kind).decoder(strict=True).feed(whole[:shared]).image())
    if sound is None or picture.shape != best.shape: raise Wrong(f"a picture of {shared} sound bytes, which hold none; note: {note}")
    if _error(picture, best) > _error(sound, best) * 1.05 + 1 and "cannot be tested" not in (note or ""):
        raise Wrong(f"the picture is worse than that of the sound part ({_error(picture, best):.1f} against {_error(sound, best):.1f}); note: {note}")


def read_everything(kind, data, rng, accident):
    """Every reader of a `.slic` file, on the same bytes."""
    from stanhlic.container import describe, extras, read_header, unpack, unpack_prefix
    from stanhlic.zoo import describe_file, sound_header
    codec = codec_of(kind)
    for call in (read_header, unpack_prefix, unpack, describe, extras, sound_header, describe_file): attempt(lambda call=call: call(data))
    lengths = attempt(lambda: codec.cuts(data))
    for n in (number(rng), len(data) // 2): attempt(lambda n=n: codec.truncate(data, num_bytes=n))
    attempt(lambda: codec.truncate(data, layers=int(rng.integers(0, 5))))
    decoder = codec.decoder()
    attempt(lambda: codec.decoder(strict=True).feed(data).image())
    picture = attempt(lambda: decoder.feed(data).image())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = attempt(lambda: codec.decode(data))
    if (picture is None) != (again is None) or picture is not None and not (picture == again).all(): raise Wrong("two decoders of the same bytes disagree")
    if picture is not None:
        header, note = read_header(data), attempt(lambda: decoder.note)
        if picture.dtype != np.uint8 or picture.shape != (header.height, header.width, 3): raise Wrong(f"a picture {picture.dtype} {picture.shape} of a file of {header.width}x{header.height}")
        if bool(said) != bool(note) and kind != "stanh": raise Wrong(f"the decoder says {note!r}, a warning says {[str(w.message) for w in said]}")
        if accident: judge(kind, data, picture, note)
        if lengths is not None and not note and not header.extras and len(data) not in lengths: raise Wrong("a file that decodes without a note is not among its own cuts")
    _in_pieces(codec, data, rng, picture)


def _in_pieces(codec, data, rng, picture):
    "The decoder of a download ends where that of a file ends"
    decoder, ends = codec.decoder(), sorted(rng.integers(0, len(data) + 1, 3))
    last, refused = None, False
    for a, b in zip([0, *ends], [*ends, len(data)]):
        if attempt(lambda a=a, b=b: decoder.feed(data[a:b])) is None: refused = True; break
        last = attempt(decoder.image)
        attempt(lambda: decoder.note)
    if not refused and picture is not None and (last is None or not (last == picture).all()): raise Wrong("in pieces, the file gives another picture")


def coded(kind):
    """Cases of a system's files: accidents, and forgeries with sound checksums."""
    def case(rng):
        data = files(kind)[rng.integers(len(files(kind)))][0]
        accident = rng.random() < 0.6
        if accident and rng.random() < 0.15:
            other = files(kind)[rng.integers(len(files(kind)))][0]
            data = data[:rng.integers(len(data))] + other[rng.integers(len(other)):]
        data = damaged(rng, data) if accident else forged(rng, data)
        return data, lambda: read_everything(kind, data, rng, accident)
    return case


# %% weights

def _places(value, way=()):
    if isinstance(value, (dict, list)):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value): yield (*way, key); yield from _places(entry, (*way, key))


def _odd_value(rng):
    values = [number(rng), -number(rng), -1, 0.5, 1e9, 1e308, True, None, "", "x" * 100, "\x1b[2J", [], [1] * int(rng.integers(1, 300)), {}, {"a": [1]}]
    return values[rng.integers(len(values))]


def _odd_tensor(rng, t):
    import torch
    how = rng.integers(7)
    if how == 0: return t * float(10 ** rng.uniform(-6, 6)) if t.is_floating_point() else t + int(rng.integers(-9, 9))
    if how == 1: return torch.zeros_like(t)
    if how == 2: return t.flatten()[:t.numel() // 2]
    if how == 3: return t.double() if t.is_floating_point() else t.float()
    if how == 4 and t.is_floating_point(): return torch.where(torch.rand(t.shape, generator=torch.Generator().manual_seed(int(rng.integers(2 ** 31)))) < 0.01, torch.full_like(t, float(rng.choice([float("nan"), float("inf"), 6e4, -6e4]))), t)
    if how == 5: return -t
    return t.float() * 1e30 if t.is_floating_point() else t * 0


def weights(rng):
    """A model whose configuration or tensors were changed, signed anew; or a model file with accidents."""
    from safetensors.torch import save
    from stanhlic.modelfile import fingerprint, load_weights
    kind = str(rng.choice(SYSTEMS))
    if rng.random() < 0.3: data = damaged(rng, (CORPUS / f"{kind}.safetensors").read_bytes())
    else:
        w = load_weights(CORPUS / f"{kind}.safetensors")
        config, tensors = copy.deepcopy(w.header["config"]), dict(w.tensors)
        for _ in range(rng.choice([1, 1, 2, 3])):
            names, places = sorted(tensors), list(_places(config))
            if rng.random() < 0.5 and places:
                *way, key = places[rng.integers(len(places))]
                place = config
                for k in way: place = place[k]
                place[key] = _odd_value(rng)
            elif rng.random() < 0.2: tensors.pop(names[rng.integers(len(names))])
            else: name = names[rng.integers(len(names))]; tensors[name] = _odd_tensor(rng, tensors[name])
        tensors = {k: t.contiguous().clone() for k, t in tensors.items()}
        header = w.header | {"config": config, "fingerprint": fingerprint(tensors, config).hex()}
        data = save(tensors, {"stanhlic": json.dumps(header)})
    return data, lambda: _use(data)


def _use(data):
    "Load a model file; if that works, what it encodes decodes, or both refuse"
    from stanhlic.zoo import load_codec
    from stanhlic.modelfile import inspect_weights
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.safetensors")
        path.write_bytes(data)
        attempt(lambda: inspect_weights(path))
        codec = attempt(lambda: load_codec(path, "cpu"))
    if codec is None: return
    picture = drawing(64, 64, 3)
    for quality in (0, 50, 100):
        coded = attempt(lambda quality=quality: codec.encode(picture, quality))
        if coded is None: continue
        shown = attempt(lambda coded=coded: codec.decode(coded))
        if shown is not None and shown.shape != picture.shape: raise Wrong("these weights give a picture of another size")


# %% pictures

@cache
def photographs():
    """A small picture in several formats."""
    from PIL import Image
    im, out = Image.fromarray(drawing(40, 56)), []
    for form, options in (("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True}), ("WEBP", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("GIF", {})):
        im.save(b := io.BytesIO(), form, **options)
        out.append(b.getvalue())
    return out


def pictures(rng):
    """A picture with accidents."""
    from stanhlic.images import decode_image
    source = photographs()[rng.integers(len(photographs()))]
    data = damaged(rng, source)
    def read():
        picture = attempt(lambda: decode_image(data, "a.png"))
        if picture is not None and not (picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3): raise Wrong(f"a picture {picture.dtype} {picture.shape}")
    return data, read


TARGETS = {**{kind: coded(kind) for kind in SYSTEMS}, "weights": weights, "pictures": pictures}


# %% running

def run_case(target, number):
    """One case; returns its bytes and None, or what is wrong."""
    data, check = TARGETS[target](np.random.default_rng([list(TARGETS).index(target), number]))
    try:
        with patience(): check()
    except (KeyboardInterrupt, SystemExit): raise
    except BaseException: return data, traceback.format_exc(limit=-6)
    return data, None


def run(
    seconds=None,          # how long, shared between the kinds
    kinds=tuple(TARGETS),
    first=0,               # number of the first case
    count=None,            # cases of each kind, instead of a time
    report=print,
) -> tuple:                # cases of each kind; failures: [(kind, number, what)]
    """Run cases of each kind in turn, as many as fit."""
    done, failures, end = dict.fromkeys(kinds, 0), [], time.monotonic() + (seconds or 0)
    folder = None
    while time.monotonic() < end if count is None else min(done.values()) < count:
        for kind in kinds:
            data, wrong = run_case(kind, first + done[kind])
            if wrong:
                folder = folder or Path(tempfile.mkdtemp(prefix="stanhlic-fuzz-"))
                (folder / f"{kind}-{first + done[kind]}").write_bytes(data)
                failures.append((kind, first + done[kind], wrong))
                report(f"{kind} {first + done[kind]}, {len(data)} bytes, kept in {folder}\n{wrong}")
            done[kind] += 1
    return done, failures


def main(words):
    """The command; returns its exit code."""
    if words[:1] == ["--corpus"]: make_corpus(); return 0
    if words[:1] == ["--case"]:
        wrong = run_case(words[1], int(words[2]))[1]
        print(wrong or "nothing is wrong")
        return int(bool(wrong))
    kinds = tuple(words[1:]) or tuple(TARGETS)
    if words and not words[0].isdecimal() or not set(kinds) <= set(TARGETS): print(__doc__); return 0 if words[0] in ("-h", "--help") else 2
    seconds = float(words[0]) if words else 60.0
    first = time.time_ns() // 10 ** 6 % 10 ** 9
    print(f"from case {first}, {seconds:g} s: {' '.join(kinds)}", flush=True)
    done, failures = run(seconds, kinds, first)
    print(", ".join(f"{n} {k}" for k, n in done.items()) + f" cases; {len(failures)} wrong")
    return int(bool(failures))


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
