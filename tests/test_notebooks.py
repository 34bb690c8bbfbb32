"""Every library notebook and the front page run from top to bottom, each in a process of its own.

Paper and training notebooks run through papermill, in tests of their own. `STANHLIC_TEST_FLAGS="slow weights"` adds the
cells under those flags. The notebooks write nothing into the repository."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parent.parent
APART = {"papers", "train", ".ipynb_checkpoints"}
NAMES = sorted(str(o) for p in (ROOT / "nbs").rglob("*.ipynb") if not APART & set((o := p.relative_to(ROOT / "nbs")).parts))
LONGEST = ("training", "tour", "index", "codec", "model")  # those that train and encode begin, so that no worker ends with one alone
NAMES.sort(key=lambda name: next((i for i, word in enumerate(LONGEST) if word in name), len(LONGEST)))

RUN = """
import sys, tomllib
from pathlib import Path
from nbdev.test import test_nb
skipped = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["nbdev"]["tst_flags"].split()
passed, _ = test_nb(Path(sys.argv[1]).absolute(), skip_flags=skipped, force_flags=sys.argv[2:], basepath=Path.cwd(), cell_timeout=None)
sys.exit(not passed)
"""


def left(): return {p for folder in ("nbs", "figures") for p in (ROOT / folder).rglob("*") if ".ipynb_checkpoints" not in p.parts}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in NAMES])
def test_notebook(name):
    before = left()
    flags = os.environ.get("STANHLIC_TEST_FLAGS", "").split()
    done = subprocess.run([sys.executable, "-c", RUN, f"nbs/{name}", *flags], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MPLBACKEND": "agg"})
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-6000:]
    assert left() <= before, "a notebook writes into a temporary folder"
