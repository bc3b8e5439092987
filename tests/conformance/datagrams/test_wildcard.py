"""Servers on all interfaces: a response leaves from the address that was asked.

A connected socket only receives datagrams from the address that it is connected to.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork.servers.handlers import INETClientAttribute
from easynetwork.sockets import datagrams
from tests.conformance.datagrams.support import (
    Client,
    Peer,
    Recorder,
    Requests,
    Serve,
    Server,
    Service,
    serving,
)
from tests.networks import ip, own_network, received_by, wait_for_address

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="needs IP_PKTINFO, and 127.0.0.0/8"),
]

# linux/in.h; the socket module has it from Python 3.12 on.
IP_PKTINFO = 8

GROUP_IPV4 = "239.255.0.1"  # RFC 2365: for tests like this one
GROUP_IPV6 = "ff02::1"  # all nodes on a link, of which each interface is a member (RFC 4291, 2.7.1)


@pytest.fixture
def host() -> str:
    """Return the address that servers listen on, unless a test wants another one."""
    return "0.0.0.0"


@pytest.fixture
def link() -> Iterator[int]:
    """Make more addresses, two of them only valid on a link; return the number of its interface.

    What leaves from one end of the link, link0, arrives at the other one.
    """
    ends = ("link0", "link1")
    with own_network(
        *("addr add 192.0.2.1/32 dev lo", "addr add fd00::2/128 dev lo"),
        "link add link0 type veth peer name link1",
        *(f"link set {end} addrgenmode none up" for end in ends),
        *(f"addr add fe80::1:{end[-1]}/64 dev {end} nodad" for end in ends),
    ):
        for end in ends:
            wait_for_address((f"fe80::1:{end[-1]}", 1, 0, socket.if_nametoindex(end)))
        yield socket.if_nametoindex("link0")


def port_of(server: Server) -> int:
    return server.get_addresses()[0].port


@contextlib.contextmanager
def asking(service: Service, host: str, *scope: int) -> Iterator[Peer]:
    """Yield a peer that is connected to one of the server's addresses."""
    peer = Peer((host, port_of(service.server), *scope))
    service.peers.append(peer)
    yield peer
    peer.close()


@contextlib.contextmanager
def open_to_all(family: int) -> Iterator[socket.socket]:
    """Yield a socket that receives from any address."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        yield sock


def local_address(client: Client) -> Any:
    return client.extra(INETClientAttribute.local_address)


async def check_hosts(serve: Serve, wildcard: str, *addresses: tuple[Any, ...]) -> None:
    """Ask a server at each of its addresses, each a host and what follows the port."""
    handler = Recorder()
    async with serve(handler, host=wildcard) as service:
        for host, *scope in addresses * 2:
            with asking(service, host, *scope) as peer:
                peer.send("hello")
                assert (await received_by(peer.socket))[0] == b"hello"
                client = handler.clients[-1]
                assert client.extra(INETClientAttribute.remote_address) == peer.address
            asked = local_address(client)
            assert asked == (host, port_of(service.server), *scope)
            assert type(asked) is type(service.server.get_addresses()[0])
            assert str(peer.address[1]) in repr(client)
            del client


async def test_ipv4(serve: Serve) -> None:
    """Each address that was asked answers, and is the client's `local_address`."""
    await check_hosts(serve, "0.0.0.0", ("127.0.0.1",), ("127.0.0.2",), ("127.3.2.1",))


async def test_ipv6(serve: Serve) -> None:
    """The same over IPv6, which has one address everywhere."""
    await check_hosts(serve, "::", ("::1", 0, 0))


async def test_ipv6_addresses(serve: Serve, link: int) -> None:
    """The same over IPv6 with several addresses, one of which needs its interface."""
    await check_hosts(serve, "::", ("::1", 0, 0), ("fd00::2", 0, 0), ("fe80::1:0", 0, link))


async def test_both_families(serve: Serve) -> None:
    """A server on everything is one on both wildcard addresses."""
    async with serve(Recorder(), host=None) as service:
        for host in ("127.0.0.2", "::1"):
            with asking(service, host) as peer:
                assert await peer.ask("hello") == "hello"


