"""The client object: what can be asked of it, and sending."""

from __future__ import annotations

import gc
import socket
import weakref
from typing import assert_type

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import (
    IPv4SocketAddress,
    IPv6SocketAddress,
    SocketAddress,
    SocketProxy,
    TLSAttribute,
)
from easynetwork.exceptions import ClientClosedError, TypedAttributeLookupError
from easynetwork.servers.handlers import INETClientAttribute
from tests.conformance.support import Client, Recorder, Requests, Serve, each_family, on_ip

pytestmark = pytest.mark.anyio


# -- identity


async def test_identity(serve: Serve) -> None:
    """All methods get the same object; clients are equal to themselves only, and hashable."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.clients.append(client)
            await client.send_packet((yield))

        async def on_disconnection(self, client: Client) -> None:
            self.clients.append(client)
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await peer.ask("one")
        await peer.ask("two")
        peer.close()
        await handler.noted("on_disconnection")
        assert len(handler.clients) == 5
        assert len(set(handler.clients)) == 1
        await service.connect()
        await handler.noted("on_connection", times=2)
        assert handler.clients[-1] != handler.clients[0]
        assert len(dict.fromkeys(handler.clients)) == 2


async def test_memory(serve: Serve) -> None:
    """A client can be referred to weakly, and goes when its connection has gone."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        await peer.ask("hello")
        assert not hasattr(handler.clients[0], "__dict__")
        known = weakref.WeakSet(handler.clients)
        handler.clients.clear()
        gc.collect()
        assert len(known) == 1
        peer.send_eof()
        await peer.rest()
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert len(known) == 0


# -- attributes


@on_ip
@each_family
@pytest.mark.parametrize("moment", ["connected", "gone"])
async def test_addresses_without_a_request(serve: Serve, host: str, moment: str) -> None:
    """Both addresses are known from the beginning, and still when the peer has left."""
    handler = Recorder()
    kind = IPv6SocketAddress if ":" in host else IPv4SocketAddress
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        if moment == "gone":
            peer.reset()
            await handler.noted("on_disconnection")
            await anyio.wait_all_tasks_blocked()
        extra = handler.clients[0].extra
        remote = extra(INETClientAttribute.remote_address)
        assert_type(remote, SocketAddress)  # for mypy
        assert_type(extra(INETClientAttribute.remote_address, None), SocketAddress | None)
        local = extra(INETClientAttribute.local_address)
        assert isinstance(remote, kind)
        assert isinstance(local, kind)
        assert remote == peer.address
        assert local == service.server.get_addresses()[0]
        assert (remote.host, remote.port) == peer.address[:2]


@pytest.mark.parametrize("transport", ["tcp"])
async def test_unknown_attribute(serve: Serve) -> None:
    """An attribute that is not there is an error, unless there is a default."""
    handler = Recorder()
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("on_connection")
        extra = handler.clients[0].extra
        with pytest.raises(TypedAttributeLookupError):
            extra(TLSAttribute.sslcontext)
        assert extra(TLSAttribute.sslcontext, None) is None
        assert extra(TLSAttribute.peercert, "nobody") == "nobody"


@on_ip
async def test_socket(serve: Serve) -> None:
    """The socket is there for its options: no Nagle's algorithm, keep-alive probes."""
    handler = Recorder()
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("on_connection")
        proxy = handler.clients[0].extra(INETClientAttribute.socket)
        assert isinstance(proxy, SocketProxy)
        assert proxy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert proxy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        proxy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        assert not proxy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# -- sending


async def test_send_to_a_closed_client(serve: Serve) -> None:
    """To send behind `aclose()` is an error, from then on."""
    handler = Recorder()
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("on_connection")
        [client] = handler.clients
        assert not client.is_closing()
        await client.aclose()
        assert client.is_closing()
        for _ in range(2):
            with pytest.raises(ClientClosedError, match="^Closed client$"):
                await client.send_packet("too late")


async def test_send_to_a_client_that_left(serve: Serve) -> None:
    """When the connection is over, nothing can be sent any more."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        peer.close()
        await handler.noted("on_disconnection")
        with pytest.raises(ClientClosedError):
            await handler.clients[0].send_packet("too late")


async def test_send_on_a_broken_connection(serve: Serve) -> None:
    """A connection that has broken raises ConnectionError whenever one sends, not once."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("busy")
            await self.released.wait()
            failures = 0
            while failures < 3:
                try:
                    await client.send_packet("hello?")
                except ConnectionError as exc:
                    failures += not isinstance(exc, ClientClosedError)
                await anyio.lowlevel.checkpoint()
            self.note("broken")
            yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("busy")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
    assert handler.notes[-2:] == ["broken", "on_disconnection"]
