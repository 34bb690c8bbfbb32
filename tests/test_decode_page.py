"""The page that decodes: its JavaScript under node against streams, files and tables of Python; then the page itself, in a browser."""
import base64
import functools
import gzip
import http.server
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from stanhlic import encode
from stanhlic.container import extras, pack, unpack, unpack_prefix, write_extras
from stanhlic.datasets import sample_photograph
from stanhlic.entropy import SymbolEncoder, Tables, encode_integers, integer_tables, state_crc, write_varint
from stanhlic.errors import StanhlicError
from stanhlic.export import record
from stanhlic.images import Picture
from stanhlic.priors import scale_indexes, scale_table
from stanhlic.stanh.codec import place, tables_at
from stanhlic.stanh.graphs import beside, walk
from stanhlic.sync import _subset, checksums_length, exact, index_checksums, settle
from stanhlic.zoo import load_codec
from tests import fuzz
from tests.test_export import HINT, lean_model

ROOT = Path(__file__).resolve().parent.parent
NODE = shutil.which("node")
SCALES = scale_table().tolist()

torch.set_num_threads(1)
needs_node = pytest.mark.skipif(not NODE, reason="needs node, which is not installed here")


def text(data): return base64.b64encode(data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()).decode()


def node(*calls):
    """What functions of the page return, or a `StanhlicError` with their refusal, in order."""
    done = subprocess.run([NODE, ROOT / "tests/decode_page.mjs"], input=json.dumps(calls), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [a["value"] if "value" in a else StanhlicError(a["refused"]) for a in json.loads(done.stdout)]


def refusal(call):
    """What a call returns, or its refusal."""
    try: return call()
    except StanhlicError as e: return e


def same(found, wanted):
    """Do both refuse, or give the same?"""
    return isinstance(found, StanhlicError) if isinstance(wanted, StanhlicError) else found == wanted


# %% under node: numbers, checksums, container

@needs_node
def test_numbers_and_checksums():
    rng = np.random.default_rng(0)
    values = [0, 1, 127, 128, 300, 2 ** 28, 2 ** 32 - 1, 2 ** 35 - 1]
    found = node(*(("varint", text(write_varint(v) + b"x")) for v in values), *(("spelled", v) for v in values))
    assert found == [[v, len(write_varint(v))] for v in values] + [list(write_varint(v)) for v in values]
    lists = [[], [0, -1, 1, 2 ** 31 - 1, -2 ** 31], rng.integers(-500, 500, 40).tolist()]
    assert node(*(("integers", text(encode_integers(np.array(v, int)) + b"tail"), 50) for v in lists)) == [[v, len(encode_integers(np.array(v, int)))] for v in lists]
    broken = [b"", b"\x80", b"\x80\x00", b"\xff" * 6, b"\x33" + bytes(60), b"\x02\x01", b"\x01\xff\xff\xff\xff\x7f"]
    assert all(isinstance(v, StanhlicError) for v in node(*(("integers", text(b), 50) for b in broken)))
    data, arrays = rng.bytes(1000), [rng.integers(-2 ** 31, 2 ** 31, 33).tolist(), [], [7]]
    assert node(("crc", text(data)), ("state", arrays)) == [zlib.crc32(data), state_crc(*(np.array(a, int) for a in arrays))]


def opened(data):
    """A file as the page describes it."""
    header, chunks = unpack(data)
    payloads = {name: text(v) for name, v in unpack_prefix(data).extras.items()}
    return dict(kind=header.kind, fingerprint=header.fingerprint.hex(), height=header.height, width=header.width, params=text(header.params),
                extras=[{"number": n, "place": p} for n, p in header.extras], count=len(chunks), chunks=[text(c) for c in chunks], payloads=payloads)


@needs_node
def test_files_open_alike_and_are_refused_alike():
    """Sound files, accidents and forgeries; where both refuse, mostly in the same words."""
    cases = [data for kind in fuzz.SYSTEMS for data, _ in fuzz.files(kind)]
    for n in range(600):
        rng = np.random.default_rng(n)
        data = fuzz.files(fuzz.SYSTEMS[n % 3 if n % 2 else 0])[n % 7][0]
        cases.append(fuzz.damaged(rng, data) if n % 4 else fuzz.forged(rng, data))
    words = []
    for data, got in zip(cases, node(*(("unpack", text(data)) for data in cases))):
        want = refusal(lambda data=data: opened(data))
        if not isinstance(want, StanhlicError): assert {k: got[k] for k in want} == want
        elif "format version" not in str(want):  # the page knows only the version of stanh
            assert isinstance(got, StanhlicError), str(want)
            words.append(str(got) == str(want))
    assert len(words) > 300 and np.mean(words) > 0.9


# %% under node: symbols and tables

def tables_like(pmf):
    """Tables, and the same for node."""
    t = Tables(integer_tables(pmf))
    return t, {"frequencies": t.freq.ravel().tolist(), "rows": len(t), "symbols": t.freq.shape[1]}


def streams():
    """Streams of several calls under peaked, flat and lopsided tables, with what they hold."""
    rng = np.random.default_rng(1)
    peaked = rng.random((5, 30)) ** 12
    some, many, two = tables_like(peaked), tables_like(rng.random((300, 4)) + 1e-3), tables_like(np.array([[1.0, 0.0], [1e-9, 1.0]]))
    for sizes in ((0,), (1,), (3000, 2000), (0, 700, 1, 5000)):
        encoder, calls, symbols = SymbolEncoder(), [], []
        for n, (tables, told) in zip(sizes, (some, many, two, some)):
            rows = rng.integers(0, len(tables), n)
            drawn = np.array([rng.choice(tables.freq.shape[1], p=tables.freq[r] / 2 ** 24) for r in rows], int)
            if n > 100: drawn[rng.integers(0, n, 9)] = rng.integers(0, tables.freq.shape[1], 9)  # also what is all but impossible
            encoder.encode(drawn, rows, tables)
            calls.append([told, rows.tolist()]); symbols.append(drawn.tolist())
        yield encoder.bytes(), calls, symbols


@needs_node
def test_streams_give_their_symbols():
    found = list(streams())
    assert node(*(("symbols", text(data), calls) for data, calls, _ in found)) == [symbols for *_, symbols in found]


@needs_node
def test_damaged_streams_are_refused_or_give_what_python_gives():
    from stanhlic.entropy import SymbolDecoder
    (data, calls, _), cases = list(streams())[2], []
    for n in range(40): cases.append(fuzz.damaged(np.random.default_rng(n), data))
    cases += [b"", b"\xff" * 40, bytes(9)]
    def want(data):
        decoder = SymbolDecoder(data)
        return [decoder.decode(np.array(rows, int), Tables(np.reshape(t["frequencies"], (t["rows"], t["symbols"])))).tolist() for t, rows in calls]
    wanted, found = [refusal(lambda data=data: want(data)) for data in cases], node(*(("symbols", text(data), calls) for data in cases))
    assert all(map(same, found, wanted)) and 0 < sum(isinstance(w, StanhlicError) for w in wanted) < len(cases)


@needs_node
def test_tables_are_checked():
    tables, told = tables_like(np.ones((3, 4)))
    short, gap = told | {"frequencies": [v - (i == 5) for i, v in enumerate(told["frequencies"])]}, told | {"frequencies": [0, 2 ** 24, 0, 0] * 3}
    found = node(("tables", told), ("tables", short), ("tables", gap))
    assert found[0] == tables.crc and all("table of this page is damaged" in str(v) for v in found[1:])


# %% under node: scale indexes and their repair

def scales_near(rng, n, share=0.02):
    """σ of which some lie close to a boundary."""
    scale = np.exp(rng.uniform(np.log(0.05), np.log(300), n)).astype(np.float32)
    close = rng.random(n) < share
    edge = scale_table().numpy()[rng.integers(0, 63, n)] * (1 + 2 ** -10)
    return np.where(close, edge * (1 + rng.normal(0, 1e-6, n)), scale).astype(np.float32)


@needs_node
def test_scale_indexes_are_those_of_python():
    scale = np.concatenate([scales_near(np.random.default_rng(0), 30_000, 0.5), np.float32([0, 0.11, 256, 1e9])])
    sizes = [0, 1, 8192, 8193, 65536, 65537, 200_000]
    found = node(("indexes", text(scale), SCALES), *(("length", n) for n in sizes))
    assert found == [scale_indexes(torch.from_numpy(scale)).tolist(), *map(checksums_length, sizes)]


@needs_node
@pytest.mark.parametrize("size, share", [(500, 0.01), (9000, 0.002), (70_000, 0.0002)])
def test_close_calls_are_settled_as_python_settles_them(size, share):
    """Also where too many differ: then both refuse."""
    cases, wanted = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scale = scales_near(rng, size, share)
        theirs = scale_indexes(torch.from_numpy((scale * (1 + rng.normal(0, [0, 1e-7, 1e-6, 3e-6, 1e-3][seed], size))).astype(np.float32))).numpy()
        own = scale_indexes(torch.from_numpy(scale)).numpy()
        checksums = index_checksums(theirs)
        wanted.append(refusal(lambda own=own, scale=scale, checksums=checksums: text(settle(own, torch.from_numpy(scale), checksums))))
        cases.append(("settle", text(own), text(scale), text(checksums), SCALES))
        if seed < 3: assert wanted[-1] == text(theirs)
    found = node(*cases)
    assert all(map(same, [v if isinstance(v, StanhlicError) else v["rows"] for v in found], wanted))
    assert found[0]["repaired"] == 0 and isinstance(found[4], StanhlicError) and "stanhlic decompress" in str(found[4])


@needs_node
def test_subsets_are_found_where_there_are_some():
    rng = np.random.default_rng(0)
    cases = [([int(v) for v in rng.integers(1, 2 ** 31, n)], int(d)) for n, d in zip((0, 3, 20, 31), rng.integers(1, 2 ** 31, 4))]
    cases += [(e, functools.reduce(int.__xor__, e[::2])) for e, _ in cases if e]
    assert node(*(("subset", *c) for c in cases)) == [_subset(*c) for c in cases]


# %% under node: a whole file, with networks that answer what torch computed

@pytest.fixture(scope="module")
def lean(tmp_path_factory):
    """A small lean codec, what its model.json says, and its files."""
    codec, files = load_codec(lean_model(tmp_path_factory.mktemp("lean")), "cpu"), {}
    with exact(): return codec, {"plan": record(codec, 64, 64)[1], **json.loads(json.dumps(beside(codec, files.__setitem__)))}, files


def recorded(codec, picture, change=0.0):
    """Inputs and outputs of each network, as a decoder meets them; scales changed by a share of themselves."""
    found, rng = {}, np.random.default_rng(0)
    as_map = lambda t: {"data": text(t.float().numpy()), "dims": list(t.shape)}
    def run(name, network, inputs, names):
        out = network(*inputs.values())
        out = out if isinstance(out, tuple) else (out,)
        told = {n: t * torch.from_numpy((1 + change * rng.choice([-1, 1], t.shape)).astype(np.float32)) if n.startswith("scale") else t for n, t in zip(names, out)}
        found[name] = {"inputs": {n: as_map(t) for n, t in inputs.items()}, "outputs": {n: as_map(t) for n, t in told.items()}}
        return out
    with torch.inference_mode(): walk(codec, codec.analyze(picture).x, run, lambda number, mean, scale, value: value)
    return found


def block_of(told, files, number):
    block = next(b for b in told["tables"] if b["first"] <= number < b["first"] + b["count"])
    return block, text(gzip.decompress(files[block["file"]]))


@needs_node
@pytest.mark.parametrize("change, outcome", [(0, "same"), (5e-5, "same"), (1e-2, "refused")])
def test_a_file_decodes_under_recorded_networks(lean, change, outcome):
    """Symbols, escapes, repair, values and pixels; scales that differ by too much are found out."""
    codec, told, files = lean
    picture = fuzz.drawing(150, 200)
    data = codec.encode(picture, 0)
    got, = node(("latents", text(data), told, *block_of(told, files, 0), recorded(codec, picture, change)))
    if outcome == "refused": assert "gives other scales than the encoder's did" in str(got); return
    pixels = np.frombuffer(base64.b64decode(got["pixels"]), np.uint8).reshape(150, 200, 4)
    assert got["far"] < 1e-4 and got["quality"] == 0 and (got["repaired"] > 0) == (change > 0)
    assert np.abs(pixels[..., :3].astype(int) - codec.decode(data)).max() <= 1 and (pixels[..., 3] == 255).all()


@needs_node
def test_quantizers_and_tables_along_the_dial(lean):
    """Also between rate points, where levels are interpolated."""
    codec, told, files = lean
    positions = [0, 1, 63, 64, 130, 255, 256]
    found = node(*(("block", *block_of(told, files, n), n) for n in positions), *(("quantizers", told, n) for n in positions))
    for n, got, stairs in zip(positions, found, found[len(positions):]):
        _, qy, qz, ty, tz = tables_at(codec.model, place(n))
        assert got["crc"] == [ty.crc, tz.crc] and got["y"] == ty.freq.ravel().tolist() and got["z"] == tz.freq.ravel().tolist()
        ends = lambda q: [*q.levels.tolist(), *q.jumps[[0, -1]].tolist()]
        assert stairs["y"] == pytest.approx([*ends(qy), qy.step], rel=1e-6) and stairs["z"] == pytest.approx(ends(qz), rel=1e-6)


@needs_node
def test_what_a_page_does_not_hold_is_refused_before_it_is_made(lean):
    codec, told, files = lean
    header = {"kind": "stanh", "fingerprint": codec.fingerprint.hex(), "height": 100, "width": 100}
    models = [{"name": "lean", "fingerprint": codec.fingerprint.hex()}]
    found = node(("check", header, models), ("check", header | {"kind": "rnn"}, models), ("check", header | {"fingerprint": "0" * 16}, models),
                 ("check", header | {"height": 4097, "width": 4096}, models), ("check", header | {"height": 16385, "width": 1}, models), ("params", text(bytes([0, 128, 1, 0, 0, 128])), 2),
                 ("params", text(bytes([1, 1, 0, 0, 0, 0])), 2), ("params", text(bytes(5)), 2))
    assert found[0] == "lean" and found[5] == {"level": 0, "alpha": 128, "number": 128, "quality": 50, "check": 2 ** 31 + 1}
    for got, why in zip([*found[1:5], *found[6:]], ("written by a model of the rnn system", "needs the model 0000", "more than a page holds", "more than a page holds", "rate level 1", "5 bytes of parameters")): assert why in str(got)


@needs_node
def test_strips_make_the_whole_picture():
    """Of a latent of more positions than synthesis sees at once; the rows around a strip are cut off again."""
    h, w, about = 150, 130, {"reach": 4, "step": 2}
    latent = np.random.default_rng(0).random((3, h, w), np.float32)
    got, small = node(("strips", {"data": text(latent), "dims": [1, 3, h, w]}, {"height": 16 * h - 7, "width": 16 * w - 3}, about), ("strips", {"data": text(latent[:, :4, :4]), "dims": [1, 3, 4, 4]}, {"height": 64, "width": 60}, about))
    want = np.round(255 * latent.repeat(16, 1).repeat(16, 2)).astype(np.uint8)[:, :16 * h - 7, :16 * w - 3].transpose(1, 2, 0)
    assert np.array_equal(np.frombuffer(base64.b64decode(got["pixels"]), np.uint8).reshape(*want.shape[:2], 4)[..., :3], want)
    assert len(got["calls"]) > 1 and max(got["calls"]) * w < 9300 and small["calls"] == [4]


# %% under node: alpha and PNG

@needs_node
def test_planes_say_their_size():
    """Before a browser decodes them; anything but a lossless picture of one plane is none."""
    plane, noise = np.zeros((40, 70), np.uint8), io.BytesIO()
    Image.fromarray(plane).save(noise, "JPEG")
    wide = write_extras(np.zeros((2, 20_000), np.uint8))["alpha"]
    found = node(*(("plane", text(data)) for data in (write_extras(plane)["alpha"], wide, noise.getvalue(), b"", b"RIFF" + bytes(40))))
    assert found == [{"type": "image/webp", "width": 70, "height": 40}, {"type": "image/png", "width": 20_000, "height": 2}, None, None, None]


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@needs_node
@pytest.mark.parametrize("alpha", [False, True])
def test_png_holds_pixels_alpha_and_profile(alpha):
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, 4), np.uint8)
    png, = node(("png", text(pixels), 31, 23, alpha, text(zlib.compress(PROFILE, 9))))
    found = Image.open(io.BytesIO(base64.b64decode(png)))
    assert found.mode == ("RGBA" if alpha else "RGB") and np.array_equal(np.array(found), pixels[..., :3 + alpha]) and found.info["icc_profile"] == PROFILE


