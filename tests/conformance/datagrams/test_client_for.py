"""Talking first: the client object of any address."""

from __future__ import annotations

import gc
import socket
import weakref
from typing import Any

import anyio
import pytest

from easynetwork.addresses import new_socket_address
from easynetwork.exceptions import ClientClosedError, ServerClosedError
from easynetwork.servers.handlers import INETClientAttribute
from tests.conformance.datagrams.support import (
    Client,
    NewServer,
    Peer,
    Recorder,
    Requests,
    Serve,
    on_ip,
    server_on,
)
from tests.networks import LINK, own_network, received_by, wait_for_address

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def host(request: pytest.FixtureRequest) -> str:
    """Return the address that the server listens on."""
    return str(request.param)


class Waiting(Recorder):
    """Has its generator wait until the peer sends a second datagram."""

    async def handle(self, client: Client) -> Requests:
        self.clients.append(client)
        self.note((yield))
        await client.send_packet((yield))


def forms(address: tuple[Any, ...]) -> list[Any]:
    """Return the ways to write an address of the socket module."""
    family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
    return [address, address[:2], new_socket_address(address, family)]


@on_ip
async def test_talk_first(serve: Serve) -> None:
    """The server sends the first packet, and gets the response in its handler."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = service.connect()
        client: Client = service.server.client_for(peer.address)
        assert not client.is_closing()
        await client.send_packet("first")
        assert await peer.receive() == "first"
        assert await peer.ask("second") == "second"
        assert handler.clients[0] is client


@on_ip
async def test_attributes(serve: Serve) -> None:
    """It is like any other client of the server."""
    async with serve(Recorder()) as service:
        peer = service.connect()
        client = service.server.client_for(peer.address)
        assert client.extra(INETClientAttribute.remote_address) == peer.address
        local_address = client.extra(INETClientAttribute.local_address)
        assert local_address == service.server.get_addresses()[0]
        assert client.backend() is service.server.backend()
        assert peer.name in repr(client)


@on_ip
async def test_one_object(serve: Serve) -> None:
    """There is one object for a peer, however its address is written, as long as it is kept."""
    handler = Waiting()
    async with serve(handler) as service:
        peer = service.connect()
        client = service.server.client_for(peer.address)
        assert all(service.server.client_for(form) is client for form in forms(peer.address))
        peer.send("one")
        await handler.noted("one")
        assert service.server.client_for(peer.address) is client  # its generator waits
        assert await peer.ask("two") == "two"
        await service.statistics(peers=0)
        assert service.server.client_for(peer.address) is client
        assert handler.clients == [client]


@on_ip
async def test_memory(serve: Serve) -> None:
    """The server does not keep it."""
    async with serve(Recorder()) as service:
        client = weakref.ref(service.server.client_for(service.connect().address))
        gc.collect()
        assert client() is None


@on_ip
async def test_object_of_the_handler(serve: Serve) -> None:
    """The object of a running generator is found, whether or not other code keeps it."""
    handler = Waiting()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("one")
        await handler.noted("one")
        assert service.server.client_for(peer.address) is handler.clients[0]


@on_ip
async def test_first_listener_of_the_family(serve: Serve) -> None:
    """The first socket of the address's family sends."""
    async with serve(Recorder(), host=["::1", "127.0.0.2", "127.0.0.1"]) as service:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.bind(("127.0.0.1", 0))
            await service.server.client_for(sock.getsockname()).send_packet("hello")
            received = await received_by(sock)
        assert received == (b"hello", service.server.get_addresses()[1])


@on_ip
@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
async def test_wildcard(serve: Serve, wildcard: str) -> None:
    """On a wildcard address, the system chooses where the first packet leaves from."""
    handler = Recorder()
    async with serve(handler, host=wildcard) as service:
        host = "::1" if wildcard == "::" else "127.0.0.1"
        peer = Peer((host, service.server.get_addresses()[0].port))
        service.peers.append(peer)
        client = service.server.client_for(peer.address)
        await client.send_packet("hello")
        assert await peer.receive() == "hello"
        assert client.extra(INETClientAttribute.local_address).host == wildcard


