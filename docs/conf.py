"""Sphinx settings of the site; `docs/build.py` writes its pages. Nothing is fetched: formulas become MathML here, not in the browser."""
import html
import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError

project = "stanhlic"
author = "The stanhlic developers"
html_title = "stanhlic"
language = "en"
extensions = ["myst_nb"]
exclude_patterns = ["raw"]               # notebooks to download

nb_execution_mode = "off"                # the stored outputs are shown
nb_render_markdown_format = "myst"       # tables in outputs
nb_merge_streams = True
nb_output_stderr = "remove"              # progress bars
myst_enable_extensions = ["attrs_inline", "dollarmath", "fieldlist"]
myst_heading_anchors = 2                 # links to a section of another page
myst_dmath_double_inline = True          # $$ inside a paragraph
smartquotes = False                      # two dashes in a text belong to a command

add_module_names = False
toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_math_renderer = "mathml"


def mathml(tex, display):
    """A formula as MathML; one that cannot be converted stops the build."""
    try: return convert(re.sub(r"\\[bB]igg?[lrm]?(?=\\)", "", tex), display=display)
    except Exception as e: raise ExtensionError(f"formula {tex!r}: {e!r}") from e


def inline(self, node):
    self.body.append(f'<span class="math" title="{html.escape(node.astext())}">{mathml(node.astext(), "inline")}</span>')
    raise SkipNode


def block(self, node):
    self.body.append(f'<span class="math display" tabindex="0">{mathml(node.astext(), "block")}</span>')
    raise SkipNode


def finished(app, pagename, templatename, context, doctree):
    """Pictures load when they are seen, lead to themselves and are named as their section is, what scrolls is reached by keyboard, and a page says what it is."""
    body = context.get("body")
    if not body: return
    plain = lambda text: html.escape(html.unescape(re.sub(r"<a class=\"headerlink\".*?</a>|<[^>]+>", "", text)).strip())
    headings = [(m.start(), plain(m[1])) for m in re.finditer(r"<h[1-6]>(.*?)</h[1-6]>", body, re.S)]
    def picture(m):
        lazy = m[0].replace("<img ", '<img loading="lazy" ', 1)
        section = next((name for start, name in reversed(headings) if start < m.start()), "")
        lazy = re.sub(r'alt="[^"]*_images/[^"]*"', f'alt="{section}"', lazy)  # what a cell has drawn bears a file's name
        return lazy if m[1] or m[2].startswith("data:") else f'<a class="figure" href="{m[2]}">{lazy}</a>'
    body = re.sub(r'(<a [^>]*>\s*)?<img [^>]*?src="([^"]+)"[^>]*>', picture, body)
    body = re.sub(r'<div class="(highlight|table-wrapper[^"]*)">', r'<div class="\1" tabindex="0">', body)
    context["body"] = body
    words = next((text for p in re.findall(r"<p>(.*?)</p>", body, re.S) if (text := html.unescape(re.sub(r"<[^>]+>|\s+", " ", p)).strip())), "")
    words = re.sub(r"\s+([.,;:])", r"\1", re.sub(r"\s+", " ", words))
    if len(words) > 160: words = words[:157].rsplit(" ", 1)[0] + " …"
    if words: context["metatags"] = context.get("metatags", "") + f'\n<meta name="description" content="{html.escape(words)}">'


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("html-page-context", finished, priority=900)  # after the theme has wrapped its tables
