"""Track the owner of each descriptor: across fork(), and when other code closes it.

Only the thread that forked exists in the child: locks that other threads hold are never released
there, and no event loop of the parent runs there. And as long as the child has a copy of a socket's
descriptor, the kernel keeps the connection, or the port: what the parent closes would stay open.

A descriptor's number identifies a connection only while its socket is open. When other code closes
the descriptor, the kernel gives the number to the next connection; then the first owner must let go
of it. `own_descriptor()` finds that out.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from easynetwork._typevars import _T

_callbacks: Final[weakref.WeakKeyDictionary[Any, Callable[[Any], object]]] = (
    weakref.WeakKeyDictionary()
)

_in_use: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()
"""The other sockets that an event loop of this process serves: they listen, or take datagrams."""

_connections: Final[dict[int, weakref.ref[DescriptorOwner | socket.socket]]] = {}
"""The owner of each descriptor of a connection, or its last one: an entry costs less than its
removal, and the kernel uses the lowest numbers."""


class DescriptorOwner(Protocol):
    """What owns the descriptor of a connection."""

    socket: socket.socket

    def lose_descriptor(self) -> None:
        """Let go of the descriptor, which other code has closed: its number is in use again."""


def own_descriptor(sock: socket.socket, owner: DescriptorOwner | None = None) -> None:
    """Record the owner of a connection's descriptor; it is closed in children, too.

    An earlier owner that still believes to have that descriptor is told to let go of it.

    Args:
        sock: The socket, open.
        owner: The owner; the socket itself if there is none yet.
    """
    take_descriptor(sock)
    _connections[sock.fileno()] = weakref.ref(sock if owner is None else owner)


def take_descriptor(sock: socket.socket) -> None:
    """Have an earlier owner that still believes to have a socket's descriptor let go of it.

    To be called for each new socket before an event loop watches it.
    """
    fd = sock.fileno()
    reference = _connections.get(fd)
    match None if reference is None else reference():
        case None | socket.socket():
            pass  # a socket without an owner was accepted a moment ago
        case earlier if earlier.socket.fileno() == fd:
            earlier.lose_descriptor()


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
    owners = [reference() for reference in _connections.values()]
    for owner in (*_in_use, *owners):
        if owner is not None:
            with suppress(OSError):
                sock: Any = getattr(owner, "socket", owner)
                sock.close()
    _in_use.clear()
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
