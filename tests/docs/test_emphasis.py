"""The lines that a listing emphasizes are those that its section is about."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from pathlib import Path

from sybil import Document

from docs.emphasis import emphasized_lines
from tests.docs.mutations import prose_with_code
from tests.docs.sentences import PAGES
from tests.docs.sybil_parsers import literal_includes, locate, read_snippet

# The first lines of functions and classes that a page emphasizes by themselves: what it is about is
# their name or their base class. Elsewhere, that is what they do.
DEFINITIONS = {
    "changing_protocol.rst": ("class BodySerializer(",),
    "socketserver.rst": ("class Greeting",),
    "tcp_servers.rst": (
        "async def on_connection(",
        "async def on_disconnection(",
        "async def service_init(",
    ),
    "udp_servers.rst": ("async def service_init(",),
}

_CODE = re.compile(r"``(.+?)``|:\w[\w:-]*:`~?([^`<]+)", re.DOTALL)
_HEADING = re.compile(r"^.+\n([=*~^-])\1{2,}$", re.MULTILINE)
# Names that say nothing of a line.
_COMMON = {*keyword.kwlist, "self", "client", "str", "int", "Any", "easynetwork"} - {
    *("yield", "except", "finally", "raise"),
}


def names(code: str) -> set[str]:
    """Return the names in some code."""
    return {*re.findall(r"[A-Za-z_]\w+", code)} - _COMMON


def not_named(page: Path) -> Iterator[str]:
    """Yield what a page emphasizes although its section has no name in common with it.

    Name it there, or emphasize the line that the section names.
    """
    text = page.read_text(encoding="utf-8")
    document = Document(text, str(page))
    headings = [0, *(match.start() for match in _HEADING.finditer(text)), len(text)]
    for region in literal_includes(document):
        options = region.lexemes["options"]
        begin = max(place for place in headings if place <= region.start)
        end = min(place for place in headings if place > region.start)
        code = [
            first or second for first, second in _CODE.findall(prose_with_code(text[begin:end]))
        ]
        section = names(" ".join(code))
        listing = read_snippet(locate(document, region), options)
        for entry in options.get("emphasize", "").splitlines():
            lines = [listing[number - 1] for number in emphasized_lines(listing, entry)]
            is_definition = len(lines) == 1 and re.match(r"\s*(async def|def|class) ", lines[0])
            if section.isdisjoint(names("\n".join(lines))) or (
                is_definition
                and not lines[0].lstrip().startswith(DEFINITIONS.get(page.name, ("\n",)))
            ):
                yield f"{page.name}: {entry}"


def test_emphasized_lines_are_named() -> None:
    """A section names what it emphasizes, in code: a function, an argument, an exception."""
    found = [entry for page in PAGES if page.suffix == ".rst" for entry in not_named(page)]
    assert found == []
