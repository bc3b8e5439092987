"""Compare the first page about real protocols with the pages that it lists.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import re

from tests.docs.howto_support import DOCS, check_quotations

FOLDER = DOCS / "protocols"

# Of each page: a program that talks to its server, the first section after the overview, the last.
PAGES = {
    "dns": (r"^ +\$ dig ", "Encoding messages", "Before it meets the internet"),
    "redis": (r"\bredis-cli\b", "Sending replies", "Before it goes to production"),
    "smtp": (r"^ +\$ swaks ", "Commands and replies", "Before it meets the internet"),
}


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("protocols/index.rst", globals())


def test_pages() -> None:
    """The list is complete, and each page has the program and the sections.

    "Each page builds a server for a well-known protocol, step by step, until existing programs can
    talk to it: dig, redis-cli, mail programs. It begins with the messages of the protocol, and ends
    with what is missing before the server can face the internet. Copy from them what your own
    protocol needs."
    """
    index = (FOLDER / "index.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", index, re.MULTILINE)
    assert listed == [*PAGES]
    assert {page.stem for page in FOLDER.glob("*.rst")} == {"index", *PAGES}
    for name, (program, first, last) in PAGES.items():
        text = (FOLDER / f"{name}.rst").read_text(encoding="utf-8")
        assert re.search(program, text, re.MULTILINE), name
        sections = re.findall(r"^(\w.*)\n=+$", text, re.MULTILINE)
        assert (sections[1], sections[-1]) == (first, last)


def test_parts() -> None:
    """Pages have what the list says of them: sections, or words.

    "dns One request handler for UDP and TCP, and many queries at once."

    "redis Commands that a serializer parses by hand, transactions, publish and subscribe."

    "smtp Commands and replies, STARTTLS and passwords, and a queue that loses nothing."
    """
    parts = {
        "dns": ["One handler for UDP and TCP\n=", "Many queries at once\n="],
        "redis": ["parses the stream by hand", "Transactions\n=", "Publish and subscribe\n="],
        "smtp": [
            "Commands and replies\n=",
            "STARTTLS",
            "Passwords\n=",
            "A queue that loses nothing\n=",
        ],
    }
    for name in PAGES:
        text = (FOLDER / f"{name}.rst").read_text(encoding="utf-8")
        assert [part for part in parts[name] if part not in text] == []
