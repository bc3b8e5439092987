"""The base of blocking clients with a connection: packets over a stream socket, maybe with TLS."""

from __future__ import annotations

import errno
import math
import socket
import ssl as _ssl  # the parameters of this name hide the module
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from easynetwork._arguments import validated_max_recv_size
from easynetwork._tls_options import TLSOptions, required_client_tls
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.clients._blocking_client import BlockingClient, closed_error, is_from_kernel
from easynetwork.clients._blocking_tls import BlockingTLS
from easynetwork.clients._errors import aborted, ended, explain_stream
from easynetwork.clients._waiting import (
    NO_WAIT,
    LockTimeoutError,
    end_stream,
    timed_out,
    validated_retry_interval,
)
from easynetwork.codec import Codec, codec_of, new_codec
from easynetwork.exceptions import (
    BusyResourceError,
    EndOfStreamError,
    ProtocolCrashedError,
    StreamProtocolParseError,
    UnsupportedOperation,
)
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.sockets.closing import close_on_error
from easynetwork.tls import PIECE_SIZE, pieces


class BlockingStreamClient(BlockingClient[_T_Sent, _T_Received]):
    """A client that sends and receives packets over a connected stream socket."""

    __slots__ = (
        *("_arrived", "_decoder", "_encode", "_has_sent_eof", "_host", "_is_broken"),
        *("_max_recv_size", "_partial_packet_sent", "_tls"),
    )

    def __init__(
        self,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        connect: Callable[[], socket.socket],
        max_recv_size: int | None,
        retry_interval: float,
        tls: TLSOptions | None,
        host: str | None = None,
    ) -> None:
        retry_interval = validated_retry_interval(retry_interval)
        self._max_recv_size = validated_max_recv_size(max_recv_size)
        codec = new_codec(protocol, self._max_recv_size)
        self._decoder, self._encode = codec.new_decoder(), codec.encode
        self._host = host
        self._has_sent_eof = False
        self._partial_packet_sent = False
        self._is_broken = False
        self._arrived: list[bytes] | None = None
        self._tls = None if tls is None else BlockingTLS(tls)
        sock = connect()
        with close_on_error(sock):
            super().__init__(sock, retry_interval)
            if tls is not None:
                self._close_timeout = tls.seconds_to_close

    def _wait_in_recv(self) -> None:
        """Let a thread without a deadline wait in recv(2), instead of in poll(2) before it.

        The fewer system calls, the less often many threads wait for the interpreter's lock. The
        socket becomes a blocking one. Does nothing where a call cannot be told not to wait.
        """
        if NO_WAIT:
            limit = struct.pack("@ll", math.ceil(self._retry_interval), 0)  # a timeval: socket(7)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setblocking(True)
            self._arrived = []

    def _prepare(self, sock: socket.socket) -> None:
        if self._tls is not None:
            self._feed(self._tls.handshake(sock, b"", None))

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
        is_tls_peer_sending = self._tls is not None and self._tls.is_peer_sending()
        end_stream(
            self._socket,
            is_peer_sending=self._is_shut_down or bool(self._decoder) or is_tls_peer_sending,
            is_reset=lambda: self._is_reset,
            timeout=self._close_timeout,
        )

    def _forget_packet(self) -> None:
        self._decoder.skip()

    # -- packets

    def _send(self, packet: _T_Sent, deadline: float) -> None:
        self._check_can_send()
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

    def _check_can_send(self) -> None:
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        if self._partial_packet_sent:
            raise _unusable("Only a part of an earlier packet was sent, and nothing can follow it")

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
                sent = send(unsent, NO_WAIT)
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
            self._socket.shutdown(socket.SHUT_WR)

    # -- a conversation that changes

    def set_protocol(self, protocol: AnyStreamProtocolType[Any, Any], /) -> None:
        codec = codec_of(protocol, self._max_recv_size)
        self._exclusively(lambda: self._change_protocol(codec))

    def _change_protocol(self, codec: Codec) -> None:
        decoder = codec.new_decoder()
        decoder.succeed(self._decoder)
        self._decoder, self._encode = decoder, codec.encode

    def start_tls(
        self,
        ssl: _ssl.SSLContext | bool = True,
        /,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
    ) -> None:
        options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
        tls = required_client_tls(ssl, self._host, server_hostname, options)
        self._exclusively(lambda: self._begin_tls(tls))

    def _begin_tls(self, options: TLSOptions) -> None:
        self._check_can_send()
        if self._tls is not None:
            raise RuntimeError("The connection uses TLS already")
        self._decoder.unread()  # it raises an exception, or will not in the next lines
        try:
            # Even if a signal handler raises while this fails, nothing can follow in clear text.
            self._received_unsure = self._partial_packet_sent = True
            received = self._decoder.hand_over()
            self._tls = BlockingTLS(options)
            self._close_timeout = 0.0  # close() does not wait for this: it shuts the socket down
            wait = self._wait_writable
            self._feed(self._tls.handshake(self._socket, *received, wait))
            self._received_unsure = self._partial_packet_sent = False
        except BaseException as exc:
            if self._is_closed and isinstance(exc, ConnectionError):
                raise closed_error() from exc
            self._is_closed = True
            raise
        finally:
            self._close_timeout = options.seconds_to_close

    def _exclusively(self, change: Callable[[], None]) -> None:
        """Call a function while no other thread uses the client."""

        def run() -> None:
            self._check_open()
            self._check_sure()
            if self._given_back:  # a packet of the conversation so far, maybe in clear text
                raise RuntimeError("recv_packet() was interrupted, and has yet to return a packet")
            change()

        try:
            self._locks.sending.run(lambda: self._locks.receiving.run(run, 0), 0)
        except LockTimeoutError:
            raise BusyResourceError("Another thread is using the client") from None
        finally:
            if self._is_closed:
                self._close_unless_used()

    def _check_sure(self) -> None:
        if self._received_unsure:
            why = "An earlier recv_packet() was interrupted, and what it had received is lost"
            raise _unusable(why)

    # -- receiving

    def _receive(self, deadline: float) -> _T_Received:
        may_read = True
        while (packet := self._take()) is NEED_DATA:
            if not may_read and time.monotonic() >= deadline:
                raise timed_out()
            may_read = self._fill(deadline)
        received: _T_Received = packet
        return received

    def _take(self) -> Any:
        """Return the next packet of those that are here; `NEED_DATA` if there is none."""
        self._check_sure()
        decoder = self._decoder
        while True:
            try:  # a frame is there until it has become a packet
                packet = decoder.peek()
            except (StreamProtocolParseError, ProtocolCrashedError):
                decoder.skip()
                raise
            if packet is not NEED_DATA:
                decoder.skip()
                return packet
            self._received_unsure = True
            try:
                packet = decoder.take()
            except (StreamProtocolParseError, ProtocolCrashedError):
                self._received_unsure = False
                raise
            is_refilled = packet is NEED_DATA and decoder.refill()
            self._received_unsure = False
            if not is_refilled:
                return packet

    def _read(self, size: int, deadline: float, read: Callable[[int], Any] | None = None) -> Any:
        arrived = self._arrived
        if arrived is None or not (arrived or (deadline == math.inf and read is None)):
            return super()._read(size, deadline, read)
        while not arrived:
            try:  # all of it in C: no signal handler can come between, and lose what has arrived
                arrived.extend(map(self._socket.recv, (size,)))
            except BlockingIOError:  # the retry interval is over
                self._check_open()
            except OSError as exc:
                self._check_open()
                self._explain(exc)
                raise
        self._received_unsure = True
        data = arrived.pop()
        self._check_open()
        return data

    def _fill(self, deadline: float, read: Callable[[int], bytes] | None = None) -> bool:
        """Wait until something arrives, and feed it to the decoder.

        Args:
            deadline: When to give up.
            read: As for `_read()`.

        Returns:
            Whether the kernel probably has more.
        """
        size = self._max_recv_size
        tls = self._tls
        if tls is not None and tls.is_over():
            return self._end(tls.ended())
        chunk = self._read(size, deadline, read)
        if chunk:
            self._feed(chunk if tls is None else tls.decrypt(chunk))
        self._received_unsure = False
        if chunk:
            return len(chunk) == size
        if self._is_broken:  # the kernel tells an error once, and then an end of stream
            raise aborted()
        return self._end(ended() if tls is None else tls.ended())

    def _feed(self, data: bytes) -> None:
        if data:  # there is none in a part of a record, or with the end of a handshake
            self._decoder.feed(data)

    def _end(self, error: ConnectionError) -> bool:
        """Raise the error of a connection that has ended, unless the end completes a packet."""
        if isinstance(error, EndOfStreamError) and self._decoder.end_of_stream():
            return False
        raise error


def _unusable(why: str) -> ConnectionAbortedError:
    message = f"{why}. Close this client and connect another one"
    return ConnectionAbortedError(errno.ECONNABORTED, message)
