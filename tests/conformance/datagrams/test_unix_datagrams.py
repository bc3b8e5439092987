"""What only servers for Unix datagrams have: names, slow peers, ancillary data."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.addresses import SocketAncillary, SocketAttribute, UnixSocketAddress
from easynetwork.exceptions import (
    ClientClosedError,
    TypedAttributeLookupError,
    UnsupportedOperation,
)
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    RecvAncillaryDataParams,
    RecvParams,
    UNIXClientAttribute,
)
from easynetwork.servers.standalone_unix_datagram import StandaloneUnixDatagramServer
from tests.conformance.datagrams.support import Recorder, Serve, serving
from tests.conformance.support import Records
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio

Requests = AsyncGenerator[Any, str]
Client = AsyncDatagramClient[str]
TEXT: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())


def new(path: Any, handler: Any = None, **options: Any) -> Any:
    return AsyncUnixDatagramServer(path, TEXT, handler or Recorder(), **options)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def unnamed(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock


class Receiver(Recorder):
    """Answers how many descriptors came with a datagram; closes them."""

    async def handle(self, client: Client) -> Requests:
        self.clients.append(client)
        ancillary = SocketAncillary()
        asking = RecvParams(recv_with_ancillary=RecvAncillaryDataParams(ancillary.update_from_raw))
        while True:
            try:
                request = yield asking
            except (OSError, RuntimeError) as exc:
                await client.send_packet(f"{type(exc).__name__}: {exc}")
                if isinstance(exc, UnsupportedOperation):
                    asking = RecvParams()
                continue
            fds = list(ancillary.iter_fds())
            ancillary.clear()
            self.note(f"{request[:10]} {len(fds)} {[os.get_inheritable(fd) for fd in fds][:1]}")
            for fd in fds:
                os.close(fd)
            await client.send_packet(f"{request} {len(fds)}")


# -- names


async def test_path(unix_path: str, log: Records) -> None:
    """The path is there while the server is, and peers are known by their names."""
    handler = Recorder()
    async with serving(new(unix_path, handler, mode=0o600)) as service:
        assert service.server.get_addresses() == (UnixSocketAddress.from_pathname(unix_path),)
        peer = service.connect()
        assert await peer.ask("hello") == "hello"
        assert await service.connect().ask("hello") == "hello"
        client, other = handler.clients
        name = UnixSocketAddress.from_raw(peer.address)
        assert client.extra(UNIXClientAttribute.peer_name) == name
        assert client.extra(SocketAttribute.peername) == name
        assert str(client.extra(UNIXClientAttribute.local_name)) == unix_path
        assert client.extra(SocketAttribute.family) == socket.AF_UNIX
        with pytest.raises(TypedAttributeLookupError):
            client.extra(UNIXClientAttribute.peer_credentials)
        assert repr(client).startswith(f"<client with address {name} at")
        assert client != other
        assert await peer.ask("again") == "again"
        assert handler.clients[2] == client
        assert hash(handler.clients[2]) == hash(client)
    assert not os.path.exists(unix_path)  # noqa: ASYNC240


def test_standalone(unix_path: str) -> None:
    """A standalone server makes the path in each run, and removes it at its end."""
    server = StandaloneUnixDatagramServer(
        unix_path, TEXT, Recorder(), unnamed_addresses_behavior="warn"
    )
    for _ in range(2):
        is_up = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"is_up_event": is_up})
        thread.start()
        assert is_up.wait(PATIENCE)
        with unnamed(unix_path) as sock:
            sock.bind("")
            sock.send(b"hello")
            assert sock.recv(100) == b"hello"
        assert server.get_statistics().received == 1
        server.shutdown()
        thread.join()
        assert not os.path.exists(unix_path)
    server.server_close()


async def test_ignored(unix_path: str, log: Records) -> None:
    """Datagrams of unnamed peers are dropped and counted; the log says nothing."""
    async with serving(new(unix_path)) as service:
        with unnamed(unix_path) as sock:
            for _ in range(5):
                sock.send(b"hello")
        statistics = await service.statistics(received=5, dropped_by_name=5)
        assert statistics.dropped == 5
        assert await service.connect().ask("hello") == "hello"


async def test_warned_of(unix_path: str, log: Records) -> None:
    """The log gets a WARNING, and not one for each datagram of a flood."""
    async with serving(new(unix_path, unnamed_addresses_behavior="warn")) as service:
        with unnamed(unix_path) as sock:

            def flood() -> None:
                for _ in range(500):
                    sock.send(b"hello")

            await anyio.to_thread.run_sync(flood)
        await service.statistics(dropped_by_name=500)
    problems = log.problems()
    text = "A datagram received from an unbound UNIX datagram socket has been dropped."
    assert problems[0] == ("WARNING", text, None)
    assert len(problems) < 20


async def test_handled(unix_path: str) -> None:
    """Each is handled on its own: peers without a name do not wait for each other."""
    errors: list[OSError] = []

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            assert client.extra(UNIXClientAttribute.peer_name).is_unnamed()
            self.clients.append(client)
            self.note(request)
            if request == "wait":
                await self.released.wait()
            try:
                await client.send_packet(request)
            except OSError as exc:
                errors.append(exc)
            self.note("tried")

    handler = Handler()
    async with serving(new(unix_path, handler, unnamed_addresses_behavior="handle")) as service:
        with unnamed(unix_path) as one, unnamed(unix_path) as other:

            def send() -> None:
                for _ in range(100):
                    one.send(b"wait")
                other.send(b"hello")

            await anyio.to_thread.run_sync(send)
            await handler.noted("tried")
            await service.statistics(peers=100)
        handler.released.set()
        await handler.noted("tried", times=101)
        assert {exc.errno for exc in errors} == {errno.EINVAL}
        assert str(errors[0]).endswith("Cannot send a datagram to an unnamed address.")
        assert len(set(handler.clients)) == 101


# -- peers


@pytest.mark.in_turn
async def test_slow_peer(unix_path: str) -> None:
    """A peer that does not read has the handler wait, without spinning, until it does."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            for number in range(3_000 if request == "many" else 1):
                await client.send_packet(f"{request} {number}")
            self.note(request)

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        slow = service.connect()
        slow.send("many")
        before = os.times()
        await anyio.sleep(10 * SOON)
        after = os.times()
        used = after.user + after.system - before.user - before.system
        assert used < 5 * SOON
        assert handler.notes.count("many") == 0
        assert [await slow.receive() for _ in range(3_000)] == [f"many {n}" for n in range(3_000)]
        await handler.noted("many")


