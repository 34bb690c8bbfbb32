"""What a picture carries: alpha, color profile, EXIF and XMP through files, cuts, damage, Python and the command line."""
import io
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from profiles import P3, SRGB, icc

import stanhlic
from stanhlic.container import Header, describe, extras, pack, read_header, unpack_prefix, write_extras
from stanhlic.datasets import sample_photograph
from stanhlic.errors import DamagedFile, StanhlicError
from stanhlic.images import Picture, decode_image, decode_picture, judge_profile, picture_bytes, read_picture

torch.set_num_threads(1)
PHOTO = sample_photograph(320)[60:160, 80:200]
ALPHA = (np.add.outer(np.arange(100), 2 * np.arange(120)) % 256).astype(np.uint8)
EXIF = Image.Exif(); EXIF[0x010F] = "Maker"
METADATA = {"icc": icc("Display P3"), "exif": EXIF.tobytes().removeprefix(b"Exif\0\0"), "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"}
RICH = Picture(PHOTO, ALPHA, METADATA)


def as_file(array, fmt="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, fmt, **options)
    return out.getvalue()


def with_chunk(kind, body):
    data = as_file(PHOTO)
    return data[:33] + struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) + data[33:]


def same(carried, picture): return np.array_equal(carried.pop("alpha", None), picture.alpha) and carried == picture.metadata


@pytest.fixture(scope="module")
def codecs(models):
    from stanhlic.progressive.codec import ProgressiveCodec
    from stanhlic.progressive.model import random_model
    from stanhlic.progressive.networks import PROGRESSIVE_SMOKE
    from stanhlic.rnn.codec import RnnCodec
    from stanhlic.rnn.model import build_model
    torch.manual_seed(0)
    rnn = build_model(dict(width=0.0625, latent=8, hyper=8, latent_gain=1000.0, init_scale=3.0))
    return {"stanh": stanhlic.load("tiny", "cpu"), "rnn": RnnCodec(rnn), "progressive": ProgressiveCodec(random_model(replace(PROGRESSIVE_SMOKE, rems=(10.0,))))}


# %% files

@pytest.mark.parametrize("system", ["stanh", "rnn", "progressive"])
def test_all_comes_back_and_nothing_costs_nothing(codecs, system):
    codec = codecs[system]
    plain, rich = codec.encode(PHOTO), codec.encode(RICH)
    assert read_header(plain).extras == () and plain[5] < 0x80 and extras(plain) == {}
    assert np.array_equal(codec.decode(rich), codec.decode(plain)) and same(extras(rich), RICH)
    assert plain == codec.encode(np.dstack([PHOTO, np.full_like(ALPHA, 255)]))
    payload = sum(map(len, write_extras(ALPHA, METADATA).values()))
    assert 0 < len(rich) - len(plain) - payload <= 50
    assert describe(rich)["extras"].keys() == {"alpha", "icc", "exif", "xmp"} and describe(rich)["complete"]


