"""Trained variants of the progressive codec: what is kept is not trained again, and one is held against another over seeds."""
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from stanhlic.datasets import has_dataset
from stanhlic.lab import items as items_module, stages
from stanhlic.lab.curves import Curve, excess
from stanhlic.lab.items import Run
from stanhlic.lab.plots import plot_excess
from stanhlic.modelfile import save_weights

RATES, QUALITIES = [0.2, 0.3, 0.45, 0.7, 1.0], [28.0, 30.0, 32.0, 34.0, 36.0]


def curve(factor, quality=QUALITIES): return Curve("stanh", "compact", [factor * r for r in RATES], quality, None, f"{factor:g}")


def test_excess_is_the_difference_in_rate_at_equal_quality():
    at, percent = excess(curve(1.2), curve(1.0))
    assert (at[0], at[-1], len(at)) == (28, 36, 60) and np.allclose(percent, 20)
    assert [len(v) for v in excess(curve(1.0, [q + 20 for q in QUALITIES]), curve(1.0))] == [0, 0]


def test_seeds_have_a_mean_and_each_its_own():
    found = stages.over_seeds([curve(1.1), curve(1.3)], [curve(1.0), curve(1.0)])
    assert found["value"] == pytest.approx(20) and found["runs"] == pytest.approx([10, 30]) and (found["low"], found["high"]) == (28, 36)
    apart = stages.over_seeds([curve(1.1), curve(1.0, [q + 20 for q in QUALITIES])], [curve(1.0), curve(1.0)])
    assert apart["value"] is None and apart["runs"] == pytest.approx([10]) and apart["why"]


def test_excess_is_drawn_for_each_pair():
    ax = plt.subplots()[1]
    plot_excess([("one", curve(1.1), curve(1.0)), ("two", curve(1.2), curve(1.0))], ax, "title")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["one", "two"]
    plt.close("all")


@pytest.mark.parametrize("there", [True, False], ids=["photographs", "none"])
def test_a_stage_is_trained_once(tmp_path, monkeypatch, there):
    """Another stage, start or setting is another training; another item is not. Without the photographs a smoke run takes the sample photograph."""
    if not there: monkeypatch.setattr(items_module, "has_dataset", lambda name: False)
    elif not has_dataset("train"): pytest.skip("needs the data set train")
    asked = []

    def run(stage, profile, data, folder, start, resume, device, settings):
        asked.append((stage, start, settings))
        save_weights(folder / "model.safetensors", {"x": torch.full((1,), float(len(asked)))}, {"system": "progressive", "name": "x", "config": {}, "provenance": {"stages": [
            {"system": "stanh", "plan": {"steps": 9}}, {"system": "progressive", "plan": {"steps": 4}}]}})
    monkeypatch.setattr(stages, "run", run)
    items = [Run({"id": n}, dict(store=tmp_path, profile="smoke", data="", device="cpu", model="m", steps=3, first=["batch=1"])) for n in ("a", "b")]
    first = stages.first_stage(items[0], 0)
    assert stages.first_stage(items[1], 0) == first and asked == [("first", None, ["steps=3", "batch=1", "seed=0"])] and stages.steps_of(first) == 4
    assert len({first, stages.first_stage(items[0], 1), stages.first_stage(items[0], 0, ["hypers=1"]), stages.trained(items[0], "decoder", [], first)}) == 4 == len(asked)
