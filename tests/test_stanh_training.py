"""Training of the STanH system through its own entry point: stages, resuming, refusals. Smoke sizes on one photograph."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.stanh.training import run
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
