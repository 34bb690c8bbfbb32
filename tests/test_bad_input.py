"""What a user can hand over wrongly, through the command line: exit code 1, one line, and what was there is still there."""
import json
import os
import zlib

import pytest

from stanhlic.container import KINDS, VERSIONS, Header, pack, write_varint


def refused(done, *words):
    """One line on standard error, exit code 1, the words in it."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("stanhlic: error: "), done.stderr
    assert [w for w in words if w not in lines[0]] == [], lines[0]


@pytest.fixture
def out(tmp_path):
    """An output that exists, of decompress, beside one of compress; both must be untouched and alone afterwards."""
    path, coded = tmp_path / "out.png", tmp_path / "out.slic"
    for p in (path, coded): p.write_text("what was there")
    yield path
    assert [p.read_text() for p in (path, coded)] == ["what was there"] * 2 and sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "out.slic"]


@pytest.fixture
def coded(out): return out.with_suffix(".slic")


@pytest.fixture
def bad(tmp_path_factory): return tmp_path_factory.mktemp("bad")


# %% pictures

def test_missing_picture(cli, coded): refused(cli("compress", "nowhere.png", coded), "nowhere.png", "no such file")


def test_not_a_picture(cli, coded, bad):
    (bad / "a.png").write_text("this is text")
    refused(cli("compress", bad / "a.png", coded), "a.png", "not an image")


def test_empty_picture(cli, coded, bad):
    (bad / "a.png").touch()
    refused(cli("compress", bad / "a.png", coded), "a.png", "empty")


def test_cut_picture(cli, coded, bad, photo):
    (bad / "a.png").write_bytes(photo.read_bytes()[:2000])
    refused(cli("compress", bad / "a.png", coded), "a.png", "damaged")


def test_a_folder_without_pictures(cli, bad): refused(cli("compress", bad, bad / "new"), "holds no image")


def test_a_folder_into_a_file(cli, bad, photo):
    (bad / "a.txt").touch()
    refused(cli("compress", photo.parent, bad / "a.txt"), "is a file", "name a folder")


# %% .slic files

def without(slic, out, data, bad, cli, *words, command="decompress", extra=()):
    (bad / "bad.slic").write_bytes(data)
    refused(cli(command, bad / "bad.slic", *([out] if command == "decompress" else []), *extra), "bad.slic", *words)


def test_missing_file(cli, out): refused(cli("decompress", "nowhere.slic", out), "nowhere.slic", "no such file")


@pytest.mark.parametrize("command", ["decompress", "info"])
def test_empty_file(cli, out, bad, slic, command): without(slic, out, b"", bad, cli, "empty", command=command)


@pytest.mark.parametrize("command", ["decompress", "info"])
def test_a_picture_as_file(cli, out, bad, slic, photo, command): without(slic, out, photo.read_bytes(), bad, cli, "not a .slic file", command=command)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.999])
def test_cut_file(cli, out, bad, slic, share):
    data = slic.read_bytes()
    without(slic, out, data[:max(1, int(share * len(data)))], bad, cli, "cut")


@pytest.mark.parametrize("at", [0, 4, 5, 9, 15, 20, 30, 200, -1])
def test_flipped_bit(cli, out, bad, slic, at):
    data = bytearray(slic.read_bytes())
    data[at] ^= 0x10
    without(slic, out, bytes(data), bad, cli)


def test_bytes_behind_the_end(cli, out, bad, slic): without(slic, out, slic.read_bytes() + b"x", bad, cli, "follow")


def test_future_version(cli, out, bad, slic):
    data = slic.read_bytes()
    without(slic, out, data[:4] + b"\x07" + data[5:], bad, cli, "version 7", "upgrade")


def crafted(height, width, params=b"\x01\x00abcd", kind=1, fingerprint=bytes(8), payload=b""):
    """A file whose checksums are right and whose claims are not."""
    head = b"SLIC" + bytes([VERSIONS[KINDS[kind]], kind]) + fingerprint + write_varint(height) + write_varint(width) + write_varint(len(params)) + params + write_varint(1)
    crc, length = zlib.crc32(head), write_varint(len(payload))
    end = zlib.crc32(payload, zlib.crc32(length, crc)).to_bytes(4, "little")
    return head + crc.to_bytes(4, "little") + length + payload + end


def test_what_is_crafted_is_well_formed():
    assert crafted(8, 9, b"ab", payload=b"xyz") == pack(Header(KINDS[1], bytes(8), 8, 9, b"ab"), [b"xyz"])


@pytest.mark.parametrize("height, width", [(0, 64), (64, 0), (65_536, 1), (60_000, 60_000), (2**31, 2**31)])
def test_absurd_size(cli, out, bad, slic, height, width): without(slic, out, crafted(height, width), bad, cli)


def test_parameters_without_end(cli, out, bad, slic): without(slic, out, crafted(64, 64, bytes(5000)), bad, cli, "5000")


def fingerprint(models, name="tiny"):
    from stanhlic.modelfile import inspect_weights
    return bytes.fromhex(inspect_weights(models / f"{name}.safetensors")["fingerprint"])


@pytest.mark.parametrize("params", [b"", b"\x01\x00", b"\xff\x00abcd", b"\x02\x01abcd", bytes(4096)], ids=len)
def test_parameters_of_no_model(cli, out, bad, slic, models, params):
    without(slic, out, crafted(64, 64, params, fingerprint=fingerprint(models)), bad, cli)


@pytest.mark.parametrize("payload", [b"", b"\xff" * 40, bytes(range(256)) * 8], ids=len)
def test_sound_container_hostile_payload(cli, out, bad, slic, models, payload):
    without(slic, out, crafted(64, 64, fingerprint=fingerprint(models), payload=payload), bad, cli)


# %% models

def test_file_of_an_unknown_model(cli, out, bad, slic):
    without(slic, out, crafted(64, 64, fingerprint=b"\xab" * 8), bad, cli, "ab" * 8, "--model")


def test_file_of_another_model(cli, out, slic, models):
    refused(cli("decompress", slic, out, "--model", "other"), fingerprint(models).hex(), fingerprint(models, "other").hex())


@pytest.mark.parametrize("command", [("compress", "PHOTO", "CODED"), ("decompress", "SLIC", "OUT")], ids=lambda c: c[0])
def test_unknown_model(cli, out, photo, slic, command):
    words = [{"PHOTO": photo, "SLIC": slic, "OUT": out, "CODED": out.with_suffix(".slic")}.get(w, w) for w in command]
    refused(cli(*words, "--model", "stanh-giant"), "unknown model 'stanh-giant'", "tiny")


def test_missing_model_file(cli, coded, photo): refused(cli("compress", photo, coded, "--model", "none.safetensors"), "none.safetensors", "no such")


def broken(kind, data):
    if kind == "cut": return data[:-10]
    if kind == "flipped": return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    if kind == "empty": return b""
    if kind == "endless": return (2**62).to_bytes(8, "little") + data[8:]
    if kind == "future": return data.replace(b'\\"format\\": 1', b'\\"format\\": 9')
    if kind == "foreign": return (64).to_bytes(8, "little") + json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(64).encode() + bytes(4)


@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "endless", "future", "foreign"])
def test_damaged_model_file(cli, coded, photo, bad, models, kind):
    (bad / "m.safetensors").write_bytes(broken(kind, (models / "tiny.safetensors").read_bytes()))
    refused(cli("compress", photo, coded, "--model", bad / "m.safetensors"), "m.safetensors")


# %% quality, device, output

@pytest.mark.parametrize("option, value", [("quality", -1), ("quality", 101), ("quality", "nan"), ("quality", "inf"), ("target-bpp", -1), ("target-bpp", "nan"), ("target-bytes", 0)])
def test_impossible_rate(cli, coded, photo, models, option, value): refused(cli("compress", photo, coded, "--model", "tiny", f"--{option}={value}"))


@pytest.mark.parametrize("option, value", [("target-bpp", 1e-6), ("target-bytes", 3), ("target-psnr", 99)])
def test_target_out_of_reach_names_what_is_within(cli, coded, photo, models, option, value):
    refused(cli("compress", photo, coded, "--model", "tiny", f"--{option}", value), "out of reach", " to ")


def test_unknown_device(cli, coded, photo, models): refused(cli("compress", photo, coded, "--model", "tiny", "--device", "tpu"), "tpu", "cpu")


@pytest.mark.parametrize("command", [("compress", "PHOTO"), ("decompress", "SLIC")], ids=lambda c: c[0])
@pytest.mark.parametrize("place", ["missing/a.out", "file/a.out"])
def test_output_that_cannot_be_written(cli, models, photo, slic, tmp_path, command, place):
    (tmp_path / "file").write_text("a file")
    source = {"PHOTO": photo, "SLIC": slic}[command[1]]
    place = place.replace("out", "slic" if command[0] == "compress" else "png")
    refused(cli(command[0], source, tmp_path / place, *(["--model", "tiny"] if command[0] == "compress" else [])), place)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_write_protected_folder(cli, slic, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    refused(cli("decompress", slic, tmp_path / "shut" / "a.png"), "shut")


def test_the_input_is_not_overwritten(cli, models, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(photo.read_bytes())
    refused(cli("compress", tmp_path / "a.png", tmp_path / "a.png", "--model", "tiny"), "the input itself")
    assert (tmp_path / "a.png").read_bytes() == photo.read_bytes()


@pytest.mark.parametrize("name, word", [("a.jpg", "lossy"), ("a.xyz", "no format"), ("a", "no suffix")])
def test_output_of_a_wrong_kind(cli, slic, tmp_path, name, word):
    refused(cli("decompress", slic, tmp_path / name), word)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("view", "-"), ("view", "SLIC", "-o", "-"), ("view", "SLIC", "--original", "-")], ids=" ".join)
def test_pages_need_files(cli, slic, out, bad, words):
    refused(cli(*({"SLIC": slic}.get(w, w) for w in words), cwd=bad), "-: is not a file", "not pipes")
    assert list(bad.iterdir()) == []


# %% the other verbs

def test_eval_of_nothing(cli, models, bad, tmp_path):
    refused(cli("eval", "--model", "tiny", "--images", bad, "--out", tmp_path / "r.json"), "no image")
    refused(cli("eval", "--model", "tiny", "--images", bad / "none", "--out", tmp_path / "r.json"), "no such folder")
    (bad / "a.txt").write_text("a file")
    refused(cli("eval", "--model", "tiny", "--images", bad / "a.txt", "--out", tmp_path / "r.json"), "a.txt: is a file", "the folder it is in")
    assert list(tmp_path.iterdir()) == []


def test_eval_outside_the_dial(cli, models, photo, tmp_path):
    refused(cli("eval", "--model", "tiny", "--images", photo.parent, "--qualities", "50,200", "--out", tmp_path / "r.json"), "200")


def test_unknown_system(cli): refused(cli("train", "jpeg", "anchor"), "unknown system 'jpeg'")
def test_unknown_item(cli): refused(cli("reproduce", "stanh/fig99"), "stanh/fig99", "stanhlic reproduce --list")
def test_unknown_profile(cli): refused(cli("reproduce", "stanh/rd_kodak", "--profile", "huge"), "smoke, compact, paper")