def test_targets_count_what_a_picture_carries(codecs):
    codec = codecs["progressive"]
    least, most = len(codec.encode(RICH, 0)), len(codec.encode(RICH, 100))
    data = codec.encode(RICH, target_bytes=(least + most) // 2)
    assert len(data) <= (least + most) // 2 and same(extras(data), RICH)
    with pytest.raises(StanhlicError, match=f"covers {least} to"): codec.encode(RICH, target_bytes=least - 1)


def test_effort_keeps_what_a_picture_carries(codecs):
    data = codecs["stanh"].encode(Picture(PHOTO[:64, :64], ALPHA[:64, :64], METADATA), effort=1)
    assert np.array_equal(extras(data)["alpha"], ALPHA[:64, :64]) and set(extras(data)) == {"alpha", *METADATA}


def test_layers_keep_what_a_picture_carries(codecs):
    codec, data = codecs["rnn"], codecs["rnn"].encode(RICH)
    one = codec.truncate(data, layers=1)
    assert same(extras(one), RICH) and np.array_equal(codec.decode(one), codec.decode(data, layers=1)) and one == codec.truncate(data, len(one))
    ends = codec.cuts(data)
    d = codec.decoder().feed(data[:ends[0]])
    assert np.array_equal(d.image(), codec.decode(one)) and "alpha channel of the picture are not there yet" in d.note and "color profile" in d.note
    d.feed(data[ends[0]:-5])
    assert d.layers == 4 and d.note == "the picture is whole, but its xmp is cut off" and set(extras(data[:-5])) == {"icc", "alpha", "exif"}
    assert codec.decoder().feed(data).note is None


def test_order_in_a_progressive_file(codecs):
    "What is needed to show a picture right comes behind its base, what nobody sees at the end"
    data = codecs["progressive"].encode(RICH)
    assert read_header(data).carried == {1: "icc", 2: "alpha", 4: "exif", 5: "xmp"}
    assert read_header(codecs["progressive"].encode(RICH, 0)).carried == {1: "icc", 2: "alpha", 3: "exif", 4: "xmp"}
    short = codecs["progressive"].truncate(data, len(data) - 150)
    assert set(extras(short)) == {"icc", "alpha"} and codecs["progressive"].decoder().feed(short).note is None


@pytest.mark.parametrize("system", ["stanh", "rnn"])
def test_flips_and_cuts_never_change_what_is_carried(codecs, system):
    data = codecs[system].encode(RICH)
    rng = np.random.default_rng(0)
    for _ in range(150):
        bad = bytearray(data[:int(rng.integers(20, len(data) + 1))])
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        try: found = extras(bytes(bad))
        except StanhlicError as e: assert "\n" not in str(e); continue
        for name, value in found.items(): assert np.array_equal(value, ALPHA) if name == "alpha" else value == METADATA[name]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["alpha", "icc", "exif", "xmp"]))
def test_forged_extras(payload, name):
    "Sound checksums around any bytes: a value or one line"
    try: found = extras(pack(Header("stanh", bytes(8), 9, 7), [b""], {name: payload}))
    except StanhlicError as e: assert "\n" not in str(e)
    else: assert found[name].shape == (9, 7) if name == "alpha" else isinstance(found[name], bytes)


def test_unknown_extras_are_passed_over(monkeypatch):
    "A later stanhlic may write more; this one reads the rest"
    header = Header("stanh", bytes(8), 9, 7)
    monkeypatch.setitem(stanhlic.container.EXTRAS, 9, "depth")
    data = pack(header, [b"picture"], {"depth": b"far", "xmp": zlib.compress(b"x")})
    monkeypatch.delitem(stanhlic.container.EXTRAS, 9)
    assert unpack_prefix(data).complete and extras(data) == {"xmp": b"x"} and unpack_prefix(data).chunks == [b"picture"]


def test_alpha_of_another_size_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "getchannel", lambda *a: pytest.fail("decoded"))
    with pytest.raises(DamagedFile, match="not that of the picture"): extras(pack(Header("stanh", bytes(8), 9, 7), [b""], write_extras(np.zeros((7, 9), np.uint8))))


# %% pictures

@pytest.mark.parametrize("profile, same", [(icc("c2", SRGB), True), (icc("sRGB built-in, linear", SRGB, lambda v: v), False), (icc("sRGB", P3), False),
    (icc("plain 2.2", SRGB, lambda v: v ** 2.2), False), (icc("gray", kind=b"GRAY"), True), (icc("Dot Gain 20%", curve=lambda v: v ** 1.75, kind=b"GRAY"), False)])
def test_profiles_are_judged_by_what_they_do(profile, same): assert judge_profile(profile)[2] == same


