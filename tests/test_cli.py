"""The command line as a user meets it: every verb in a process of its own, from words to files and exit codes."""
import json
import subprocess
import sys

import numpy as np
import pytest
import stanhlic

COMMANDS = ("models", "compress", "decompress", "info", "truncate", "view", "eval", "fetch", "bench", "train", "import", "export", "reproduce", "selftest")


def shipped():
    from stanhlic.modelfile import inspect_weights
    from stanhlic.modelfile import _folders
    return [inspect_weights(p)["name"] for p in sorted(_folders()[0].glob("*.safetensors"))]


def ok(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


# %% help and usage

def test_help_lists_the_commands(cli):
    text = ok(cli("--help"))
    listed = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_shows_an_example(cli, command): assert f"\n    stanhlic {command}" in ok(cli(command, "--help"))


def test_version(cli):
    import stanhlic
    assert ok(cli("--version")).strip() == stanhlic.__version__


def test_runs_as_a_module(): assert "compress" in ok(subprocess.run([sys.executable, "-m", "stanhlic.cli", "--help"], capture_output=True, text=True))


@pytest.mark.parametrize("words", [
    ("encode", "a", "b"), ("compress",), ("decompress",), ("info",), ("compress", "a.png", "b.slic", "--brisk"),
    ("compress", "a.png", "b.slic", "--quality", "high"), ("compress", "a.png", "b.slic", "--quality", "50", "--target-bpp", "0.3"),
    ("compress", "a.png", "b.slic", "--target-psnr", "30", "--target-bytes", "999"), ("eval", "--model", "tiny"),
    ("eval", "--model", "m", "--images", ".", "--out", "o.json", "--qualities", "0,best"), ("train", "stanh", "anchor", "--set", "steps"),
], ids=" ".join)
def test_wrong_usage_is_exit_code_2(cli, words, tmp_path):
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 2 and "Usage:" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tables_are_aligned():
    from stanhlic.cli import _table
    lines = _table([("jpeg", 12, "baseline"), ("stanh", 7.5, "")], ("codec", "size", "note")).splitlines()
    assert lines == ["codec  size  note", "jpeg     12  baseline", "stanh   7.5"]


# %% compress, info, decompress

def test_there_and_back(cli, models, photo, tmp_path):
    said = json.loads(ok(cli("compress", photo, tmp_path / "a.slic", "--model", "tiny", "--quality", "72.5", "--json")))
    assert said["bytes"] == (tmp_path / "a.slic").stat().st_size and said["quality"] == 72.5 and said["model"] == "tiny"
    assert said["bpp"] == 8 * said["bytes"] / (160 * 128)
    info = json.loads(ok(cli("info", tmp_path / "a.slic", "--json")))
    assert (info["kind"], info["model"], info["width"], info["height"], info["bytes"]) == ("stanh", "tiny", 160, 128, said["bytes"])
    assert info["quality"] == pytest.approx(72.5, abs=0.2)
    ok(cli("decompress", tmp_path / "a.slic", tmp_path / "a.png"))
    from stanhlic.images import read_image
    from stanhlic.zoo import load_codec
    codec = load_codec("tiny", "cpu")
    assert (tmp_path / "a.slic").read_bytes() == codec.encode(read_image(photo), 72.5)
    assert np.array_equal(read_image(tmp_path / "a.png"), codec.decode((tmp_path / "a.slic").read_bytes()))


def test_quality_is_50_if_nothing_is_said(cli, photo, slic, tmp_path):
    ok(cli("compress", photo, tmp_path / "a.slic", "--model", "tiny"))
    assert (tmp_path / "a.slic").read_bytes() == slic.read_bytes()


def test_a_byte_target_is_met_and_nearly_used(cli, models, photo, slic, tmp_path):
    target = slic.stat().st_size + 200
    said = json.loads(ok(cli("compress", photo, tmp_path / "a.slic", "--model", "tiny", "--target-bytes", target, "--json")))
    assert 0.95 * target < said["bytes"] <= target and said["quality"] > 50


def test_a_rate_target_is_met(cli, models, photo, slic, tmp_path):
    target = 8 * slic.stat().st_size / (160 * 128)
    assert json.loads(ok(cli("compress", photo, tmp_path / "a.slic", "--model", "tiny", "--target-bpp", target, "--json")))["bpp"] <= target


def test_a_model_may_be_a_file(cli, photo, models, tmp_path, monkeypatch):
    monkeypatch.setenv("STANHLIC_MODELS", "")
    ok(cli("compress", photo, tmp_path / "a.slic", "--model", models / "tiny.safetensors"))
    assert "unknown here" in ok(cli("info", tmp_path / "a.slic"))
    ok(cli("decompress", tmp_path / "a.slic", tmp_path / "a.png", "--model", models / "tiny.safetensors"))


def test_an_existing_output_is_replaced(cli, slic, tmp_path):
    (tmp_path / "a.png").write_text("old")
    ok(cli("decompress", slic, tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.long
def test_compress_loads_nothing_it_does_not_need(models, photo, tmp_path):
    """What makes a cold start slow stays out; `stanhlic bench` measures the seconds."""
    code = ("import sys\nfrom stanhlic.cli import main\ntry: main()\nexcept SystemExit: pass\n"
            "print([m for m in ('compressai', 'torchvision', 'torch_geometric', 'accelerate', 'matplotlib.pyplot', 'pandas') if m in sys.modules], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code, "compress", photo, tmp_path / "a.slic", "--model", "tiny"], capture_output=True, text=True)
    assert (tmp_path / "a.slic").exists() and done.stderr.strip().splitlines()[-1] == "[]"


def test_a_folder_in_one_call(cli, models, photo, tmp_path):
    """Pictures keep their names, anything else is skipped with a remark; `--json` gives a list of what was done."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"): (tmp_path / "in" / name).write_bytes(photo.read_bytes())
    (tmp_path / "in" / "c.png").write_bytes(b"no picture"); (tmp_path / "in" / "notes.txt").write_text("to be left alone")
    done = cli("compress", tmp_path / "in", tmp_path / "out", "--model", "tiny", "--json")
    assert done.returncode == 1 and "c.png: not an image" in done.stderr and "1 of 3 files were refused" in done.stderr and "Traceback" not in done.stderr
    rows = json.loads(done.stdout)
    assert [row["output"] for row in rows] == [str(tmp_path / "out" / f"{n}.slic") for n in "abc"] and ["refused" in row for row in rows] == [False, False, True]
    ok(cli("decompress", tmp_path / "out", tmp_path / "back"))
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == ["a.png", "b.png"]


def test_a_color_profile_is_reported(cli, models, photo, tmp_path):
    from PIL import Image, ImageCms
    Image.open(photo).save(tmp_path / "wide.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    said = cli("compress", tmp_path / "wide.png", tmp_path / "a.slic", "--model", "tiny").stderr
    assert "color profile" in said and "sRGB" in said
    assert cli("compress", photo, tmp_path / "a.slic", "--model", "tiny").stderr == ""


# %% the other verbs

def test_fetch_lists_and_refuses(cli):
    listed = ok(cli("fetch"))
    assert {"kodak", "train"} <= {line.split()[0] for line in listed.splitlines()[1:]}
    done = cli("fetch", "nowhere")
    assert done.returncode == 1 and "nowhere" in done.stderr


def test_models(cli, models):
    listed = {m["name"]: m for m in json.loads(ok(cli("models", "--json")))}
    assert {"tiny", "other"} <= set(listed) and set(shipped()) <= set(listed)
    assert all(m["parameters"] > 0 and m["bytes"] > 0 and len(m["fingerprint"]) == 16 for m in listed.values())
    assert "tiny" in ok(cli("models"))


@pytest.mark.long
def test_eval_writes_a_result_of_compressai(cli, models, photo, tmp_path):
    done = cli("eval", "--model", "tiny", "--images", photo.parent, "--qualities", "0,100", "--out", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert {"name", "description", "results"} <= set(result) and "PSNR" in ok(done)
    assert done.stderr.splitlines()[-1] == f"stanhlic: note: {photo.parent}: no MS-SSIM, since photo.png has a side under 161 pixels"
    assert set(result["results"]) == {"bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time"}
    assert result["results"]["bpp"][0] < result["results"]["bpp"][1] and result["extras"]["quality"] == [0, 100]
    assert [r["bpp"] for r in result["extras"]["per_image"]] == [8 * r["bytes"] / (160 * 128) for r in result["extras"]["per_image"]]


def test_pictures_without_ms_ssim_are_named():
    from stanhlic.cli import _without_similarity
    rows = [{"image": name, "ms-ssim-rgb": value} for name, value in (("a", None), ("b", 0.9), ("c", None), ("a", None), ("d", None), ("e", None))]
    assert _without_similarity(rows) == "no MS-SSIM, since a, c, d and 1 more have a side under 161 pixels" and _without_similarity(rows[1:2]) is None


# %% training

@pytest.mark.long
def test_train_erases_no_run(cli, photo, tmp_path):
    """A run stays until its folder is given with --resume; a new one starts where there is none, and says where its weights are."""
    (tmp_path / "data").mkdir()
    for name in ("a.png", "b.png"): (tmp_path / "data" / name).write_bytes(photo.read_bytes())
    words = ("train", "rnn", "train", "--data", tmp_path / "data", "--device", "cpu", "--set", "steps=2", "--set", "validate_every=2", "--set", "crop=64", "--out", tmp_path / "run")
    done = cli(*words, "--resume")
    made, last = tmp_path / "run" / "model.safetensors", tmp_path / "run" / "last.pt"
    assert ok(done).startswith(f"{made}: ") and done.stdout.endswith("MB\n") and f"note: {tmp_path / 'run'}: holds no run to resume" in done.stderr
    was = last.stat().st_mtime_ns
    refused = cli(*words)
    assert (refused.returncode, refused.stderr) == (1, f"stanhlic: error: {tmp_path / 'run'}: holds a run of 2 steps (finished); add --resume, or choose another --out\n")
    assert last.stat().st_mtime_ns == was
    longer = cli(*words, "--resume", "--set", "steps=4")
    assert ok(longer) and "holds no run" not in longer.stderr and '"step": 4' in (tmp_path / "run" / "log.jsonl").read_text()
    for left in (last, *(tmp_path / "run").glob("*.pt")): left.unlink(missing_ok=True)
    assert cli(*words).stderr == f"stanhlic: error: {tmp_path / 'run'}: holds a model that another run made; choose another --out\n"


@pytest.mark.parametrize("folders, stage, said", [
    ([], "anchor", None), (["base-0.01"], "anchor", None), ([""], "train", "a run of 7 steps (not finished)"),
    (["derivation-0.01", "derivation-0.02"], "derivation", "2 runs of 7, 7 steps (not finished)")], ids=str)
def test_runs_of_a_stage_are_found(tmp_path, folders, stage, said):
    """A stage of stanh has a folder for each rate point in --out; the weights are written when all of them are done."""
    from stanhlic.cli import _earlier
    for name in folders:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "last.pt").touch()
        (tmp_path / name / "log.jsonl").write_text('{"step": 3}\n{"step": 7}\n{"step"')
    assert _earlier(tmp_path, stage) == said
    (tmp_path / "model.safetensors").touch()
    assert _earlier(tmp_path, stage) == (said and said.replace("not ", ""))


@pytest.mark.slow
def test_selftest(cli, models):
    text = ok(cli("selftest", "--device", "cpu"))
    assert "tiny" in text and "FAILED" not in text


@pytest.mark.long
def test_selftest_notices_a_broken_decoder(models, monkeypatch):
    from stanhlic import evaluate
    monkeypatch.setattr(evaluate, "unpack", lambda data: None)
    assert [r["ok"] for r in evaluate.self_test("cpu", ["tiny"]) if r["check"] == "damage"] == [False]


@pytest.mark.long
def test_selftest_of_one_model(cli, models):
    text = ok(cli("selftest", "tiny", "--device", "cpu"))
    assert "tiny" in text and "compact" not in text
    done = cli("selftest", "giant")
    assert done.returncode == 1 and "unknown model" in done.stderr


def test_reproduce_lists_the_registry(cli): assert "stanh/rd_kodak" in ok(cli("reproduce", "--list"))


@pytest.mark.skipif(not shipped(), reason="no weights are shipped yet")
def test_the_default_model_is_shipped(cli, photo, tmp_path):
    ok(cli("compress", photo, tmp_path / "a.slic"))
    ok(cli("decompress", tmp_path / "a.slic", tmp_path / "a.png"))
    assert stanhlic.DEFAULT_MODEL in ok(cli("info", tmp_path / "a.slic"))


@pytest.mark.parametrize("error, line", [(MemoryError(), "not enough memory"), (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
                                         (RuntimeError("shape mismatch"), None)], ids=["python", "torch", "a defect"])
def test_want_of_memory_is_one_line_and_a_defect_keeps_its_traceback(monkeypatch, capsys, error, line):
    from stanhlic import cli
    def fail(**_): raise error
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit if line else RuntimeError): cli.main()
    if line: assert line in capsys.readouterr().err
