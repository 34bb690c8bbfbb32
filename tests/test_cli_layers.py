"""Files that may be cut, through the command line: layers and progressive files compressed, cut, damaged, decoded and looked at."""
import json
import os
import re
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from stanhlic.codec import codec_class
from stanhlic.container import KINDS
from stanhlic.images import read_image, write_image
from stanhlic.modelfile import save_weights
from stanhlic.zoo import load_codec

torch.set_num_threads(1)
CUTTABLE = {"rnn": "tiny-rnn", "progressive": "tiny-progressive"}


@pytest.fixture(scope="module")
def known(models, tmp_path_factory):
    """A layered and a progressive model of random numbers, known by name beside `tiny`, which is a stanh model."""
    from stanhlic.progressive.model import model_config, random_model
    from stanhlic.progressive.networks import PROGRESSIVE_SMOKE
    from stanhlic.rnn.model import build_model
    folder = tmp_path_factory.mktemp("layered")
    torch.manual_seed(0)
    rnn = build_model(dict(width=0.0625, latent=8, hyper=8, latent_gain=1000.0, init_scale=3.0))
    torch.nn.init.constant_(rnn.hdec.out.bias, 1.5)  # σ as large as y, as training would make it
    progressive = random_model(replace(PROGRESSIVE_SMOKE, rems=(10.0, 40.0)))
    for system, model, config in (("rnn", rnn, asdict(rnn.config)), ("progressive", progressive, model_config(progressive))):
        save_weights(folder / f"{system}.safetensors", model.state_dict(), {"system": system, "name": CUTTABLE[system], "config": config, "provenance": {}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANHLIC_MODELS", f"{models}{os.pathsep}{folder}")
        yield folder


@pytest.fixture
def run(known, cli): return cli


@pytest.fixture(scope="module")
def whole(known, photo):
    """Codec and complete file of `photo` for each system."""
    codecs = {system: load_codec(name, "cpu") for system, name in CUTTABLE.items()}
    return {system: (codec, codec.encode(read_image(photo))) for system, codec in codecs.items()}


@pytest.fixture
def place(whole, slic, tmp_path):
    """`place("rnn", 100)` writes the file, or its first bytes, and says where."""
    def put(system, data=None):
        path, given = tmp_path / f"{system}.slic", slic.read_bytes() if system == "stanh" else whole[system][1]
        path.write_bytes(given if data is None else given[:data] if isinstance(data, int) else data)
        return path
    return put


def ok(done):
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def refused(done, *words, code=1):
    assert done.returncode == code, (done.stdout, done.stderr)
    if code == 1: assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("stanhlic: error: "), done.stderr
    assert [w for w in words if w not in done.stderr] == [], done.stderr


def flipped(data, place, bit=0): return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1:]


# %% one interface

def test_codecs_that_may_be_cut_say_so():
    assert {kind for kind in KINDS.values() if codec_class(kind).truncatable} == set(CUTTABLE)


@pytest.mark.parametrize("system", CUTTABLE)
def test_pictures_change_at_the_cuts(whole, system):
    codec, data = whole[system]
    lengths = codec.cuts(data)
    assert lengths[-1] == len(data) and list(lengths) == sorted(set(lengths))
    for n in (lengths[0], lengths[len(lengths) // 2], lengths[-1]):
        short = codec.truncate(data, n)
        assert n - 3 <= len(short) <= n
        assert np.array_equal(codec.decoder(strict=True).feed(short).image(), codec.decode(short))  # and no warning: all of it is tested
        assert list(codec.cuts(data[:n])) == [m for m in lengths if m <= n]


# %% there and back

@pytest.mark.parametrize("model, quality", [("tiny", 50), ("tiny-rnn", 100), ("tiny-progressive", 100)])
def test_default_quality_is_the_codecs_own(run, photo, tmp_path, model, quality):
    said = json.loads(ok(run("compress", photo, tmp_path / "a.slic", "--model", model, "--json")))
    assert said["quality"] == quality and said["bytes"] == (tmp_path / "a.slic").stat().st_size
    assert (tmp_path / "a.slic").read_bytes() == load_codec(model, "cpu").encode(read_image(photo), quality)


@pytest.mark.parametrize("system", CUTTABLE)
def test_there_and_back(run, whole, photo, tmp_path, system):
    codec, data = whole[system]
    ok(run("compress", photo, tmp_path / "a.slic", "--model", CUTTABLE[system]))
    assert (tmp_path / "a.slic").read_bytes() == data
    done = run("decompress", tmp_path / "a.slic", tmp_path / "a.png")
    assert ok(done) and done.stderr == "" and np.array_equal(read_image(tmp_path / "a.png"), codec.decode(data))
    info = json.loads(ok(run("info", tmp_path / "a.slic", "--json")))
    assert (info["kind"], info["model"], info["complete"], info["quality"], info["note"]) == (system, CUTTABLE[system], True, 100, None)
    assert "note" not in ok(run("info", tmp_path / "a.slic"))


@pytest.mark.parametrize("system", CUTTABLE)
def test_a_byte_target(run, whole, photo, tmp_path, system):
    lengths = whole[system][0].cuts(whole[system][1])
    middle = lengths[len(lengths) // 2] + 20
    said = json.loads(ok(run("compress", photo, tmp_path / "a.slic", "--model", CUTTABLE[system], "--target-bytes", middle, "--json")))
    assert lengths[0] <= said["bytes"] <= middle and 0 < said["quality"] < 100


@pytest.mark.parametrize("system", CUTTABLE)
def test_a_rate_target_is_answered_in_its_unit(run, whole, photo, tmp_path, system):
    codec, data = whole[system]
    words = ("compress", photo, tmp_path / "a.slic", "--model", CUTTABLE[system], "--target-bpp")
    middle = codec.cuts(data)[1] + 60
    said = json.loads(ok(run(*words, 8 * middle / (160 * 128), "--json")))
    assert said["bpp"] <= 8 * middle / (160 * 128)
    done = run(*words, "0.01")
    refused(done, "0.01 bpp is out of reach", f" to {8 * len(codec.encode(read_image(photo))) / (160 * 128):.3g}"[:5])
    assert "bytes" not in done.stderr


def test_layers_are_those_of_the_whole_file(run, whole, photo, place, tmp_path):
    codec, data = whole["rnn"]
    full, ends = place("rnn"), codec.cuts(data)
    for k in range(1, codec.layers + 1):
        said = json.loads(ok(run("compress", photo, tmp_path / "k.slic", "--model", "tiny-rnn", "--layers", k, "--json")))
        assert said["bytes"] == ends[k - 1] and said["quality"] == pytest.approx(100 * (k - 1) / (codec.layers - 1), abs=1e-3)
        ok(run("truncate", full, tmp_path / "t.slic", "--layers", k))
        assert (tmp_path / "t.slic").read_bytes() == (tmp_path / "k.slic").read_bytes()
        ok(run("decompress", full, tmp_path / "a.png", "--layers", k))
        done = run("decompress", tmp_path / "t.slic", tmp_path / "b.png")
        assert ok(done) and done.stderr == ""
        assert np.array_equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png")) and np.array_equal(read_image(tmp_path / "a.png"), codec.decode(data, layers=k))


# %% cutting

def test_truncate_cuts_a_progressive_file_at_the_byte(run, whole, place, tmp_path):
    codec, data = whole["progressive"]
    n = (codec.cuts(data)[0] + len(data)) // 2
    for words, size in ((("--bytes", n), n), (("--bpp", 8 * n / (160 * 128)), n), (("--bytes", 10**9), len(data))):
        said = json.loads(ok(run("truncate", place("progressive"), tmp_path / "t.slic", *words, "--json")))
        assert (tmp_path / "t.slic").read_bytes() == codec.truncate(data, size) and (tmp_path / "t.slic").read_bytes()[:-2] == data[:size - 2] and said["bytes"] == size and said["bpp"] == 8 * size / (160 * 128)
    assert f"{n} of {len(data)} bytes" in ok(run("truncate", place("progressive"), tmp_path / "t.slic", "--bytes", n))


def test_truncate_keeps_the_layers_that_fit(run, whole, place, tmp_path):
    codec, data = whole["rnn"]
    one, two = codec.cuts(data)[:2]
    for words, size in ((("--bytes", two), two), (("--bytes", two - 1), one), (("--bpp", 8 * (two + 1) / (160 * 128)), two), (("--bytes", 10**9), len(data))):
        ok(run("truncate", place("rnn"), tmp_path / "t.slic", *words))
        assert (tmp_path / "t.slic").stat().st_size == size
        assert json.loads(ok(run("info", tmp_path / "t.slic", "--json")))["complete"]


@pytest.mark.parametrize("system", CUTTABLE)
def test_truncate_needs_no_model(run, place, tmp_path, monkeypatch, system):
    source = place(system)
    monkeypatch.setenv("STANHLIC_MODELS", "")
    refused(run("decompress", source, tmp_path / "a.png"), "no model here")
    ok(run("truncate", source, tmp_path / "t.slic", "--bytes", source.stat().st_size - 1))
    assert (tmp_path / "t.slic").stat().st_size < source.stat().st_size


def test_a_cut_layered_file_shows_its_layers_and_says_so(run, whole, place, tmp_path):
    codec, data = whole["rnn"]
    two = codec.cuts(data)[1]
    cut = place("rnn", two + 30)
    done = run("decompress", cut, tmp_path / "a.png")
    assert ok(done) and done.stderr == f"stanhlic: note: {cut}: the file is cut inside layer 3 of 4; the 2 layers before it are shown\n"
    assert np.array_equal(read_image(tmp_path / "a.png"), codec.decode(data, layers=2))
    info = json.loads(ok(run("info", cut, "--json")))
    assert not info["complete"] and "inside layer 3 of 4" in info["note"] and info["layers"] == 4
    refused(run("decompress", cut, tmp_path / "b.png", "--layers", "3"), "cut inside layer 3 of 4")
    assert not (tmp_path / "b.png").exists()
    assert ok(run("decompress", cut, tmp_path / "b.png", "--layers", "1"))
    assert np.array_equal(read_image(tmp_path / "b.png"), codec.decode(data, layers=1))


def test_a_cut_progressive_file_shows_its_best_picture(run, whole, place, tmp_path):
    codec, data = whole["progressive"]
    least, seen = codec.cuts(data)[0], []
    for n in (least, least + 1, (least + len(data)) // 2, len(data) - 1):
        done = run("decompress", place("progressive", n), tmp_path / "a.png")
        assert ok(done) and ("cannot be tested" in done.stderr) == (n > least + 2)
        seen.append(read_image(tmp_path / "a.png"))
        strict = run("decompress", place("progressive", n), tmp_path / "b.png", "--strict")
        assert ok(strict) and strict.stderr == ""
        with warnings.catch_warnings(action="ignore"): assert np.array_equal(seen[-1], codec.decode(data[:n])) and np.array_equal(read_image(tmp_path / "b.png"), codec.decode(data[:n], strict=True))
    assert not np.array_equal(seen[0], seen[-1])
    assert "cut" in json.loads(ok(run("info", place("progressive", least + 9), "--json")))["note"]


# %% what is not there

@pytest.mark.parametrize("system", CUTTABLE)
@pytest.mark.parametrize("size, word", [(0, "empty"), (1, "cut"), (4, "cut"), (12, "cut")])
def test_cut_inside_the_header(run, place, tmp_path, system, size, word):
    file = place(system, size)
    for words in (("decompress", file, tmp_path / "a.png"), ("info", file), ("truncate", file, tmp_path / "t.slic", "--bytes", "99"), ("view", file)):
        refused(run(*words), file.name, word)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_cut_inside_the_base_says_how_much_is_missing(run, whole, place, tmp_path):
    codec, data = whole["progressive"]
    least = codec.cuts(data)[0]
    file = place("progressive", least - 7)
    for words in (("decompress", file, tmp_path / "a.png"), ("truncate", file, tmp_path / "t.slic", "--bytes", "9999"), ("view", file)):
        refused(run(*words), "7 more bytes are needed for the base")
    refused(run("truncate", place("progressive"), tmp_path / "t.slic", "--bytes", least - 1), f"take {least}")
    refused(run("truncate", place("progressive"), tmp_path / "t.slic", "--bpp", "1e-6"), f"take {least}")
    assert "7 more bytes" in json.loads(ok(run("info", place("progressive", least - 7), "--json")))["note"]
    assert [p.name for p in tmp_path.iterdir()] == ["progressive.slic"]


def test_cut_inside_the_first_layer(run, whole, place, tmp_path):
    codec, data = whole["rnn"]
    one = codec.cuts(data)[0]
    refused(run("truncate", place("rnn"), tmp_path / "t.slic", "--bytes", one - 1), f"the first takes {one}")
    file = place("rnn", one - 1)
    for words in (("decompress", file, tmp_path / "a.png"), ("view", file)): refused(run(*words), "no picture yet: 1 more byte completes layer 1")
    refused(run("decompress", file, tmp_path / "a.png", "--layers", "1"), "cut inside layer 1 of 4, but 1 is asked for")
    refused(run("truncate", file, tmp_path / "t.slic", "--layers", "1"), "cut in layer 1")
    assert "no picture yet: 1 more byte" in json.loads(ok(run("info", file, "--json")))["note"]
    assert [p.name for p in tmp_path.iterdir()] == ["rnn.slic"]


# %% damage

@pytest.mark.parametrize("system", CUTTABLE)
def test_flipped_bits(run, whole, place, photo, tmp_path, system):
    """In header, base or first layer a refusal; in a later block or layer a note and the picture before."""
    codec, data = whole[system]
    lengths = codec.cuts(data)
    for n in (0, 5, 9, 15, lengths[0] // 2, lengths[0] - 1):
        refused(run("decompress", place(system, flipped(data, n, 3)), tmp_path / "a.png"), f"{system}.slic")
    assert not (tmp_path / "a.png").exists()
    bad = place(system, flipped(data, len(data) - 30, 3))
    done = run("decompress", bad, tmp_path / "a.png")
    assert ok(done) and done.stderr.startswith(f"stanhlic: note: {bad}: ") and len(done.stderr.splitlines()) == 1
    assert ("layer 4 fails its checksum: the 3 layers before it are shown" if system == "rnn" else "damaged") in done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(read_image(tmp_path / "a.png"), codec.decode(data[:lengths[-2] if system == "rnn" else codec.cuts(bad.read_bytes())[-1]]))
    info = json.loads(ok(run("info", bad, "--json")))
    assert info["damaged"] and info["note"] in done.stderr


def test_layers_that_reach_into_damage(run, whole, place, tmp_path):
    """What is asked for by number is given or refused; the note of one layer is good English too."""
    codec, data = whole["rnn"]
    one, two = codec.cuts(data)[:2]
    bad = place("rnn", flipped(data, (one + two) // 2))
    done = run("decompress", bad, tmp_path / "a.png")
    assert ok(done) and done.stderr == f"stanhlic: note: {bad}: layer 2 fails its checksum: the layer before it is shown; fetch the file again for the rest\n"
    assert np.array_equal(read_image(tmp_path / "a.png"), codec.decode(data, layers=1))
    refused(run("decompress", bad, tmp_path / "b.png", "--layers", 2), "layer 2 fails its checksum, but 2 are asked for", "or take 1 layer")
    assert not (tmp_path / "b.png").exists()
    done = run("decompress", bad, tmp_path / "b.png", "--layers", 1)
    assert ok(done) and done.stderr == ""
    refused(run("decompress", place("rnn", flipped(data, one // 2)), tmp_path / "c.png"), "layer 1 fails its checksum, so there is no picture")


@pytest.mark.parametrize("system, other", [("rnn", "tiny-progressive"), ("progressive", "tiny-rnn"), ("stanh", "tiny-rnn")])
def test_a_model_of_another_codec(run, place, tmp_path, system, other):
    refused(run("decompress", place(system), tmp_path / "a.png", "--model", other), "fingerprint", "--model")
    assert not (tmp_path / "a.png").exists()


# %% what a codec does not offer

@pytest.mark.parametrize("words, why", [
    (("truncate", "stanh", "OUT", "--bytes", "500"), "cannot be cut"), (("truncate", "stanh", "OUT", "--layers", "1"), "cannot be cut"),
    (("truncate", "progressive", "OUT", "--layers", "1"), "has no layers"), (("truncate", "rnn", "OUT", "--layers", "5"), "the file has 4"),
    (("truncate", "rnn", "OUT", "--layers", "0"), "not a positive number"), (("truncate", "progressive", "OUT", "--bytes", "-3"), "not a positive number"),
    (("decompress", "stanh", "OUT.png", "--layers", "1"), "layered models"), (("decompress", "progressive", "OUT.png", "--layers", "1"), "layered models"),
    (("decompress", "rnn", "OUT.png", "--layers", "5"), "the file has 4"), (("decompress", "rnn", "OUT.png", "--layers", "0"), "choose 1 to 4"),
    (("compress", "PHOTO", "OUT", "--model", "tiny", "--layers", "1"), "layered models"), (("compress", "PHOTO", "OUT", "--model", "tiny-progressive", "--layers", "1"), "layered models"),
    (("compress", "PHOTO", "OUT", "--model", "tiny-rnn", "--layers", "5"), "the model has 4"), (("compress", "PHOTO", "OUT", "--model", "tiny-rnn", "--layers", "0"), "not a positive number"),
], ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_refusals(run, place, photo, tmp_path, words, why):
    files = {"PHOTO": photo, "OUT": tmp_path / "out", "OUT.png": tmp_path / "out.png"} | {s: place(s) for s in ("stanh", *CUTTABLE)}
    refused(run(*(files.get(w, w) for w in words)), why)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.png").exists() and not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize("words", [
    ("truncate", "a.slic", "b.slic"), ("truncate", "a.slic", "b.slic", "--bytes", "9", "--layers", "1"), ("truncate", "a.slic", "b.slic", "--bytes", "many"),
    ("truncate", "a.slic", "--bytes", "9"), ("compress", "a.png", "b.slic", "--layers", "2", "--quality", "10"), ("compress", "a.png", "b.slic", "--layers", "2", "--target-bpp", "1"),
    ("compress", "a.png", "b.slic", "--layers", "1.5"), ("view",), ("view", "a.slic", "--stops", "1"),
], ids=" ".join)
def test_usage(run, words): refused(run(*words), "Usage:", code=2)


def test_outputs_are_checked_first(run, place, tmp_path):
    file = place("progressive")
    refused(run("truncate", file, file, "--bytes", "500"), "is the input itself")
    refused(run("truncate", file, tmp_path / "none" / "t.slic", "--bytes", "500"), "there is no folder")
    refused(run("view", file, "-o", tmp_path), "is a folder")


# %% the page

def page_of(path): return json.loads(path.read_text().partition('type="application/json">')[2].partition("</script>")[0])


@pytest.mark.parametrize("system", CUTTABLE)
def test_view(run, whole, place, photo, tmp_path, system):
    codec, data = whole[system]
    done = run("view", place(system), "--original", photo)
    said, page, lengths = ok(done), page_of(tmp_path / f"{system}.html"), codec.cuts(data)
    sizes = [s["bytes"] for s in page["stops"]]
    assert sizes == list(lengths) if system == "rnn" else sizes == sorted(set(sizes)) and set(sizes) <= set(lengths)
    assert (sizes[0], sizes[-1]) == (lengths[0], len(data))
    from stanhlic.metrics import psnr
    for s, n in zip(page["stops"], sizes): assert s["psnr"] == pytest.approx(psnr(read_image(photo), codec.decoder().feed(data[:n]).image()), abs=1e-4)
    assert "measured against the original" in page["notes"][0] and page["original"] is not None
    assert re.search(rf"{system}.html: [0-9.]+ .B, {len(sizes)} stops, [0-9]+ s; open it in a browser", said)
    told = done.stderr.splitlines()
    assert told == [f"stop {k} of {len(told)}" for k in range(1, len(told) + 1)] and len(told) >= len(sizes)
    if system == "rnn": assert [s["label"] for s in page["stops"]] == [f"layer {k} of 4" for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", ["tiny", *CUTTABLE.values()])
def test_view_of_a_picture(run, photo, tmp_path, name):
    ok(run("view", photo, "--model", name, "--stops", "3", "-o", tmp_path / "p.html"))
    page = page_of(tmp_path / "p.html")
    assert page["model"] == name and page["original"] is not None and len(page["stops"]) >= 2 and page["rivals"][0]["name"] == "JPEG"
    refused(run("view", photo, "--original", photo), "is a picture, and so the original itself")


def test_view_with_effort(run, photo, tmp_path):
    ok(run("view", photo, "--model", "tiny", "--stops", "2", "--effort", "1", "-o", tmp_path / "e.html"))
    codec, picture = load_codec("tiny", "cpu"), read_image(photo)
    assert {s["bytes"] for s in page_of(tmp_path / "e.html")["stops"]} == {len(codec.encode(picture, q, effort=1)) for q in (0, 100)}


def test_view_of_a_stanh_file(run, place, photo, tmp_path):
    ok(run("view", place("stanh")))
    assert len(page_of(tmp_path / "stanh.html")["stops"]) == 1
    refused(run("view", place("stanh"), "--effort", "1", "-o", tmp_path / "none.html"), "is coded already")
    ok(run("view", place("stanh"), "--original", photo, "-o", tmp_path / "more.html"))
    page = page_of(tmp_path / "more.html")
    assert len(page["stops"]) >= 3 and page["stops"][page["first"] - 1]["bytes"] == place("stanh").stat().st_size


def test_view_against_the_best_picture(run, place, tmp_path):
    ok(run("view", place("rnn"), "-o", tmp_path / "p.html", "--stops", "3"))
    page = page_of(tmp_path / "p.html")
    assert page["stops"][-1]["psnr"] is None and "not the original" in page["notes"][0] and len(page["stops"]) == 3


def test_view_of_cut_and_damaged_files(run, whole, place, tmp_path):
    codec, data = whole["rnn"]
    done = run("view", place("rnn", codec.cuts(data)[1] + 30))
    assert ok(done) and "inside layer 3 of 4" in done.stderr and len(page_of(tmp_path / "rnn.html")["stops"]) == 2
    codec, data = whole["progressive"]
    bad = flipped(data, len(data) - 30)
    done = run("view", place("progressive", bad))
    page = page_of(tmp_path / "progressive.html")
    assert ok(done) and "damaged" in done.stderr and page["stops"][0]["bytes"] == codec.cuts(data)[0] and page["stops"][-1]["bytes"] == codec.cuts(bad)[-1] < len(data) - 30 and "damaged" in page["notes"][0]


def test_view_refuses_another_original(run, place, tmp_path):
    write_image(tmp_path / "small.png", np.zeros((9, 9, 3), np.uint8))
    refused(run("view", place("rnn"), "--original", tmp_path / "small.png"), "the original is 9x9")
    assert not list(tmp_path.glob("*.html"))


# %% in processes of their own

def test_a_session(cli, known, photo, tmp_path):
    """Compress, cut, decompress, view: each step knows the others by their files alone."""
    for name in CUTTABLE.values():
        file, cut, picture = (tmp_path / f"{name}{ending}" for ending in (".slic", ".cut.slic", ".png"))
        ok(cli("compress", photo, file, "--model", name))
        cut.write_bytes(file.read_bytes()[:file.stat().st_size * 3 // 4])
        done = cli("decompress", cut, picture)
        assert ok(done) and done.stderr.startswith("stanhlic: note: ")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.array_equal(read_image(picture), load_codec(name, "cpu").decode(cut.read_bytes()))
    ok(cli("truncate", file, tmp_path / "t.slic", "--bytes", cut.stat().st_size))
    assert (tmp_path / "t.slic").read_bytes()[:-2] == cut.read_bytes()[:-2]
    ok(cli("view", file))
    assert file.with_suffix(".html").exists()
