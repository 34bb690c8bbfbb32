"""What `import stanhlic` offers: light to import, a path or bytes or arrays in, one line for everything that cannot be served."""
import inspect
import json
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stanhlic
from stanhlic import CutFile, DamagedFile, NotEnoughMemory, OutOfReach, StanhlicError, WrongModel
from stanhlic.images import read_image

torch.set_num_threads(1)


def probe(code):
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# %% light

def test_import_is_light_and_so_are_help_and_models():
    code = """
import sys, pydoc, stanhlic
heavy = lambda: [m for m in ("torch", "numpy", "PIL", "scipy", "matplotlib", "typer") if m in sys.modules]
first = heavy()
page, names, models = pydoc.plain(pydoc.render_doc(stanhlic)), dir(stanhlic), stanhlic.models()
print(first, "torch" in sys.modules, stanhlic.images.__name__, "Learned image compression" in page, "encode" in names)"""
    assert probe(code) == "[] False stanhlic.images True True"


def test_docstring_fits_a_screen_and_names_every_module():
    lines = stanhlic.__doc__.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 140
    shipped = {p.stem for p in Path(stanhlic.__file__).parent.glob("*.py")} | {p.parent.name for p in Path(stanhlic.__file__).parent.glob("*/__init__.py")}
    assert {m for m in shipped if not m.startswith("_") and not re.search(rf"\b{m}\b", stanhlic.__doc__)} <= {"errors"}
    assert set(stanhlic._MODULES) == {m for m in shipped if not m.startswith("_")}


def test_every_name_is_there_and_others_are_not():
    assert all(callable(getattr(stanhlic, n)) or n == "DEFAULT_MODEL" for n in stanhlic.__all__) and set(stanhlic.__all__) <= set(dir(stanhlic))
    assert not hasattr(stanhlic, "nothing") and stanhlic.metrics.psnr
    assert (Path(stanhlic.__file__).parent / "py.typed").exists()


def test_types_are_written_down():
    for name in ("load", "encode", "decode", "info", "models"):
        assert inspect.signature(getattr(stanhlic, name)).return_annotation is not inspect.Signature.empty


def test_the_default_model_is_one_of_those_shipped():
    assert stanhlic.DEFAULT_MODEL in [m["name"] for m in stanhlic.models()]
    assert f"[default: {stanhlic.DEFAULT_MODEL}]" in " ".join(probe("import sys; sys.argv = ['stanhlic', 'compress', '--help']; from stanhlic.cli import main; main()").split())


# %% there and back

@pytest.fixture(scope="module")
def picture(photo): return read_image(photo)


@pytest.fixture(scope="module")
def data(models, picture): return stanhlic.load("tiny", "cpu").encode(picture, 50)


def test_every_form_of_a_picture_gives_the_same_file(models, photo, picture, data):
    frozen = picture.copy(); frozen.flags.writeable = False
    for image in (photo, str(photo), picture, frozen, np.asfortranarray(picture), Image.open(photo), Image.open(photo).convert("RGBA"), memoryview(picture)):
        assert stanhlic.encode(image, model="tiny") == data


def test_every_form_of_a_file_gives_the_same_picture(models, slic, data):
    expected = stanhlic.load(models / "tiny.safetensors", torch.device("cpu")).decode(data)
    assert slic.read_bytes() == data
    for file in (slic, str(slic), data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), np.frombuffer(data, np.int8)):
        assert np.array_equal(stanhlic.decode(file), expected)


def test_what_decodes_is_the_callers_own(data):
    first = stanhlic.decode(data)
    first[:] = 0
    assert stanhlic.decode(data).any()


def test_quality_targets_and_layers(picture, data):
    assert stanhlic.encode(picture, 50, model="tiny") == stanhlic.encode(picture, target_bytes=len(data), model="tiny") or len(stanhlic.encode(picture, target_bytes=len(data), model="tiny")) <= len(data)
    small = stanhlic.encode(picture, target_bpp=8 * len(data) / picture[..., 0].size, model="tiny")
    assert len(small) <= len(data)
    assert stanhlic.encode(picture, layers=2, model="rnn-compact") == stanhlic.load("rnn-compact").encode(picture, layers=2)


