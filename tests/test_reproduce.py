"""The registry of tables and figures: entries that hold together, parameters that exist, runs that report."""
import json
from pathlib import Path

import nbformat
import pytest

from stanhlic.container import VERSIONS
from stanhlic.errors import StanhlicError
from stanhlic.lab.reproduce import ORIGINS, PROFILES, check_parameters, list_items, outdated, overview, papers_folder, reproduce, run_item, shown, state_of, verdicts
from stanhlic.modelfile import inspect_weights

ITEMS = list_items()


RUNNABLE = [e for e in ITEMS if e["notebook"]]


@pytest.mark.parametrize("entry", ITEMS, ids=lambda e: e["id"])
def test_entry_holds_together(entry):
    assert entry["id"].startswith(entry["paper"] + "/") and set(entry["minutes"]) == set(entry["parameters"]) <= set(PROFILES)
    if entry["notebook"] is None: return
    assert entry["notebook"] == f"{entry['id']}.ipynb" and (papers_folder() / entry["notebook"]).is_file() and "smoke" in entry["parameters"]
    stem = "figures/training/throughput" if entry["id"] == "ours/throughput" else f"figures/{entry['id']}"  # beside the other figure of training
    assert entry["outputs"] and all(o.startswith(f"{stem}.") for o in entry["outputs"])
    assert any(o.endswith(".json") for o in entry["outputs"])


def test_ids_are_unique(): assert len({e["id"] for e in ITEMS}) == len(ITEMS)


def test_every_paper_notebook_is_registered():
    assert {str(p.relative_to(papers_folder())) for p in papers_folder().rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts} == {e["notebook"] for e in RUNNABLE}


@pytest.mark.parametrize("entry, profile", [(e, p) for e in RUNNABLE for p in e["parameters"]], ids=lambda v: v if isinstance(v, str) else v["id"])
def test_notebook_knows_the_parameters(entry, profile): check_parameters(entry, profile)


@pytest.mark.parametrize("entry", [e for e in RUNNABLE if e.get("checks")], ids=lambda e: e["id"])
def test_checks_find_their_numbers(entry):
    """Where an item was run at more than smoke size, each check finds a value of the right kind."""
    path = papers_folder().parent.parent / next(o for o in entry["outputs"] if o.endswith(".json"))
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")).get("kind") == "smoke": pytest.skip("was not run at compact or full size yet")
    rows = verdicts(entry, path.parents[2])
    assert [r["says"] for r in rows if r["verdict"] == "not measured"] == []
    assert all(type(r["holds"]) in (bool, type(None)) for r in rows)


def test_overview_has_rows_for_every_item_with_a_rule():
    rows = overview(papers_folder().parent.parent)
    assert {r["item"] for r in rows} == {e["id"] for e in ITEMS if e.get("checks") or not e["notebook"]} and len({tuple(r) for r in rows}) == 1


def test_every_verdict_says_what_its_number_is():
    """A drawn item is of no size, so each of its checks names its own; a number of another kind is never shown as measured."""
    rows = [v for e in ITEMS for v in verdicts(e, papers_folder().parent.parent) if v["ours"] is not None]
    assert rows and [(r["id"], r["says"]) for r in rows if r["kind"].removesuffix(", other weights") not in ORIGINS] == []
    assert [r["says"] for r in rows if r["says"].startswith("published points") and r["kind"] != "recomputed"] == []


def test_what_decides_is_shown():
    """A number that breaks its rule is not rounded onto the rule, and no claim is counted twice."""
    rows = [v for e in ITEMS for v in verdicts(e, papers_folder().parent.parent)]
    broken = [(shown(r["ours"], r["unit"], r["digits"]).lstrip("+").replace(".0 ", " "), r["rule"][2:]) for r in rows if r["verdict"] == "no"]
    assert [pair for pair in broken if pair[0] == pair[1]] == []
    measured = [r["ours"] for r in rows if isinstance(r["ours"], float) and r["kind"] in ("full", "compact") and r["ours"] != 0]
    assert len(measured) == len(set(measured))