# %% in a browser

class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list = []

    def log_message(self, *_): self.asked.append(self.path)


def build_site(folder, *models):
    """The page with some models, as `make docs` builds it."""
    pytest.importorskip("onnx", reason=HINT); pytest.importorskip("onnxruntime", reason=HINT)
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs/build.py")
    module, before = importlib.util.module_from_spec(spec), sys.path[:]
    try:
        spec.loader.exec_module(module)
        module.decoder(folder, models or None)
    except (ModuleNotFoundError, StanhlicError) as e: pytest.skip(f"the page cannot be built here: {e}")
    finally: sys.path[:] = before


@pytest.fixture(scope="module")
def small(browser, tmp_path_factory):
    """Codec and folder of a page for a small lean model."""
    folder = tmp_path_factory.mktemp("site")
    path = lean_model(folder)
    build_site(folder / "html", path)
    return load_codec(path, "cpu"), folder / "html"


class Page:
    """The page, served from a folder and open in a browser."""

    def __init__(self, browser, folder):
        self.browser, self.server = browser, http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.size(1440, 900)
        browser("/url", {"url": f"http://127.0.0.1:{self.server.server_port}/decode.html"})
        self.folder = folder

    def size(self, width, height): self.browser("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}})

    def text(self, name): return self.browser.run(f"document.getElementById('{name}').textContent")

    def wait(self):
        """What it shows in the end: "shown" or "refused"."""
        while (state := self.browser.run("document.body.dataset.state")) in ("busy", "given"): time.sleep(0.02)
        return state

    def give(self, data, name="a.slic"):
        """Hand it a file, by its file chooser."""
        path = self.folder.parent / name
        path.write_bytes(data)
        self.browser.run("document.body.dataset.state = 'given'")
        chooser = next(iter(self.browser("/element", {"using": "css selector", "value": "#choose"}).values()))
        self.browser(f"/element/{chooser}/value", {"text": str(path)})
        return self.wait()

    def canvas(self):
        """Its pixels, uint8 [H, W, 4]."""
        data = self.browser.run("(c => [c.width, c.height, btoa(Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data, v => String.fromCharCode(v)).join(''))])(document.getElementById('picture'))")
        return np.frombuffer(base64.b64decode(data[2]), np.uint8).reshape(data[1], data[0], 4)

    def saved(self):
        """What the button saves: name, picture."""
        self.browser.run("(window.kept = {}, URL.createObjectURL = blob => { kept.blob = blob; return '#'; }, HTMLAnchorElement.prototype.click = function () { kept.name = this.download; }, document.getElementById('save').click(), 0)")
        while not self.browser.run("Boolean(kept.name)"): time.sleep(0.02)
        script = "const done = arguments[0]; kept.blob.arrayBuffer().then(b => done([kept.name, btoa(Array.from(new Uint8Array(b), v => String.fromCharCode(v)).join(''))]))"
        name, data = self.browser("/execute/async", {"script": script, "args": []})
        return name, Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def page(browser, small):
    shown = Page(browser, small[1])
    yield shown
    shown.server.shutdown()


def far(a, b): return np.abs(a.astype(int) - b).max()


def test_a_file_of_the_command_line(page, small, photo, cli, tmp_path):
    weights = small[1].parent / "lean.safetensors"
    for options in (["--quality", "50"], ["--quality", "0"], ["--quality", "77.7"], ["--quality", "100"]):
        assert cli("compress", photo, "--out", tmp_path / "a.slic", "--model", weights, *options).returncode == 0
        assert cli("decompress", tmp_path / "a.slic", "--out", tmp_path / "a.png", "--model", weights).returncode == 0
        data, want = (tmp_path / "a.slic").read_bytes(), np.array(Image.open(tmp_path / "a.png"))
        assert page.give(data) == "shown", page.text("error")
        assert far(page.canvas()[..., :3], want) <= 1 and (page.text("bytes"), page.text("size")) == (f"{len(data):,}", "160 × 128")
        assert float(page.text("quality")) == pytest.approx(float(options[1]), abs=0.2) and page.text("bpp") == f"{8 * len(data) / (160 * 128):.4f}" and page.text("model") == "lean" and re.fullmatch(r"\d+\.\d\d s", page.text("time"))
        name, saved = page.saved()
        assert name == "a.png" and saved.mode == "RGB" and far(np.array(saved), want) <= 1
    assert [e for e in page.browser("/se/log", {"type": "browser"}) if e["source"] != "rendering"] == []  # neither an error nor a refusal of the content security policy
    assert page.browser.run(f"performance.getEntriesByType('resource').every(e => e.name.startsWith('http://127.0.0.1:{page.server.server_port}/'))")


def test_the_model_is_there_before_a_file(browser, small):
    """An open page loads its first model by itself, so that the first file does not wait for it."""
    Quiet.asked.clear()
    page = Page(browser, small[1])
    while not any(path.endswith("/synthesis.onnx") for path in Quiet.asked): time.sleep(0.02)
    fetched = sorted(path for path in Quiet.asked if path.endswith(".onnx"))
    assert page.text("bytes") == "" and page.give(small[0].encode(fuzz.drawing(64, 64))) == "shown"
    assert "Loading the model" not in page.text("notes") and sorted(path for path in Quiet.asked if path.endswith(".onnx")) == fetched
    page.server.shutdown()


@pytest.mark.parametrize("height, width", [(1, 1), (3, 200), (300, 65)])
def test_pictures_of_odd_sizes(page, small, height, width):
    codec, picture = small[0], fuzz.drawing(height, width)
    data = codec.encode(picture, 60)
    assert page.give(data) == "shown" and far(page.canvas()[..., :3], codec.decode(data)) <= 1


def test_alpha_profile_and_what_is_left_out(page, small):
    picture = Picture(fuzz.drawing(80, 112), fuzz.drawing(80, 112, 4)[..., 0] // 16 * 16, {"icc": PROFILE, "exif": b"Exif" * 20, "xmp": b"<x/>"})
    data = small[0].encode(picture, 50)
    assert page.give(data) == "shown" and "also carries exif and xmp" in page.text("notes") and "profile is kept" in page.text("notes")
    name, saved = page.saved()
    assert saved.mode == "RGBA" and np.array_equal(np.array(saved)[..., 3], extras(data)["alpha"]) and saved.info["icc_profile"] == PROFILE
    assert far(np.array(saved)[..., :3], small[0].decode(data)) <= 1


def test_damage_is_refused_in_one_line(page, small):
    """Flips in every part, cuts, what follows, and forged payloads; never a picture that Python does not show."""
    codec = small[0]
    data = codec.encode(Picture(fuzz.drawing(80, 112), fuzz.drawing(80, 112, 4)[..., 0], {}), 50)
    header, (payload,) = unpack(data)
    flips = [data[:i] + bytes([data[i] ^ 4]) + data[i + 1:] for i in np.linspace(0, len(data) - 1, 12).astype(int).tolist()]
    forged = [pack(header, [fuzz.damaged(np.random.default_rng(n), payload)]) for n in range(8)]
    other = pack(header, [payload], write_extras(np.zeros((80, 111), np.uint8)))
    sound = 0
    for bad in [*flips, *(data[:n] for n in (0, 3, 20, len(data) // 2, len(data) - 1)), data + b"x", b"\x89PNG" + data[4:], other, *forged]:
        want, got = refusal(lambda bad=bad: codec.decode(bad)), page.give(bad)
        if got == "refused": assert "\n" not in page.text("error") and 20 < len(page.text("error")) < 300 and page.browser.run("getComputedStyle(document.getElementById('shown')).display") == "none"
        else: sound += 1; assert not isinstance(want, StanhlicError) and far(page.canvas()[..., :3], want) <= 1
    assert sound <= 2
    assert page.give(data) == "shown"  # and after all that it still works


def test_files_of_others_are_refused(page, small):
    for kind, why in (("rnn", "written by a model of the rnn system"), ("progressive", "written by a model of the progressive system"), ("stanh", "needs the model")):
        assert page.give(fuzz.files(kind)[0][0]) == "refused" and why in page.text("error")


def test_networks_that_do_not_arrive_are_named(browser, small, tmp_path):
    codec, folder = small
    shutil.copytree(folder, tmp_path / "html")
    (tmp_path / "html/decode/models/lean/synthesis.onnx").write_bytes(b"x")
    shown = Page(browser, tmp_path / "html")
    assert shown.give(codec.encode(fuzz.drawing(64, 64))) == "refused" and "network of this page is damaged" in shown.text("error")
    shown.server.shutdown()


def test_the_policy_refuses_the_network(page):
    page.browser("/se/log", {"type": "browser"})
    page.browser.run("(new Image().src = 'http://127.0.0.1:9/a.png', fetch('http://127.0.0.1:9/').catch(() => 0), 0)")
    said = page.browser("/se/log", {"type": "browser"})
    assert len(said) >= 2 and all("Content Security Policy" in e["message"] for e in said)


def test_keyboard_phone_and_example(page, small):
    for width in (390, 1440):
        page.size(width, 844)
        page.browser.run("document.body.dataset.state = 'given'")
        page.browser.run("document.getElementById('example').click()")
        assert page.wait() == "shown" and page.text("size") == "512 × 600"
        assert page.browser.run("document.documentElement.scrollWidth") == width
        assert page.browser.run("[...document.querySelectorAll('button, .button')].filter(b => b.offsetParent).every(b => b.offsetHeight >= 44)")
    order = []
    for _ in range(4):
        page.browser("/actions", {"actions": [{"type": "key", "id": "keys", "actions": [{"type": kind, "value": "\ue004"} for kind in ("keyDown", "keyUp")]}]})
        order.append(page.browser.run("document.activeElement.id || document.activeElement.tagName"))
    assert order == ["A", "choose", "example", "save"]


@pytest.mark.slow
def test_the_models_that_ship(browser, tmp_path):
    """Every stanh model, on the photograph of the tests, along the dial."""
    build_site(tmp_path / "html")
    shown = Page(browser, tmp_path / "html")
    for told in json.loads((tmp_path / "html/decode/models/models.json").read_text()):
        codec = load_codec(told["name"], "cpu")
        for quality in (0, 33.3, 71, 100):
            data = encode(sample_photograph(), quality=quality, model=told["name"])
            assert shown.give(data) == "shown", shown.text("error")
            assert far(shown.canvas()[..., :3], codec.decode(data)) <= 1 and shown.text("model") == told["name"]
    shown.server.shutdown()
