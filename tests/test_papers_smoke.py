"""The notebooks behind figures and training stages run at their smallest, and leave what they promise.

test_reproduce.py and test_readme.py run some through papermill. They write into a temporary folder only. The papers' notebooks use the shipped model, or a tiny random one where none is shipped."""
import functools
import json
from pathlib import Path

import pytest

from stanhlic import DEFAULT_MODEL
from stanhlic.lab.reproduce import BESIDE, list_items
from stanhlic.modelfile import inspect_weights, load_weights
from stanhlic.zoo import list_models
from warm import run_item

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parent.parent
PAPERS, TRAIN = ROOT / "nbs" / "papers" / "stanh", ROOT / "nbs" / "train"
PNG = b"\x89PNG"


@pytest.fixture
def run(models, tmp_path):
    """`run(notebook, **parameters)` executes it in a temporary folder."""
    def execute(notebook, **parameters): run_item(notebook, tmp_path, **parameters)
    return execute


@pytest.fixture
def tiny(models): return str(models / "tiny.safetensors")


def numbers(folder, name):
    """The JSON behind a figure, once both files are there."""
    assert (folder / f"{name}.png").read_bytes().startswith(PNG)
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.xdist_group("rd_kodak")
def test_rd_kodak(run, tmp_path, tiny):
    model = DEFAULT_MODEL if any(m["name"] == DEFAULT_MODEL for m in list_models()) else tiny
    run(PAPERS / "rd_kodak.ipynb", model=model, n_images=1, qualities=[0, 25, 100], classical=["jpeg"], similarity=False, device="cpu", out="figures")
    found = numbers(tmp_path / "figures", "rd_kodak")
    assert [r["quality"] for r in found["table"]] == [0, 25, 100] and found["kind"] == "smoke" and found["claims"] == []
    assert all(r[k] > 0 for r in found["table"] for k in ("bpp", "bpp_estimated", "psnr", "encode_s", "decode_s"))
    assert set(found["checks"]) == {"one_network_spans", "psnr_rises_with_quality", "interpolated_on_the_curve", "real_within_one_percent"}
    assert all(isinstance(c["holds"], bool) for c in found["checks"].values()) and "psnr" in found["bd_rate"]["jpeg"]
    published = {c["label"]: c for c in found["figure"]["psnr"]["curves"] if c["kind"] == "published"}
    assert published["STanH, A40"]["bpp"][0] == 0.2413 and all(c["source"] for c in published.values())


@pytest.mark.xdist_group("quantizer_curves")
def test_quantizer_curves(run, tmp_path, tiny):
    run(PAPERS / "quantizer_curves.ipynb", model=tiny, betas=[1, 20], out="figures")
    found = numbers(tmp_path / "figures", "quantizer_curves")
    assert max(found["function"]["beta"]["∞"]) == 2.0 and len(found["learned"]) == 3
    assert all(abs(r["share"] - 0.5) < 1e-4 for r in found["learned"])  # nobody trained these


@pytest.mark.slow
@pytest.mark.parametrize("model, kinds", [("tiny", ["anchor"]), ("stanh-compact", ["joint"])])
def test_derivations(run, tmp_path, tiny, model, kinds):
    run(PAPERS / "derivations.ipynb", model=tiny if model == "tiny" else model, lambdas=[0.0067, 0.013], cells=[1.0], device="cpu", out="figures")
    found = numbers(tmp_path / "figures", "derivations")
    curves = ["derivations", "references", "three", "manual", *(["joint"] if "joint" in kinds else [])]
    assert [r["curve"] for r in found["points"]] == [c for c in curves for _ in range(1 if c == "manual" else 2)] and found["claims"] == []
    assert [r["point"] for r in found["points"] if r["curve"] == "derivations"] == ["derivation, λ=0.0067", "anchor, λ=0.013"]
    recomputed = {n: round(r["published_cubic"]["value"], 1) for n, r in found["bd_rate"].items() if r["published_cubic"]["value"] is not None}
    assert recomputed["learned against manual steps"] == -4.6 and recomputed["derivations against fixed-rate references"] == 2.5 and recomputed["three anchors against fixed-rate references"] == 0.7
    kept = list((tmp_path / "runs" / "networks").rglob("model.safetensors"))
    assert {inspect_weights(f)["config"]["points"][0]["kind"] for f in kept if f.parent.name.startswith("network-")} == set(kinds)
    assert list(found["made_by"]["weights"]) == [model] and found["made_by"]["data"]["images"] == 1
    assert found["references_steps_ratio"]["references"] == pytest.approx(2 / 9, rel=1e-5)  # 2 steps against 1 of the anchor's network and 4 each of its levels and the derivation


