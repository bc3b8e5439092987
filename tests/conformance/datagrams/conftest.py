"""The fixtures that multiply the conformance tests of datagrams: loops x families of sockets."""

from __future__ import annotations

from typing import Any

import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.servers import MemoryUDPServer
from tests.conformance.datagrams.support import NewServer, Serve, Server, serving
from tests.conformance.support import Records


@pytest.fixture(
    params=["127.0.0.1", "::1", "unix", "memory"], ids=["ipv4", "ipv6", "unix", "memory"]
)
def host(request: pytest.FixtureRequest) -> str:
    """Return the address that the server listens on."""
    return str(request.param)


@pytest.fixture
def new_server(
    host: str, log: Records, memory: MemoryNetwork, request: pytest.FixtureRequest
) -> NewServer:
    """Return a function that makes a server for a handler; it listens nowhere yet."""
    unix_path = request.getfixturevalue("unix_path") if host == "unix" else ""

    def make(
        handler: AsyncDatagramRequestHandler[str, str],
        converter: AbstractPacketConverterComposite[str, str, str, str] | None = None,
        **options: Any,
    ) -> Server:
        protocol = DatagramProtocol(StringLineSerializer(), converter)
        if host == "unix" and "host" not in options:
            unix_server: Any = AsyncUnixDatagramServer(unix_path, protocol, handler, **options)
            return unix_server  # type: ignore[no-any-return]
        if host == "memory":
            return MemoryUDPServer(memory, protocol, handler, **options)
        where = options.pop("host", host)
        return AsyncUDPNetworkServer(where, 0, protocol, handler, **options)

    return make


@pytest.fixture
def serve(new_server: NewServer) -> Serve:
    """Return a function that serves a handler while a block runs."""
    return lambda *args, **options: serving(new_server(*args, **options))
