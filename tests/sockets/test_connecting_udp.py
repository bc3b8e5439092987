"""UDP sockets that are connected to one peer, in programs that wait and in those that must not."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from easynetwork.sockets import connecting
from easynetwork.sockets.connecting import connect_udp, connect_udp_blocking, start_connecting
from tests.clients.udp_support import address_of, bound, each_family, resolving_to

pytestmark = pytest.mark.anyio

Connect: TypeAlias = Callable[..., Awaitable[socket.socket]]


@pytest.fixture(params=["coroutine", "blocking"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Either of the two functions, as a coroutine function."""

    async def call(
        host: str, port: int, *, local_address: Any = None, family: int = socket.AF_UNSPEC
    ) -> socket.socket:
        if request.param == "coroutine":
            return await connect_udp(host, port, local_address=local_address, family=family)
        return connect_udp_blocking(host, port, local_address=local_address, family=family)

    return call


def causes(error: BaseException) -> list[str]:
    """Return what became of each address."""
    group = error.__cause__
    assert isinstance(group, ExceptionGroup)
    assert group.message == "Could not create the UDP socket"
    return [str(each) for each in group.exceptions]


@each_family
async def test_connected(connect: Connect, host: str) -> None:
    """The socket never blocks, and its peer knows it."""
    with bound(host) as peer, await connect(*address_of(peer)) as sock:
        assert sock.type == socket.SOCK_DGRAM
        assert sock.gettimeout() == 0
        assert sock.getpeername() == peer.getsockname()
        sock.send(b"hello")
        assert peer.recvfrom(10) == (b"hello", sock.getsockname())


async def test_host_name(connect: Connect) -> None:
    """A host may have a name."""
    with bound() as peer:
        port = address_of(peer)[1]
        with await connect("localhost", port, family=socket.AF_INET) as sock:
            assert sock.getpeername() == peer.getsockname()


async def test_resolver_decides(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are used in the order in which the resolver gives them, whatever their family."""
    for addresses in ([("127.0.0.1", 9), ("::1", 9)], [("::1", 9), ("127.0.0.1", 9)]):
        with monkeypatch.context() as patch:
            resolving_to(patch, *addresses)
            with await connect("several", 80) as sock:
                assert sock.getpeername()[:2] == addresses[0]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_family(connect: Connect, monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    """Only addresses of the family that is asked for are used."""
    resolving_to(monkeypatch, ("::1", 9), ("127.0.0.1", 9), ("::1", 10), ("127.0.0.1", 10))
    with await connect("several", 80, family=family) as sock:
        assert sock.family == family
        assert sock.getpeername()[1] == 9


async def test_no_address_of_that_family(connect: Connect) -> None:
    """A host that has none is not resolved, and the error says why."""
    with pytest.raises(
        socket.gaierror, match="cannot resolve '127.0.0.1': no address of family AF_INET6"
    ) as caught:
        await connect("127.0.0.1", 9, family=socket.AF_INET6)
    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("local", [False, True])
async def test_unknown_host(connect: Connect, local: bool) -> None:
    """Names are reported as such, whichever end they are for."""
    host = "127.0.0.1" if local else "nowhere.invalid"
    local_address = ("nowhere.invalid", 0) if local else None
    with pytest.raises(socket.gaierror, match="cannot resolve 'nowhere.invalid'"):
        await connect(host, 9, local_address=local_address)


@each_family
async def test_local_address(connect: Connect, host: str) -> None:
    """The socket is bound to the address that it is told."""
    with bound(host) as free:
        local_address = address_of(free)
    with bound(host) as peer:
        with await connect(*address_of(peer), local_address=local_address) as sock:
            assert sock.getsockname()[:2] == local_address


async def test_local_address_in_use(connect: Connect) -> None:
    """If it cannot be, the error has the class of what happened and says which address, and why."""
    with bound() as peer:
        address = address_of(peer)
        with pytest.raises(
            OSError, match=f"cannot connect to '127.0.0.1', port {address[1]}: "
        ) as e:
            await connect(*address, local_address=address)
    assert e.value.errno == errno.EADDRINUSE
    reason = os.strerror(errno.EADDRINUSE)
    assert causes(e.value) == [
        f"[Errno {errno.EADDRINUSE}] error while attempting to bind on address {address}: {reason}"
    ]


async def test_next_address(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that cannot be connected to is followed by the next one."""
    resolving_to(monkeypatch, ("255.255.255.255", 9), ("::1", 9), ("127.0.0.1", 9))
    with await connect("several", 80, local_address=("127.0.0.1", 0)) as sock:
        assert sock.getpeername() == ("127.0.0.1", 9)


async def test_all_failed_alike(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all addresses fail alike, the error has that class; its cause has each of them."""
    resolving_to(monkeypatch, ("255.255.255.255", 9), ("255.255.255.255", 10))
    with pytest.raises(PermissionError, match="cannot connect to 'several', port 80: ") as caught:
        await connect("several", 80)
    reason = os.strerror(errno.EACCES)
    assert causes(caught.value) == [
        f"[Errno {errno.EACCES}] Connect call failed ('255.255.255.255', {port}): {reason}"
        for port in (9, 10)
    ]


async def test_failed_differently(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If they do not, it is an OSError that says everything."""
    resolving_to(monkeypatch, ("255.255.255.255", 9), ("::1", 9))
    with pytest.raises(OSError, match="cannot connect to 'several', port 80: ") as caught:
        await connect("several", 80, local_address=("127.0.0.1", 0))
    assert type(caught.value) is OSError
    forbidden, without_address = causes(caught.value)
    assert os.strerror(errno.EACCES) in forbidden
    assert without_address.startswith("no matching local address with family=")
    assert forbidden in str(caught.value)
    assert without_address in str(caught.value)


async def test_early_strangers(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives when the socket is bound and not yet connected is not received: it is anybody's.

    The kernel would hand it out, although it drops what comes later from the same sender.
    """

    def connect_late(sock: socket.socket, address: Any) -> bool:
        stranger.sendto(b"stranger", sock.getsockname())
        assert select.select([sock], [], [], 5)[0]
        return start_connecting(sock, address)

    monkeypatch.setattr(connecting, "start_connecting", connect_late)
    with bound() as peer, bound() as stranger:
        with await connect(*address_of(peer), local_address=("127.0.0.1", 0)) as sock:
            stranger.sendto(b"stranger", sock.getsockname())
            peer.sendto(b"peer", sock.getsockname())
            sock.settimeout(5)
            assert sock.recv(10) == b"peer"