@pytest.mark.slow
def test_forms(run, tmp_path, tiny):
    run(PAPERS / "forms.ipynb", model=tiny, variants=["all published"], steps=1, n_images=1, device="cpu", out="figures")
    found = numbers(tmp_path / "figures", "forms")
    assert [(r["form"], r["loss_over_corrected_percent"]) for r in found["forms"]] == [("all published", None)] and found["forms"][0]["loss"] > 0
    assert len(found["interpolation_of_z"]) == 2


FIGURES = ROOT / "figures"
SMALL = {  # item -> (parameters beside `out`, kind of its numbers)
    "stanh/anchors": (dict(ours=str(FIGURES / "stanh" / "derivations.json")), "drawn"),
    "stanh/architecture": (dict(model="tiny"), "drawn"),
    "stanh/schedules_of_the_release": (dict(model="tiny", schedules=["gap, random", "triangle"], steps=1, device="cpu"), "smoke"),
    "stanh/coding_time": (dict(bench=str(FIGURES / "bench" / "bench.json")), "random"),
    "stanh/data_sets": (dict(ours=str(FIGURES / "stanh" / "rd_kodak.json")), "drawn"),
    "stanh/interpolation": (dict(model="tiny", between=1, targets=[0.5], device="cpu"), "smoke"),
    "stanh/interpolation_trap": (dict(), "drawn"),
    "stanh/nearest_point": (dict(steps=1, device="cpu"), "smoke"),
    "stanh/other_sets": (dict(model="tiny", references=["tiny", "other"], device="cpu"), "smoke"),
    "stanh/storage": (dict(model="tiny"), "drawn"),
    "stanh/training_cost": (dict(model="tiny"), "smoke"),
    "stanh/variable_rate": (dict(ours="nowhere.json"), "drawn"),
    "progressive/a_file_a_rate": (dict(networks=str(FIGURES / "stanh" / "derivations.json"), cuts=2, device="cpu"), "smoke"),
    "ours/all_systems": (dict(models=["tiny"], qualities=[0, 100], device="cpu"), "smoke"),
    "ours/effort": (dict(models=["tiny"], piece=64), "smoke"),
    "ours/entropy_coders": (dict(count=256, repeats=1), "smoke"),
    "ours/throughput": (dict(systems=["rnn"], device="cpu"), "smoke"),
}


@pytest.fixture(scope="module")
def made(models, tmp_path_factory):
    """`made(item)` runs it once at its smallest and gives the numbers it left."""
    @functools.cache
    def make(item):
        folder, (parameters, _) = tmp_path_factory.mktemp("item"), SMALL[item]
        run_item(PAPERS.parent / f"{item}.ipynb", folder, **parameters, out="figures")
        return numbers(folder / "figures", item.split("/")[1])
    return make


TOGETHER = ("stanh/interpolation_trap", "stanh/architecture", "stanh/storage", "stanh/anchors", "stanh/variable_rate", "ours/all_systems")


def group(item): return pytest.mark.xdist_group("papers" if item in TOGETHER else item)


@pytest.mark.parametrize("item", [pytest.param(i, marks=group(i)) for i in SMALL])
def test_item(made, item):
    found = made(item)
    assert found["kind"] == SMALL[item][1] and isinstance(found["claims"], list)
    if found["kind"] == "smoke": assert found["claims"] == []
    assert all("what" in c and len(c) > 1 for c in found["claims"])
    made = found["made_by"]
    assert made["parameters"]["n_images" if "n_images" in made["parameters"] else next(iter(made["parameters"]))] is not None and len(made["notebook"]) == 16


ALONE = ("stanh/rd_kodak", "stanh/derivations", "stanh/forms", "stanh/quantizer_curves")  # tested one by one above
REST = [e["id"] for e in list_items() if e["notebook"] and e["id"] not in (*SMALL, *ALONE)]


