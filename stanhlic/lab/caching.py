"""Marks of code, data and weights, so that an expensive result is made once, and made again when something behind it has changed."""

import ast, hashlib, io, json, tokenize
from functools import lru_cache
from pathlib import Path
import stanhlic
from ..container import KINDS
from ..datasets import load_manifest
from ..errors import StanhlicError
from ..images import READ_SUFFIXES, atomic_write, read_bytes

def mark(
    *parts,  # plain JSON values
) -> str:    # 16 hex digits
    """Beginning of the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

@lru_cache(maxsize=256)
def bare(
    source: str,  # Python
) -> str:         # the same without comments, docstrings and empty lines
    """What a source does, without what it says about itself; raises `SyntaxError` if it is not Python."""
    lines, tokens = source.split("\n"), list(tokenize.generate_tokens(io.StringIO(source).readline))
    cuts = [(t.start, t.end) for t in tokens if t.type == tokenize.COMMENT]
    place = lambda row, column: (row, len(lines[row - 1].encode()[:column].decode()))  # ast counts bytes, tokenize characters
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            doc = node.body[0]
            cuts.append((place(doc.lineno, doc.col_offset), place(doc.end_lineno, doc.end_col_offset)))
    for (top, left), (bottom, right) in sorted(cuts, reverse=True):
        lines[top - 1:bottom] = [lines[top - 1][:left] + lines[bottom - 1][right:], *[""] * (bottom - top)]
    inside = {row for t in tokens if tokenize.tok_name[t.type] in ("STRING", "FSTRING_MIDDLE") for row in range(t.start[0], t.end[0])}  # lines that end within a string
    inside -= {row for (top, _), (bottom, _) in cuts for row in range(top, bottom)}
    return "\n".join(line if row in inside else line.rstrip() for row, line in enumerate(lines, 1) if row in inside or line.strip())

_ASIDE = {"stanhlic.stanh.importers", "stanhlic.progressive.importers"}

def _file(module):
    "File of a module of this package, or None"
    stem = Path(stanhlic.__file__).parent.joinpath(*module.split(".")[1:])
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)

@lru_cache(maxsize=256)
def _imports(source, package=""):
    "Modules of this package that a source imports; names that are no modules are left out"
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{a.name}" for a in node.names)}
    return frozenset(m for m in found if m.startswith("stanhlic.") and _file(m))

def reached(
    source: str,  # Python: of a notebook, or one line that imports a module
    rooms=(),     # of stanh, rnn, progressive: those whose codecs the zoo may load here
) -> list:        # names of modules, sorted
    """Modules of this package that run when a source does."""
    seen, ahead = set(), set(_imports(source))
    while ahead:
        module = ahead.pop()
        seen.add(module)
        file = _file(module)
        ahead |= _imports(file.read_text(encoding="utf-8"), module if file.name == "__init__.py" else module.rpartition(".")[0])
        if module == "stanhlic.zoo": ahead |= {f"stanhlic.{room}.codec" for room in rooms}
        ahead -= seen | _ASIDE
    return sorted(seen)

def code_mark(
    source: str,  # as `reached` takes it
    rooms=(),     # likewise
) -> str:         # 16 hex digits
    """Mark of the package's own code that runs when a source does, words left out."""
    import yaml
    files = {m: _file(m) for m in reached(source, rooms)}
    plans = {m: yaml.safe_load(p.read_text(encoding="utf-8")) for m, f in files.items() if m.endswith(".training") and (p := f.with_name("profiles.yaml")).is_file()}
    return mark({m: bare(f.read_text(encoding="utf-8")) for m, f in files.items()}, plans)

def data_mark(
    data: str | Path | list | None,  # folder, files, name of a data set, or None for the data set "train"
) -> str:                            # 16 hex digits
    """Mark of photographs: of a data set's manifest, or of what the files hold. Raises `StanhlicError` if there are none."""
    if not isinstance(data, (list, tuple)) and not Path(data or "train").is_dir():
        return mark(sorted((f["path"], f["sha256"]) for f in load_manifest(str(data or "train"))["files"]))
    files = data if isinstance(data, (list, tuple)) else [p for p in Path(data or "train").rglob("*") if p.suffix.lower() in READ_SUFFIXES and p.is_file()]
    if not files: raise StanhlicError(f"{data}: no photographs there; give a folder that holds some")
    return mark(sorted((Path(p).name, hashlib.sha256(read_bytes(p)).hexdigest()) for p in files))

def kept_folder(
    root: str | Path,  # where such results are kept
    **depends,         # what the result depends on: marks, fingerprints, settings; plain JSON values
) -> Path:             # folder under root, made if it was not there, with depends.json inside
    """Folder for a result that is made once; equal dependencies give the same one. Raises `StanhlicError` if it cannot be made."""
    folder = Path(root) / mark(depends)
    try: folder.mkdir(parents=True, exist_ok=True)
    except OSError as e: raise StanhlicError(f"{folder}: cannot be made ({e.strerror or e}); choose another place") from e
    atomic_write(folder / "depends.json", (json.dumps(depends, indent=1, sort_keys=True, default=str) + "\n").encode())
    return folder
