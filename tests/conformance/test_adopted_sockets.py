"""Servers on sockets that other code has bound: they serve as others do, and own the sockets."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.exceptions import ServerClosedError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from tests.adopting import CLIENTS, Load, ask, family_of, new_bound_socket
from tests.conformance.peers import raw
from tests.conformance.support import Records, restarting, serving
from tests.conftest import descriptors
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("log")]


class Echo(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Answers each request."""

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        request = yield
        await client.send_packet(request)


class Kind:
    """TCP, UDP, or a Unix socket."""

    def __init__(
        self,
        server_class: Any,
        protocol: Any,
        socket_type: socket.SocketKind,
        *,
        is_unix: bool = False,
    ) -> None:
        self.server_class = server_class
        self.protocol = protocol
        self.socket_type = socket_type
        self.is_unix = is_unix

    def new_socket(self, host: str = "127.0.0.1") -> socket.socket:
        return new_bound_socket(self.socket_type, "" if self.is_unix else host)

    def from_sockets(self, *sockets: socket.socket, **options: Any) -> Any:
        return self.server_class.from_sockets(sockets, self.protocol, Echo(), **options)

    @contextlib.contextmanager
    def connected(self, address: Any) -> Iterator[socket.socket]:
        """Connect a client and send its request, whether anything is served or not."""
        with socket.socket(family_of(address), self.socket_type) as client:
            client.settimeout(PATIENCE)
            if self.is_unix:
                client.bind("")
            client.connect(address)
            client.sendall(b"hello\n" if self.socket_type == socket.SOCK_STREAM else b"hello")
            yield client

    async def receive(self, client: socket.socket) -> str:
        """Return the answer."""
        return (await anyio.to_thread.run_sync(client.recv, 100)).decode().strip()

    async def ask(self, address: Any, request: str) -> str:
        """Send a request in a thread, and return the answer."""
        return await anyio.to_thread.run_sync(ask, self.socket_type, address, request)


TCP = Kind(AsyncTCPNetworkServer, StreamProtocol(StringLineSerializer()), socket.SOCK_STREAM)
UDP = Kind(AsyncUDPNetworkServer, DatagramProtocol(StringLineSerializer()), socket.SOCK_DGRAM)


UNIX_STREAM = Kind(AsyncUnixStreamServer, TCP.protocol, socket.SOCK_STREAM, is_unix=True)
UNIX_DATAGRAM = Kind(AsyncUnixDatagramServer, UDP.protocol, socket.SOCK_DGRAM, is_unix=True)


@pytest.fixture(
    params=[TCP, UDP, UNIX_STREAM, UNIX_DATAGRAM],
    ids=["tcp", "udp", "unix-stream", "unix-datagram"],
)
def kind(request: pytest.FixtureRequest) -> Any:
    """Return what is served."""
    return request.param


@pytest.fixture
def supervisor() -> Iterator[ExitStack]:
    """Keeps sockets for as long as the test runs."""
    with ExitStack() as stack:
        yield stack


# -- serving


async def test_serving(kind: Kind) -> None:
    """All sockets are served, of both families; the server tells where it listens."""
    sockets = [kind.new_socket(), kind.new_socket(), kind.new_socket("::1")]
    addresses = [sock.getsockname() for sock in sockets]
    server = kind.from_sockets(*sockets)
    assert isinstance(server, kind.server_class)
    assert not server.is_listening()
    assert server.get_addresses() == ()
    async with serving(server):
        assert server.is_listening()
        assert [raw(address) for address in server.get_addresses()] == addresses
        proxies = server.get_sockets()
        assert [sock.fileno() for sock in proxies] == [sock.fileno() for sock in sockets]
        for address in addresses:
            assert await kind.ask(address, "hello") == "hello"
    assert server.get_addresses() == ()
    assert [sock.fileno() for sock in sockets] == [-1, -1, -1]


async def test_backlog(kind: Kind) -> None:
    """Clients that came before the server are served."""
    sock = kind.new_socket()
    with kind.connected(sock.getsockname()) as client:
        async with serving(kind.from_sockets(sock)):
            assert await kind.receive(client) == "hello"


