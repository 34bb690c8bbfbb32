"""Every library notebook and the front page run from top to bottom, each in a process of its own, two at a time.

Paper and training notebooks run through papermill, in tests of their own. `STANHLIC_TEST_FLAGS="slow weights"` adds the
cells under those flags. The notebooks write nothing into the repository."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APART = {"papers", "train"}
LIMIT = 240  # seconds for one notebook
NOTEBOOKS = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb"))
             if not (APART | {".ipynb_checkpoints"}) & set(p.relative_to(ROOT / "nbs").parts)]
NAMES = [str(p.relative_to(ROOT / "nbs")) for p in NOTEBOOKS]


RUN = """
import sys, tomllib
from pathlib import Path
from nbdev.test import test_nb
skipped = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["nbdev"]["tst_flags"].split()
passed, _ = test_nb(Path(sys.argv[1]).absolute(), skip_flags=skipped, force_flags=sys.argv[2:], basepath=Path.cwd())
sys.exit(not passed)
"""


def execute(name):
    """Run one notebook; the completed process, its traceback on standard error."""
    flags = os.environ.get("STANHLIC_TEST_FLAGS", "").split()
    return subprocess.run([sys.executable, "-c", RUN, f"nbs/{name}", *flags], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT,
                          env=os.environ | {"MPLBACKEND": "agg"})


@pytest.fixture(scope="module")
def running(request):
    """The selected notebooks, all under way, two at a time."""
    chosen = [item.callspec.params["name"] for item in request.session.items if item.function is test_notebook]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(execute, name) for name in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", NAMES)
def test_notebook(name, running):
    done = running[name].result()
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-6000:]
