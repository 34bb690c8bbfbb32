"""The front page keeps what it promises: its size, its links, its numbers, and every command on it."""
import json
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from stanhlic.datasets import has_dataset

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CELLS = [c | {"source": "".join(c["source"])} for c in json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]]
RUN_BY_THE_NOTEBOOK = [c["source"].split("\n", 1)[1].strip() for c in CELLS if c["source"].startswith("%%sh")]  # test_notebooks.py runs these


def lines_of(block): return [re.sub(r"\s+#\s.*$", "", line).strip() for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip()]


COMMANDS = [line for block in re.findall(r"```sh\n(.*?)\n\s*```", README, re.S) if block.strip() not in RUN_BY_THE_NOTEBOOK for line in lines_of(block)]
INLINE = sorted({m for m in re.findall(r"`(make [a-z ]+|make [a-z]+ && [^`]+)`", README)})


def test_it_is_at_most_12_kilobytes(): assert len(README.encode()) <= 12 * 1024


def test_links_lead_to_files():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README) if not re.match(r"https?:|#", link)]
    assert links and [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.long
def test_numbers_are_those_of_the_present_figures_and_weights(tmp_path):
    """The cells that only print are run again, in a process of their own; the texts are those stored."""
    wanted = [c for c in CELLS if c["cell_type"] == "code" and re.match(r"#\| (echo: false|hide)", c["source"])]
    script = "import ast, json\nspace, shown = {}, []\n" + f"for source in {[c['source'] for c in wanted]!r}:\n" + """
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, 'cell', 'exec'), space)
    value = eval(compile(ast.Expression(last.value), 'cell', 'eval'), space) if last else None
    shown.append(getattr(value, 'data', None))
print('\\n' + json.dumps(shown))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path), "STANHLIC_MODELS": ""})
    assert done.returncode == 0, done.stderr
    stored = ["".join(c["outputs"][0]["data"]["text/markdown"]) if c["outputs"] else None for c in wanted]
    assert json.loads(done.stdout.splitlines()[-1]) == stored, "run `make readme`"


# %% the commands

@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder that looks like a clone of the repository; what a command writes goes there."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("nbs", "data", "settings.ini", "constraints.txt", "Makefile"): (folder / name).symlink_to(ROOT / name)
    return folder


def smoke(line):
    """The command with the parameters of a smoke run."""
    less = " -p similarity False -y 'classical: []'" if " -y " in line else ""
    return line.replace("--profile compact", "--profile smoke").replace("n_images 4", "n_images 1") + less


def check_make(line):
    """Targets exist and the Makefile can be read."""
    done = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_pip(line):
    """Pins are those of constraints.txt, files are there, extras exist."""
    ini, pins = ConfigParser(delimiters=["="]), (ROOT / "constraints.txt").read_text().splitlines()
    ini.read(ROOT / "settings.ini")
    words = line.split()[2:]
    assert all(w in pins for w in words if "==" in w)
    if "-c" in words: assert words[words.index("-c") + 1] == "constraints.txt" and words[-1] == "."


@pytest.mark.long
@pytest.mark.parametrize("line", COMMANDS)
def test_command(line, clone):
    if line.startswith("git clone "): return
    if line.startswith("make "): return check_make(line)
    if line.startswith("pip install "): return check_pip(line)
    if line.startswith("stanhlic fetch ") and not has_dataset(line.split()[-1]): pytest.skip("would fetch")
    done = subprocess.run(["bash", "-c", smoke(line)], cwd=clone, capture_output=True, text=True, env=os.environ | {"MPLBACKEND": "agg"})
    assert done.returncode == 0, done.stderr[-3000:]
    written = [w for w in re.findall(r"runs/\S+\.ipynb", line)]
    assert all((clone / w).is_file() for w in written)


@pytest.mark.parametrize("line", INLINE)
def test_make_targets_in_the_text(line): check_make(line.partition(" && ")[0])


def test_extras_in_the_text_exist():
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini")
    named = {e for group in re.findall(r"'\.\[([\w,]+)\]'", README) for e in group.split(",")}
    assert named and named <= {k.removesuffix("_requirements") for k in ini["DEFAULT"]}


def test_commands_in_the_text_exist(cli):
    listed = re.search(r"`stanhlic --help` lists the rest: ([^.]+)\.", README)[1]
    said = cli("--help").stdout
    assert [w for w in re.findall(r"`(\w+)`", listed) if not re.search(rf"\b{w}\b", said)] == []


# %% where it is published

@pytest.mark.parametrize("text, want", [
    ("[a](docs/train.md)", "[a](https://x.org/r/blob/main/docs/train.md)"), ("![a](figures/hero.png)", "![a](https://x.org/r/raw/main/figures/hero.png)"),
    ("[a](https://b.org) [c](#d)", "[a](https://b.org) [c](#d)")])
def test_links_become_absolute_where_the_repository_has_an_address(text, want, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import readme
    assert readme.absolute(text, "https://x.org/r") == want
