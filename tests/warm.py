"""Notebooks run in processes of their own that have the heavy libraries imported already, since each is forked from one that has.

So do the fresh processes in which `evaluate` decodes for a paper's notebook; test_evaluate.py starts real ones. Papers' notebooks see a piece of each picture."""
import multiprocessing
import multiprocessing.forkserver
import os
import sys
import tempfile
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


def _pieces(images, note):
    """A smoke run is as good a smoke run on a part of each picture."""
    return [(name, picture[:256, :320].copy()) for name, picture in images], f"{note}; a piece of each"


def _item(notebook, record, parameters):
    """With parameters, as papermill does it, in the present folder; the executed notebook is `record`."""
    from nbdev.test import CaptureShell, NBProcessor, write_nb
    from stanhlic import datasets, evaluate
    whole = datasets.demo_images
    datasets.demo_images = lambda *limit: _pieces(*whole(*limit))
    if WARM.get_start_method() == "forkserver": evaluate._fresh = _warm
    nb, shell = NBProcessor(notebook, process=False).nb, CaptureShell(notebook)
    for cell in nb.cells:
        if "parameters" in cell.metadata.get("tags", []):
            assert not [k for k in parameters if f"\n{k}: " not in "\n" + cell.source], "a parameter that the notebook does not know"
            cell.source += "".join(f"\n{k} = {v!r}" for k, v in parameters.items())
    try: shell.run_all(nb, exc_stop=True, cell_timeout=None)
    except BaseException: sys.stderr.write((shell.prettytb(fname=notebook) or traceback.format_exc()) + "\n"); return False
    write_nb(nb, record)
    return True


def _program(code, words, folder):
    """What `python -c` does, its output in files."""
    for stream, name in ((1, "out"), (2, "err")): os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})


def _warm(command, report, errors):
    """`evaluate._fresh` in a process that comes from where this one came from, and so knows nothing of what this one did."""
    multiprocessing.forkserver._forkserver.ensure_running = lambda: None  # Python starts another one for want of its process number
    with tempfile.TemporaryDirectory() as folder:
        process = WARM.Process(target=_program, args=(command[0], command[1:], folder))
        process.start(); process.join()
        for line in Path(folder, "out").read_text().splitlines(): report(line)
        errors.write(Path(folder, "err").read_text())
    return process.exitcode


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


def run_item(notebook, folder, **parameters):
    """The executed notebook is `folder`/run.ipynb."""
    _apart(_item, (Path(notebook), Path(folder, "run.ipynb"), parameters), folder, Path(folder, "log"))