async def test_many_peers_at_many_addresses(serve: Serve) -> None:
    """Peers that take turns at different addresses are not mixed up."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            while True:
                request = yield
                await client.send_packet(f"{request} {local_address(client).host}")

    async with serve(Handler()) as service:
        with contextlib.ExitStack() as stack:
            hosts = [f"127.0.0.{number}" for number in range(1, 9)]
            peers = [stack.enter_context(asking(service, host)) for host in hosts]
            for round_ in range(3):
                for peer in peers:
                    peer.send(str(round_))
                for host, peer in zip(hosts, peers, strict=True):
                    assert await peer.receive() == f"{round_} {host}"


async def test_equality(serve: Serve) -> None:
    """Two clients are equal if both addresses are; there is one object while it is kept."""
    handler = Recorder()
    async with serve(handler) as service:
        port = port_of(service.server)
        with open_to_all(socket.AF_INET) as sock:
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
                sock.sendto(b"hello", (host, port))
                received = await received_by(sock)
                assert received == (b"hello", (host, port))
                await service.statistics(peers=0)
        first, second, third = handler.clients
        assert first is third
        assert first != second
        assert len({first, second, third}) == 2
        remote = INETClientAttribute.remote_address
        assert first.extra(remote) == second.extra(remote)


async def test_broadcast(serve: Serve) -> None:
    """A broadcast address cannot be a source: the interface's own answers, and is the local one."""
    handler = Recorder()
    async with serve(handler) as service:
        port = port_of(service.server)
        with open_to_all(socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(b"hello", ("127.255.255.255", port))
            received = await received_by(sock)
        assert received == (b"hello", ("127.0.0.1", port))
        assert local_address(handler.clients[0]) == ("127.0.0.1", port)


async def test_multicast_ipv4(serve: Serve) -> None:
    """Nor can a multicast group, of which the server's socket can become a member."""
    handler = Recorder()
    async with serve(handler) as service:
        port = port_of(service.server)
        interface = socket.inet_aton("127.0.0.1")
        membership = socket.inet_aton(GROUP_IPV4) + interface
        [server_socket] = service.server.get_sockets()
        server_socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        with open_to_all(socket.AF_INET) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            sock.sendto(b"hello", (GROUP_IPV4, port))
            received = await received_by(sock)
        assert received == (b"hello", ("127.0.0.1", port))
        assert local_address(handler.clients[0]) == ("127.0.0.1", port)


async def test_multicast_ipv6(serve: Serve, link: int) -> None:
    """Over IPv6 the kernel does not say what could be one: it chooses."""
    handler = Recorder()
    async with serve(handler, host="::") as service:
        port = port_of(service.server)
        with open_to_all(socket.AF_INET6) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            sock.sendto(b"hello", (GROUP_IPV6, port, 0, link))
            received = await received_by(sock)
        assert received == (b"hello", ("fe80::1:1", port, 0, link))
        assert local_address(handler.clients[0]) == service.server.get_addresses()[0]


async def test_lost_address(serve: Serve, link: int) -> None:
    """If the machine loses the address that was asked, another one answers."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            ip("addr del 192.0.2.1/32 dev lo")
            await client.send_packet(request)

    async with serve(Handler()) as service:
        port = port_of(service.server)
        with open_to_all(socket.AF_INET) as sock:
            sock.bind(("127.0.0.9", 0))
            sock.sendto(b"hello", ("192.0.2.1", port))
            received, sender = await received_by(sock)
        assert received == b"hello"
        assert sender != ("192.0.2.1", port)


async def test_too_long(serve: Serve) -> None:
    """Errors are what they are on any other socket."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with pytest.raises(OSError, match="datagram of 70000 bytes is too long"):
                await client.send_packet("x" * 70_000)
            await client.send_packet("next")

    async with serve(Handler()) as service:
        with asking(service, "127.0.0.2") as peer:
            assert await peer.ask("hello") == "next"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_only_on_wildcards(serve: Serve, host: str) -> None:
    """A socket that is bound to an address does not ask for what it knows."""
    async with serve(Recorder()) as service:
        [server_socket] = service.server.get_sockets()
        option = server_socket.getsockopt(socket.IPPROTO_IP, IP_PKTINFO)
        assert bool(option) == (host == "0.0.0.0")


async def test_other_ancillary_data(serve: Serve) -> None:
    """Other options that bring ancillary data do not disturb."""
    handler = Recorder()
    async with serve(handler) as service:
        [server_socket] = service.server.get_sockets()
        for level, option in (
            (socket.SOL_SOCKET, 29),  # SO_TIMESTAMP, which comes first
            (socket.IPPROTO_IP, socket.IP_RECVTOS),
        ):
            server_socket.setsockopt(level, option, 1)
        for host in ("127.0.0.2", "127.0.0.3"):
            with asking(service, host) as peer:
                assert await peer.ask("hello") == "hello"


async def test_platform_without(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform does not tell, the listening address is all that is known."""
    monkeypatch.setattr(datagrams, "_SOURCES", {})
    handler = Recorder()
    async with serve(handler) as service:
        with asking(service, "127.0.0.1") as peer:
            assert await peer.ask("hello") == "hello"
        assert local_address(handler.clients[0]) == service.server.get_addresses()[0]


async def test_option_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same if the system refuses the option."""
    broken = {family: sources._replace(option=-1) for family, sources in datagrams._SOURCES.items()}
    monkeypatch.setattr(datagrams, "_SOURCES", broken)
    async with serve(Recorder()) as service:
        with asking(service, "127.0.0.1") as peer:
            assert await peer.ask("hello") == "hello"


async def test_serving_again(serve: Serve) -> None:
    """A second run answers from the right address, too."""
    async with serve(Recorder()) as service:
        await service.server.shutdown()
        async with serving(service.server) as again:
            with asking(again, "127.0.0.2") as peer:
                assert await peer.ask("hello") == "hello"