def test_a_model_is_loaded_once(models, picture, data, monkeypatch):
    seen, real = [], stanhlic.load
    monkeypatch.setattr(stanhlic, "load", lambda *a: seen.append(a) or real(*a))
    stanhlic._loaded.cache_clear()
    for _ in range(2): stanhlic.encode(picture, model="tiny"); stanhlic.decode(data)
    assert len(seen) == 1


def test_info(models, slic, data):
    said = stanhlic.info(slic)
    assert said == stanhlic.info(data) and (said["kind"], said["model"], said["quality"], said["bytes"], said["complete"]) == ("stanh", "tiny", 50.0, len(data), True)
    assert json.loads(json.dumps(said)) == said


def test_the_command_line_and_the_face_agree(cli, models, photo, data, tmp_path):
    assert cli("compress", photo, tmp_path / "a.slic", "--model", "tiny").returncode == 0
    assert (tmp_path / "a.slic").read_bytes() == data


@pytest.mark.long
def test_loading_leaves_the_allocator_alone(models):
    code = """
import ctypes, stanhlic
class Spy:
    def __getattr__(self, name): raise AssertionError(name)
import stanhlic.images
stanhlic.images.ctypes = Spy()
print(stanhlic.load("tiny", "cpu"))"""
    assert probe(code).startswith("<stanh codec tiny: 3 rate points, ")


# %% refusals: each line helps in its very case

def refused(kind, call, *words):
    with pytest.raises(kind) as e: call()
    assert "\n" not in str(e.value) and [w for w in words if w not in str(e.value)] == [], str(e.value)
    return str(e.value)


@pytest.mark.parametrize("wanted, words", [
    (dict(quality="high"), ["'high' is not a number", "0 (smallest file) to 100"]), (dict(quality=True), ["'True' is not a number"]), (dict(quality=float("nan")), ["outside 0 to 100"]),
    (dict(quality=101), ["outside 0 to 100"]), (dict(quality=[50]), ["is not a number"]), (dict(target_bpp=float("nan")), ["target_bpp nan is not a positive number"]),
    (dict(target_psnr=float("inf")), ["target_psnr inf"]), (dict(target_bytes=-5), ["target_bytes -5"]), (dict(target_bytes=True), ["target_bytes True"]), (dict(target_bpp="0.3"), ["target_bpp 0.3"]),
    (dict(layers=2.5), ["layers are for layered models", "tiny is a stanh model"]), (dict(quality=50, target_bpp=0.3), ["quality and target_bpp exclude each other"])])
def test_wrong_wishes(models, picture, wanted, words): refused(StanhlicError, lambda: stanhlic.encode(picture, model="tiny", **wanted), *words)


@pytest.mark.parametrize("layers, words", [(2.5, ["2.5 is not a number of layers", "from 1 to 4"]), (True, ["whole number"]), (0, ["choose 1 to 4"]), (5, ["choose 1 to 4"])])
def test_wrong_layers(picture, layers, words):
    codec = stanhlic.load("rnn-compact", "cpu")
    refused(StanhlicError, lambda: codec.encode(picture, layers=layers), *words)
    data = codec.encode(picture)
    refused(StanhlicError, lambda: codec.decode(data, layers=layers), words[0])


@pytest.mark.parametrize("make", [lambda x: x / 255, lambda x: (x / 255).astype(np.float32), lambda x: x[..., 0], lambda x: x.astype(np.uint16) * 257, lambda x: x.astype(int),
                                  lambda x: x.transpose(2, 0, 1), lambda x: x[None]])
def test_the_hint_of_a_wrong_array_makes_it_right(models, picture, make):
    x = make(picture)
    said = refused(StanhlicError, lambda: stanhlic.encode(x, model="tiny"), "a picture is uint8 (H, W, 3)")
    made = eval(re.search(r"(\(?(?:np\.|\(?255|x\b|\(x).*)$", said.split("; ")[1])[1], {"np": np, "x": x})
    assert stanhlic.encode(made, model="tiny")


