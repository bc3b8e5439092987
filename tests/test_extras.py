from __future__ import annotations

import pytest

from easynetwork._extras import requiring


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spam", 'spam is not installed. To install it: pip install "spam>=2"'),
        ("spam.eggs", "No module named 'spam.eggs'"),
    ],
)
def test_requiring(name: str, message: str) -> None:
    """The package that is missing is named, with what to do about it; another one is not."""
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    with pytest.raises(ModuleNotFoundError) as info, requiring("spam", "spam>=2"):
        raise error
    assert info.value is error
    assert str(error) == message
