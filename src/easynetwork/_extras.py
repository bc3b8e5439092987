"""Say what to install when an optional package is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def requiring(package: str, requirement: str) -> Iterator[None]:
    """Say what to install, if `package` is what cannot be imported in the block.

    Imports are plain statements in the code, so that tools which freeze programs find them.

    Args:
        package: The package's name.
        requirement: The package with the versions that are supported, as pip reads it.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name == package:
            exc.msg = f'{package} is not installed. To install it: pip install "{requirement}"'
            exc.args = (exc.msg,)
        raise
