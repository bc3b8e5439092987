"""Serve a handler on a memory network, and connect clients to it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final, Generic, Literal, overload

import anyio
import anyio.lowlevel

from easynetwork._arguments import strictly_positive
from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.protocol import AnyStreamProtocolType, DatagramProtocol
from easynetwork.servers.async_tcp import AsyncTCPNetworkServer
from easynetwork.servers.async_udp import AsyncUDPNetworkServer
from easynetwork.servers.blocking import AnyDatagramRequestHandler, AnyStreamRequestHandler
from easynetwork.testing._memory.datagrams import MemoryDatagramSocket
from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.servers import (
    MemoryTCPClient,
    MemoryTCPServer,
    MemoryUDPClient,
    MemoryUDPServer,
)
from easynetwork.testing._memory.sockets import Address, wait_readable, wait_writable
from easynetwork.testing._memory.streams import MemorySocket

_CLOSE_TIMEOUT: Final = 2.0
"""Seconds that the clients have to close at the end; longer than `LINGER_TIME`. A handler that does
not read would keep them for 30 seconds."""


class RawConnection:
    """The client's end of a connection, as bytes.

    Methods must be called in the event loop's thread, by one task to send and one to receive.

    Attributes:
        address: This end's address, as the server sees it.
    """

    def __init__(self, sock: MemorySocket) -> None:
        self.address: Address = sock.getsockname()
        self._socket = sock

    async def send(self, data: bytes) -> None:
        """Send bytes, as soon as the server's end has room for them.

        Raises:
            OSError: The connection was reset, or this end is closed.
        """
        unsent = memoryview(data)
        while unsent:
            await anyio.lowlevel.checkpoint()
            try:
                unsent = unsent[self._socket.send(unsent) :]
            except BlockingIOError:
                await wait_writable(self._socket)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Wait until something arrives, and return it; ``b""`` at the end of the stream.

        Args:
            max_bytes: The most bytes to return.

        Raises:
            ConnectionResetError: The server has reset the connection.
            OSError: This end is closed.
            ValueError: `max_bytes` is not strictly positive.
        """
        strictly_positive(max_bytes, "max_bytes")
        while True:
            await wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv(max_bytes)

    def send_eof(self) -> None:
        """Send nothing more; receiving goes on.

        Raises:
            OSError: The connection was reset, or this end is closed.
        """
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave. As a kernel does, this resets the connection if something was not received."""
        self._socket.close()

    def reset(self) -> None:
        """Leave rudely: what is on its way is lost."""
        self._socket.abort()


class RawDatagrams:
    """A client's socket, as bytes; see `RawConnection`.

    Attributes:
        address: Its address, as the server sees it.
    """

    def __init__(self, sock: MemoryDatagramSocket) -> None:
        self.address: Address = sock.getsockname()
        self._socket = sock

    async def send(self, data: bytes) -> None:
        """Send a datagram.

        Raises:
            OSError: It is too long, this socket is closed, or an earlier one found no server.
        """
        await anyio.lowlevel.checkpoint()
        self._socket.send(data)

    async def receive(self) -> bytes:
        """Wait for a datagram and return it.

        Raises:
            OSError: This socket is closed, or an earlier datagram found no server.
        """
        view = memoryview(bytearray(65_536))
        await wait_readable(self._socket)
        return view[: self._socket.recv_into(view)].tobytes()

    def close(self) -> None:
        """Close the socket. The server is not told."""
        self._socket.close()


class _Served(Generic[_T_Request, _T_Response]):
    """A server that is up, and the way to it.

    Attributes:
        network: The network that it serves on.
        address: The server's address.
    """

    network: MemoryNetwork
    address: Address

    def __init__(self, server: Any, network: MemoryNetwork, protocol: Any) -> None:
        self.network = network
        self.address = server.get_addresses()[0].for_connection()
        self._protocol = protocol
        self._clients = contextlib.AsyncExitStack()

    async def _connect(self, client: Any) -> Any:
        await client.wait_connected()
        self._clients.push_async_callback(client.aclose)
        return client

    def _raw(self, end: Any) -> Any:
        self._clients.callback(end.close)
        return end

    async def aclose(self) -> None:
        """Close the clients that are not closed yet."""
        await self._clients.aclose()


class ServedStreams(_Served[_T_Request, _T_Response]):
    """A server of connections that is up, and the way to it.

    Attributes:
        server: The server.
        address: Its address.
        network: The network that it serves on.
    """

    server: AsyncTCPNetworkServer[_T_Request, _T_Response]

    def __init__(self, server: Any, network: MemoryNetwork, protocol: Any) -> None:
        super().__init__(server, network, protocol)
        self.server = server

    @overload
    async def connect(
        self,
        *,
        raw: Literal[False] = False,
        protocol: AnyStreamProtocolType[_T_Request, _T_Response] | None = None,
        local_address: Address | None = None,
        to_server: Faults | None = None,
        to_client: Faults | None = None,
        **options: Any,
    ) -> AsyncTCPNetworkClient[_T_Request, _T_Response]: ...

    @overload
    async def connect(
        self,
        *,
        raw: Literal[True],
        local_address: Address | None = None,
        to_server: Faults | None = None,
        to_client: Faults | None = None,
    ) -> RawConnection: ...

    async def connect(
        self,
        *,
        raw: bool = False,
        protocol: Any = None,
        local_address: Address | None = None,
        to_server: Faults | None = None,
        to_client: Faults | None = None,
        **options: Any,
    ) -> Any:
        """Return a new client that is connected. It is closed with the server at the latest.

        Args:
            raw: Return the connection as bytes instead, without TLS: a `RawConnection`.
            protocol: The client's protocol object; the server's by default.
            local_address: The client's address; a new one by default.
            to_server: What happens to what it sends; by default, what the network does.
            to_client: What happens to what the server sends.
            **options: Those of `AsyncTCPNetworkClient`: `ssl` and the like, `max_recv_size`.

        Raises:
            ConnectionRefusedError: The server is closed.
            ssl.SSLError: The handshake failed.
        """
        where = self.address, local_address
        connect = partial(self.network.connect, *where, to_server, to_client)
        if raw:
            await anyio.lowlevel.checkpoint()
            return self._raw(RawConnection(connect()))
        client = MemoryTCPClient[Any, Any](
            connect, self.address, protocol or self._protocol, **options
        )
        return await self._connect(client)


class ServedDatagrams(_Served[_T_Request, _T_Response]):
    """A server of datagrams that is up, and the way to it.

    Attributes:
        server: The server.
        address: Its address.
        network: The network that it serves on.
    """

    server: AsyncUDPNetworkServer[_T_Request, _T_Response]

    def __init__(self, server: Any, network: MemoryNetwork, protocol: Any) -> None:
        super().__init__(server, network, protocol)
        self.server = server

    @overload
    async def connect(
        self,
        *,
        raw: Literal[False] = False,
        protocol: DatagramProtocol[_T_Request, _T_Response] | None = None,
        local_address: Address | None = None,
        to_server: Faults | None = None,
    ) -> AsyncUDPNetworkClient[_T_Request, _T_Response]: ...

    @overload
    async def connect(
        self,
        *,
        raw: Literal[True],
        local_address: Address | None = None,
        to_server: Faults | None = None,
    ) -> RawDatagrams: ...

    async def connect(
        self,
        *,
        raw: bool = False,
        protocol: Any = None,
        local_address: Address | None = None,
        to_server: Faults | None = None,
    ) -> Any:
        """Return a new client; see `ServedStreams.connect()`.

        Args:
            raw: Return a `RawDatagrams` instead.
            protocol: The client's protocol object; the server's by default.
            local_address: The client's address; a new one by default.
            to_server: What happens to what it sends; by default, what the network does. What the
                server sends has the faults of the network.

        Raises:
            OSError: The address is in use.
        """
        connect = partial(self.network.bind, self.address, local_address, to_server)
        if raw:
            await anyio.lowlevel.checkpoint()
            return self._raw(RawDatagrams(connect()))
        client = MemoryUDPClient[Any, Any](connect, self.address, protocol or self._protocol)
        return await self._connect(client)


@overload
def serve(
    handler: AnyStreamRequestHandler[_T_Request, _T_Response],
    protocol: AnyStreamProtocolType[_T_Response, _T_Request],
    *,
    network: MemoryNetwork | None = None,
    **server_options: Any,
) -> contextlib.AbstractAsyncContextManager[ServedStreams[_T_Request, _T_Response]]: ...


@overload
def serve(
    handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
    protocol: DatagramProtocol[_T_Response, _T_Request],
    *,
    network: MemoryNetwork | None = None,
    **server_options: Any,
) -> contextlib.AbstractAsyncContextManager[ServedDatagrams[_T_Request, _T_Response]]: ...


def serve(
    handler: Any, protocol: Any, *, network: MemoryNetwork | None = None, **server_options: Any
) -> Any:
    """Serve a request handler on a network in memory, while the block runs.

    The server, its sessions, the protocol object and the clients are the real ones; only the
    sockets are not. It needs no port, no file descriptor and no thread (but those of a blocking
    handler), and runs on asyncio and on trio. What it logs goes to the server's usual logger::

        async with serve(EchoHandler(), protocol) as served:
            client = await served.connect()
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"

    Leaving the block closes the clients and shuts down the server. An exception that leaves it has
    a note that shows the network, with its seed.

    Args:
        handler: The request handler.
        protocol: The protocol object; that of datagrams makes it a server of datagrams.
        network: Where to serve; a new network without faults by default.
        **server_options: Keyword arguments of `AsyncTCPNetworkServer` or `AsyncUDPNetworkServer`,
            for example `ssl`.

    Raises:
        TypeError: An argument is of the wrong type, or there is no such option.
        ValueError: An option has a value that cannot be used.
    """
    return _serve(handler, protocol, network or MemoryNetwork(), server_options)


@contextlib.asynccontextmanager
async def _serve(
    handler: Any, protocol: Any, network: MemoryNetwork, options: dict[str, Any]
) -> AsyncIterator[Any]:
    has_datagrams = isinstance(protocol, DatagramProtocol)
    server_class: Any = MemoryUDPServer if has_datagrams else MemoryTCPServer
    served_class: Any = ServedDatagrams if has_datagrams else ServedStreams
    server = server_class(network, protocol, handler, **options)
    failure: BaseException | None = None

    async def run() -> None:
        nonlocal failure
        try:
            await server.serve_forever(is_up_event=is_up)
        except Exception as exc:  # of service_init()
            failure = exc
            is_up.set()
            tasks.cancel_scope.cancel()

    async with server, anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(run)
        await is_up.wait()
        served = served_class(server, network, protocol)
        try:
            if failure is None:
                yield served
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:
            failure = exc  # of the test: not to be wrapped in a group
            said = [*exc.args, *getattr(exc, "__notes__", ())]
            if not any(repr(network) in each for each in said if isinstance(each, str)):
                exc.add_note(f"The network: {network!r}")
        finally:
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await served.aclose()
            with anyio.CancelScope(shield=True):
                await server.shutdown()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # its traceback refers to this frame
