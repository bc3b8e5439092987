"""A blocking TCP client."""

from __future__ import annotations

__all__ = ["TCPNetworkClient"]

import socket as _socket  # the property of this name hides the module inside the class
import ssl

from easynetwork._arguments import validated_local_address
from easynetwork._tls_options import new_client_tls
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.clients._addresses import INETAddresses
from easynetwork.clients._blocking_stream import BlockingStreamClient
from easynetwork.clients._target import validated_target
from easynetwork.clients._waiting import connect_tcp
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import tune_tcp


class TCPNetworkClient(BlockingStreamClient[_T_Sent, _T_Received], INETAddresses):
    """Sends and receives packets over a TCP connection.

    All methods may be called by any thread, at any time. Protocol objects are used by one thread to
    send and by one thread to receive at a time.

    Resource handling: a client owns its socket from the beginning, and closes it at once if it
    cannot be made. `close()` closes it, and so does leaving `with`. While the peer is in the middle
    of sending something that was not asked for, that takes up to a second; while another thread
    is sending to a peer that does not read, up to 30 seconds, or `ssl_shutdown_timeout`. A process
    that forks shares the connection with its child: only one of the two should use it, and close
    it.

    Error handling: after a connection has ended, for whatever reason, sending and receiving raise
    `ConnectionAbortedError`; receiving raises its subclass `EndOfStreamError` if the peer has ended
    its side. Operations on a client closed here raise `ClientClosedError`.

    When the time of a `send_packet()` is up, or `KeyboardInterrupt` ends it, after a part of the
    packet has left, nothing more can be sent: the peer would take the next packet for the rest of
    that one. Each further `send_packet()` raises `ConnectionAbortedError`; receiving goes on.

    The exception of a signal handler, `KeyboardInterrupt` for example, loses nothing if it comes
    while `recv_packet()` waits. If it comes in the moment in which bytes are taken from the
    operating system or parsed, they may be lost: each further `recv_packet()` raises
    `ConnectionAbortedError` then, and never returns what follows the gap. An `Exception` that a
    signal handler raises while the serializer works counts as the serializer's, and costs that
    packet (`ProtocolCrashedError`); `KeyboardInterrupt` does not.
    """

    __slots__ = ()

    def __init__(
        self,
        address: tuple[str, int] | _socket.socket,
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        *,
        connect_timeout: float | None = None,
        local_address: tuple[str, int] | None = None,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        max_recv_size: int | None = None,
        retry_interval: float = 1.0,
    ) -> None:
        """Connect.

        Args:
            address: Where to connect to: host and port; all addresses of a host are tried, one
                after the other. Or a connected TCP socket, which belongs to the client from now on.
            protocol: The protocol object.
            connect_timeout: Seconds for each address. By default, the kernel decides.
            local_address: The address to connect from; chosen by the kernel by default.
            ssl: Speak TLS, as this context says; True for `ssl.create_default_context()`.
            server_hostname: Whose certificate the server must have: the host that was asked for by
                default, "" for any host's.
            ssl_handshake_timeout: Seconds that the handshake may take. 60 by default.
            ssl_shutdown_timeout: Seconds that the server has, when the client is closed, to take
                what waits for it. 30 by default.
            ssl_standard_compatible: Whether the connection ends with a closing alert (RFC 8446,
                6.1), and its absence is an error of its own. True by default.
            max_recv_size: The most bytes taken from the connection at a time. 64 KiB by default.
            retry_interval: Seconds after which a waiting thread looks whether the client has been
                closed, should the kernel not tell it.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The connection cannot be made, or the socket is not connected. If all addresses
                failed alike, an error of that kind, `ConnectionRefusedError` say, with the group of
                the single errors as its cause. If TLS fails, an `ssl.SSLError`.
        """
        with close_on_error(address):
            check_stream_protocol(protocol)
            local_address = validated_local_address(local_address)
            options = {"connect_timeout": connect_timeout, "local_address": local_address}
            target = validated_target(address, options)
            tls_options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
            host = None if isinstance(target, _socket.socket) else target[0]
            tls = new_client_tls(ssl, host, server_hostname, tls_options)

            def connect() -> _socket.socket:
                sock = target
                if not isinstance(sock, _socket.socket):
                    sock = connect_tcp(*sock, local_address=local_address, timeout=connect_timeout)
                tune_tcp(sock)
                return sock

            super().__init__(protocol, connect, max_recv_size, retry_interval, tls, host)
