#!/usr/bin/env python3
"""README.md from nbs/index.ipynb, its only source. `--run` executes that notebook first, so that every number is that of the present
figures and weights; `--check` writes nothing and fails where README.md differs from what is stored.

`#| hide` cells go, `#| echo: false` cells keep only their output, other `#|` lines go, a `%%sh` cell becomes a shell block."""
import os
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
INDEX, README = ROOT / "nbs/index.ipynb", ROOT / "README.md"
NOTE = "<!-- Written by tools/readme.py from nbs/index.ipynb: change that notebook, then `make readme`. -->\n\n"


def directives(source): return {m.strip() for m in re.findall(r"^#\s*\|(.*)$", source, re.M)}


def shell(source):
    "A `%%sh` cell as a fenced block."
    return "```sh\n" + source.split("\n", 1)[1].strip() + "\n```"


def joined(outputs):
    "Outputs with neighboring pieces of one stream put together again."
    whole = []
    for o in outputs:
        if whole and o.output_type == "stream" == whole[-1].output_type and o.name == whole[-1].name: whole[-1].text += o.text
        else: whole.append(o)
    return whole


def kept(cell):
    "The cells that `cell` becomes in the README, or none."
    if cell.cell_type != "code": return [cell]
    marks = directives(cell.source)
    cell.source = re.sub(r"^#\s*\|.*\n?", "", cell.source, flags=re.M).strip()
    if marks & {"hide", "include: false"} or any(m.startswith("default_exp") for m in marks): return []
    head = []
    if cell.source.startswith("%%sh"): head, cell.source = [nbformat.v4.new_markdown_cell(shell(cell.source))], ""
    if "echo: false" in marks: cell.source = ""
    cell.outputs = joined(cell.outputs)
    return head + ([cell] if cell.source or cell.outputs else [])


def run():
    "Execute the notebook with this interpreter and store its outputs."
    from nbclient import NotebookClient
    from nbdev.clean import nbdev_clean
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])        # its shell cells call `stanhlic`
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    nb = nbformat.read(INDEX, as_version=4)
    NotebookClient(nb, timeout=600, resources={"metadata": {"path": str(INDEX.parent)}}).execute()
    nbformat.write(nb, INDEX)
    nbdev_clean(str(INDEX))


def address():
    "Where the repository is published, from settings.ini: `Repository = URL` under urls; None while it is nowhere."
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    known = dict(line.split(" = ") for line in ini["DEFAULT"].get("urls", "").splitlines() if line.strip())
    return known.get("Repository")


def absolute(text, base):
    "Links into the repository as a page elsewhere, such as a package index, needs them."
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\1{base}/raw/main/", text)
    return re.sub(r"\]\((?!https?:|#)", f"]({base}/blob/main/", text)


def render():
    "The whole README as text."
    nb = nbformat.read(INDEX, as_version=4)
    nb.metadata["language_info"] = {"name": "python"}                   # cleaning drops it; the fences need it
    nb.cells = [o for cell in nb.cells for o in kept(cell)]
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources.get("outputs"): sys.exit("readme: index.ipynb stores a picture in a cell; save it under figures/ and link it")
    text = re.sub(r"^```python\n+```\n", "", text, flags=re.M)          # outputs whose source is left out
    text = re.sub(r"\]\((?!https?:|#|\.\./)", "](nbs/", text).replace("](../", "](")  # links, seen from one folder up
    if address(): text = absolute(text, address())
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return NOTE + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def main():
    if "--run" in sys.argv[1:]: run()
    text = render()
    if "--check" not in sys.argv[1:]: README.write_text(text, encoding="utf-8")
    elif not README.exists() or README.read_text(encoding="utf-8") != text: sys.exit("readme: README.md differs from nbs/index.ipynb; run `make readme`")


if __name__ == "__main__": main()
