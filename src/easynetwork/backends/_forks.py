"""What objects do in the child of a process that forks.

Only the thread that forked is there: whatever the others were about to do is never done, and the
locks that they hold are never released.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

_callbacks: Final[weakref.WeakKeyDictionary[Any, Callable[[Any], object]]] = (
    weakref.WeakKeyDictionary()
)


def call_after_fork(obj: _T, callback: Callable[[_T], object]) -> None:
    """Have a function called with an object, in the child, behind every fork while it lives."""
    _callbacks[obj] = callback


def _call_all() -> None:
    for obj, callback in list(_callbacks.items()):
        callback(obj)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
