"""Numbers and names that the pages take from the code: the roles ``value`` and ``extra``.

``:value:`NAME``` shows a number of the library as prose has it: 60.0 as 60, 10000 as 10,000.
The name is that of a constant, an attribute, a field of a dataclass (which stands for its default),
or ``FUNCTION(PARAMETER)`` for the default of a parameter. ``CLASS.METHOD().NAME`` calls a method
without arguments first. ``A * B`` and ``1 / A`` are calculated. An end says how to show the number:

* ``NAME in KiB``, ``in MiB`` or ``in %``: as so many of them;
* ``NAME in words``: up to twelve, as a word;
* ``NAME as code``: as Python writes it.

``:value:`half a second <NAME>``` shows a text, and checks that it says the same number.

``:extra:`trio``` shows the name of an extra of the project. In ``pip install ".[trio,uvloop]"``
the extras are those in brackets, in ``pip install "trio>=0.32"`` it is a requirement of an extra.

What is gone, or says something else, is an error. The tests of the pages see the same texts.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes

__all__ = ["setup", "with_values"]

WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
UNITS = {"second": 1, "minute": 60, "hour": 3600, "millisecond": 0.001}
NUMBERS: dict[str, float] = {
    **{word: number for number, word in enumerate(WORDS)},
    **UNITS,
    **{f"{unit}s": number for unit, number in UNITS.items()},
    "a": 1,
    "an": 1,
    "half": 0.5,
    "quarter": 0.25,
    "tenth": 0.1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "%": 0.01,
}


def text_of_value(text: str) -> tuple[str, bool]:
    """Return what the role ``value`` shows, and whether that is code.

    Raises:
        ValueError: There is no such name, or the text says another number.
    """
    if title := re.fullmatch(r"([^<]+?)\s*<(.+)>", text, re.DOTALL):
        check_title(title[1], number_of(title[2]))
        return title[1], False
    name = text.removesuffix(" as code")
    if name != text:
        return in_code(number_of(name)), True
    name, _, unit = text.partition(" in ")
    return in_prose(number_of(name), unit), False


def number_of(names: str) -> Any:
    """Return the value of a name, of a product or of a quotient."""
    factors = names.split(" * ")
    if len(factors) > 1:
        return math.prod(map(number_of, factors))
    name, _, divisor = names.partition(" / ")
    return value_of(name) / value_of(divisor) if divisor else value_of(name)


def value_of(name: str) -> Any:
    """Return the value of a name, a number as it is."""
    if name.isdigit():
        return int(name)
    match = re.fullmatch(r"(.+)\((\w+)\)", name)
    if match is None:
        return found(name)
    function, parameter = match.groups()
    defaults = defaults_of(found(function))
    if parameter not in defaults:
        raise ValueError(f"{function} has no parameter {parameter} with a default")
    return defaults[parameter]


def defaults_of(function: Any) -> dict[str, Any]:
    """Return the defaults of a function or class: its signature may be one that Sphinx shows."""
    if isinstance(function, type):
        function = vars(function)["__init__"]
    function = inspect.unwrap(function)
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = zip(reversed(names), reversed(function.__defaults__ or ()), strict=False)
    return {**dict(defaults), **(function.__kwdefaults__ or {})}


def found(name: str) -> Any:
    """Return the object of a dotted name; a field of a dataclass is its default."""
    parts = name.split(".")
    value, rest = imported(parts)
    for part in rest:
        called, is_call = part.removesuffix("()"), part.endswith("()")
        defaults: dict[str, Any] = {}
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            defaults = {field.name: field.default for field in dataclasses.fields(value)}
        try:
            value = defaults[called] if called in defaults else getattr(value, called)
        except AttributeError:
            raise ValueError(f"there is no {name}") from None
        value = value() if is_call else value
    return value


def imported(parts: list[str]) -> tuple[Any, list[str]]:
    """Return the module that a dotted name begins with, and the rest of the name."""
    for end in range(len(parts), 0, -1):
        try:
            return importlib.import_module(".".join(parts[:end])), parts[end:]
        except ModuleNotFoundError as exc:
            if exc.name and not f"{'.'.join(parts)}.".startswith(f"{exc.name}."):
                raise ValueError(f"{'.'.join(parts[:end])} needs {exc.name}") from None
    raise ValueError(f"there is no module {parts[0]}")


def in_code(value: Any) -> str:
    """Return a value as Python writes it, a text in double quotes, a whole number without a dot."""
    if isinstance(value, str):
        return f'"{value}"'
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


def in_prose(value: Any, unit: str) -> str:
    """Return a number as prose has it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    if unit and unit != "words":
        if unit not in NUMBERS:
            raise ValueError(f"what is {unit!r}?")
        value = round(value / NUMBERS[unit], 9)
    whole = value == int(value)
    if unit == "words":
        if not (whole and value < len(WORDS)):
            raise ValueError(f"there is no word for {value}")
        return WORDS[int(value)]
    shown = f"{int(value):,}" if whole else f"{value:,}"
    return f"{shown} {unit}" if unit else shown


