"""A TCP client for programs, or threads, that wait.

Two locks: one for whoever sends, closes or inspects, one for whoever receives; so a thread may
receive while another one sends. The descriptor is closed under both of them: `close()` does not
wait for a receiver but wakes it up, and leaves the descriptor to it. So nobody works on a
descriptor that has been closed meanwhile, and maybe given to another file.
"""

from __future__ import annotations

__all__ = ["TCPNetworkClient"]

import errno
import math
import selectors
import socket as _socket  # the property of this name hides the module inside the class
import ssl
import time
import warnings
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import Generic, TypeVar, overload

from easynetwork.addresses import SocketAddress, SocketProxy, new_socket_address
from easynetwork.backends._checks import check_max_recv_size
from easynetwork.backends._tls_options import check_client_tls
from easynetwork.backends.sockets import tune_tcp
from easynetwork.clients._blocking import (
    LONGEST_WAIT,
    ClientLocks,
    aborted,
    connect_tcp,
    deadline_after,
    end_stream,
    explain,
    new_selector,
    send_some,
    timed_out,
    wait_for_lock,
    wait_ready,
    wait_writable,
)
from easynetwork.clients._blocking_tls import BlockingTLS
from easynetwork.clients._target import check_target, owned
from easynetwork.clients.abc import AbstractNetworkClient
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.decoder import NEED_DATA
from easynetwork.exceptions import ClientClosedError, UnsupportedOperation
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol

_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")


