"""The fixtures that multiply the conformance tests of datagrams: loops x address families."""

from __future__ import annotations

from typing import Any

import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler
from tests.conformance.datagrams.support import NewServer, Serve, Server, serving
from tests.conformance.support import Records


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def host(request: pytest.FixtureRequest) -> str:
    """Return the address that the server listens on."""
    return str(request.param)


@pytest.fixture
def new_server(host: str, log: Records) -> NewServer:
    """Return a function that makes a server for a handler; it listens nowhere yet."""

    def make(
        handler: AsyncDatagramRequestHandler[str, str],
        converter: AbstractPacketConverterComposite[str, str, str, str] | None = None,
        **options: Any,
    ) -> Server:
        protocol = DatagramProtocol(StringLineSerializer(), converter)
        where = options.pop("host", host)
        return AsyncUDPNetworkServer(where, 0, protocol, handler, **options)

    return make


@pytest.fixture
def serve(new_server: NewServer) -> Serve:
    """Return a function that serves a handler while a block runs."""
    return lambda *args, **options: serving(new_server(*args, **options))
