"""Request handlers, which you write, and the client objects that they get.

A request handler is one object for the whole service. Its `handle()` is an asynchronous generator:
each `yield` asks for one packet of one client, and `client.send_packet()` answers. The server runs
one generator at a time for each client, always in that client's own task.
"""

from __future__ import annotations

__all__ = [
    "AsyncBaseClientInterface",
    "AsyncDatagramClient",
    "AsyncDatagramRequestHandler",
    "AsyncStreamClient",
    "AsyncStreamRequestHandler",
    "BaseRequestHandler",
    "INETClientAttribute",
    "RecvAncillaryDataParams",
    "RecvParams",
    "UNIXClientAttribute",
]

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, overload

from anyio import TypedAttributeSet, typed_attribute

from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import (
    INETSocketAttribute,
    ISocket,
    SocketAddress,
    UnixCredentials,
    UnixSocketAddress,
    UNIXSocketAttribute,
)
from easynetwork.addresses._ancillary import RawAncillary
from easynetwork.backends import AsyncBackend
from easynetwork.exceptions import TypedAttributeLookupError, UnsupportedOperation

_T_Attribute = TypeVar("_T_Attribute")
_T_Default = TypeVar("_T_Default")


_NO_DEFAULT: Final = object()


class INETClientAttribute(TypedAttributeSet):
    """The keys of `client.extra()` for clients over IP: `client.extra(INETClientAttribute.…)`.

    The keys are those of `easynetwork.addresses.INETSocketAttribute`, under a server's names.
    """

    socket: ISocket = INETSocketAttribute.socket
    """The connection's socket, for its options."""

    local_address: SocketAddress = INETSocketAttribute.sockname
    """The server's end of the connection."""

    remote_address: SocketAddress = INETSocketAttribute.peername
    """The client's end of the connection."""


class UNIXClientAttribute(TypedAttributeSet):
    """The keys of `client.extra()` for clients over Unix sockets."""

    socket: ISocket = UNIXSocketAttribute.socket
    """The connection's socket, for its options."""

    local_name: UnixSocketAddress = typed_attribute()
    """The server's name."""

    peer_name: UnixSocketAddress = typed_attribute()
    """The client's name. Clients seldom have one."""

    peer_credentials: UnixCredentials = typed_attribute()
    """The client's process, user and group when it connected. Only of streams, on Linux."""


class RecvAncillaryDataParams(NamedTuple):
    """What to do with the ancillary data that comes with a packet (Unix sockets)."""

    data_received: Callable[[RawAncillary], object]
    """Called with the ancillary data, as ``socket.recvmsg()`` returns it, before the packet is
    delivered: the method `update_from_raw` of a `SocketAncillary`, for example. The descriptors
    belong to the handler then, which has to close them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecvParams:
    """How to wait for the packet that a `yield` asks for. The values are checked when yielded.

    Args:
        timeout: Seconds until `TimeoutError` is raised at the `yield`; None to wait for ever.
        recv_with_ancillary: Receive ancillary data as well; None not to. See
            `AsyncUnixStreamServer` and `AsyncUnixDatagramServer`.
    """

    timeout: float | None = None
    recv_with_ancillary: RecvAncillaryDataParams | None = None


Yielded: TypeAlias = float | RecvParams | None
"""What a handler may yield: how long to wait for the next packet."""


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

        Waits until the kernel has taken what was sent, for at most 30 seconds, or the server's
        `ssl_shutdown_timeout`. At this deadline, or if the call is cancelled, the connection is
        reset. The kernel delivers what it has taken in the background, but answers data that comes
        after the end with a reset (RFC 9293, 3.6.1): a client that then has not read everything
        loses the rest.
        """


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


class BaseRequestHandler:
    """The base class of all request handlers."""

    __slots__ = ("__weakref__",)

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any, /) -> None:
        """Prepare the service. Called at the start of every `serve_forever()`, before any client.

        Context variables that are set here are visible to every client's task. The default does
        nothing.

        Args:
            exit_stack: Unwound when serving ends, after the last client's task. Task groups entered
                here are cancelled then.
            server: A weak proxy of the server, which already has its addresses.
        """


