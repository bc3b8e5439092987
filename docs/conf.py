"""How the site is built. Nothing here needs a network.

The inventories through which pages link to the documentation of Python, anyio and trio are files in
``_inventories``: in Sphinx's own format, but readable, with only the names that pages use. They are
compressed, as Sphinx wants them, when a build starts.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config

import easynetwork

project = "easynetwork"
author = "the easynetwork authors"
copyright = author  # noqa: A001 - Sphinx's name
version = release = easynetwork.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_tabs.tabs",
]
exclude_patterns = ["_build", "_include"]
nitpicky = True
nitpick_ignore_regex = [
    # Type variables and aliases of the interpreter's own: there is nothing to link to.
    (r"py:.*", r"(.*\.)?(_T\w*|(Sent|Received)(DTO)?|Buffer|Serializer)"),
    (r"py:.*", r"(_typeshed\.)?(ReadableBuffer|WriteableBuffer)"),
]
# A `name` in a docstring is code.
default_role = "literal"

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False

sphinx_tabs_disable_tab_closing = True
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"easynetwork {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]

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
    if lines and what in ("attribute", "data", "property"):
        lines[0] = f": {lines[0]}"


MEANT = {"type": "builtins.type", "BlockingPortal": "anyio.from_thread.BlockingPortal"}


def adjust_page(app: Sphinx, page: nodes.document) -> None:
    """Link names in annotations to what they mean: ``type`` is no attribute of a socket.

    And tell furo, which has its own, that a page's table of contents is meant.
    """
    for reference in page.findall(addnodes.pending_xref):
        reference["reftarget"] = MEANT.get(reference["reftarget"], reference["reftarget"])
    for topic in page.findall(nodes.topic):
        if "contents" in topic["classes"]:
            topic["classes"].append("this-will-duplicate-information-and-it-is-still-useful-here")


def setup(app: Sphinx) -> None:
    """Called by Sphinx. Each before the one who would look (intersphinx: 800, Napoleon: 500)."""
    app.connect("config-inited", compress_inventories)
    app.connect("autodoc-process-docstring", tidy_docstring, priority=400)
    app.connect("doctree-read", adjust_page)