@pytest.mark.parametrize("end", ["deadline", "shutdown"])
async def test_peer_that_never_reads(
    unix_path: str, monkeypatch: pytest.MonkeyPatch, log: Records, end: str
) -> None:
    """It costs the handler a limited time, and nothing when the server stops."""
    monkeypatch.setattr("easynetwork.servers._datagram.client.CLOSE_TIMEOUT", 2 * SOON)

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("begin")
            with self.noting_errors():
                while True:
                    await client.send_packet("x")

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        peer = service.connect()
        peer.send("go")
        await handler.noted("begin")
        if end == "deadline":
            await handler.noted("TimeoutError")
        else:
            with anyio.fail_after(1):
                await service.server.shutdown()
    if end == "deadline":
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert "peers do not read what was sent before" in str(exc)


async def test_peer_that_has_left(unix_path: str, log: Records) -> None:
    """Sending to it is an error that names it; the server goes on."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            self.note(request)
            if request == "leave":
                await self.released.wait()
                with pytest.raises(
                    OSError, match=r"Cannot send a datagram to @\w+: Connection refused"
                ):
                    await client.send_packet(request)
                await client.send_packet("raises it again, and nothing is logged")
            else:
                await client.send_packet(request)

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        peer = service.connect()
        peer.send("leave")
        await handler.noted("leave")
        peer.close()
        handler.released.set()
        assert await service.connect().ask("hello") == "hello"


@pytest.mark.parametrize("size", [0, 1, 65_536, 200_000])
async def test_size(unix_path: str, size: int) -> None:
    """Datagrams are as long as the system lets them be, and arrive whole."""
    handler = Receiver()
    async with serving(new(unix_path, handler)) as service:
        peer = service.connect()
        peer.send("x")
        await peer.receive()
        await peer.receive()

        def ask() -> str:
            peer.socket.send(b"x" * size)
            return str(peer.socket.recv(1 << 20), "utf-8")

        assert await anyio.to_thread.run_sync(ask) == "x" * size + " 0"


async def test_longer_than_the_buffer(
    unix_path: str, log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped, counted and logged, never cut."""
    monkeypatch.setattr("easynetwork.backends.datagram_endpoint.largest_datagram", lambda _: 1000)
    for options in {}, {"receive_ancillary_data": True}:
        async with serving(new(unix_path, **options)) as service:
            peer = service.connect()
            before = open_descriptors()
            socket.send_fds(peer.socket, [b"x" * 1001], [0])
            assert await peer.ask("hello") == "hello"
            await service.statistics(received=2, dropped_by_length=1)
            assert open_descriptors() == before
        [(level, message, _)] = log.problems()
        assert level == "WARNING"
        assert "datagram of 1001 bytes does not fit into 1000 bytes" in message


# -- ancillary data


async def test_descriptors(unix_path: str) -> None:
    """A handler that asks gets them, at the first yield and at later ones."""
    handler = Receiver()
    async with serving(new(unix_path, handler, receive_ancillary_data=True)) as service:
        peer = service.connect()
        before = open_descriptors()
        for count in 0, 1, 253, 2:
            socket.send_fds(peer.socket, [b"hello"], [0] * count)
            assert await peer.receive() == f"hello {count}"
        assert open_descriptors() == before
        assert "hello 2 [False]" in handler.notes


async def test_not_configured(serve: Serve, host: str) -> None:
    """A server that has none says so, UDP's like others; the datagram is not lost."""
    handler = Receiver()
    async with serve(handler) as service:
        peer = service.connect()
        assert await peer.ask("hello") == (
            "UnsupportedOperation: The server is not configured to handle ancillary data."
        )
        assert await peer.receive() == "hello 0"
        if host != "unix":
            with pytest.raises(UnsupportedOperation, match="does not have ancillary data support"):
                await handler.clients[0].send_packet_with_ancillary("x", [])


