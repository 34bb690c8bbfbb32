"""One registry lists every item of the papers; one command runs its notebook; the numbers it leaves record what made them, and rules decide whether a claim holds."""

import ast, difflib, hashlib, json, time
from collections import Counter
from pathlib import Path
import stanhlic
from ..datasets import has_dataset
from ..errors import StanhlicError, needs
from ..images import read_bytes
from .curves import figure_numbers
from .tables import shown

PROFILES = ("smoke", "compact", "paper")
STATUSES = ("reproduced", "compact", "drawn", "needs")
FIELDS = ("id", "paper", "item", "title", "notebook", "claim", "needs", "minutes", "status", "parameters", "outputs")
OPTIONAL = ("inputs", "checks")
RULES = ("at_most", "at_least", "is")
BESIDE = ("published", "recomputed", "counted")  # what a number is compared with: the authors' own, from their points, from their code
SIZES = {"full": "full size", "random": "full size, random weights", "compact": "compact"}  # of what was measured
ARITHMETIC = ("recomputed", "counted")           # numbers that follow from published points or from code alone
WRITTEN = ("before", "after")                    # a rule, relative to the first measurement that it judges
WHERE = ("out", "device")                        # parameters that say where a run happens, not what it computes

# %% the registry

def papers_folder() -> Path:  # holds papers.yaml and a folder per paper
    """Where the paper notebooks are: inside the installed package, else in the repository."""
    package = Path(stanhlic.__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "nbs" / "papers"):
        if (folder / "papers.yaml").is_file(): return folder
    raise StanhlicError("the paper notebooks are missing from this installation; install stanhlic again")

def _conditions(check):
    "Conditions without which a check decides nothing"
    given = check.get("valid", [])
    return given if isinstance(given, list) else [given]

def _wrong(check):
    "What is wrong with a check, or None"
    needed, optional = {"says", "ours", "rule"}, {"unit", "digits", "kind", "valid", "spread", "headline", "needs", *RULES, *BESIDE}
    if set(check) - needed - optional or not needed <= set(check) or sum(r in check for r in RULES) != 1 or sum(b in check for b in BESIDE) > 1:
        return f"a check has says, ours, rule, one of {', '.join(RULES)}, and perhaps one of {', '.join(BESIDE)}, and unit, digits, kind, valid, spread, headline, needs"
    if check.get("kind", "full") not in (*SIZES, *ARITHMETIC): return f"a check's number is of kind '{check['kind']}'; choose {', '.join((*SIZES, *ARITHMETIC))}"
    if check["rule"] not in WRITTEN: return f"a rule was written {' or '.join(WRITTEN)} the measurement, not '{check['rule']}'"
    if any(set(v) != {"path", "at_least", "why"} for v in _conditions(check)): return "valid has path, at_least and why, or is a list of such"

def _check_item(entry, path):
    "One entry of the registry, or one line"
    if not isinstance(entry, dict): raise StanhlicError(f"{path}: an entry is not a mapping; see its first one")
    missing, unknown = [f for f in FIELDS if f not in entry], sorted(entry.keys() - {*FIELDS, *OPTIONAL})
    if missing or unknown: raise StanhlicError(f"{path}: item {entry.get('id')}: lacks {missing or 'nothing'}, has unknown {unknown or 'nothing'}")
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
    try: entries = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the registry is read often
    except yaml.YAMLError as e: raise StanhlicError(f"{path}: not YAML ({str(e).splitlines()[0]})") from e
    if not isinstance(entries, list): raise StanhlicError(f"{path}: not a list of items")
    return [_check_item(e, path) for e in entries]

def find_item(
    name: str,                         # its id, paper/item
    folder: str | Path | None = None,  # holds papers.yaml
) -> dict:                             # entry
    """One item of the registry; raises `StanhlicError` for an unknown name."""
    items = {e["id"]: e for e in list_items(folder)}
    if name not in items:
        near = difflib.get_close_matches(name, items, 3, 0.4)
        raise StanhlicError(f"unknown item '{name}'; {'perhaps ' + ' or '.join(near) + '; ' if near else ''}stanhlic reproduce --list names them all")
    return items[name]

