"""The registry of tables and figures: entries that hold together, parameters that exist, runs that report."""
import json
from pathlib import Path

import nbformat
import pytest

from stanhlic.errors import StanhlicError
from stanhlic.reproduce import PROFILES, check_parameters, list_items, papers_folder, reproduce, run_item

ITEMS = list_items()


@pytest.mark.parametrize("entry", ITEMS, ids=lambda e: e["id"])
def test_entry_holds_together(entry):
    assert entry["id"].startswith(entry["paper"] + "/") and entry["notebook"] == f"{entry['id']}.ipynb"
    assert set(entry["minutes"]) == set(entry["parameters"]) <= set(PROFILES) and "smoke" in entry["parameters"]
    assert entry["outputs"] and all(o.startswith(f"figures/{entry['id']}.") for o in entry["outputs"])


def test_ids_are_unique(): assert len({e["id"] for e in ITEMS}) == len(ITEMS)


@pytest.mark.parametrize("entry, profile", [(e, p) for e in ITEMS for p in e["parameters"]], ids=lambda v: v if isinstance(v, str) else v["id"])
def test_notebook_knows_the_parameters(entry, profile):
    if not (papers_folder() / entry["notebook"]).is_file(): pytest.skip("its notebook is not written yet")
    check_parameters(entry, profile)


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


@pytest.mark.parametrize("text, word", [("- id: [", "not YAML"), ("a: 1", "not a list"), ("- id: x", "lacks"), ("- 3", "no mapping")])
def test_damaged_registry(tmp_path, text, word):
    (tmp_path / "papers.yaml").write_text(text)
    with pytest.raises(StanhlicError, match=word): list_items(tmp_path)
