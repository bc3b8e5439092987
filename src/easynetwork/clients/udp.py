"""A blocking UDP client."""

from __future__ import annotations

__all__ = ["UDPNetworkClient"]

import socket as _socket  # the property of this name hides the module inside the class

from easynetwork._arguments import validated_local_address
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.clients._addresses import INETAddresses
from easynetwork.clients._blocking_datagram import BlockingDatagramClient
from easynetwork.clients._target import validated_udp_target
from easynetwork.protocol import DatagramProtocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import connect_udp_blocking


class UDPNetworkClient(BlockingDatagramClient[_T_Sent, _T_Received], INETAddresses):
    """Sends packets to one address and receives packets from there, one datagram each.

    Packets may get lost, arrive twice or overtake others, and no error says so: UDP promises no
    more than that. The operating system ignores datagrams from other addresses.

    All methods may be called by any thread, at any time. Protocol objects are used by one thread to
    send and by one thread to receive at a time.

    Resource handling: a client owns its socket from the beginning, and closes it at once if it
    cannot be made. `close()` closes it, and so does leaving `with`. A process that forks shares the
    socket with its child: only one of the two should use it, and close it.

    Error handling: errors of the operating system are raised as they are, and do not end anything:
    the next operation is a new attempt. When a host answers with an ICMP message that the port is
    closed, the next operation raises `ConnectionRefusedError`; if that is `send_packet()`, its own
    packet may not have been sent. Operations on a client closed here raise
    `ClientClosedError`. The exception of a signal handler, `KeyboardInterrupt` for example, may
    lose the datagram that is just being received, as the network may.
    """

    __slots__ = ()

    def __init__(
        self,
        address: tuple[str, int] | _socket.socket,
        /,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        *,
        local_address: tuple[str, int] | None = None,
        family: int = _socket.AF_UNSPEC,
        retry_interval: float = 1.0,
    ) -> None:
        """Connect the socket; nothing is sent.

        Args:
            address: The remote host and port; the first address of a host that there is a
                route to is used. Or a connected UDP socket, which belongs to the client from now
                on.
            protocol: The protocol object.
            local_address: The address to send from; chosen by the kernel by default.
            family: `socket.AF_INET` or `socket.AF_INET6`, to use only addresses of that family. By
                default, the resolver's order decides.
            retry_interval: Seconds after which a waiting thread looks whether the client has been
                closed, should the kernel not tell it.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The socket cannot be made, or is not connected. If all addresses failed alike,
                an error of that kind, with the group of the single errors as its cause.
        """
        with close_on_error(address):
            local_address = validated_local_address(local_address)
            target = validated_udp_target(address, local_address, family)

            def connect() -> _socket.socket:
                if isinstance(target, _socket.socket):
                    return target
                return connect_udp_blocking(*target, local_address=local_address, family=family)

            super().__init__(protocol, connect, retry_interval)