# %% the parameters of a notebook

def _code(entry, folder):
    "(source, tags) of the code cells of an item's notebook"
    path = Path(folder or papers_folder()) / entry["notebook"]
    if not path.is_file(): raise StanhlicError(f"{entry['id']}: its notebook {path} is missing; install stanhlic again")
    return [("".join(c["source"]), c["metadata"].get("tags", [])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]

def defaults(
    entry: dict,                       # of the registry
    folder: str | Path | None = None,  # holds the notebook
) -> dict:                             # name -> (type as its parameters cell names it, default)
    """Parameters of an item's notebook, read without running it."""
    cell = next(source for source, tags in _code(entry, folder) if "parameters" in tags)
    return {n.target.id: (ast.unparse(n.annotation), ast.literal_eval(n.value)) for n in ast.parse(cell).body if isinstance(n, ast.AnnAssign)}

TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list}

def _fits(value, kind): return isinstance(value, TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))

def _alike(values, default):
    "Are the values of a list numbers, or texts, as all of its default are? An empty or mixed default takes anything"
    kind = next((k for k in ("float", "str") if default and all(_fits(v, k) for v in default)), None)
    return kind is None or all(_fits(v, kind) for v in values)

def read_setting(
    setting: str,  # name=value
    known: dict,   # as `defaults` gives it
) -> tuple:        # name, value
    """A parameter as the command line sets it; a list is written with commas. Raises `StanhlicError` for a name or a value that the notebook does not take."""
    import yaml
    name, equals, text = setting.partition("=")
    if not equals: raise StanhlicError(f"--set takes NAME=VALUE, not '{setting}'")
    if name not in known: raise StanhlicError(f"unknown parameter {name}; choose from {', '.join(known)}")
    kind, default = known[name]
    if kind == "str": return name, text
    try: value = yaml.safe_load(f"[{text}]" if kind == "list" and not text.startswith("[") else text)
    except yaml.YAMLError: value = text
    if not _fits(value, kind) or kind == "list" and not _alike(value, default):
        such = f"values with commas between them{', such as ' * bool(default)}{','.join(map(str, default))}" if kind == "list" else ""
        raise StanhlicError(f"{name} is '{text}'; it takes {dict(int='a whole number', float='a number', bool='true or false', list=such)[kind]}")
    return name, value