def test_wrong_pictures(models, photo, picture):
    codec = stanhlic.load("tiny", "cpu")
    refused(StanhlicError, lambda: codec.encode(str(photo)), "is a path", "stanhlic.encode(path)")
    refused(StanhlicError, lambda: stanhlic.encode("nowhere.png", model="tiny"), "nowhere.png", "no such file")
    refused(StanhlicError, lambda: stanhlic.encode(Image.new("CMYK", (8, 8)), model="tiny"), "CMYK", "convert it to 8-bit RGB")
    refused(StanhlicError, lambda: stanhlic.encode(None, model="tiny"), "a picture is uint8")
    refused(StanhlicError, lambda: stanhlic.encode(np.zeros((0, 8, 3), np.uint8), model="tiny"), "sides go from 1")


def test_wrong_files(models, slic, data):
    codec = stanhlic.load("tiny", "cpu")
    refused(StanhlicError, lambda: codec.decode(str(slic)), "is a path", "stanhlic.decode(path)")
    refused(StanhlicError, lambda: codec.decode(slic), "is a path")
    refused(StanhlicError, lambda: stanhlic.decode("nowhere.slic"), "no such file")
    refused(StanhlicError, lambda: stanhlic.decode(np.zeros(4)), "uint8")
    refused(StanhlicError, lambda: stanhlic.decode(7), "int does not hold the bytes")
    refused(CutFile, lambda: stanhlic.decode(b""), "empty")
    refused(CutFile, lambda: stanhlic.decode(data[:-1]), "cut after")
    refused(DamagedFile, lambda: stanhlic.decode(data[:-1] + bytes([data[-1] ^ 1])), "checksum")
    refused(DamagedFile, lambda: stanhlic.decode(b"PNG and so on"), "not a .slic file")
    refused(CutFile, lambda: stanhlic.info(data[:-1]), "cut")
    refused(WrongModel, lambda: stanhlic.decode(data, model="other"), "fingerprint", "model=")
    refused(WrongModel, lambda: stanhlic.load("other", "cpu").decode(data), "needs the model")
    refused(WrongModel, lambda: stanhlic.load("other", "cpu").encode(codec.analyze(np.zeros((8, 8, 3), np.uint8))), "another model")
    from stanhlic.container import Header, pack
    refused(WrongModel, lambda: stanhlic.decode(pack(Header("stanh", b"nobody's", 8, 8, bytes(6)), [b""])), "no model here has fingerprint")


def test_out_of_reach_and_no_memory(models, picture, monkeypatch):
    refused(OutOfReach, lambda: stanhlic.encode(picture, target_bytes=9, model="tiny"), "9 bytes is out of reach", "covers")
    refused(OutOfReach, lambda: stanhlic.encode(picture, target_psnr=99, model="tiny"), "99 dB is out of reach")
    monkeypatch.setattr("stanhlic.images.free_memory", lambda device: 1000)
    refused(NotEnoughMemory, lambda: stanhlic.encode(picture, model="tiny"), "cut it into tiles")


@pytest.mark.parametrize("device, words", [("tpu", ["unknown device 'tpu'"]), (torch.device("meta"), ["unknown device 'meta'"]), ("cuda:99", ["is not available", "choose cpu"])])
def test_wrong_devices(models, device, words): refused(StanhlicError, lambda: stanhlic.load("tiny", device), *words)


def test_wrong_models(models):
    refused(StanhlicError, lambda: stanhlic.load("stanh-giant"), "unknown model 'stanh-giant'", "tiny")
    refused(StanhlicError, lambda: stanhlic.load("tiny", "cpu", "fp8"), "use fp32, bf16 or auto")


def test_errors_are_one_family():
    for kind in (DamagedFile, CutFile, WrongModel, OutOfReach, NotEnoughMemory):
        assert issubclass(kind, StanhlicError) and issubclass(kind, ValueError) and str(pickle.loads(pickle.dumps(kind("a line")))) == "a line"
    assert issubclass(CutFile, DamagedFile) and issubclass(stanhlic.CutFileWarning, UserWarning)


def test_a_cut_layered_file_warns(picture):
    data = stanhlic.encode(picture, model="rnn-compact")
    with pytest.warns(stanhlic.CutFileWarning, match="cut inside layer 4"): stanhlic.decode(data[:-3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stanhlic.decode(data)
