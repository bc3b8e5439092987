"""The table of what does not run in memory names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conformance.differences import DIFFERENCES, REAL_TIME, REPETITIONS


@pytest.mark.parametrize("key", [*DIFFERENCES, *REPETITIONS, *REAL_TIME])
def test_it_exists(key: str) -> None:
    """The file is there, and has the function."""
    name, _, function = key.partition("::")
    text = (Path(__file__).parent / name).read_text()
    assert re.search(rf"^(async )?def {function or 'test_'}", text, re.MULTILINE)
