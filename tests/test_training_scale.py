"""Training beyond one process and one sitting: two processes, passes that share a step, kills, damage, full size.

Run as a script it trains each system for three steps. `torchrun` starts two of it, since `accelerate launch --cpu` can start several only through MPI;
Accelerate finds its place in what torchrun sets, as it does in what its own launcher sets on GPUs."""
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import stanhlic.training as engine
from stanhlic.backbone import add_noise
from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.images import write_image
from stanhlic.progressive import model as progressive_model
from stanhlic.progressive import training as progressive
from stanhlic.rnn import model as rnn_model
from stanhlic.rnn import training as rnn
from stanhlic.stanh import training as stanh
from stanhlic.training import ImagePool, Plan, Trainer, descend, fit, load_checkpoint, read_log
from stanhlic.modelfile import load_weights

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_curve")]
torch.set_num_threads(1)
ROOMS = {"stanh": stanh, "rnn": rnn, "progressive": progressive}
STAGES = {"stanh base": [], "stanh anchor": ["schedule=gap_stochastic", "beta=10.0", "factor=15.0"], "rnn train": [], "progressive first": [], "progressive decoder": [], "progressive rem": []}
CLOSE = 1e-3  # Adam's first steps are little but the sign of the gradient, so a last digit that rounds otherwise moves a loss by a few 1e-4
SHORT = ["warmup=1", "log_every=1", "precision=no", "lr=1e-4"]


def few(name): return "val_batch=1" if name.startswith("progressive") else "validation=1"


def train(name, data, out, *changes, **options):
    room, stage = name.split()
    return ROOMS[room].run(stage, data=str(data), out=out / name, device="cpu", set=[*SHORT, *STAGES[name], few(name), *changes], **options)


def losses(out, name): return [line["loss"] for line in read_log(next((out / name).rglob("log.jsonl")))]


def three_steps(data, out, batch, accumulate):
    for name in ("stanh anchor", "rnn train", "progressive decoder"): train(name, data, out, "steps=3", f"batch={batch}", f"accumulate={accumulate}")


def without_noise(data, out, batch):
    """The same with values in place of their noisy selves, so that crops are all that is random."""
    plain = lambda v, training: v if training else add_noise(v, training)
    modules = (sys.modules["stanhlic.backbone"], rnn_model, progressive_model)
    for module in modules: module.add_noise = plain
    for name in ("stanh base", "rnn train", "progressive first"): train(name, data, out, "steps=3", f"batch={batch}")
    for module in modules: module.add_noise = add_noise


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(3): write_image(folder / f"{i}.png", np.roll(sample_photograph(128), 20 * i, 1))
    return folder


# %% two processes

@pytest.fixture(scope="module")
def launched(data, tmp_path_factory):
    """Folder of what two processes on this CPU have trained."""
    out = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__, str(data), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(data, launched, tmp_path):
    without_noise(data, tmp_path, batch=2)
    for folder in tmp_path.iterdir(): assert losses(launched / "plain", folder.name) == pytest.approx(losses(tmp_path, folder.name), rel=CLOSE), folder.name
    assert json.loads((launched / "plain" / "rnn train" / "plan.json").read_text())["processes"] == 2


def test_two_processes_equal_two_passes_noise_included(data, launched, tmp_path):
    three_steps(data, tmp_path, batch=1, accumulate=2)
    for folder in tmp_path.iterdir(): assert losses(launched / "noisy", folder.name) == pytest.approx(losses(tmp_path, folder.name), rel=CLOSE), folder.name


# %% kills

@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("killed_at", [pytest.param(3, marks=pytest.mark.slow), 4])
def test_a_killed_run_goes_on_to_the_same_numbers(data, tmp_path, monkeypatch, name, killed_at):
    changes = ("steps=5", "batch=1", "validate_every=2", "ema=0.9")
    whole = train(name, data, tmp_path / "whole", *changes)
    def dies(t, *rest):
        if t.step == killed_at: raise KeyboardInterrupt
        return descend(t, *rest)
    with monkeypatch.context() as m:
        m.setattr(engine, "descend", dies)
        with pytest.raises(KeyboardInterrupt): train(name, data, tmp_path / "cut", *changes)
    resumed = train(name, data, tmp_path / "cut", *changes, resume=True)
    old, new = load_weights(whole).tensors, load_weights(resumed).tensors
    assert all(torch.equal(old[k], new[k]) for k in old)
    assert losses(tmp_path / "whole", name) == losses(tmp_path / "cut", name) and len(losses(tmp_path / "cut", name)) == 5


