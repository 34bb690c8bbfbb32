"""Images: every kind of input is read or refused in one line; writing leaves nothing half-done; padding is undone exactly."""
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from stanhlic import images
from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.images import atomic_write, decode_image, image_files, pad, read_image, to_array, to_tensor, unpad, write_image


@pytest.fixture(scope="module")
def photo(): return sample_photograph(64)


def save(a, fmt="PNG", mode=None, **kw):
    im = a if isinstance(a, Image.Image) else Image.fromarray(a)
    out = io.BytesIO()
    (im.convert(mode) if mode else im).save(out, fmt, **kw)
    return out.getvalue()


def png16(a):
    """A 16-bit RGB PNG, which Pillow cannot write."""
    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in a)
    head = struct.pack(">IIBBBBB", a.shape[1], a.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused(data, *say):
    with pytest.raises(StanhlicError) as e: decode_image(data, "in.png")
    assert str(e.value).startswith("in.png: ") and "\n" not in str(e.value) and all(s in str(e.value) for s in say)


@pytest.mark.parametrize("fmt", ["PNG", "PPM", "BMP", "TIFF"])
def test_lossless_formats(photo, fmt): assert np.array_equal(decode_image(save(photo, fmt)), photo)


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "GIF", "JPEG2000"])
def test_lossy_formats(photo, fmt): assert decode_image(save(photo, fmt)).shape == photo.shape


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "PA"])
def test_modes_that_are_opaque(photo, mode):
    fmt = "TIFF" if mode == "PA" else "PNG"
    got = decode_image(save(photo, fmt, mode))
    assert got.shape == photo.shape and got.dtype == np.uint8


