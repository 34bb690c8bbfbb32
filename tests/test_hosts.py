"""What the items on STanH in further networks share: equal steps on both sides, and what makes a comparison fair."""
from types import SimpleNamespace

import pytest

from stanhlic.lab import hosts
from stanhlic.lab.reproduce import check_parameters, defaults, find_item


def trainings(tmp_path, **given):
    settings = dict(lmbda=0.013, lambdas=[0.03, 0.006], steps=[1.0], profile="smoke", base=[], tune=[], quantizers=[], data="", device="cpu") | given
    return hosts.Trainings(tmp_path, **settings)


def test_the_anchors_network_has_what_is_left(tmp_path):
    assert trainings(tmp_path).anchor_steps == 0 and trainings(tmp_path).rates == [0.006, 0.013, 0.03]
    assert trainings(tmp_path, tune=["lr=0.1", "steps=20"]).anchor_steps == 20 - 4
    assert trainings(tmp_path, tune=["steps=20"], quantizers=["steps=7"]).plan()["anchor_steps"] == 13
    assert trainings(tmp_path, profile="compact", tune=["steps=400"]).anchor_steps == 0  # as many as a derivation has


@pytest.mark.parametrize("item", ["stanh/hosts", "stanh/backbones"])
@pytest.mark.parametrize("profile", ["compact", "paper"])
def test_the_registry_gives_both_sides_equal_steps(tmp_path, item, profile):
    entry = find_item(item)
    given = {n: v for n, (_, v) in defaults(entry).items()} | check_parameters(entry, profile)
    work = trainings(tmp_path, **{k: given[k] for k in ("lmbda", "lambdas", "steps", "profile", "base", "tune", "quantizers")})
    assert work.anchor_steps + work._steps("derivation", work.quantizers) == work._steps("base", work.tune)  # and both sides learn levels after that
    assert len(work.rates) >= 4 <= len(work.steps)  # what a BD-rate takes


def test_a_chain_of_trainings(tmp_path, monkeypatch):
    """Which stage starts from which file, with which settings; nothing that is there is trained again."""
    done, work = [], trainings(tmp_path, tune=["steps=20"])
    def run(stage, profile, data, out, init, resume, device, settings):
        done.append((stage, out.name, init.parent.name, settings))
        out.mkdir(parents=True, exist_ok=True); (out / "model.safetensors").touch()
    monkeypatch.setattr(hosts, "run", run)
    monkeypatch.setattr(hosts, "join_anchors", lambda files: ([f.parent.name for f in files], []))
    monkeypatch.setattr(hosts.Trainings, "_by_hand", lambda self, anchor: anchor.parent.name)
    monkeypatch.setattr(hosts.Trainings, "untrained", lambda self, config: tmp_path / "fresh" / "untrained.safetensors")
    monkeypatch.setattr(hosts.Trainings, "_save", lambda self, path, model, stages=(): (path.name, model))
    files, single = work.train({"architecture": "A"})
    assert done == [("base", "base-0.013", "fresh", ["lmbda=0.013"]), *(("base", f"network-{l}", "base-0.013", [f"lmbda={l}", "steps=20"]) for l in (0.006, 0.013, 0.03)),
                    *(("anchor", f"levels-{l}", f"network-{l}", [f"lmbda={l}"]) for l in (0.006, 0.013, 0.03)),
                    ("base", "root-0.013", "base-0.013", ["lmbda=0.013", "steps=20", "steps=16"]), ("anchor", "anchor-0.013", "root-0.013", ["lmbda=0.013"]), ("derivation", "derivations", "anchor-0.013", ["lmbdas=[0.03, 0.006]"])]
    assert files["fixed"] == ("fixed.safetensors", ["levels-0.006", "levels-0.013", "levels-0.03"]) and files["manual"] == ("manual.safetensors", "anchor-0.013") and len(single) == 3
    work.train({"architecture": "A"})
    assert len(done) == 10


def test_leads_and_what_the_registry_reads():
    curve = lambda bpp, psnr: SimpleNamespace(bpp=bpp, psnr=psnr)
    curves = {"A": {"fixed": curve([0.2, 0.5], [28.0, 32.0]), "learned": curve([0.25, 0.6], [28.0, 32.0])}}
    rows = hosts.leads(curves, [0.005, 0.02])
    assert all(r["lead (%)"] > 0 for r in rows) and rows[0]["trained for it"] == pytest.approx(0.005 * 255 ** 2 * 10 ** -2.8 + 0.2)
    found = hosts.fairness(rows, 0.02, 1.5)
    assert found["references_worst_lead_percent"] == min(found["references_lead_percent"]["A"].values()) and found["references_steps_ratio"] == 1.5
    assert found["lead_at_first_lambda_percent"] == {"A": rows[1]["lead (%)"]}


def test_steps_of_all_stages_count(monkeypatch):
    steps = {"learned": [100, 30, 20], "a": [100, 50], "b": [100, 60]}
    monkeypatch.setattr(hosts, "inspect_weights", lambda path: {"provenance": {"stages": [{"plan": {"steps": n}} for n in steps[path]]}})
    assert hosts.steps_ratio({"A": {"learned": "learned"}}, {"A": ["a", "b"]}) == 1.0
