"""A blocking client for Unix datagrams."""

from __future__ import annotations

__all__ = ["UnixDatagramClient"]

import os
import socket as _socket  # the property of this name hides the module inside the class
from functools import partial

from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.clients._addresses import UnixNames
from easynetwork.clients._blocking_datagram import BlockingDatagramClient
from easynetwork.clients._target import validated_unix_datagram_target
from easynetwork.clients._unix import LocalPath, collecting, validated_reception
from easynetwork.protocol import DatagramProtocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.datagrams import check_still_connected, get_next_size
from easynetwork.sockets.messages import MessageReader


class UnixDatagramClient(BlockingDatagramClient[_T_Sent, _T_Received], UnixNames):
    """Sends packets to one Unix socket and receives packets from there. Not available on Windows.

    It is like `UDPNetworkClient`, except that nothing is lost on the way: sending waits while the
    peer does not read. Packets may have ancillary data.

    Error handling: if the server is gone, sending raises `ConnectionRefusedError`. Linux has
    disconnected the client's socket then: further operations raise `OSError` (`ENOTCONN`). Close
    the client and make another one.
    """

    __slots__ = ("_local_path",)

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress | _socket.socket,
        /,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        *,
        local_path: str | os.PathLike[str] | bytes | UnixSocketAddress | None = None,
        retry_interval: float = 1.0,
    ) -> None:
        """Connect the socket; nothing is sent.

        Args:
            path: Where to send: a path or, on Linux, an abstract name (text or bytes that begin
                with a null character). Or a Unix datagram socket that is connected and has a name;
                it belongs to the client from now on.
            protocol: The protocol object.
            local_path: The name of this end, to which the peer answers. A path is removed when the
                client is closed. By default, an abstract name that Linux chooses; needed on other
                systems.
            retry_interval: Seconds after which a waiting thread looks whether the client has been
                closed, should the kernel not tell it.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The socket cannot be made, or is not connected.
        """
        with close_on_error(path):
            target, local = validated_unix_datagram_target(path, local_path, type(self).__name__)
            self._local_path = LocalPath(local)
            connect = partial(self._local_path.connect, target, _socket.SOCK_DGRAM, 0)
            super().__init__(protocol, connect, retry_interval)

    def _close_descriptor(self) -> None:
        self._local_path.remove()
        super()._close_descriptor()

    def _read_datagram(self, size: int) -> bytes:
        datagram = self._socket.recv(get_next_size(self._socket, size))
        check_still_connected(self._socket)
        return datagram

    def send_packet(
        self,
        packet: _T_Sent,
        *,
        timeout: float | None = None,
        ancillary_data: SocketAncillary | None = None,
    ) -> None:
        """Send a packet. Waits while the peer does not read what was sent before.

        Args:
            packet: What to send.
            timeout: The most seconds to wait; None for no limit.
            ancillary_data: Descriptors and credentials to send with it. When this returns, the
                kernel has the descriptors, and they may be closed here.

        Raises:
            OSError: The peer is gone, the datagram is too long (`EMSGSIZE`), or the kernel refuses
                the ancillary data (`EBADF` for a closed descriptor). Nothing was sent.
            Exception: As `AbstractNetworkClient.send_packet()`.
        """
        if ancillary_data is None:
            return super().send_packet(packet, timeout=timeout)
        ancillary = ancillary_data.as_raw()
        send = partial(self._send, send=lambda data: self._socket.sendmsg([data], ancillary))
        self._run_sending(send, packet, timeout)

    def recv_packet(
        self,
        *,
        timeout: float | None = None,
        ancillary_data: SocketAncillary | None = None,
        ancillary_bufsize: int | None = None,
    ) -> _T_Received:
        """Wait for a packet and return it.

        Args:
            timeout: The most seconds to wait; None for no limit.
            ancillary_data: Where to add what comes with the packet; the descriptors belong to the
                caller, who has to close them. What is not asked for is dropped, and its descriptors
                are closed.
            ancillary_bufsize: The most bytes of ancillary data; enough for Linux by default.

        Raises:
            OSError: Ancillary data was cut off (`EMSGSIZE`): it is closed, and the packet is lost.
            RuntimeError: Ancillary data could not be parsed (the cause).
            Exception: As `AbstractNetworkClient.recv_packet()`.
        """
        bufsize = validated_reception(ancillary_data, ancillary_bufsize)
        if ancillary_data is None:
            return super().recv_packet(timeout=timeout)
        receive = partial(self._receive_with_ancillary, ancillary_data, bufsize)
        return self._run_receiving(receive, timeout)

    def _receive_with_ancillary(
        self, ancillary_data: SocketAncillary, bufsize: int, deadline: float
    ) -> _T_Received:
        with collecting(ancillary_data) as received:
            reader = MessageReader(self._socket, bufsize, received)

            def read(size: int) -> bytes:
                datagram = reader.recv(get_next_size(self._socket, size))
                check_still_connected(self._socket)
                if reader.error is not None:
                    raise reader.error
                return datagram

            packet: _T_Received = self._receive(deadline, read)
            return packet
