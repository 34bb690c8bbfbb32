"""Files of the command line: which are inputs, where their outputs go, what is never written over, and many of them at once."""

import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple
from .errors import NotEnoughMemory, StanhlicError
from .images import atomic_write, control_groups, find_files, free_memory, is_image_name, read_bytes, read_stream

PIPE, STDOUT = "-", ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")

def is_slic_name(
    path: str | Path,
) -> bool:            # by suffix, in lower case; a name that begins with a dot is none
    """Does a file's name say that it is a `.slic` file?"""
    return not Path(path).name.startswith(".") and Path(path).suffix.lower() == ".slic"

class Kind(NamedTuple):
    """What a command takes, and what it makes of it."""
    what: str        # one of its inputs, in words
    takes: Callable  # name of a file -> is it an input?
    suffix: str      # of an output that the user did not name

PICTURES, CODED = Kind("image", is_image_name, ".slic"), Kind(".slic file", is_slic_name, ".png")

class Job(NamedTuple):
    """One input and its output."""
    source: str    # `-` for standard input
    target: str    # `-` for standard output
    replace: bool  # an output that is there

class Plan(NamedTuple):
    """What a command has to do."""
    jobs: list     # `Job`s, in order
    skipped: list  # `Job`s whose output is there already
    others: int    # files of the folders that are neither pictures nor .slic files
    several: bool  # a folder, a list, or more than one input
    pipe: bool     # an output is standard output, so that messages go to standard error

def read(
    path: str,               # `-` for standard input
    check: Callable = None,  # as for `read_stream`
) -> bytes:
    """A whole file or pipe; raises `StanhlicError` as `read_bytes` does."""
    if path != PIPE: return read_bytes(path, check)
    return read_stream(sys.stdin.buffer, PIPE, check)

def write(
    job: Job,
    data: bytes,  # the output
) -> None:
    """Write the output of a job, a file whole or not at all; raises `StanhlicError` if that fails."""
    if job.target != PIPE: return atomic_write(job.target, data, job.replace)
    try: sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at the end does not fail too
        raise StanhlicError(f"-: the rest of the pipe does not read ({e.strerror})") from e

def check_target(
    source: str,
    target: str,
) -> None:
    """Refuse an output that cannot be written before any work is done."""
    if target == PIPE:
        if sys.stdout.isatty(): raise StanhlicError("-: standard output is a terminal; send it into a file or a program")
        return
    target = Path(target)
    if target.is_dir(): raise StanhlicError(f"{target}: is a folder; name a file in it")
    if not target.parent.is_dir(): raise StanhlicError(f"{target}: there is no folder {target.parent}; create it first")
    if not os.access(target if target.exists() else target.parent, os.W_OK): raise StanhlicError(f"{target}: cannot be written; choose another place")
    if target.exists() and Path(source).exists() and target.samefile(source): raise StanhlicError(f"{target}: is the input itself; choose another output")

def _last_is_output(paths, kind, force):
    "Is the second of two paths the output? A file that could be an input is one, as in `*.png`; what could be either is refused"
    first, last = paths
    if last in STDOUT: return True
    if Path(last).is_dir():
        if not Path(first).is_dir() or not Path(last).samefile(first):
            if not find_files(last, kind.takes)[0]: return True
        raise StanhlicError(f"{last}: holds inputs itself; give the output folder by --out")
    if Path(last).exists() and Path(first).exists() and Path(last).samefile(first): raise StanhlicError(f"{last}: is the input itself; choose another output")
    if kind.takes(last) and Path(last).is_file(): return False
    if kind is PICTURES and not force and not Path(first).is_dir() and Path(last).is_file() and Path(last).stat().st_size and not is_slic_name(last):
        raise StanhlicError(f"{last}: exists and is no .slic file; if it is to be replaced, name it by --out or add --force")
    return True

def _listed(path):
    "Paths from a list, one a line, each with its place below an output folder: as it is written there"
    lines = [line.removesuffix("\r") for line in os.fsdecode(read(path)).split("\n")]
    found = [(line, Path(line).relative_to(Path(line).anchor)) for line in lines if line]
    for line, below in found:
        if ".." in below.parts: raise StanhlicError(f"{path}: '{line}' leads out of the output folder; write it without ..")
    return found

