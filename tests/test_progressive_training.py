"""Training stages of the progressive codec: losses, frozen sets, resume, weight files."""
from pathlib import Path

import numpy as np
import pytest
import torch

from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.progressive import training
from stanhlic.training import load_profile
from stanhlic.modelfile import inspect_weights
from stanhlic.zoo import load_codec
from warm import run_item

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_curve")]
torch.set_num_threads(1)
SHORT = ("steps=4", "batch=2", "validate_every=2", "log_every=1", "warmup=1", "val_batch=2")


def test_three_stages_change_what_they_should(tmp_path):
    files = {}
    for before, stage in zip((None, "first", "decoder"), training.STAGES):
        files[stage] = training.run(stage, out=tmp_path / stage, init=before and tmp_path / before, set=SHORT, device="cpu")
    tensors = {stage: training._tensors(path) for stage, path in files.items()}
    changed = {k.split(".")[0] + "." + k.split(".")[1] for k, v in tensors["first"].items() if not torch.equal(v, tensors["decoder"][k])}
    assert changed and all(k.startswith(("g_s.1", "lrp_transforms_prog")) for k in changed)
    assert all(torch.equal(v, tensors["rem"][k]) for k, v in tensors["decoder"].items())
    assert any(k.startswith("post_latent") for k in tensors["rem"])
    codec, picture = load_codec(files["rem"], device="cpu"), sample_photograph()[:100, :90]
    assert codec.name == "progressive-smoke" and codec.decode(codec.encode(picture)).shape == picture.shape


def test_auxiliary_optimizer_moves_the_quantiles(tmp_path):
    path = training.run("first", out=tmp_path, set=SHORT, device="cpu")
    assert not np.allclose(training._tensors(path)["entropy_bottleneck.quantiles"], [-10.0, 0.0, 10.0], atol=1e-4)


def test_notebook(tmp_path):
    run_item(Path(__file__).resolve().parent.parent / "nbs/train/progressive.ipynb", tmp_path, out="run", settings=list(SHORT), device="cpu")
    assert inspect_weights(tmp_path / "run" / "model.safetensors")["provenance"]["stages"][-1]["stage"] == "first"


@pytest.mark.parametrize("profile", ["smoke", "compact", "paper"])
@pytest.mark.parametrize("stage", training.STAGES)
def test_profiles_name_what_exists(profile, stage):
    settings = load_profile(training._profiles(), profile, stage)
    with torch.device("meta"): model = training.network_for(settings, stage)
    assert any(p.requires_grad for p in training.freeze(model, stage, settings.get("lrp", True)).parameters())
    training.make_plan(settings)
    training.task_for(model, stage, settings, torch.rand(1, 3, 64, 64))


def test_lean_parts_train_from_a_joint_network(tmp_path):
    """Everything at first, then the decoder and the refinement alone; what comes out is a codec."""
    from stanhlic.stanh import training as joint
    joint.run("joint", out=tmp_path / "joint", device="cpu")
    run = lambda stage, init: training.run(stage, out=tmp_path / stage, init=tmp_path / init, set=(*SHORT, "network=lean-smoke", "lmbda=[0.002, 0.02]"), device="cpu")
    first, rem = run("first", "joint"), run("rem", "first")
    tensors = [training._tensors(path) for path in (first, rem)]
    assert {k.split(".")[0] for k, v in tensors[0].items() if not torch.equal(v, tensors[1][k])} == {"refinement"}
    stages = inspect_weights(rem)["provenance"]["stages"]
    assert [s["stage"] for s in stages] == ["joint", "first", "rem"]
    codec, picture = load_codec(rem, device="cpu"), sample_photograph()[:100, :90]
    data = codec.encode(picture)
    assert codec.decode(data).shape == codec.decode(data[:codec.cuts(data)[0]]).shape == picture.shape


def test_settings_as_one_types_them(tmp_path):
    path = training.run("rem", out=tmp_path, set=(*SHORT, "steps=1e0", "rems=7.5"), device="cpu")
    assert load_codec(path, device="cpu").model.config.rems == (7.5,)


@pytest.mark.parametrize("stage, change, why", [
    ("first", "lmbda=0.01", "two positive numbers"), ("first", "lmbda=[0.01, -1]", "two positive numbers"), ("first", "network=tiny", "unknown network 'tiny'; choose one of full"),
    ("first", "hypers=3", "choose 1 or 2"), ("first", "support=-1", "0 or more"), ("first", "crop=100", "multiple of 64"), ("decoder", "qualities=even", "log or published"), ("rem", "rems=high", "rems takes a list")])
def test_bad_settings(tmp_path, stage, change, why):
    with pytest.raises(StanhlicError, match=why): training.run(stage, out=tmp_path, set=(*SHORT, change), device="cpu")


def test_a_stage_starts_from_a_name_a_file_a_checkpoint_or_a_folder(tmp_path, monkeypatch):
    first = training.run("first", out=tmp_path / "first", set=SHORT, device="cpu")
    monkeypatch.setenv("STANHLIC_MODELS", str(tmp_path / "first"))
    for i, init in enumerate(("progressive-smoke", first, tmp_path / "first")):
        stages = inspect_weights(training.run("decoder", out=tmp_path / f"{i}", init=init, set=("steps=1", *SHORT[1:]), device="cpu"))["provenance"]["stages"]
        assert [s["stage"] for s in stages] == ["first", "decoder"]
    best = training._tensors(tmp_path / "first" / "best.pt")
    assert all(torch.equal(v, best[k]) for k, v in training._tensors("progressive-smoke").items())
    for init in ("progressive-smok", tmp_path / "none.pt", tmp_path):
        with pytest.raises(StanhlicError, match="unknown model|no such model file"): training.run("decoder", out=tmp_path / "x", init=init, device="cpu")


def test_refusals(tmp_path):
    for stage, profile, changes in (("second", "smoke", ()), ("first", "huge", ()), ("first", "smoke", ("color=red",)), ("decoder", "compact", ())):
        with pytest.raises(StanhlicError): training.run(stage, profile, out=tmp_path, set=changes, device="cpu")