def notebook(path, parameters, code):
    cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code)]
    cells[0].metadata.tags = ["parameters"]
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata.kernelspec = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nb, path)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Two items, one of which fails, in a folder where the user stands."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook(folder / "good.ipynb", "n: int = 1  # a number", "from pathlib import Path\nPath('n.txt').write_text(str(n))")
    notebook(folder / "bad.ipynb", "n: int = 1", "raise ValueError('first line\\nlast line')")
    common = dict(paper="toy", item="", title="", claim="", needs="nothing", minutes={}, status="drawn", outputs=[])
    items = [common | dict(id="toy/bad", notebook="bad.ipynb", parameters={"smoke": {}}),
             common | dict(id="toy/good", notebook="good.ipynb", parameters={"smoke": None, "compact": {"n": 7}})]
    (folder / "papers.yaml").write_text(json.dumps(items))
    return folder


def test_a_failure_does_not_stop_the_others(registry):
    rows = reproduce(folder=registry, progress=False)
    assert [r["outcome"] for r in rows] == ["failed", "done"] and rows[0]["detail"].startswith("toy/bad failed: ValueError: last line; see runs")
    assert Path("n.txt").read_text() == "1" and Path("runs/toy/good.smoke.ipynb").is_file() and Path("runs/toy/bad.smoke.ipynb").is_file()
    assert not nbformat.read(registry / "good.ipynb", 4).cells[1].outputs


def test_parameters_arrive(registry):
    run_item(list_items(registry)[1], "compact", registry, progress=False)
    assert Path("n.txt").read_text() == "7"


def test_unknown_parameters_are_refused_before_anything_runs(registry):
    entry = list_items(registry)[1] | {"parameters": {"smoke": {"n": 2, "m": 3}}}
    with pytest.raises(StanhlicError, match="knows no parameter m; it has n"): run_item(entry, "smoke", registry, progress=False)
    assert not Path("runs").exists() and not Path("n.txt").exists()


def test_without_the_profile_an_item_is_left_out_and_if_named_refused(registry):
    assert [r["outcome"] for r in reproduce(profile="compact", folder=registry, progress=False)] == ["left out", "done"]
    assert reproduce("toy/bad", "compact", registry, progress=False)[0]["outcome"] == "failed"


@pytest.fixture
def kept(registry):
    """`registry` with one item that leaves numbers, reads `input.txt` and takes a model."""
    def write(model="none", code=1, **parameters):
        notebook(registry / "kept.ipynb", "n: int = 1\nmodel: str = 'none'", f"import json, pathlib\npathlib.Path('figures').mkdir(exist_ok=True)\npathlib.Path('figures/kept.json').write_text(json.dumps(dict(kind='compact', n=n + {code})))")
        entry = dict(id="toy/kept", paper="toy", item="", title="", notebook="kept.ipynb", claim="", needs="nothing", minutes={}, status="compact", inputs=["input.txt"],
                     outputs=["figures/kept.json"], parameters={"smoke": {}, "compact": {"model": model, **parameters}}, checks=[dict(says="n", published=3.0, ours="n", at_least=3)])
        (registry / "papers.yaml").write_text(json.dumps([entry]))
        return entry
    return write


def outcome(registry, **kw): return reproduce("toy/kept", "compact", registry, progress=False, **kw)[0]["outcome"]


def test_up_to_date_until_something_changes(registry, kept, models):
    kept("tiny"); assert [outcome(registry), outcome(registry)] == ["done", "up to date"]
    assert json.loads(Path("figures/kept.json").read_text())["made_by"]["profile"] == "compact"
    assert outcome(registry, force=True) == "done"
    kept("tiny", n=2); assert [outcome(registry), outcome(registry)] == ["done", "up to date"]
    kept("tiny", n=2, code=5); assert [outcome(registry), outcome(registry)] == ["done", "up to date"]
    Path("input.txt").write_text("new"); assert [outcome(registry), outcome(registry)] == ["done", "up to date"]
    kept("other", n=2, code=5); assert [outcome(registry), outcome(registry)] == ["done", "up to date"]
    Path("figures/kept.json").unlink(); assert outcome(registry) == "done"


def test_what_changed_is_named_and_may_be_declared_to_move_no_number(registry, kept, models, monkeypatch):
    entry = kept("tiny")
    outcome(registry)
    monkeypatch.setattr("stanhlic.lab.reproduce.code_mark", lambda *a: "other code")
    monkeypatch.setattr("stanhlic.lab.reproduce.data_mark", lambda *a: "other photographs")
    assert outdated(entry, "compact", registry) == ["code"]  # this notebook reads no photographs
    made = json.loads(Path("figures/kept.json").read_text())["made_by"]
    assert outcome(registry, touch=True) == "touched" and outdated(entry, "compact", registry) == []
    now = json.loads(Path("figures/kept.json").read_text())
    assert now["made_by"]["measured"] == made and now["made_by"]["code"] == "other code" and now["n"] == 2
    assert outcome(registry, force=True) == "done" and "measured" not in json.loads(Path("figures/kept.json").read_text())["made_by"]