def _inputs(paths, kind, recursive):
    "Files with their places below an output folder, and how many others their folders hold"
    found, others = [], 0
    for p in map(Path, paths):
        if not p.is_dir(): found.append((str(p), Path(p.name))); continue
        here, rest = find_files(p, kind.takes, recursive)
        if not here: raise StanhlicError(f"{p}: holds no {kind.what}" + ("" if recursive else "; --recursive looks into its folders too"))
        found += [(str(f), f.relative_to(p)) for f in here]
        others += sum(not is_image_name(f) and not is_slic_name(f) for f in rest)
    return found, others

def _outputs(found, out, kind):
    "A job for each input; two that would become one are refused"
    jobs, taken = [], {}
    for source, below in found:
        target = str((Path(out) / below if out else Path(source)).with_suffix(kind.suffix))
        if source in (taken.get(target), target): raise StanhlicError(f"{source}: is given twice" if source != target else f"{source}: is a {kind.suffix} file already")
        if target in taken: raise StanhlicError(f"{source}: several files would become {target}; rename all but one")
        taken[target] = source
        jobs.append(Job(source, target, False))
    return jobs

def _free(jobs, skip, force):
    "Jobs to do and those that are done; outputs that the user did not name are never written over"
    there = [j for j in jobs if os.path.lexists(j.target)]
    if there and not skip and not force:
        which = there[0].target + (f" and {len(there) - 1} more" if len(there) > 1 else "")
        raise StanhlicError(f"{which}: exist{'s' * (len(there) == 1)} already; --skip-existing leaves {'it' if len(there) == 1 else 'them'}, --force replaces {'it' if len(there) == 1 else 'them'}")
    done = set(there) if skip else set()
    return [j._replace(replace=force) for j in jobs if j not in done], [j for j in jobs if j in done]

def plan_jobs(
    paths: list,                 # files and folders; the second of two may be the output
    out: str | None,             # output as an option gives it
    kind: Kind,
    recursive: bool = False,     # folders with their subfolders
    listed: str | None = None,   # file with more paths, one a line
    skip: bool = False,          # leave outputs that are there
    force: bool = False,         # replace outputs that are there
) -> Plan:
    """What a command has to do.

    A single output that the user names is replaced. Others take the input's name with another suffix, beside it or below a folder, and nothing that is there.
    Raises `StanhlicError` where it is not certain what is an input, for outputs that are there, and for inputs that share an output."""
    paths = list(paths or ())
    if skip and force: raise StanhlicError("--skip-existing and --force exclude each other; give one of them")
    if out is None and len(paths) == 2 and not listed and _last_is_output(paths, kind, force): out = paths.pop()
    several = bool(listed) or len(paths) > 1 or Path(paths[0]).is_dir()
    if out is None and paths == [PIPE]: out = PIPE
    if PIPE in paths and several: raise StanhlicError("-: a pipe is one input; give it alone")
    if out in STDOUT:
        if several: raise StanhlicError("-: several outputs do not fit into one pipe; name a folder")
        return Plan([Job(paths[0], PIPE, True)], [], 0, False, True)
    if out is not None and not several and not Path(out).is_dir() and not out.endswith(os.sep):
        if kind.takes(out): raise StanhlicError(f"{out}: that is the name of an input; let the output end in {kind.suffix}")
        job = Job(paths[0], out, True)
        return Plan(*(([], [job]) if skip and Path(out).exists() else ([job], [])), 0, False, Path(out).exists() and not Path(out).is_file())
    if out is not None and Path(out).exists() and not Path(out).is_dir(): raise StanhlicError(f"{out}: is a file; name a folder for several outputs")
    found, others = _inputs(paths, kind, recursive)
    jobs, done = _free(_outputs(found + (_listed(listed) if listed else []), out, kind), skip, force)
    if out is not None:
        for place in sorted({Path(j.target).parent for j in jobs}): place.mkdir(parents=True, exist_ok=True)
    return Plan(jobs, done, others, several, False)

