"""Pictures of any size: strips give what the whole picture gives, and what does not fit is refused in one line."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import stanhlic
from stanhlic import codec as ground
from stanhlic import strips
from stanhlic.datasets import sample_photograph
from stanhlic.errors import NotEnoughMemory, StanhlicError
from stanhlic.zoo import load_codec

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def picture(): return sample_photograph()[:450, :510]


def in_pieces(codec, monkeypatch):
    "From here on a piece has at most 110,000 pixels"
    monkeypatch.setattr(ground, "STRIP", int(codec.memory * 110_000))


@pytest.mark.parametrize("name", ["stanh-compact", "stanh-zou22-compact", "progressive-compact"])
def test_pieces_give_the_bytes_and_the_pixels_of_the_whole(name, picture, monkeypatch):
    if name not in [m["name"] for m in stanhlic.models()]: pytest.skip(f"{name} is not shipped")
    codec = load_codec(name, "cpu")
    data = codec.encode(picture)
    whole = codec.decode(data)
    in_pieces(codec, monkeypatch)
    assert codec.piece < picture.shape[0] * picture.shape[1]
    again, shown = codec.encode(picture), codec.decode(data)
    if name == "stanh-compact":  # convolutions alone
        assert again == data and np.array_equal(shown, whole)
    assert abs(len(again) - len(data)) <= 2 + len(data) // 1000
    assert (shown != whole).mean() < 1e-5 and np.abs(shown.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("name", ["stanh-compact", "progressive-compact"])
def test_rows_of_the_entropy_networks(name, picture, monkeypatch):
    """Files of either side read on the other: sums may end in other bits, the checksums of the scales settle them."""
    codec = load_codec(name, "cpu")
    data = codec.encode(picture)
    whole = codec.decode(data)
    monkeypatch.setattr(strips, "POSITIONS", 200)
    assert np.abs(codec.decode(data).astype(int) - whole).max() <= 1
    assert np.abs(codec.decode(codec.encode(picture)).astype(int) - whole).max() <= 1


def test_a_side_below_64_counts_as_64():
    codec = load_codec("stanh-compact", "cpu")
    assert codec.need(65_535, 1) == codec.need(65_535, 64) > 60 * codec.kept * 65_535
    with pytest.raises(NotEnoughMemory, match="1x65535 needs about"): codec.within(max_memory=1e8).check_room(65_535, 1)


def test_need_grows_with_latents_alone():
    codec = load_codec("stanh-compact", "cpu")
    assert codec.need(8000, 12_000) - codec.need(4000, 6000) < 60 * (8000 * 12_000 - 4000 * 6000)
    assert codec.need(4000, 6000) < 1.5e9


def test_limits_of_the_caller(tmp_path, picture):
    from PIL import Image
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])  # its header alone
    with pytest.raises(NotEnoughMemory, match="229500 pixels, 1000 are allowed"): stanhlic.encode(tmp_path / "cut.png", max_pixels=1000)
    with pytest.raises(NotEnoughMemory, match="are allowed"): stanhlic.encode(tmp_path / "cut.png", max_memory=1e6)
    data = stanhlic.encode(picture[:64, :64], max_pixels=4096)
    with pytest.raises(NotEnoughMemory, match="4096 pixels, 1000 are allowed"): stanhlic.decode(data, max_pixels=1000)
    assert stanhlic.decode(data, max_pixels=4096).shape == (64, 64, 3)
    with pytest.raises(StanhlicError, match="not a positive number"): stanhlic.encode(picture, max_memory=-1)


def test_limits_on_the_command_line(cli, photo, slic, tmp_path):
    done = cli("compress", photo, tmp_path / "a.slic", "--max-pixels", "1000")
    assert done.returncode == 1 and "20480 pixels, 1000 are allowed" in done.stderr and not list(tmp_path.iterdir())
    done = cli("decompress", slic, tmp_path / "a.png", "--max-memory", "0.001")
    assert done.returncode == 1 and "1.0 MB are allowed" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("message", ["[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.", "CUDA out of memory."])
def test_want_of_memory_is_one_of_our_errors(message, picture, monkeypatch):
    codec = load_codec("stanh-compact", "cpu")
    def short(*args): raise RuntimeError(message)
    monkeypatch.setattr(codec, "transform", short)
    with pytest.raises(NotEnoughMemory, match="memory ran out"): codec.encode(picture)
    def other(*args): raise RuntimeError("a fault of ours")
    monkeypatch.setattr(codec, "transform", other)
    with pytest.raises(RuntimeError, match="a fault of ours"): codec.encode(picture)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits of addresses are those of Linux")
def test_the_limit_of_the_process_counts():
    code = """
import resource, psutil, numpy as np, stanhlic
codec = stanhlic.load(device="cpu")
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2 * 10 ** 8, -1))
try: codec.encode(np.zeros((4000, 6000, 3), np.uint8))
except stanhlic.NotEnoughMemory as e: print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert "6000x4000 needs about" in done.stdout or "memory ran out" in done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without end")
@pytest.mark.parametrize("command, words", [("info", "not a .slic file"), ("decompress", "not a .slic file"), ("compress", "not an image")])
def test_a_file_without_end_is_left_at_its_head(cli, tmp_path, command, words):
    done = cli(command, "/dev/zero", *([tmp_path / "out.png"] if command == "decompress" else [tmp_path / "out.slic"] if command == "compress" else []))
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_sizes_are_measured(monkeypatch):
    from stanhlic.lab import sizes
    monkeypatch.setitem(sizes.SIZES, 1, (96, 64))
    rows = sizes.measure("stanh-compact", 50, (1,))
    assert [r["job"] for r in rows] == ["encode", "decode"] and all(r["seconds"] > 0 and r["bytes"] > 100 for r in rows)
    assert sizes.picture(700, 900).shape == (900, 700, 3)
    from stanhlic.lab import bench
    monkeypatch.setattr(sizes, "measure", lambda *args: rows + [{"megapixels": 4, "job": "encode", "refused": "too large"}])
    found = bench.MEASUREMENTS["sizes"](bench.Setting(sizes.picture(64, 64)))
    assert list(found) == [f"1 MP {job}: {what}" for job in ("encode", "decode") for what in ("a megapixel", "memory")]
    assert found["1 MP encode: a megapixel"]["unit"] == "s" and found["1 MP decode: memory"]["value"] == rows[1]["memory"]
