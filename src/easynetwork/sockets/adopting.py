"""Sockets for servers that other code has bound: a supervisor, a parent process, a test.

Everything is checked before anything is changed: sockets that are refused stay the caller's, as
they are.

Other processes may have descriptors of the same sockets. So a server only ever closes its own
descriptors: `shutdown()` would end the socket for all of them.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final, NamedTuple

from easynetwork._forks import close_in_children, keep_in_children
from easynetwork._typevars import _T
from easynetwork.sockets.binding import SocketSource
from easynetwork.sockets.closing import close_all

INET_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
"""The families of TCP and UDP sockets."""

UNIX_FAMILIES: Final = (getattr(socket, "AF_UNIX", socket.AF_UNSPEC),)
"""The family of Unix sockets."""

_BINDING_OPTIONS: Final = (
    *("host", "port", "backlog", "reuse_port"),
    *("path", "mode", "unlink_stale"),
)

_SO_DOMAIN: Final[int | None] = getattr(socket, "SO_DOMAIN", None)  # Linux
_SO_ACCEPTCONN: Final[int | None] = getattr(socket, "SO_ACCEPTCONN", None)


def check_adopting_options(options: Mapping[str, object]) -> None:
    """Refuse options of a server that are about binding its sockets.

    Raises:
        TypeError: There is one.
    """
    for name in _BINDING_OPTIONS:
        if name in options:
            raise TypeError(
                f"from_sockets() does not take {name!r}: the sockets are already bound. Set it "
                "where they are bound"
            )


class AdoptedSockets(SocketSource):
    """Sockets that belong to a server from the start. They become non-blocking and non-inheritable.

    Args:
        sockets: The sockets. They stay the caller's, and unchanged, if this fails.
        kind: The type that they must have: `socket.SOCK_STREAM` or `socket.SOCK_DGRAM`.
        families: The families that they may have.

    Raises:
        TypeError: `sockets` is not an iterable of plain sockets.
        ValueError: There is no socket, or one that cannot be served on.
    """

    __slots__ = ("_sockets",)

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        kind: socket.SocketKind,
        families: Collection[socket.AddressFamily],
    ) -> None:
        if not isinstance(sockets, Iterable):
            raise TypeError(f"Expected several sockets, got {sockets!r}")
        self._sockets = list(sockets)
        _check_sockets(self._sockets, kind, families)
        for sock in self._sockets:
            sock.setblocking(False)
            sock.set_inheritable(False)

    async def open(self) -> list[socket.socket]:
        """Return the sockets.

        Raises:
            OSError: One is closed.
        """
        _check_open(self._sockets)
        return list(self._sockets)

    def close(self) -> None:
        close_all(self._sockets)

    def new_copies(self) -> SocketSource:
        """Return a source of duplicates, for a server that lives only for a while."""
        return _SocketCopies(self._sockets)


class _SocketCopies(SocketSource):
    """Duplicates of sockets: they share all but their descriptors.

    Children that fork before this is closed do not keep the originals: they would keep the port
    open for a server that does not run there.
    """

    __slots__ = ("_originals",)

    def __init__(self, originals: Sequence[socket.socket]) -> None:
        self._originals = originals

    async def open(self) -> list[socket.socket]:
        _check_open(self._originals)
        with ExitStack() as stack:
            copies = [stack.enter_context(sock.dup()) for sock in self._originals]
            stack.pop_all()
        for sock in self._originals:
            close_in_children(sock)
        return copies

    def close(self) -> None:
        for sock in self._originals:
            keep_in_children(sock)


class Adoption(NamedTuple):
    """How `from_sockets()` makes a server of one class.

    Attributes:
        kind: The type of its sockets.
        families: The families that they may have.
        place: The constructor's first arguments, which say where to listen: anything valid, because
            the server never binds it.
    """

    kind: socket.SocketKind
    families: Collection[socket.AddressFamily]
    place: tuple[object, ...]

    def new_server(
        self, cls: Callable[..., _T], options: Mapping[str, Any], *arguments: object
    ) -> _T:
        """Return a server that has nothing to listen on yet.

        Args:
            cls: Its class.
            options: Keyword arguments of the class.
            *arguments: Its arguments after those that say where to listen.

        Raises:
            TypeError: An option is about binding sockets.
        """
        check_adopting_options(options)
        return cls(*self.place, *arguments, **options)

    def adopt(self, sockets: Iterable[socket.socket]) -> AdoptedSockets:
        """Return the sockets as a server's source. For the errors, see `AdoptedSockets`."""
        return AdoptedSockets(sockets, self.kind, self.families)