class TCPNetworkClient(AbstractNetworkClient[_T_Sent, _T_Received], Generic[_T_Sent, _T_Received]):
    """Sends and receives packets over a TCP connection.

    All methods may be called by any thread, at any time. Protocol objects are used by one thread to
    send and by one thread to receive at a time.

    Resource handling: a client owns its socket from the beginning, and closes it at once if it
    cannot be made. `close()` closes it, and so does leaving `with`. A process that forks shares the
    connection with its child: only one of the two should use it, and close it.

    Error handling: a connection that ends, for whatever reason, is a `ConnectionAbortedError` for
    whoever sends or receives; operations on a client closed here raise `ClientClosedError`.

    When the time of a `send_packet()` is up, or `KeyboardInterrupt` ends it, after a part of the
    packet has left, nothing more can be sent: the peer would take the next packet for the rest of
    that one. Each further `send_packet()` raises `ConnectionAbortedError`; receiving goes on.
    """

    __slots__ = (
        "_decoder",
        "_encode",
        "_has_sent_eof",
        "_is_closed",
        "_is_torn",
        "_local_address",
        "_locks",
        "_max_recv_size",
        "_proxy",
        "_readable",
        "_remote_address",
        "_retry_interval",
        "_socket",
        "_tls",
    )

    @overload
    def __init__(
        self,
        address: tuple[str, int],
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
    ) -> None: ...

    @overload
    def __init__(
        self,
        sock: _socket.socket,
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        *,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        max_recv_size: int | None = None,
        retry_interval: float = 1.0,
    ) -> None: ...

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
                default, "" for anybody's.
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
        with owned(address):
            check_stream_protocol(protocol)
            if not retry_interval > 0:
                raise ValueError("retry_interval must be a strictly positive float")
            self._retry_interval = min(retry_interval, LONGEST_WAIT)
            self._max_recv_size = check_max_recv_size(max_recv_size)
            self._decoder = new_decoder_factory(protocol, self._max_recv_size)()
            self._encode = packet_encoder(protocol)
            options = {"connect_timeout": connect_timeout, "local_address": local_address}
            target = check_target(address, [k for k, v in options.items() if v is not None])
            tls = check_client_tls(
                ssl,
                None if isinstance(target, _socket.socket) else target[0],
                server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                ssl_standard_compatible=ssl_standard_compatible,
            )
        if not isinstance(target, _socket.socket):
            target = connect_tcp(*target, local_address=local_address, timeout=connect_timeout)
        with owned(target):
            target.setblocking(False)
            tune_tcp(target)
            self._local_address = new_socket_address(target.getsockname(), target.family)
            self._remote_address = new_socket_address(target.getpeername(), target.family)
            self._locks = locks = ClientLocks()
            self._tls = None if tls is None else BlockingTLS(tls, locks)
            if self._tls is not None:
                self._decoder.feed(self._tls.handshake(target))
            self._readable = new_selector(target, selectors.EVENT_READ)
        self._proxy = SocketProxy(target, lock=lambda: locks.sending)
        self._has_sent_eof = False
        self._is_torn = False  # in the middle of a packet
        self._is_closed = False
        self._socket = target

    def __del__(self) -> None:
        sock = getattr(self, "_socket", None)
        if sock is not None and not self._is_closed:
            self._readable.close()
            sock.close()
            message = f"unclosed client {self!r}; call its close() method"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} endpoint={self._remote_address}>"

    # -- the connection

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """Close the client for good; what was sent still arrives. May be called several times.

        Waits for a thread that is sending, not for one that is receiving: that one gets a
        `ClientClosedError`. While the peer is in the middle of sending something that nobody has
        asked for, it takes up to a second.
        """
        with self._locks.sending:
            if not self._is_closed:
                self._is_closed = True
                try:
                    if self._tls is not None and not self._is_torn:
                        self._tls.close(self._socket)
                finally:
                    self._close_socket()

    def _close_socket(self) -> None:
        """Close the descriptor, or have it closed by the thread that is receiving.

        Called with the lock for sending.
        """
        receiving = self._locks.receiving
        if not receiving.acquire(blocking=False):
            with suppress(OSError):  # not connected any more
                self._socket.shutdown(_socket.SHUT_RDWR)  # wakes up the receiver
            return
        try:
            with suppress(OSError), closing(self._socket), closing(self._readable):
                if self._socket.fileno() >= 0:  # otherwise another receiver was here first
                    is_peer_sending = bool(self._decoder) or (
                        self._tls is not None and self._tls.awaits_tickets()
                    )
                    end_stream(self._socket, is_peer_sending=is_peer_sending)
        finally:
            receiving.release()

    # -- packets

    def send_packet(self, packet: _T_Sent, *, timeout: float | None = None) -> None:
        deadline = deadline_after(timeout)
        lock = self._locks.sending
        if not lock.acquire(blocking=False):
            wait_for_lock(lock, deadline)
        try:
            self._check_open()
            if self._has_sent_eof:
                raise RuntimeError("send_eof() has been called earlier")
            if self._is_torn:
                raise ConnectionAbortedError(
                    errno.ECONNABORTED,
                    "Only a part of an earlier packet was sent, and nothing can follow it. "
                    "Close this client and connect another one",
                )
            self._send(self._encode(packet), deadline)
        finally:
            lock.release()

    def _send(self, packet: bytes, deadline: float) -> None:
        pieces: Iterable[bytes] = [packet]
        if self._tls is not None:
            if deadline < math.inf:  # when it is encrypted, there is no way back
                wait_writable(self._socket, deadline, self._retry_interval)
            pieces = self._tls.encrypt(packet)
        has_begun = self._tls is not None
        try:
            for piece in pieces:
                unsent = memoryview(piece)
                while unsent:
                    sent = send_some(self._socket, unsent, deadline, self._retry_interval)
                    has_begun = has_begun or sent > 0
                    unsent = unsent[sent:]
        except OSError:
            self._is_torn = has_begun
            raise
        except BaseException:  # who knows how far `send()` was: KeyboardInterrupt comes at any time
            self._is_torn = True
            raise

    def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent. Receiving goes on.

        Does nothing if it was called before, or if the client is closed. After it, `send_packet()`
        raises `RuntimeError`. Waits for threads that are sending.

        Raises:
            UnsupportedOperation: TLS cannot do that. The client can still be used.
        """
        with self._locks.sending:
            if self._tls is not None and not self._is_closed:
                raise UnsupportedOperation("SSL/TLS API does not support sending EOF.")
            if not self._is_closed and not self._has_sent_eof:
                self._has_sent_eof = True
                with suppress(OSError):  # not connected any more, as the next operation will say
                    self._socket.shutdown(_socket.SHUT_WR)

    def recv_packet(self, *, timeout: float | None = None) -> _T_Received:
        deadline = deadline_after(timeout)
        lock = self._locks.receiving
        if not lock.acquire(blocking=False):
            wait_for_lock(lock, deadline)
        try:
            return self._receive(deadline)
        finally:
            lock.release()
            if self._is_closed:
                with self._locks.sending:
                    self._close_socket()

    def _receive(self, deadline: float) -> _T_Received:
        self._check_open()
        decoder = self._decoder
        max_recv_size = self._max_recv_size
        may_read = True
        while (packet := decoder.take()) is NEED_DATA:
            if decoder.refill():
                continue
            if not may_read and time.monotonic() >= deadline:
                raise timed_out()
            chunk = self._read(deadline)
            may_read = len(chunk) == max_recv_size  # the kernel probably has more
            decoder.feed(chunk if self._tls is None else self._tls.decrypt(chunk))
        received: _T_Received = packet
        return received

    def _read(self, deadline: float) -> bytes:
        if self._tls is not None and self._tls.is_over():
            raise self._tls.ended()
        while not wait_ready(self._readable, deadline, self._retry_interval):
            self._check_open()
        try:
            chunk = self._socket.recv(self._max_recv_size)
        except BlockingIOError:  # a spurious wake-up
            return self._read(deadline)
        except OSError as exc:
            self._check_open()
            explain(exc)
            raise
        self._check_open()
        if not chunk:
            raise aborted(" (end-of-stream)") if self._tls is None else self._tls.ended()
        return chunk

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("Closed client")

    # -- addresses

    @property
    def socket(self) -> SocketProxy:
        """The socket, to look at; the same object each time. Its methods wait for senders."""
        return self._proxy

    def get_local_address(self) -> SocketAddress:
        """Return this end's address.

        Raises:
            ClientClosedError: The client is closed.
        """
        self._check_open()
        return self._local_address

    def get_remote_address(self) -> SocketAddress:
        """Return the peer's address.

        Raises:
            ClientClosedError: The client is closed.
        """
        self._check_open()
        return self._remote_address

    def fileno(self) -> int:
        return -1 if self._is_closed else self._socket.fileno()
