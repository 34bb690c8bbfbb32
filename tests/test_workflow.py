"""The Snakemake workflow: a small part of it runs on the smoke profile, and the whole of the paper profile is planned."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from stanhlic.lab.reproduce import list_items
from stanhlic.modelfile import inspect_weights, save_weights

pytest.importorskip("snakemake", reason="Snakemake is not installed; pip install stanhlic[cluster]")
pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def snakemake(tmp_path):
    """`snakemake("--dry-run", profile="paper")` runs the workflow in a temporary folder and gives what it said."""
    def run(*targets, profile="smoke", options=(), ok=True):
        command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile", "--directory", tmp_path, "--cores", "1", *options, "--config", f"profile={profile}", "--", *targets]
        # its caches belong to this test
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")})
        assert (done.returncode == 0) == ok, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout + done.stderr
    return run


def plan(said):
    """{rule: its inputs} of a dry run."""
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?:    .+\n)+)", said, re.M)
    return {name: re.findall(r"[^\s,]+", " ".join(re.findall(r"^    input: (.*)$", body, re.M))) for name, body in blocks}


def test_a_part_of_it_runs(snakemake, tmp_path):
    targets = ("train_stanh_anchor", "item_stanh_interpolation_trap")
    snakemake(*targets)
    stages = inspect_weights(tmp_path / "runs/smoke/stanh-anchor/model.safetensors")["provenance"]["stages"]
    assert [s["stage"] for s in stages] == ["base", "anchor"] and stages[-1]["profile"] == "smoke"
    left = tmp_path / "runs/figures/stanh/interpolation_trap"
    assert left.with_suffix(".png").read_bytes().startswith(b"\x89PNG") and json.loads(left.with_suffix(".json").read_text())
    assert not (tmp_path / "figures").exists()
    assert "Nothing to be done" in snakemake(*targets)


def test_the_shipped_model_in_its_smoke_form(snakemake, tmp_path):
    snakemake("train_stanh_mixture")
    held = inspect_weights(tmp_path / "runs/smoke/stanh-mixture/model.safetensors")
    before, stage, last = held["provenance"]["stages"]
    assert len(held["config"]["points"]) == 8 and (before["stage"], before["steps"], stage["stage"], stage["plan"]["steps"], last["stage"]) == ("joint", 4, "release", 2, "mixture")


def test_the_paper_profile_is_planned_whole(snakemake, tmp_path):
    planned = plan(snakemake("all", profile="paper", options=["--dry-run"]))
    items = {f"item_{e['id'].replace('/', '_')}" for e in list_items() if e["notebook"]}
    stages = {f"train_{system}_{stage}" for system in ("stanh", "progressive", "rnn") for stage in yaml.safe_load((ROOT / "stanhlic" / system / "profiles.yaml").read_text())["paper"]}
    assert len(items) > 20 and items | stages <= planned.keys()
    weights = lambda name: f"runs/paper/{name}/model.safetensors"
    starts = {"stanh_msssim_base": "stanh-base", "stanh_msssim_anchor": "stanh-msssim-base", "stanh_msssim_derivation": "stanh-msssim-anchor", "stanh_anchor": "stanh-base", "stanh_derivation": "stanh-anchor", "progressive_first": "stanh-base", "progressive_decoder": "progressive-first", "progressive_rem": "progressive-decoder"}
    assert {k: planned[f"train_{k}"] for k in starts} == {k: [weights(v)] for k, v in starts.items()}
    assert not list(tmp_path.glob("runs/*"))
    made = {"stanh-zou22": "stanh-derivation", "stanh-zou22-msssim": "stanh-msssim-derivation", "progressive-zou22": "progressive-rem", "rnn-paper": "rnn-train"}
    for e in list_items():  # each item of full size waits for the weights that it names
        named = {v for p in (e["parameters"].get("paper") or {}).values() for v in (p if isinstance(p, list) else [p]) if isinstance(v, str) and v in made}
        assert {weights(made[n]) for n in named} <= set(planned.get(f"item_{e['id'].replace('/', '_')}", ())), e["id"]


def test_nothing_is_trained_for_weights_that_were_imported(snakemake, tmp_path, monkeypatch):
    monkeypatch.setenv("STANHLIC_MODELS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    save_weights(tmp_path / "mine/full.safetensors", {"x": torch.ones(1)}, {"system": "stanh", "name": "stanh-zou22", "config": {}, "provenance": {"release": "stanh"}})
    planned = plan(snakemake("item_stanh_rd_kodak", "item_progressive_masking", profile="paper", options=["--dry-run"]))
    assert not [s for s in planned["item_stanh_rd_kodak"] if "runs/" in s] and "runs/paper/progressive-rem/model.safetensors" in planned["item_progressive_masking"]


def test_every_shipped_model_has_a_stage(snakemake):
    """`make weights` ends in a file for each model that ships, under its name."""
    said = snakemake("weights", profile="compact", options=["--dry-run", "--printshellcmds", "--forceall"])
    plans = {s: yaml.safe_load((ROOT / "stanhlic" / s / "profiles.yaml").read_text())["compact"] for s in ("stanh", "progressive", "rnn")}
    names = {next(iter(re.findall(r"name=([\w-]+)", line)), plans[system][stage].get("name")) for line in said.splitlines() for system, stage in re.findall(r"stanhlic.cli train (\w+) (\w+) --profile compact", line)}
    assert {inspect_weights(p)["name"] for p in (ROOT / "stanhlic/weights").glob("*.safetensors")} <= names


def test_figures_wait_for_figures_and_for_weights_that_are_not_shipped(snakemake):
    planned = plan(snakemake("item_stanh_anchors", "item_rnn_hyperprior", profile="compact", options=["--dry-run"]))
    assert "item_stanh_derivations" in planned and "figures/stanh/derivations.json" in planned["item_stanh_anchors"]
    assert [s for s in planned["item_rnn_hyperprior"] if "rnn-compact" in s or "rnn-train" in s]
    assert ("train_rnn_train" in planned) != (ROOT / "stanhlic/weights/rnn-compact.safetensors").exists()
    assert not [r for r in planned if r.startswith("train_stanh") and (ROOT / "stanhlic/weights/stanh-compact.safetensors").exists()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds a process in /proc")
def test_many_pictures_in_shards_one_of_which_is_killed(tmp_path, models, photo):
    from test_files import many_pictures, stuck
    names = many_pictures(tmp_path, 30, photo)  # the rule tries a shard twice
    mend = stuck(tmp_path / names[12])  # of the first shard
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile", "--directory", tmp_path, "--cores", "2", "--config", "pictures=list", "out=small", "shards=3",
               "compress=--model tiny", "--", "compressed"]
    def shard():
        for p in Path("/proc").glob("[0-9]*/cmdline"):
            try: words = p.read_bytes().split(b"\0")
            except OSError: continue
            if words[1:5] == [b"-m", b"stanhlic.cli", b"compress", b"--list"] and words[5].endswith(b"0000.txt") and Path(os.readlink(p.parent / "cwd")) == tmp_path: return int(p.parent.name)
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}) as p:
        while not (tmp_path / "small" / names[9]).with_suffix(".slic").exists() and p.poll() is None: time.sleep(0.01)  # the one before it
        made = {f: f.stat().st_mtime_ns for f in tmp_path.glob("small/**/*.slic")}
        mend(); os.kill(shard(), signal.SIGKILL)
        said, _ = p.communicate()
    assert p.returncode == 0 and "Error in rule shard" in said and "29 pictures compressed, 1 refused" in said, said
    table = json.loads((tmp_path / "small" / "pictures.json").read_text())
    assert [r["input"] for r in table["pictures"]] == [n for n in names if n != names[7]] and [r["input"] for r in table["refused"]] == [names[7]]
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.glob("small/**/*.slic")} == {r["output"] for r in table["pictures"]}
    assert len(made) >= 4 and all(f.stat().st_mtime_ns == t for f, t in made.items())


def test_unknown_profile_is_one_line(snakemake):
    assert "unknown profile quick; choose smoke, compact, paper" in snakemake("all", profile="quick", options=["--dry-run"], ok=False)