TRAIN_THEIR_OWN = ("stanh/backbones", "stanh/hosts", "rnn/eight_layers")


@pytest.mark.parametrize("item", [pytest.param(i, marks=[group(i), *([pytest.mark.slow] if i in TRAIN_THEIR_OWN else [])]) for i in REST])
def test_other_items_run_as_they_are(models, tmp_path, item):
    run_item(PAPERS.parent / f"{item}.ipynb", tmp_path, device="cpu", out="figures")
    left, = tmp_path.rglob(item.split("/")[1] + ".json")  # under runs/ where random numbers stand in for missing weights
    found = numbers(left.parent, left.stem)
    assert found["kind"] in ("smoke", "drawn") and found["claims"] == []


@pytest.mark.parametrize("item, check", [pytest.param(e["id"], c, marks=group(e["id"])) for e in list_items() if e["id"] in SMALL for c in e.get("checks", [])], ids=lambda v: v if isinstance(v, str) else v["says"][:30])
def test_checks_point_at_numbers_that_the_item_leaves(made, item, check):
    found = made(item)
    beside = [str(check.get(b, ""))[1:] for b in BESIDE if str(check.get(b, "")).startswith("@")]
    for path in (check["ours"], *beside, *([check["spread"]] if "spread" in check else [])):
        at = found
        for key in path.split("/"): assert isinstance(at, (dict, list)); at = at[int(key)] if isinstance(at, list) else at[key]


@pytest.mark.xdist_group("papers")
def test_published_numbers_speak_for_themselves(made):
    """What the items find in published numbers alone is what was found before."""
    assert made("stanh/interpolation_trap")["lowest_r2"] > 0.9996 > 0.6 > made("stanh/interpolation_trap")["lowest_r2_nominal"]
    assert made("stanh/architecture")["every_block_as_published"] and made("stanh/storage")["anchor_with_point"] == 75_235_523
    assert [round(made("stanh/anchors")["published"][m], 1) for m in ("stanh-6a", "stanh-3a", "stanh-85")] == [0.4, 0.7, 2.5]
    assert round(made("stanh/variable_rate")["a40_against"]["gain-units"], 1) == -2.2 and made("stanh/variable_rate")["ours"].startswith("missing")
    assert made("ours/all_systems")["missing"] == ["rnn", "progressive"]


@pytest.mark.parametrize("stage", [pytest.param(s, marks=pytest.mark.xdist_group(f"stage {s}")) for s in ("base", "anchor", "derivation")])
def test_training_stage(run, tmp_path, tiny, monkeypatch, stage):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures belong into the executed notebook
    given = {"init": tiny} if stage == "derivation" else {}
    run(TRAIN / f"stanh_{stage}.ipynb", out="out", device="cpu", **given)
    header = inspect_weights(tmp_path / "out" / "model.safetensors")
    assert header["provenance"]["stages"][-1]["stage"] == stage
    done = json.loads((tmp_path / "run.ipynb").read_text(encoding="utf-8"))
    assert any("image/png" in o.get("data", {}) for c in done["cells"] if c["cell_type"] == "code" for o in c["outputs"])


@pytest.mark.slow
def test_own_photographs(run, tmp_path, tiny):
    run(TRAIN / "own_photographs.ipynb", init=tiny, lambdas=[0.009], darkest=5, every=3, device="cpu", out="out", figures="figures")
    found = numbers(tmp_path / "figures", "own_photographs")
    assert (found["kind"], found["set_aside"], [r["trained on"] for r in found["table"]]) == ("smoke", 2, ["yours", "control", "kind"])
    assert all(r["bpp"] > 0 and len(e["excess (%)"]) == 2 for r, e in zip(found["table"], found["each_picture"])) and len(found["each_picture"]) == 2
    before, after = (load_weights(p).tensors for p in (tiny, tmp_path / "out" / "own-photographs" / "model.safetensors"))
    assert all(after[n].equal(t) for n, t in before.items() if n.startswith("anchors."))
    assert sum(t.numel() for t in after.values()) - sum(t.numel() for t in before.values()) == found["numbers_moved"]
