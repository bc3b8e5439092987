"""A TCP client for programs, or threads, that wait."""

from __future__ import annotations

__all__ = ["TCPNetworkClient"]

import errno
import os
import socket as _socket  # the property of this name hides the module inside the class
import time
from contextlib import suppress
from typing import Final, Generic, TypeVar, overload

from easynetwork.backends._checks import check_max_recv_size
from easynetwork.backends.sockets import tune_tcp
from easynetwork.clients._blocking import (
    check_retry_interval,
    connect_tcp,
    end_stream,
    timed_out,
)
from easynetwork.clients._blocking_base import BlockingClient
from easynetwork.clients._target import check_target, owned
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.decoder import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol

_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")

_LOST: Final = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""tcp(7): besides a `ConnectionError`, how an operation learns that the peer is out of reach."""


class TCPNetworkClient(BlockingClient[_T_Sent, _T_Received], Generic[_T_Sent, _T_Received]):
    """Sends and receives packets over a TCP connection.

    All methods may be called by any thread, at any time. Protocol objects are used by one thread to
    send and by one thread to receive at a time.

    Resource handling: a client owns its socket from the beginning, and closes it at once if it
    cannot be made. `close()` closes it, and so does leaving `with`. While the peer is in the middle
    of sending something that nobody has asked for, that takes up to a second. A process that forks
    shares the connection with its child: only one of the two should use it, and close it.

    Error handling: a connection that ends, for whatever reason, is a `ConnectionAbortedError` for
    whoever sends or receives; operations on a client closed here raise `ClientClosedError`.

    When the time of a `send_packet()` is up, or `KeyboardInterrupt` ends it, after a part of the
    packet has left, nothing more can be sent: the peer would take the next packet for the rest of
    that one. Each further `send_packet()` raises `ConnectionAbortedError`; receiving goes on.
    """

    __slots__ = ("_decoder", "_encode", "_has_sent_eof", "_is_torn", "_max_recv_size")

    @overload
    def __init__(
        self,
        address: tuple[str, int],
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        *,
        connect_timeout: float | None = None,
        local_address: tuple[str, int] | None = None,
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
            max_recv_size: The most bytes taken from the connection at a time. 64 KiB by default.
            retry_interval: Seconds after which a waiting thread looks whether the client has been
                closed, should the kernel not tell it.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The connection cannot be made, or the socket is not connected. If all addresses
                failed alike, an error of that kind, `ConnectionRefusedError` say, with the group of
                the single errors as its cause.
        """
        with owned(address):
            check_stream_protocol(protocol)
            self._retry_interval = check_retry_interval(retry_interval)
            self._max_recv_size = check_max_recv_size(max_recv_size)
            self._decoder = new_decoder_factory(protocol, self._max_recv_size)()
            self._encode = packet_encoder(protocol)
            options = {"connect_timeout": connect_timeout, "local_address": local_address}
            target = check_target(address, [k for k, v in options.items() if v is not None])
        if not isinstance(target, _socket.socket):
            target = connect_tcp(*target, local_address=local_address, timeout=connect_timeout)
        self._has_sent_eof = False
        self._is_torn = False  # in the middle of a packet
        with owned(target):
            tune_tcp(target)
            self._take_over(target)

    def _explain(self, exc: OSError) -> None:
        if isinstance(exc, ConnectionError) or exc.errno in _LOST:
            raise _aborted() from exc
        super()._explain(exc)

    def _finish(self) -> None:
        end_stream(self._socket, is_peer_sending=bool(self._decoder))

    # -- packets

    def _send(self, packet: _T_Sent, deadline: float) -> None:
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        if self._is_torn:
            raise ConnectionAbortedError(
                errno.ECONNABORTED,
                "Only a part of an earlier packet was sent, and nothing can follow it. "
                "Close this client and connect another one",
            )
        data = unsent = memoryview(self._encode(packet))
        try:
            while unsent:
                unsent = unsent[self._write(unsent, deadline) :]
        except OSError:
            self._is_torn = len(unsent) < len(data)
            raise
        except BaseException:  # who knows how far `send()` was: KeyboardInterrupt comes at any time
            self._is_torn = True
            raise

    def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent. Receiving goes on.

        Does nothing if it was called before, or if the client is closed. After it, `send_packet()`
        raises `RuntimeError`. Waits for threads that are sending.
        """
        with self._locks.sending:
            if not self._is_closed and not self._has_sent_eof:
                self._has_sent_eof = True
                with suppress(OSError):  # not connected any more, as the next operation will say
                    self._socket.shutdown(_socket.SHUT_WR)

    def _receive(self, deadline: float) -> _T_Received:
        decoder = self._decoder
        max_recv_size = self._max_recv_size
        may_read = True
        while (packet := decoder.take()) is NEED_DATA:
            if decoder.refill():
                continue
            if not may_read and time.monotonic() >= deadline:
                raise timed_out()
            chunk = self._read(max_recv_size, deadline)
            if not chunk:
                raise _aborted(" (end-of-stream)")
            may_read = len(chunk) == max_recv_size  # the kernel probably has more
            decoder.feed(chunk)
        received: _T_Received = packet
        return received


def _aborted(detail: str = "") -> ConnectionAbortedError:
    return ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED) + detail)
