"""The contract of all codecs: a fourth one needs its class, a number and weights; three models speak CompressAI's words."""
import warnings
import sys
import zlib
from types import SimpleNamespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stanhlic
from stanhlic import container
from stanhlic.codec import Codec, Coded, StreamDecoder, WholeDecoder, bisect, codec_class
from stanhlic.container import Header, read_header
from stanhlic.errors import CutFile, DamagedFile, StanhlicError, WrongModel
from stanhlic.images import read_image, to_array, to_tensor
from stanhlic.metrics import psnr
from stanhlic.modelfile import save_weights
from stanhlic.zoo import load_codec

torch.set_num_threads(1)
SHIPPED = ["stanh-compact", "stanh-zou22-compact", "rnn-compact", "progressive-compact"]


@pytest.fixture(scope="module")
def picture(photo): return read_image(photo)


# %% a fourth codec

class Shift(Coded, torch.nn.Module):
    """A model with one number: how many grays a pixel may be off at the low end of the dial."""
    kind = "shift"

    def __init__(self, most=6):
        super().__init__()
        self.most = torch.nn.Parameter(torch.tensor(float(most)))


class ShiftDecoder(WholeDecoder):
    def read(self, header, chunks):
        (drop,), flat = header.params, np.frombuffer(zlib.decompress(chunks[0]), np.uint8)
        if flat.size != 3 * header.height * header.width: raise DamagedFile("the pixels do not fit the header; fetch the file again")
        return (flat.reshape(header.height, header.width, 3) << drop) + ((1 << drop) >> 1)