# %% lists in parts, for many machines

def split_list(
    path: str,    # list of files, one a line
    out: str,     # the output folder that all parts will share
    parts: list,  # files to write
) -> None:
    """Deal a list into parts. Raises `StanhlicError` if two of its files would share an output, though they be in different parts."""
    found = _listed(path)
    _outputs(found, out, PICTURES)
    for k, part in enumerate(parts): atomic_write(part, os.fsencode("".join(line + "\n" for line, _ in found[k::len(parts)])))

def join_parts(
    path: str,    # the list
    parts: list,  # what `stanhlic compress --list … --json` printed for each part
) -> dict:        # pictures: their rows in the order of the list, then refused: likewise
    """The rows of all parts. Raises `StanhlicError` if a file of the list is in none or twice, or if its output is gone."""
    rows = [row for part in parts for row in json.loads(read_bytes(part))]
    held, wanted = {row["input"]: row for row in rows}, [line for line, _ in _listed(path)]
    if len(held) < len(rows) or held.keys() != set(wanted): raise StanhlicError(f"{path}: {len(rows)} results for {len(wanted)} files; remove the parts and run them again")
    gone = [row["output"] for row in rows if "refused" not in row and not Path(row["output"]).is_file()]
    if gone: raise StanhlicError(f"{gone[0]}: is gone; remove the parts and run them again")
    told = [held[line] for line in wanted]
    return {"pictures": [r for r in told if "refused" not in r], "refused": [r for r in told if "refused" in r]}

# %% many at once

def cores(
    root: str = "/sys/fs/cgroup",     # as in `control_groups`
    mine: str = "/proc/self/cgroup",
) -> int:                             # at least 1
    """Processors that this process may use: those it is bound to, and no more than the quota of its control groups."""
    def quota(folder, version):
        try:
            if version == 2: most, period = (folder / "cpu.max").read_text().split()
            else: most, period = ((folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
            return int(most) / int(period) if int(most) > 0 else math.inf
        except (OSError, ValueError, ZeroDivisionError): return math.inf  # "max", or no such limit
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([bound, *(quota(*group) for group in control_groups("cpu", root, mine))])))

def processes(
    asked: int | None,  # by the user
    count: int,         # jobs
    device: str,
) -> int:
    """How many processes work on so many jobs: as many as there are cores and memory for, one for at least four jobs each."""
    if asked: return max(1, min(asked, count))
    if count < 8: return 1
    from .modelfile import resolve_device
    if resolve_device(device) != "cpu": return 1
    return max(1, min(cores(), count // 4, int(free_memory() / 1.5e9)))

def _begin(threads):
    "What a process does first: it ends with the one that started it, and has few threads"
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    warnings.simplefilter("ignore")
    import torch
    from .images import keep_memory
    torch.set_num_threads(threads)
    keep_memory()

def _at_once(jobs, work, count, threads):
    "As `run`, in several processes"
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin, (threads,)) as pool:
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None  # Ctrl-C is for this process
        try: waiting = [(job, pool.submit(work, job)) for job in jobs]
        finally:
            if main: signal.signal(signal.SIGINT, before)
        try:
            for job, future in waiting:
                try: yield job, future.result()
                except StanhlicError as e: yield job, e
        except BrokenProcessPool as e:
            raise NotEnoughMemory("one of the processes was killed, usually for lack of memory; go on with fewer --jobs and --skip-existing") from e
        except BaseException:
            for child in multiprocessing.active_children(): child.terminate()
            pool.shutdown(cancel_futures=True)
            raise

def run(
    jobs: list,        # `Job`s
    work: Callable,    # job -> result; can be pickled
    count: int = 1,    # processes
    threads: int = 1,  # of each, if there are several
) -> Iterator:         # (job, result, or the `StanhlicError` that it raised)
    """Do jobs; results come in the order of the jobs."""
    if count > 1: yield from _at_once(jobs, work, count, threads); return
    for job in jobs:
        try: yield job, work(job)
        except StanhlicError as e: yield job, e