def test_nothing_to_declare_is_a_failure(registry, kept, models):
    kept("tiny")
    row, = reproduce("toy/kept", "compact", registry, progress=False, touch=True)
    assert row["outcome"] == "failed" and "run it without --touch" in row["detail"] and not Path("figures").exists()


def test_items_depend_on_their_own_room_and_on_their_photographs():
    states = {e["id"]: state_of(e, "compact") for e in RUNNABLE if "compact" in e["parameters"]}
    assert states["stanh/anchors"]["data"] != states["stanh/rd_kodak"]["data"] != states["stanh/derivations"]["data"]
    assert states["stanh/rd_kodak"]["code"] != states["progressive/rd_kodak"]["code"]


def test_missing_weights_and_missing_notebooks_are_needs_not_failures(registry, kept):
    entry = kept("no-such-model")
    row, = reproduce("toy/kept", "compact", registry, progress=False)
    assert row["outcome"] == "needs" and "no-such-model" in row["detail"]
    (registry / "papers.yaml").write_text(json.dumps([entry | dict(notebook=None, status="needs", needs="a week", parameters={}, outputs=[])]))
    assert [(r["outcome"], r["detail"]) for r in reproduce(folder=registry, progress=False)] == [("needs", "a week")]


def test_a_smoke_run_decides_nothing(registry, kept):
    entry = kept()
    Path("figures").mkdir()
    for kind, holds in (("smoke", None), ("compact", True)):
        Path("figures/kept.json").write_text(json.dumps(dict(kind=kind, n=4)))
        assert [r["holds"] for r in verdicts(entry)] == [holds]
    assert verdicts(entry)[0]["difference"] == 1.0 and overview(".", registry)[0]["held here"] == "**yes**, compact"


@pytest.mark.parametrize("lead, holds, verdict", [(0, True, "yes"), (-0.5, None, "not decided: references are under-trained"), (None, None, "not decided: not known whether references are under-trained")])
def test_a_verdict_may_rest_on_a_condition(registry, kept, lead, holds, verdict):
    entry = kept()
    entry["checks"][0]["valid"] = {"path": "lead", "at_least": 0, "why": "references are under-trained"}
    (registry / "papers.yaml").write_text(json.dumps([entry]))
    Path("figures").mkdir()
    Path("figures/kept.json").write_text(json.dumps(dict(kind="compact", n=4) | ({} if lead is None else {"lead": lead})))
    assert [(r["holds"], r["verdict"]) for r in verdicts(list_items(registry)[0])] == [(holds, verdict)]
    assert overview(".", registry)[0]["held here"] == ("**yes**, compact" if holds else verdict)


@pytest.mark.parametrize("change, word", [({"kind": "guessed"}, "kind 'guessed'"), ({"valid": {"path": "a"}}, "valid has path"), ({"size": "full"}, "a check has says"), ({"is": 3}, "one of at_most")])
def test_damaged_checks(registry, kept, change, word):
    entry = kept()
    (registry / "papers.yaml").write_text(json.dumps([entry | {"checks": [entry["checks"][0] | change]}]))
    with pytest.raises(StanhlicError, match=word): list_items(registry)


@pytest.mark.parametrize("text, word", [("- id: [", "not YAML"), ("a: 1", "not a list"), ("- id: x", "lacks"), ("- 3", "no mapping")])
def test_damaged_registry(tmp_path, text, word):
    (tmp_path / "papers.yaml").write_text(text)
    with pytest.raises(StanhlicError, match=word): list_items(tmp_path)


def test_changelog_names_what_ships():
    """The fingerprints of all shipped weights, so that old files find theirs later, and the present formats."""
    root = papers_folder().parent.parent
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    models = [inspect_weights(p) for p in sorted((root / "stanhlic/weights").glob("*.safetensors"))]
    assert models and [m["name"] for m in models if f"| `{m['name']}`, present | `{m['fingerprint']}` |" not in text] == []
    assert [kind for kind, version in VERSIONS.items() if f"| {kind} | {version} |" not in text] == []
