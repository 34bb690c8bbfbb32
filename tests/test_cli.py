"""The command line as a user meets it: every verb in a process of its own, from words to files and exit codes."""
import json
import subprocess
import sys

import numpy as np
import pytest

COMMANDS = ("models", "compress", "decompress", "info", "truncate", "view", "eval", "bench", "train", "reproduce", "selftest")


def shipped():
    from stanhlic.zoo import _folders, inspect_weights
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
    ("encode", "a", "b"), ("compress",), ("compress", "a.png"), ("compress", "a.png", "b.slic", "--fast"),
    ("compress", "a.png", "b.slic", "--quality", "high"), ("compress", "a.png", "b.slic", "--quality", "50", "--target-bpp", "0.3"),
    ("compress", "a.png", "b.slic", "--target-psnr", "30", "--target-bytes", "999"), ("eval", "--model", "tiny"),
    ("eval", "--model", "m", "--images", ".", "--out", "o.json", "--qualities", "0,best"), ("train", "stanh", "anchor", "--set", "steps"),
], ids=" ".join)
def test_wrong_usage_is_exit_code_2(cli, words, tmp_path):
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 2 and "Usage:" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


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


def test_a_model_may_be_a_file(cli, photo, models, tmp_path):
    import os
    env = os.environ | {"STANHLIC_MODELS": ""}
    ok(cli("compress", photo, tmp_path / "a.slic", "--model", models / "tiny.safetensors", env=env))
    assert "unknown here" in ok(cli("info", tmp_path / "a.slic", env=env))
    ok(cli("decompress", tmp_path / "a.slic", tmp_path / "a.png", "--model", models / "tiny.safetensors", env=env))


def test_an_existing_output_is_replaced(cli, slic, tmp_path):
    (tmp_path / "a.png").write_text("old")
    ok(cli("decompress", slic, tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_compress_loads_nothing_it_does_not_need(models, photo, tmp_path):
    """What makes a cold start slow stays out; `stanhlic bench` measures the seconds."""
    code = ("import sys\nfrom stanhlic.cli import main\ntry: main()\nexcept SystemExit: pass\n"
            "print([m for m in ('compressai', 'torchvision', 'torch_geometric', 'accelerate', 'matplotlib.pyplot', 'pandas') if m in sys.modules], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code, "compress", photo, tmp_path / "a.slic", "--model", "tiny"], capture_output=True, text=True, timeout=120)
    assert (tmp_path / "a.slic").exists() and done.stderr.strip().splitlines()[-1] == "[]"


# %% the other verbs

def test_models(cli, models):
    listed = {m["name"]: m for m in json.loads(ok(cli("models", "--json")))}
    assert {"tiny", "other"} <= set(listed) and set(shipped()) <= set(listed)
    assert all(m["parameters"] > 0 and m["bytes"] > 0 and len(m["fingerprint"]) == 16 for m in listed.values())
    assert "tiny" in ok(cli("models"))


def test_eval_writes_a_result_of_compressai(cli, models, photo, tmp_path):
    table = ok(cli("eval", "--model", "tiny", "--images", photo.parent, "--qualities", "0,100", "--out", tmp_path / "r.json"))
    result = json.loads((tmp_path / "r.json").read_text())
    assert {"name", "description", "results"} <= set(result) and "PSNR" in table
    assert set(result["results"]) == {"bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time"}
    assert result["results"]["bpp"][0] < result["results"]["bpp"][1] and result["extras"]["quality"] == [0, 100]
    assert [r["bpp"] for r in result["extras"]["per_image"]] == [8 * r["bytes"] / (160 * 128) for r in result["extras"]["per_image"]]


def test_selftest(cli, models):
    text = ok(cli("selftest", "--device", "cpu"))
    assert "tiny" in text and "FAILED" not in text


def test_selftest_notices_a_broken_decoder(models, monkeypatch):
    from stanhlic import evaluate
    monkeypatch.setattr(evaluate, "unpack", lambda data: None)
    assert [r["ok"] for r in evaluate.self_test("cpu") if r["check"] == "damage"] == [False] * len(evaluate.list_models())


def test_reproduce_lists_the_registry(cli): assert "stanh/rd_kodak" in ok(cli("reproduce", "--list"))


@pytest.mark.skipif(not shipped(), reason="no weights are shipped yet")
def test_the_default_model_is_shipped(cli, photo, tmp_path):
    ok(cli("compress", photo, tmp_path / "a.slic"))
    ok(cli("decompress", tmp_path / "a.slic", tmp_path / "a.png"))
    assert "stanh-zou22-compact" in ok(cli("info", tmp_path / "a.slic"))
