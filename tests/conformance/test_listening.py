"""Where a server listens: hosts, ports, families; and what is said when it cannot."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from tests.conformance.peers import Peer
from tests.conformance.support import Recorder, Records, Server, each_family, serving

pytestmark = pytest.mark.anyio


def server_on(host: Any, port: int = 0, **options: Any) -> Server:
    """Return a server on certain hosts."""
    return AsyncTCPNetworkServer(
        host, port, StreamProtocol(StringLineSerializer()), Recorder(), **options
    )


def hosts(server: Server) -> list[str]:
    return [address.host for address in server.get_addresses()]


# -- hosts and ports


@pytest.mark.parametrize("everywhere", [None, "", [None], ["", "0.0.0.0", "::"]])
async def test_all_interfaces(everywhere: Any) -> None:
    """None or "" stands for all interfaces, of both families, on one port."""
    async with serving(server_on(everywhere)) as service:
        assert set(hosts(service.server)) == {"0.0.0.0", "::"}
        [port] = {address.port for address in service.server.get_addresses()}
        for host in "127.0.0.1", "::1":
            peer = Peer((host, port))
            service.peers.append(peer)
            assert await peer.ask("hello") == "hello"


async def test_several_hosts() -> None:
    """A sequence of hosts: all of them, each once, on one port."""
    server = server_on(("127.0.0.1", "::1", "127.0.0.1", "127.0.0.2"))
    async with serving(server) as service:
        assert sorted(hosts(server)) == ["127.0.0.1", "127.0.0.2", "::1"]
        assert len({address.port for address in server.get_addresses()}) == 1
        assert len(server.get_sockets()) == 3
        for address in server.get_addresses():
            peer = Peer(address)
            service.peers.append(peer)
            assert await peer.ask("hello") == "hello"


async def test_host_name() -> None:
    """A name stands for all of its addresses."""
    found = socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
    async with server_on("localhost") as server:
        assert set(hosts(server)) <= {info[4][0] for info in found}
        assert "127.0.0.1" in hosts(server)


async def test_partial_name(log: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of a name that this machine does not have is left out, with one line."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        numbers = ["203.0.113.1", "127.0.0.1"]  # the first is nobody's (RFC 5737)
        return [socket.getaddrinfo(number, port, type=socket.SOCK_STREAM)[0] for number in numbers]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    async with serving(server_on("localhost")) as service:
        assert hosts(service.server) == ["127.0.0.1"]
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
    assert log.messages()[0] == (
        "Addresses that this machine does not have are left out: "
        f"[Errno {errno.EADDRNOTAVAIL}] error while attempting to bind on address "
        "('203.0.113.1', 0): Cannot assign requested address"
    )


SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


def longest_backlog() -> int:
    return int(SOMAXCONN.read_text())


@pytest.mark.skipif(not SOMAXCONN.exists(), reason="TCP_INFO of a listening socket is Linux's")
async def test_backlog() -> None:
    """1,024 connections may wait, as far as the kernel allows."""
    allowed = longest_backlog()
    for options, backlog in ({}, 1024), ({"backlog": 7}, 7):
        async with server_on("127.0.0.1", **options) as server:
            [sock] = server.get_sockets()
            # linux/tcp.h: tcpi_sacked, the eighth number, is the backlog.
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            assert struct.unpack("8I", info)[7] == min(backlog, allowed)


async def test_no_host() -> None:
    """An empty sequence is no place to listen."""
    server = server_on([])
    with pytest.raises(OSError, match="^empty listeners list$"):
        await server.server_activate()
    assert not server.is_listening()


@each_family
async def test_fixed_port(host: str) -> None:
    """A port that is asked for is the one that is used, again at once after closing."""
    async with server_on(host) as server:
        port = server.get_addresses()[0].port
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_forever)
            peer = Peer((host, port))
            assert await peer.ask("hello") == "hello"
            await server.shutdown()  # closes first, so that its end is in TIME_WAIT
            await peer.rest()
    async with server_on(host, port) as server:
        assert server.get_addresses()[0].port == port


async def test_ipv6_only() -> None:
    """The IPv6 socket leaves IPv4 to others."""
    async with server_on("::") as server:
        option = server.get_sockets()[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert option == 1
        with pytest.raises(ConnectionRefusedError):
            Peer(("127.0.0.1", server.get_addresses()[0].port))


async def test_reuse_port() -> None:
    """With `reuse_port`, a second server may listen on the port; without it, it may not."""
    async with server_on("127.0.0.1", reuse_port=True) as server:
        port = server.get_addresses()[0].port
        async with server_on("127.0.0.1", port, reuse_port=True) as second:
            assert second.get_addresses() == server.get_addresses()
        with pytest.raises(OSError, match="already in use"):
            await server_on("127.0.0.1", port).server_activate()


async def test_socket_options() -> None:
    """A port can be used again while old connections fade; the sockets can be asked."""
    async with server_on("127.0.0.1", backlog=5) as server:
        [sock] = server.get_sockets()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert sock.family == socket.AF_INET


# -- errors


async def failure(server: Server) -> OSError:
    """Return why a server cannot be activated: the one error, as itself."""
    with pytest.raises(OSError, match="^") as caught:
        await server.server_activate()
    assert not server.is_listening()
    assert server.get_addresses() == ()
    return caught.value


@each_family
async def test_port_in_use(host: str) -> None:
    """A port in use: an error with the address and the reason; it may be tried again later."""
    async with server_on(host) as other:
        [(_, port, *_)] = other.get_addresses()
        server = server_on(host, port)
        for _ in range(2):
            error = await failure(server)
            assert error.errno == errno.EADDRINUSE
            reason = os.strerror(errno.EADDRINUSE)
            assert str(error) == (
                f"[Errno {errno.EADDRINUSE}] "
                f"error while attempting to bind on address ('{host}', {port}): {reason}"
            )
    async with server:
        assert server.get_addresses()[0].port == port


async def test_serving_on_a_port_in_use(log: Records) -> None:
    """`serve_forever()` fails alike, and nothing is said to have been served."""
    async with server_on("127.0.0.1") as other:
        server = server_on("127.0.0.1", other.get_addresses()[0].port)
        with pytest.raises(OSError, match="already in use"):
            await server.serve_forever()
        assert not server.is_listening()
    assert log.messages() == []


async def test_one_of_two_in_use() -> None:
    """If one of several addresses fails, none is opened."""
    async with server_on("127.0.0.1") as other:
        port = other.get_addresses()[0].port
        server = server_on(["::1", "127.0.0.1"], port)
        assert "127.0.0.1" in str(await failure(server))
    async with server:
        assert sorted(hosts(server)) == ["127.0.0.1", "::1"]


async def test_address_of_somebody_else() -> None:
    """An address that this machine does not have is named; this one is nobody's (RFC 5737)."""
    error = await failure(server_on("192.0.2.1"))
    assert error.errno == errno.EADDRNOTAVAIL
    assert "192.0.2.1" in str(error)


PRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
NOBODY = 65534


@pytest.fixture
def without_privileges() -> Iterator[None]:
    """Let the process be nobody, should it be root."""
    if not PRIVILEGED.exists() or int(PRIVILEGED.read_text()) <= 1:
        pytest.skip("everybody may use every port here")
    before = os.geteuid()
    os.seteuid(before or NOBODY)
    yield
    os.seteuid(before)


@pytest.mark.usefixtures("without_privileges")
async def test_privileged_port() -> None:
    """A port that needs privileges is named, with the reason."""
    error = await failure(server_on("127.0.0.1", 1))
    assert error.errno == errno.EACCES
    reason = os.strerror(errno.EACCES)
    assert str(error).endswith(f"bind on address ('127.0.0.1', 1): {reason}")


async def test_unknown_host() -> None:
    """A name that nobody knows is named; this one is never known (RFC 6761, 6.4)."""
    error = await failure(server_on("unknown.invalid"))
    assert isinstance(error, socket.gaierror)
    assert "unknown.invalid" in str(error)


async def test_name_that_is_no_name() -> None:
    """Nor does a name that cannot be one get through raw."""
    error = await failure(server_on("not a\nname"))
    assert "\n" not in str(error)