# %% more photographs than memory

@pytest.mark.parametrize("name", ["stanh base", "rnn train", "progressive first"])
def test_photographs_read_as_they_are_drawn_train_to_the_same_numbers(data, tmp_path, monkeypatch, name):
    changes = ("steps=3", "batch=2", "accumulate=2")
    held = train(name, data, tmp_path / "held", *changes)
    monkeypatch.setattr(engine, "free_memory", lambda device="cpu": 1000)
    read = train(name, data, tmp_path / "read", *changes)
    old, new = load_weights(held), load_weights(read)
    assert losses(tmp_path / "held", name) == losses(tmp_path / "read", name) and all(torch.equal(old.tensors[k], new.tensors[k]) for k in old.tensors)
    assert "read as they are drawn" in next((tmp_path / "read").rglob("plan.json")).read_text()


# %% a small network of its own, for what does not depend on the system

def net(): torch.manual_seed(0); return torch.nn.Conv2d(3, 3, 3, padding=1)
def loss(model, x): mse = ((model(x) - x) ** 2).mean(); return mse, {"loss": mse}
def pool(): return ImagePool([sample_photograph(64)], 32)


PLAN = Plan(steps=6, batch=2, crop=32, warmup=1, log_every=1, validate_every=2, precision="no", keep=2)


def go(out, loss=loss, plan=PLAN, **options): return fit(net(), loss, pool(), plan, out, lambda m: {"loss": loss(m, pool().batch(1))[0]}, **options)


def test_a_folder_says_all(tmp_path, monkeypatch):
    monkeypatch.undo()  # with its curve
    go(tmp_path, facts={"settings": {"color": "red"}, "device": "cpu"})
    assert {p.name for p in tmp_path.iterdir()} == {"plan.json", "log.jsonl", "curve.png", "best.pt", "last.pt", "step-00000004.pt", "step-00000006.pt"}
    record = json.loads((tmp_path / "plan.json").read_text())
    assert record["settings"] == {"color": "red"} and record["plan"]["seed"] == 0 and record["processes"] == 1
    assert {"commit", "torch", "python", "machine", "threads", "date", "device"} <= record.keys()
    assert load_checkpoint(tmp_path / "step-00000004.pt")["step"] == 4 and (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_goes_on_from_an_earlier_checkpoint_that_was_kept(tmp_path):
    whole = go(tmp_path).weight.detach().clone()
    (tmp_path / "step-00000004.pt").replace(tmp_path / "last.pt")
    assert torch.equal(go(tmp_path, resume=True).weight, whole) and [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_run_resumed_with_other_settings_goes_on_with_those_and_says_so(tmp_path):
    def said(): return json.loads((tmp_path / "plan.json").read_text())
    go(tmp_path)
    go(tmp_path, plan=Plan(**vars(PLAN) | {"steps": 8, "lr": 1e-4}), resume=True, facts={"settings": {"color": "red"}})
    assert (said()["plan"]["steps"], said()["plan"]["lr"], said()["settings"]) == (8, 1e-4, {"color": "red"})
    assert [line["lr"] for line in read_log(tmp_path / "log.jsonl")][-1] <= 1e-4
    go(tmp_path, plan=Plan(**vars(PLAN) | {"lr": 1.0}), resume=True)  # nothing is left to do with these
    assert said()["plan"]["lr"] == 1e-4


def test_learning_rates_and_average_of_a_resumed_run_are_those_of_its_plan():
    def trainer(**changes):
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({"g_a": torch.nn.Linear(2, 2), "h_a": torch.nn.Linear(2, 2)})
        model.predictors, model.quantiles = ("h_a",), torch.nn.Parameter(torch.zeros(2))
        return Trainer(model, Plan(**changes))
    old, new = trainer(lr_predictors=0.2, lr_aux=1e-2, ema=0.0), trainer(lr_predictors=0.5, lr_aux=1e-3, ema=0.9)
    with torch.no_grad():
        for p in old.inner.parameters(): p.add_(1)
    new.restore(old.state())
    assert [g["share"] for g in new.optimizer.param_groups] == [1.0, 0.5] and new.aux.param_groups[0]["lr"] == 1e-3
    assert all(torch.equal(v, old.moving[k]) for k, v in new.mean.items())


def test_the_commit_of_another_repository_is_not_ours(tmp_path, monkeypatch):
    def git(*words): subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "env/stanhlic").mkdir(parents=True)
    (tmp_path / "own.py").write_text("1")
    installed = shutil.copy(engine.__file__, tmp_path / "env/stanhlic/training.py")
    git("init"); git("add", "own.py"); git("commit", "-m", "one")
    monkeypatch.setattr(engine, "__file__", str(installed))
    assert engine._commit() == "not in a repository"
    git("add", "."); git("commit", "-m", "two")
    assert len(engine._commit()) >= 7 and " " not in engine._commit()


def test_a_run_is_not_begun_over_another(tmp_path):
    go(tmp_path)
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(StanhlicError, match="holds a run"): go(tmp_path, plan=Plan(**vars(PLAN) | {"steps": 2}))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == kept


# %% settings

PROFILE = "smoke: {anchor: {steps: 4, lmbda: 0.013, lmbdas: [0.02], pairs: [[0.25, 1]], freeze: true, name: it}}"


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "profiles.yaml").write_text(PROFILE)
    return lambda *changes: engine.load_profile(tmp_path / "profiles.yaml", "smoke", "anchor", changes, {"store": "fp16"})


