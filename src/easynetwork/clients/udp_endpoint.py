"""A blocking UDP socket for packets from and to any address."""

from __future__ import annotations

__all__ = ["UDPNetworkEndpoint"]

import socket as _socket  # the property of this name hides the module inside the class
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Self

from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketAddress
from easynetwork.clients._blocking_datagram import BlockingDatagrams
from easynetwork.clients._endpoint import (
    destination,
    pair_builder,
    prepare_socket,
    validated_binding,
)
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import DatagramProtocol
from easynetwork.sockets.binding import bind_udp
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.resolving import resolve_blocking


def _bind(host: str, port: int, options: list[int]) -> _socket.socket:
    return bind_udp(resolve_blocking(host, port, _socket.SOCK_DGRAM), options)


class UDPNetworkEndpoint(BlockingDatagrams, Generic[_T_Sent, _T_Received]):
    """Sends packets to any address and receives packets from any address, one datagram each.

    For example to find servers by broadcast, or to talk to several peers over one socket.

    All methods may be called by any thread, at any time. Protocol objects are used by one thread to
    send and by one thread to receive at a time. Datagrams that are not asked for wait in the
    kernel, which drops what is too much.

    ``for packet, address in endpoint:`` receives packets until the endpoint is closed.

    Resource handling: `close()` closes the socket, and so does leaving `with`. A process that forks
    shares the socket with its child: only one of the two should use it, and close it.

    Error handling: errors of the operating system are raised as they are, and do not end anything.
    A peer that is gone is no error: the operating system does not tell an unconnected socket.
    Operations on an endpoint closed here raise `ClientClosedError`. The exception of a signal
    handler, `KeyboardInterrupt` for example, may lose the datagram that is just being received, as
    the network may.
    """

    __slots__ = ()

    def __init__(
        self,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        *,
        local_address: tuple[str, int] | None = None,
        reuse_address: bool = False,
        reuse_port: bool = False,
        broadcast: bool = False,
        retry_interval: float = 1.0,
    ) -> None:
        """Bind the socket.

        Args:
            protocol: The protocol object.
            local_address: Where to receive, and to send from: a host and a port. The host also
                decides whether that is IPv4 or IPv6: `""` stands for all IPv4 interfaces, `"::"`
                for all IPv6 interfaces. By default, a random port on all IPv4 interfaces.
            reuse_address: Let several sockets share the port, if all of them say so: each gets
                what is sent to a broadcast or multicast address (`SO_REUSEADDR`).
            reuse_port: Let several processes of one user share the port, if all of them say so
                (`SO_REUSEPORT`). Not available on Windows.
            broadcast: Whether packets may be sent to a broadcast address (`SO_BROADCAST`).
            retry_interval: Seconds after which a waiting thread looks whether the endpoint has been
                closed, should the kernel not tell it.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            OSError: The address cannot be bound, or the host cannot be resolved.
        """
        binding = validated_binding(local_address, reuse_address, reuse_port, broadcast)
        self._open(protocol, partial(_bind, *binding), retry_interval)

    @classmethod
    def from_socket(
        cls,
        sock: _socket.socket,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        *,
        retry_interval: float = 1.0,
    ) -> Self:
        """Return an endpoint on a socket of yours.

        Args:
            sock: A UDP socket that is not connected, and that belongs to the endpoint from now on.
                If it is not bound, it gets a random port.
            protocol: The protocol object.
            retry_interval: As for the constructor.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: The socket is of another kind, or connected, or an argument cannot be used.
                The socket is closed, as it is after any other error.
            OSError: The socket is closed.
        """
        with close_on_error(sock):
            prepare_socket(sock)
            self = cls.__new__(cls)  # the constructor would bind another socket
            self._open(protocol, lambda: sock, retry_interval)
        return self

    def _open(
        self, protocol: Any, open_socket: Callable[[], _socket.socket], retry_interval: float
    ) -> None:
        super().__init__(protocol, open_socket, retry_interval)
        self._build = pair_builder(self._build)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Call `close()`."""
        self.close()

    def close(self) -> None:
        """Close the socket for good. May be called several times.

        Does not wait for a thread that is receiving: that one gets a `ClientClosedError`, and
        ``for`` ends. Waits for a thread that is sending, for at most 30 seconds.
        """
        super().close()

    def get_local_address(self) -> SocketAddress:
        """Return the address that the socket is bound to.

        Raises:
            ClientClosedError: The endpoint is closed.
        """
        self._check_open()
        return self._local_address  # type: ignore[return-value]  # as of UDP

    def send_packet_to(
        self,
        packet: _T_Sent,
        address: tuple[str, int] | tuple[str, int, int, int],
        *,
        timeout: float | None = None,
    ) -> None:
        """Send a packet to an address. Several threads may send at once.

        Waits while the kernel has no room for it, which is seldom.

        Args:
            packet: What to send.
            address: A numeric host and a port, or the four items of an IPv6 address of the socket
                module; for example what `recv_packet_from()` returned.
            timeout: The most seconds to wait, the time that other threads need to send theirs
                included; None for no limit.

        Raises:
            ClientClosedError: The endpoint is closed.
            TimeoutError: The time is up; nothing was sent.
            TypeError: This is not an address.
            ValueError: The host is a name or of another family than the socket, or the port is 0;
                or `timeout` is negative or not a number.
            PermissionError: This is a broadcast address, and `broadcast` is off.
            OSError: The datagram is too long (`EMSGSIZE`), or it cannot be sent for another reason.
            ProtocolCrashedError: The protocol object cannot make bytes of the packet (the cause);
                nothing was sent.
        """
        raw_address = destination(address, self._local_address)
        send = partial(self._send, send=lambda data: self._socket.sendto(data, raw_address))
        self._run_sending(send, packet, timeout)

    def recv_packet_from(
        self, *, timeout: float | None = None
    ) -> tuple[_T_Received, SocketAddress]:
        """Wait for a packet; return it and the address that it came from.

        Args:
            timeout: The most seconds to wait, the time that other threads need to receive theirs
                included. 0 takes what has already been received; None is no limit.

        Raises:
            ClientClosedError: The endpoint is closed.
            TimeoutError: The time is up.
            DatagramProtocolParseError: A datagram is not a packet. Its attribute `sender_address`
                tells where it came from. The next call continues after it.
            OSError: The socket has another problem.
            ProtocolCrashedError: The protocol object has a bug (the cause).
            ValueError: `timeout` is negative or not a number.
        """
        return self._run_receiving(self._receive, timeout)  # type: ignore[no-any-return]

    def _read_datagram(self, size: int) -> tuple[bytes, Any]:
        return self._socket.recvfrom(size)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[_T_Received, SocketAddress]:
        try:
            return self.recv_packet_from()
        except ClientClosedError:
            raise StopIteration from None
