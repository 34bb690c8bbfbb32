"""The registry of tables and figures: entries that hold together, parameters that exist, runs that report."""
import json
from pathlib import Path

import nbformat
import pytest

from stanhlic.container import VERSIONS
from stanhlic.errors import StanhlicError
from stanhlic.lab.reproduce import (ARITHMETIC, PROFILES, SIZES, as_text, check_parameters, defaults, find_item, headline_tally, headline_verdicts, headlines, kept_numbers, list_items, other_weights, outdated, overview, papers_folder,
                                     read_setting, reproduce, run_item, tally, verdicts)
from stanhlic.lab.tables import shown
from stanhlic.modelfile import inspect_weights

pytestmark = pytest.mark.long
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


def test_the_lab_imports_in_one_direction():
    """tables, curves, plots; reproduce, items: none reaches back, and none knows the command line."""
    import re
    import stanhlic.lab as lab
    order = ("tables", "classical", "curves", "plots", "reproduce", "items")
    taken = {p.stem: set(re.findall(r"^\s*(?:with .*: )?from (?:\.|stanhlic\.lab\.)(\w+) import", p.read_text(encoding="utf-8"), re.M)) for p in Path(lab.__file__).parent.glob("*.py")}
    assert [(m, n) for i, m in enumerate(order) for n in taken[m] & set(order[i:])] == []
    assert [p.name for p in Path(lab.__file__).parent.glob("*.py") if re.search(r"^\s*(?:from (?:\.\.|stanhlic\.)cli import|from (?:\.\.|stanhlic) import cli)", p.read_text(encoding="utf-8"), re.M)] == []


def test_ids_are_unique(): assert len({e["id"] for e in ITEMS}) == len(ITEMS)


def test_every_paper_notebook_is_registered():
    assert {str(p.relative_to(papers_folder())) for p in papers_folder().rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts} == {e["notebook"] for e in RUNNABLE}


@pytest.mark.parametrize("entry, profile", [(e, p) for e in RUNNABLE for p in e["parameters"]], ids=lambda v: v if isinstance(v, str) else v["id"])
def test_notebook_knows_the_parameters(entry, profile): check_parameters(entry, profile)


ROOT = papers_folder().parent.parent


@pytest.mark.parametrize("entry", [e for e in RUNNABLE if e.get("checks")], ids=lambda e: e["id"])
def test_checks_find_their_numbers(entry):
    """Where an item was run at more than smoke size, each check finds a value of the right kind."""
    if not (numbers := kept_numbers(entry, ROOT)): pytest.skip("was not run at compact or full size yet")
    rows = verdicts(entry, numbers)
    assert [r["says"] for r in rows if r["verdict"] == "not measured"] == []
    assert [c["says"] for c, r in zip(entry["checks"], rows) if "needs" in c and r["ours"] is not None] == [], "what was measured needs nothing any more"
    assert all(type(r["holds"]) in (bool, type(None)) for r in rows)


@pytest.mark.parametrize("entry", [e for e in RUNNABLE if e["status"] != "needs"], ids=lambda e: e["id"])
def test_kept_numbers_say_what_made_them(entry, monkeypatch):
    """Weights by name, parameters, notebook, commit and kind; and nothing that this installation has moved on from, unless the list of items says so."""
    monkeypatch.chdir(ROOT)
    numbers = kept_numbers(entry, ROOT)
    made, known = numbers["made_by"], defaults(entry)
    assert numbers["kind"] in (*SIZES, "drawn") and made["commit"] and len(made["notebook"]) == 16
    assert set(made["parameters"]) == known.keys() - {"out", "device"}
    if "n_images" in made["parameters"]: assert made["data"]["images"] == made["parameters"]["n_images"] and made["data"]["set"].startswith("Kodak")
    assert all(len(bytes.fromhex(mark)) == 8 for mark in made["weights"].values())
    for p in entry.get("inputs", []):
        if p.startswith("figures/") and "bench" not in p and not outdated(entry, "compact", ROOT / "nbs/papers"):
            assert made["weights"].items() >= json.loads((ROOT / p).read_text(encoding="utf-8"))["made_by"]["weights"].items()


