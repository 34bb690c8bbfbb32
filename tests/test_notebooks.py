"""Every library notebook and the front page run from top to bottom, each in a process of its own.

Paper and training notebooks run through papermill, in tests of their own. `STANHLIC_TEST_FLAGS="slow weights"` adds the
cells under those flags. The notebooks write nothing into the repository."""
import os
from pathlib import Path

import pytest
from warm import run_library

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parent.parent
APART = {"papers", "train", ".ipynb_checkpoints"}
NAMES = sorted(str(o) for p in (ROOT / "nbs").rglob("*.ipynb") if not APART & set((o := p.relative_to(ROOT / "nbs")).parts))
LONGEST = ("training", "tour", "index", "codec", "model")  # those that train and encode begin, so that no worker ends with one alone
NAMES.sort(key=lambda name: next((i for i, word in enumerate(LONGEST) if word in name), len(LONGEST)))

def left(): return {p for folder in ("nbs", "figures") for p in (ROOT / folder).rglob("*") if ".ipynb_checkpoints" not in p.parts}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in NAMES])
def test_notebook(name, tmp_path):
    before = left()
    run_library(ROOT / "nbs" / name, tmp_path / "log", os.environ.get("STANHLIC_TEST_FLAGS", "").split())
    assert left() <= before, "a notebook writes into a temporary folder"
