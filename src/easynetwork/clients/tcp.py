"""A blocking TCP client."""

from __future__ import annotations

__all__ = ["TCPNetworkClient"]

import errno
import math
import socket as _socket  # the property of this name hides the module inside the class
import ssl
import time
from contextlib import suppress
from typing import Generic, TypeVar, overload

from easynetwork._arguments import validated_local_address, validated_max_recv_size
from easynetwork._tls_options import new_client_tls
from easynetwork.clients._blocking_client import BlockingClient, closed_error, is_from_kernel
from easynetwork.clients._blocking_tls import BlockingTLS
from easynetwork.clients._errors import aborted, ended, explain_stream
from easynetwork.clients._target import validated_target
from easynetwork.clients._waiting import (
    LockTimeoutError,
    connect_tcp,
    end_stream,
    timed_out,
    validated_retry_interval,
)
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.decoder import NEED_DATA
from easynetwork.exceptions import (
    ProtocolCrashedError,
    StreamProtocolParseError,
    UnsupportedOperation,
)
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import tune_tcp
from easynetwork.tls import PIECE_SIZE, pieces

_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")


class TCPNetworkClient(BlockingClient[_T_Sent, _T_Received], Generic[_T_Sent, _T_Received]):
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

    __slots__ = (
        "_decoder",
        "_encode",
        "_has_sent_eof",
        "_is_broken",
        "_max_recv_size",
        "_partial_packet_sent",
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
            self._retry_interval = validated_retry_interval(retry_interval)
            self._max_recv_size = validated_max_recv_size(max_recv_size)
            self._decoder = new_decoder_factory(protocol, self._max_recv_size)()
            self._encode = packet_encoder(protocol)
            local_address = validated_local_address(local_address)
            options = {"connect_timeout": connect_timeout, "local_address": local_address}
            target = validated_target(address, [k for k, v in options.items() if v is not None])
            tls = new_client_tls(
                ssl,
                None if isinstance(target, _socket.socket) else target[0],
                server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                ssl_standard_compatible=ssl_standard_compatible,
            )
        if not isinstance(target, _socket.socket):
            target = connect_tcp(*target, local_address=local_address, timeout=connect_timeout)
        self._has_sent_eof = False
        self._partial_packet_sent = False
        self._is_broken = False
        with close_on_error(target):
            self._tls = None if tls is None else BlockingTLS(tls)
            tune_tcp(target)
            super().__init__(target)
            if self._tls is not None:
                self._close_timeout = self._tls.shutdown_timeout()

    def _prepare(self, sock: _socket.socket) -> None:
        if self._tls is not None:
            self._decoder.feed(self._tls.handshake(sock))

    def _explain(self, exc: OSError) -> None:
        self._is_broken = True
        explain_stream(exc)

    def _send_close_notify(self, deadline: float) -> None:
        if self._tls is not None and not self._partial_packet_sent:
            try:
                self._tls.close(self._socket, deadline)
            except TimeoutError:
                raise
            except OSError:  # the connection is broken: the server will not miss it
                pass

    def _drain_before_close(self) -> None:
        is_peer_sending = bool(self._decoder) or (
            self._tls is not None and self._tls.is_peer_sending()
        )
        end_stream(
            self._socket,
            is_peer_sending=is_peer_sending,
            is_shut_down=self._is_shut_down,
            timeout=self._close_timeout,
        )

    def _forget_packet(self) -> None:
        self._decoder.skip()

    # -- packets

    def _send(self, packet: _T_Sent, deadline: float) -> None:
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        if self._partial_packet_sent:
            raise ConnectionAbortedError(
                errno.ECONNABORTED,
                "Only a part of an earlier packet was sent, and nothing can follow it. "
                "Close this client and connect another one",
            )
        data = self._encode(packet)
        if self._is_closed:  # meanwhile, because that took too long
            raise closed_error()
        if self._tls is None:
            self._write(data, deadline, False)
        else:
            if deadline < math.inf:  # when it is encrypted, there is no way back
                self._wait_writable(deadline)
            try:
                self._partial_packet_sent = True
                for piece in (data,) if len(data) <= PIECE_SIZE else pieces(data):
                    self._write(self._tls.encrypt(piece), deadline, True)
            except ConnectionError as exc:
                self._partial_packet_sent = exc.errno is None
                raise
        self._partial_packet_sent = False

    def _write(self, data: bytes, deadline: float, has_begun: bool) -> None:
        """Send bytes, all of them.

        Sets `_partial_packet_sent`, unless it is certain that none has left and `has_begun` is
        false. The caller clears it.
        """
        send = self._socket.send
        unsent: bytes | memoryview = data
        while unsent:
            try:
                self._partial_packet_sent = True
                sent = send(unsent)
            except BlockingIOError:
                self._partial_packet_sent = has_begun
                self._wait_writable(deadline)
            except OSError as exc:
                self._partial_packet_sent = has_begun or not is_from_kernel(exc)
                self._check_open()
                self._explain(exc)
                raise
            else:
                if sent == len(unsent):
                    return
                has_begun = True
                unsent = memoryview(unsent)[sent:]

    def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent. Receiving goes on.

        Does nothing if it was called before, or if the client is closed. After it, `send_packet()`
        raises `RuntimeError`. Waits for threads that are sending, up to 30 seconds.

        Raises:
            UnsupportedOperation: TLS cannot do that. The client can still be used.
            TimeoutError: A packet of another thread has not left, because the peer does not read.
                Nothing has changed.
        """
        try:
            deadline = time.monotonic() + self._close_timeout
            self._locks.sending.run(self._end_sending, deadline)
        except LockTimeoutError:
            message = "Another thread is still sending a packet"
            raise TimeoutError(errno.ETIMEDOUT, message) from None
        finally:
            if self._is_closed:
                self._close_unless_used()

    def _end_sending(self) -> None:
        if self._is_closed:
            return
        if self._tls is not None:
            raise UnsupportedOperation("SSL/TLS API does not support sending EOF.")
        self._has_sent_eof = True
        with suppress(OSError):  # not connected any more, as the next operation will say
            self._socket.shutdown(_socket.SHUT_WR)

    def _receive(self, deadline: float) -> _T_Received:
        if self._received_unsure:
            raise ConnectionAbortedError(
                errno.ECONNABORTED,
                "An earlier recv_packet() was interrupted, and what it had received is lost. "
                "Close this client and connect another one",
            )
        decoder = self._decoder
        may_read = True
        while True:
            try:  # a frame is there until it has become a packet
                packet = decoder.peek()
            except (StreamProtocolParseError, ProtocolCrashedError):
                decoder.skip()
                raise
            if packet is not NEED_DATA:
                decoder.skip()
                break
            self._received_unsure = True
            try:
                packet = decoder.take()
            except (StreamProtocolParseError, ProtocolCrashedError):
                self._received_unsure = False
                raise
            if packet is not NEED_DATA:
                self._received_unsure = False
                break
            is_refilled = decoder.refill()
            self._received_unsure = False
            if not is_refilled:
                if not may_read and time.monotonic() >= deadline:
                    raise timed_out()
                may_read = self._fill(deadline)
        received: _T_Received = packet
        return received

    def _fill(self, deadline: float) -> bool:
        """Wait until something arrives, and feed it to the decoder.

        Returns:
            Whether the kernel probably has more.
        """
        size = self._max_recv_size
        tls = self._tls
        if tls is not None and tls.is_over():
            raise tls.ended()
        chunk = self._read(size, deadline)
        if chunk:
            self._decoder.feed(chunk if tls is None else tls.decrypt(chunk))
        self._received_unsure = False
        if not chunk:
            if self._is_broken:  # the kernel tells an error once, and then an end of stream
                raise aborted()
            raise ended() if tls is None else tls.ended()
        return len(chunk) == size
