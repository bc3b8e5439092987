"""How the site is built. Nothing here needs a network.

The inventories through which pages link to the documentation of Python, anyio and trio are files in
``_inventories``: in Sphinx's own format, but readable, with only the names that pages use. They are
compressed, as Sphinx wants them, when a build starts.
"""

from __future__ import annotations

import itertools
import re
import sys
import zlib
from abc import ABC
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, get_origin

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.config import Config
from sphinx.directives.code import CodeBlock, LiteralInclude
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import easynetwork

# The modules of this folder are found from that of the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.emphasis import emphasized_lines, read_listing, with_emphasis

project = "easynetwork"
author = "the easynetwork authors"
copyright = author  # noqa: A001 - Sphinx's name
version = release = easynetwork.__version__

LOGGER = logging.getLogger(__name__)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_tabs.tabs",
    "docs.values",
]
exclude_patterns = ["_build", "_include"]
nitpicky = True
nitpick_ignore_regex = [
    # Type variables and aliases of the interpreter's own: there is nothing to link to.
    (r"py:.*", r"(.*\.)?(_T\w*|(Sent|Received)(DTO)?|Buffer|Serializer)"),
    (r"py:.*", r"(_typeshed\.)?(ReadableBuffer|WriteableBuffer)"),
    # Aliases that annotations name, unqualified: the page about addresses describes them.
    (r"py:.*", r"AnySocketAddress|RawAncillary"),
    # Sphinx splits the type of an attribute at the comma between its parameters.
    (r"py:class", r"collections\.abc\.Mapping\[[^\]]*"),
]
# A `name` in a docstring is code.
default_role = "literal"

autoclass_content = "both"
autodoc_default_options = {"show-inheritance": True}
# Only a plugin for pytest needs it.
autodoc_mock_imports = ["pytest"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 80
add_module_names = False
# The sidebar is too narrow for the names of classes before those of their methods.
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False

sphinx_tabs_disable_tab_closing = True
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
# Prompts stay, so that lines without one are known to be output, tracebacks included.
copybutton_exclude = ".linenos"

html_theme = "furo"
html_title = f"easynetwork {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_favicon = "_static/favicon.svg"
html_show_copyright = False
html_show_sourcelink = False

INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "anyio": "https://anyio.readthedocs.io/en/stable/",
    "trio": "https://trio.readthedocs.io/en/stable/",
}


def compress_inventories(app: Sphinx, config: Config) -> None:
    """Write the inventories in the form that intersphinx reads, tell it where they are."""
    mapping: dict[str, tuple[str, str]] = {}
    for name, site in INVENTORIES.items():
        source = Path(app.srcdir, "_inventories", f"{name}.txt").read_bytes()
        header, body = source.split(b"zlib.\n", 1)
        target = Path(app.doctreedir, f"{name}.inv")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(header + b"zlib.\n" + zlib.compress(body))
        mapping[name] = (site, str(target))
    config.intersphinx_mapping = mapping


