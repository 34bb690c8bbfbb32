#!/usr/bin/env python3
"""The site: pages from the notebooks, the package, the registry, the figures and the weights; then Sphinx. `python docs/build.py [OUT]`

Writes OUT/source (generated pages), OUT/doctrees, OUT/decode (the page that decodes) and OUT/html; OUT is docs/_build unless given. Any warning
is a failure."""
import ast
import base64
import copy
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from itertools import groupby
from os.path import normpath, relpath
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import nbformat  # noqa: E402
from readme import directives, kept  # noqa: E402
from stanhlic import StanhlicError  # noqa: E402
from stanhlic.lab.tables import table  # noqa: E402
from stanhlic.lab.reproduce import as_text, headline_verdicts, list_items, overview, tally  # noqa: E402
from stanhlic.modelfile import inspect_weights  # noqa: E402

ROOMS = {
    "ground": ("Common parts", "Images, metrics, entropy coding, priors, the container, the backbone and training: what the three systems share."),
    "stanh": ("STanH", "One network and a few hundred extra numbers per rate point give a continuous quality dial."),
    "progressive": ("Progressive", "One file that may be cut at any byte after its base."),
    "rnn": ("RNN", "A layered file; every further layer refines the picture."),
}
PAPERS = {"stanh": "STanH", "progressive": "Progressive", "rnn": "RNN", "ours": "Beyond the papers"}
BESIDE = {"docs/train.md": "train/index.md", "docs/browser.md": "browser.md", "RESULTS.md": "results.md", "workflow/README.md": "workflow.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}  # pages that are files of the repository
CARDS = {"00_tour.ipynb": ("Get started", "One photograph through all three codecs, in pictures."), "papers/index.md": ("Reproduce", "Each table and figure of the papers: read it, run it, change it."),
         "train/index.md": ("Train", "Your own photographs, your own networks, the published recipes."), "api/index.md": ("API", "Every module and function, with shapes and units.")}
MENU = {"Start": ["00_tour", "train/index", "browser"], "How it works": ["ground/index", "stanh/index", "progressive/index", "rnn/index"],
        "Papers": ["papers/index", "registry", "results", "gallery", "weights"], "Reference": ["api/index", "Workflow <workflow>", "security", "changelog"]}
USES = {"Use: pictures, files, models": r"stanhlic|stanhlic\.(codec|images|metrics|zoo|modelfile|evaluate|view|pillow|cli|files|errors|datasets|refine|export)|stanhlic\.\w+\.codec",
        "Train and reproduce": r"stanhlic\.(training|soap)|stanhlic\.\w+\.training|stanhlic\.lab.*", "Build: what the codecs are made of": r".*"}
RUNTIME = ("onnxruntime-web", "1.30.0", "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==")  # npm package, SHA-512 of its file
SIGNS = {"yes": "✓", "no": "✗", "undecided": "?", "needs": "…"}
EXPORTED = "Cells with a blue edge are the package: `nbdev-export` writes them to a module. The others are its lessons and tests."


# %% small pieces of Markdown

def escape(text):
    """Plain text for Markdown; what is in backticks stays."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(p if k % 2 else re.sub(r"([\\*_<$\[\]{}])", r"\\\1", p) for k, p in enumerate(parts))


def fence(kind, body, depth=3): return f"{'`' * depth}{{{kind}\n{body}\n{'`' * depth}"
def toctree(names, *options): return fence("toctree}", "\n".join([*(f":{o}:" for o in options), "", *names]))
def grid(rows): return table(rows).data


def verdict(word):
    """A verdict with its sign and its tint; the reason stands plain behind it."""
    name = next((n for n in SIGNS if re.match(rf"{n}\b", word)), "undecided")
    return f"[{SIGNS[name]} {name}]{{.verdict .{name}}} {word.removeprefix(name).lstrip(': ')}".rstrip() if word else ""


def claims(rows, kind_of_table=""):
    """Verdicts as a table of always the same columns, which the style sheet knows."""
    kind = lambda value, how: f"{value} ({how})" if value and how else value
    lines = [({"item": r["item"]} if "item" in r else {}) | {"claim": r["claim"], "theirs": "; ".join(v for v in (r["published"] and f"{r['published']} (published)", r["from their points or code"]) if v),
             "ours": kind(r["ours"], r["ours is"]), "held if": kind(r["held if"], r["rule written"]), "held here": verdict(r["held"])} for r in rows]
    for name in lines[0] if lines else (): lines[0][name] = lines[0][name] or "–" * (not any(r[name] for r in lines))  # an empty column would be left out
    return fence(f"container}} claims{kind_of_table or ' items' * ('item' in rows[0])}", "\n" + grid(lines), 4) if rows else "No rule decides this item: its claim is a picture, or there is none."


def without_item(rows): return [{k: v for k, v in r.items() if k != "item"} for r in rows]


# %% notebooks

def title_of(nb):
    """Title and purpose of a notebook."""
    lines = nb.cells[0].source.splitlines()
    return lines[0].removeprefix("# "), next(x[2:] for x in lines if x.startswith("> "))


def relinked(source, page, file=None):
    """Links of a file of the repository, a notebook unless given, as its page needs them: nbs/ is the top of the site, figures/ and the pages of `BESIDE` lie inside it."""
    def one(m):
        path, _, anchor = normpath(Path(file or f"nbs/{page}").parent / m[1]).partition("#")
        path = BESIDE.get(path) or (path if path.startswith("figures/") else path.removeprefix("nbs/") if path.startswith("nbs/") else None)
        return f"]({relpath(path, Path(page).parent)}{'#' * bool(anchor)}{anchor})" if path else m[0]
    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", one, source)


def prepared(path, page):
    """A notebook as its page shows it: without hidden cells, directives and counts."""
    nb = nbformat.read(path, as_version=4)
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    cells = []
    for cell in nb.cells:
        marks = {m.split()[0] for m in directives(cell.source) if m.strip()} if cell.cell_type == "code" else set()
        for c in kept(cell):
            if c.cell_type == "markdown": c.source = relinked(c.source, page)
            elif not c.source: c.source, c.metadata["tags"] = "pass", ["remove-input"]  # a cell without source would be left out
            elif marks & {"export", "exporti", "exports"}: c.metadata["tags"] = list(dict.fromkeys([*c.metadata.get("tags", []), "export"]))
            for o in c.get("outputs", []):
                if "text/markdown" in o.get("data", {}): o.data["text/markdown"] = relinked("".join(o.data["text/markdown"]), page)
            cells.append(c)
    nb.cells = cells
    return nb


def added(nb, text): nb.cells.append(nbformat.v4.new_markdown_cell(text))


def notebooks(pages, items, rows):
    """Every notebook of nbs/, with what was measured under those of the papers; returns {page: (title, purpose)}."""
    known = {}
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        page = path.relative_to(ROOT / "nbs").as_posix()
        if ".ipynb_checkpoints" in page: continue
        nb = prepared(path, page)
        known[page] = title_of(nb)
        if page != "index.ipynb": nb.cells.insert(1, nbformat.v4.new_markdown_cell(origin(path, page)))
        for item in items:
            if f"papers/{item['notebook']}" == page: measured_here(nb, item, rows.get(item["id"], []), page)
        if page == "index.ipynb": nb.cells.insert(2, nbformat.v4.new_markdown_cell(cards())); added(nb, contents())
        pages[page] = nbformat.writes(nb)
    return known


def origin(path, page):
    """Where a notebook is, how to get it and how to run it; what the blue edge means, where there is one."""
    module = re.search(r"^#\s*\|\s*default_exp\s+(\S+)", "\n".join(c.source for c in nbformat.read(path, as_version=4).cells), re.M)
    blue = f" Cells with a blue edge are the module [stanhlic.{module[1]}]({relpath('api', Path(page).parent)}/stanhlic.{module[1]}.md), the others its lessons and tests." if module else ""
    return fence("container} origin", f"\nNotebook `nbs/{page}`: {{download}}`download </raw/{page}>`, or run it in a clone with `.venv/bin/jupyter lab nbs/{page}`.{blue}", 4)


def measured_here(nb, item, rows, page):
    """How an item is made, under the kept figure and numbers that its notebook begins with; without a figure, verdicts at the end."""
    up = relpath(".", Path(page).parent)
    pictures = [f"{up}/{o}" for o in item["outputs"] if o.endswith(".png") and (ROOT / o).is_file()]
    own = [k for k, c in enumerate(nb.cells) if c.cell_type == "markdown" and any(f"]({p})" in c.source for p in pictures)]
    run = f"`stanhlic reproduce {item['id']} --profile {list(item['parameters'])[-1]}`"
    made = f"Made by {run}. See it among the {{ref}}`claims and verdicts <{label(item)}>`."
    if own: nb.cells.insert(own[0] + 2, nbformat.v4.new_markdown_cell(made))
    else: added(nb, "\n\n".join(["## Measured here", *([f"![{item['title']}]({p})" for p in pictures] or ["No figure of this item is kept yet."]), claims(without_item(rows)), made]))


def beside(name): return (ROOT / name).is_file()
def contents(): return "\n\n".join(toctree([n for n in names if n != "results" or beside("RESULTS.md")], "hidden", f"caption: {caption}") for caption, names in MENU.items())
def cards(): return fence("container} cards", "\n" + "\n".join(f"- [{title}]({page})\n\n  {about}" for page, (title, about) in CARDS.items()), 4)


def rooms(pages, known, items):
    """A page for each room, and one for the papers, whose notebooks stand in the order of the registry."""
    place = {f"papers/{i['notebook']}": k for k, i in enumerate(items)}
    def entries(folder): return {p: known[p] for p in sorted(known, key=lambda p: place.get(p, -1)) if Path(p).parent.as_posix() == folder}
    def lines(found): return "\n".join(f"- [{title}]({Path(p).name}): {purpose}" for p, (title, purpose) in found.items())
    for room, (title, about) in ROOMS.items():
        found = entries(room)
        pages[f"{room}/index.md"] = "\n\n".join([f"# {title}", about, EXPORTED, lines(found), toctree([Path(p).stem for p in found], "hidden")])
    named = [Path(p).name for p in re.findall(r"\]\(([^)]+\.ipynb)\)", pages["train/index.md"])]  # in the order in which the page names them
    found = dict(sorted(entries("train").items(), key=lambda x: (named + [Path(x[0]).name]).index(Path(x[0]).name)))
    pages["train/index.md"] += "\n\n" + "\n\n".join(["## Notebooks", lines(found), toctree([Path(p).stem for p in found], "hidden")])
    sections = []
    for paper, title in PAPERS.items():
        found = entries(f"papers/{paper}")
        own = [i for i in items if i["paper"] == paper and i["notebook"]]
        pictures = [f"[![{i['title']}](../../{o})]({Path(i['notebook']).name})" for i in own for o in i["outputs"] if o.endswith(".png") and (ROOT / o).is_file()]
        pages[f"papers/{paper}/index.md"] = "\n\n".join([f"# {title}", lines(found), *pictures, toctree([Path(p).stem for p in found], "hidden")])
        sections += [f"## {title}", lines(found).replace("](", f"]({paper}/")]
    head = ["# Tables and figures", "One notebook for each. The [gallery](../gallery.md) has the pictures, the [claims and verdicts](../registry.md) what became of each claim."]
    pages["papers/index.md"] = "\n\n".join([*head, *sections, toctree([f"{paper}/index" for paper in PAPERS], "hidden")])


# %% results

def label(item): return "item-" + item["id"].replace("/", "-").replace("_", "-")


def heading(item):
    link = f"[{item['notebook']}](papers/{item['notebook']})" if item["notebook"] else "none yet"
    return f"({label(item)})=\n### {item['id']}\n\n**{escape(item['title'])}**", link


def breakable(name): return re.sub("([/_])", "\\1\u200b", name)  # where a line may end


def counted(rows):
    """The tally of all papers, then of each."""
    names = ("yes", "no", "undecided")
    total = {n: sum(r[n] for r in rows) for n in names}
    head = ", ".join(f"{verdict(n)} {total[n]}" for n in names if total[n])
    return f"Of {sum(total.values())} claims: {head}. Checks of arithmetic are counted apart.\n\n" + fence("container} tally", "\n" + grid([{"paper": PAPERS.get(r["paper"], r["paper"])} | {k: v for k, v in r.items() if k != "paper" and any(x[k] for x in rows)} for r in rows]), 4)


def headlines():
    """The claims that each paper is known by: the rules of each, our numbers, what became of them, and the command that measures again."""
    text, commands = [], {i["id"]: f"`stanhlic reproduce {i['id']} --profile compact --force`" for i in list_items() if "compact" in i["parameters"]}
    for paper, group in groupby(headline_verdicts(ROOT), lambda c: c["paper"]):
        lines = [as_text(r) | {"item": "" if k else f"**{c['letter']}**", "claim": " ".join(filter(None, ["" if k else f"**{escape(c['claim'])}:**", escape(r["says"]) + ".", commands.get(r["item"])]))} for c in group for k, r in enumerate(c["rules"])]
        text += [f"### {PAPERS[paper]}, headline claims", claims(lines, " headline")]
    return text


def registry(pages, items, rows):
    """The table of all claims, then every item."""
    text = ["# Claims and verdicts", "Every table and figure, what it claims, and whether the claim held here. Each rule is marked as written before or after the first measurement that it judges. *Compact* means that our number was measured with the small weights that ship, *recomputed* that it follows from the authors' points, *counted* that it follows from the code alone.",
            counted(tally(ROOT)), "## Headline claims", "What each paper is known by, with the rules that decide it. The command under a rule measures its number again and prints the same line; the executed notebook is then in `runs/`, the numbers with their weights, parameters and commit in `figures/`.", *headlines(),
            "## At a glance", claims([dict(r, item="" if k else f"[{breakable(name)}](#{label({'id': name})})") for name, part in rows.items() for k, r in enumerate(part)])]
    for paper, group in groupby(items, lambda i: i["paper"]):
        text.append(f"## {PAPERS.get(paper, paper)}")
        for item in group:
            head, link = heading(item)
            minutes = ", ".join(f"{k} {v:g}" for k, v in item["minutes"].items()) if isinstance(item["minutes"], dict) else str(item["minutes"] or "")
            facts = {"In the paper": item["item"], "Claim": item["claim"], "Needs": item["needs"], "Status": item["status"], "Minutes on two CPU cores": minutes}
            text += [head, "\n".join([*(f"- {k}: {escape(str(v))}" for k, v in facts.items() if v), f"- Notebook: {link}"]), claims(without_item(rows.get(item["id"], [])))]
    pages["registry.md"] = "\n\n".join(text)


def gallery(pages, items, rows):
    """Every picture of figures/ with the claim and the verdicts of its item."""
    makers = {o: item for item in items for o in item["outputs"]}
    text = ["# Gallery", "Every figure kept in `figures/`, each from the notebook of its item. Hollow marks are published numbers, filled ones are ours."]
    place = {o: k for k, o in enumerate(makers)}
    def order(path): return list((*PAPERS, path.parent.name)).index(path.parent.name), place.get(path.relative_to(ROOT).as_posix(), len(place))
    for folder, group in groupby(sorted((ROOT / "figures").glob("*/*.png"), key=order), lambda p: p.parent.name):
        text.append(f"## {PAPERS.get(folder, folder)}")
        for path in group:
            name = path.relative_to(ROOT).as_posix()
            item = makers.get(name)
            text.append(f"### {escape(item['title'] if item else path.stem)}")
            text.append(f"![{item['title'] if item else path.stem}]({name})")
            if item: text += [f"Claim: {escape(item['claim'])}.", claims(without_item(rows.get(item["id"], []))), f"Notebook [{item['notebook']}](papers/{item['notebook']}), item [{item['id']}](#{label(item)})."]
            else: text.append(f"`{name}` belongs to no item of the registry.")
    pages["gallery.md"] = "\n\n".join(text)


def flat(value, name=""):
    """[(a.b.c, value)] of nested mappings."""
    if isinstance(value, dict): return [x for k, v in value.items() for x in flat(v, f"{name}.{k}" if name else str(k))]
    return [(name, value)]


def shown(value): return "" if value is None else escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).replace("\n", " ")


def weights(pages):
    """Where every shipped weight file comes from, by its own header."""
    text = ["# Weights", "What is shipped, and how each file came to be. All of this is read from the header of the file itself; `stanhlic models` and `stanhlic.zoo.inspect_weights` show it on your machine."]
    for path in sorted((ROOT / "stanhlic/weights").glob("*.safetensors")):
        model = inspect_weights(path)
        facts = {"system": model["system"], "fingerprint": f"`{model['fingerprint']}`", "parameters": f"{model['parameters']:,}", "size": f"{model['bytes'] / 2**20:.1f} MiB", "file": f"`{path.relative_to(ROOT).as_posix()}`"}
        text += [f"## {model['name']}", escape(model.get("description") or ""), grid([{"what": k, "value": v} for k, v in facts.items()])]
        text += ["### Provenance", *provenance(model["provenance"])]
        text += ["### Configuration", fence("code-block} json", json.dumps(model["config"], indent=1, ensure_ascii=False))]
    pages["weights.md"] = "\n\n".join(t for t in text if t)


def provenance(record):
    """Tables: what holds for the whole file or all its stages, then a column for each stage."""
    stages = {k: v for k, v in record.items() if isinstance(v, list) and v and all(isinstance(s, dict) for s in v)}
    whole, tables = dict(flat({k: v for k, v in record.items() if k not in stages})), []
    for found in stages.values():
        columns = [dict(flat(s)) for s in found]
        names = list(dict.fromkeys(k for c in columns for k in c if k != "stage"))
        equal = [k for k in names if len(columns) > 1 and all(c.get(k, c) == columns[0].get(k) for c in columns)]
        whole |= {k: columns[0][k] for k in equal}
        heads = [f"{n}. {c.get('stage', '')}".rstrip(". ") for n, c in enumerate(columns, 1)]
        tables.append(grid([{"differs": k} | {h: shown(c.get(k)) for h, c in zip(heads, columns)} for k in names if k not in equal]))
    return ([grid([{"the same throughout": k, "value": shown(v)} for k, v in whole.items()])] if whole else []) + tables


# %% the package, read and not imported

class Comments:
    """Comments of a module by line, and where signatures end."""

    def __init__(self, source):
        self.tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        self.at = {t.start[0]: t.string.lstrip("# ") for t in self.tokens if t.type == tokenize.COMMENT}

    def closing(self, node):
        """Line of the colon that ends the signature of a function."""
        depth = 0
        for t in self.tokens:
            if t.start[0] < node.lineno or t.type != tokenize.OP: continue
            depth += (t.string in "([{") - (t.string in ")]}")
            if t.string == ":" and not depth: return t.start[0]


def short(node, most=40):
    text = ast.unparse(node)
    return text if len(text) <= most else "..."


def parameters(node, comments):
    """[(name, type, default, meaning)] of a function."""
    a, end = node.args, comments.closing(node)
    plain = a.posonlyargs + a.args
    given = dict(zip(plain[::-1], a.defaults[::-1])) | {k: d for k, d in zip(a.kwonlyargs, a.kw_defaults) if d}
    every = [(x, "") for x in plain] + ([(a.vararg, "*")] if a.vararg else []) + [(x, "") for x in a.kwonlyargs] + ([(a.kwarg, "**")] if a.kwarg else [])
    return [(stars + x.arg, x.annotation, given.get(x), comments.at.get(x.lineno, "") if x.lineno < end else "")
            for x, stars in every if x.arg not in ("self", "cls")]


def signature(node):
    """Names and defaults; the types are with the parameters."""
    a = ast.parse(ast.unparse(node)).body[0].args
    for x in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]:
        if x: x.annotation = None
    a.args = [x for x in a.args if x.arg not in ("self", "cls")]
    a.defaults, a.kw_defaults = [ast.parse(short(d)).body[0].value for d in a.defaults], [d and ast.parse(short(d)).body[0].value for d in a.kw_defaults]
    return f"({ast.unparse(a)})"


def kind_of(node): return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


CLASSES = {}  # name -> full name, of the classes that have a page; a name that two modules give is left out


def linked(kind):
    """A type as Markdown: classes with a page of the API lead there."""
    parts = re.split(rf"\b({'|'.join(CLASSES) or '(?!)'})\b", kind)
    return "".join(f"{{py:class}}`~{CLASSES[p]}`" if k % 2 else f"`{p}`" if p else "" for k, p in enumerate(parts))


def field(name, kind, default, meaning):
    """A parameter as two lines of a field list."""
    text = escape(meaning) + (f" (default `{short(default)}`)" if default is not None else "")
    name = name.replace("*", "\\*")
    return [f":param {name}: {text.strip()}"] + ([f":type {name}: {linked(kind_of(kind))}"] if kind else [])


def prose(node): return "\n".join(line if line.startswith("    ") else escape(line) for line in (ast.get_docstring(node) or "").splitlines())


def function(node, comments, kind="py:function", prefix=""):
    """A function or method as a directive."""
    meaning = comments.at.get(comments.closing(node), "")
    fields = [line for p in parameters(node, comments) for line in field(*p)]
    if meaning: fields.append(f":returns: {escape(meaning)}")
    if node.returns and not (isinstance(node.returns, ast.Constant) and node.returns.value is None): fields.append(f":rtype: {linked(kind_of(node.returns))}")
    return fence(f"{kind}}} {prefix}{node.name}{signature(node)}", "\n".join(["", prose(node), "", *fields]))


def decorators(node): return {ast.unparse(d).split("(")[0] for d in node.decorator_list}


def members(node, comments):
    """Public methods and properties of a class."""
    for m in node.body:
        if not isinstance(m, ast.FunctionDef) or m.name.startswith("_"): continue
        found = decorators(m)
        if found & {"property", "cached_property"}: yield fence(f"py:property}} {m.name}", "\n" + prose(m) + "\n\n" + escape(comments.at.get(comments.closing(m), "")))
        else: yield function(m, comments, "py:method").replace("\n", "\n:staticmethod:\n" if "staticmethod" in found else "\n:classmethod:\n" if "classmethod" in found else "\n", 1)


def class_page(node, comments):
    """A class as a directive: what it is made with, then its methods."""
    init = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
    own = [(f.target.id, f.annotation, f.value, comments.at.get(f.lineno, "")) for f in node.body if isinstance(f, ast.AnnAssign)]
    made = parameters(init, comments) if init else own
    call = signature(init) if init else "(" + ", ".join(n + (f"={short(d)}" if d is not None else "") for n, _, d, _ in own) + ")" if own else ""
    fields = [line for p in made for line in field(*p)]
    return fence(f"py:class}} {node.name}{call}", "\n".join(["", prose(node), "", *fields, "", *members(node, comments)]), 4)


def constant(name, node, comments):
    text = ast.unparse(node.value).replace("\n", " ")
    value = f":value: {text}\n" if len(text) <= 80 and isinstance(node.targets[0], ast.Name) else ""
    return fence(f"py:data}} {name}", f"{value}\n{escape(comments.at.get(node.lineno, ''))}")


def attach(defined, target, value):
    """`Class.name = function` makes the function a method."""
    owner, method = defined.get(ast.unparse(target.value)), value.args[0] if isinstance(value, ast.Call) and value.args else value
    method = defined.get(ast.unparse(method))
    if not isinstance(owner, ast.ClassDef) or not isinstance(method, ast.FunctionDef): return
    method = copy.copy(method)
    method.name, method.decorator_list = target.attr, [value.func] if isinstance(value, ast.Call) else []
    owner.body.append(method)


def public_names(tree):
    """`__all__` of a module; without one, what it defines without an underscore, of constants those in capitals."""
    assigned = [(t, n.value) for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    listed = next((ast.literal_eval(v) for t, v in assigned if ast.unparse(t) == "__all__"), None)
    if listed is not None: return listed
    names = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))] + [o.id for t, _ in assigned for o in ast.walk(t) if isinstance(o, ast.Name) and o.id.isupper()]
    return [n for n in names if not n.startswith("_")]


def module_name(path): return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_page(path):
    """Name and page of a module: its public names in the order of the source."""
    source = path.read_text(encoding="utf-8")
    tree, comments = ast.parse(source), Comments(source)
    name = module_name(path)
    public, defined, parts = public_names(tree), {}, []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            pairs = [p for t in node.targets for p in (zip(t.elts, node.value.elts) if isinstance(t, ast.Tuple) and isinstance(node.value, ast.Tuple) else [(t, node.value)])]
            for target, value in pairs:
                if isinstance(target, ast.Attribute): attach(defined, target, value)
                else: parts += [(t.id, node) for t in ast.walk(target) if isinstance(t, ast.Name) and t.id in public]
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            defined[node.name] = node
            if node.name in public: parts.append(node)
    parts = [constant(*x, comments) if isinstance(x, tuple) else class_page(x, comments) if isinstance(x, ast.ClassDef) else function(x, comments) for x in parts]
    notebook = re.search(r"File to edit: (?:\.\./)+nbs/(\S+\.ipynb)", source)
    about = [prose(tree), f"Written and explained in the notebook [{notebook[1]}](../{notebook[1]})." if notebook else ""]
    return name, "\n\n".join(["# " + name.replace(".", ".\u200b"), fence(f"py:module}} {name}", ""), *about, *parts])


def api(pages):
    paths = [ROOT / "stanhlic/__init__.py", *sorted((ROOT / "stanhlic").rglob("[!_]*.py"))]
    named = [(n.name, f"{module_name(p)}.{n.name}") for p in paths for tree in [ast.parse(p.read_text(encoding="utf-8"))] for n in tree.body if isinstance(n, ast.ClassDef) and n.name in public_names(tree)]
    CLASSES.update({n: full for n, full in named if sum(n == other for other, _ in named) == 1})
    modules = dict(module_page(p) for p in paths)
    for name, text in modules.items(): pages[f"api/{name}.md"] = text
    def row(name): return {"module": f"[{name}]({name}.md)", "what it is for": modules[name].partition("\n```\n\n")[2].splitlines()[0]}
    names = sorted(modules, key=lambda n: (n.count("."), n))
    groups = {}
    for title, belongs in USES.items(): groups[title] = [n for n in names if not any(n in g for g in groups.values()) and re.fullmatch(belongs, n)]
    text = ["# API", "Read from the source; a parameter's meaning is the comment beside it."]
    for title, group in groups.items(): text += [f"## {title}", grid([row(n) for n in group])]
    pages["api/index.md"] = "\n\n".join([*text, toctree([f"{n.removeprefix('stanhlic.')} <{n}>" for n in names], "hidden")])


# %% the page that decodes

def runtime(out):
    """onnxruntime for browsers, as its package has it, without what the page does not load."""
    name, version, digest = RUNTIME
    out.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([shutil.which("npm"), "pack", "--silent", f"{name}@{version}"], cwd=folder, capture_output=True, text=True)
        found = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or not found: raise StanhlicError(f"npm does not bring {name} {version}")
        if base64.b64encode(hashlib.sha512(found.read_bytes()).digest()).decode() != digest: raise StanhlicError(f"{name} {version} is not the file that was tested")
        with tarfile.open(found) as packed:
            for part in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"): (out / part).write_bytes(packed.extractfile(f"package/dist/{part}").read())


def decoder(out, models=None):
    """The page decode.html with all that it loads, for some models, by default the stanh models that ship; raises `StanhlicError` if something for it is missing here."""
    from stanhlic.datasets import sample_photograph
    from stanhlic.export import export
    from stanhlic.zoo import load_codec
    if not shutil.which("npm"): raise StanhlicError("npm is not installed")
    codecs = [load_codec(p, "cpu") for p in models or sorted((ROOT / "stanhlic/weights").glob("stanh-*.safetensors"))]
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs/decode", out / "decode", ignore=shutil.ignore_patterns("*.html", "package.json"))
    shutil.copy(ROOT / "docs/decode/decode.html", out)
    runtime(out / "decode/ort")
    for c in codecs:
        folder = export(c, out / "decode/models" / c.name).parent
        for name in ("analysis", "hyper_analysis"): (folder / f"{name}.onnx").unlink()  # of the encoder
    (out / "decode/models/models.json").write_text(json.dumps([{"name": c.name, "fingerprint": c.fingerprint.hex()} for c in codecs]))
    (out / "decode/example.slic").write_bytes(codecs[0].encode(sample_photograph()))



def opened(text, without):
    """The page about it, with a link to it under its title, or why there is none."""
    head, _, rest = text.partition("\n")
    link = f"This site was built without the page: {escape(without)}." if without else '<p><a href="decode.html"><strong>Open the page</strong></a></p>'
    return "\n\n".join([head, link, rest])


# %% all of it

def write(source, without=None):
    """All pages and pictures into a new folder; `without` says why the page that decodes is not there."""
    items, pages, rows = list_items(), {}, {}
    for r in overview(ROOT): rows.setdefault(r["item"], []).append({"item": r["item"], **as_text(r)})
    pages |= {page: relinked((ROOT / file).read_text(encoding="utf-8"), page, file) for file, page in BESIDE.items() if beside(file)}
    rooms(pages, notebooks(pages, items, rows), items)
    for part in (registry, gallery): part(pages, items, rows)
    weights(pages)
    api(pages)
    pages["browser.md"] = opened(pages["browser.md"], without)
    shutil.rmtree(source, ignore_errors=True)
    for name, text in pages.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text + "\n", encoding="utf-8")
    shutil.copytree(ROOT / "figures", source / "figures", ignore=shutil.ignore_patterns("*.json"), dirs_exist_ok=True)
    shutil.copy(ROOT / "nbs/papers/papers.yaml", source / "papers")
    shutil.copytree(ROOT / "nbs", source / "raw", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "*.yaml"))  # to download


def main():
    from sphinx.cmd.build import build_main
    out = Path(sys.argv[1] if sys.argv[1:] else ROOT / "docs/_build")
    without = None
    try: decoder(out / "decode")
    except StanhlicError as e: without = str(e)
    write(out / "source", without)
    shutil.rmtree(out / "html", ignore_errors=True)
    done = build_main(["-q", "-W", "--keep-going", "-E", "-b", "html", "-c", str(ROOT / "docs"), "-d", str(out / "doctrees"), str(out / "source"), str(out / "html")])
    if not done and not without: shutil.copytree(out / "decode", out / "html", dirs_exist_ok=True)
    if without: print(f"without decode.html: {without}")
    if not done: print(f"site: {out / 'html' / 'index.html'}")
    sys.exit(done)


if __name__ == "__main__": main()
