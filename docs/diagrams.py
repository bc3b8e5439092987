"""Draws the diagrams of the pages: run ``python docs/diagrams.py`` after a change to a text.

Each ``_include/diagrams/NAME.txt`` becomes ``NAME.svg`` beside it. A line of the text is an
element, its first word says which one. The pages include the pictures, so that text and lines take
the colour of the page (``currentColor``), light or dark. A picture is narrow enough for a phone.

`layers` draws boxes below each other, with what passes between them: upwards in the left column,
downwards in the right one:

    box OWNER NAME | LEFT | RIGHT       OWNER is `yours` or `ours`
    pass LEFT | RIGHT

`sequence` draws two lanes, time goes down:

    > TEXT, < TEXT      a message to the right, to the left
    call NAME           a call that returns at once
    begin NAME          a call that goes on until `end TEXT`;
    wait TEXT           it waits, until `run TEXT`, or its end
    task TEXT, done     the frame of a task around calls
    gap TEXT            nothing happens
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "_include/diagrams"

WIDTH = 400
# Widths of a letter, at most, in two fonts of 12 pixels.
LETTER = {"code": 7.3, "text": 6.8, "name": 7.2}
STYLE = (
    "svg.diagram{display:block;width:100%;max-width:520px;margin:1em auto}"
    ".diagram text{font:12px system-ui,sans-serif;fill:currentColor}"
    ".diagram .code{font-family:ui-monospace,monospace}"
    ".diagram .name{font-weight:600}"
    ".diagram .soft{opacity:.75}"
    ".diagram .line{stroke:currentColor;stroke-width:1.2;fill:none}"
    ".diagram .head{fill:currentColor}"
    ".diagram .box{stroke:currentColor;stroke-opacity:.5;fill:currentColor;fill-opacity:.06}"
    ".diagram .yours{stroke:#2f7bff;fill:#2f7bff;fill-opacity:.16}"
    ".diagram .run{stroke:#2f7bff;fill:#2f7bff}"
    ".diagram .wait{stroke:#2f7bff;fill:none;stroke-width:1.6;stroke-dasharray:3 3}"
    ".diagram .task{stroke:currentColor;stroke-opacity:.5;fill:none;stroke-dasharray:2 4}"
)


class Picture:
    """An SVG picture that grows downwards.

    Args:
        title: For those who cannot see it, as a heading.
        description: What it shows, in words.
    """

    def __init__(self, title: str, description: str) -> None:
        self.title = title
        self.description = description
        self.parts: list[str] = []

    def add(self, element: str, **attributes: str | float) -> None:
        """Add an element; `cls` stands for its class."""
        values = {"class" if key == "cls" else key: value for key, value in attributes.items()}
        self.parts.append(f"<{element} {spelled(values)}/>")

    def text(self, x: float, y: float, text: str, cls: str, anchor: str = "start") -> None:
        """Add text.

        Raises:
            ValueError: It does not fit into the picture.
        """
        width = len(text) * max(LETTER[name] for name in cls.split() if name in LETTER)
        left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
        if left < 0 or left + width > WIDTH:
            raise ValueError(f"too long: {text}")
        place = spelled({"class": cls, "x": x, "y": y, "text-anchor": anchor})
        self.parts.append(f"<text {place}>{escape(text, quote=False)}</text>")

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Add an arrow, horizontal or vertical."""
        self.add("path", cls="line", d=f"M{x:g} {y:g}L{to_x:g} {to_y:g}")
        if y == to_y:
            back = to_x - 7 if to_x > x else to_x + 7
            head = f"M{to_x:g} {to_y:g}L{back:g} {y - 4:g}V{y + 4:g}Z"
        else:
            back = to_y - 7 if to_y > y else to_y + 7
            head = f"M{to_x:g} {to_y:g}L{x - 4:g} {back:g}H{x + 4:g}Z"
        self.add("path", cls="head", d=head)

    def svg(self, height: float) -> str:
        """Return the picture."""
        label = escape(f"{self.title}. {self.description}")
        return "\n".join(
            [
                f'<svg class="diagram" xmlns="http://www.w3.org/2000/svg" role="img" '
                f'viewBox="0 0 {WIDTH} {height:g}" aria-label="{label}">',
                f"<style>{STYLE}</style>",
                *self.parts,
                "</svg>",
                "",
            ]
        )


def spelled(attributes: dict[str, str | float]) -> str:
    """Return attributes as XML."""
    return " ".join(
        f'{name}="{value if isinstance(value, str) else format(value, "g")}"'
        for name, value in attributes.items()
    )


def draw(source: str) -> str:
    """Return the picture that a text describes."""
    lines = [line for line in source.splitlines() if line and not line.startswith("#")]
    kind, title, description, *rest = lines
    picture = Picture(title.removeprefix("title "), description.removeprefix("description "))
    words = (line.partition(" ") for line in rest)
    elements = ((name, text) for name, _, text in words)
    height = {"layers": draw_layers, "sequence": draw_sequence}[kind](picture, elements)
    return picture.svg(height)