def test_overview_and_tally_count_every_claim_once():
    rows, counts = overview(ROOT), tally(ROOT)
    assert {r["item"] for r in rows} == {e["id"] for e in ITEMS if e.get("checks") or not e["notebook"]}
    assert {r["word"] for r in rows} <= {"yes", "no", "undecided", "needs", "arithmetic"}
    assert len(rows) == sum(c[w] for c in counts for w in ("yes", "no", "undecided", "needs")) + sum(int(c["arithmetic"].split()[-1]) for c in counts)
    assert [r["says"] for r in rows if (r["word"] == "arithmetic") != (r["kind"] in ARITHMETIC)] == []


def test_every_verdict_says_what_its_number_is():
    """A drawn item is of no size, so each of its checks names its own; a number of another kind is never shown as measured."""
    rows = [r for r in overview(ROOT) if r["ours"] is not None]
    assert rows and [(r["item"], r["says"]) for r in rows if r["kind"] not in (*SIZES, *ARITHMETIC)] == []
    assert [r["says"] for r in rows if r["says"].startswith("published points") and r["kind"] != "recomputed"] == []
    assert [r["says"] for r in rows if "full size" in r["says"] and "random" not in as_text(r)["ours is"] and r["kind"] not in ARITHMETIC] == []


def test_authors_numbers_are_the_authors():
    """What follows from a place in our own numbers is recomputed or counted, never published."""
    assert [c["says"] for e in ITEMS for c in e.get("checks", []) if isinstance(c.get("published"), str)] == []


def test_what_decides_is_shown():
    """A number that breaks its rule is not rounded onto the rule, and no claim is counted twice."""
    rows = [r for r in overview(ROOT) if r["ours"] is not None]
    broken = [(shown(r["ours"], r["unit"], r["digits"]).lstrip("+").replace(".0 ", " "), r["held if"][2:]) for r in rows if r["verdict"] == "no"]
    assert [pair for pair in broken if pair[0] == pair[1]] == []
    measured = [r["ours"] for r in rows if isinstance(r["ours"], float) and r["kind"] in ("full", "compact") and r["ours"] != 0]
    assert len(measured) == len(set(measured))


def test_every_timing_is_decided_by_its_spread():
    timed = [c for e in ITEMS for c in e.get("checks", []) if any(w in c["says"] for w in ("coder's share", "takes longer", "trains faster"))]
    assert len(timed) == 4 and all("spread" in c for c in timed)


def notebook(path, parameters, code, prose=""):
    cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code), nbformat.v4.new_markdown_cell(prose)]
    cells[0].metadata.tags = ["parameters"]
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata.kernelspec = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nb, path)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Two items, one of which fails, in the user's current folder."""
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
    assert [r["outcome"] for r in rows] == ["failed", "smoke"] and rows[0]["detail"].startswith("toy/bad failed: ValueError: last line; see runs")
    assert Path("n.txt").read_text() == "1" and Path("runs/toy/good.smoke.ipynb").is_file() and Path("runs/toy/bad.smoke.ipynb").is_file()
    assert not nbformat.read(registry / "good.ipynb", 4).cells[1].outputs


def test_parameters_arrive(registry):
    run_item(list_items(registry)[1], "compact", registry, progress=False)
    assert Path("n.txt").read_text() == "7"


def test_unknown_parameters_are_refused_before_anything_runs(registry):
    entry = list_items(registry)[1] | {"parameters": {"smoke": {"n": 2, "m": 3}}}
    with pytest.raises(StanhlicError, match="has no parameter m; it has n"): run_item(entry, "smoke", registry, progress=False)
    assert not Path("runs").exists() and not Path("n.txt").exists()


def test_without_the_profile_an_item_is_left_out_and_if_named_refused(registry):
    assert [r["outcome"] for r in reproduce(profile="compact", folder=registry, progress=False)] == ["left out", "done"]
    assert reproduce("toy/bad", "compact", registry, progress=False)[0]["outcome"] == "failed"


