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
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias

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
from easynetwork.servers.interfaces import (
    AsyncBaseClientInterface,
    AsyncDatagramClient,
    AsyncStreamClient,
)


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

        Packets are parsed lazily, one by one, in the task that asks for them: for a `yield`, in the
        client's own task and with its context variables. Nothing of a later packet is parsed before
        the handler asks for it, so how it is parsed may depend on what was said before.

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
        * `TimeoutError`: no datagram came in the time that was yielded; or another peer needs the
          place of this one, whatever was yielded, and the next `yield` ends the generator: see
          `DatagramLimits`. Never at the first `yield`. If it leaves the generator, the log gets one
          DEBUG line.
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
