"""The base of blocking clients without a connection: one datagram for each packet."""

from __future__ import annotations

import errno
import socket
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.clients._blocking_client import BlockingClient, SharedSocket, closed_error
from easynetwork.clients._waiting import validated_retry_interval
from easynetwork.codec import datagram_builder, datagram_encoder
from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.protocol import DatagramProtocol, check_datagram_protocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import raise_pending_error
from easynetwork.sockets.datagrams import largest_datagram, too_long


class BlockingDatagrams(SharedSocket):
    """Sends and receives packets over a datagram socket."""

    __slots__ = ("_build", "_datagram", "_encode")

    def __init__(
        self,
        protocol: DatagramProtocol[Any, Any],
        connect: Callable[[], socket.socket],
        retry_interval: float,
    ) -> None:
        check_datagram_protocol(protocol)
        retry_interval = validated_retry_interval(retry_interval)
        self._build: Callable[[Any], Any] = datagram_builder(protocol)
        self._encode = datagram_encoder(protocol)
        self._datagram: Any = None  # received, and not a packet yet
        sock = connect()
        with close_on_error(sock):
            super().__init__(sock, retry_interval)

    def _forget_packet(self) -> None:
        self._datagram = None

    def _send(
        self, packet: Any, deadline: float, send: Callable[[bytes], object] | None = None
    ) -> None:
        data = self._encode(packet)
        if self._is_closed:  # meanwhile, because that took too long
            raise closed_error()
        try:
            self._write(data, deadline, send)
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                raise too_long(data, self._socket.family) from None
            raise
        raise_pending_error(self._socket)

    def _write(self, data: bytes, deadline: float, send: Callable[[bytes], object] | None) -> None:
        call = send or self._socket.send
        while True:
            try:
                call(data)
                return
            except BlockingIOError:
                self._wait_writable(deadline)
            except OSError as exc:
                self._check_open()
                if send is None:  # else, EBADF is about what was to be sent
                    self._explain(exc)
                raise

    @abstractmethod
    def _read_datagram(self, size: int) -> Any:
        """Receive a datagram; called when the socket is readable."""

    def _receive(self, deadline: float, read: Callable[[int], bytes] | None = None) -> Any:
        if self._datagram is None:
            size = largest_datagram(self._socket.family)
            self._datagram = self._read(size, deadline, read or self._read_datagram)
        try:
            packet = self._build(self._datagram)
        except (DatagramProtocolParseError, RuntimeError):
            self._datagram = None
            raise
        self._datagram = None
        return packet


class BlockingDatagramClient(BlockingDatagrams, BlockingClient[_T_Sent, _T_Received]):
    """A client that is connected to one peer."""

    __slots__ = ()

    def _read_datagram(self, size: int) -> bytes:
        return self._socket.recv(size)
