"""Keep the child of a process that forks out of what its parent is doing.

Only the thread that forked exists in the child: locks that other threads hold are never released
there, and no event loop of the parent runs there. And as long as the child has a copy of a socket's
descriptor, the kernel keeps the connection, or the port: what the parent closes would stay open.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

_callbacks: Final[weakref.WeakKeyDictionary[Any, Callable[[Any], object]]] = (
    weakref.WeakKeyDictionary()
)

_in_use: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()
"""The sockets that an event loop of this process serves."""


def call_after_fork(obj: _T, callback: Callable[[_T], object]) -> None:
    """Call a function with an object in the child after every fork, while the object lives."""
    _callbacks[obj] = callback


def close_in_children(sock: socket.socket) -> None:
    """Close a socket in the child after every fork, until it is closed or garbage here."""
    _in_use.add(sock)


def keep_in_children(sock: socket.socket) -> None:
    """Undo `close_in_children()`."""
    _in_use.discard(sock)


def _after_fork_in_child() -> None:
    _close_sockets()
    for obj, callback in list(_callbacks.items()):
        callback(obj)


def _close_sockets() -> None:
    """Close copies of the parent's sockets: the descriptors only.

    The connections are the parent's: they are neither shut down nor reset. Nor does anything leave
    the parent's selector, which a child shares (epoll(7)).
    """
    for sock in list(_in_use):
        with suppress(OSError):
            sock.close()
    _in_use.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
