"""One file, whatever the process around it does: autocast, TF32 switches, and where there is a GPU, the other device."""
import subprocess
import sys

import pytest
import torch

from stanhlic.datasets import sample_photograph
from stanhlic.zoo import load_codec

MODELS = ["stanh-compact", "progressive-compact", "rnn-compact"]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("name", MODELS)
def test_autocast_around_a_codec_changes_nothing(name):
    codec, image = load_codec(name, "cpu"), sample_photograph(128)
    whole = codec.encode(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert codec.encode(image) == whole
        inside = codec.decode(whole)
    assert (codec.decode(whole) == inside).all()


@pytest.mark.parametrize("setting", [
    "torch.set_float32_matmul_precision('high')", "torch.set_float32_matmul_precision('medium')", "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.fp32_precision = 'tf32'", "torch.backends.cuda.matmul.fp32_precision = 'tf32'", "torch.backends.cudnn.fp32_precision = 'ieee'"])
def test_switches_of_the_process_stay_as_they_were(setting):
    code = f"""
import operator, torch
if {'fp32_precision' in setting} and not hasattr(torch.backends, "fp32_precision"): raise SystemExit
from stanhlic.sync import exact
places = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
now = lambda: [operator.attrgetter(p)(torch.backends).fp32_precision for p in places] if hasattr(torch.backends, "fp32_precision") else torch.backends.cuda.matmul.allow_tf32
{setting}
before = now()
with exact(): assert not hasattr(torch.backends, "fp32_precision") or now() == ["ieee"] * 6, now()
assert now() == before, (before, now())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_bf16_transforms_decode_what_fp32_wrote(name):
    image = sample_photograph(128)
    plain, fast = load_codec(name, "cpu"), load_codec(name, "cpu", "bf16")
    for wrote, reads in ((plain, fast), (fast, plain)):
        far = abs(reads.decode(wrote.encode(image)).astype(int) - wrote.decode(wrote.encode(image)))
        assert far.mean() < 2


@on_gpu
@pytest.mark.parametrize("name", MODELS)
def test_files_of_one_device_decode_on_the_other(name):
    image = sample_photograph(256)
    cpu, gpu = load_codec(name, "cpu"), load_codec(name, "cuda")
    for wrote, reads in ((cpu, gpu), (gpu, cpu)):
        data = wrote.encode(image)
        assert abs(reads.decode(data).astype(int) - wrote.decode(data)).max() <= 1


@on_gpu
@pytest.mark.parametrize("room, stage, start", [("stanh", "base", {}), ("stanh", "anchor", {}), ("rnn", "train", {}), ("progressive", "first", {})])
def test_a_stage_trains_on_a_gpu(room, stage, start, tmp_path):
    from importlib import import_module
    path = import_module(f"stanhlic.{room}.training").run(stage, "smoke", out=tmp_path, device="cuda", set=["steps=2"], **start)
    assert path.is_file()


def test_precision_follows_the_processor(monkeypatch):
    from stanhlic.errors import StanhlicError
    from stanhlic.modelfile import resolve_precision
    for names, expected in (((), "fp32"), (("avx512_bf16",), "bf16"), (("amx_tile",), "bf16")):
        for name in ("avx512_bf16", "amx_tile"): monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda there=name in names: there, raising=False)
        assert resolve_precision("auto", "cpu") == expected and load_codec("stanh-compact", "cpu", "auto").precision == expected
    assert (resolve_precision(), resolve_precision("bf16"), resolve_precision("fp32", torch.device("cpu"))) == ("fp32", "bf16", "fp32")
    with pytest.raises(StanhlicError, match="use fp32, bf16 or auto"): resolve_precision("int8")


def test_fast_on_the_command_line_is_auto(cli, photo, tmp_path, monkeypatch):
    """Files that were written fast are read by anyone."""
    from stanhlic.images import read_image
    for name in ("avx512_bf16", "amx_tile"): monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: True, raising=False)
    for flags, made in (((), "plain"), (("--fast",), "fast")): assert cli("compress", photo, tmp_path / f"{made}.slic", *flags).returncode == 0
    assert cli("decompress", tmp_path / "fast.slic", tmp_path / "a.png").returncode == 0 and cli("decompress", tmp_path / "plain.slic", tmp_path / "b.png", "--fast").returncode == 0
    assert (tmp_path / "plain.slic").read_bytes() != (tmp_path / "fast.slic").read_bytes()
    assert abs(read_image(tmp_path / "a.png").astype(int) - read_image(tmp_path / "b.png")).mean() < 2


def test_what_bf16_costs_is_measured_from_files(tmp_path, monkeypatch):
    from stanhlic.lab import precision
    monkeypatch.setattr(precision, "demo_images", lambda limit: ([("a", sample_photograph(64))], "one picture"))
    monkeypatch.setattr(precision, "MODELS", {"stanh-compact": (50,)})
    found = precision.main(tmp_path / "p.json")
    assert len(found["rows"]) == 4 and len(found["costs"]) == 3 and all(abs(c["dB"]) < 1 and abs(c["rate"]) < 5 for c in found["costs"])
    assert [c["rate"] for c in found["costs"] if c["wrote"] == "fp32"] == [0]