def tidy_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Drop what named tuples say of themselves; let no text before a colon pass for a type.

    The latter is what Napoleon makes of the docstring of an attribute.
    """
    generated = ("Alias for field number", "Create new instance of")
    lines[:] = [line for line in lines if not line.startswith(generated)]
    if any(lines) and what in ("attribute", "data", "property"):
        lines[0] = f": {lines[0]}"


def show_import(
    app: Sphinx, what: str, name: str, obj: Any, options: object, lines: list[str]
) -> None:
    """Begin the docstring of a class with the statement that imports it.

    Sphinx calls this for the docstring of the constructor as well, which follows that of the class.
    """
    if what not in ("class", "exception") or not any(lines):
        return
    if lines[0] not in str(obj.__doc__):
        if not lines[0].startswith(":"):
            lines[0] = f"*Constructor:* {lines[0]}"
    else:
        packages = itertools.accumulate(name.split(".")[:-1], "{}.{}".format)
        exporting = (
            p for p in packages if obj.__name__ in getattr(sys.modules.get(p), "__all__", ())
        )
        if package := next(exporting, None):
            lines[:0] = [f"``from {package} import {obj.__name__}``", ""]


def show_public_bases(
    app: Sphinx, name: str, obj: object, options: object, bases: list[type[Any]]
) -> None:
    """Show the documented base classes of a class, in place of those between them and the class."""
    public = dict.fromkeys(ancestor for base in bases for ancestor in public_bases(base))
    bases[:] = public or [object]


def public_bases(base: type[Any]) -> Iterator[type[Any]]:
    """Yield a base class, or its own base classes if it is not public."""
    cls = get_origin(base) or base
    exported = getattr(sys.modules[cls.__module__], "__all__", [cls.__name__])
    if "._" in cls.__module__ or cls.__name__ not in exported:
        for further in cls.__bases__:
            yield from public_bases(further)
    elif cls not in (object, ABC, Generic):
        yield cls


def module_of_source(app: Sphinx, module: str, name: str) -> str | None:
    """Return the module of an alias of a built-in class; None, the default, for other names.

    Otherwise viewcode would look for its source in `builtins`, and list a page that does not exist.
    """
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return module if getattr(value, "__module__", None) == "builtins" else None


MEANT = {"type": "builtins.type", "BlockingPortal": "anyio.from_thread.BlockingPortal"}


def adjust_page(app: Sphinx, page: nodes.document) -> None:
    """Link names in annotations to what they mean: ``type`` is no attribute of a socket.

    And drop lines that tell nothing of a class, and tell furo, which has its own, that a page's
    table of contents is meant.
    """
    for paragraph in [*page.findall(nodes.paragraph)]:
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)
    for annotation in [*page.findall(addnodes.desc_annotation)]:
        if annotation.astext().endswith("<object object>"):  # a key: its value tells nothing
            annotation.parent.remove(annotation)
    for reference in page.findall(addnodes.pending_xref):
        reference["reftarget"] = MEANT.get(reference["reftarget"], reference["reftarget"])
    for topic in page.findall(nodes.topic):
        if "contents" in topic["classes"]:
            topic["classes"].append("this-will-duplicate-information-and-it-is-still-useful-here")


def prepare_tables(app: Sphinx, page: nodes.document, name: str) -> None:
    """Repeat the headings of wide tables in their cells, and mark the cells that hold a figure.

    On a phone the cells of a row are below each other, and most headings are hidden (custom.css).
    Figures as code are arguments, for which others are no numbers. Long paths may take two lines.
    """
    for table in page.findall(nodes.table):
        rows = [*table.findall(nodes.row)]
        headings = rows[0].children if any(table.findall(nodes.thead)) else []
        for row, column in itertools.product(rows[1:], range(1, len(headings))):
            cell = row[column]
            if FIGURE.fullmatch(cell.astext()) and not any(cell.findall(nodes.literal)):
                cell["classes"].append("figure")
            if len(headings) > 2 and cell.children:
                heading = nodes.inline(classes=["column-heading"])
                heading += nodes.Text(headings[column].astext())
                cell[0].insert(0, heading)
        for code in [*table.findall(nodes.literal)]:
            parts = re.split("(?<=/)(?=[^/])", code.astext())
            if len(parts) > 2:
                code.children = []
                for part in parts:
                    code += [nodes.Text(part), nodes.raw("", "<wbr>", format="html")]


FIGURE = re.compile(r"[\d.,]+( †)?")


def number_emphasized(options: dict[str, Any], listing: Callable[[], list[str]]) -> None:
    """Put the numbers of the emphasized lines in place of their texts, for Sphinx."""
    if texts := options.pop("emphasize", ""):
        numbers = emphasized_lines(listing(), texts)
        options["emphasize-lines"] = ",".join(map(str, numbers))


class Block(CodeBlock):
    """A block of code of the page itself."""

    option_spec = with_emphasis(CodeBlock)

    def run(self) -> list[nodes.Node]:
        """Find the emphasized lines."""
        try:
            number_emphasized(self.options, lambda: [*self.content])
        except ValueError as exc:
            return [self.state.document.reporter.error(str(exc), line=self.lineno)]
        return super().run()


class Listing(LiteralInclude):
    """A listing of an example, with the name of its file and a link to the whole file."""

    option_spec = with_emphasis(LiteralInclude)

    def run(self) -> list[nodes.Node]:
        """Add a caption where the page has none, and the link where it shows a part only."""
        file = Path(self.env.relfn2path(self.arguments[0])[1])
        try:
            number_emphasized(self.options, lambda: read_listing(file, self.options, self.config))
        except (OSError, ValueError) as exc:
            return [self.state.document.reporter.error(str(exc), line=self.lineno)]
        if not file.is_relative_to(EXAMPLES):
            return super().run()
        is_part = not PARTS.isdisjoint(self.options)
        self.options.setdefault("caption", f"{file.name} (excerpt)" if is_part else file.name)
        listing = super().run()
        for block in (block for node in listing for block in node.findall(nodes.literal_block)):
            block.rawsource = f"{block.astext().rstrip()}\n"  # no blank lines at the end
            block[:] = [nodes.Text(block.rawsource)]
        if is_part:
            address = self.env.app.builder.get_relative_uri(self.env.docname, page_of(file))
            link = nodes.reference("", "whole file", refuri=address, internal=True)
            for caption in (caption for node in listing for caption in node.findall(nodes.caption)):
                caption += [nodes.Text(" · "), link]
        return listing


# The options that leave lines of a file out.
PARTS = {"pyobject", "start-after", "start-at", "end-before", "end-at"}
EXAMPLES = Path(__file__).resolve().parent / "_include/examples"


def page_of(file: Path) -> str:
    """Return the name of the page that shows the whole file of an example."""
    return "/".join(("examples", *file.relative_to(EXAMPLES).with_suffix("").parts))


def pages_of_examples(app: Sphinx) -> Iterator[tuple[str, dict[str, object], str]]:
    """Make a page of each file that pages show, with a button to copy it."""
    assert isinstance(app.builder, StandaloneHTMLBuilder)
    for file in sorted(EXAMPLES.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if text.strip():
            code = app.builder.highlighter.highlight_block(text, "python")
            body = f"<h1>{file.name}</h1>\n{code}"
            yield page_of(file), {"title": file.name, "body": body}, "page.html"


def write_texts(app: Sphinx, exception: Exception | None) -> None:
    """Write llms.txt, a list of all pages (see llmstxt.org), and llms-full.txt, their sources."""
    if exception is not None or not isinstance(app.builder, StandaloneHTMLBuilder):
        return
    env = app.env
    descriptions, entries, sources = [], [], []
    for page in in_reading_order(env, env.config.root_doc):
        tree, address = env.get_doctree(page), app.builder.get_target_uri(page)
        descriptions.append(description(tree, page))
        entries.append(f"- [{env.titles[page].astext()}]({address}): {descriptions[-1]}")
        sources += [f"<!-- {address} -->", "", tree.astext(), ""]
    lines = [f"# {project}", "", f"> {descriptions[0]}", "", "## Pages", "", *entries, ""]
    Path(app.outdir, "llms.txt").write_text("\n".join(lines), encoding="utf-8")
    Path(app.outdir, "llms-full.txt").write_text("\n".join(sources), encoding="utf-8")


def in_reading_order(env: BuildEnvironment, page: str) -> Iterator[str]:
    """Yield a page and all pages below it."""
    yield page
    for child in env.toctree_includes.get(page, ()):
        yield from in_reading_order(env, child)


def description(tree: nodes.document, page: str) -> str:
    """Return what a page says of itself, for search engines and lists."""
    for meta in tree.findall(nodes.meta):
        if meta.get("name") == "description":
            return str(meta["content"])
    LOGGER.warning("add a meta directive with a description", location=page)
    return ""


def parse_message(env: BuildEnvironment, text: str, signature: addnodes.desc_signature) -> str:
    """Show a message of the library: its level or class, and its text. Return its name.

    What stands for the directive ``message``. Each has an address, and the search finds it.
    """
    kind, _, rest = text.partition(": ")
    signature += addnodes.desc_annotation(kind, f"{kind}:")
    signature += addnodes.desc_sig_space()
    signature += addnodes.desc_name(rest, rest)
    # The search splits names at their dots, and prefers those with the words in the last part.
    return text.replace("...", "…").replace(". ", "; ").rstrip(".")


def setup(app: Sphinx) -> None:
    """Register the above with Sphinx, which calls this.

    A priority below that of intersphinx (800) or Napoleon (500) runs before it.
    """
    app.add_directive("literalinclude", Listing, override=True)
    app.add_directive("code-block", Block, override=True)
    app.add_object_type("message", "message", parse_node=parse_message, objname="message")
    # Before pages on which the same words are scattered.
    app.registry.domain_object_types["std"]["message"].attrs["searchprio"] = 0
    app.connect("html-collect-pages", pages_of_examples)
    app.connect("build-finished", write_texts)
    app.connect("config-inited", compress_inventories)
    app.connect("autodoc-process-docstring", show_import, priority=600)
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("autodoc-process-docstring", tidy_docstring, priority=400)
    app.connect("viewcode-follow-imported", module_of_source)
    app.connect("doctree-read", adjust_page)
    app.connect("doctree-resolved", prepare_tables)
