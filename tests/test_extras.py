from __future__ import annotations

from easynetwork._extras import explain_missing


def test_explain_missing() -> None:
    """The package that is missing is named, with what to do about it; another one is not."""
    error = ModuleNotFoundError("No module named 'spam'", name="spam")
    explain_missing(error, "spam", "spam>=2")
    assert str(error) == 'spam is not installed. To install it: pip install "spam>=2"'

    error = ModuleNotFoundError("No module named 'spam.eggs'", name="spam.eggs")
    explain_missing(error, "spam", "spam>=2")
    assert str(error) == "No module named 'spam.eggs'"