@pytest.mark.parametrize("change, value", [
    ("steps=1e4", 10000), ("steps=12", 12), ("lmbda=1e-2", 0.01), ("lr=1e-4", 1e-4), ("lmbdas=0.01", [0.01]), ("lmbdas=[1e-2, 0.1]", [0.01, 0.1]), ("lmbdas=[]", []),
    ("pairs=[[1e-1, 2]]", [[0.1, 2]]), ("freeze=false", False), ("name=2024", "2024"), ("name=1e4", "1e4"), ("store=", ""), ("precision=no", "no"), ("compile=true", True)])
def test_a_value_becomes_what_the_setting_holds(asked, change, value):
    found = asked(change)[change.partition("=")[0]]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("change, kind", [
    ("steps=many", "a whole number"), ("steps=2.5", "a whole number"), ("steps=true", "a whole number"), ("steps=", "a whole number"), ("steps=[4]", "a whole number"), ("steps", "a whole number"), ("seed=1e30", "a whole number"),
    ("lmbda=low", "a number"), ("lmbda=nan", "a number"), ("lmbda=[0.1", "a number"), ("lmbda={a: 1}", "a number"), ("lmbdas=[low]", "a list"), ("lmbdas=[[0.1]]", "a list"), ("lmbdas=", "a list"),
    ("pairs=0.1", "a list"), ("freeze=1", "true or false"), ("freeze=", "true or false"), ("name=[a]", "text")])
def test_a_value_of_another_kind_is_refused(asked, change, kind):
    name, _, given = change.partition("=")
    with pytest.raises(StanhlicError) as refused: asked(change)
    assert str(refused.value).startswith(f"{name} takes {kind}, not {given!r}; an example is {name}=") and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["steps", "batch", "accumulate", "validate_every", "log_every", "keep"])
def test_counts_of_a_plan_are_at_least_one(name):
    for value in (0, -1):
        with pytest.raises(StanhlicError, match=f"^{name}={value}; take at least 1"): engine.make_plan({name: value})


def test_crops_and_learning_rates_of_a_plan():
    for crop in (0, -64, 32, 100):
        with pytest.raises(StanhlicError, match=f"^crop={crop}; take a multiple of 64"): engine.make_plan({"crop": crop})
    with pytest.raises(StanhlicError, match="^lr=-1; take no less than 0"): engine.make_plan({"lr": -1.0})
    assert engine.make_plan({"crop": 192, "lr": "1e-4"}).lr == 1e-4


# %% what goes wrong

