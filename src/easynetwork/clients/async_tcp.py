"""A TCP client for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncTCPNetworkClient"]

import socket as _socket  # the property of this name hides the module inside the class
import ssl
from typing import Any

from easynetwork._arguments import validated_delay, validated_local_address
from easynetwork._tls_options import new_client_tls
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import StreamTransport
from easynetwork.clients._addresses import INETAddresses
from easynetwork.clients._async_stream import BaseAsyncStreamClient
from easynetwork.clients._target import validated_target
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import connect_tcp, tune_tcp


class AsyncTCPNetworkClient(BaseAsyncStreamClient[_T_Sent, _T_Received], INETAddresses):
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

    __slots__ = ("_connect_options",)

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
            validated_delay(happy_eyeballs_delay)
            options = {"local_address": local_address, "happy_eyeballs_delay": happy_eyeballs_delay}
            self._connect_options: dict[str, Any] = {
                name: value for name, value in options.items() if value is not None
            }
            target = validated_target(address, self._connect_options)
            tls_options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
            host = None if isinstance(target, _socket.socket) else target[0]
            tls = new_client_tls(ssl, host, server_hostname, tls_options)
            super().__init__(target, protocol, backend, max_recv_size, tls)

    async def _new_socket(self) -> _socket.socket:
        return await connect_tcp(*self._target, **self._connect_options)

    async def _wrap(self, sock: _socket.socket) -> StreamTransport:
        tune_tcp(sock)
        return await super()._wrap(sock)