@pytest.fixture(scope="module")
def fourth(models, tmp_path_factory):
    """A codec that stores fewer bits of each pixel, made known, its number in the container and its weights in a folder."""
    folder = tmp_path_factory.mktemp("fourth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(container.KINDS, 100, "shift"); patch.setitem(container.VERSIONS, "shift", 1)
        patch.setenv("STANHLIC_MODELS", f"{models}:{folder}")

        class ShiftCodec(Codec):
            kind, reader, dial, memory, default_quality = "shift", ShiftDecoder, "7 depths", 20.0, 50.0
            build = staticmethod(lambda config: Shift(config["most"]))
            config_of = staticmethod(lambda state: {"most": float(state["most"])})
            def _drop(self, n): return int(self.model.most) - n
            def last(self, a=None): return int(self.model.most)
            def write(self, a, n): return bytes([self._drop(n)]), [zlib.compress((a.image >> self._drop(n)).tobytes(), 9)]
            def picture(self, a, n): return self.reader(self).read(Header(self.kind, self.fingerprint, a.height, a.width, bytes([self._drop(n)])), self.write(a, n)[1])
            def bits(self, a, n): return 8.0 * len(self.write(a, n)[1][0])
            def describe(self, header): return said(header, {"most": self.last()})

        said = lambda header, config: {"quality": 100 * (1 - header.params[0] / config["most"]), "dropped": header.params[0]}
        patch.setitem(sys.modules, "stanhlic.shift.file", SimpleNamespace(TRUNCATABLE=False, describe_params=said))
        save_weights(folder / "shift.safetensors", Shift().state_dict(), {"system": "shift", "name": "shift", "config": {"most": 6}, "provenance": {}})
        yield folder
        del Codec.known["shift"]


def test_a_fourth_codec_is_found_loaded_and_used(fourth, picture):
    codec = stanhlic.load("shift", "cpu")
    assert repr(codec) == "<shift codec shift: 7 depths, 1 parameters, cpu>" and codec_class("shift") is type(codec)
    sizes = [len(codec.encode(picture, q)) for q in (0, 50, 100)]
    assert sizes == sorted(sizes) and np.array_equal(codec.decode(codec.encode(picture, 100)), picture)
    data = stanhlic.encode(picture, target_bytes=sizes[1], model="shift")
    assert data == codec.encode(picture) and np.array_equal(stanhlic.decode(data), codec.decode(data))
    assert stanhlic.info(data)["dropped"] == 3 and "shift" in [m["name"] for m in stanhlic.models()]


def test_a_fourth_codec_in_the_command_line_and_in_pillow(fourth, cli, photo, picture, tmp_path):
    import stanhlic.pillow  # noqa: F401
    done = cli("compress", photo, tmp_path / "a.slic", "--model", "shift", "--quality", "100")
    assert done.returncode == 0, done.stderr
    assert cli("decompress", tmp_path / "a.slic", tmp_path / "a.png").returncode == 0 and np.array_equal(read_image(tmp_path / "a.png"), picture)
    refused = cli("truncate", tmp_path / "a.slic", tmp_path / "b.slic", "--bytes", "100")
    assert refused.returncode == 1 and "all or nothing" in refused.stderr
    assert "dropped      0" in cli("info", "--verbose", tmp_path / "a.slic").stdout
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.slic")), picture)


def test_a_fourth_model_speaks_compressai(fourth, picture):
    model, x = Shift(), torch.cat([to_tensor(picture[:64, :128]), to_tensor(picture[64:128, :128])])
    out = model.compress(x, quality=100)
    assert out["shape"] == (1, 2) and torch.equal(model.decompress(**out)["x_hat"], x)
    with torch.no_grad(): model.most.fill_(4)
    assert model.update() and not model.update() and model.compress(x, quality=0)["strings"][0] == [b"\4", b"\4"]
    assert Shift.from_state_dict(model.state_dict()).most == 4


# %% the base class

def test_what_a_system_has_to_supply():
    class Half(Codec): kind = "half"
    try:
        with pytest.raises(TypeError, match="abstract"): Half(torch.nn.Module())
    finally: del Codec.known["half"]
    with pytest.raises(StanhlicError, match="has no half codec; upgrade"): codec_class("half")


@pytest.mark.parametrize("name", SHIPPED)
def test_one_line_for_each_codec(name):
    codec = load_codec(name, torch.device("cpu"))
    assert repr(codec).startswith(f"<{codec.kind} codec {name}: ") and repr(codec).endswith(" parameters, cpu>") and "\n" not in repr(codec)
    assert repr(load_codec(name, "cpu", "bf16")).endswith("cpu, bf16>")
    assert (codec.truncatable, codec.layers) == {"stanh": (False, 0), "rnn": (True, 4), "progressive": (True, 0)}[codec.kind]
    assert isinstance(codec.decoder(), StreamDecoder) and codec.config and codec.provenance


@pytest.mark.parametrize("name", SHIPPED)
def test_every_answer_about_a_quality_is_that_of_its_file(name, picture):
    codec, image = load_codec(name, "cpu"), picture[:64, :64]
    a = codec.analyze(image)
    for q in (0, 40, 100):
        data = codec.encode(a, q)
        assert data == codec.encode(image, q) and abs(8 * len(data) - codec.estimate(a, q)) < 0.02 * codec.estimate(a, q) + 8 * 110
        assert codec.psnr_at(a, q) == pytest.approx(psnr(image, codec.decode(data)), abs=1e-6)
        n = codec.position_at(q, a)
        assert codec.position_at(codec.quality_at(n, a), a) == n and codec.position_at(100, a) == codec.last(a)
        assert codec.describe(read_header(data))["quality"] == pytest.approx(codec.quality_at(n, a), abs=0.001)
    assert codec.encode(a) == codec.encode(a, codec.default_quality)


@pytest.mark.parametrize("name", SHIPPED)
def test_targets_are_met_and_one_sentence_says_when_not(name, picture):
    codec = load_codec(name, "cpu")
    a = codec.analyze(picture)
    low, high = (len(codec.encode(a, q)) for q in (0, 100))
    data = codec.encode(a, target_bytes=(low + high) // 2)
    assert low <= len(data) <= (low + high) // 2 and data == codec.encode(a, codec.quality_for(a, target_bytes=(low + high) // 2))
    assert codec.encode(a, target_bytes=10 * high) == codec.encode(a, 100)
    goal = (codec.psnr_at(a, 0) + codec.psnr_at(a, 100)) / 2
    assert psnr(picture, codec.decode(codec.encode(a, target_psnr=goal))) >= goal and codec.quality_for(a, target_psnr=1) == 0
    for target in (dict(target_bytes=9), dict(target_bpp=1e-4), dict(target_psnr=99)):
        with pytest.raises(stanhlic.OutOfReach, match=r"^[\d.e-]+ (bytes|bpp|dB) is out of reach for this picture: the model covers [\d.]+ to [\d.]+ \1$"): codec.encode(a, **target)


def test_bisection_against_a_scan():
    rng = np.random.default_rng(0)
    for _ in range(200):
        v = np.sort(rng.integers(0, 40, rng.integers(2, 60)))
        goal = rng.integers(v[0], v[-1] + 1)
        if v[0] < goal: assert bisect(v.__getitem__, goal, len(v) - 1, True) == np.flatnonzero(v >= goal)[0]
        if v[-1] > goal: assert bisect(v.__getitem__, goal, len(v) - 1, False) == np.flatnonzero(v <= goal)[-1]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_decoder_follows_a_download(name, picture):
    codec = load_codec(name, "cpu")
    data = codec.encode(picture[:64, :64])
    d = codec.decoder()
    for i in range(0, len(data), 97): d.feed(memoryview(data)[i:i + 97])
    assert np.array_equal(d.image(), codec.decode(data)) and (d.note, d.received, d.damaged) == (None, len(data), False)
    with pytest.raises(DamagedFile), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codec.decoder().feed(data[:10] + bytes([data[10] ^ 1]) + data[11:]).image()
    with pytest.raises(CutFile): codec.decoder().feed(data[:60]).image()
    with pytest.raises(StanhlicError, match="is a path"): codec.decoder().feed("photo.slic")


@pytest.mark.parametrize("name", ["stanh-compact", "rnn-compact", "progressive-compact"])
def test_repeating_the_edge_is_cheaper_than_mirroring(name, picture):
    codec, piece = load_codec(name, "cpu"), np.ascontiguousarray(picture[:70, :100])
    mirrored = np.pad(piece, ((0, 58), (0, 28), (0, 0)), "symmetric")
    assert len(codec.encode(piece)) < len(codec.encode(mirrored))


def test_pictures_analyzed_by_another_codec_are_refused(picture):
    codecs = [load_codec(name, "cpu") for name in SHIPPED]
    a = codecs[0].analyze(picture[:8, :8])
    for other in codecs[1:]:
        with pytest.raises(WrongModel, match="analyze it with this one"): other.encode(a)


def test_no_codec_is_told_apart_by_what_it_lacks():
    """Above the ground floor nothing asks with `hasattr` what a codec can do."""
    top = [Path(stanhlic.__file__).parent / f"{n}.py" for n in ("cli", "zoo", "evaluate", "view", "pillow", "__init__")]
    assert [p.name for p in top if "hasattr" in p.read_text() or "getattr(codec" in p.read_text()] == []


# %% CompressAI's words

def batch(picture): return torch.cat([to_tensor(np.ascontiguousarray(picture[:64, :128])), to_tensor(np.ascontiguousarray(picture[64:128, 32:160]))])


@pytest.mark.parametrize("name, wanted", [("stanh-compact", dict(quality=30.0)), ("rnn-compact", dict(layers=2)), ("progressive-compact", dict(quality=20.0))])
def test_models_compress_batches(name, wanted, picture):
    codec, x = load_codec(name, "cpu"), batch(picture)
    model = codec.model.train()
    out = model.compress(x, **wanted)
    assert model.training and out["shape"] == (1, 2) and all(len(part) == 2 and all(isinstance(s, bytes) for s in part) for part in out["strings"])
    back = model.decompress(**out)["x_hat"]
    files = [codec.encode(to_array(image), **wanted) for image in x]
    model.eval()
    assert back.shape == x.shape and all(np.array_equal(to_array(back[i]), codec.decode(files[i])) for i in range(2))
    for i, data in enumerate(files):
        header, chunks = container.unpack(data)
        assert [part[i] for part in out["strings"]][:len(chunks) + 1] == [header.params, *chunks]
    assert model.update() is False and model.aux_loss().ndim == 0
    with pytest.raises(StanhlicError, match="multiples of 64.*stanhlic.images.pad"): model.compress(x[..., :100])


@pytest.mark.parametrize("name", ["stanh-compact", "rnn-compact", "progressive-compact"])
def test_models_from_state_dict(name, picture):
    codec = load_codec(name, "cpu")
    state = codec.model.state_dict()
    known = type(codec.model).from_state_dict(state, codec.config)
    assert np.array_equal(type(codec)(known, fingerprint=codec.fingerprint).decode(codec.encode(picture)), codec.decode(codec.encode(picture)))
    read_off = type(codec.model).from_state_dict(state)
    assert {k: tuple(v.shape) for k, v in read_off.state_dict().items()} == {k: tuple(v.shape) for k, v in state.items()}
    with pytest.raises(StanhlicError): type(codec.model).from_state_dict({})


def test_weights_that_change_renew_the_coder(models, picture):
    model, x = load_codec("tiny", "cpu").model, batch(picture)
    first = model.compress(x)["strings"]
    assert not model.update() and model.update(force=True)
    with torch.no_grad(): next(p for n, p in model.named_parameters() if ".g_a." in n and p.ndim == 4).mul_(3)
    assert model.compress(x)["strings"] != first
