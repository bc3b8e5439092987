"""The lines that a listing emphasizes are those that its section is about."""

from __future__ import annotations

import collections
import dataclasses
import keyword
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
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

_CODE = re.compile(r"``(.+?)``|:(?:attr|class|data|exc|func|keyword|meth|mod):`([^`<]+)", re.DOTALL)
# The modules in front of a name. A reference with a tilde does not show them.
_MODULES = re.compile(r"^~\.?(?:[a-z_]\w*\.)*")
_HEADING = re.compile(r"^.+\n([=*~^-])\1{2,}$", re.MULTILINE)
_DEFINITION = re.compile(r"(?:async def|def|class) ")
# Names that say nothing of a line.
_COMMON = {
    *{*keyword.kwlist}.difference(("yield", "except", "finally", "raise")),
    *("self", "client", "str", "int", "Any", "easynetwork"),
    *("of", "such"),  # words of messages
}


@dataclasses.dataclass(frozen=True)
class Emphasis:
    """What one line of an option ``emphasize`` marks in a listing."""

    place: str
    lines: list[str]
    beside: list[str]  # the lines directly before and after it, if nothing emphasizes them
    section: collections.Counter[str]  # the names in code that the section has in its text

    def is_definition(self) -> bool:
        return len(self.lines) == 1 and bool(_DEFINITION.match(self.lines[0]))

    def named(self, lines: Iterable[str]) -> list[str]:
        """Return the names of some lines that the section has, each as often as it is there."""
        found = {name for line in lines for name in names(line)}
        return sorted(name for name in self.section.elements() if name in found)


def names(code: str) -> list[str]:
    """Return the names in some code."""
    return [name for name in re.findall(r"[A-Za-z_]\w+|\d[\d._]+", code) if name not in _COMMON]


def names_in_prose(text: str) -> collections.Counter[str]:
    """Return the names that the prose of a page has in code, as its reader sees them."""
    found = _CODE.findall(prose_with_code(text))
    shown = (literal or _MODULES.sub("", role) for literal, role in found)
    return collections.Counter(name for code in shown for name in names(code))


def emphases(page: Path, text: str) -> Iterator[Emphasis]:
    """Yield what the listings of a page emphasize."""
    document = Document(text, str(page))
    headings = [0, *(match.start() for match in _HEADING.finditer(text)), len(text)]
    for region in literal_includes(document):
        texts = region.lexemes["options"].get("emphasize", "")
        begin = max(place for place in headings if place <= region.start)
        end = min(place for place in headings if place > region.start)
        section = names_in_prose(text[begin:end])
        listing = read_snippet(locate(document, region), region.lexemes["options"])
        shown = dict(enumerate(map(str.strip, listing), start=1))
        taken = emphasized_lines(listing, texts)
        line = text.count("\n", 0, region.start) + 1
        for entry in texts.splitlines():
            numbers = emphasized_lines(listing, entry)
            around = {numbers[0] - 1, numbers[-1] + 1}.difference(taken)
            yield Emphasis(
                f"{page.name}:{line}: {entry}",
                [shown[number] for number in numbers],
                [shown[number] for number in sorted(around) if shown.get(number)],
                section,
            )


def not_named(page: Path, text: str) -> Iterator[str]:
    """Yield what a page emphasizes although its section has no name in common with it."""
    definitions = DEFINITIONS.get(page.name, ("\n",))
    for found in emphases(page, text):
        if not found.named(found.lines):
            yield f"{found.place}: name it in the section, or emphasize what the section names"
        if found.is_definition() and not found.lines[0].startswith(definitions):
            yield f"{found.place}: emphasize what it does, not the first line of a definition"


def not_named_more(page: Path, text: str) -> Iterator[str]:
    """Yield what a page emphasizes although its section says as much about the line beside it.

    The section must have more names of the emphasized line. If both lines have as many of them, it
    must have those of the emphasized line more often. The first line of a definition does not
    count, unless it may be emphasized itself.
    """
    definitions = DEFINITIONS.get(page.name, ("\n",))
    for found in emphases(page, text):
        own = found.named(found.lines)
        for line in found.beside:
            if _DEFINITION.match(line) and not line.startswith(definitions):
                continue
            other = found.named([line])
            if (len({*own}), len(own)) <= (len({*other}), len(other)):
                yield (
                    f"{found.place}: the section has the names {own} of this, and {other} of the "
                    f"line beside it, {line!r}. Say what the emphasized line does, with its names, "
                    "or emphasize the line that the section is about"
                )


def texts_of_pages() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        if page.suffix == ".rst":
            yield page, page.read_text(encoding="utf-8")


def test_emphasized_lines_are_named() -> None:
    """A section names what it emphasizes, in code: a function, an argument, an exception."""
    found = [entry for page in texts_of_pages() for entry in not_named(*page)]
    assert not found, "\n".join(found)


def test_emphasized_lines_are_named_more_than_their_neighbours() -> None:
    """A section names more of what it emphasizes than of the lines directly before and after."""
    found = [entry for page in texts_of_pages() for entry in not_named_more(*page)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("prose", "entry", "found"),
    [
        ("Call ``connect()``.", "connect(host)", ""),
        ("Call ``connect()``.", "send(host)", "[] of this, and ['connect']"),
        ("Pass ``host`` to ``connect()``.", "connect(host)", ""),
        ("Pass ``host`` to ``connect()``.", "send(host)", "and ['connect', 'host'] of the line"),
        ("``connect()``, :func:`~net.send`", "connect(host)", "['connect'] of this, and ['send']"),
        ("``connect()``, then :func:`~net.send`. ``connect()`` waits.", "connect(host)", ""),
        ("Call ``greet()`` and ``connect()``.", "connect(host)", ""),
        ("Call ``greet()``.", "def greet", "emphasize what it does"),
    ],
)
def test_names_of_neighbours(tmp_path: Path, prose: str, entry: str, found: str) -> None:
    """If the emphasis moves to the line beside it, a test fails: the same text cannot fit both."""
    code = "def greet(host):\n    connect(host)\n    send(host)\n"
    (tmp_path / "greet.py").write_text(code, encoding="utf-8")
    listing = f".. literalinclude:: greet.py\n   :emphasize: {entry}\n"
    text = f"Greeting\n========\n\n{prose}\n\n{listing}"
    page = tmp_path / "page.rst"
    messages = "\n".join([*not_named(page, text), *not_named_more(page, text)])
    assert found in messages if found else not messages