async def test_serve_again(kind: Kind) -> None:
    """After `shutdown()` the sockets still listen, and the server may serve again."""
    sock = kind.new_socket()
    address = sock.getsockname()
    async with kind.from_sockets(sock) as server:
        for _ in range(3):
            with kind.connected(address) as client:  # nothing serves it yet
                async with restarting(server):
                    assert await kind.receive(client) == "hello"
                    assert await kind.ask(address, "hello again") == "hello again"
            assert [raw(where) for where in server.get_addresses()] == [address]
            assert sock.fileno() >= 0


async def test_options(log: Records) -> None:
    """The options of the constructor are those of the other servers."""
    sock = TCP.new_socket()
    host, port = sock.getsockname()

    def ask_over_tls() -> bytes:
        with (
            socket.create_connection((host, port), PATIENCE) as plain,
            client_context().wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.sendall(b"hello\n")
            return tls.recv(100)

    options = {"ssl": server_context(), "log_client_connection": False}
    async with serving(TCP.from_sockets(sock, **options)):
        assert await anyio.to_thread.run_sync(ask_over_tls) == b"hello\n"
    assert not [line for line in log.messages() if "connection" in line]


async def test_subclass(kind: Kind) -> None:
    """A subclass makes servers of its own class."""
    subclass: Any = type("Subclass", (kind.server_class,), {})
    server = subclass.from_sockets([kind.new_socket()], kind.protocol, Echo())
    assert isinstance(server, subclass)
    await server.server_close()


# -- who owns the sockets


Close = Callable[[Any], Awaitable[object]]


async def close_new(server: Any) -> None:
    await server.server_close()


async def close_activated(server: Any) -> None:
    await server.server_activate()
    await server.server_close()


async def leave_block(server: Any) -> None:
    async with server:
        pass


async def enter_cancelled(server: Any) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with server:
            raise AssertionError("entered")


@pytest.mark.parametrize("close", [close_new, close_activated, leave_block, enter_cancelled])
async def test_closing(kind: Kind, close: Close, supervisor: ExitStack) -> None:
    """However the server is closed, its descriptors are, and no others."""
    kept = supervisor.enter_context(kind.new_socket())
    before = descriptors()
    sockets = [kept.dup(), kind.new_socket()]
    server = kind.from_sockets(*sockets)
    await close(server)
    assert [sock.fileno() for sock in sockets] == [-1, -1]
    assert descriptors() == before
    await server.server_close()
    with pytest.raises(ServerClosedError):
        await server.server_activate()
    # Other processes may have the socket: it still receives.
    address = kept.getsockname()
    with socket.socket(family_of(address), kind.socket_type) as client:
        client.connect(address)
        if kind.socket_type == socket.SOCK_STREAM:
            kept.settimeout(PATIENCE)
            kept.accept()[0].close()


async def test_forgotten(kind: Kind) -> None:
    """A server that is forgotten closes its sockets, with a warning."""
    sock = kind.new_socket()
    server = kind.from_sockets(sock)
    await server.server_activate()
    with pytest.warns(ResourceWarning, match="^unclosed server"):  # noqa: PT031
        del server
        gc.collect()
    assert sock.fileno() == -1


async def test_closed_meanwhile(kind: Kind) -> None:
    """A socket that other code has closed is the error of the activation."""
    sock = kind.new_socket()
    server = kind.from_sockets(sock)
    sock.close()
    with pytest.raises(OSError, match=r"a socket given to from_sockets\(\) has been closed"):
        await server.server_activate()
    assert not server.is_listening()
    await server.server_close()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"reuse_port": True}, TypeError, "does not take 'reuse_port'"),
        ({"reuse_port": False}, TypeError, "does not take 'reuse_port'"),
        ({"backlog": 5}, TypeError, "does not take 'backlog'"),
        ({"host": None}, TypeError, "does not take 'host'"),
        ({"port": 0}, TypeError, "does not take 'port'"),
        ({"unknown": 1}, TypeError, "unknown"),
        ({"protocol": "lines"}, TypeError, "Expected a"),
        ({"request_handler": "echo"}, TypeError, "Expected an"),
        ({"backend": "no such loop"}, NotImplementedError, "no such loop"),
        ({"sockets": []}, ValueError, "Expected at least one socket"),
        ({"sockets": None}, TypeError, "Expected several sockets"),
    ],
    ids=str,
)
async def test_errors(
    kind: Kind, changes: dict[str, Any], error: type[Exception], text: str, supervisor: ExitStack
) -> None:
    """After an error the sockets are the caller's, as they were."""
    sock = supervisor.enter_context(kind.new_socket())
    sock.set_inheritable(True)
    before = descriptors()
    arguments = {"sockets": [sock], "protocol": kind.protocol, "request_handler": Echo()}
    with pytest.raises(error, match=text):
        kind.server_class.from_sockets(**{**arguments, **changes})
    assert descriptors() == before
    assert sock.gettimeout() is None
    assert sock.get_inheritable()
    if kind is TCP:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