@pytest.mark.parametrize("end", ["plain", "refused", "crash", "never", "dropped", "stop"])
async def test_flood(unix_path: str, log: Records, end: str) -> None:
    """200 datagrams with 253 descriptors each: the process keeps its descriptors."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            if end == "refused":
                return
            request = yield
            if end == "crash":
                raise LookupError
            if end in ("never", "stop", "dropped"):
                await self.released.wait()
            assert request == "hello"

    handler = Handler()
    count = 200  # three whose descriptors stayed open would be too many
    server = new(unix_path, handler, receive_ancillary_data=True)
    async with serving(server) as service:
        peer = service.connect()
        before = open_descriptors()
        most = 0

        def flood() -> None:
            nonlocal most
            for _ in range(count):
                socket.send_fds(peer.socket, [b"hello"], [0] * 253)
                most = max(most, open_descriptors())

        await anyio.to_thread.run_sync(flood)
        await service.statistics(received=count)
        assert most <= before + 2 * 256
        if end == "stop":
            await service.server.shutdown()
        else:
            handler.released.set()
            await service.statistics(peers=0, waiting=0)
        assert open_descriptors() <= before
    log.problems()


async def test_too_many_wait(unix_path: str) -> None:
    """Descriptors that come while others wait are closed, and the handler is told so."""

    class Handler(Receiver):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("first")
            await self.released.wait()
            generator = super().handle(client)
            asking = await anext(generator)
            while True:
                try:
                    request = yield asking
                except OSError as exc:
                    asking = await generator.athrow(exc)
                else:
                    asking = await generator.asend(request)

    handler = Handler()
    async with serving(new(unix_path, handler, receive_ancillary_data=True)) as service:
        peer = service.connect()
        peer.send("first")
        await handler.noted("first")
        for _ in range(3):
            socket.send_fds(peer.socket, [b"hello"], [0] * 200)
        await service.statistics(received=4)
        handler.released.set()
        assert await peer.receive() == "hello 200"
        error = "OSError: [Errno 90] descriptors were closed: 200 of earlier datagrams are waiting"
        assert [await peer.receive() for _ in range(4)] == [error, "hello 0"] * 2


async def test_cut_off(unix_path: str) -> None:
    """Too many descriptors for the buffer are an error that says so; the datagram is kept."""
    options = {"receive_ancillary_data": True, "ancillary_bufsize": socket.CMSG_SPACE(8)}
    async with serving(new(unix_path, Receiver(), **options)) as service:
        peer = service.connect()
        before = open_descriptors()
        socket.send_fds(peer.socket, [b"hello"], [0] * 20)
        assert (await peer.receive()).startswith("OSError: [Errno 90] ancillary data was cut off:")
        assert await peer.receive() == "hello 0"
        assert open_descriptors() == before


async def test_sending(unix_path: str) -> None:
    """Descriptors can be sent, to a peer that has a name."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.clients.append(client)
            request = yield
            ancillary = SocketAncillary()
            ancillary.add_fds([0, 0] if request == "hello" else [987])
            try:
                await client.send_packet_with_ancillary(request, ancillary.as_raw())
            except OSError as exc:
                await client.send_packet(str(exc.errno))

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        peer = service.connect()
        peer.send("hello")
        data, fds, _, _ = await anyio.to_thread.run_sync(socket.recv_fds, peer.socket, 100, 10)
        for fd in fds:
            os.close(fd)
        assert (data, len(fds)) == (b"hello", 2)
        assert await peer.ask("closed") == str(errno.EBADF)
    with pytest.raises(ClientClosedError):
        await handler.clients[0].send_packet_with_ancillary("late", [])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"path": 5}, TypeError, "Expected a str object or an os.PathLike object, got 5"),
        ({"mode": 0o600, "path": ""}, ValueError, "mode is only meaningful with a path"),
        (
            {"unnamed_addresses_behavior": "drop"},
            ValueError,
            "Invalid unnamed_addresses_behavior value, got 'drop'",
        ),
        (
            {"ancillary_bufsize": 5},
            ValueError,
            "ancillary_bufsize is only meaningful with receive_ancillary_data set to True",
        ),
        (
            {"receive_ancillary_data": True, "ancillary_bufsize": 0},
            ValueError,
            "ancillary_bufsize must be a strictly positive integer",
        ),
        ({"protocol": None}, TypeError, "Expected a DatagramProtocol object, got None"),
        ({"request_handler": None}, TypeError, "Expected an AsyncDatagramRequestHandler object"),
    ],
)
@pytest.mark.parametrize("server_class", [AsyncUnixDatagramServer, StandaloneUnixDatagramServer])
def test_arguments(server_class: Any, changes: Any, error: Any, message: str) -> None:
    """Every argument is checked at construction."""
    arguments = {"path": "/x", "protocol": TEXT, "request_handler": Recorder(), "backend": "trio"}
    with pytest.raises(error, match=f"^{message}"):
        server_class(**arguments | changes)
