"""A page that names a line of a listing is about what stands in that line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sybil import Document

from tests.docs import test_tutorials
from tests.docs.howto_support import DOCS, words
from tests.docs.sybil_parsers import literal_includes, locate, read_snippet

MENTION = re.compile(r"\b[Ll]ines? \d{1,2}\b(?! column)")

# The page, its words, the file of the listing, and what stands in the line, or lines.
LINES = [
    ("howto/starttls.rst", "line 29", "mail_server.py", {29: "is_encrypted = client.extra("}),
    (
        "howto/starttls.rst",
        "Without the checks in lines 9 and 14",
        "mail_client.py",
        {9: 'if "250-STARTTLS" not in', 14: 'if not response.startswith("220")'},
    ),
    (
        "howto/background_tasks.rst",
        "handle() waits in line 10, in free.acquire(), and receives nothing",
        "searches.py",
        {10: "await free.acquire()"},
    ),
    (
        "howto/background_tasks.rst",
        "While it waits in line 10",
        "searches.py",
        {10: "await free.acquire()"},
    ),
    (
        "howto/converters.rst",
        "then the range in line 10",
        "readings.py",
        {10: "-273.15 <= celsius <= 1000"},
    ),
    (
        "howto/tcp_servers.rst",
        "on_disconnection() is not called: line 11 has not run",
        "request_handler_explanation.py",
        {11: "self.names[client] = introduction.text"},
    ),
    (
        "howto/advanced/standalone_servers.rst",
        "They are checked on line 26",
        "server.py",
        {26: "with Standalone"},
    ),
    (
        "howto/advanced/standalone_servers.rst",
        "No socket is opened before line 27",
        "server.py",
        {27: "server.serve_forever()"},
    ),
    (
        "protocols/dns.rst",
        "create it in place of Zone (line 24)",
        "dns_server.py",
        {24: "handler = DNSRequestHandler(Zone(arguments.zone))"},
    ),
    (
        "protocols/dns.rst",
        "replace line 24: handler = PrivateRequestHandler(",
        "dns_server.py",
        {24: "handler = DNSRequestHandler(Zone(arguments.zone))"},
    ),
    (
        "protocols/smtp.rst",
        "A line that contains CR or LF is refused (line 34)",
        "mail_content.py",
        {34: 'raise DeserializeError("CR or LF'},
    ),
    (
        "protocols/smtp.rst",
        "Shorten what you repeat from the argument (line 23)",
        "mail_server_with_help.py",
        {23: "{argument[:50]}"},
    ),
]


@pytest.mark.parametrize(("page", "words_of_page", "file", "lines"), LINES)
def test_lines(page: str, words_of_page: str, file: str, lines: dict[int, str]) -> None:
    """A listing of the page shows that text in that line."""
    assert words_of_page in words(page)
    document = Document((DOCS / page).read_text(encoding="utf-8"), str(DOCS / page))
    shown = [
        read_snippet(found, region.lexemes["options"])
        for region in literal_includes(document)
        if "linenos" in region.lexemes["options"]
        and (found := locate(document, region)).name == file
    ]
    assert shown
    for number, text in lines.items():
        in_that_line = [listing[number - 1] for listing in shown if len(listing) >= number]
        assert any(text in line for line in in_that_line), in_that_line


def test_all_mentions() -> None:
    """Each line that a page names is in the table here, or in that of the tutorials."""
    table = [(page, text) for page, text, *_ in LINES]
    marks: Any = vars(test_tutorials.test_line_numbers)["pytestmark"]
    [parameters] = [mark.args[1] for mark in marks]
    table += [(page, text) for page, text, *_ in parameters]
    missing = []
    for path in sorted(DOCS.rglob("*.rst")):
        page = path.relative_to(DOCS).as_posix()
        text = "" if page.startswith("_build") else words(page)
        known = [text_of_table for name, text_of_table in table if name == page]
        for mention in MENTION.finditer(text):
            around = text[max(0, mention.start() - 80) : mention.end() + 80]
            if not any(part in around for part in known):
                missing.append((page, around))
    assert missing == []
