from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator

from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler

GROUP = "239.255.42.99"


class MulticastRequestHandler(AsyncDatagramRequestHandler[str, str]):
    def __init__(self, interface: str = "0.0.0.0") -> None:
        self.interface = interface

    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncUDPNetworkServer[str, str],
    ) -> None:
        membership = socket.inet_aton(GROUP) + socket.inet_aton(self.interface)
        for sock in server.get_sockets():
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        name = yield
        await client.send_packet(f"Hello, {name}!")
