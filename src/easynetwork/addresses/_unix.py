"""Names and credentials of Unix sockets (:manpage:`unix(7)`)."""

from __future__ import annotations

import errno
import os
import pathlib
import socket as _socket
import struct
import sys
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, final

from easynetwork.addresses._inet import SocketAddress, new_socket_address
from easynetwork.addresses._proxies import SupportsSocketOptions

RawUnixSocketAddress: TypeAlias = str | bytes
"""A name of a Unix socket, as the socket module takes it: a path, or abstract bytes with a leading
NUL; empty for a socket without a name."""

_UCRED: Final = struct.Struct("@iII")
"""struct ucred of unix(7): pid_t, uid_t, gid_t."""


@final
@dataclass(frozen=True, slots=True, weakref_slot=True, repr=False)
class UnixSocketAddress:
    """The name of a Unix socket: a path, an abstract name (on Linux), or none.

    ``UnixSocketAddress()`` has no name. Immutable and hashable; equal only to another
    `UnixSocketAddress` of the same name. Its `str()` is for people: the path, ``@name`` for an
    abstract name, ``<unnamed>``. A peer chooses its name, so what is not printable is escaped.
    """

    _raw: RawUnixSocketAddress = field(init=False, default_factory=str)

    @classmethod
    def _new(cls, raw: RawUnixSocketAddress) -> UnixSocketAddress:
        self = cls()
        object.__setattr__(self, "_raw", raw)
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("UnixSocketAddress is final: it cannot be subclassed")

    @classmethod
    def from_pathname(cls, path: str | os.PathLike[str], /) -> UnixSocketAddress:
        """Return the address of a path; an empty string is no name.

        Raises:
            TypeError: It is neither text nor a path that is made of text.
            ValueError: It contains a null character.
        """
        path = os.fspath(path)
        if not isinstance(path, str):
            raise TypeError(
                f"Expected a str object or an os.PathLike object returning str, got {path!r}"
            )
        if "\0" in path:
            raise ValueError("paths must not contain interior null bytes")
        return cls._new(path)

    if sys.platform == "linux":

        @classmethod
        def from_abstract_name(cls, name: str | bytes, /) -> UnixSocketAddress:
            """Return the address of an abstract name, given without its leading NUL (Linux).

            Raises:
                TypeError: It is neither text nor bytes.
            """
            if not isinstance(name, str | bytes):
                raise TypeError(f"Expected a str object or a bytes object, got {name!r}")
            return cls._new(b"\0" + os.fsencode(name))

        def as_abstract_name(self) -> bytes | None:
            """Return the abstract name without its leading NUL; None if this is none (Linux)."""
            return self._raw[1:] if isinstance(self._raw, bytes) else None

    @classmethod
    def from_raw(cls, address: object, /) -> UnixSocketAddress:
        """Return the address of what the socket module says or takes.

        Args:
            address: Text or bytes. On Linux, a leading NUL stands for an abstract name.

        Raises:
            TypeError: It is something else.
            ValueError: It is a path with a null character.
        """
        if not isinstance(address, str | bytes):
            raise TypeError(f"Cannot convert {address!r} to a UnixSocketAddress")
        if sys.platform == "linux" and address[:1] in ("\0", b"\0"):
            return cls.from_abstract_name(address[1:])
        return cls.from_pathname(os.fsdecode(address))

    def is_unnamed(self) -> bool:
        """Whether the socket has no name."""
        return not self._raw

    def as_pathname(self) -> pathlib.Path | None:
        """Return the path; None if the socket has another name, or none."""
        return pathlib.Path(self._raw) if self._raw and isinstance(self._raw, str) else None

    def as_raw(self) -> RawUnixSocketAddress:
        """Return what the socket module takes: see `RawUnixSocketAddress`."""
        return self._raw

    def __str__(self) -> str:
        if not self._raw:
            return "<unnamed>"
        if isinstance(self._raw, bytes):
            return "@" + _printable(os.fsdecode(self._raw[1:]))
        return _printable(self._raw)

    def __repr__(self) -> str:
        if not self._raw:
            return "UnixSocketAddress(<unnamed>)"
        if isinstance(self._raw, bytes):
            return f"UnixSocketAddress({self._raw[1:]!r} <abstract>)"
        return f"UnixSocketAddress({self._raw!r} <pathname>)"


def _printable(name: str) -> str:
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


AnySocketAddress: TypeAlias = SocketAddress | UnixSocketAddress
"""An address of an Internet or a Unix socket."""


def typed_address(address: Any, family: int) -> AnySocketAddress:
    """Return the typed form of an address of the socket module.

    Args:
        address: What ``getsockname()``, ``accept()``, ``recvfrom()``, ... return.
        family: The family of that socket.

    Raises:
        ValueError: `family` is another one than ``AF_INET``, ``AF_INET6`` and ``AF_UNIX``.
    """
    if family == getattr(_socket, "AF_UNIX", None):
        return UnixSocketAddress.from_raw(address or "")  # None: a datagram of an unnamed socket
    return new_socket_address(address, family)


class UnixCredentials(NamedTuple):
    """The process at the other end of a Unix stream, and its user and group.

    They are those at the time of ``connect()`` or ``listen()``.
    """

    pid: int | None
    uid: int
    gid: int


def get_peer_credentials(sock: SupportsSocketOptions) -> UnixCredentials:
    """Return the credentials of the other end of a Unix stream (SO_PEERCRED; Linux).

    Raises:
        OSError: The socket is closed (`EBADF`), or it is not connected (`EINVAL`).
        NotImplementedError: The platform cannot tell.
    """
    if not hasattr(_socket, "SO_PEERCRED"):
        raise NotImplementedError(f"peer credentials are not supported on {sys.platform}")
    data = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(data)
    if pid == 0 or 0xFFFF_FFFF in (uid, gid):  # what Linux says of a socket without a peer
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return UnixCredentials(pid, uid, gid)