@pytest.fixture
def kept(registry, monkeypatch):
    """`registry` with one item that leaves numbers, reads `input.txt` and takes a model; Kodak counts as there."""
    monkeypatch.setattr("stanhlic.lab.reproduce.has_dataset", lambda name: True)
    def write(model="none", code=1, prose="", **parameters):
        notebook(registry / "kept.ipynb", "n: int = 1  # a number\nmodel: str = 'none'\nqualities: list = [0.0]\nn_images: int = 1\nout: str = 'figures'", f"""
import json, pathlib
from stanhlic.lab.reproduce import list_items, state_of
from stanhlic.zoo import list_models
from stanhlic.lab.plots import place_of
path = place_of(pathlib.Path(out, "kept"), "smoke" if n_images < 24 else "compact").with_suffix(".json")
path.parent.mkdir(parents=True, exist_ok=True)
made = state_of(list_items({str(registry)!r})[0], dict(n=n, model=model, qualities=qualities, n_images=n_images), {str(registry)!r})
made["weights"] = {{m["name"]: m["fingerprint"] for m in list_models() if m["name"] == model}}
path.write_text(json.dumps(dict(kind="smoke" if n_images < 24 else "compact", n=n + {code}, table=[dict(bpp=0.25)], made_by=made)))""", prose)
        entry = dict(id="toy/kept", paper="toy", item="", title="", notebook="kept.ipynb", claim="", needs="nothing", minutes={}, status="compact", inputs=["input.txt"],
                     outputs=["figures/kept.json"], parameters={"smoke": {}, "compact": {"n_images": 24, "model": model, **parameters}}, checks=[dict(says="n", recomputed=3.0, ours="n", at_least=3, rule="before")])
        (registry / "papers.yaml").write_text(json.dumps([entry]))
        return entry
    return write


def outcome(registry, **kw): return reproduce("toy/kept", "compact", registry, progress=False, **kw)[0]["outcome"]


def test_up_to_date_until_something_changes_and_what_changed_is_named(registry, kept, models):
    entry = kept("tiny")
    assert outdated(entry, "compact", registry) == ["no outputs"] and [outcome(registry), outcome(registry)] == ["done", "up to date"]
    row, = reproduce("toy/kept", "compact", registry, progress=False)
    assert row["detail"] == "nothing was run; --force runs it" and row["outputs"] == ["figures/kept.json"] and outcome(registry, force=True) == "done"
    assert outdated(kept("tiny", prose="Other words."), "compact", registry) == []
    assert outdated(kept("tiny", n=2), "compact", registry) == ["other parameters"] and [outcome(registry), outcome(registry)] == ["done", "up to date"]
    assert outdated(kept("tiny", n=2, code=5), "compact", registry) == ["other notebook"] and [outcome(registry), outcome(registry)] == ["done", "up to date"]
    Path("input.txt").write_text("new"); assert outdated(kept("tiny", n=2, code=5), "compact", registry) == ["other inputs"] and outcome(registry) == "done"
    numbers = json.loads(Path("figures/kept.json").read_text())
    numbers["made_by"]["weights"]["tiny"] = "0" * 16
    Path("figures/kept.json").write_text(json.dumps(numbers))
    assert other_weights(numbers) == ["tiny"] and outdated(kept("tiny", n=2, code=5), "compact", registry) == ["other weights"]
    assert [outcome(registry), outcome(registry)] == ["done", "up to date"]


def test_smoke_runs_and_changed_parameters_leave_the_kept_numbers_alone(registry, kept, models):
    kept("tiny", n=4)
    assert outcome(registry) == "done"
    before = Path("figures/kept.json").read_bytes()
    row, = reproduce("toy/kept", "smoke", registry, progress=False)
    assert (row["outcome"], row["outputs"]) == ("smoke", ["runs/figures/kept.json"]) and json.loads(Path("runs/figures/kept.json").read_text())["n"] == 2
    row, = reproduce("toy/kept", "compact", registry, progress=False, settings=["n=6"])
    assert (row["outcome"], row["outputs"]) == ("done", ["runs/figures/kept.json"]) and json.loads(Path("runs/figures/kept.json").read_text())["n"] == 7
    row, = reproduce("toy/kept", "smoke", registry, progress=False, settings=["out=figures"])  # asked to write there, it still does not
    assert row["outputs"] == ["runs/figures/kept.json"] and Path("figures/kept.json").read_bytes() == before


