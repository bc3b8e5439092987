"""A TCP client for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncTCPNetworkClient"]

import errno
import math
import os
import socket as _socket  # the property of this name hides the module inside the class
import ssl
import warnings
from typing import Any, Generic, TypeVar, overload

import anyio
import anyio.lowlevel

from easynetwork.addresses import SocketAddress, SocketProxy, new_socket_address
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends._checks import check_delay, check_max_recv_size
from easynetwork.backends._tls_options import check_client_tls
from easynetwork.backends.abc import StreamTransport
from easynetwork.backends.sockets import connect_tcp, tune_tcp
from easynetwork.backends.tls_transport import start_tls
from easynetwork.clients._target import check_target, owned
from easynetwork.clients.abc import AbstractAsyncNetworkClient
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.decoder import NEED_DATA
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol

_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")


class AsyncTCPNetworkClient(
    AbstractAsyncNetworkClient[_T_Sent, _T_Received], Generic[_T_Sent, _T_Received]
):
    """Sends and receives packets over a TCP connection.

    It connects by `async with client:`, by `wait_connected()`, or by the first operation that needs
    the connection. Methods must be called in the event loop's thread. Several tasks may send at
    once, and several may receive: each packet goes to one of them, in the order in which they
    asked.

    Resource handling: `aclose()` closes the connection, and so does leaving `async with`.

    Error handling: a connection that ends, for whatever reason, is a `ConnectionAbortedError` for
    whoever sends or receives; operations on a client closed here raise `ClientClosedError`.
    """

    __slots__ = (
        "_addresses",
        "_attempt",
        "_backend",
        "_connect_options",
        "_connecting",
        "_decoder",
        "_draining",
        "_encode",
        "_has_sent_eof",
        "_is_closing",
        "_max_recv_size",
        "_proxy",
        "_receiving",
        "_target",
        "_tls",
        "_transport",
    )

    @overload
    def __init__(
        self,
        address: tuple[str, int],
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        local_address: tuple[str, int] | None = None,
        happy_eyeballs_delay: float | None = None,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        max_recv_size: int | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        sock: _socket.socket,
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        max_recv_size: int | None = None,
    ) -> None: ...

    def __init__(
        self,
        address: tuple[str, int] | _socket.socket,
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        local_address: tuple[str, int] | None = None,
        happy_eyeballs_delay: float | None = None,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        max_recv_size: int | None = None,
    ) -> None:
        """Check the arguments; the connection is made later.

        Args:
            address: Where to connect to: host and port. Or a connected TCP socket, which belongs to
                the client from now on.
            protocol: The protocol object.
            backend: The backend, or its name; by default, the framework that is running.
            local_address: The address to connect from; chosen by the kernel by default.
            happy_eyeballs_delay: Seconds until the host's next address is tried while others are
                being tried (RFC 8305). 0.25 by default; `math.inf` for one after the other.
            ssl: Speak TLS, as this context says; True for `ssl.create_default_context()`.
            server_hostname: Whose certificate the server must have: the host that was asked for by
                default, "" for anybody's.
            ssl_handshake_timeout: Seconds that the handshake may take. 60 by default.
            ssl_shutdown_timeout: Seconds that the server has, when the client is closed, to take
                what waits for it. 30 by default.
            ssl_standard_compatible: Whether the connection ends with a closing alert (RFC 8446,
                6.1), and its absence is an error of its own. True by default.
            max_recv_size: The most bytes taken from the connection at a time. 64 KiB by default.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The socket is not connected.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        options = {"local_address": local_address, "happy_eyeballs_delay": happy_eyeballs_delay}
        given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
        self._target = check_target(address, given)
        self._connect_options = given
        with owned(address):
            check_stream_protocol(protocol)
            self._backend = ensure_backend(backend)
            self._max_recv_size = check_max_recv_size(max_recv_size)
            check_delay(happy_eyeballs_delay)
            self._tls = check_client_tls(
                ssl,
                None if isinstance(self._target, _socket.socket) else self._target[0],
                server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                ssl_standard_compatible=ssl_standard_compatible,
            )
        self._decoder = new_decoder_factory(protocol, self._max_recv_size)()
        self._encode = packet_encoder(protocol)
        self._transport: StreamTransport | None = None
        self._proxy: SocketProxy | None = None
        self._addresses: tuple[SocketAddress, SocketAddress] | None = None  # this end, the peer
        self._connecting = anyio.Lock()
        self._draining = anyio.Lock(fast_acquire=True)
        self._receiving = anyio.Lock()
        self._attempt: anyio.CancelScope | None = None
        self._is_closing = False
        self._has_sent_eof = False

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None and not transport.is_closing():
            message = f"unclosed client {self!r} (and cannot be closed synchronously)"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        if self._addresses is None:
            return f"<{type(self).__name__} (partially initialized)>"
        return f"<{type(self).__name__} endpoint={self._addresses[1]}>"

    def backend(self) -> AsyncBackend:
        return self._backend

    # -- the connection

    def is_connected(self) -> bool:
        return self._transport is not None

    async def wait_connected(self) -> None:
        await self._connected()

    async def _connected(self, deadline: float = math.inf) -> StreamTransport:
        if self._is_closing:
            raise _closed_error()
        if self._transport is not None:
            return self._transport
        if isinstance(self._target, _socket.socket):
            deadline = math.inf  # there is nothing to wait for
        with self._backend.timeout_at(deadline):
            async with self._connecting:
                await self._try_to_connect()
        return await self._connected()  # unless closed meanwhile

    async def _try_to_connect(self) -> None:
        if self._transport is not None or self._is_closing:
            return  # since the lock was asked for
        try:
            with anyio.CancelScope() as self._attempt:
                await self._connect()
        finally:
            self._attempt = None
        if self.is_closing():  # meanwhile: maybe too late to be cancelled
            await self.aclose()

    async def _connect(self) -> None:
        sock = self._target
        if not isinstance(sock, _socket.socket):
            sock = await connect_tcp(*sock, **self._connect_options)
        try:
            sock.setblocking(False)
            names = sock.getsockname(), sock.getpeername()
        except OSError:
            sock.close()
            raise
        tune_tcp(sock)
        transport = await self._backend.wrap_stream_socket(
            sock, self._decoder.feed, self._max_recv_size
        )
        self._transport = await start_tls(transport, self._tls) if self._tls else transport
        local, remote = (new_socket_address(name, sock.family) for name in names)
        self._addresses = local, remote

    def is_closing(self) -> bool:
        return self._is_closing

    async def aclose(self) -> None:
        self._is_closing = True
        if self._attempt is not None:
            self._attempt.cancel()  # its task closes what there is to close
        elif self._transport is not None:
            await self._close(self._transport)
        elif isinstance(self._target, _socket.socket):
            self._target.close()

    async def _close(self, transport: StreamTransport) -> None:
        if self._draining.locked():
            try:
                async with self._draining:
                    pass  # tasks that are sending a packet are through
            except BaseException:
                transport.abort()
                raise
        await transport.aclose(linger=bool(self._decoder))

    # -- packets

    async def send_packet(self, packet: _T_Sent) -> None:
        transport = await self._connected()
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        data = self._encode(packet)
        try:
            transport.write(data)
            if transport.congested:
                async with self._draining:
                    await transport.drain()
        except ConnectionError as exc:
            raise self._ended(exc) from exc.__cause__ or exc

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent. Receiving goes on.

        Does nothing if it was called before, or if the client is closed. After it, `send_packet()`
        raises `RuntimeError`.

        Raises:
            UnsupportedOperation: TLS cannot do that. The client can still be used.
            OSError: The client was not connected yet, and cannot be.
        """
        if not self._is_closing:
            transport = await self._connected()
            await transport.send_eof()
            self._has_sent_eof = True

    async def recv_packet(self) -> _T_Received:
        return await self._receive(math.inf)

    async def _receive(self, deadline: float) -> _T_Received:
        transport = await self._connected(deadline)
        decoder = self._decoder
        await self._acquire_receiving(deadline)
        try:
            while (packet := decoder.take()) is NEED_DATA:
                try:
                    if decoder.refill():
                        await anyio.lowlevel.checkpoint()
                    else:
                        await transport.receive(deadline)
                except (EOFError, ConnectionError) as exc:
                    raise self._ended(exc) from exc.__cause__ or exc
        finally:
            self._receiving.release()
        received: _T_Received = packet
        return received

    async def _acquire_receiving(self, deadline: float) -> None:
        try:
            self._receiving.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.CancelScope(deadline=deadline) as scope:
                await self._receiving.acquire()
            if scope.cancelled_caught:
                raise TimeoutError("timed out") from None

    def _ended(self, exc: BaseException) -> ConnectionError:
        if self._is_closing:
            return _closed_error()
        reason = os.strerror(errno.ECONNABORTED)
        if isinstance(exc, EOFError):
            reason += " (end-of-stream)"
        return ConnectionAbortedError(errno.ECONNABORTED, reason)

    # -- addresses

    @property
    def socket(self) -> SocketProxy:
        """The socket, to look at; the same object each time.

        Raises:
            AttributeError: The client is not connected yet.
        """
        if self._transport is None:
            raise AttributeError("Socket not connected")
        if self._proxy is None:
            self._proxy = SocketProxy(self._transport.socket)
        return self._proxy

    def get_local_address(self) -> SocketAddress:
        """Return this end's address.

        Raises:
            ClientClosedError: The client is closed.
            OSError: The client is not connected yet.
        """
        return self._endpoints()[0]

    def get_remote_address(self) -> SocketAddress:
        """Return the peer's address. Raises what `get_local_address()` raises."""
        return self._endpoints()[1]

    def _endpoints(self) -> tuple[SocketAddress, SocketAddress]:
        if self._is_closing:
            raise _closed_error()
        if self._addresses is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._addresses


def _closed_error() -> ClientClosedError:
    return ClientClosedError("Client is closing, or is already closed")
