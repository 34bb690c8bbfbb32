"""One file, whatever the process around it does: autocast, TF32 switches, and where there is a GPU, the other device."""
import subprocess
import sys

import pytest
import torch

from stanhlic.datasets import sample_photograph
from stanhlic.zoo import load_codec

MODELS = ["stanh-zou22-compact", "progressive-compact", "rnn-compact"]
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
