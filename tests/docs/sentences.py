"""How many sentences of the site a test quotes: ``python -m tests.docs.sentences [page...]``.

Prints the share, of each page and of all; for pages that are named, the sentences that none does.
A sentence counts as quoted if quotations in docstrings of tests have at least half of its words.
Not counted: the reference, which is made from docstrings, code, the messages that the page about
troubleshooting explains, and what is less than five words long.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from docs.values import with_values

TESTS = Path(__file__).parent
DOCS = TESTS.parent.parent / "docs"
# What several pages include.
PARTS = sorted((DOCS / "_include").glob("*.rst"))
PAGES = [
    DOCS.parent / "README.md",
    *PARTS,
    *sorted(
        path
        for path in DOCS.rglob("*.rst")
        if not {"_include", "_build", "api", "project"}.intersection(path.relative_to(DOCS).parts)
    ),
]

# Directives whose content is not prose, or not the site's own.
_NO_PROSE = re.compile(
    r"^ *>>> (?:.*\S.*\n)+|^ *\.\. message::\n(?:.*\S.*\n)+"
    r"|^( *)\.\. (?!note|tip|important|warning|caution|seealso|list-table|tabs|tab|group-tab"
    r"|glossary)[^\n]*\n(?:\1 +[^\n]*\n|\n)*",
    re.MULTILINE,
)
_CODE_OF_MARKDOWN = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NEW_PART = re.compile(r"\n\s*\n|\n *(?:[*-] )+|\n *#\. ")
_END = re.compile(r"(?<=[.:?!]) (?=[A-Z`*:])")
_WORD = re.compile(r"\w+")


def sentences(page: Path) -> list[list[str]]:
    """Return the sentences of a page, as lists of words."""
    return [words for words, counts in pieces(page) if counts]


def pieces(page: Path) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of each piece of a page, and whether it counts as a sentence."""
    text = with_values(page.read_text(encoding="utf-8"))
    text = _CODE_OF_MARKDOWN.sub("\n", text) if page.suffix == ".md" else _NO_PROSE.sub("\n", text)
    for part in _NEW_PART.split(text):
        for sentence in _END.split(" ".join(part.split())):
            if words := words_of(sentence):
                ends = sentence.rstrip("*`) ").endswith((".", ":", "?"))
                yield words, ends and len(words) > 4


def words_of(text: str) -> list[str]:
    """Return the words of a text as its reader sees it: no roles, no targets, no markup."""
    text = with_values(text)
    text = re.sub(r":[\w:+-]+:`~(?:[^`<]*\.)?([^`.<]+)`", r"\1", text)
    text = re.sub(r":[\w:+-]+:`[!.]?([^`<]+?)(?: <[^`>]*>)?`", r"\1", text)
    text = re.sub(r"`([^`<]+?) <[^`>]*>`_+|\[([^]]+)\]\([^)]*\)", r"\1\2", text)
    return _WORD.findall(text.replace("()", "").lower())


def quotations() -> Iterator[str]:
    """Yield what the docstrings of tests quote, in lower case, with single spaces between words."""
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = " ".join((ast.get_docstring(node) or "").split())
                for quotation in re.findall(r'"(.+?)"', docstring):
                    yield " ".join(words_of(quotation))


def not_quoted(page: Path, quoted: set[str]) -> tuple[int, list[str]]:
    """Return how many sentences a page has, and those that no test quotes."""
    found = [(" ".join(words), counts) for words, counts in pieces(page)]
    whole = " ".join(["", *(text for text, _ in found), ""])
    covered = bytearray(len(whole))
    for quotation in filter(None, quoted):
        start = -1
        while (start := whole.find(f" {quotation} ", start + 1)) >= 0:
            covered[start + 1 : start + 1 + len(quotation)] = b"\1" * len(quotation)
    rest, position = [], 1
    for text, counts in found:
        if counts and sum(covered[position : position + len(text)]) < len(text) / 2:
            rest.append(text)
        position += len(text) + 1
    return sum(counts for _, counts in found), rest


def main(names: list[str]) -> float:
    """Print the shares; return that of all pages."""
    quoted = set(quotations())
    total = total_quoted = 0
    for page in PAGES:
        name = page.relative_to(DOCS.parent).as_posix()
        count, rest = not_quoted(page, quoted)
        total, total_quoted = total + count, total_quoted + count - len(rest)
        print(f"{count - len(rest):5} of {count:4}  {name}")
        if name in names:
            print(*(f"{'':16}{sentence}" for sentence in rest), sep="\n")
    print(f"{total_quoted:5} of {total:4}  sentences, {total_quoted / total:.1%}")
    return total_quoted / total


if __name__ == "__main__":
    main(sys.argv[1:])
