"""Ancillary data: descriptors and credentials that travel beside the bytes of a Unix socket.

A received descriptor is a new one of this process. `SocketAncillary` hands it to the user, who has
to close it. What is received and not asked for is closed by `close_descriptors`.
"""

from __future__ import annotations

import array
import contextlib
import operator
import os
import socket as _socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn, TypeAlias, final

RawAncillary: TypeAlias = list[tuple[int, int, bytes]]
"""Ancillary data as ``socket.recvmsg()`` returns and ``socket.sendmsg()`` takes it: level, type and
data of each message."""

AncillaryCallback: TypeAlias = Callable[[RawAncillary], object]
"""Called with what was received; owns the descriptors from then on."""

_SCM_RIGHTS: Final[int | None] = getattr(_socket, "SCM_RIGHTS", None)
_SCM_CREDENTIALS: Final[int | None] = getattr(_socket, "SCM_CREDENTIALS", None)  # Linux
_UCRED: Final = struct.Struct("@iII")
_INT_SIZE: Final = array.array("i").itemsize

DEFAULT_ANCILLARY_BUFSIZE: Final[int] = (
    _socket.CMSG_SPACE(8192) if hasattr(_socket, "CMSG_SPACE") else 8192
)
"""Bytes. Linux sends at most 253 descriptors with one message (SCM_MAX_FD of unix(7)): 1,012."""


class SocketCredential(NamedTuple):
    """The credentials that a process sends, or that the kernel adds (SO_PASSCRED; unix(7))."""

    pid: int = 0
    """The process; when sent, 0 stands for the current one."""
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class SCMRights:
    """Descriptors."""

    fds: Iterator[int]


@dataclass(frozen=True, slots=True)
class SCMCredentials:
    """Credentials."""

    credentials: Iterator[SocketCredential]


SocketAncillaryMessages: TypeAlias = SCMRights | SCMCredentials
"""What `SocketAncillary.messages` yields."""


@final
class SocketAncillary:
    """Descriptors and credentials, to send or as received.

    Not thread-safe. Never closes a descriptor: those that were added stay the caller's, and those
    that were received belong to the caller as well.
    """

    __slots__ = ("__weakref__", "_credentials", "_fds")

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._credentials: list[SocketCredential] = []

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("SocketAncillary is final: it cannot be subclassed")

    def add_fds(self, fds: Iterable[int]) -> None:
        """Add descriptors of open files, which stay open until they have been sent.

        Raises:
            TypeError: One is not a number: pass ``file.fileno()``, not a file. None is added.
        """
        self._fds += [operator.index(fd) for fd in fds]

    def add_creds(self, credentials: Iterable[SocketCredential]) -> None:
        """Add credentials. Only a privileged process may send others than its own.

        Raises:
            NotImplementedError: The platform has no such message.
        """
        if _SCM_CREDENTIALS is None:
            raise NotImplementedError("credentials cannot be sent on this platform")
        self._credentials.extend(SocketCredential(*item) for item in credentials)

    def clear(self) -> None:
        """Forget everything. Descriptors stay open."""
        self._fds.clear()
        self._credentials.clear()

    def messages(self) -> Iterator[SocketAncillaryMessages]:
        """Yield what there is: descriptors, then credentials; nothing for a kind without any."""
        if self._fds:
            yield SCMRights(iter(self._fds))
        if self._credentials:
            yield SCMCredentials(iter(self._credentials))

    def iter_fds(self) -> Iterator[int]:
        """Yield the descriptors."""
        yield from self._fds

    def update_from_raw(self, messages: Iterable[tuple[int, int, bytes]]) -> None:
        """Add what was received.

        Messages of other types are ignored, and so is an item that was cut off at the end of one.

        Args:
            messages: What ``socket.recvmsg()`` returned.

        Raises:
            ExceptionGroup: Some messages cannot be parsed. The others have been added.
        """
        errors: list[Exception] = []
        for level, kind, data in messages:
            try:
                if level != _socket.SOL_SOCKET:
                    continue
                if kind == _SCM_RIGHTS:
                    self._fds.extend(_descriptors(data))
                elif kind == _SCM_CREDENTIALS:
                    whole = len(data) - len(data) % _UCRED.size
                    items = _UCRED.iter_unpack(memoryview(data)[:whole])
                    self._credentials.extend(SocketCredential(*item) for item in items)
            except Exception as exc:
                errors.append(exc)
        if errors:
            raise ExceptionGroup("Failed to parse some messages", errors)

    def as_raw(self) -> RawAncillary:
        """Return what ``socket.sendmsg()`` takes."""
        raw: RawAncillary = []
        if self._fds and _SCM_RIGHTS is not None:
            data = array.array("i", self._fds).tobytes()
            raw.append((_socket.SOL_SOCKET, _SCM_RIGHTS, data))
        if _SCM_CREDENTIALS is not None:
            for pid, uid, gid in self._credentials:
                data = _UCRED.pack(pid or os.getpid(), uid, gid)
                raw.append((_socket.SOL_SOCKET, _SCM_CREDENTIALS, data))
        return raw


def _descriptors(data: bytes) -> array.array[int]:
    return array.array("i", data[: len(data) - len(data) % _INT_SIZE])


def count_descriptors(messages: Iterable[tuple[int, int, bytes]]) -> int:
    """Return how many descriptors came with some messages."""
    return sum(
        len(data) // _INT_SIZE
        for level, kind, data in messages
        if level == _socket.SOL_SOCKET and kind == _SCM_RIGHTS
    )


def close_descriptors(messages: Iterable[tuple[int, int, bytes]]) -> None:
    """Close the descriptors that came with some messages, which nothing has asked for."""
    for level, kind, data in messages:
        if level == _socket.SOL_SOCKET and kind == _SCM_RIGHTS:
            for fd in _descriptors(data):
                with contextlib.suppress(OSError):
                    os.close(fd)
