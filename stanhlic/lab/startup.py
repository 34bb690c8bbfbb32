"""What the command line costs before it does anything: processor seconds of fresh processes, as multiples of `import torch`."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import stanhlic
from ..datasets import sample_photograph
from ..errors import StanhlicError
from ..evaluate import environment, write_results
from ..images import write_image

MODELS = ("stanh-compact", "stanh-zou22-compact", "rnn-compact", "progressive-compact")
HERE = str(Path(stanhlic.__file__).resolve().parent.parent)


def output(
    code: str,             # Python
    tree: str = HERE,      # folder that holds the package
    threads: int = None,   # of torch; default: what it takes
    timeout: float = None, # seconds
) -> str:
    """Standard output of Python code in a new process; raises `StanhlicError` with the last line of its errors if it fails."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (tree, os.environ.get("PYTHONPATH"))))} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    try: done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=env, cwd=tempfile.gettempdir(), timeout=timeout)
    except subprocess.TimeoutExpired: raise StanhlicError(f"not done after {timeout:g} s") from None
    if done.returncode: raise StanhlicError((done.stderr.strip().splitlines() or ["no message"])[-1][:200])
    return done.stdout


def processor_seconds(
    code: str,         # Python
    tree: str = HERE,  # folder that holds the package
) -> float:
    """Processor seconds, user and system, of Python code in a new process on one thread; raises as `output`."""
    before = os.times()
    output(code, tree, 1)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _line(*words): return f"import sys; sys.argv = {['stanhlic', *words]!r}; from stanhlic.cli import main; main()"


def commands(
    folder: str | Path,  # for the files
    tree: str = HERE,    # folder that holds the package
    models: tuple = None,  # default: those of each system
) -> dict:               # name -> Python code; of models that the package has
    """The commands that are timed, on a picture of 192x128 pixels and the files that the package makes of it."""
    folder, picture = Path(folder), sample_photograph(192)[:128, :192]
    write_image(folder / "a.png", np.ascontiguousarray(picture))
    jobs = {"python": "pass", "import torch": "import torch", "stanhlic --help": _line("--help")}
    for name in MODELS if models is None else models:
        source = folder / f"{name}.slic"
        try: processor_seconds(_line("compress", str(folder / "a.png"), str(source), "--model", name), tree)
        except StanhlicError: continue
        jobs |= {f"info, {name}": _line("info", str(source)), f"compress, {name}": _line("compress", str(folder / "a.png"), str(folder / "out.slic"), "--model", name),
                 f"decompress, {name}": _line("decompress", str(source), str(folder / "out.png"))}
        if not name.startswith("stanh"): jobs[f"truncate, {name}"] = _line("truncate", str(source), str(folder / "cut.slic"), "--bytes", str(source.stat().st_size - 1))
    return jobs


def measure(
    repeats: int = 5,    # runs of each command, in turn; the least counts
    tree: str = HERE,    # folder that holds the package to measure
    models: tuple = None,  # default: those of each system
) -> list:               # rows: command, processor seconds, multiple of `import torch`
    """Cold starts."""
    with tempfile.TemporaryDirectory() as folder:
        jobs, least = commands(folder, tree, models), {}
        for _ in range(repeats):
            for name, code in jobs.items():
                for out in ("out.slic", "out.png", "cut.slic"): Path(folder, out).unlink(missing_ok=True)
                least[name] = min(least.get(name, float("inf")), processor_seconds(code, tree))
    return [dict(command=name, seconds=round(s, 3), multiple=round(s / least["import torch"], 2)) for name, s in least.items()]


def main(
    before: str = "",   # another checkout of the package, to compare with
    out: str = "figures/bench/startup.json",
    repeats: int = 5,
) -> dict:
    """Measure this package, and another checkout beside it, and write the numbers."""
    rows, old = measure(repeats), {r["command"]: r for r in measure(repeats, before)} if before else {}
    for row in rows:
        if row["command"] in old: row |= {f"{k}_before": old[row["command"]][k] for k in ("seconds", "multiple")}
    result = dict(what="cold starts: processor seconds of a fresh process, least of some runs, and multiples of `import torch`", repeats=repeats, machine=environment("cpu"), rows=rows)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_results(out, result)
    return result


if __name__ == "__main__": main(*sys.argv[1:3])