TCP_SOCKETS: Final = Adoption(socket.SOCK_STREAM, INET_FAMILIES, (None, 0))
UDP_SOCKETS: Final = Adoption(socket.SOCK_DGRAM, INET_FAMILIES, (None, 0))
UNIX_STREAM_SOCKETS: Final = Adoption(socket.SOCK_STREAM, UNIX_FAMILIES, ("/",))
UNIX_DATAGRAM_SOCKETS: Final = Adoption(socket.SOCK_DGRAM, UNIX_FAMILIES, ("/",))


def _check_open(sockets: Iterable[socket.socket]) -> None:
    if any(sock.fileno() < 0 for sock in sockets):
        reason = os.strerror(errno.EBADF)
        raise OSError(errno.EBADF, f"a socket given to from_sockets() has been closed: {reason}")


def _check_sockets(
    sockets: Sequence[object], kind: socket.SocketKind, families: Collection[socket.AddressFamily]
) -> None:
    descriptors = set()
    for sock in sockets:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"Expected a socket, got {sock!r}")
        if isinstance(sock, ssl.SSLSocket):
            raise TypeError(f"Expected a plain socket, got {sock!r}: TLS begins after accept()")
        try:
            fault = _find_fault(sock, kind, families)
        except OSError as exc:  # other code has closed the descriptor
            fault = f"cannot be used: {exc.strerror}"
        if fault is None and sock.fileno() in descriptors:
            fault = "is given twice"
        if fault is not None:
            raise ValueError(f"{sock!r} {fault}")
        descriptors.add(sock.fileno())
    if not descriptors:
        raise ValueError("Expected at least one socket, got none")


def _find_fault(
    sock: socket.socket, kind: socket.SocketKind, families: Collection[socket.AddressFamily]
) -> str | None:
    """Return what is wrong with a socket; None if a server can use it.

    Raises:
        OSError: The descriptor is not a socket's.
    """
    if sock.fileno() < 0:
        return "is closed"
    # The kernel knows better: `socket.fromfd()` believes what it is told.
    real_kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    real_family = sock.family
    if _SO_DOMAIN is not None:
        real_family = socket.AddressFamily(sock.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN))
    if real_family not in families:
        expected = " or ".join(family.name for family in families)
        return f"is of family {real_family.name}, expected {expected}"
    if real_kind != kind:
        return f"is of type {socket.SocketKind(real_kind).name}, expected {kind.name}"
    if (sock.family, sock.type) != (real_family, real_kind):
        descriptor = f"{real_family.name} and {kind.name}"
        return f"has the descriptor of another kind of socket, {descriptor}: use socket(fileno=...)"
    return _find_wrong_state(sock, kind)


def _find_wrong_state(sock: socket.socket, kind: socket.SocketKind) -> str | None:
    if kind == socket.SOCK_STREAM:
        return None if _is_listening(sock) else "does not listen: call its listen() before"
    name = sock.getsockname()
    if not (name[1] if isinstance(name, tuple) else name):
        return "is not bound: call its bind() before"
    with suppress(OSError):  # it is not connected
        return f"is connected to {sock.getpeername()!r}: it would receive from there only"
    return None


def _is_listening(sock: socket.socket) -> bool:
    """Whether a socket listens; True where the platform cannot tell."""
    if _SO_ACCEPTCONN is not None:
        with suppress(OSError):
            return bool(sock.getsockopt(socket.SOL_SOCKET, _SO_ACCEPTCONN))
    return True
