"""Finds changes that make a page or an example wrong, for ``tests/docs/mutate.py``.

There are five kinds: a number is changed, a sentence is negated, the emphasis moves to the line
beside it, two steps change places, a default is swapped. Each one is another statement by
construction: two statements of an example change places only if the second one uses what the first
one makes, or both call the same object, but not ``self``; numbers are not looked for in code that
is quoted.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sybil import Document

from docs.emphasis import emphasized_lines
from easynetwork.servers import DatagramLimits, Limits
from tests.docs.sentences import DOCS, PAGES
from tests.docs.sybil_parsers import literal_includes, locate, read_snippet

ROOT = DOCS.parent
EXAMPLES = DOCS / "_include/examples"


@dataclasses.dataclass(frozen=True, order=True)
class Mutation:
    """A text of a file and what it is replaced by."""

    kind: str
    file: Path
    start: int
    old: str
    new: str

    def apply(self, text: str) -> str:
        """Return the text of the file with the change."""
        end = self.start + len(self.old)
        assert text[self.start : end] == self.old
        return text[: self.start] + self.new + text[end:]

    def __str__(self) -> str:
        line = self.file.read_text(encoding="utf-8").count("\n", 0, self.start) + 1
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file.relative_to(ROOT)}:{line}: {old!r} -> {new!r}"


Found = Iterator[tuple[int, str, str]]


# -- pages: what is prose

# Directives whose content is not prose, and the lines of others that are none.
_CODE = re.compile(
    r"^( *)\.\. (?!note|tip|important|warning|caution|seealso|list-table|tabs|tab|group-tab"
    r"|glossary|message)[^\n]*\n(?:\1 +[^\n]*\n|\n)*"
    r"|^ *\.\. .*$|^ +:[\w-]+:(?: .*)?$|^```(?s:.*?)^```$|^.+\n([=*~^-])\2{2,}$|^#+ .*$"
    r"|^\|?[ |:-]+\|$",
    re.MULTILINE,
)
_MARKUP = re.compile(
    r":value:`[^`<]+`|``.+?``|(?<!:value:)(?:(?<=:)|(?<![\w`]))`[^`]+`_*|:[\w:+-]+:(?=`)"
    r"| <[^>`]+>`|\]\([^)]*\)|https?://\S+",
    re.DOTALL,
)


def prose(text: str) -> str:
    """Return the text of a page with blanks in place of what is no prose."""
    return _MARKUP.sub(_blank, prose_with_code(text))


def prose_with_code(text: str) -> str:
    """Return the text of a page with blanks in place of listings, options and headings."""
    return _CODE.sub(_blank, text)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"\S", " ", match[0])


# -- pages: numbers

_WORDS = "two three four five six seven eight nine ten eleven twelve".split()
_NUMBER = re.compile(
    r"(?<![\w.,/:-])(?<!RFC )"
    rf"(?:\d[\d,]*(?:\.\d+)?(?![\w.]*\d)|(?:{'|'.join(_WORDS)})\b)(?=[\s.,;:)%])"
)


def numbers(text: str) -> Found:
    """Yield the numbers in the prose of a page."""
    for match in _NUMBER.finditer(prose(text)):
        old = match[0].rstrip(",")
        yield match.start(), old, changed_number(old)


def changed_number(old: str) -> str:
    """Return another number, in the same spelling."""
    if old in _WORDS:
        return _WORDS[(_WORDS.index(old) + 1) % len(_WORDS)]
    if "." in old:
        return str(round(float(old.replace(",", "")) * 2 or 1.0, 9))
    value = int(old.replace(",", "").replace("_", ""))
    new = value + 1 if value < 4 else value * 2
    return f"{new:,}" if "," in old else str(new)


# -- pages: sentences

_NEGATIONS = (
    (r"(is|are|was|were|does|do|has|have|will|may|must|should) +not\b", r"\1"),
    (r"cannot\b", "can"),
    (r"never\b", "always"),
    (r"always\b", "never"),
    (r"(is|are|was|were|will|must)\b(?= +(?!no\b|not\b|nothing\b|nobody\b|to\b)[\w,.])", r"\1 not"),
    (r"can\b(?= +\w)", "cannot"),
    (r"(has|have)\b(?= +(?:been|\w+ed)\b)", r"\1 not"),
)
_END = re.compile(r"[.?!:](?=\s)|\n\s*\n|\n(?=\s*(?:[*#-]|\.\.) )")


def negations(text: str) -> Found:
    """Yield a word of each sentence, with which it says the contrary."""
    shown, start = prose(text), 0
    for end in _END.finditer(shown):
        sentence, place = shown[start : end.end()], start
        start = end.end()
        if end[0] not in (".", ":") or len(text[place:start].split()) < 5:
            continue
        for pattern, new in _NEGATIONS:
            if match := re.search(rf"\b{pattern}".replace(" +", r"\s+"), sentence):
                yield place + match.start(), match[0], match.expand(new)
                break


# -- pages: emphasis


def emphasis(text: str, page: Path) -> Found:
    """Yield the emphasized lines of listings, with the line beside each."""
    if page.suffix != ".rst":
        return
    document = Document(text, str(page))
    for region in literal_includes(document):
        options = region.lexemes["options"]
        listing = read_snippet(locate(document, region), options)
        lines = [line.strip() for line in listing]
        taken = emphasized_lines(listing, options.get("emphasize", ""))
        for entry in options.get("emphasize", "").splitlines():
            if " ... " in entry or " >>> " in entry:
                continue
            [number] = emphasized_lines(listing, entry)
            for beside in (number + 1, number - 1):
                new = lines[beside - 1] if 0 < beside <= len(lines) else ""
                if new and beside not in taken and sum(x.startswith(new) for x in lines) == 1:
                    start = text.index(entry, text.index(":emphasize:", region.start))
                    yield start, entry, new
                    break


# -- pages: steps

_ITEM = re.compile(r"^( *)#\. .*\n(?:(?:\1   .*)?\n)*", re.MULTILINE)
_CONSOLE = re.compile(
    r"^( *)\.\. code-block:: console\n(?:\1 +\S.*\n|\n)*|^```console\n(?s:.*?)^```", re.MULTILINE
)
_COMMAND = re.compile(r"^( *)\$ .*\n(?:\1(?!\$ |```)(?! *\.\.)\S.*\n)*", re.MULTILINE)


def steps(text: str) -> Found:
    """Yield two items of a numbered list, or two commands of a console."""
    yield from swaps([*_ITEM.finditer(text)])
    for console in _CONSOLE.finditer(text):
        commands = [*_COMMAND.finditer(text, console.start(), console.end())]
        for pair in itertools.pairwise(commands):
            if needs(*(command[0].split("\n")[0].split()[1:] for command in pair)):
                yield from swaps([*pair])


def needs(first: list[str], second: list[str]) -> bool:
    """Return whether another program uses what the first command names."""
    made = [word.rstrip("/") for word in first[1:] if len(word) > 2 and word[0] != "-"]
    used = [
        word for word in second if word in made or word.startswith(tuple(f"{x}/" for x in made))
    ]
    return first[0] != second[0] and bool(used)


def swaps(matches: list[re.Match[str]]) -> Found:
    """Yield each two matches that follow each other, and are not the same."""
    for first, second in itertools.pairwise(matches):
        if first.end() == second.start() and first[1] == second[1]:
            one, two = first[0].rstrip("\n"), second[0].rstrip("\n")
            between = first[0][len(one) :]
            if one != two:
                yield first.start(), f"{one}{between}{two}", f"{two}{between}{one}"


# -- pages: names of exceptions and options

_EXCEPTIONS = (
    ("TimeoutError", "ValueError", "RuntimeError", "ConnectionResetError", "TypeError"),
    (".ClientClosedError", ".StreamProtocolParseError", ".DatagramProtocolParseError"),
)
_OPTIONS = tuple(
    tuple(field.name for field in dataclasses.fields(limits)) for limits in (Limits, DatagramLimits)
)


def names(text: str) -> Found:
    """Yield the names of exceptions and options, with others of their kind."""
    code = re.compile(r"(?<=:exc:`)~?(\.?\w+)(?=`)|(?<=``)(\w+)(?=``|=)")
    for match in code.finditer(text):
        for group in (*_EXCEPTIONS, *_OPTIONS):
            name = match[1] or match[2]
            if name in group:
                yield match.start(), match[0], group[(group.index(name) + 1) % len(group)]


# -- examples


def offsets(text: str) -> Callable[[ast.AST], tuple[int, int]]:
    """Return a function that returns where a node begins and ends in the text."""
    lines = text.encode().splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]

    def place(node: ast.AST) -> tuple[int, int]:
        begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return len(text.encode()[:begin].decode()), len(text.encode()[:end].decode())

    return place


def numbers_of_example(text: str) -> Found:
    """Yield the numbers of an example."""
    place = offsets(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            start, end = place(node)
            if re.fullmatch(r"\d[\d_]*(\.\d+)?", text[start:end]):
                yield start, text[start:end], changed_number(text[start:end])


def defaults_of_example(text: str) -> Found:
    """Yield the arguments and values of an example that are True, False, None or a number."""
    place = offsets(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler | ast.Raise):
            raised = node.type if isinstance(node, ast.ExceptHandler) else node.exc
            raised = raised.func if isinstance(raised, ast.Call) else raised
            if isinstance(raised, ast.Name) and raised.id in (group := _EXCEPTIONS[0]):
                new = group[(group.index(raised.id) + 1) % len(group)]
                yield place(raised)[0], raised.id, new
        value = node.value if isinstance(node, ast.keyword | ast.Assign | ast.AnnAssign) else None
        if not isinstance(value, ast.Constant) or isinstance(value.value, str | bytes):
            continue
        start, end = place(value)
        new = {"True": "False", "False": "True", "None": "1"}.get(text[start:end], "None")
        yield start, text[start:end], new


def steps_of_example(text: str) -> Found:
    """Yield two statements next to each other whose order matters."""
    place = offsets(text)
    for node in ast.walk(ast.parse(text)):
        for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            for first, second in itertools.pairwise(body if isinstance(body, list) else ()):
                if is_ordered(first, second):
                    (start, middle), (begin, end) = place(first), place(second)
                    between = text[middle:begin]
                    old = text[start:end]
                    yield start, old, text[begin:end] + between + text[start:middle]


_SIMPLE = (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign)


def is_ordered(first: ast.stmt, second: ast.stmt) -> bool:
    """Return whether the second statement uses what the first makes, or both call one object."""
    if not (isinstance(first, _SIMPLE) and isinstance(second, _SIMPLE)):
        return False
    if ast.dump(first) == ast.dump(second):
        return False
    made = {x.id for x in ast.walk(first) if isinstance(x, ast.Name) and type(x.ctx) is ast.Store}
    used = {x.id for x in ast.walk(second) if isinstance(x, ast.Name) and type(x.ctx) is ast.Load}
    if not made.isdisjoint(used):
        return True
    (one, method), (other, other_method) = called(first), called(second)
    awaited = all(
        isinstance(x, ast.Expr) and isinstance(x.value, ast.Await) for x in (first, second)
    )
    same = bool(one) and one == other != "self"  # whose methods may have nothing in common
    return same and (awaited or method != other_method or one == "print")


def called(statement: ast.stmt) -> tuple[str, str]:
    """Return which method of which object a statement calls, "" for none."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    call = call.value if isinstance(call, ast.Await) else call
    function = call.func if isinstance(call, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return ast.unparse(function.value), function.attr
    return (function.id if isinstance(function, ast.Name) else ""), ""


# -- all of them

KINDS: dict[str, tuple[Callable[[str, Path], Found] | None, Callable[[str], Found] | None]] = {
    "number": (lambda text, page: numbers(text), numbers_of_example),
    "negation": (lambda text, page: negations(text), None),
    "emphasis": (emphasis, None),
    "order": (lambda text, page: steps(text), steps_of_example),
    "default": (lambda text, page: names(text), defaults_of_example),
}


def examples() -> list[Path]:
    """Return the examples that pages show, but for their tests."""
    files = sorted(EXAMPLES.rglob("*.py"))
    return [file for file in files if not file.name.startswith(("test_", "conftest", "failing"))]


def candidates(kind: str) -> tuple[list[list[Mutation]], list[list[Mutation]]]:
    """Return the changes of a kind to pages and to examples, those of each file together."""
    of_page, of_example = KINDS[kind]
    return (
        [mutations(kind, page, lambda text, p=page: of_page(text, p)) for page in PAGES]  # type: ignore[misc]
        if of_page
        else [],
        [mutations(kind, file, of_example) for file in examples()] if of_example else [],
    )


def mutations(kind: str, file: Path, find: Callable[[str], Found]) -> list[Mutation]:
    """Return the changes of a kind to a file."""
    found = find(file.read_text(encoding="utf-8"))
    return [Mutation(kind, file, *change) for change in found]


def draw(kind: str, count: int, seed: int) -> list[Mutation]:
    """Draw changes of a kind: from pages and examples in turn, from as many as possible."""
    chance = random.Random(f"{seed} {kind}")
    drawn: list[Mutation] = []
    pools = [[[*group] for group in pool if group] for pool in candidates(kind)]
    for pool in pools:
        chance.shuffle(pool)
    turns = itertools.cycle(pools)
    while len(drawn) < count and any(pools):
        if pool := next(turns):
            group = pool.pop(0)
            drawn.append(group.pop(chance.randrange(len(group))))
            pool += [group] if group else []
    return drawn
