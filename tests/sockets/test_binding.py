"""Sockets for servers, of both kinds, on each backend."""

from __future__ import annotations

import errno
import logging
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest

from easynetwork.sockets import binding as listening
from easynetwork.sockets.binding import HostSockets, bind_listener, bind_udp_server

pytestmark = pytest.mark.anyio

LOGGER = logging.getLogger("tests.listening")

Open: TypeAlias = Callable[..., Awaitable[list[socket.socket]]]


def bound_socket(kind: socket.SocketKind, host: str, port: int = 0) -> socket.socket:
    """Return a socket of somebody else."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def fixed_port() -> int:
    """Return a port that no socket has, nor gets unless somebody asks for it by its number."""
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(OSError), ExitStack() as stack:
            for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
                stack.enter_context(bound_socket(kind, "", port))
            return port
    pytest.skip("this machine has no port to spare below those that it hands out")


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
            bind = partial(bind_udp_server, reuse_port=reuse_port)
            if kind == socket.SOCK_STREAM:
                bind = partial(bind_listener, backlog=5, reuse_port=reuse_port)
            sockets = await HostSockets(hosts, port, kind, bind, LOGGER).open()
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
    with pytest.raises(OSError, match="bind on address \\('127.0.0.1', ") as info:
        await opened(["0.0.0.0", "127.0.0.1"])
    assert info.value.errno == errno.EADDRINUSE


async def test_same_host_twice(opened: Open) -> None:
    """A host that is given twice is listened on once."""
    assert len(await opened(["127.0.0.1", "127.0.0.1"])) == 1


async def test_port_in_use(opened: Open, kind: socket.SocketKind) -> None:
    """The error names each address, with the reason, and nothing stays open."""
    port = fixed_port()
    with (
        bound_socket(kind, "127.0.0.1", port),
        bound_socket(kind, "127.0.0.2", port),
        pytest.raises(ExceptionGroup) as info,
    ):
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
    """A single error is raised as itself: of an address that this machine does not have."""
    with pytest.raises(OSError, match="^") as info:
        await opened(["203.0.113.1"])
    assert info.value.errno == errno.EADDRNOTAVAIL
    assert "error while attempting to bind on address ('203.0.113.1', 0)" in str(info.value)


async def test_forbidden(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error keeps its class."""

    def bind(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listening, "_bind", bind)
    with pytest.raises(PermissionError):
        await opened(["127.0.0.1"], 80)


# -- names of which this machine does not have every address


@pytest.fixture
def names(kind: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The names that the resolver knows. 203.0.113.1 and 2001:db8::1 are documentation's."""
    known: dict[str, list[str]] = {}

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [
            socket.getaddrinfo(address, port, type=kind, flags=socket.AI_NUMERICHOST)[0]
            for address in known[host]
        ]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    return known


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == LOGGER.name
    ]


@pytest.mark.parametrize("missing", ["203.0.113.1", pytest.param("2001:db8::1", marks=needs_ipv6)])
@pytest.mark.parametrize("port_of", [lambda: 0, fixed_port], ids=["random port", "fixed port"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
async def test_partial_name(
    opened: Open,
    names: dict[str, list[str]],
    caplog: pytest.LogCaptureFixture,
    missing: str,
    port_of: Callable[[], int],
    is_first: bool,
) -> None:
    """A name is served on the addresses that this machine has; one line names the others."""
    caplog.set_level(logging.INFO)
    there = ["127.0.0.1", "127.0.0.2"]
    names["somewhere"] = [missing, *there] if is_first else [*there, missing]
    port = port_of()
    sockets = await opened(["somewhere"], port)
    assert [sock.getsockname()[0] for sock in sockets] == there
    [found] = {sock.getsockname()[1] for sock in sockets}
    assert port in (0, found)
    [(level, line)] = lines(caplog)
    assert level == "INFO"
    assert f"bind on address ('{missing}', " in line
    assert "Cannot assign requested address" in line


async def test_name_without_address_here(
    opened: Open, names: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """A name of which no address is left is an error, even beside hosts that can be served."""
    caplog.set_level(logging.INFO)
    names.update(one=["203.0.113.1"], two=["203.0.113.1", "203.0.113.2"])
    with pytest.raises(OSError, match="203.0.113.1") as single:
        await opened(["127.0.0.1", "one"])
    assert single.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(ExceptionGroup, match="^Error when trying to create listeners") as group:
        await opened(["two", "127.0.0.1"])
    assert len(group.value.exceptions) == 2
    assert lines(caplog) == []


async def test_number_among_names(opened: Open, names: dict[str, list[str]]) -> None:
    """An address that is given as a number is missed, though a name could do without it."""
    names["somewhere"] = ["127.0.0.1", "203.0.113.1"]
    for hosts in ["somewhere", "203.0.113.1"], ["203.0.113.1", "somewhere"]:
        with pytest.raises(OSError, match="203.0.113.1") as info:
            await opened(hosts)
        assert info.value.errno == errno.EADDRNOTAVAIL


async def test_name_in_use(
    opened: Open, names: dict[str, list[str]], kind: socket.SocketKind
) -> None:
    """Only an address that is not here is left out; that the other is in use is the error."""
    names["somewhere"] = ["203.0.113.1", "127.0.0.1"]
    with bound_socket(kind, "127.0.0.1") as sock:
        with pytest.raises(OSError, match="127.0.0.1") as info:
            await opened(["somewhere"], sock.getsockname()[1])
    assert info.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("error", "is_fatal"), [(errno.EAFNOSUPPORT, False), (errno.EMFILE, True)], ids=str
)
@needs_ipv6
async def test_no_socket(
    opened: Open,
    names: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    is_fatal: bool,
) -> None:
    """A family that the kernel does not have counts as missing; other errors are raised."""
    names["somewhere"] = ["::1", "127.0.0.1"]
    new_socket = socket.socket

    def fail(family: int = -1, *args: Any, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(error, "forced")
        return new_socket(family, *args, **options)

    monkeypatch.setattr(socket, "socket", fail)
    for hosts, fails in (["somewhere"], is_fatal), (["::1"], True), (["::1", "127.0.0.1"], True):
        if fails:
            with pytest.raises(OSError, match="bind on address \\('::1', 0\\): forced") as info:
                await opened(hosts)
            assert info.value.errno == error
        else:
            [sock] = await opened(hosts)
            assert sock.family == socket.AF_INET


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
    with pytest.raises(OSError, match="already in use"):
        await opened(["127.0.0.1"], one.getsockname()[1])