@pytest.mark.parametrize("kind, body, word", [(b"cICP", bytes([12, 13, 0, 1]), "cICP 12-13-0-1"), (b"gAMA", struct.pack(">I", 100_000), "gAMA 1"), (b"cICP", bytes([1, 13, 0, 1]), None),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000), "cHRM"), (b"gAMA", struct.pack(">I", 45_455), None), (b"sRGB", b"\0", None),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), None)])
def test_color_told_by_a_png(kind, body, word):
    notes = decode_picture(with_chunk(kind, body)).notes
    assert len(notes) == (word is not None) and all(word in n and "convert the picture to sRGB" in n for n in notes)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_color_told_by_exif(fmt):
    exif = Image.Exif(); exif[0x010F] = "Maker"; exif.get_ifd(0x8769)[0xA001] = 2
    found = decode_picture(as_file(PHOTO, fmt, exif=exif.tobytes()))
    assert "Adobe RGB" in found.notes[0] and found.metadata.keys() == {"exif"}
    assert decode_picture(as_file(PHOTO, fmt, exif=exif.tobytes(), icc_profile=icc("Adobe"))).notes == ()


def test_kept_left_out_or_converted():
    data = as_file(PHOTO, icc_profile=METADATA["icc"], exif=EXIF.tobytes())
    kept, bare, converted = decode_picture(data), decode_picture(data, strip=True), decode_picture(data, srgb=True)
    assert kept.metadata.keys() == {"icc", "exif"} and np.array_equal(kept.colors, PHOTO) and kept.notes == ()
    assert bare.metadata == {} and "Display P3" in bare.notes[0]
    assert converted.metadata.keys() == {"exif"} and converted.notes == () and np.abs(converted.colors.astype(int) - PHOTO).max() > 5
    assert decode_picture(as_file(PHOTO, icc_profile=icc("c2", SRGB))).metadata == {}
    gray = decode_picture(as_file(PHOTO[..., 0], icc_profile=icc("Dot", curve=lambda v: v ** 1.75, kind=b"GRAY")))
    assert gray.metadata == {} and "Dot" in gray.notes[0]
    assert decode_picture(as_file(PHOTO[..., 0], icc_profile=icc("Dot", curve=lambda v: v ** 1.75, kind=b"GRAY")), srgb=True).notes == ()


def test_orientation_is_applied_once():
    exif = Image.Exif(); exif[0x0112] = 6; exif[0x010F] = "Maker"
    found = decode_picture(as_file(np.dstack([PHOTO, ALPHA]), exif=exif.tobytes()))
    back = Image.Exif(); back.load(found.metadata["exif"])
    assert np.array_equal(found.colors, np.rot90(PHOTO, -1)) and np.array_equal(found.alpha, np.rot90(ALPHA, -1)) and dict(back) == {0x010F: "Maker"}


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "tRNS"])
def test_alpha_in_every_form(mode):
    if mode == "tRNS": data = as_file(PHOTO, transparency=tuple(map(int, PHOTO[3, 4])))
    else:
        image = Image.fromarray(PHOTO).convert(mode); image.putalpha(Image.fromarray(ALPHA))
        out = io.BytesIO(); image.save(out, "TIFF" if mode == "PA" else "PNG"); data = out.getvalue()
    found = decode_picture(data)
    assert found.alpha[3, 4] == 0 if mode == "tRNS" else np.array_equal(found.alpha, ALPHA)
    with pytest.raises(StanhlicError, match="transparent pixels"): decode_image(data)
    assert decode_picture(data, background="white").alpha is None


def test_background():
    flat = decode_picture(as_file(np.dstack([PHOTO, ALPHA])), background="#ff8000").colors.astype(float)
    share = ALPHA[..., None] / 255
    assert np.abs(flat - (share * PHOTO + (1 - share) * [255, 128, 0])).max() <= 0.5 + 1e-9
    for wrong in ("nothing", "", "#12", 7):
        with pytest.raises(StanhlicError, match="is no color"): decode_picture(as_file(PHOTO), background=wrong)