async def test_link_local() -> None:
    """An address that is only valid on a link needs its zone, in any notation."""
    with own_network(*LINK):
        number = socket.if_nametoindex("link0")
        wait_for_address(("fe80::1", 1, 0, number))
        server = server_on("fe80::1%link0")
        async with server, anyio.create_task_group() as tasks:
            assert server.get_addresses()[0].for_connection()[0] == f"fe80::1%{number}"
            await tasks.start(serve_forever, server)
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.bind(("fe80::1", 0, 0, number))
                port = sock.getsockname()[1]
                clients = [
                    server.client_for(address)
                    for address in (
                        ("fe80::1%link0", port),
                        (f"fe80::1%{number}", port),
                        ("fe80::1", port, 0, number),
                        new_socket_address(sock.getsockname(), socket.AF_INET6),
                    )
                ]
                assert len({*clients}) == 1
                assert str(port) in repr(clients[0])
                assert f"fe80::1%{number}" in repr(clients[0])
                await clients[0].send_packet("hello")
                data, sender = await received_by(sock)
            assert (data, sender) == (b"hello", tuple(server.get_addresses()[0]))
            await server.shutdown()


async def serve_forever(server: Any, *, task_status: Any) -> None:
    class Event:
        set = task_status.started

    await server.serve_forever(is_up_event=Event())


@on_ip
@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (("localhost", 9), ValueError, "numeric host, got 'localhost'"),
        (("", 9), ValueError, "numeric host, got ''"),
        (("fe80::1%nowhere", 9), ValueError, "numeric host, got 'fe80::1%nowhere'"),
        (("x" * 300, 9), ValueError, "numeric host"),
        (("127.0.0.1", 0), ValueError, "port 0"),
        (("127.0.0.1", 65_536), ValueError, "between 0 and 65535"),
        (("127.0.0.1", -1), ValueError, "between 0 and 65535"),
        (("127.0.0.1", "9"), TypeError, "a host and a port"),
        (("127.0.0.1",), TypeError, "a host and a port"),
        ("127.0.0.1", TypeError, "a host and a port"),
        (None, TypeError, "a host and a port"),
    ],
)
async def test_no_address(serve: Serve, address: Any, error: type[Exception], message: str) -> None:
    """What is not a numeric host and a port is refused."""
    async with serve(Recorder()) as service:
        with pytest.raises(error, match=message):
            service.server.client_for(address)


@on_ip
async def test_no_listener(serve: Serve, host: str) -> None:
    """There has to be a listener of the family."""
    other = "127.0.0.1" if ":" in host else "::1"
    async with serve(Recorder()) as service:
        with pytest.raises(ValueError, match=f"does not listen .*{other}"):
            service.server.client_for((other, 9))


@on_ip
async def test_not_serving(new_server: NewServer, host: str) -> None:
    """Before the server listens there is no client, and before it serves, a closed one."""
    server = new_server(Recorder())
    with pytest.raises(ValueError, match="does not listen"):
        server.client_for((host, 9))
    async with server:
        client = server.client_for((host, 9))
        assert client.is_closing()
        with pytest.raises(ClientClosedError):
            await client.send_packet("hello")
    assert client.is_closing()
    with pytest.raises(ServerClosedError):
        server.client_for((host, 9))


@on_ip
async def test_after_shutdown(serve: Serve) -> None:
    """When the server stops, the client is closed."""
    async with serve(Recorder()) as service:
        client = service.server.client_for(service.connect().address)
        await service.server.shutdown()
        assert client.is_closing()
        with pytest.raises(ClientClosedError):
            await client.send_packet("hello")


@on_ip
async def test_too_long(serve: Serve) -> None:
    """Errors are what they are for any other client."""
    async with serve(Recorder()) as service:
        client = service.server.client_for(service.connect().address)
        with pytest.raises(OSError, match="is too long"):
            await client.send_packet("x" * 70_000)
