"""Training of the STanH system through its own entry point: stages, resuming, refusals. Smoke sizes on one photograph."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.stanh.model import build_model, model_config
from stanhlic.stanh.training import add_derivation, join_anchors, make_schedules, run
from stanhlic.modelfile import load_weights, restore, save_weights
from stanhlic.zoo import load_codec

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_curve")]
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


@pytest.mark.parametrize("what", ["hyper", "all"])
def test_entropy_networks_restart_alone(data, anchor, tmp_path, what):
    path = run("base", out=tmp_path, data=data, init=anchor, device="cpu", set=[f"renew={what}", "side=0.5"])
    old, new = load_weights(anchor).tensors, load_weights(path).tensors
    still = {k for k in old if k.startswith(("anchors.0.g_a", "anchors.0.g_s"))}
    assert still and all(torch.equal(old[k], new[k]) for k in still)
    assert not torch.equal(old["anchors.0.h_a.0.weight"], new["anchors.0.h_a.0.weight"])
    line = json.loads((tmp_path / "base-0.013/log.jsonl").read_text().splitlines()[-1])
    assert 0 < line["val_bpp_z"] < line["val_bpp"]


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
    ("base", "smoke", ["lr=1e9", "steps=40"], "not a number"), ("base", "smoke", ["size=tiny"], "unknown size 'tiny'; choose full, compact"),
    ("base", "smoke", ["crop=100"], "multiple of 64"), ("base", "smoke", ["lmbda=-1"], "not positive"), ("base", "smoke", ["freeze=true"], "trains nothing"),
    ("anchor", "smoke", ["rate_form=middle"], "threshold or midpoint"), ("base", "smoke", ["side=0.9"], "0 to 0.75"), ("base", "smoke", ["renew=z"], "hyper, for the hyperprior alone, or all"),
    ("base", "smoke", ["name=My Model"], "a-z 0-9"), ("base", "smoke", ["store=int8"], "store=fp16"), ("base", "smoke", ["validation=0"], "at least 1")])
def test_refusals(data, tmp_path, stage, profile, settings, message):
    with pytest.raises(StanhlicError, match=message): run(stage, profile, data=data, out=tmp_path, device="cpu", set=settings)


@pytest.mark.parametrize("changes", [["steps=1e0", "lmbdas=0.01"], ["steps=1", "lmbdas=[1e-2]"]])
def test_settings_as_one_types_them(data, anchor, changes, tmp_path):
    codec = load_codec(str(run("derivation", out=tmp_path, data=data, init=anchor, device="cpu", set=changes)), device="cpu")
    assert [p.lmbda for p in codec.model.points] == [0.01, 0.013] and codec.provenance["stages"][-1]["plan"]["steps"] == 1


def test_a_run_starts_from_a_model_by_name(data, anchor, tmp_path, monkeypatch):
    monkeypatch.setenv("STANHLIC_MODELS", str(anchor.parent))
    codec = load_codec(str(run("derivation", out=tmp_path, data=data, init="stanh-anchor", device="cpu", set=["steps=1", "lmbdas=0.01"])), device="cpu")
    assert len(codec.model.points) == 2 and [s["stage"] for s in codec.provenance["stages"]] == ["base", "anchor", "derivation"]
    with pytest.raises(StanhlicError, match="unknown model 'stanh-anchr'"): run("derivation", out=tmp_path, data=data, init="stanh-anchr", device="cpu")


def test_a_model_of_unknown_lambda_is_refused(data, anchor, tmp_path):
    weights = load_weights(anchor)
    model = restore(build_model, weights)
    model.points[0].lmbda = None  # as `import_stanh` leaves it
    with pytest.raises(StanhlicError, match="unknown lambda.*set model.points"): add_derivation(model, 0.02)
    path = tmp_path / "imported.safetensors"
    save_weights(path, model.state_dict(), weights.header | {"config": model_config(model)})
    with pytest.raises(StanhlicError, match="set model.points"): run("derivation", out=tmp_path, data=data, init=path, device="cpu")
    with pytest.raises(StanhlicError, match="set model.points"): join_anchors([path, anchor])
    model.points[0].lmbda = 0.013
    assert add_derivation(model, 0.02) == 1


@pytest.mark.parametrize("name, counters", [("ramp", ["count"]), ("gap_stochastic", ["beta", "beta_max"]), ("linear", ["beta"]), ("constant", [])])
def test_a_resumed_schedule_keeps_the_settings_it_was_made_with(name, counters):
    old = make_schedules({"schedule": name, "steps": 100, "beta": 5.0, "beta_end": 20.0, "factor": 10.0, "slope": 0.1})
    new = make_schedules({"schedule": name, "steps": 400, "beta": 7.0, "beta_end": 50.0, "factor": 20.0, "slope": 0.2})
    for _ in range(50): old.advance({"gap_y": 0.01, "gap_z": 0.01})
    asked, reached = vars(new.y).copy(), vars(old.y)
    new.load_state_dict(old.state_dict())
    for field, value in vars(new.y).items():
        if field != "generator": assert value == (reached if field in counters else asked)[field], field


def test_a_joint_network_goes_on_for_ms_ssim(tmp_path):
    """At 1,280 times the λ of each rate; a release has the error and the rates of the run it branches off, though nothing says so."""
    photo = sample_photograph(300)
    for i in range(3): Image.fromarray(np.ascontiguousarray(photo[:, i:i + 260])).save(tmp_path / f"{i}.png")
    go = lambda stage, init, *settings: run(stage, out=tmp_path / stage, data=str(tmp_path), init=init, device="cpu", set=["steps=2", "validate_every=2", *settings] if stage == "joint" else settings)
    start = run("joint", out=tmp_path / "start", data=str(tmp_path), device="cpu", set=["steps=1", "crop=128", "lmbdas=[0.0067, 0.013]"])
    joint = go("joint", start, "metric=ms-ssim", "crop=192")
    release = go("release", joint, "crop=192", "share=1.0")
    for path, stage in ((joint, "joint"), (release, "release")):
        held = load_weights(path).header
        assert [p["lambda"] for p in held["config"]["points"]] == [8.576, 16.64] and "MS-SSIM" in held["description"]
        assert held["provenance"]["stages"][-1]["settings"]["metric"] == "ms-ssim" and held["provenance"]["stages"][-1]["stage"] == stage
    log = [json.loads(line) for line in (tmp_path / "joint/joint-all/log.jsonl").read_text().splitlines()]
    assert 0 < log[-1]["val_msssim_8.576"] < 60 and 0 < log[-1]["distortion"] < 1
    codec = load_codec(str(release), device="cpu")
    with pytest.raises(StanhlicError, match="MS-SSIM"): codec.encode(photo, 50, effort=1)
    with pytest.raises(StanhlicError, match="mse or ms-ssim"): go("joint", start, "metric=psnr", "crop=192")
    with pytest.raises(StanhlicError, match="leave the setting out"): go("release", joint, "metric=mse")