class AsyncStreamRequestHandler(BaseRequestHandler, ABC, Generic[_T_Request, _T_Response]):
    """The request handler of a server with connections."""

    __slots__ = ()

    @abstractmethod
    def handle(
        self, client: AsyncStreamClient[_T_Response], /
    ) -> AsyncGenerator[Yielded, _T_Request]:
        """Serve one request, or several: an asynchronous generator.

        The generator runs up to its first `yield` as soon as the client is connected. When it
        returns, the server starts the next one in the same way, until the client leaves or
        `client.aclose()` is called. A generator that returns *before* its first `yield` refuses the
        client: the connection is reset.

        What may be raised at a `yield`, instead of the packet:

        * `StreamProtocolParseError`: the client sent something that is not a packet. The next
          `yield` continues after it. If it leaves the generator, the connection is closed
          gracefully, and the log gets one WARNING line.
        * `TimeoutError`: no packet came in the time that was yielded. If it leaves the generator,
          the connection is closed gracefully, and the log gets one DEBUG line: this is how to write
          an idle limit.
        * `ProtocolCrashedError`: the protocol object has a bug (the cause).
        * `TypeError` or `ValueError`: the yielded value is no timeout.
        * the framework's cancellation: the server shuts down, or a scope around the `yield` ends.
          When the server shuts down, do not ignore it (`AbstractAsyncNetworkServer.shutdown`).
        * `GeneratorExit`: the client is gone. An error of the connection is never raised here.

        A `ConnectionError` of `client.send_packet()` may leave the generator: the client is gone,
        and nothing is logged. If the client was closed on this side (`ClientClosedError`), that is
        one WARNING.

        Everything else that leaves the generator is a crash. It is logged at level ERROR, and the
        connection is reset after `on_disconnection()`. The server and the other clients go on. This
        includes exceptions that are no `Exception` (`argparse` raises `SystemExit`, for example),
        cancellations that do not come from the server, and cancel scopes and task groups that the
        generator has entered and not left. Only `KeyboardInterrupt` ends the server. On asyncio,
        `SystemExit` in a task that the handler has started ends the event loop: asyncio itself does
        that.

        A task group around a `yield` is left when the client leaves, as at any disconnection.

        Args:
            client: The client. The same object for all the generators of a connection.

        Yields:
            How long to wait for the packet: None for ever, or seconds, or `RecvParams`.
        """
        raise NotImplementedError

    def on_connection(
        self, client: AsyncStreamClient[_T_Response], /
    ) -> Coroutine[Any, Any, None] | AsyncGenerator[Yielded, _T_Request]:
        """Greet a client, before the first `handle()`. The default does nothing.

        Either a coroutine function, or an asynchronous generator function, which may `yield` for
        packets like `handle()` but is run once.

        Args:
            client: The client.
        """
        return _nothing()

    async def on_disconnection(self, client: AsyncStreamClient[_T_Response], /) -> None:
        """Clean up after a client, after the last `handle()`. The default does nothing.

        Not called if `on_connection()` raised, or was a generator when the connection ended.
        `client.is_closing()` is true here, unless an exception left `handle()` or the server is
        stopping: then a last packet may be sent. The client has 30 seconds to read it, or the
        server's `ssl_shutdown_timeout`. At this deadline the connection is reset, and a
        `send_packet()` that waits raises `ConnectionError`, here and in other tasks.

        An exception that leaves this method is reported like one that leaves `handle()`.

        Args:
            client: The client.
        """


class AsyncDatagramRequestHandler(BaseRequestHandler, ABC, Generic[_T_Request, _T_Response]):
    """The request handler of a server without connections."""

    __slots__ = ()

    @abstractmethod
    def handle(
        self, client: AsyncDatagramClient[_T_Response], /
    ) -> AsyncGenerator[Yielded, _T_Request]:
        """Serve one datagram, or several of the same peer: an asynchronous generator.

        A datagram of a peer that has no generator running starts one, and is what its first `yield`
        returns. Further ones wait their turn, in order, for its next `yield` or for the generator
        that is started when it has returned; those of other peers are handled meanwhile. A
        generator that returns *before* its first `yield` refuses that datagram.

        What may be raised at a `yield`, instead of the packet:

        * `DatagramProtocolParseError`: the datagram is not a packet. If it leaves the generator,
          the log gets one WARNING line.
        * `TimeoutError`: no datagram came in the time that was yielded. Never at the first `yield`.
          If it leaves the generator, the log gets one DEBUG line.
        * `ProtocolCrashedError`: the protocol object has a bug (the cause).
        * `TypeError` or `ValueError`: the yielded value is no timeout.
        * the framework's cancellation: the server shuts down or is closed, or a scope around the
          `yield` ends. When the server shuts down, do not ignore it
          (`AbstractAsyncNetworkServer.shutdown`).

        Everything else that leaves the generator is a crash, as in `AsyncStreamRequestHandler`: it
        is logged at level ERROR, and the server and the other peers go on. In each case, the peer's
        next datagram starts a new generator.

        Each generator runs in its own copy of the context in which `service_init()` ran. Its task
        may run the generators of other peers later: do not keep it to cancel it, and do not leave
        an `asyncio.timeout()` open. Cancel a scope of your own instead.

        Args:
            client: The sender of the datagram.

        Yields:
            How long to wait for the packet: None for ever, or seconds, or `RecvParams`.
        """
        raise NotImplementedError


async def _nothing() -> None:
    pass