@pytest.mark.parametrize("name, lost", [("a.png", set()), ("a.webp", set()), ("a.tif", {"exif", "xmp"}), ("a.bmp", {"alpha", "icc", "exif", "xmp"})])
def test_formats_hold_what_they_can(name, lost):
    back = decode_picture(picture_bytes(name, RICH))
    assert np.array_equal(back.colors, PHOTO) and (back.alpha is None) == ("alpha" in lost) and back.metadata == {k: v for k, v in METADATA.items() if k not in lost}


@pytest.mark.parametrize("noise", [b"", b"noise", bytes(200), b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_metadata_never_refuse_a_picture(noise):
    for srgb in (False, True):
        found = decode_picture(as_file(PHOTO, "WEBP", lossless=True, exif=noise, icc_profile=noise, xmp=noise), srgb=srgb)
        assert np.array_equal(found.colors, PHOTO) and "icc" not in found.metadata


def test_heic():
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif(); exif[0x0112] = 6
    found = decode_picture(as_file(PHOTO, "HEIF", quality=95, exif=exif.tobytes(), icc_profile=METADATA["icc"]), "IMG_1.HEIC")
    assert found.colors.shape == (120, 100, 3) and found.metadata["icc"] == METADATA["icc"] and np.abs(found.colors.astype(int) - np.rot90(PHOTO, -1)).mean() < 4


# %% Python and the command line

def test_python(models, tmp_path):
    (tmp_path / "a.png").write_bytes(picture_bytes("a.png", RICH))
    made = [stanhlic.encode(image, model="tiny") for image in (tmp_path / "a.png", RICH, Image.open(tmp_path / "a.png"), read_picture(tmp_path / "a.png"))]
    assert len(set(made)) == 1 and same(stanhlic.extras(made[0]), RICH) and stanhlic.decode(made[0]).shape == PHOTO.shape
    assert stanhlic.encode(read_picture(tmp_path / "a.png", strip=True, background="red"), model="tiny") == stanhlic.encode(read_picture(tmp_path / "a.png", background="red").colors, model="tiny")
    with pytest.warns(UserWarning, match="gAMA 1"): stanhlic.encode(Image.open(io.BytesIO(with_chunk(b"gAMA", struct.pack(">I", 100_000)))), model="tiny")


def test_command_line(cli, models, tmp_path):
    (tmp_path / "a.png").write_bytes(picture_bytes("a.png", RICH))
    def run(*words):
        done = cli(*words)
        assert done.returncode == 0, done.stderr
        return done
    assert run("compress", tmp_path / "a.png", tmp_path / "a.slic", "--model", "tiny").stderr == ""
    assert run("decompress", tmp_path / "a.slic", tmp_path / "b.png").stderr == ""
    back = read_picture(tmp_path / "b.png")
    assert np.array_equal(back.alpha, ALPHA) and back.metadata == METADATA and np.array_equal(back.colors, stanhlic.decode(tmp_path / "a.slic"))
    assert ".bmp has no place for its alpha and icc and exif and xmp; .png has" in run("decompress", tmp_path / "a.slic", tmp_path / "b.bmp").stderr
    assert json.loads(run("info", tmp_path / "a.slic", "--json").stdout)["extras"].keys() == {"alpha", "icc", "exif", "xmp"}
    assert "alpha (" in run("info", tmp_path / "a.slic").stdout
    done = run("compress", tmp_path / "a.png", tmp_path / "c.slic", "--model", "tiny", "--strip", "--background", "white")
    assert "Display P3" in done.stderr and stanhlic.extras(tmp_path / "c.slic") == {}
    assert run("compress", tmp_path / "a.png", tmp_path / "d.slic", "--model", "tiny", "--convert-to-srgb").stderr == ""
    assert stanhlic.extras(tmp_path / "d.slic").keys() == {"alpha", "exif", "xmp"}
    wrong = cli("compress", tmp_path / "a.png", tmp_path / "e.slic", "--model", "tiny", "--background", "nothing")
    assert wrong.returncode == 1 and "is no color" in wrong.stderr and not (tmp_path / "e.slic").exists()