@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path, where):
    steps = iter(range(100))
    def broken(model, x):
        value, facts = loss(model, x)
        return value * float("nan" if where == "loss" else "inf") if model.training and next(steps) == 4 else value, facts
    with pytest.raises(StanhlicError, match="^the loss or its gradient is not a number at step 4; resume"): go(tmp_path, broken)
    kept = load_checkpoint(tmp_path / "last.pt")
    assert kept["step"] == 4 and all(torch.isfinite(v).all() for v in kept["model"].values())
    assert torch.equal(go(tmp_path, resume=True).weight, go(tmp_path / "whole").weight)


def test_it_is_found_before_a_later_checkpoint_is_written(tmp_path):
    steps = iter(range(100))
    def broken(model, x): value, facts = loss(model, x); return value * float("nan") if next(steps) == 2 else value, facts
    with pytest.raises(StanhlicError, match="at step 2"): fit(net(), broken, pool(), Plan(**vars(PLAN) | {"log_every": 100}), tmp_path)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 2


def test_a_validation_that_is_no_number(tmp_path):
    with pytest.raises(StanhlicError, match="validation's loss is not a number at step 2"): fit(net(), loss, pool(), PLAN, tmp_path, lambda m: {"loss": float("nan")})


@pytest.mark.parametrize("what", ["checkpoint", "log"])
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, what):
    full = OSError(28, "No space left on device")
    def save(state, path, *rest, real=torch.save):
        if state["step"] == 4: path.write(b"half of it"); raise full
        real(state, path, *rest)
    def openfile(path, mode="r", *rest, real=open, **options):
        if str(path).endswith("log.jsonl") and mode == "a" and len(read_log(Path(path))) == 3: raise full
        return real(path, mode, *rest, **options)
    with monkeypatch.context() as m:
        if what == "checkpoint": m.setattr(torch, "save", save)
        else: m.setattr("builtins.open", openfile)
        with pytest.raises(StanhlicError, match="No space left on device.*resume") as stopped: go(tmp_path)
    assert "\n" not in str(stopped.value) and load_checkpoint(tmp_path / "last.pt")["step"] == 2 and not [p for p in tmp_path.iterdir() if p.suffix == ".part"]
    assert torch.equal(go(tmp_path, resume=True).weight, go(tmp_path / "whole").weight)


def test_a_torn_checkpoint_falls_back_on_the_newest_whole_one(tmp_path, capsys):
    whole = go(tmp_path).weight.detach().clone()
    data = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(data[:len(data) // 2])  # and with it the newest of those that were kept, which is the same file
    assert torch.equal(go(tmp_path, resume=True).weight, whole)
    said = capsys.readouterr().err
    assert "last.pt: not a readable checkpoint" in said and "going on from step-00000004.pt, step 4" in said
    for p in tmp_path.glob("*.pt"): p.write_bytes(b"")
    with pytest.raises(StanhlicError, match="last.pt: not a readable checkpoint"): go(tmp_path, resume=True)


@pytest.mark.parametrize("finite", [True, False])
def test_sigterm_costs_no_steps(tmp_path, capsys, finite):
    calls, before = iter(range(100)), signal.getsignal(signal.SIGTERM)
    def told(model, x):
        value, facts = loss(model, x)
        if model.training and next(calls) == 2: os.kill(os.getpid(), signal.SIGTERM); value = value * (1 if finite else float("nan"))
        return value, facts
    with pytest.raises(SystemExit) as end: go(tmp_path, told, plan=Plan(**vars(PLAN) | {"log_every": 100}))
    assert end.value.code == 143 and signal.getsignal(signal.SIGTERM) is before and "stopped at step 3" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "last.pt")["step"] == (3 if finite else 2)
    assert torch.equal(go(tmp_path, resume=True).weight, go(tmp_path / "whole").weight)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    go(tmp_path)
    with pytest.raises(StanhlicError, match="another network or stage"): fit(torch.nn.Conv2d(3, 3, 5, padding=2), loss, pool(), PLAN, tmp_path, resume=True)


# %% speed and size

class Waits(TorchDispatchMode):
    """Counts the operations that make the host wait for a GPU."""
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.name().split("::")[1].split(".")[0] in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["stanh base", "rnn train", "progressive first"])
def test_a_step_never_waits_for_the_device(data, tmp_path, monkeypatch, name):
    counted = []
    def watched(t, *rest):
        with Waits() as waits: facts = descend(t, *rest)
        counted.append(waits.count)
        return facts
    monkeypatch.setattr(engine, "descend", watched)
    train(name, data, tmp_path, "steps=2", "batch=1")
    assert counted == [0, 0]


