"""What a stranger can make again: the published recipe as published, the same weights from the same run, and the kept numbers from the shipped weights."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from stanhlic.datasets import find_dataset, has_dataset
from stanhlic.images import read_image
from stanhlic.metrics import psnr
from stanhlic.modelfile import inspect_weights
from stanhlic.progressive import training as progressive
from stanhlic.rnn import training as rnn
from stanhlic.stanh import training as stanh
from stanhlic.training import Plan, load_profile, make_plan, read_log
from stanhlic.zoo import list_models, load_codec

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"stanh": stanh, "rnn": rnn, "progressive": progressive}


def paper(room, stage): return load_profile(ROOT / "stanhlic" / room / "profiles.yaml", "paper", stage)


# %% the published recipe

@pytest.mark.parametrize("room, stage, wanted", [
    ("stanh", "base", dict(batch=16, crop=256, lr=1e-4, lr_aux=1e-3, clip=1, plateau=0.3, patience=4, lmbda=0.0067)),
    ("stanh", "anchor", dict(batch=16, crop=256, lr=1e-4, clip=1, plateau=0.5, patience=50, growth=2, factor=15, beta=10, schedule="gap_stochastic", rate_form="midpoint", centre="raw", free=True)),
    ("stanh", "derivation", dict(batch=16, crop=256, lr=1e-4, clip=1, plateau=0.5, patience=10, factor=15, beta=10, schedule="gap_stochastic", interpolate_z=False)),
    ("progressive", "first", dict(batch=16, crop=256, lr=1e-4, lr_aux=1e-3, clip=1, plateau=0.3, patience=15, validate_every=6250, steps=150 * 6250, lmbda=[0.0055, 0.04], form="published")),
    ("progressive", "decoder", dict(batch=16, crop=256, lr=1e-4, plateau=0.3, patience=12, validate_every=6250, steps=80 * 6250, qualities="published", lrp=True, clamp=True, test_before=True)),
    ("progressive", "rem", dict(batch=16, crop=256, lr=1e-4, plateau=0.3, patience=12, validate_every=6250, steps=80 * 6250, rems=[7.5], rem_points=100, rem_mean=True, rem_depth="middle", test_before=True)),
    ("rnn", "train", dict(batch=4, crop=256, lr=1e-4, lr_aux=1e-3, lr_end=1, hold=1, clip=0, steps=400000, rounding="noise", hidden_kernel=3)),
])
def test_the_published_recipe_is_as_published(room, stage, wanted):
    settings = paper(room, stage)
    assert {k: settings.get(k) for k in wanted} == wanted
    plan = make_plan(settings)
    assert (plan.ema, plan.precision, plan.optimizer, plan.hold, plan.drawn, plan.compile) == (0, "no", "adam", 1, 0, False)


def test_only_profile_paper_is_called_the_published_recipe():
    said = {p: re.findall(r"^.*published recipes?\b.*$", p.read_text(encoding="utf-8"), re.M) for pattern in ("stanhlic/**/*.py", "stanhlic/**/*.yaml", "docs/*.md", "nbs/**/*.ipynb", "README.md") for p in ROOT.glob(pattern)}
    profiles = [line for p, lines in said.items() if p.suffix == ".yaml" for line in lines]
    assert len(profiles) >= 5 and [line for line in profiles if not re.search("paper: the published recipe|^# The published recipe:", line)] == []
    assert [line for p, lines in said.items() for line in lines if re.search("published recipe", line) and re.search(r"\b(compact|smoke)\b", line) and "paper" not in line] == []


@pytest.mark.long
def test_k_doubles_where_the_learning_rate_drops(tmp_path, no_curve):
    """No validation improves by so much, so the rate is halved at each; the schedule grows with it, cut or whole."""
    settings = ["steps=4", "validate_every=1", "log_every=1", "schedule=gap_stochastic", "factor=15", "growth=2", "plateau=0.5", "patience=0", "hold=1", "lr=1e-9", "lr_end=1"]
    stanh.run("anchor", out=tmp_path / "a", device="cpu", set=settings)
    lines, state = read_log(tmp_path / "a/anchor-0.013/log.jsonl"), torch.load(tmp_path / "a/anchor-0.013/last.pt", weights_only=True)
    drops = round(np.log2(1e-9 / lines[-1]["lr"]))
    assert drops >= 1 and state["schedule"]["y"]["drops"] == state["plateau"][2] and state["plateau"][2] in (drops, drops + 1) and state["schedule"]["y"]["growth"] == 2


def known_settings(room):
    """All that --set takes in the stages of a system, and the options of the command."""
    profiles = yaml.safe_load((ROOT / "stanhlic" / room / "profiles.yaml").read_text(encoding="utf-8"))
    own = {k for stages in profiles.values() for s in stages.values() for k in s}
    return own | set(Plan.__dataclass_fields__) | set({"stanh": stanh._OPTIONS, "progressive": progressive._OPTIONS, "rnn": rnn._OPTIONS}[room])


@pytest.mark.parametrize("room, title", [("stanh", "STanH"), ("progressive", "progressive"), ("rnn", "RNN")])
def test_every_flag_of_the_release_leads_to_a_setting_that_exists(cli, room, title):
    """The tables of docs/train.md: what stands on the right in code is a setting, an option or a command here."""
    text = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (.+) \|$", text[text.index(f"| {title} ("):].split("\n\n")[0], re.M)[2:]
    assert len(rows) >= 5
    options, known = cli("train", "--help").stdout, known_settings(room)
    values = {"gap_stochastic", "ramp", "linear", "constant", "ms-ssim", "first", "decoder", "rem", "base", "derivation", "big", "single", "global", "false", "step", "estimated"}
    for _, ours in rows:
        for word in re.findall(r"`([^`]+)`", ours):
            name = word.partition("=")[0]
            assert name in options if name.startswith("--") else name in known | values or word.startswith("stanhlic "), word


# %% the same weights again

@pytest.mark.long
@pytest.mark.parametrize("stages", [
    [("stanh", "joint", ()), ("stanh", "release", ())],
    [("stanh", "base", ()), ("stanh", "anchor", ()), ("stanh", "derivation", ("steps=2", "lmbdas=[0.0065]"))],
    [("rnn", "train", ("steps=2",))],
    [("progressive", "first", ("steps=2", "validate_every=2")), ("progressive", "rem", ("steps=2", "validate_every=2"))]], ids=lambda s: f"{s[0][0]} {s[-1][1]}")
def test_a_toy_version_trained_again_has_the_same_numbers(stages, tmp_path, no_curve):
    """One run a stage, from nothing; the file names all of them, with commit, seed, settings and data, and its tensors are the same to the last bit."""
    def train(place):
        init = None
        for room, stage, settings in stages: init = ROOMS[room].run(stage, out=tmp_path / place / stage, init=init, device="cpu", set=settings)
        return inspect_weights(init)
    first, again = train("first"), train("again")
    assert first["fingerprint"] == again["fingerprint"]
    records = first["provenance"]["stages"]
    assert [s["stage"] for s in records] == [stage for _, stage, _ in stages] and all(s["profile"] == "smoke" and s["data"] and "seed" in s["plan"] for s in records)
    assert all(s["commit"] for s in records)


# %% the kept numbers again

def kept(item):
    """Numbers of an item, if the shipped weights made them and Kodak is here to measure them again."""
    numbers = json.loads((ROOT / f"figures/{item}.json").read_text(encoding="utf-8"))
    if not has_dataset("kodak"): pytest.skip("needs Kodak; stanhlic fetch kodak")
    model = numbers["made_by"]["parameters"]["model"]
    if {m["name"]: m["fingerprint"] for m in list_models()}.get(model) != numbers["made_by"]["weights"][model]: pytest.skip(f"{item} was measured with other weights; stanhlic reproduce {item} --profile compact")
    picture = read_image(next(p for p in find_dataset("kodak", verify=False) if p.stem == "kodim01"))
    return numbers, load_codec(model, "cpu"), picture


@pytest.mark.long
def test_a_kept_number_of_stanh_is_measured_again():
    numbers, codec, picture = kept("stanh/interpolation")
    row = numbers["targets"][2]
    data = codec.encode(picture, row["quality"])
    assert 8 * len(data) / (picture.shape[0] * picture.shape[1]) == pytest.approx(row["got"], rel=0.002)
    assert psnr(picture, codec.decode(data)) > 24


@pytest.mark.long
def test_a_kept_number_of_progressive_is_measured_again():
    numbers, codec, picture = kept("progressive/rd_kodak")
    row = next(r for r in numbers["per_image"] if r["image"] == "kodim01.png")
    data = codec.encode(picture)
    assert (len(data), codec.cuts(data)[0]) == (pytest.approx(row["bytes"], rel=0.002), pytest.approx(row["base_bytes"], rel=0.002))


@pytest.mark.long
def test_a_kept_number_of_rnn_is_measured_again():
    numbers, codec, picture = kept("rnn/rd_kodak")
    for row in [r for r in numbers["per_image"] if r["image"] == "kodim01.png" and r["layers"] in (1, 2)]:
        data = codec.encode(picture, layers=row["layers"])
        assert len(data) == pytest.approx(row["bytes"], rel=0.002) and psnr(picture, codec.decode(data)) == pytest.approx(row["psnr"], abs=0.02)