async def test_other_kind(kind: Kind, supervisor: ExitStack) -> None:
    """A server of streams refuses datagram sockets, and the other way round."""
    for other in TCP, UDP, UNIX_STREAM, UNIX_DATAGRAM:
        if other is not kind:
            sock = supervisor.enter_context(other.new_socket())
            match = rf"is of type {sock.type.name}, expected SOCK_"
            if other.is_unix != kind.is_unix:
                expected = "AF_UNIX" if kind.is_unix else "AF_INET or AF_INET6"
                match = rf"is of family {sock.family.name}, expected {expected}"
            with pytest.raises(ValueError, match=match):
                kind.from_sockets(sock)


@pytest.mark.parametrize("kind", [UNIX_STREAM, UNIX_DATAGRAM], ids=["stream", "datagram"])
async def test_path_of_a_supervisor(kind: Kind, unix_path: str) -> None:
    """A path that was not bound here is not removed."""
    with new_bound_socket(kind.socket_type, unix_path) as kept:
        for _ in range(2):
            async with serving(kind.from_sockets(kept.dup())) as service:
                assert [raw(where) for where in service.server.get_addresses()] == [unix_path]
                assert await kind.ask(unix_path, "hello") == "hello"
            assert os.path.exists(unix_path)  # noqa: ASYNC240


@pytest.mark.parametrize("kind", [UNIX_STREAM, UNIX_DATAGRAM], ids=["stream", "datagram"])
@pytest.mark.parametrize("option", ["path", "mode", "unlink_stale"])
async def test_options_of_a_path(kind: Kind, option: str, supervisor: ExitStack) -> None:
    sock = supervisor.enter_context(kind.new_socket())
    with pytest.raises(TypeError, match=f"does not take '{option}'"):
        kind.from_sockets(sock, **{option: None})


# -- a new server takes over, while the supervisor keeps the socket


async def restart_under_load(kind: Kind, count: int) -> Load:
    """Replace a server again and again; return what became of the requests meanwhile.

    A TCP server closes its sockets, serves those clients that it has accepted, and ends.
    """
    with kind.new_socket() as kept, Load(kind.socket_type, kept.getsockname()) as load:
        for _ in range(count):
            goal = load.answered + CLIENTS
            is_up = anyio.Event()
            async with anyio.create_task_group() as tasks:
                server = kind.from_sockets(kept.dup())
                tasks.start_soon(functools.partial(server.serve_forever, is_up_event=is_up))
                await is_up.wait()
                while load.answered < goal:
                    await anyio.sleep(0.001)
                if (
                    kind.socket_type == socket.SOCK_DGRAM
                ):  # a handler cannot answer once the socket is closed
                    await server.shutdown()
                await server.server_close()
        async with serving(kind.from_sockets(kept.dup())):  # the last requests are answered, too
            await anyio.to_thread.run_sync(load.stop)
    return load


@pytest.mark.parametrize("kind", [TCP, UNIX_STREAM], ids=["tcp", "unix"])
async def test_restarts_of_streams(kind: Kind) -> None:
    """50 restarts under load: no connection is refused, and each request is answered."""
    load = await restart_under_load(kind, 50)
    assert (load.refused, load.lost) == (0, 0)
    assert load.answered >= 50 * CLIENTS


@pytest.mark.parametrize("kind", [UDP, UNIX_DATAGRAM], ids=["udp", "unix"])
async def test_restarts_of_datagrams(kind: Kind) -> None:
    """50 restarts under load: no datagram finds the socket closed."""
    load = await restart_under_load(kind, 50)
    assert load.refused == 0
    assert load.answered >= 50 * CLIENTS
