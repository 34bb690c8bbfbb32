"""Notebooks run in processes of their own that have the heavy libraries imported already, since each is forked from one that has."""
import multiprocessing
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WARM = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "forkserver")  # macOS libraries do not survive a fork
WARM.set_forkserver_preload(["torch", "matplotlib.pyplot", "accelerate", "scipy.interpolate", "nbdev.test", "fastcore.test"])


def _library(notebook, flags):
    """As `nbdev-test` does it."""
    import tomllib

    from nbdev.test import test_nb
    skipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["nbdev"]["tst_flags"].split()
    return test_nb(notebook, skip_flags=skipped, force_flags=flags, basepath=ROOT, cell_timeout=None)[0]


def _item(notebook, parameters):
    """With parameters, as papermill does it, in the present folder."""
    from nbdev.test import CaptureShell, NBProcessor
    nb, shell = NBProcessor(notebook, process=False).nb, CaptureShell(notebook)
    for cell in nb.cells:
        if "parameters" in cell.metadata.get("tags", []): cell.source += "".join(f"\n{k} = {v!r}" for k, v in parameters.items())
    try: shell.run_all(nb, exc_stop=True, cell_timeout=None)
    except BaseException: sys.stderr.write((shell.prettytb(fname=notebook) or traceback.format_exc()) + "\n"); return False
    return True


def _child(work, args, folder, env, log):
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2): os.dup2(target, stream)
    os.environ.clear(); os.environ.update(env); os.chdir(folder)
    sys.path[:0] = [str(ROOT)]
    ok = work(*args)
    sys.stdout.flush(); sys.stderr.flush()
    os._exit(not ok)


def _apart(work, args, folder, log):
    process = WARM.Process(target=_child, args=(work, args, str(folder), dict(os.environ), str(log)))
    process.start(); process.join()
    assert process.exitcode == 0, Path(log).read_text(errors="replace")[-6000:]


def run_library(notebook, log, flags=()): _apart(_library, (Path(notebook), list(flags)), ROOT, log)
def run_item(notebook, folder, log, **parameters): _apart(_item, (Path(notebook), parameters), folder, log)