def check_parameters(
    entry: dict,                       # of the registry
    profile: str,                      # smoke, compact or paper
    folder: str | Path | None = None,  # holds the notebooks
    settings: list = (),               # changes on top of the profile, name=value each
) -> dict:                             # name -> value, those that differ from the notebook's defaults
    """Parameters of an item in a profile.

    Raises `StanhlicError` if the item has no such profile, its notebook is missing, or a name or value does not fit its parameters cell."""
    if profile not in PROFILES: raise StanhlicError(f"unknown profile '{profile}'; choose {', '.join(PROFILES)}")
    if profile not in entry["parameters"]:
        raise StanhlicError(f"{entry['id']} has no profile {profile} (it has {', '.join(entry['parameters'])}); it needs {entry['needs']}")
    known = defaults(entry, folder)
    given = {**(entry["parameters"][profile] or {}), **dict(read_setting(s, known) for s in settings)}
    if unknown := sorted(given.keys() - known.keys()): raise StanhlicError(f"{entry['id']}: its notebook has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    if wrong := [n for n, v in given.items() if not _fits(v, known[n][0])]: raise StanhlicError(f"{entry['id']}: parameter {wrong[0]} is {given[wrong[0]]!r}, and its notebook takes {known[wrong[0]][0]}")
    check_count(given)
    return given

def check_count(
    given: dict,  # parameters
):
    """Raise `StanhlicError` if less than one picture is asked for."""
    if given.get("n_images", 1) < 1: raise StanhlicError(f"n_images is {given['n_images']}; it takes a whole number from 1 on, and Kodak has 24")

# %% what made the numbers

def digest(
    *parts,  # plain JSON values
) -> str:    # 16 hex digits
    """Beginning of the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

def _as_kept(values): return {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in values.items() if k not in WHERE}

def _input(path):
    "Digest of a file that an item reads; for another item's numbers, without what made them"
    if path.suffix != ".json": return hashlib.sha256(read_bytes(path)).hexdigest()[:16] if path.is_file() else None
    return digest({k: v for k, v in (figure_numbers(path) or {}).items() if k != "made_by"})

def state_of(
    entry: dict,                       # of the registry
    given: dict,                       # parameters that differ from the notebook's defaults
    folder: str | Path | None = None,  # holds the notebook
) -> dict:                             # parameters, notebook, inputs; plain JSON values
    """What a run computes, apart from the weights it reads."""
    values = {name: given.get(name, default) for name, (_, default) in defaults(entry, folder).items()}
    return {"parameters": _as_kept(values), "notebook": digest([source for source, _ in _code(entry, folder)]), "inputs": {p: _input(Path(p)) for p in entry.get("inputs", [])}}

def numbers_file(entry): return next((Path(o) for o in entry["outputs"] if o.endswith(".json")), None)

def other_weights(
    numbers: dict,  # behind a figure
) -> list:          # names
    """Weights that made these numbers and are not those of this installation."""
    from ..zoo import list_models
    here = {m["name"]: m["fingerprint"] for m in list_models()}
    return [name for name, recorded in (numbers.get("made_by") or {}).get("weights", {}).items() if here.get(name) != recorded]

def outdated(
    entry: dict,                       # of the registry
    profile: str,                      # compact or paper
    folder: str | Path | None = None,  # holds the notebooks
) -> list:                             # of words; none if up to date
    """Why an item would run: its outputs are missing, or were made with other weights, parameters, inputs or another notebook."""
    path = numbers_file(entry)
    if path is None or not all(Path(o).is_file() for o in entry["outputs"]): return ["no outputs"]
    numbers, now = figure_numbers(path), state_of(entry, check_parameters(entry, profile, folder), folder)
    made = numbers.get("made_by") or {}
    return ["other weights"] * bool(other_weights(numbers)) + [f"other {part}" for part in now if made.get(part) != now[part]]

# %% running

def _execute(notebook, record, parameters, progress=False):
    "Run a notebook in the current folder; a kernel that lost its port to another while starting is started again"
    with needs("reproduce"): import papermill
    for trial in range(3):
        try: return papermill.execute_notebook(str(notebook), str(record), parameters, cwd=str(Path.cwd()), progress_bar=progress, start_timeout=600, extra_arguments=["--log-level=CRITICAL"])
        except RuntimeError as e:
            if trial == 2 or "before replying" not in str(e): raise

def _aside(entry, profile, known, settings): return profile == "smoke" or settings or "n_images" in known and not has_dataset("kodak")

def run_item(
    entry: dict,                       # of the registry
    profile: str = "smoke",            # smoke, compact or paper
    folder: str | Path | None = None,  # holds the notebooks
    runs: str | Path = "runs",         # where the executed copy goes
    progress: bool = True,             # draw a bar
    settings: list = (),               # changes on top of the profile, name=value each
) -> tuple:                            # the executed copy, the files it wrote
    """Run one item's notebook in the current folder. A smoke run, one with changed parameters and one without Kodak write under `runs`, all others what the registry names.

    Raises `StanhlicError` as `check_parameters` does, or if the notebook fails."""
    with needs("reproduce"): import papermill
    with needs("reproduce"): from nbclient.exceptions import DeadKernelError
    given, known = check_parameters(entry, profile, folder, settings), defaults(entry, folder)
    if "out" in known and entry["outputs"] and not any(s.startswith("out=") for s in settings) and _aside(entry, profile, known, settings):
        given = given | {"out": str(Path(runs, entry["outputs"][0]).parent)}
    places = [p for o in entry["outputs"] for p in {Path(o), Path(runs, o), Path("runs", o), Path(given.get("out", "."), Path(o).name)}]
    stamp = lambda p: p.stat().st_mtime_ns if p.is_file() else None
    before, record = {p: stamp(p) for p in places}, Path(runs) / f"{entry['id']}.{profile}.ipynb"
    record.parent.mkdir(parents=True, exist_ok=True)
    try: _execute(Path(folder or papers_folder()) / entry["notebook"], record, given, {"desc": entry["id"]} if progress else False)
    except papermill.PapermillExecutionError as e:
        said = (str(e.evalue).strip().splitlines() or [""])[-1]
        raise StanhlicError(f"{entry['id']} failed: {e.ename}: {said}; see {record}") from e
    except DeadKernelError as e: raise StanhlicError(f"{entry['id']} failed: its kernel died, often for lack of memory; see {record}") from e
    except (RuntimeError, TimeoutError) as e: raise StanhlicError(f"{entry['id']} failed: its kernel could not be started or did not answer ({' '.join(str(e).split()) or type(e).__name__})") from e
    return record, [str(p) for p in places if stamp(p) != before[p]]

def _in_the_way(entry, profile, folder, settings):
    "What an item needs that is not here, or None"
    if entry["notebook"] is None: return entry["needs"]
    if profile == "smoke" or profile not in entry["parameters"]: return None
    from ..zoo import list_models
    known = defaults(entry, folder)
    given = {**(entry["parameters"][profile] or {}), **dict(read_setting(s, known) for s in settings)}
    name = given.get("model", known.get("model", (None, None))[1])
    if name and name not in [m["name"] for m in list_models()] and not Path(name).is_file(): return f"the weights {name}, which are not in this installation"

def _run_one(entry, profile, folder, runs, progress, force, settings, named):
    "Outcome, detail and outputs of one item"
    if lacking := _in_the_way(entry, profile, folder, settings): return "needs", lacking, []
    if profile not in entry["parameters"] and not named: return "left out", f"has no profile {profile}", []
    if profile in entry["parameters"] and profile != "smoke" and not force and not settings and not outdated(entry, profile, folder):
        return "up to date", "nothing was run; --force runs it", entry["outputs"]
    record, written = run_item(entry, profile, folder, runs, progress, settings)
    numbers = next((figure_numbers(p) for p in written if p.endswith(".json")), None) or {}
    return "smoke" if profile == "smoke" or numbers.get("kind") == "smoke" else "done", str(record), written

def reproduce(
    item: str | None = None,           # id; default: all
    profile: str = "smoke",            # smoke, compact or paper
    folder: str | Path | None = None,  # holds papers.yaml and the notebooks
    runs: str | Path = "runs",         # where executed copies go
    progress: bool = True,             # draw bars
    force: bool = False,               # run even what is up to date
    settings: list = (),               # changes to the profile of one item, name=value each
    report=lambda row: None,           # called with each row as it is ready
) -> list:                             # rows: id, outcome, seconds, detail, outputs
    """Run one item or all, each in the current folder; outcome is done, smoke, up to date, failed, left out or needs.

    Raises `StanhlicError` for an unknown item or profile, or settings that no item takes."""
    if profile not in PROFILES: raise StanhlicError(f"unknown profile '{profile}'; choose {', '.join(PROFILES)}")
    if settings and not item: raise StanhlicError("--set changes the parameters of one item; name it")
    entries, rows = [find_item(item, folder)] if item else list_items(folder), []
    if settings and entries[0]["notebook"]: check_parameters(entries[0], profile, folder, settings)
    for entry in entries:
        start = time.perf_counter()
        try: outcome, detail, outputs = _run_one(entry, profile, folder, runs, progress, force, settings, bool(item))
        except StanhlicError as e: outcome, detail, outputs = "failed", str(e), []
        rows.append(dict(id=entry["id"], outcome=outcome, seconds=time.perf_counter() - start, detail=detail, outputs=outputs))
        report(rows[-1])
    return rows

# %% what the numbers decide

def _look_up(numbers, path):
    "Value at a/b/c in nested mappings and lists, or None"
    for key in path.split("/"):
        if isinstance(numbers, list): numbers = numbers[int(key)] if key.lstrip("-").isdigit() and -len(numbers) <= int(key) < len(numbers) else None
        else: numbers = numbers.get(key) if isinstance(numbers, dict) else None
    return numbers

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
    for needed in _conditions(check):
        value = _look_up(numbers, needed["path"])
        if value is None: return f"not known whether {needed['why']}"
        if value < needed["at_least"]: return needed["why"]
    if "spread" in check:
        runs, limit = _look_up(numbers, check["spread"]) or [], check[next(r for r in RULES if r in check)]
        if len(runs) < 3: return "fewer than three runs"
        if min(runs) < limit < max(runs): return f"the limit lies within the spread of {len(runs)} runs, {shown(min(runs), check.get('unit', ''))} to {shown(max(runs), check.get('unit', ''))}"

def verdicts(
    entry: dict,     # of the registry
    numbers: dict,   # that the item left
) -> list:           # rows: id, says, published, recomputed, counted, ours, unit, digits, held if, rule, kind, arithmetic, headline, holds (None: not measured or not decided), verdict
    """The checks of an item against its numbers; what one is compared with may be a place in them, @a/b/c."""
    kind, rows = numbers.get("kind", "drawn"), []
    for c in entry.get("checks", []):
        ours, beside = _look_up(numbers, c["ours"]), {b: c.get(b) for b in BESIDE}
        beside = {b: _look_up(numbers, v[1:]) if isinstance(v, str) and v.startswith("@") else v for b, v in beside.items()}
        of, holds, why = c.get("kind", kind), _holds(ours, c), _undecided(numbers, c)
        arithmetic = of in ARITHMETIC
        if kind == "smoke" and not arithmetic: verdict, holds = "a smoke run decides nothing", None
        elif holds is None: verdict = f"needs {c['needs']}" if "needs" in c else "not measured"
        else: verdict, holds = (f"undecided: {why}", None) if why else ("yes" if holds else "no", holds)
        if kind == "smoke" and not arithmetic: of = "smoke"
        rows.append(dict(id=entry["id"], says=c["says"], **beside, ours=ours, unit=c.get("unit", ""), digits=c.get("digits"), rule=c["rule"], kind=of, arithmetic=arithmetic, headline=c.get("headline"), holds=holds, verdict=verdict) | {"held if": _limit(c)})
    return rows

def as_text(
    row: dict,  # of `verdicts`
) -> dict:      # claim, published, recomputed or counted, ours, of, held if, rule, held; all text
    """A verdict ready for a table."""
    number = lambda key: "" if row[key] is None else shown(row[key], row["unit"], row["digits"])
    theirs = next((f"{number(b)} ({b})" for b in ARITHMETIC if row[b] is not None), "")
    return {"claim": row["says"], "published": number("published"), "from their points or code": theirs, "ours": shown(row["ours"], row["unit"], row["digits"]) if row["rule"] else "",
            "ours is": "" if row["ours"] is None else SIZES.get(row["kind"], row["kind"]) + ", other weights" * row.get("other_weights", False), "held if": row["held if"], "rule written": row["rule"] and f"{row['rule']} measuring", "held": row["verdict"]}

def kept_numbers(
    entry: dict,               # of the registry
    root: str | Path = ".",    # where figures/ is
) -> dict:                     # empty if the item was not run there at more than smoke size
    """The numbers kept with an item's figure."""
    path = numbers_file(entry)
    numbers = (figure_numbers(Path(root) / path) if path else None) or {}
    return {} if numbers.get("kind") == "smoke" else numbers

def first_table(
    numbers: dict,  # that an item left
) -> list:          # rows with plain values, perhaps none
    """The first table among an item's numbers."""
    tables = [v for v in (numbers.get("table"), *numbers.values()) if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
    plain = [[{k: v for k, v in r.items() if not isinstance(v, (dict, list))} for r in t] for t in tables]
    return next((t for t in plain if any(t)), [])

def overview(
    root: str | Path = ".",            # where figures/ is
    folder: str | Path | None = None,  # holds papers.yaml
) -> list:                             # rows: item, paper, word (yes, no, undecided, needs, arithmetic), other_weights, and those of `verdicts`; of an item without rules one row
    """Where every claim is: decided, undecided, or what it needs."""
    rows = []
    for entry in list_items(folder):
        numbers, head = kept_numbers(entry, root), {"item": entry["id"], "paper": entry["paper"]}
        others = bool(other_weights(numbers))
        for v in verdicts(entry, numbers):
            word = "arithmetic" if v["arithmetic"] else "needs" if v["verdict"] == "not measured" or v["ours"] is None else "undecided" if v["holds"] is None else v["verdict"]
            rows.append(head | v | {"word": word, "other_weights": others})
        if entry["notebook"] is None and not entry.get("checks"):
            nothing = dict.fromkeys(("published", "recomputed", "counted", "ours", "digits", "holds"))
            rows.append(head | nothing | {"word": "needs", "headline": None, "says": entry["claim"], "unit": "", "kind": "", "rule": "", "held if": "", "arithmetic": False, "verdict": f"needs {entry['needs']}", "other_weights": False})
    return rows

def headlines(
    folder: str | Path | None = None,  # holds headlines.yaml
) -> dict:                             # paper -> {letter: claim}
    """The claims that each paper is known by. Rules name theirs by its letter; those of a folder without the file are none."""
    import yaml
    path = Path(folder or papers_folder()) / "headlines.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}

def headline_verdicts(
    root: str | Path = ".",            # where figures/ is
    folder: str | Path | None = None,  # holds papers.yaml
) -> list:                             # rows: paper, letter, claim, word (yes, no, mixed, undecided, needs, missing), rules (rows of `overview`)
    """Every headline claim and the rules that decide it: `mixed` if some held and others did not, the weakest word if not all could be judged, `missing` without a rule."""
    rows, found = overview(root, folder), []
    for paper, claims in headlines(folder).items():
        for letter, claim in claims.items():
            own = [r for r in rows if r["paper"] == paper and r.get("headline") == letter]
            judged = {("yes" if r["holds"] else "no") if r["word"] == "arithmetic" and r["holds"] is not None else r["word"] for r in own}
            word = next((w for w in ("needs", "undecided") if w in judged), None) or ("mixed" if len(judged) > 1 else next(iter(judged), "missing"))
            found.append({"paper": paper, "letter": letter, "claim": claim, "word": word, "rules": own})
    return found

def headline_tally(
    root: str | Path = ".",            # where figures/ is
    folder: str | Path | None = None,  # holds papers.yaml
) -> list:                             # rows, one for a paper: paper, headline claims, held, did not, undecided, needs, missing
    """How many headline claims of each paper are decided here; what is both held and broken by one of several rules counts as did not."""
    rows, names = headline_verdicts(root, folder), {"yes": "held", "no": "did not", "mixed": "did not", "undecided": "undecided", "needs": "needs", "missing": "missing"}
    count = {p: Counter(names[r["word"]] for r in rows if r["paper"] == p) for p in dict.fromkeys(r["paper"] for r in rows)}
    return [{"paper": p, "headline claims": sum(c.values()), **{n: c[n] for n in ("held", "did not", "undecided", "needs", "missing")}} for p, c in count.items()]

def tally(
    root: str | Path = ".",            # where figures/ is
    folder: str | Path | None = None,  # holds papers.yaml
) -> list:                             # rows, one for a paper: paper, yes, no, undecided, needs, arithmetic, rule after
    """How many claims of each paper hold here, fail, are undecided, or need something; checks of arithmetic are counted separately, as held of all. The last number counts the rules written when a measurement already existed."""
    rows, found = overview(root, folder), []
    for paper in dict.fromkeys(e["paper"] for e in list_items(folder)):
        own = [r for r in rows if r["paper"] == paper]
        count, sums = Counter(r["word"] for r in own), [r for r in own if r["word"] == "arithmetic"]
        found.append({"paper": paper, **{w: count[w] for w in ("yes", "no", "undecided", "needs")}, "arithmetic": f"{sum(bool(r['holds']) for r in sums)} of {len(sums)}",
                      "rule after": sum(r.get("rule") == "after" and r["word"] != "arithmetic" for r in own)})
    return found