@pytest.mark.parametrize("setting, value", [("n=3", 3), ("model=a=b", "a=b"), ("qualities=0,100", [0, 100]), ("qualities=[7.5, 25]", [7.5, 25]), ("qualities=", []), ("n_images=4", 4)])
def test_settings_are_read_by_their_type(registry, kept, setting, value):
    assert read_setting(setting, defaults(kept(), registry))[1] == value


@pytest.mark.parametrize("setting, word", [("m=3", "unknown parameter m; choose from n, model"), ("n_images=abc", "n_images is 'abc'; it takes a whole number"), ("n_images=1.5", "a whole number"), ("n_images=true", "a whole number"),
                                           ("n_images=0", "n_images is 0; it takes a whole number from 1 on"), ("n_images=-1", "n_images is -1"), ("qualities=[0", "values with commas"), ("qualities=0,abc", "qualities is '0,abc'; it takes values with commas between them, such as 0.0"),
                                           ("n", "NAME=VALUE")])
def test_settings_that_do_not_fit_are_refused_before_anything_runs(registry, kept, setting, word):
    kept()
    with pytest.raises(StanhlicError, match=word): reproduce("toy/kept", "smoke", registry, progress=False, settings=[setting])
    assert not Path("runs").exists()


def test_settings_belong_to_one_item(registry):
    with pytest.raises(StanhlicError, match="name it"): reproduce(folder=registry, settings=["n=1"])


def test_command_line_prints_what_a_smoke_run_measured_and_where_it_went(cli, models, tmp_path):
    done = cli("reproduce", "stanh/interpolation", "--set", "model=tiny", cwd=tmp_path)
    files = "runs/figures/stanh/interpolation.png runs/figures/stanh/interpolation.json"
    assert done.returncode == 0 and "smoke run: it shows that the code runs" in done.stdout and files in done.stdout, done.stderr
    assert all((tmp_path / f).is_file() for f in files.split()) and not (tmp_path / "figures").exists()
    measured = json.loads((tmp_path / files.split()[1]).read_text(encoding="utf-8"))
    line = next(x for x in done.stdout.splitlines() if x.startswith("farthest below the curve"))
    assert shown(measured["checks"]["farthest_below_db"], "dB") in line and "smoke" in line and line.endswith("a smoke run decides nothing")


def test_command_line_ends_its_list_with_the_tally(cli):
    lines = cli("reproduce", "--list").stdout.splitlines()
    assert lines[-11].split() == ["paper", "yes", "no", "undecided", "needs", "arithmetic", "rule", "after"] and [line.split()[0] for line in lines[-10:-6]] == ["stanh", "progressive", "rnn", "ours"]
    assert lines[-4].split() == ["paper", "headline", "claims", "held", "did", "not", "undecided", "needs", "missing"] and [line.split()[-1] for line in lines[-3:]] == ["0", "0", "0"]


def test_no_headline_claim_is_missing():
    """Each claim that a paper is known by has a rule, counted once, and each rule names a claim that there is."""
    rows, known = headline_verdicts(ROOT), {(p, letter) for p, claims in headlines().items() for letter in claims}
    assert {p: list(claims) for p, claims in headlines().items()} == {"stanh": list("abcdefgh"), "progressive": list("abcdefgh"), "rnn": list("abcde")}
    assert {(e["paper"], c["headline"]) for e in ITEMS for c in e.get("checks", []) if "headline" in c} == known == {(r["paper"], r["letter"]) for r in rows}
    assert [sum(v for k, v in t.items() if k not in ("paper", "headline claims")) - t["headline claims"] for t in headline_tally(ROOT)] == [0, 0, 0]
    assert [r for t in headline_tally(ROOT) for r in [t["missing"]] if r] == []


def test_what_is_not_measured_was_ruled_before_and_compares_fairly():
    """A rule without its number is older than it; one against networks trained for a rate rests on both conditions of a fair reference."""
    open_ = [c for e in ITEMS for c in e.get("checks", []) if "needs" in c]
    assert open_ and {c["rule"] for c in open_} == {"before"}
    fair = [c for c in open_ if "networks retrained" in c["says"] or "trained for" in c["says"] and "against networks" in c["says"] or "joint" in c["ours"]]
    fair += [c for e in ITEMS if e["id"] in ("stanh/derivations", "progressive/a_file_a_rate") for c in e["checks"] if "valid" in c]  # measured
    assert len(fair) >= 9 and all([v["path"].split("/")[0] for v in c["valid"]] == ["references_worst_lead_percent", "references_steps_ratio"] for c in fair)


