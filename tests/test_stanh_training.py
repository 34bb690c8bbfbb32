"""Training of the STanH system through its own entry point: stages, resuming, refusals. Smoke sizes on one photograph."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.stanh.training import run, train_stage, training_arrays
from stanhlic.training import Plan, load_checkpoint, save_checkpoint
from stanhlic.zoo import load_codec, load_weights

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    photo = sample_photograph(200)
    for i in range(3): Image.fromarray(np.ascontiguousarray(photo[:, i:i + 140])).save(folder / f"{i}.png")
    return str(folder)


@pytest.fixture(scope="module")
def anchor(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    base = run("base", out=out / "base", data=data, device="cpu")
    return run("anchor", out=out / "anchor", data=data, init=base, device="cpu")


@pytest.mark.parametrize("settings", [[], ["schedule=gap_stochastic", "beta=10.0", "factor=15.0"],
                                      ["rate_form=midpoint", "centre=raw", "interpolate_z=false", "schedule=gap_stochastic", "beta=10.0"],
                                      ["schedule=constant", "beta=10.0"], ["schedule=linear", "beta=10.0"]])
def test_derivations_move_nothing_but_their_own_numbers(data, anchor, settings, tmp_path):
    path = run("derivation", out=tmp_path, data=data, init=anchor, device="cpu", set=settings)
    old, new = load_weights(anchor).tensors, load_weights(path).tensors
    assert all(torch.equal(old[k], new[k]) for k in old if k.startswith("anchors."))
    assert torch.equal(old["points.0.y.raw_jumps"], new["points.1.y.raw_jumps"])           # the anchor's own point
    assert not torch.equal(new["points.0.y.raw_jumps"], new["points.1.y.raw_jumps"])
    codec = load_codec(str(path), device="cpu")
    assert codec.decode(codec.encode(sample_photograph(96), 80)).shape[2] == 3


def test_a_killed_run_resumes_to_the_same_weights(data, anchor, tmp_path):
    settings = dict(lmbdas=[.02], schedule="gap_stochastic", beta=10.0, factor=15.0, steps=4, batch=2, crop=64, lr=5e-3, warmup=1, validate_every=2, log_every=1, validation=1)
    arrays = training_arrays(data)[:2]
    def finish(out, first_steps=None):
        def go(resume, stop_at=None):
            import stanhlic.stanh.training as module
            codec, whole = load_codec(str(anchor), device="cpu"), module.fit
            module.fit = lambda *a, **k: whole(*a, **k, stop_at=stop_at)
            try: return train_stage(codec.model, "derivation", settings, *arrays, out, 0.02, resume)
            finally: module.fit = whole
        if first_steps: go(False, first_steps)
        return go(first_steps is not None)
    whole, resumed = finish(tmp_path / "whole"), finish(tmp_path / "cut", 2)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()): assert torch.equal(a, b)


def test_log_and_provenance(anchor):
    lines = [json.loads(s) for s in (anchor.parent / "anchor-0.013" / "log.jsonl").read_text().splitlines()]
    assert [l["step"] for l in lines] == [2, 4] and "val_loss" in lines[-1]
    stages = load_weights(anchor).header["provenance"]["stages"]
    assert [s["stage"] for s in stages] == ["base", "anchor"]
    assert {"commit", "plan", "data", "device", "profile", "torch", "date"} <= stages[1].keys()


@pytest.mark.parametrize("stage, profile, settings, message", [
    ("derivation", "smoke", [], "needs an anchor"), ("polish", "smoke", [], "unknown stage"), ("base", "huge", [], "unknown profile"),
    ("anchor", "smoke", ["lambda=1"], "unknown setting"), ("anchor", "smoke", ["schedule=sawtooth"], "unknown schedule"),
    ("anchor", "smoke", ["metric=ssim"], "unknown metric"), ("base", "smoke", ["crop=4096"], "4096 pixels"),
    ("base", "smoke", ["lr=1e9", "steps=40"], "not a number")])
def test_refusals(data, tmp_path, stage, profile, settings, message):
    with pytest.raises(StanhlicError, match=message): run(stage, profile, data=data, out=tmp_path, device="cpu", set=settings)


def test_checkpoints_survive_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    def full(*args): raise OSError(28, "No space left on device")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StanhlicError, match="previous one is kept"): save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path)["step"] == 1 and [p.name for p in tmp_path.iterdir()] == ["last.pt"]
