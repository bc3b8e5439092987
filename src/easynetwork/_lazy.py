"""Packages whose modules are imported when somebody asks for what is in them (PEP 562).

So a program pays, at its start, for what it uses: a blocking client does not import servers.
"""

from __future__ import annotations

__all__ = ["attribute_getter"]

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attribute_getter(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`.

    Args:
        package: The package's name.
        modules: The name of the module of each attribute.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807  # it becomes a module's
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return __getattr__