def columns(text: str) -> list[str]:
    """Split a line at its bars."""
    return [column.strip() for column in text.split("|")]


# Layers

BOX, BETWEEN = 46, 34
LEFT, RIGHT = WIDTH * 0.25, WIDTH * 0.75


def draw_layers(picture: Picture, elements: Iterator[tuple[str, str]]) -> float:
    """Draw layers; return the height."""
    y = 0.0
    for kind, text in elements:
        if kind == "columns":
            for x, column in zip((LEFT, RIGHT), columns(text), strict=True):
                picture.text(x, y + 14, column, "text soft", "middle")
            y += 24
        elif kind == "box":
            owner, _, text = text.partition(" ")
            draw_box(picture, y, owner, *columns(text))
            y += BOX
        else:
            draw_passage(picture, y, *columns(text))
            y += BETWEEN
    return y + 2


def draw_box(picture: Picture, y: float, owner: str, name: str, left: str, right: str) -> None:
    """Draw a layer."""
    cls = "box yours" if owner == "yours" else "box"
    picture.add("rect", cls=cls, x=1, y=y + 1, width=WIDTH - 2, height=BOX - 2, rx=6)
    picture.text(WIDTH / 2, y + 18, name, "name", "middle")
    for x, text in (LEFT, left), (RIGHT, right):
        is_code = text.endswith("()") or "=" in text
        picture.text(x, y + 36, text, "code" if is_code else "text", "middle")


def draw_passage(picture: Picture, y: float, left: str, right: str) -> None:
    """Draw what passes from one layer to the next."""
    picture.arrow(20, y + BETWEEN - 3, 20, y + 3)
    picture.text(30, y + 21, left, "code soft")
    picture.arrow(220, y + 3, 220, y + BETWEEN - 3)
    picture.text(230, y + 21, right, "code soft")


# Sequences

ROW = 28
CLIENT, CALLS, LABELS = 40, 205, 220


class Sequence:
    """Two lanes, while they are drawn."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.y = 0.0
        self.bar: tuple[str, float] | None = None  # of the call that goes on: class, top
        self.task_top = 0.0

    def switch(self, cls: str | None) -> None:
        """Draw the bar of a call down to here; begin another part of it."""
        if self.bar is not None:
            last, top = self.bar
            height = self.y - top
            self.picture.add("rect", cls=last, x=CALLS - 5, y=top, width=10, height=height, rx=2)
        self.bar = None if cls is None else (cls, self.y)

    def label(self, text: str, cls: str) -> None:
        self.picture.text(LABELS, self.y + 4, text, cls)

    def message(self, kind: str, text: str) -> None:
        ends = (CLIENT + 4, CALLS - 7)
        start, end = ends if kind == ">" else ends[::-1]
        self.picture.arrow(start, self.y, end, self.y)
        self.picture.text((CLIENT + CALLS) / 2 - 6, self.y - 6, text, "text", "middle")

    def draw(self, kind: str, text: str) -> None:
        """Draw an element, and go on below it."""
        if kind in "><":
            self.message(kind, text)
            self.y += 0 if kind == ">" else ROW
            return
        if kind == "task":
            self.task_top = self.y + 14
            self.picture.text(WIDTH - 8, self.task_top + 16, text, "text soft", "end")
            self.y = self.task_top + 12
        elif kind == "done":
            self.y -= 14
            self.frame()
        elif kind == "call":
            self.picture.add(
                "rect", cls="run", x=CALLS - 5, y=self.y - 8, width=10, height=16, rx=2
            )
            self.label(text, "code name")
        elif kind == "gap":
            self.label(text, "text soft")
            self.y += 8
        elif kind == "begin":
            self.switch("run")
            self.label(text, "code name")
        else:
            self.switch({"wait": "wait", "run": "run", "end": None}[kind])
            self.label(text, "code" if text.isalpha() and text[0].isupper() else "text")
        self.y += ROW

    def frame(self) -> None:
        left, top = CALLS - 16, self.task_top
        width, height = WIDTH - left - 1, self.y - top
        self.picture.add("rect", cls="task", x=left, y=top, width=width, height=height, rx=6)


def draw_sequence(picture: Picture, elements: Iterator[tuple[str, str]]) -> float:
    """Draw two lanes; return the height."""
    sequence = Sequence(picture)
    for kind, text in elements:
        if kind == "lanes":
            for x, name in zip((CLIENT, CALLS + 50), columns(text), strict=True):
                picture.text(x, 14, name, "name", "middle")
            sequence.y = 46
        else:
            sequence.draw(kind, text)
    bottom = sequence.y - ROW + 1
    picture.add("path", cls="line", d=f"M{CLIENT} 22V{bottom:g}")
    return bottom + 1


def pictures() -> Iterator[tuple[Path, str]]:
    """Yield the file of each picture, and what belongs into it."""
    for source in sorted(FOLDER.glob("*.txt")):
        yield source.with_suffix(".svg"), draw(source.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for file, picture in pictures():
        file.write_text(picture, encoding="utf-8")
