"""Training of the layered codec: schedule, resume, weight files, what is learned in seconds."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import stanhlic.rnn.training as room
from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.images import write_image
from stanhlic.metrics import psnr
from stanhlic.rnn.codec import RnnCodec
from stanhlic.rnn.networks import RnnConfig
from stanhlic.training import Plan
from stanhlic.zoo import load_codec
from warm import run_item

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_curve")]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(3): write_image(folder / f"{i}.png", np.roll(sample_photograph(128), 20 * i, 1))
    return folder


def run(photographs, out, *changes, **options): return room.run(data=str(photographs), out=out, device="cpu", set=changes, **options)


def test_schedule():
    s = room.Schedule(100, 4, ((0.1, 1), (0.2, 2), (0.5, 9)), 0.1)
    rows = {}
    for s.step in (0, 5, 9, 10, 19, 20, 50, 99): rows[s.step] = s.layers, round(s.rate_weight, 2)
    assert rows == {0: (1, 0.1), 5: (1, 0.55), 9: (1, 0.91), 10: (2, 1.0), 19: (2, 1.0), 20: (4, 1.0), 50: (4, 1.0), 99: (4, 1.0)}
    free = room.Schedule(100, 4, side=0.2)
    for free.step in (0, 19, 20): rows[free.step] = free.side_weight
    assert [rows[n] for n in (0, 19, 20)] == [0.02, 0.02, 1.0]
    other = room.Schedule(100, 4); other.load_state_dict(s.state_dict())
    assert other.step == 99


def test_profiles_ask_for_what_there_is():
    profiles = yaml.safe_load((ROOT / "stanhlic/rnn/profiles.yaml").read_text())
    assert set(profiles) == {"smoke", "compact", "paper"}
    known = set(RnnConfig.__dataclass_fields__) | set(Plan.__dataclass_fields__) | {"name", "preset", "lambdas", "metric", "rate_mode", "curriculum", "rate_warmup", "principal_start", "validation", "store", "side"}
    for profile in profiles.values():
        assert set(profile["train"]) <= known and set(profile["train"]) >= {"name", "preset", "curriculum", "rate_warmup", "validation", "rate_mode"}
    with torch.device("meta"):
        assert sum(p.numel() for p in room.make_model(profiles["paper"]["train"])[0].parameters()) == 62_339_939
        assert sum(p.numel() for p in room.make_model(profiles["compact"]["train"])[0].parameters()) == 4_876_680


def test_smoke_run_ends_in_a_codec(photographs, tmp_path):
    path = run(photographs, tmp_path)
    codec, picture = load_codec(path, device="cpu"), sample_photograph(100)
    data = codec.encode(picture)
    assert codec.kind == "rnn" and codec.name == "rnn-smoke" and codec.layers == 4
    assert np.array_equal(load_codec(path, device="cpu").decode(data, layers=2), codec.decode(codec.encode(picture, layers=2)))
    assert codec.config["lambdas"] == [0.001, 0.002, 0.004, 0.008] and codec.provenance["stages"][0]["settings"]["preset"] == "rd-sheet"
    lines = [json.loads(s, parse_constant=pytest.fail) for s in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["layers"] for line in lines] == [1, 2, 4, 4] and {"val_bpp4", "val_psnr1", "bpp_z"} <= set(lines[-1])


def test_side_information_is_nearly_free_at_first():
    model, x = room.make_model(dict(width=0.0625, latent=8, hyper=8))[0], torch.rand(2, 3, 64, 64)
    values = []
    for side in (0.0, 0.5):
        torch.manual_seed(0)
        value, facts = room.train_loss(room.PRESETS["rd-sheet"], room.Schedule(10, 4, side=side))(model, x)
        values.append(value.item())
    assert values[0] - values[1] == pytest.approx(0.98 * sum((5 - k) * facts[f"z{k}"].item() for k in (1, 2, 3, 4)), rel=1e-4)
    assert facts["bpp_z"].item() == pytest.approx(sum(facts[f"z{k}"].item() for k in (1, 2, 3, 4)))


def test_variants_by_setting(photographs, tmp_path):
    path = run(photographs, tmp_path / "a", "steps=1", "hyperprior=false", "lambdas=[0.002, 0.02]", "name=two", "curriculum=[]")
    codec = load_codec(path, device="cpu")
    assert (codec.name, codec.layers, codec.model.config.hyperprior) == ("two", 2, False)
    path = run(photographs, tmp_path / "b", "steps=1", "mean_scale=true", "rounding=noise", "rate_mode=plain", "curriculum=[]")
    assert load_codec(path, device="cpu").model.config.mean_scale
    path = run(photographs, tmp_path / "c", "lean=true", "mean_scale=true", "quarter=16", "eighth=12", "memory=8", "feature=16", "optimizer=soap", "steps=2", "validate_every=2")
    lean, picture = load_codec(path, device="cpu"), sample_photograph(100)
    assert lean.model.config.lean and np.array_equal(lean.decode(lean.encode(picture)), lean.analyze(picture).picture(4))


@pytest.mark.parametrize("change, why", (("lambda=1", "unknown setting"), ("preset=best", "unknown preset"), ("hidden_kernel=2", "hidden_kernel 2"), ("lambdas=[0]", "positive"), ("lambdas=[[1]]", "positive"), ("curriculum=0.5", "curriculum takes a list"),
                                         ("lean=true", "mean_scale=true"), ("curriculum=[[0.5]]", "give pairs"), ("curriculum=[[0.5, 0]]", "give pairs"), ("init_scale=0", "positive"), ("latent=2.5", "a whole number"), ("crop=100", "multiple of 64")))
def test_bad_settings(photographs, tmp_path, change, why):
    with pytest.raises(StanhlicError, match=why): run(photographs, tmp_path, change)


def test_settings_as_one_types_them(photographs, tmp_path):
    codec = load_codec(run(photographs, tmp_path, "steps=1e0", "lambdas=1e-2"), device="cpu")
    assert (codec.layers, codec.config["lambdas"]) == (1, [0.01])


def test_a_run_starts_from_a_model_by_name(photographs, tmp_path, monkeypatch):
    run(photographs, tmp_path / "a", "steps=1", "name=mine")
    monkeypatch.setenv("STANHLIC_MODELS", str(tmp_path / "a"))
    assert len(load_codec(run(photographs, tmp_path / "b", "steps=1", init="mine"), device="cpu").provenance["stages"]) == 2
    with pytest.raises(StanhlicError, match="unknown model 'mien'"): run(photographs, tmp_path / "c", init="mien")


def test_bad_places(photographs, tmp_path):
    with pytest.raises(StanhlicError, match="no such folder"): room.run(data=str(tmp_path / "none"), out=tmp_path, device="cpu")
    with pytest.raises(StanhlicError, match="unknown stage"): room.run("anchor", out=tmp_path)
    first = run(photographs, tmp_path / "a", "steps=1")
    with pytest.raises(StanhlicError, match="other sizes"): run(photographs, tmp_path / "b", "width=0.125", init=first)
    second = load_codec(run(photographs, tmp_path / "c", "steps=1", init=first), device="cpu")
    assert len(second.provenance["stages"]) == 2


def test_a_briefly_trained_model_refines():
    """Seconds on one picture: the loss falls, rounding included, and layers refine."""
    settings = dict(preset="readme", width=0.125, latent=16, hyper=8, hyperprior=False, rounding="ste", init_scale=3.0, latent_gain=300.0)
    preset, x = room.find_preset(settings), sample_photograph(192)[32:96, 64:128]
    model, _ = room.make_model(settings)
    batch = torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() / 255
    optimizer, schedule = torch.optim.Adam(model.parameters(), 3e-3), room.Schedule(80, 4, (), 0.2)
    loss = room.train_loss(preset, schedule)
    losses = []
    for _ in range(80):
        value, _ = loss(model, batch)
        optimizer.zero_grad(); value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0); optimizer.step(); schedule.advance()
        losses.append(value.item())
    codec = RnnCodec(model)
    a = codec.analyze(x)
    quality, sizes = [psnr(x, codec.decode(codec.encode(a, layers=k))) for k in (1, 2, 3, 4)], [len(codec.encode(a, layers=k)) for k in (1, 2, 3, 4)]
    assert losses[-1] < losses[0] / 2 and quality[3] > quality[0] + 1 and sizes == sorted(sizes)
    assert abs(8 * (sizes[3] - 25 - 11 * 4) - codec.estimate(a)) < 0.01 * codec.estimate(a) + 128 * 4


def test_notebook(photographs, tmp_path):
    run_item(ROOT / "nbs/train/rnn.ipynb", tmp_path, data=str(photographs), out="run", settings=["steps=2"], device="cpu")
    assert (tmp_path / "run" / "model.safetensors").exists()
