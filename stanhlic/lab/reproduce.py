"""One registry names every item of the papers; one command runs its notebook with the parameters of a profile."""

import hashlib
import json
import time
from pathlib import Path
import stanhlic
from .caching import code_mark, data_mark, mark
from ..container import KINDS
from ..datasets import demo_images, has_dataset
from ..errors import StanhlicError
from ..images import atomic_write, read_bytes
from .records import figure_numbers

PROFILES = ("smoke", "compact", "paper")
STATUSES = ("reproduced", "compact", "drawn", "needs")
FIELDS = ("id", "paper", "item", "title", "notebook", "claim", "needs", "minutes", "status", "parameters", "outputs")
OPTIONAL = ("inputs", "checks")
RULES = ("at_most", "at_least", "is")
ORIGINS = ("full", "compact", "recomputed", "counted")  # of a number: measured at one of two sizes, from published points, from the code alone

def papers_folder() -> Path:  # holds papers.yaml and a folder per paper
    """Where the paper notebooks are: inside the installed package, else in the repository."""
    package = Path(stanhlic.__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "nbs" / "papers"):
        if (folder / "papers.yaml").is_file(): return folder
    raise StanhlicError("the paper notebooks are missing from this installation; install stanhlic again")

def _wrong(check):
    "What is wrong with a check, or None"
    optional = {"published", "unit", "digits", "kind", "valid", *RULES}
    if set(check) - {"says", "ours", *optional} or not {"says", "ours"} <= set(check) or sum(r in check for r in RULES) != 1:
        return f"a check has says, ours, one of {', '.join(RULES)}, and perhaps published, unit, digits, kind and valid"
    if check.get("kind", "full") not in ORIGINS: return f"a check's number is of kind '{check['kind']}'; choose {', '.join(ORIGINS)}"
    if "valid" in check and set(check["valid"]) != {"path", "at_least", "why"}: return "valid has path, at_least and why"

def _check_item(entry, path):
    "One entry of the registry, or one line"
    if not isinstance(entry, dict): raise StanhlicError(f"{path}: an entry is no mapping; see its first one")
    missing, unknown = [f for f in FIELDS if f not in entry], sorted(entry.keys() - {*FIELDS, *OPTIONAL})
    if missing or unknown: raise StanhlicError(f"{path}: item {entry.get('id')}: lacks {missing or 'nothing'}, does not know {unknown or 'nothing'}")
    def refuse(what): raise StanhlicError(f"{path}: item {entry['id']}: {what}")
    if entry["status"] not in STATUSES: refuse(f"status '{entry['status']}'; choose {', '.join(STATUSES)}")
    if entry["notebook"] is None and (entry["status"] != "needs" or entry["parameters"] or entry["outputs"]): refuse("without a notebook its status is needs, and it has neither parameters nor outputs")
    if entry["notebook"] and (not entry["parameters"] or set(entry["parameters"]) - set(PROFILES)): refuse(f"profiles are {', '.join(PROFILES)}")
    for wrong in filter(None, map(_wrong, entry.get("checks", []))): refuse(wrong)
    return entry

def list_items(
    folder: str | Path | None = None,  # holds papers.yaml; default: the project's own
) -> list:                             # entries, in the order of the file
    """The registry of tables and figures; raises `StanhlicError` if it is damaged."""
    import yaml
    path = Path(folder or papers_folder()) / "papers.yaml"
    try: entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as e: raise StanhlicError(f"{path}: not YAML ({str(e).splitlines()[0]})") from e
    if not isinstance(entries, list): raise StanhlicError(f"{path}: not a list of items")
    return [_check_item(e, path) for e in entries]

def find_item(
    name: str,                         # its id, paper/item
    folder: str | Path | None = None,  # holds papers.yaml
) -> dict:                             # entry
    """One item of the registry; raises `StanhlicError` for an unknown name."""
    items = {e["id"]: e for e in list_items(folder)}
    if name not in items: raise StanhlicError(f"unknown item '{name}'; there are {', '.join(items)}")
    return items[name]

def _known(entry, folder):
    "Parameters of an item's notebook, as papermill reads them"
    import papermill
    return papermill.inspect_notebook(str(Path(folder or papers_folder()) / entry["notebook"]))

