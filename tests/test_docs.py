"""The site: complete, without a warning, every link and picture there, nothing fetched, and readable on a phone."""
import ast
import importlib.util
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from stanhlic.lab.reproduce import list_items
from stanhlic.modelfile import inspect_weights

ROOT = Path(__file__).resolve().parent.parent
LIB, NBS = ROOT / "stanhlic", ROOT / "nbs"
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(LIB.rglob("*.py")) if not p.name.startswith("_")}
NOTEBOOKS = [p.relative_to(NBS).with_suffix("").as_posix() for p in sorted(NBS.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
MODELS = [inspect_weights(p) for p in sorted((LIB / "weights").glob("*.safetensors"))]
MISSING = [n for n in ("sphinx", "myst_nb", "furo", "latex2mathml") if importlib.util.find_spec(n) is None]

needs_sphinx = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install -c constraints.txt -e '.[docs]'")


# %% the pages, before Sphinx

@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs/build.py")
    module, before = importlib.util.module_from_spec(spec), sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def pages(build, tmp_path_factory):
    """Name -> text of every page that goes into Sphinx."""
    source = tmp_path_factory.mktemp("pages") / "source"
    build.write(source)
    return {p.relative_to(source).as_posix(): p.read_text(encoding="utf-8") for p in source.rglob("*") if p.suffix in (".md", ".ipynb")}


def test_every_item_figure_and_model_is_there(pages):
    registry, gallery, weights = (pages[n] for n in ("registry.md", "gallery.md", "weights.md"))
    assert [i["id"] for i in list_items() if f"### {i['id']}\n" not in registry] == []
    assert [p.name for p in (ROOT / "figures").glob("*/*.png") if f"(figures/{p.parent.name}/{p.name})" not in gallery] == []
    assert MODELS and [m["name"] for m in MODELS if f"## {m['name']}\n" not in weights or m["fingerprint"] not in weights] == []


def test_every_module_has_a_page_with_every_public_name(build, pages):
    for name, path in MODULES.items():
        described = re.findall(r"^`{3,4}\{py:\w+\} (\w+)", pages[f"api/{name}.md"], re.M)
        assert [n for n in build.public_names(ast.parse(path.read_text(encoding="utf-8"))) if n not in described] == [], name


def test_what_stands_beside_a_parameter_stands_on_its_page(pages):
    assert re.search(r"^:param device: auto, cpu, cuda.*\(default `'auto'`\)$", pages["api/stanhlic.zoo.md"], re.M)
    assert ":returns: holds the .csv files" in pages["api/stanhlic.lab.curves.md"]
    codec = pages["api/stanhlic.codec.md"]
    assert "{py:method} quality_for(image, " in codec and ":param self:" not in codec
    assert [n for n in ("load", "encode", "decode", "info", "models") if f"{{py:function}} {n}(" not in pages["api/stanhlic.md"]] == []


def test_claims_have_one_form(build, pages):
    """The style sheet counts columns from the end; a verdict has its sign and its class."""
    heads = [line for text in pages.values() for block in re.findall(r"\{container\} claims[^\n]*\n+(.*)", text) for line in [block]]
    assert len(heads) > 20 and {re.sub(r"\s*\|\s*", "|", h.strip()) for h in heads if h.startswith("|")} <= {f"|{i}claim|theirs|ours|held if|held here|" for i in ("", "item|")}
    assert [build.verdict(w) for w in ("yes", "no", "undecided: few", "needs data", "not measured", "")] == ["[✓ yes]{.verdict .yes}", "[✗ no]{.verdict .no}", "[? undecided]{.verdict .undecided} few", "[… needs]{.verdict .needs} data", "[? undecided]{.verdict .undecided} not measured", ""]
    assert re.search(r"Of \d+ claims: \[✓ yes\]\{\.verdict \.yes\} \d+", pages["registry.md"])


def test_every_headline_claim_has_its_command_its_number_and_its_verdict(pages):
    from stanhlic.lab.reproduce import headline_verdicts
    text = pages["registry.md"]
    tables = text[text.index("## Headline claims"):text.index("## At a glance")]
    claims = headline_verdicts(ROOT)
    assert claims and [c["claim"] for c in claims if c["claim"] not in tables.replace("\\", "")] == []
    decided = [r for c in claims for r in c["rules"] if r["ours"] is not None]
    assert decided and [r["item"] for r in decided if f"stanhlic reproduce {r['item']} --profile compact --force" not in tables] == []
    assert tables.count("{.verdict") == sum(len(c["rules"]) for c in claims)


def test_the_papers_stand_in_the_order_of_the_registry(pages):
    for paper in ("stanh", "progressive", "rnn", "ours"):
        order = list(dict.fromkeys(Path(i["notebook"]).stem for i in list_items() if i["paper"] == paper and i["notebook"]))
        page = pages[f"papers/{paper}/index.md"]
        assert re.findall(r"(?m)^(\w+)$", page[page.rindex("{toctree}"):]) == order
    shown = re.findall(r"!\[[^\]]*\]\(figures/(\w+/\w+)\.png\)", pages["gallery.md"])
    assert [n for n in shown if n.startswith("rnn/")] == ["rnn/" + Path(o).stem for i in list_items() for o in i["outputs"] if o.startswith("figures/rnn/") and o.endswith(".png") and (ROOT / o).is_file()]


def test_a_type_leads_to_its_class(build, pages):
    assert ":rtype: {py:class}`~stanhlic.stanh.file.Position`" in pages["api/stanhlic.stanh.codec.md"]
    build.CLASSES["Curve"] = "stanhlic.lab.curves.Curve"
    assert build.linked("list[Curve] | None") == "`list[`{py:class}`~stanhlic.lab.curves.Curve``] | None`"


def test_every_notebook_says_where_it_is(pages):
    for name in NOTEBOOKS:
        if name == "index": continue
        text = "".join(json.loads(pages[f"{name}.ipynb"])["cells"][1]["source"])
        assert f"`nbs/{name}.ipynb`" in text and f"</raw/{name}.ipynb>" in text, name
    assert "blue edge are the module [stanhlic.metrics](../api/stanhlic.metrics.md)" in pages["ground/01_metrics.ipynb"]


def test_the_api_index_has_every_module_once_and_what_it_is_for(pages):
    rows = re.findall(r"(?m)^\|\s*\[(stanhlic[\w.]*)\]\([^)]*\)\s*\|\s*(.*?)\s*\|$", pages["api/index.md"])
    assert sorted(n for n, _ in rows) == sorted({"stanhlic", *(n for n in MODULES)}) and [n for n, what in rows if len(what) < 15] == []
    assert len(re.findall(r"(?m)^## ", pages["api/index.md"])) == 3


@pytest.mark.parametrize("source, want", [
    ("__all__ = ['a']\ndef a(): pass\ndef b(): pass", ["a"]), ("def a(): pass\ndef _b(): pass\nclass C: pass\nN, m, _O = 1, 2, 3", ["a", "C", "N"])])
def test_public_names(build, source, want): assert build.public_names(ast.parse(source)) == want


def test_cells(build, tmp_path):
    """Hidden cells go, exported ones are marked, a shell cell keeps its output."""
    import nbformat
    new = nbformat.v4.new_code_cell
    shell = new("%%sh\nls", outputs=[nbformat.v4.new_output("stream", text="a.png\n")])
    nb = nbformat.v4.new_notebook(cells=[new("#| hide\nimport os"), new("#| export\nx = 1"), new("y = 2"), shell])
    nbformat.write(nb, tmp_path / "a.ipynb")
    cells = build.prepared(tmp_path / "a.ipynb", "ground/a.ipynb").cells
    assert [c.source for c in cells[:3]] == ["x = 1", "y = 2", "```sh\nls\n```"]
    assert [c.metadata.get("tags") for c in cells] == [["export"], None, None, ["remove-input"]] and cells[3].outputs[0].text == "a.png\n"


@pytest.mark.parametrize("text, page, want", [
    ("![a](../figures/stanh/a.png)", "index.ipynb", "![a](figures/stanh/a.png)"), ("[a](../../figures/x.png)", "ground/01_a.ipynb", "[a](../figures/x.png)"),
    ("[a](../ground/b.ipynb)", "stanh/a.ipynb", "[a](../ground/b.ipynb)"), ("[a](https://b.org/figures/)", "index.ipynb", "[a](https://b.org/figures/)")])
def test_links_of_a_notebook(build, text, page, want): assert build.relinked(text, page) == want


@pytest.mark.parametrize("file, text, want", [
    ("docs/train.md", "[a](../nbs/train/rnn.ipynb)", "[a](rnn.ipynb)"), ("docs/train.md", "[a](../workflow/README.md)", "[a](../workflow.md)"),
    ("RESULTS.md", "[a](nbs/papers/stanh/forms.ipynb#cost)", "[a](papers/stanh/forms.ipynb#cost)"), ("RESULTS.md", "![a](figures/b.png)", "![a](figures/b.png)")])
def test_links_of_a_file_that_is_a_page(build, file, text, want): assert build.relinked(text, build.BESIDE[file], file) == want


def test_the_tour_comes_first_and_the_front_page_says_where_to_start(pages):
    front = ["".join(c["source"]) for c in json.loads(pages["index.ipynb"])["cells"]]
    assert re.findall(r"(?m)^00_tour$|^[a-z]+/index$", "\n".join(front))[0] == "00_tour"
    cards = next(text for text in front if "{container} cards" in text)
    assert [re.search(rf"\[{name}\]\((\S+)\)", cards)[1] in pages for name in ("Get started", "Reproduce", "Train", "API")] == [True] * 4


def test_the_page_that_decodes_is_linked_or_its_absence_explained(build):
    assert build.opened("# A\nb", None) == '# A\n\n<p><a href="decode.html"><strong>Open the page</strong></a></p>\n\nb'
    assert build.opened("# A\nb", "npm is not installed") == "# A\n\nThis site was built without the page: npm is not installed.\n\nb"


def test_links_of_all_notebooks_lead_to_files():
    """Also without Sphinx."""
    broken = []
    for name in NOTEBOOKS:
        path = NBS / f"{name}.ipynb"
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "markdown": continue
            links = re.findall(r"\]\((?!https?:|#)([^)\s#]+)(?:#[^)\s]*)?\)", "".join(cell["source"]))
            broken += [(name, link) for link in links if not (path.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("text, want", [("uint8 [H, W] of a_b", r"uint8 \[H, W\] of a\_b"), ("`a_b[0]` or *", r"`a_b[0]` or \*"), ("$HOME <x>", r"\$HOME \<x>")])
def test_escape(build, text, want): assert build.escape(text) == want


# %% the site

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, ROOT / "docs/build.py", out], capture_output=True, text=True)
    assert (done.returncode, "WARNING" in done.stdout + done.stderr) == (0, False), done.stderr[-4000:]
    return out / "html"


class Page(HTMLParser):
    """Ids, links, what the browser fetches by itself, and the prose of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.fetched, self.prose, self.quiet = {""}, [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[k] for k in ("id", "name") if given.get(k)}
        if tag == "a" and given.get("href"): self.links.append(given["href"])
        elif tag == "link" and given.get("href") or given.get("src"): self.fetched.append(given.get("href") or given["src"])
        if tag in ("pre", "code", "math", "script", "style"): self.quiet.append(tag)

    def handle_endtag(self, tag):
        if self.quiet and tag == self.quiet[-1]: self.quiet.pop()

    def handle_data(self, data):
        if not self.quiet: self.prose.append(data)


@pytest.fixture(scope="module")
def parsed(site): return {p: Page(p) for p in site.rglob("*.html")}


@needs_sphinx
@pytest.mark.slow
def test_every_notebook_and_module_has_a_page(site):
    assert [n for n in [*NOTEBOOKS, *(f"api/{m}" for m in MODULES), "registry", "gallery", "weights"] if not (site / f"{n}.html").is_file()] == []


@needs_sphinx
@pytest.mark.slow
def test_links_and_pictures_resolve_and_nothing_is_fetched(parsed):
    broken, foreign = [], []
    for path, page in parsed.items():
        for address in page.links + page.fetched:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.fetched and parts.scheme != "data": foreign.append((path.name, address))
                continue
            name, anchor = urldefrag(address)
            target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            if not target.is_file() or target in parsed and unquote(anchor) not in parsed[target].ids: broken.append((path.name, address))
    assert (broken, foreign) == ([], [])


@needs_sphinx
@pytest.mark.slow
def test_every_name_is_described_and_every_formula_is_set(build, site, parsed):
    assert [f"{m}.{n}" for m, path in MODULES.items() for n in build.public_names(ast.parse(path.read_text(encoding="utf-8"))) if f"{m}.{n}" not in parsed[site / f"api/{m}.html"].ids] == []
    assert "<math" in (site / "stanh/00_quantizer.html").read_text(encoding="utf-8")
    left = {p.name: re.findall(r".{0,20}(?:\$\$|\\(?:frac|beta|sum|mathrm)\b).{0,20}", " ".join(page.prose)) for p, page in parsed.items()}
    assert {n: found for n, found in left.items() if found} == {}


@needs_sphinx
@pytest.mark.slow
def test_pictures_are_lazy_and_lead_to_themselves_and_pages_describe_themselves(site):
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    article = gallery[gallery.index("<article"):gallery.index("</article>")]
    shown = re.findall(r'<a class="figure" href="([^"]+)"><img loading="lazy"[^>]*?src="([^"]+)"', article)
    assert len(shown) == article.count("<img ") > 20 and all(a == b for a, b in shown)
    pages = [p for p in site.rglob("*.html") if p.name not in ("genindex.html", "py-modindex.html", "search.html")]
    assert [p.name for p in pages if not re.search(r'<meta name="description" content="[^"]{10,165}"', p.read_text(encoding="utf-8"))] == []
    pictures = re.findall(r'<img [^>]*?alt="([^"]*)"', "".join((site / f"{n}.html").read_text(encoding="utf-8") for n in ("00_tour", "stanh/00_quantizer", "gallery", "papers/stanh/rd_kodak")))
    assert len(pictures) > 40 and [a for a in pictures if len(a) < 4 or "/" in a and a.endswith(".png")] == []
    assert 'title="stanhlic.stanh.file.Position"' in (site / "api/stanhlic.stanh.codec.html").read_text(encoding="utf-8")
    assert re.search(r'class="highlight"[^>]*tabindex="0"', (site / "stanh/00_quantizer.html").read_text(encoding="utf-8"))
    assert (site / "_static/stix-two-math.woff2").stat().st_size < 100_000 and (site / "_static/stix-two-math-OFL.txt").exists()


# %% in a browser

@needs_sphinx
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_scrolls_sideways_and_the_console_is_silent(browser, site, width):
    browser("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}})
    wide, inner, said = {}, {}, []
    some = ["index", "registry", "gallery", "weights", "papers/index", "papers/stanh/index", "stanh/00_quantizer", "papers/stanh/rd_kodak", "api/stanhlic.stanh.codec", "search"]
    for name in [*some, *NOTEBOOKS, *(f"api/{m}" for m in MODULES)] if width < 500 else some:
        browser("/url", {"url": (site / f"{name}.html").as_uri()})
        if (scroll := browser.run("document.documentElement.scrollWidth")) > width: wide[name] = scroll
        said += browser("/se/log", {"type": "browser"})
        if name in ("index", "registry"): inner[name] = browser.run("[...document.querySelectorAll('.claims, .tally .table-wrapper, .claims .table-wrapper, .cell_output')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.trim().slice(0, 40))")
    assert (wide, inner, said) == ({}, {"index": [], "registry": []}, [])


@needs_sphinx
@pytest.mark.slow
def test_a_module_does_not_look_like_a_link_in_the_dark(browser, site):
    theme = lambda *features: browser("/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": [{"name": "prefers-color-scheme", "value": v} for v in features]}})
    theme("dark")
    browser("/url", {"url": (site / "index.html").as_uri()})
    found = browser.run("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('article .nn')).textDecorationLine]")
    theme()
    assert found[0] != "rgb(255, 255, 255)" and found[1] == "none"
