"""The clients that request handlers talk to: `easynetwork.servers.handlers` exports them.

Methods that not every client has raise `UnsupportedOperation` here.
"""

from __future__ import annotations

__all__ = ["AsyncBaseClientInterface", "AsyncDatagramClient", "AsyncStreamClient"]

import ssl as _ssl  # the parameters of this name hide the module
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Generic, TypeVar, overload

from easynetwork._typevars import _T_Response, _Ts
from easynetwork.addresses._ancillary import RawAncillary
from easynetwork.backends import AsyncBackend
from easynetwork.exceptions import TypedAttributeLookupError, UnsupportedOperation
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.servers.statistics import ClientStatistics, CloseReason

_T_Attribute = TypeVar("_T_Attribute")
_T_Default = TypeVar("_T_Default")
_NO_DEFAULT: Final = object()


class AsyncBaseClientInterface(ABC, Generic[_T_Response]):
    """A client, as request handlers see it. Methods must be called in the event loop's thread."""

    __slots__ = ("__weakref__",)

    @property
    @abstractmethod
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What can be asked with `extra()`, and how to find it out."""

    @overload
    def extra(self, attribute: _T_Attribute) -> _T_Attribute: ...

    @overload
    def extra(self, attribute: _T_Attribute, default: _T_Default) -> _T_Attribute | _T_Default: ...

    def extra(self, attribute: Any, default: object = _NO_DEFAULT) -> object:
        """Return what is known of the client under a typed attribute.

        Like `anyio.TypedAttributeProvider.extra`; that class is not used because its instances
        have a `__dict__`.

        Args:
            attribute: The key, such as `INETClientAttribute.remote_address`.
            default: What to return if there is no such attribute.

        Raises:
            TypedAttributeLookupError: There is no such attribute, and no default.
        """
        getter = self.extra_attributes.get(attribute)
        try:
            if getter is None:
                raise TypedAttributeLookupError("Attribute not found")
            return getter()
        except TypedAttributeLookupError:
            if default is _NO_DEFAULT:
                raise
            return default

    @abstractmethod
    async def send_packet(self, packet: _T_Response, /) -> None:
        """Send a packet. Several tasks may do so at once; each packet stays in one piece.

        Over a connection, bytes that the operating system does not take yet are sent in the
        background. While more than 64 KiB wait for that, the call waits for its turn before it
        hands over its packet, first come, first served. If it is cancelled before its turn, nothing
        was sent. After its turn, it waits until few enough bytes wait. If it is cancelled then, the
        packet is still sent, whole. In both cases, the client can still be used. So at most 64 KiB
        and one packet wait for a client, however many tasks send.

        Packets that answer requests which arrived together may be gathered. They leave at the next
        turn of the event loop at the latest.

        Args:
            packet: The object to send.

        Raises:
            ClientClosedError: The client was closed on this side.
            ConnectionError: The connection broke. Give up on this client.
            ProtocolCrashedError: The protocol object could not make bytes of the packet (the
                cause). Nothing was sent; the client can still be used.
            OSError: Another error of the operating system; see its `errno`.
        """

    async def send_packet_with_ancillary(
        self, packet: _T_Response, ancillary_data: RawAncillary, /
    ) -> None:
        """Send a packet and, beside its first byte, ancillary data: descriptors, for example.

        For Unix sockets. Waits like `send_packet()`. When it returns, the kernel has the
        descriptors, and they may be closed here. If it is cancelled, nothing was sent.

        Args:
            packet: The object to send.
            ancillary_data: What ``socket.sendmsg()`` takes: `SocketAncillary.as_raw()`.

        Raises:
            UnsupportedOperation: The client is not at the other end of a Unix socket, or TLS is
                used.
            OSError: The packet is longer than the kernel takes at once (`EMSGSIZE`), or the kernel
                refuses the ancillary data (`EBADF` for a closed descriptor). Nothing was sent.
            Exception: As `send_packet()`.
        """
        raise UnsupportedOperation("This client does not have ancillary data support.")

    @abstractmethod
    def is_closing(self) -> bool:
        """Whether the client is closed, so that sending raises `ClientClosedError`."""

    def is_draining(self) -> bool:
        """Whether the server drains, so that a long conversation with the client should end.

        See `AbstractAsyncNetworkServer.shutdown()`.
        """
        return False

    @abstractmethod
    def backend(self) -> AsyncBackend:
        """Return the backend that the server runs on."""


class AsyncStreamClient(AsyncBaseClientInterface[_T_Response]):
    """A client with a connection. Equal only to itself, and hashable."""

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection gracefully: what was sent before arrives, then the end of stream.

        From this call on, sending raises `ClientClosedError` and no more requests are delivered: a
        generator that waits at a `yield`, or comes to one, is closed. May be called several times,
        by any task.

        Waits until the kernel has taken what was sent, for at most `Limits.close_timeout` (30
        seconds by default), or the server's `ssl_shutdown_timeout`. At this deadline, or if the
        call is cancelled, the connection is reset. The kernel delivers what it has taken in the
        background, but answers data that comes after the end with a reset (RFC 9293, 3.6.1): a
        client that then has not read everything loses the rest.
        """

    async def recv_packet(self, *, timeout: float | None = None) -> Any:
        """Wait for the next packet and return it: what a ``yield`` of the handler would deliver.

        For coroutines that hold a part of a conversation, and for tasks of the client. In
        `handle()`, in `on_connection()`, and in what they call or start. An exception that leaves
        the handler is treated as if it had been raised at a ``yield``.

        Args:
            timeout: The most seconds to wait; None for no limit.

        Raises:
            TimeoutError: No packet came in this time.
            EndOfStreamError: The client has left. If this leaves the handler, nothing is logged.
            ClientClosedError: The client was closed on this side.
            ConnectionError: The connection broke.
            StreamProtocolParseError: The client sent something that is not a packet. The next call
                continues after it.
            ProtocolCrashedError: The protocol object has a bug (the cause).
            BusyResourceError: Another task, or the handler's generator at its ``yield``, already
                waits for a packet.
        """
        raise _unsupported("recv_packet")

    def set_protocol(self, protocol: AnyStreamProtocolType[Any, Any], /) -> None:
        """Continue with another protocol object, in both directions.

        Bytes that were received, and not delivered as packets, are parsed again by this one. None
        is lost or used twice, however the stream was cut. Packets that were sent before leave as
        they were.

        Args:
            protocol: Any stream protocol, with any serializer.

        Raises:
            TypeError: It is something else. Nothing has changed, here and in the next cases.
            RuntimeError: A generator of the current protocol object has got half a packet, which
                cannot be had back, or has failed; or the conversation is over.
            BusyResourceError: A task waits for a packet.
            ClientClosedError: The client was closed on this side.
        """
        raise _unsupported("set_protocol")

    async def start_tls(
        self,
        ssl: _ssl.SSLContext,
        /,
        *,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
    ) -> None:
        """Continue over TLS, as the server.

        What was sent before leaves first, in clear text. Bytes that were received, and not
        delivered as packets, are the beginning of the handshake. They are never parsed, so no
        packet can be injected into the encrypted conversation (CVE-2011-0411). While the handshake
        goes on, `send_packet()` waits in other tasks, and receiving is busy.

        Whatever ends the handshake early closes the connection, and has its line in the log. If the
        exception leaves the handler, nothing more is logged.

        Args:
            ssl: The server's certificate, and everything else that can be chosen.
            ssl_handshake_timeout: Seconds that the handshake may take. 60 by default.
            ssl_shutdown_timeout: Seconds that the client has, when the connection is closed, to
                read what waits for it. 30 by default.
            ssl_standard_compatible: Whether the connection ends with a closing alert (RFC 8446,
                6.1). True by default.

        Raises:
            ssl.SSLError: The handshake failed. Clear text in place of it ends like this, too.
            TimeoutError: It took too long.
            ConnectionError: The client left, or was closed on this side.
            RuntimeError: The connection uses TLS already, or its input cannot be handed over: see
                `set_protocol()`. Nothing has changed, here and in the next cases.
            BusyResourceError: A task waits for a packet.
            TypeError: `ssl` is not an `ssl.SSLContext`.
            ValueError: It is a client's, or a timeout is negative or not a number.
        """
        raise _unsupported("start_tls")

    def start_soon(
        self,
        func: Callable[[*_Ts], Coroutine[Any, Any, object]],
        /,
        *args: *_Ts,
        name: str | None = None,
    ) -> None:
        """Run a coroutine function in a task that belongs to the client.

        The task may outlive the generator that has started it. It runs in a copy of the caller's
        context. When the connection ends, it is cancelled after the generator was closed, and
        waited for before `on_disconnection()` is called, for at most `Limits.close_timeout`, or the
        server's `ssl_shutdown_timeout`. While it waits in the client's `aclose()`, it is not
        cancelled.

        An exception that leaves it ends the client, and is reported as if it had left `handle()`: a
        `ConnectionError` of this client is not logged. The generator is cancelled then.

        Args:
            func: The coroutine function.
            *args: Its positional arguments.
            name: The task's name, for the log and for debuggers.

        Raises:
            RuntimeError: The conversation is over.
        """
        raise _unsupported("start_soon")

    def try_send_packet(self, packet: _T_Response, /) -> bool:
        """Send a packet, unless that would take waiting.

        Args:
            packet: The object to send.

        Returns:
            Whether the packet was sent. Not if the client is closed, if the connection broke, if
            more than 64 KiB wait to be sent, or if tasks wait for their turn to send.

        Raises:
            ProtocolCrashedError: The protocol object could not make bytes of the packet (the
                cause). Nothing was sent; the client can still be used.
        """
        raise _unsupported("try_send_packet")

    def get_unsent_size(self) -> int:
        """Return how many bytes wait to be sent, because the client does not read fast enough."""
        raise _unsupported("get_unsent_size")

    close_reason: CloseReason | None
    """Why the connection ended; None until the conversation is over. `on_disconnection()` can tell
    by it."""

    def set_limits(self, **timeouts: float | None) -> None:
        """Allow this client something else than the others from now on, after a login for example.

        Args:
            **timeouts: Timeouts of `Limits` with their new values: `idle_timeout=None`.

        Raises:
            TypeError: One is not a timeout of `Limits`, or not a number. Nothing has changed, here
                and in the next cases.
            ValueError: One is not strictly positive and finite.
            RuntimeError: The conversation is over, or this is another thread.
        """
        raise _unsupported("set_limits")

    def get_statistics(self) -> ClientStatistics:
        """Return what has happened on the connection so far."""
        raise _unsupported("get_statistics")

    def abort(self) -> None:
        """Reset the connection now. What waits to be sent is lost.

        Afterwards the client is closed: see `aclose()`.
        """
        raise _unsupported("abort")

    async def wait_disconnected(self) -> None:
        """Wait until the client has left: it has ended or reset the connection, or it was closed.

        A client that only ends its sending side, as ``nc -N`` does, looks the same: this returns.

        From the first call on, the connection is read also while no task waits for a packet. While
        more than 64 KiB of packets wait, it is not, and the end cannot be seen. Ancillary data of a
        Unix socket cannot be received any more. Any number of tasks may wait.
        """
        raise _unsupported("wait_disconnected")


class AsyncDatagramClient(AsyncBaseClientInterface[_T_Response]):
    """A peer without a connection. It is closed when the server does not serve.

    Two of them are equal if their server's socket and their address are, so that they can be the
    keys of what a handler remembers of its peers. There is one object for each peer as long as the
    handler keeps it.

    `send_packet` sends one datagram. It returns as soon as the kernel has it, which promises
    nothing about its arrival, and raises `OSError` with `errno.EMSGSIZE` if it is too long.
    """

    __slots__ = ()

    @abstractmethod
    def __eq__(self, other: object, /) -> bool:
        """Whether both have the same address, at the same socket of the server."""

    @abstractmethod
    def __hash__(self) -> int:
        """Return the hash of the address and of the server's socket."""


def _unsupported(method: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"This client does not have {method}()")