@pytest.fixture
def nothing_is_written(monkeypatch):
    """Full-size checkpoints take gigabytes."""
    monkeypatch.setattr(engine, "_save", lambda *rest: None)
    monkeypatch.setattr(engine, "save_checkpoint", lambda *rest: None)
    monkeypatch.setattr("stanhlic.zoo.save_weights", lambda *rest: None)
    for room in (stanh, rnn): monkeypatch.setattr(room, "save_weights", lambda *rest: None)
    monkeypatch.setattr(progressive, "initialize", lambda model, *rest: model)
    monkeypatch.setattr(progressive, "_history", lambda path: [])
    fresh = stanh._initial
    monkeypatch.setattr(stanh, "_initial", lambda stage, settings, init, train: fresh("anchor", {"size": "full", "lmbda": 0.013} | settings, None, train))


@pytest.mark.slow
@pytest.mark.parametrize("name, parameters", [("stanh base", 75.2e6), ("stanh anchor", 75.2e6), ("stanh derivation", 75.2e6), ("rnn train", 62.3e6), ("progressive first", 152e6), ("progressive decoder", 152e6), ("progressive rem", 152e6)])
def test_the_published_recipe_takes_a_step_at_full_size(data, tmp_path, monkeypatch, nothing_is_written, name, parameters):
    sizes = []
    def watched(t, *rest): sizes.append(sum(p.numel() for p in t.inner.parameters())); return descend(t, *rest)
    monkeypatch.setattr(engine, "descend", watched)
    room, stage = name.split()
    start = {"init": "an earlier stage"} if stage in ("derivation", "decoder", "rem") else {}
    one = ["lmbdas=[0.02]"] if stage == "derivation" else []
    ROOMS[room].run(stage, "paper", data=str(data), out=tmp_path, device="cpu", set=["steps=1", "batch=1", "crop=64", few(name), *one], **start)
    assert sizes[0] == pytest.approx(parameters, rel=0.05) and len(sizes) == 1
    assert np.isfinite([line["val_loss"] for line in read_log(next(tmp_path.rglob("log.jsonl")))]).all()


if __name__ == "__main__":
    data, out = map(Path, sys.argv[1:])
    three_steps(data, out / "noisy", batch=1, accumulate=1)
    without_noise(data, out / "plain", batch=1)


@pytest.mark.parametrize("room", [True, False], ids=["kept in memory", "read as they are drawn"])
def test_files_that_are_no_pictures_are_left_out_before_the_first_step(room, tmp_path, monkeypatch, capsys):
    from PIL import Image
    from stanhlic.training import training_arrays
    rng = np.random.default_rng(0)
    for i in range(30): Image.fromarray(rng.integers(0, 255, (70, 80, 3)).astype(np.uint8)).save(tmp_path / f"p{i:02}.jpg")
    whole = training_arrays(tmp_path)
    (tmp_path / "p07.jpg").write_bytes((tmp_path / "p07.jpg").read_bytes()[:3000])  # a header, and half of a picture
    (tmp_path / "p20.jpg").write_bytes(b"text")                                     # the second of those for validation
    (tmp_path / "p29.jpg").write_bytes(b"")
    if not room: monkeypatch.setattr("stanhlic.training.free_memory", lambda *a: 1000)
    train, valid, source = training_arrays(tmp_path)
    notes = capsys.readouterr().err
    assert (len(train), len(valid)) == (26, 1) and source.startswith("26 photographs, 3 left out") and [n for n in ("p07.jpg", "p20.jpg", "p29.jpg") if n not in notes] == []
    at = [i for i in range(30) if i % 20 and i not in (7, 29)]
    same = (lambda a, i: (a == whole[0][i]).all()) if room else (lambda p, i: p.name == f"p{at[i]:02}.jpg")
    assert all(same(p, [j for j in range(30) if j % 20].index(at[i]) if room else i) for i, p in enumerate(train))  # each where it was
    for i in range(0, 30, 20): (tmp_path / f"p{i:02}.jpg").write_bytes(b"text")
    with pytest.raises(Exception, match="none is left for validation"): training_arrays(tmp_path)