def check_parameters(
    entry: dict,                       # of the registry
    profile: str,                      # smoke, compact or paper
    folder: str | Path | None = None,  # holds the notebooks
) -> dict:                             # parameters to run with
    """Parameters of an item in a profile.

    Raises `StanhlicError` if the item has no such profile, its notebook is missing, or the notebook does not know a parameter."""
    if profile not in PROFILES: raise StanhlicError(f"unknown profile '{profile}'; choose {', '.join(PROFILES)}")
    if profile not in entry["parameters"]:
        raise StanhlicError(f"{entry['id']} has no profile {profile} (it has {', '.join(entry['parameters'])}); it needs {entry['needs']}")
    path = Path(folder or papers_folder()) / entry["notebook"]
    if not path.is_file(): raise StanhlicError(f"{entry['id']}: its notebook {path} is missing; install stanhlic again")
    known, given = _known(entry, folder), entry["parameters"][profile] or {}
    unknown = sorted(given.keys() - known.keys())
    if unknown: raise StanhlicError(f"{entry['id']}: its notebook knows no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    return given

def _models(entry, given, known):
    "Fingerprints of the models a notebook will read; the name where there is none"
    from stanhlic.zoo import list_models
    marks = {m["name"]: m["fingerprint"] for m in list_models()}
    if "models" in known: return marks
    name = given.get("model", known["model"]["default"].strip("\"'")) if "model" in known else None
    return {name: marks.get(name, "missing")} if name else {}

def _photographs(given, known):
    "Marks of the data sets that a notebook will read"
    sets = {"kodak": "kodak"} if "n_images" in known else {}
    if "data" in known: sets["train"] = given.get("data", known["data"]["default"].strip("\"'")) or None
    return {name: data_mark(data) for name, data in sets.items()}

def _input(path):
    "What a file that an item reads holds; of numbers of another item, without what made them"
    if path.suffix != ".json": return hashlib.sha256(read_bytes(path)).hexdigest() if path.is_file() else None
    return {k: v for k, v in (figure_numbers(path) or {}).items() if k != "made_by"}

def _python(source): return "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in source.splitlines())  # without what only IPython reads

def state_of(
    entry: dict,                       # of the registry
    profile: str,                      # compact or paper
    folder: str | Path | None = None,  # holds the notebooks
) -> dict:                             # part -> mark, 16 hex digits
    """What a run would depend on: notebook, parameters, code, weights, data, inputs; raises `StanhlicError` as `check_parameters` does."""
    path, given = Path(folder or papers_folder()) / entry["notebook"], check_parameters(entry, profile, folder)
    known, paper = _known(entry, folder), entry["paper"]
    code = [_python("".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    return {"notebook": mark(code), "parameters": mark(given), "code": code_mark("\n".join(code), [paper] if paper in KINDS.values() else KINDS.values()),
            "weights": mark(_models(entry, given, known)), "data": mark(_photographs(given, known)), "inputs": mark({p: _input(Path(p)) for p in entry.get("inputs", [])})}

def _numbers_file(entry): return next((Path(o) for o in entry["outputs"] if o.endswith(".json")), None)

def outdated(
    entry: dict,                       # of the registry
    profile: str,                      # smoke is never up to date: it writes elsewhere, and takes seconds
    folder: str | Path | None = None,  # holds the notebooks
) -> list:                             # parts that differ from what made the outputs; none if up to date
    """Why an item would run: `outputs` if one is missing, `profile` if another made them, or the parts of `state_of` that changed."""
    path = _numbers_file(entry)
    if profile == "smoke" or path is None or not all(Path(o).is_file() for o in entry["outputs"]): return ["outputs"]
    made, now = figure_numbers(path).get("made_by") or {}, state_of(entry, profile, folder)
    return ["profile"] * (made.get("profile") != profile) + [part for part in now if made.get(part) != now[part]]

def _stamp(entry, profile, state, measured=None):
    "Write into the numbers beside the picture what made them"
    path = _numbers_file(entry)
    if profile == "smoke" or path is None or not path.is_file(): return
    numbers = figure_numbers(path)
    if numbers.get("kind") == "smoke": return
    numbers |= {"made_by": {"profile": profile, **state} | ({"measured": measured} if measured else {})}
    atomic_write(path, (json.dumps(numbers, indent=1, ensure_ascii=False) + "\n").encode())

def stands_in(
    entry: dict,                       # of the registry
    profile: str,                      # smoke, compact or paper
    folder: str | Path | None = None,  # holds the notebooks
) -> bool:
    """Whether the sample photograph would stand in for Kodak, where numbers were asked for."""
    return profile != "smoke" and entry["notebook"] is not None and "n_images" in _known(entry, folder) and not has_dataset("kodak")

def _execute(notebook, record, parameters, progress=False):
    "Run a notebook in the current folder; a kernel that another robbed of its port while it started is started again"
    import papermill
    for trial in range(3):
        try: return papermill.execute_notebook(str(notebook), str(record), parameters, cwd=str(Path.cwd()), progress_bar=progress, extra_arguments=["--log-level=CRITICAL"])
        except RuntimeError as e:
            if trial == 2 or "before replying" not in str(e): raise

def run_item(
    entry: dict,                       # of the registry
    profile: str = "smoke",            # smoke, compact or paper
    folder: str | Path | None = None,  # holds the notebooks
    runs: str | Path = "runs",         # where the executed copy goes
    progress: bool = True,             # draw a bar
) -> Path:                             # the executed copy
    """Run one item's notebook in the current folder; without Kodak its outputs go to a folder beside the copy.

    Raises `StanhlicError` as `check_parameters` does, or if the notebook fails."""
    import papermill
    from nbclient.exceptions import CellTimeoutError
    given, state = check_parameters(entry, profile, folder), state_of(entry, profile, folder)
    if stands_in(entry, profile, folder): given, state = given | {"out": str(Path(runs) / "figures" / entry["paper"])}, None
    record = Path(runs) / f"{entry['id']}.{profile}.ipynb"
    record.parent.mkdir(parents=True, exist_ok=True)
    try: _execute(Path(folder or papers_folder()) / entry["notebook"], record, given, {"desc": entry["id"]} if progress else False)
    except papermill.PapermillExecutionError as e:
        said = (str(e.evalue).strip().splitlines() or [""])[-1]
        raise StanhlicError(f"{entry['id']} failed: {e.ename}: {said}; see {record}") from e
    except (CellTimeoutError, RuntimeError) as e: raise StanhlicError(f"{entry['id']} failed: its kernel died, often for want of memory; see {record}") from e
    if state: _stamp(entry, profile, state)
    return record

def _in_the_way(entry, profile, folder):
    "What an item needs that is not here, or None"
    if entry["notebook"] is None: return entry["needs"]
    if profile == "smoke" or profile not in entry["parameters"]: return None
    lacking = [n for n, mark in _models(entry, entry["parameters"][profile] or {}, _known(entry, folder)).items() if mark == "missing" and not Path(n).is_file()]
    return f"the weights {', '.join(lacking)}, which are not in this installation" if lacking else None

def _touch(entry, profile, folder):
    "Declare an item up to date; its numbers keep the marks that they were measured with"
    path = _numbers_file(entry)
    made = (path and figure_numbers(path) or {}).get("made_by") or {}
    if made.get("profile") != profile: raise StanhlicError(f"{entry['id']}: there are no numbers of profile {profile} to declare up to date; run it without --touch")
    _stamp(entry, profile, state_of(entry, profile, folder), made.get("measured", made))

def _run_one(entry, profile, folder, runs, progress, force, touch, named):
    "Outcome, detail and outputs of one item"
    if lacking := _in_the_way(entry, profile, folder): return "needs", lacking, []
    if profile not in entry["parameters"] and not named: return "left out", f"has no profile {profile}", []
    changed = outdated(entry, profile, folder) if profile in entry["parameters"] and not force else ["asked for"]
    if not changed: return "up to date", "made by what is here", entry["outputs"]
    if touch: _touch(entry, profile, folder); return "touched", f"{', '.join(changed)} changed, and by your word no number", entry["outputs"]
    record = run_item(entry, profile, folder, runs, progress)
    if not stands_in(entry, profile, folder): return "done", str(record), entry["outputs"]
    return "smoke", demo_images(1)[1], [str(Path(runs, "figures", entry["paper"], Path(o).name)) for o in entry["outputs"]]

def reproduce(
    item: str | None = None,           # id; default: all
    profile: str = "smoke",            # smoke, compact or paper
    folder: str | Path | None = None,  # holds papers.yaml and the notebooks
    runs: str | Path = "runs",         # where executed copies go
    progress: bool = True,             # draw bars
    force: bool = False,               # run also what is up to date
    touch: bool = False,               # run nothing: declare that what changed since moved no number
    report=lambda row: None,           # called with each row as it is ready
) -> list:                             # rows: id, outcome, seconds, detail, outputs
    """Run one item or all, each in the current folder; outcome is done, smoke, up to date, touched, failed, left out or needs.

    Raises `StanhlicError` for an unknown item or profile."""
    if profile not in PROFILES: raise StanhlicError(f"unknown profile '{profile}'; choose {', '.join(PROFILES)}")
    rows = []
    for entry in [find_item(item, folder)] if item else list_items(folder):
        start = time.perf_counter()
        try: outcome, detail, outputs = _run_one(entry, profile, folder, runs, progress, force, touch, bool(item))
        except StanhlicError as e: outcome, detail, outputs = "failed", str(e), []
        rows.append(dict(id=entry["id"], outcome=outcome, seconds=time.perf_counter() - start, detail=detail, outputs=outputs))
        report(rows[-1])
    return rows

def _look_up(numbers, path):
    "Value at a/b/c in nested mappings and lists, or None"
    for key in path.split("/"):
        if isinstance(numbers, list): numbers = numbers[int(key)] if key.lstrip("-").isdigit() and -len(numbers) <= int(key) < len(numbers) else None
        else: numbers = numbers.get(key) if isinstance(numbers, dict) else None
    return numbers

def _shipped():
    "Fingerprints of the weights that are here; numbers of others are said to be so"
    from stanhlic.zoo import list_models
    return {m["fingerprint"] for m in list_models()}

def _holds(value, check):
    if value is None: return None
    if "is" in check: return value == check["is"]
    if not isinstance(value, (int, float)): return None
    return value <= check["at_most"] if "at_most" in check else value >= check["at_least"]

def _limit(check):
    "The rule of a check as tables show it"
    rule, unit = next(r for r in RULES if r in check), check.get("unit", "")
    if isinstance(check[rule], bool): return "yes" if check[rule] else "no"
    text = f"{100 * check[rule]:g} %" if unit == "share" else f"{check[rule]:,} {unit}".strip()
    return {"at_most": "≤ ", "at_least": "≥ ", "is": ""}[rule] + text.replace("-", "−")

def _undecided(numbers, check):
    "Why the number of a check decides nothing, or None"
    if "valid" not in check: return None
    needed = check["valid"]
    value = _look_up(numbers, needed["path"])
    if value is None: return f"not known whether {needed['why']}"
    return None if value >= needed["at_least"] else needed["why"]

def verdicts(
    entry: dict,              # of the registry
    root: str | Path = ".",   # where figures/ is
) -> list:                    # rows: id, says, published, ours, difference, unit, digits, rule, kind, holds (None: not measured or not decided), verdict
    """The checks of an item against the numbers it left; a published value may be a place in them, @a/b/c."""
    path = _numbers_file(entry)
    numbers = (figure_numbers(Path(root) / path) if path else None) or {}
    kind, rows = numbers.get("kind", "drawn" if numbers else None), []
    if numbers.get("fingerprint") and numbers["fingerprint"] not in _shipped(): kind = f"{kind}, other weights"
    number = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)
    for c in entry.get("checks", []):
        ours, theirs = None if numbers.get("kind") == "smoke" else _look_up(numbers, c["ours"]), c.get("published")
        if isinstance(theirs, str) and theirs.startswith("@"): theirs = _look_up(numbers, theirs[1:])
        holds, why = _holds(ours, c), _undecided(numbers, c)
        verdict = "not measured" if holds is None else f"not decided: {why}" if why else "yes" if holds else "no"
        rows.append(dict(id=entry["id"], says=c["says"], published=theirs, ours=ours, difference=ours - theirs if number(ours) and number(theirs) else None, unit=c.get("unit", ""), digits=c.get("digits"),
                         rule=_limit(c), kind=None if ours is None else c.get("kind", kind), holds=None if why else holds, verdict=verdict))
    return rows

def shown(
    value,                      # number, truth value, text or None
    unit: str = "",             # of a number; "%" is a change, "share" a fraction to be shown in percent
    digits: int | None = None,  # decimals; default: one in percent, else three significant digits
) -> str:
    """A value as tables show it."""
    if value is None: return "–"
    if isinstance(value, bool): return "yes" if value else "no"
    if isinstance(value, str): return value
    sign = "+" if unit == "%" else ""
    if unit == "share": value, unit = 100 * value, "%"
    if isinstance(value, int): text = f"{value:,}"
    elif digits is not None: text = f"{value:{sign}.{digits}f}"
    else: text = f"{value:{sign}.1f}" if unit.startswith("%") else f"{value:.3g}"
    return f"{text} {unit}".strip().replace("-", "−")

def overview(
    root: str | Path = ".",            # where figures/ is
    folder: str | Path | None = None,  # holds papers.yaml
) -> list:                             # rows: item, claim, published, ours, held if, held here
    """All claims that a rule decides, ready for a table."""
    rows = []
    for entry in list_items(folder):
        for v in verdicts(entry, root):
            number = lambda key: shown(v[key], v["unit"], v["digits"])
            of = "" if v["kind"] in (None, "drawn") else f", {v['kind']}".replace("full", "full size")
            held = v["verdict"] if v["holds"] is None else f"**{v['verdict']}**{of}"
            rows.append({"item": entry["id"], "claim": v["says"], "published": number("published"), "ours": number("ours"), "held if": v["rule"], "held here": held})
        if entry["notebook"] is None: rows.append({"item": entry["id"], "claim": entry["claim"], "published": "", "ours": "", "held if": "", "held here": f"needs {entry['needs']}"})
    return rows
