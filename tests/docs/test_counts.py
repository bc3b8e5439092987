"""A list has as many items as the sentence before it says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from docs.values import WORDS
from tests.docs.sentences import PAGES

_NUMBER = re.compile(rf"\b({'|'.join(WORDS[2:])})\b", re.IGNORECASE)
# A paragraph that ends with a colon, and what may be a list after it.
_BEFORE = re.compile(r"^( *)(?![ *#.]|\d)(\S.*(?:\n\1\S.*)*:)\n\n", re.MULTILINE)
_ITEMS = (
    r"{indent}[*-] ",
    r"{indent}#\. ",
    r"{indent}``.+``\n(?={indent} )",  # terms of a list of definitions
    r"{indent}\*\*[^*]+\*\*",  # paragraphs that begin in bold
)


def announced(text: str) -> Iterator[tuple[str, list[int], int]]:
    """Yield the sentences that announce a list, the numbers in each, and how many items follow."""
    for before in _BEFORE.finditer(text):
        sentence = re.split(r"(?<=[.?!]) ", " ".join(before[2].split()))[-1]
        numbers = [WORDS.index(word.lower()) for word in _NUMBER.findall(sentence)]
        for pattern in _ITEMS if numbers else ():
            if items := count_items(text[before.end() :], pattern.format(indent=before[1])):
                yield sentence, numbers, items
                break


def count_items(text: str, pattern: str) -> int:
    """Return how many paragraphs at the beginning of a text are items, or belong to one."""
    items = 0
    for paragraph in re.split(r"\n\n+", text):
        is_item = re.match(pattern, f"{paragraph}\n")
        if not is_item and not (items and paragraph.startswith(" ")):
            break
        items += len(re.findall(rf"^{pattern}", f"{paragraph}\n", re.MULTILINE))
    return items


def test_lists() -> None:
    """Each list of the pages that is announced with a number has as many items."""
    count = 0
    for page in PAGES:
        for sentence, numbers, items in announced(page.read_text(encoding="utf-8")):
            assert items in numbers, (page.name, sentence)
            count += 1
    assert count > 15


@pytest.mark.parametrize(
    ("text", "numbers", "items"),
    [
        ("Hello. Follow two rules:\n\n* One,\n  in two lines\n* Two\n\nText", [2], 2),
        ("Three steps:\n\n#. One\n\n   More\n\n#. Two\n\n* Other", [3], 2),
        ("   Four clients,\n   two of a kind:\n\n   * One\n   * Two\n", [4, 2], 2),
        ("Two methods:\n\n``one()``\n   text\n\n``two()``\n   text\n\n``code`` is text", [2], 2),
        ("There are two ways:\n\n**One.** Text\n\n**Two.** Text\n\n**Three.** Text", [2], 3),
    ],
)
def test_announced(text: str, numbers: list[int], items: int) -> None:
    """The items follow the sentence: bullets, steps, terms, or paragraphs with a heading."""
    [(_, *found)] = announced(text)
    assert found == [numbers, items]


@pytest.mark.parametrize(
    "text",
    ["Two rules. Both are easy:\n\n* One\n\n* Two", "Follow two rules:\n\nBe kind.\n\n* Be quick."],
)
def test_not_announced(text: str) -> None:
    """The number is in the sentence, and the list at once after it."""
    assert [*announced(text)] == []
