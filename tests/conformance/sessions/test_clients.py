"""The client that a handler talks to: its addresses and attributes, and that any task may send."""

from __future__ import annotations

import contextvars
import logging
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from anyio import TypedAttributeLookupError

from easynetwork.addresses import (
    INETSocketAttribute,
    IPv4SocketAddress,
    IPv6SocketAddress,
    SocketAttribute,
    TLSAttribute,
)
from easynetwork.servers.handlers import INETClientAttribute
from tests.conformance.sessions.kinds import Handler, Kind, Requests, on_ip
from tests.conformance.support import Records, restarting

pytestmark = pytest.mark.anyio


class Keeping(Handler):
    """Echoes packets, and keeps the client."""

    client: Any = None

    async def handle(self, client: Any) -> Requests:
        self.client = client
        await client.send_packet((yield))


async def test_backend(kind: Kind, anyio_backend_name: str) -> None:
    """It knows the server's backend."""
    handler = Keeping()
    async with kind.serve(handler) as service:
        assert await (await kind.connect(service)).ask("hello") == "hello"
        assert isinstance(handler.client, kind.client_class)
        assert handler.client.backend() is service.server.backend()
        assert handler.client.backend().name == anyio_backend_name


async def test_repr(kind: Kind) -> None:
    """Its repr() names the address."""
    handler = Keeping()
    async with kind.serve(handler) as service:
        peer = await kind.connect(service)
        assert await peer.ask("hello") == "hello"
        address = f"<client with address {peer.name} at {id(handler.client):#x}>"
        assert repr(handler.client) == address


@on_ip
@pytest.mark.parametrize("moment", ["serving", "closed"])
async def test_addresses(kind: Kind, moment: str) -> None:
    """Both addresses are known, even after the server has been closed."""
    handler = Keeping()
    address_class = IPv6SocketAddress if ":" in kind.host else IPv4SocketAddress
    async with kind.serve(handler) as service:
        peer = await kind.connect(service)
        [address] = service.server.get_addresses()
        assert await peer.ask("hello") == "hello"
        if moment == "closed":
            await service.server.server_close()
        extra = handler.client.extra
        remote = extra(INETClientAttribute.remote_address)
        local = extra(INETClientAttribute.local_address)
        assert isinstance(remote, address_class)
        assert isinstance(local, address_class)
        assert remote == peer.address
        assert local == address
        assert (remote.host, remote.port) == peer.address[:2]


@on_ip
async def test_attribute_aliases(kind: Kind) -> None:
    """The names for sockets in general lead to the same values; others are unknown."""
    handler = Keeping()
    async with kind.serve(handler) as service:
        peer = await kind.connect(service)
        assert await peer.ask("hello") == "hello"
        extra = handler.client.extra
        for name in INETSocketAttribute.peername, SocketAttribute.peername:
            assert extra(name) == extra(INETClientAttribute.remote_address) == peer.address
        for name in INETSocketAttribute.sockname, SocketAttribute.sockname:
            assert extra(name) == extra(INETClientAttribute.local_address)
        family = socket.AF_INET6 if ":" in kind.host else socket.AF_INET
        assert extra(SocketAttribute.family) == family
        attributes = handler.client.extra_attributes
        assert attributes[INETClientAttribute.remote_address]() == peer.address
        if getattr(peer, "tls", None) is None:
            with pytest.raises(TypedAttributeLookupError):
                extra(TLSAttribute.sslcontext)
            assert extra(TLSAttribute.sslcontext, None) is None


async def test_send_from_another_task(kind: Kind) -> None:
    """Any task that has the client may send to it, whether or not its handler is waiting."""
    handler = Keeping()
    async with kind.serve(handler) as service:
        peer = await kind.connect(service)
        assert await peer.ask("hello") == "hello"
        await handler.client.send_packet("news")
        assert await peer.receive() == "news"
        assert await peer.ask("hello") == "hello"


# -- what a client has from the server

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_context_of_the_service(kind: Kind) -> None:
    """Every generator sees what `service_init()` set, again after a restart."""

    class Named(Handler):
        async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
            self.note("init")
            who.set(f"service {self.notes.count('init')}")

        async def handle(self, client: Any) -> Requests:
            before = who.get()
            yield
            assert who.get() == before
            await client.send_packet(before)

    server = kind.new_server(Named())
    async with kind.serving(server) as service:
        peers = [await kind.connect(service) for _ in range(3)]
        for _ in range(2):
            for peer in peers:
                assert await peer.ask("hello") == "service 1"
        await server.shutdown()
        async with restarting(server):
            assert await (await kind.connect(service)).ask("hello") == "service 2"
    assert who.get() == "nobody"


async def test_own_logger(kind: Kind, log: Records) -> None:
    """Everything goes to the logger that the server was given."""

    class Logged(Handler):
        async def handle(self, client: Any) -> Requests:
            if (yield) == "fail":
                raise LookupError

    own = logging.getLogger("easynetwork.tests.own")
    async with kind.serve(Logged(), logger=own) as service:
        (await kind.connect(service)).send("fail")
        await log.logged_often(1)
        kind.send_invalid(await kind.connect(service))
        await log.logged_often(2)
    assert {record.name for record in log.records} == {own.name}
    assert [level for level, _, _ in log.problems()] == ["ERROR", "WARNING"]
