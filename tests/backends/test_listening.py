"""Sockets for servers, of both kinds, on each backend."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

from easynetwork.backends import listening
from easynetwork.backends.listening import open_tcp_listeners, open_udp_sockets

pytestmark = pytest.mark.anyio

Open: TypeAlias = Callable[..., Awaitable[list[socket.socket]]]


def bound_socket(kind: socket.SocketKind, host: str, port: int = 0) -> socket.socket:
    """Return a socket of somebody else."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def has_ipv6() -> bool:
    try:
        bound_socket(socket.SOCK_STREAM, "::1").close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def opened(kind: socket.SocketKind, anyio_backend: object) -> AsyncIterator[Open]:
    """A function that opens sockets, for as long as the test runs."""
    with ExitStack() as stack:

        async def open_them(
            hosts: list[str | None], port: int = 0, *, reuse_port: bool = False
        ) -> list[socket.socket]:
            if kind == socket.SOCK_STREAM:
                sockets = await open_tcp_listeners(hosts, port, backlog=5, reuse_port=reuse_port)
            else:
                sockets = await open_udp_sockets(hosts, port, reuse_port=reuse_port)
            for sock in sockets:
                stack.enter_context(sock)
            return sockets

        yield open_them


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM], indirect=True)
async def test_listen(opened: Open) -> None:
    """A listener accepts connections, and never blocks."""
    (listener,) = await opened(["127.0.0.1"])
    assert listener.gettimeout() == 0
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    with socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        listener.accept()[0].close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM], indirect=True)
async def test_bind(opened: Open) -> None:
    """A datagram socket is bound, never blocks, and shares its port with nobody."""
    (sock,) = await opened(["127.0.0.1"])
    assert sock.gettimeout() == 0
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"hello", sock.getsockname())
    sock.setblocking(True)
    assert sock.recv(10) == b"hello"


@needs_ipv6
@pytest.mark.parametrize("hosts", [[None], ["127.0.0.1", "::1"], ["::1", "127.0.0.1"]])
async def test_one_port_for_all(opened: Open, hosts: list[str | None]) -> None:
    """With port 0, all addresses of all families have the same port, and each its own socket."""
    sockets = await opened(hosts)
    assert {sock.family for sock in sockets} == {socket.AF_INET, socket.AF_INET6}
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        if sock.family == socket.AF_INET6:
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@needs_ipv6
async def test_random_port_is_taken(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the random port is taken for another family, another one is drawn."""
    bind = listening._bind
    tried = []

    def fail_at_first(sock: Any, address: Any, **options: Any) -> None:
        tried.append(address[:2])
        if len(tried) <= 6 and address[1] != 0:
            raise OSError(errno.EADDRINUSE, "forced")
        bind(sock, address, **options)

    monkeypatch.setattr(listening, "_bind", fail_at_first)

    sockets = await opened(["127.0.0.1", "::1"])

    assert len(tried) == 8
    assert len({sock.getsockname()[1] for sock in sockets}) == 1


async def test_no_port_is_free(opened: Open) -> None:
    """Addresses that exclude each other are found out, and reported."""
    with pytest.raises(ExceptionGroup) as info:
        await opened(["0.0.0.0", "127.0.0.1"])
    (error,) = info.value.exceptions
    assert "error while attempting to bind on address ('127.0.0.1', " in str(error)


async def test_same_host_twice(opened: Open) -> None:
    """A host that is given twice is listened on once."""
    assert len(await opened(["127.0.0.1", "127.0.0.1"])) == 1


async def test_port_in_use(opened: Open, kind: socket.SocketKind) -> None:
    """The error names each address, with the reason, and nothing stays open."""
    with bound_socket(kind, "127.0.0.1") as one:
        port = one.getsockname()[1]
        with bound_socket(kind, "127.0.0.2", port), pytest.raises(ExceptionGroup) as info:
            await opened(["127.0.0.1", "127.0.0.3", "127.0.0.2"], port)
    assert info.value.message == "Error when trying to create listeners"
    assert [str(error) for error in info.value.exceptions] == [
        f"[Errno {errno.EADDRINUSE}] error while attempting to bind on address "
        f"('{host}', {port}): Address already in use"
        for host in ("127.0.0.1", "127.0.0.2")
    ]
    assert {error.errno for error in info.value.exceptions if isinstance(error, OSError)} == {
        errno.EADDRINUSE
    }
    bound_socket(kind, "127.0.0.3", port).close()


async def test_not_our_address(opened: Open) -> None:
    """So does the error of an address that this machine does not have."""
    with pytest.raises(ExceptionGroup) as info:
        await opened(["203.0.113.1"])
    (error,) = info.value.exceptions
    assert isinstance(error, OSError)
    assert error.errno == errno.EADDRNOTAVAIL
    assert "error while attempting to bind on address ('203.0.113.1', 0)" in str(error)


async def test_forbidden(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error keeps its class."""

    def bind(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listening, "_bind", bind)
    with pytest.raises(ExceptionGroup) as info:
        await opened(["127.0.0.1"], 80)
    (error,) = info.value.exceptions
    assert isinstance(error, PermissionError)


async def test_unknown_host(opened: Open) -> None:
    """All names that cannot be resolved are reported at once."""
    with pytest.raises(ExceptionGroup) as info:
        await opened(["nowhere.invalid", "127.0.0.1", "neither.invalid"])
    texts = [str(error) for error in info.value.exceptions]
    assert "cannot resolve 'nowhere.invalid'" in texts[0]
    assert "cannot resolve 'neither.invalid'" in texts[1]


async def test_reuse_port(opened: Open) -> None:
    """Two processes may share a port if both say so."""
    (one,) = await opened(["127.0.0.1"], reuse_port=True)
    (two,) = await opened(["127.0.0.1"], one.getsockname()[1], reuse_port=True)
    assert one.getsockname() == two.getsockname()
    with pytest.raises(ExceptionGroup):
        await opened(["127.0.0.1"], one.getsockname()[1])


@needs_ipv6
async def test_missing_family(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that this machine does not have is left out, unless nothing is left then."""
    missing = {socket.AF_INET6}

    class Socket(socket.socket):
        def __init__(self, family: Any = socket.AF_INET, *args: Any, **options: Any) -> None:
            if family in missing:
                raise OSError(errno.EAFNOSUPPORT, "forced")
            super().__init__(family, *args, **options)

    monkeypatch.setattr(socket, "socket", Socket)
    (sock,) = await opened(["127.0.0.1", "::1"])
    assert sock.family == socket.AF_INET

    missing.add(socket.AF_INET)
    with pytest.raises(OSError, match=r"^empty listeners list$"):
        await opened(["127.0.0.1", "::1"])