def check_title(title: str, value: float) -> None:
    """Check that a text such as "half a second" says a number."""
    factors = [
        NUMBERS[word] if word in NUMBERS else float(word.replace(",", ""))
        for word in re.findall(r"%|\d[\d,]*(?:\.\d+)?|\w+", title)
        if word in NUMBERS or word[0].isdigit()
    ]
    if not factors:
        raise ValueError(f"{title!r} says no number")
    if not math.isclose(math.prod(factors), value):
        raise ValueError(f"{title!r} is wrong, it is {value}")


@cache
def extras() -> dict[str, list[str]]:
    """Return the extras of the project, with their requirements."""
    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    return optional


def text_of_extra(text: str) -> tuple[str, bool]:
    """Return what the role ``extra`` shows, as code.

    Raises:
        ValueError: The project has no such extra, or no extra has such a requirement.
    """
    requirements = [
        requirement.partition(";")[0] for all_ in extras().values() for requirement in all_
    ]
    in_brackets = re.search(r"\[(.*)\]", text)
    if in_quotes := re.search(r'"([^".[]+[^"[]*)"', text):
        known, names = requirements, [in_quotes[1]]
    else:
        known, names = [*extras()], (in_brackets[1] if in_brackets else text).split(",")
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{', '.join(unknown)}: there are {', '.join(known)}")
    return text, True


ROLES: dict[str, Callable[[str], tuple[str, bool]]] = {
    "value": text_of_value,
    "extra": text_of_extra,
}


def with_values(text: str) -> str:
    """Return the source of a page with what its reader sees in place of these roles."""
    return re.sub(rf":({'|'.join(ROLES)}):`([^`]+)`", replaced, text)


def replaced(role: re.Match[str]) -> str:
    """Return the text of a role, with the markup of code if it is code."""
    try:
        shown, is_code = ROLES[role[1]](" ".join(role[2].split()))
    except ValueError as exc:
        raise ValueError(f"{role[0]}: {exc}") from None
    return f"``{shown}``" if is_code else shown


def show(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, *args: object, **options: object
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Show one of the roles; a warning of Sphinx, which is an error, if there is no such value."""
    try:
        shown, is_code = ROLES[name](" ".join(text.split()))
    except ValueError as exc:
        message = inliner.reporter.error(f"{rawtext}: {exc}", line=lineno)
        return [inliner.problematic(rawtext, rawtext, message)], [message]
    return [nodes.literal(shown, shown) if is_code else nodes.Text(shown)], []


def setup(app: Any) -> dict[str, Any]:
    """Register the roles with Sphinx, which calls this."""
    for name in ROLES:
        app.add_role(name, show)
    return {"parallel_read_safe": True}
