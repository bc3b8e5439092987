"""The diagrams of the pages: drawn from their texts, readable by everybody, on every screen."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from docs import diagrams
from tests.docs.howto_support import DOCS

PICTURES = dict(diagrams.pictures())
SVG = "{http://www.w3.org/2000/svg}"


def test_there_are_some() -> None:
    """The others would pass without any."""
    assert len(PICTURES) == 3


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_up_to_date(file: Path) -> None:
    """A picture is what its text says; otherwise, run ``python docs/diagrams.py``."""
    assert file.read_text(encoding="utf-8") == PICTURES[file]
    assert set(diagrams.FOLDER.glob("*.svg")) == set(PICTURES)


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_deterministic(file: Path) -> None:
    assert dict(diagrams.pictures())[file] == PICTURES[file]


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_used(file: Path) -> None:
    """A page includes each picture, so that it takes the page's colours."""
    pages = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.rst")]
    directive = f".. raw:: html\n   :file: _include/diagrams/{file.name}\n"
    assert sum(directive in page for page in pages) == 1


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_accessible(file: Path) -> None:
    """It says in words what it shows, and has no colour of its own for text and lines."""
    root = ET.fromstring(PICTURES[file])
    assert root.get("role") == "img"
    assert len(root.get("aria-label", "")) > 100
    style = root.findtext(f"{SVG}style") or ""
    assert "text{font:12px system-ui,sans-serif;fill:currentColor}" in style
    colours = set(re.findall(r"(?:fill|stroke):(#\w+|\w+)", style))
    assert colours == {"currentColor", "none", "#2f7bff"}  # the last one on light and on dark
    for element in root.iter():
        assert not {"fill", "stroke", "style"} & set(element.keys())
    # The rules hold for the whole page that includes it.
    rules = re.findall(r"([^{}]+)\{", style)
    assert all(rule.startswith((".diagram ", "svg.diagram")) for rule in rules)


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_narrow(file: Path) -> None:
    """Nothing sticks out, and letters are large enough where 390 pixels are all there is."""
    root = ET.fromstring(PICTURES[file])
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert 12 * (390 - 2 * 16) / width > 10
    for rect in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.get("y", "")) <= height


def test_too_long() -> None:
    """Text that does not fit is an error of whoever draws, not of the reader's screen."""
    with pytest.raises(ValueError, match="too long: " + "x" * 60):
        diagrams.draw("layers\ntitle A\ndescription B\nbox ours " + "x" * 60 + " | a | b\n")
