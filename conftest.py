"""Makes pytest items of what readers can copy: README, pages of the site, docstrings.

Sybil finds the examples. The parsers for what is particular to our pages are in
``tests/docs/sybil_parsers.py``.
"""

from __future__ import annotations

import doctest

from sybil import Sybil
from sybil.parsers import markdown, rest
from sybil.sybil import SybilCollection
from sybil.typing import Parser

from tests.docs.sybil_parsers import console_blocks, literal_includes

DOCTEST = rest.DocTestParser(doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
REST: list[Parser] = [DOCTEST, rest.PythonCodeBlockParser(), rest.SkipParser()]

readme = Sybil(
    parsers=[markdown.PythonCodeBlockParser(), markdown.SkipParser()],
    pattern="README.md",
)
pages = Sybil(parsers=[*REST, literal_includes, console_blocks], path="docs", pattern="*.rst")
docstrings = Sybil(parsers=REST, path="src", pattern="*.py")

pytest_collect_file = SybilCollection([readme, pages, docstrings]).pytest()
