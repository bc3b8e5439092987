"""A server does not talk to itself, nor do two servers that answer errors to each other."""

from __future__ import annotations

import socket
from typing import Any

import anyio.to_thread
import pytest

from tests.conformance.datagrams.support import (
    Client,
    Recorder,
    Requests,
    Serve,
    on_ip,
    server_on,
    serving,
)
from tests.conformance.support import Records
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio


@on_ip
async def test_own_socket(serve: Serve, log: Records) -> None:
    """What a server sends to its own socket is dropped and counted, and logged once."""
    handler = Recorder()
    async with serve(handler) as service:
        own: Client = service.server.client_for(service.server.get_addresses()[0])
        for number in range(3):
            await own.send_packet("hello")
            await service.statistics(received=number + 1, dropped_by_own_address=number + 1)
        await service.statistics(peers=0, dropped=3)
        assert await service.connect().ask("hello") == "hello"
        assert handler.notes == ["handle", "hello"]
    [(level, message, _)] = log.problems()
    assert (level, "is an address of the server" in message) == ("WARNING", True)


async def test_other_own_socket(log: Records) -> None:
    """The address of any of its sockets is the server's own."""
    async with serving(server_on(["127.0.0.1", "127.0.0.2"])) as service:
        own: Client = service.server.client_for(service.server.get_addresses()[1])
        await own.send_packet("hello")
        await service.statistics(received=1, dropped_by_own_address=1)
    assert len(log.problems()) == 1


@pytest.mark.parametrize(
    ("wildcard", "host"), [("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.0.0.5"), ("::", "::1")]
)
async def test_wildcard(log: Records, wildcard: str, host: str) -> None:
    """On all interfaces, each address of the machine is the server's, with the server's port."""
    async with serving(server_on(wildcard)) as service:
        address = service.server.get_addresses()[0]
        own: Client = service.server.client_for((host, address.port))
        await own.send_packet("hello")
        await service.statistics(received=1, dropped_by_own_address=1)
        with socket.socket(service.server.get_sockets()[0].family, socket.SOCK_DGRAM) as peer:
            peer.settimeout(PATIENCE)
            peer.connect((host, address.port))  # from another port
            peer.send(b"hello")
            assert await anyio.to_thread.run_sync(peer.recv, 100) == b"hello"
    assert len(log.problems()) == 1


async def test_same_port_elsewhere() -> None:
    """A peer with the server's port on an address that the server does not have is like others."""
    async with serving(server_on("127.0.0.1")) as service:
        port = service.server.get_addresses()[0].port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(PATIENCE)
            peer.bind(("127.0.0.2", port))
            peer.sendto(b"hello", ("127.0.0.1", port))
            assert await anyio.to_thread.run_sync(peer.recv, 100) == b"hello"
        await service.statistics(received=1, dropped=0)


async def test_same_port_on_another_machine() -> None:
    """For a server on all interfaces, too; here, an address of another machine is forged."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError:
        pytest.skip("only root may forge addresses")
    handler = Unanswering()
    async with serving(server_on("0.0.0.0")) as service:
        service.server._service.handler = handler
        port = service.server.get_addresses()[0].port
        with raw:
            raw.sendto(forged_datagram("192.0.2.1", port), ("127.0.0.1", 0))
            await handler.noted("hello")
            raw.sendto(forged_datagram("127.0.0.8", port), ("127.0.0.1", 0))
            await service.statistics(received=2, dropped_by_own_address=1, dropped=1)


class Unanswering(Recorder):
    """Takes datagrams, and answers none."""

    async def handle(self, client: Client) -> Requests:
        self.note((yield))


def forged_datagram(sender: str, port: int) -> bytes:
    """Return an IPv4 packet (RFC 791, 3.1) with a UDP datagram from a port to the same one."""
    udp = port.to_bytes(2, "big") * 2 + (13).to_bytes(2, "big") + b"\0\0hello"
    hosts = socket.inet_aton(sender) + socket.inet_aton("127.0.0.1")
    header = b"\x45\0" + bytes(6) + bytes([64, socket.IPPROTO_UDP]) + b"\0\0" + hosts
    return header + udp  # the kernel fills in length and checksum (raw(7))


@on_ip
async def test_parse_error_unanswered(serve: Serve, log: Records) -> None:
    """The server itself never answers a datagram that is no packet, nor a handler's crash."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "crash":
                raise ZeroDivisionError
            await client.send_packet(request)

    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send(b"\xff\xff", "crash")
        assert await peer.ask("valid") == "valid"  # there is no other answer before it
        await service.statistics(received=3, invalid=1)
    assert len(log.problems()) == 2


@pytest.mark.parametrize("host", ["127.0.0.1"])
async def test_two_servers(serve: Serve, log: Records, host: str) -> None:
    """Two servers whose handlers let out errors exchange one datagram, and that is all."""
    async with serve(Recorder()) as one, serve(Recorder()) as other:
        await send_from(one.server, other.server, b"\xff\xff")
        await other.statistics(received=1, invalid=1)
        assert await one.connect().ask("hello") == "hello"
        assert await other.connect().ask("hello") == "hello"
        await one.statistics(received=1)  # the visitor's, no other
        await other.statistics(received=2)
    assert len(log.problems()) == 1


async def send_from(server: Any, to: Any, datagram: bytes) -> None:
    """Send bytes from a server's socket, as if somebody had forged its address."""
    endpoint = server._listeners[0].server_socket.endpoint
    assert endpoint.send(datagram, tuple(to.get_addresses()[0]))
