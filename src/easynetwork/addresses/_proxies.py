"""Limited access to a socket that a transport reads, writes and closes."""

from __future__ import annotations

import contextlib
import functools
import operator
import socket as _socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, final, overload, runtime_checkable

from easynetwork._typevars import _T

if TYPE_CHECKING:
    from enum import IntEnum

    from _typeshed import ReadableBuffer


@runtime_checkable
class SupportsSocketOptions(Protocol):
    """Something whose socket options can be read and written, as those of `socket.socket`."""

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...
    def getsockopt(self, level: int, optname: int, buflen: int = ..., /) -> int | bytes:
        """Read an option."""

    @overload
    def setsockopt(self, level: int, optname: int, value: int | ReadableBuffer, /) -> None: ...
    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int, /) -> None: ...
    def setsockopt(
        self, level: int, optname: int, value: int | ReadableBuffer | None, optlen: int = ..., /
    ) -> None:
        """Write an option."""


@runtime_checkable
class ISocket(SupportsSocketOptions, Protocol):
    """The part of `socket.socket` that neither moves data nor ends the socket."""

    @property
    def family(self) -> int:
        """The address family."""

    @property
    def type(self) -> int:
        """The socket type."""

    @property
    def proto(self) -> int:
        """The protocol number."""

    def fileno(self) -> int:
        """Return the file descriptor, -1 once the socket is closed."""

    def get_inheritable(self) -> bool:
        """Tell whether child processes inherit the file descriptor."""

    def getpeername(self) -> Any:
        """Return the address of the other end."""

    def getsockname(self) -> Any:
        """Return the address of this end."""


@final
class SocketProxy:
    """Access to a socket that a transport reads, writes and closes.

    Has the methods and properties of `ISocket`, and no others.

    Args:
        socket: The socket.
        lock: Called before each method call; what it returns is held during the call. Makes the
            proxy as thread-safe as the owner of `socket` needs it to be.
        runner: Called with a function without arguments for each method call, and returns what that
            function returns: runs the call in another thread, for instance.

    The properties are constant during a socket's life: they need neither.
    """

    __slots__ = ("__weakref__", "_lock", "_runner", "_socket")

    def __init__(
        self,
        socket: ISocket,
        *,
        lock: Callable[[], contextlib.AbstractContextManager[Any]] | None = None,
        runner: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._socket = socket
        self._lock = contextlib.nullcontext if lock is None else lock
        self._runner = operator.call if runner is None else runner

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("SocketProxy is final: it cannot be subclassed")

    def __repr__(self) -> str:
        fields = {
            "fd": self.fileno(),
            "family": getattr(self.family, "name", self.family),
            "type": getattr(self.type, "name", self.type),
            "proto": self.proto,
        }
        for name, get_address in ("laddr", self.getsockname), ("raddr", self.getpeername):
            with contextlib.suppress(OSError):
                fields[name] = get_address()
        return f"<SocketProxy {', '.join(f'{name}={value}' for name, value in fields.items())}>"

    def _run(self, func: Callable[..., _T], *args: Any) -> _T:
        if args:
            func = functools.partial(func, *args)
        with self._lock():
            result: _T = self._runner(func)
            return result

    @property
    def family(self) -> int:
        """The address family; a `socket.AddressFamily` if Python knows it."""
        return _enum_member(_socket.AddressFamily, self._socket.family)

    @property
    def type(self) -> int:
        """The socket type; a `socket.SocketKind` if Python knows it."""
        return _enum_member(_socket.SocketKind, self._socket.type)

    @property
    def proto(self) -> int:
        return self._socket.proto

    def fileno(self) -> int:
        return self._run(self._socket.fileno)

    def get_inheritable(self) -> bool:
        return self._run(self._socket.get_inheritable)

    def getpeername(self) -> Any:
        return self._run(self._socket.getpeername)

    def getsockname(self) -> Any:
        return self._run(self._socket.getsockname)

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...
    def getsockopt(self, *args: int) -> int | bytes:
        return self._run(self._socket.getsockopt, *args)

    @overload
    def setsockopt(self, level: int, optname: int, value: int | ReadableBuffer, /) -> None: ...
    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int, /) -> None: ...
    def setsockopt(self, *args: Any) -> None:
        self._run(self._socket.setsockopt, *args)


def _enum_member(enum_class: type[IntEnum], value: int) -> int:
    try:
        return enum_class(value)
    except ValueError:
        return value