def test_transparency_is_refused_where_only_colors_are_wanted(photo):
    refused(save(np.dstack([photo, photo[..., 0]])), "transparent", "flatten")
    refused(save(Image.fromarray(photo).convert("LA").point(lambda v: v // 2)), "transparent")
    refused(save(photo, mode="P", transparency=int(np.asarray(Image.fromarray(photo).convert("P"))[0, 0])), "transparent")
    refused(save(photo, transparency=tuple(int(v) for v in photo[0, 0])), "transparent")


def test_sixteen_bits():
    deep = np.arange(0, 65536, 13, dtype=np.uint16)[:5000].reshape(50, 100)
    gray = decode_image(save(deep))
    assert np.array_equal(gray[..., 0], np.round(deep / 257).astype(np.uint8)) and np.array_equal(gray[..., 0], gray[..., 2])
    color = decode_image(png16(np.dstack([deep] * 3)))
    assert np.array_equal(color[..., 1], (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(photo, orientation):
    exif = Image.Exif(); exif[0x0112] = orientation
    k, flip = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (1, 2), 6: (-1, 0), 7: (-1, 2), 8: (1, 0)}[orientation]
    want = np.rot90(photo, k)
    want = want[:, ::-1] if flip == 1 else want[::-1] if flip == 2 else want
    assert np.array_equal(decode_image(save(photo, exif=exif)), want)


def test_refused_kinds(photo):
    refused(save(photo, "JPEG", "CMYK"), "CMYK", "convert")
    refused(save(photo[..., 0].astype(np.float32), "TIFF"), "floating-point")
    refused(save(photo, "GIF", save_all=True, append_images=[Image.fromarray(255 - photo)]), "2 frames")
    refused(save(photo, "TIFF", save_all=True, append_images=[Image.fromarray(photo)]), "2 frames")
    refused(b"", "empty file")
    refused(b"hello", "not an image")
    refused(b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image")


def test_camera_pictures_with_a_second_image(photo):
    data = save(photo, "MPO", save_all=True, append_images=[Image.fromarray(photo[::2, ::2])])
    assert decode_image(data).shape == photo.shape


def test_bomb_is_refused_before_decoding(monkeypatch, photo):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses at twice this
    refused(save(photo), "pixels", "tiles")


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "JPEG2000", "GIF", "PPM"])
def test_damaged_files_never_escape(photo, fmt):
    data, rng = save(photo, fmt), np.random.default_rng(0)
    for cut in (1, 9, len(data) // 2):
        with pytest.raises(StanhlicError): decode_image(data[:cut])
    for _ in range(40):  # flipped bytes: a picture or a refusal, nothing else
        bad = bytearray(data)
        for i in rng.integers(0, min(len(data), 400), 3): bad[i] ^= int(rng.integers(1, 256))
        try: assert decode_image(bytes(bad)).dtype == np.uint8
        except StanhlicError as e: assert "\n" not in str(e)


def test_paths(tmp_path, photo):
    for path, say in ((tmp_path / "no.png", "no such file"), (tmp_path, "is a folder"), ("a\0b.png", "cannot be read")):
        with pytest.raises(StanhlicError, match=say): read_image(path)
    write_image(tmp_path / "ü ä.PNG", photo)
    (tmp_path / "notes.txt").write_text("x")
    for name in (".hidden.png", "._photo.jpg", ".png"): (tmp_path / name).touch()
    assert [p.name for p in image_files(tmp_path)] == ["ü ä.PNG"]
    for suffix in ("jfif", "JPE", "pnm", "pbm"): (tmp_path / f"b.{suffix}").touch()
    assert [p.name for p in image_files(tmp_path)] == ["b.JPE", "b.jfif", "b.pbm", "b.pnm", "ü ä.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StanhlicError, match="holds no image"): image_files(tmp_path / "empty")


def test_atomic_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    atomic_write(target, b"old")
    def fail(*a): raise OSError(28, "No space left on device")
    monkeypatch.setattr(images.os, "replace", fail)
    with pytest.raises(StanhlicError, match="No space left"): atomic_write(target, b"new")
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("nameless", [True, False])
def test_a_killed_write_leaves_nothing_for_good(tmp_path, nameless):
    """Nothing at all where files without a name exist; else what the next program removes, once it is old."""
    code = ("import os, sys; from stanhlic import images\nif sys.argv[2] == 'False': images._without_name = lambda *a: False\n"
            "images.atomic_write(sys.argv[1], lambda f: (f.write(b'half'), f.flush(), os.kill(os.getpid(), 9)))")
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a.bin", str(nameless)]).returncode == -9
    left = list(tmp_path.iterdir())
    if nameless and sys.platform == "linux": assert left == []
    for p in left: assert p.name.startswith(".stanhlic-"); os.utime(p, (0, 0))
    (tmp_path / ".stanhlic-00000000.part").touch()  # a program that is writing now
    images._sweep.cache_clear()
    atomic_write(tmp_path / "a.bin", b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".stanhlic-00000000.part", "a.bin"]


@pytest.mark.parametrize("nameless", [True, False])
def test_atomic_write_of_any_name_and_never_over_what_may_not_be_replaced(tmp_path, monkeypatch, nameless):
    if not nameless: monkeypatch.setattr(images, "_without_name", lambda *a: False)
    for name in ("a" * 255, "ü" * 127, os.fsdecode(b"no \xff utf-8")):
        atomic_write(tmp_path / name, b"1", replace=False)
        with pytest.raises(StanhlicError, match="exists already"): atomic_write(tmp_path / name, b"2", replace=False)
        atomic_write(tmp_path / name, b"3")
        assert (tmp_path / name).read_bytes() == b"3"
    def appears(f): f.write(b"ours"); (tmp_path / "b").write_bytes(b"theirs")
    with pytest.raises(StanhlicError, match="exists already"): atomic_write(tmp_path / "b", appears, replace=False)
    assert (tmp_path / "b").read_bytes() == b"theirs" and not list(tmp_path.glob(".stanhlic-*"))
    before = os.umask(0o027)
    try: atomic_write(tmp_path / "c", b"")
    finally: os.umask(before)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o640


def test_atomic_write_places(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for bad in (tmp_path, tmp_path / "no" / "a.png", tmp_path / "file" / "a.png"):
        with pytest.raises(StanhlicError, match="cannot be written"): atomic_write(bad, b"1")
    os.symlink(tmp_path / "file", tmp_path / "link")
    atomic_write(tmp_path / "link", b"through")
    assert (tmp_path / "file").read_bytes() == b"through" and (tmp_path / "link").is_symlink()
    atomic_write("/dev/null", b"1")
    assert not os.path.isfile("/dev/null")


def test_lossy_output_is_refused_before_anything_happens(tmp_path, photo):
    for name in ("a.jpg", "a.avif", "a", "a.slic"):
        with pytest.raises(StanhlicError, match="choose .png"): write_image(tmp_path / name, photo)
    assert not list(tmp_path.iterdir())


def test_tensor_round_trip(photo):
    x = to_tensor(photo)
    assert x.dtype == torch.float32 and x.shape == (1, 3, *photo.shape[:2]) and 0 <= x.min() and x.max() <= 1
    assert np.array_equal(to_array(x), photo)
    every = torch.arange(256).div(255).view(1, 1, 256).expand(3, 1, 256)
    assert to_array(every.bfloat16().float())[0, :, 0].tolist() == torch.arange(256).div(255).bfloat16().float().mul(255).round().int().tolist()
    with pytest.raises(StanhlicError, match="one picture"): to_array(torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (63, 65), (5, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_padding(size, dtype):
    x = torch.randint(0, 255, (2, 3, *size)).to(dtype)
    p = pad(x)
    assert all(n % 64 == 0 and 0 <= n - m < 64 for n, m in zip(p.shape[-2:], size)) and p.dtype == dtype
    assert torch.equal(unpad(p, *size), x)
    assert torch.equal(p[..., -1, -1], x[..., -1, -1])
    assert torch.equal(pad(x[0, 0]), p[0, 0])
