"""Pillow with our plugin: lazy, bounded, and as strict as the command line."""
import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from profiles import icc

import stanhlic
import stanhlic.pillow
from stanhlic import CutFile, CutFileWarning, DamagedFile, StanhlicError
from stanhlic.container import Header, pack, unpack_prefix

torch.set_num_threads(1)


def test_there_and_back(models, photo, tmp_path):
    image, path = Image.open(photo), tmp_path / "a.slic"
    image.save(path, quality=30, model="tiny")
    assert path.read_bytes() == stanhlic.encode(photo, 30, model="tiny")
    back = Image.open(path)
    assert (back.format, back.mode, back.size, back.info["kind"], back.get_format_mimetype()) == ("SLIC", "RGB", image.size, "stanh", "image/x-slic")
    assert np.array_equal(np.asarray(back), stanhlic.decode(path)) and np.array_equal(np.asarray(back), np.asarray(back.copy()))
    assert back.getpixel((3, 4)) == tuple(stanhlic.decode(path)[4, 3])


def test_opening_decodes_nothing(slic, monkeypatch):
    calls, real = [], stanhlic.pillow.decode
    monkeypatch.setattr(stanhlic.pillow, "decode", lambda data: calls.append(1) or real(data))
    with Image.open(slic) as image:
        assert image.size == (160, 128) and calls == []
        image.load(); image.load(); image.resize((8, 8))
    assert calls == [1]


def test_streams(models, photo):
    out = io.BytesIO()
    Image.open(photo).save(out, "SLIC", target_bytes=2000, model="tiny")
    assert 0 < len(out.getvalue()) <= 2000
    out.seek(0)
    assert Image.open(out).convert("L").size == (160, 128)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "I;16"])
def test_other_modes_become_rgb(models, photo, mode):
    image, out = Image.open(photo), io.BytesIO()
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    image.save(out, "SLIC", model="tiny")
    assert out.getvalue() == stanhlic.encode(image, model="tiny") and Image.open(out).mode == "RGB"


@pytest.mark.parametrize("image, options, words", [
    (Image.new("CMYK", (8, 8)), {}, "CMYK"), (Image.new("F", (8, 8)), {}, "floating-point"),
    (Image.new("RGB", (8, 8)), dict(quality="high"), "not a number"), (Image.new("RGB", (8, 8)), dict(layers=2), "layered models")])
def test_what_cannot_be_saved_leaves_no_file(models, tmp_path, image, options, words):
    with pytest.raises(StanhlicError, match=words): image.save(tmp_path / "a.slic", model="tiny", **options)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_said_at_once_or_when_the_pixels_are_wanted(slic, tmp_path):
    data = slic.read_bytes()
    with pytest.raises(DamagedFile, match="header fails its checksum"): Image.open(io.BytesIO(data[:8] + b"\0" + data[9:]))
    with pytest.raises(CutFile, match="inside its header"): Image.open(io.BytesIO(data[:20]))
    for bad, kind in ((data[:-5], CutFile), (data[:-5] + bytes(5), DamagedFile)):
        image = Image.open(io.BytesIO(bad))
        with pytest.raises(kind): image.load()


def test_a_huge_size_in_a_header_is_refused_before_anything_is_allocated():
    bomb = pack(Header("stanh", bytes(8), 16384, 16384, bytes(6)), [b""])
    with pytest.raises(Image.DecompressionBombError), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try: Image.open(io.BytesIO(bomb))
        except Image.DecompressionBombWarning as e: raise Image.DecompressionBombError(str(e)) from e


def test_a_cut_layered_file_warns(photo):
    data = stanhlic.encode(photo, model="rnn-compact")
    with pytest.warns(CutFileWarning, match="cut inside layer 4 of 4"): Image.open(io.BytesIO(data[:-3])).load()


def test_transparency_and_metadata_come_back(models, photo, tmp_path):
    image = Image.open(photo); image.putalpha(Image.linear_gradient("L").resize(image.size))
    exif = Image.Exif(); exif[0x010F] = "Maker"
    out = io.BytesIO(); image.save(out, "PNG", icc_profile=icc("P3"), exif=exif.tobytes())
    source = Image.open(out)
    source.save(tmp_path / "a.slic", model="tiny")
    with Image.open(tmp_path / "a.slic") as back:
        assert back.mode == "RGBA" and back.info["icc_profile"] == icc("P3") and back.getexif()[0x010F] == "Maker"
        assert np.array_equal(np.asarray(back)[..., 3], np.asarray(image)[..., 3]) and np.array_equal(np.asarray(back)[..., :3], stanhlic.decode(tmp_path / "a.slic"))
    source.save(tmp_path / "b.slic", model="tiny", icc_profile=b"", exif=b"")
    assert set(stanhlic.extras(tmp_path / "b.slic")) == {"alpha"}


def test_a_file_cut_before_its_alpha_is_opaque_and_says_so():
    data = stanhlic.encode(np.dstack([np.full((64, 64, 3), 90, np.uint8), np.arange(64, dtype=np.uint8)[None].repeat(64, 0)]), model="progressive-compact")
    base = unpack_prefix(data).ends[1]
    with pytest.warns(CutFileWarning, match="alpha channel of the picture is not there yet"): image = Image.open(io.BytesIO(data[:base])); image.load()
    assert image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255)