@pytest.mark.parametrize("words, word", [(["yes", "yes"], "yes"), (["yes", "no"], "mixed"), (["yes", None], "needs"), (["no", None], "needs"), ([], "missing")])
def test_a_headline_is_held_if_all_its_rules_are(registry, kept, words, word):
    entry, check = kept(), {"says": "n", "rule": "before", "headline": "a", "at_least": 3}
    checks = [check | ({"ours": "m", "needs": "a week"} if w is None else {"ours": "n"} if w == "yes" else {"ours": "n", "at_least": 9}) for w in words]
    (registry / "papers.yaml").write_text(json.dumps([entry | {"checks": checks}]))
    (registry / "headlines.yaml").write_text("toy: {a: it works}")
    Path("figures").mkdir()
    Path("figures/kept.json").write_text(json.dumps(dict(kind="compact", n=4)))
    row, = headline_verdicts(".", registry)
    assert row["word"] == word and [r["verdict"] for r in row["rules"]] == [w or "needs a week" for w in words]


@pytest.mark.parametrize("setting", ["n_images=0", "n_images=-1", "n_images=abc", "images=4"])
def test_command_line_refuses_a_setting_in_one_line(cli, tmp_path, setting):
    done = cli("reproduce", "stanh/rd_kodak", "--set", setting, cwd=tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and setting.split("=")[0] in done.stderr and not list(tmp_path.iterdir())


def test_missing_weights_and_missing_notebooks_are_needs_not_failures(registry, kept):
    entry = kept("no-such-model")
    row, = reproduce("toy/kept", "compact", registry, progress=False)
    assert row["outcome"] == "needs" and "no-such-model" in row["detail"]
    row, = reproduce("toy/kept", "compact", registry, progress=False, settings=["model=stanh-compact"])
    assert row["outcome"] == "done", "with weights that are here it runs"
    (registry / "papers.yaml").write_text(json.dumps([entry | dict(notebook=None, status="needs", needs="a week", parameters={}, outputs=[])]))
    assert [(r["outcome"], r["detail"]) for r in reproduce(folder=registry, progress=False)] == [("needs", "a week")]


def test_a_smoke_run_decides_nothing(registry, kept):
    entry = kept()
    assert [(r["holds"], r["verdict"], r["kind"]) for r in verdicts(entry, dict(kind="smoke", n=4))] == [(None, "a smoke run decides nothing", "smoke")]
    assert [(r["holds"], r["verdict"], r["kind"]) for r in verdicts(entry, dict(kind="compact", n=4))] == [(True, "yes", "compact")]
    Path("figures").mkdir()
    for kind, word in (("smoke", "needs"), ("compact", "yes")):
        Path("figures/kept.json").write_text(json.dumps(dict(kind=kind, n=4)))
        assert [r["word"] for r in overview(".", registry)] == [word]
    assert as_text(overview(".", registry)[0]) == {"claim": "n", "published": "", "from their points or code": "3 (recomputed)", "ours": "4", "ours is": "compact", "held if": "≥ 3", "rule written": "before measuring", "held": "yes"}


@pytest.mark.parametrize("lead, holds, verdict", [(0, True, "yes"), (-0.5, None, "undecided: references are under-trained"), (None, None, "undecided: not known whether references are under-trained")])
def test_a_verdict_may_rest_on_a_condition(kept, lead, holds, verdict):
    entry = kept()
    entry["checks"][0]["valid"] = {"path": "lead", "at_least": 0, "why": "references are under-trained"}
    assert [(r["holds"], r["verdict"]) for r in verdicts(entry, dict(kind="compact", n=4) | ({} if lead is None else {"lead": lead}))] == [(holds, verdict)]


@pytest.mark.parametrize("runs, verdict", [([3.1, 4, 5], "yes"), ([2.5, 4, 5], "undecided: the limit lies within the spread of 3 runs, 2.5 to 5"), ([4], "undecided: fewer than three runs"), (None, "undecided: fewer than three runs")])
def test_a_timing_is_not_decided_within_its_spread(kept, runs, verdict):
    entry = kept()
    entry["checks"][0]["spread"] = "runs"
    assert [r["verdict"] for r in verdicts(entry, dict(kind="compact", n=4, runs=runs))] == [verdict]


@pytest.mark.parametrize("change, word", [({"kind": "guessed"}, "kind 'guessed'"), ({"valid": {"path": "a"}}, "valid has path"), ({"valid": [{"path": "a"}]}, "valid has path"), ({"size": "full"}, "a check has says"), ({"is": 3}, "one of at_most"),
                                          ({"rule": "later"}, "not 'later'"), ({"published": 2}, "one of published")])
def test_damaged_checks(registry, kept, change, word):
    entry = kept()
    (registry / "papers.yaml").write_text(json.dumps([entry | {"checks": [entry["checks"][0] | change]}]))
    with pytest.raises(StanhlicError, match=word): list_items(registry)


@pytest.mark.parametrize("text, word", [("- id: [", "not YAML"), ("a: 1", "not a list"), ("- id: x", "lacks"), ("- 3", "not a mapping")])
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


def values(item, **changes): return {name: default for name, (_, default) in defaults(find_item(item)).items()} | changes


def test_a_run_knows_its_weights_pictures_and_worth(models):
    from stanhlic.lab.items import begin
    run = begin("stanh/rd_kodak", values("stanh/rd_kodak", model="tiny", n_images=1))
    assert (run.kind, run.model, len(run.images), list(run.weights)) == ("smoke", "tiny", 1, ["tiny"])
    run = begin("progressive/masking", values("progressive/masking", side=64))
    assert run.images[0][1].shape == (64, 64, 3) and "a piece of 64 × 64" in run.note and run.kind == "smoke"
    assert begin("stanh/architecture", values("stanh/architecture", model="tiny"), drawn=True).kind == "drawn"
    with pytest.raises(StanhlicError, match="n_images is 0"): begin("stanh/rd_kodak", values("stanh/rd_kodak", model="tiny", n_images=0))


def test_random_weights_stand_in_for_missing_ones_and_decide_nothing(tmp_path, monkeypatch):
    from stanhlic.lab import items
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(items, "list_models", lambda: [])
    run = items.begin("progressive/complexity", values("progressive/complexity"))
    assert run.model == "runs/random/progressive.safetensors" and Path(run.model).is_file() and run.kind == "smoke" and run.note.endswith("random weights")


def test_what_was_trained_is_found_again_only_under_the_same_settings(models, tmp_path):
    from stanhlic.lab.items import begin
    run = begin("stanh/rd_kodak", values("stanh/rd_kodak", model="tiny"))
    assert run.store(tmp_path, steps=3) == run.store(tmp_path, steps=3) != run.store(tmp_path, steps=4)
    assert begin("stanh/rd_kodak", values("stanh/rd_kodak", model="other")).store(tmp_path, steps=3) != run.store(tmp_path, steps=3)


def test_an_unknown_item_gets_its_neighbors():
    with pytest.raises(StanhlicError, match="perhaps stanh/rd_kodak .*; stanhlic reproduce --list names them all"): find_item("stanh/rd_kodac")
    with pytest.raises(StanhlicError, match="unknown item 'zzz'; stanhlic reproduce --list"): find_item("zzz")


@pytest.mark.parametrize("error, said", [("DeadKernelError", "its kernel died, often for lack of memory"), ("RuntimeError", "its kernel could not be started or did not answer (Could not determine home directory.)")])
def test_a_kernel_is_said_to_have_died_only_if_it_did(monkeypatch, tmp_path, error, said):
    from nbclient import exceptions
    from stanhlic.lab import reproduce
    def fail(*a): raise getattr(exceptions, error, RuntimeError)("Could not determine home directory.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "_execute", fail)
    with pytest.raises(StanhlicError) as e: reproduce.run_item(reproduce.find_item("stanh/interpolation_trap"))
    assert said in str(e.value) and ("died" in str(e.value)) == (error == "DeadKernelError")
