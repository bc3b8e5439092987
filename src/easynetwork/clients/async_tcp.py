"""A TCP client for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncTCPNetworkClient"]

import socket as _socket  # the property of this name hides the module inside the class
import ssl
from typing import Any, Generic, TypeVar, overload

import anyio
import anyio.lowlevel

from easynetwork._arguments import validated_delay, validated_local_address, validated_max_recv_size
from easynetwork._tls_options import new_client_tls
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import StreamTransport
from easynetwork.backends.tls_transport import start_tls
from easynetwork.clients._async_client import AsyncClient, closed_error
from easynetwork.clients._errors import aborted, ended
from easynetwork.clients._target import validated_target
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.decoder import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import connect_tcp, tune_tcp

_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")


class AsyncTCPNetworkClient(
    AsyncClient[_T_Sent, _T_Received, StreamTransport], Generic[_T_Sent, _T_Received]
):
    """Sends and receives packets over a TCP connection.

    It connects by `async with client:`, by `wait_connected()`, or by the first operation that needs
    the connection. Methods must be called in the event loop's thread. Several tasks may send at
    once, and several may receive: each packet goes to one of them, in the order in which they
    asked.

    Resource handling: `aclose()` closes the connection, and so does leaving `async with`.

    Error handling: after a connection has ended, for whatever reason, sending and receiving raise
    `ConnectionAbortedError`; receiving raises its subclass `EndOfStreamError` if the peer has ended
    its side. Operations on a client closed here raise `ClientClosedError`.
    """

    __slots__ = (
        "_connect_options",
        "_decoder",
        "_draining",
        "_encode",
        "_has_sent_eof",
        "_max_recv_size",
        "_tls",
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
                default, "" for any host's.
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
        with close_on_error(address):
            local_address = validated_local_address(local_address)
        options = {"local_address": local_address, "happy_eyeballs_delay": happy_eyeballs_delay}
        given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
        target = validated_target(address, given)
        self._connect_options = given
        with close_on_error(address):
            check_stream_protocol(protocol)
            super().__init__(target, backend)
            self._max_recv_size = validated_max_recv_size(max_recv_size)
            self._decoder = new_decoder_factory(protocol, self._max_recv_size)()
            validated_delay(happy_eyeballs_delay)
            self._tls = new_client_tls(
                ssl,
                None if isinstance(self._target, _socket.socket) else self._target[0],
                server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                ssl_standard_compatible=ssl_standard_compatible,
            )
        self._encode = packet_encoder(protocol)
        self._has_sent_eof = False

    # -- the connection

    async def _new_socket(self, host: str, port: int) -> _socket.socket:
        return await connect_tcp(host, port, **self._connect_options)

    async def _wrap(self, sock: _socket.socket) -> StreamTransport:
        tune_tcp(sock)
        transport = self._backend.wrap_stream_socket(sock, self._decoder.feed, self._max_recv_size)
        return await start_tls(transport, self._tls) if self._tls else transport

    async def _close(self, transport: StreamTransport) -> None:
        await transport.aclose(linger=bool(self._decoder))

    # -- packets

    async def send_packet(self, packet: _T_Sent) -> None:
        transport = await self._connected()
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        try:
            if transport.congested:
                async with transport.turn():  # a packet has no bytes before its turn
                    transport.write(self._encode(packet))
            else:
                transport.write(self._encode(packet))
            if transport.congested:
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

    def _ended(self, exc: BaseException) -> ConnectionError:
        if self._is_closing:
            return closed_error()
        if isinstance(exc, EOFError):
            return ended()
        return aborted()
