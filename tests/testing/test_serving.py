"""Servers and clients on a network in memory, by `serve()`."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from easynetwork.clients import AsyncTCPNetworkClient, AsyncUDPNetworkClient
from easynetwork.exceptions import ClientClosedError, EndOfStreamError
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer
from easynetwork.servers.blocking import BlockingStreamRequestHandler
from easynetwork.servers.handlers import (
    AsyncDatagramRequestHandler,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.testing import Faults, MemoryNetwork, serve
from tests.conftest import descriptors, threads
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

LINES: Any = StreamProtocol(StringLineSerializer(limit=1 << 20))
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


class Echo(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Sends back each packet; "crash" is a bug, "leave" ends the connection."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.server: Any = None

    async def service_init(self, exit_stack: Any, server: Any) -> None:
        self.server = server

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        request = yield
        self.addresses.append(client.extra(INETClientAttribute.remote_address))
        if request == "crash":
            raise ValueError(request)
        if request == "leave":
            await client.aclose()
        else:
            await client.send_packet(request)


async def ask(client: Any, packet: str) -> Any:
    await client.send_packet(packet)
    return await client.recv_packet()


@pytest.mark.parametrize("protocol_class", [StreamProtocol, BufferedStreamProtocol])
async def test_streams(protocol_class: Any) -> None:
    """The server and the clients are the real ones, with addresses of their own."""
    handler = Echo()
    async with serve(handler, protocol_class(StringLineSerializer())) as served:
        assert isinstance(served.server, AsyncTCPNetworkServer)
        assert handler.server == served.server  # a proxy
        clients = [await served.connect() for _ in range(3)]
        for client in clients:
            assert isinstance(client, AsyncTCPNetworkClient)
            assert await ask(client, "hello") == "hello"
            assert tuple(client.get_remote_address()) == served.address
        assert handler.addresses == [client.get_local_address() for client in clients]
        assert len({*handler.addresses, served.address}) == 4
        with pytest.raises(EndOfStreamError):
            await ask(clients[0], "leave")
    assert all(client.is_closing() for client in clients)
    with pytest.raises(ClientClosedError):
        await ask(clients[1], "late")


async def test_datagrams() -> None:
    """The same for datagrams; their length is limited as in UDP."""
    handler = Echo()
    async with serve(handler, DATAGRAMS) as served:
        assert isinstance(served.server, AsyncUDPNetworkServer)
        one, other = await served.connect(), await served.connect()
        assert isinstance(one, AsyncUDPNetworkClient)
        await one.send_packet("one")
        assert await ask(other, "other") == "other"
        assert await one.recv_packet() == "one"
        with pytest.raises(OSError, match="too long"):
            await one.send_packet("x" * 70_000)
        to_one = served.server.client_for(one.get_local_address().for_connection())
        await to_one.send_packet("unasked")
        assert await one.recv_packet() == "unasked"
        statistics = served.server.get_statistics()
        assert statistics.received == 2


async def test_raw() -> None:
    """Bytes as they are, both ways; an end, a half-close, a reset."""
    async with serve(Echo(), LINES) as served:
        raw = await served.connect(raw=True, local_address=("203.0.113.7", 7))
        await raw.send(b"he")
        await raw.send(b"llo\nyou\n")
        received = b""
        while received != b"hello\nyou\n":
            received += await raw.receive()
        raw.send_eof()
        assert await raw.receive() == b""

        with pytest.raises(ValueError, match="max_bytes"):
            await raw.receive(0)

        raw = await served.connect(raw=True)
        await raw.send(b"one\ntwo\n")
        assert await raw.receive(2) == b"on"
        raw.close()
        with pytest.raises(OSError, match="descriptor"):
            await raw.receive()


async def test_raw_datagrams() -> None:
    """Datagrams as they are."""
    async with serve(Echo(), DATAGRAMS) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"hello")
        assert await raw.receive() == b"hello"


async def test_crash(caplog: pytest.LogCaptureFixture) -> None:
    """A crash is logged as always, and the client is cut off."""
    handler = Echo()
    async with serve(handler, LINES) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"crash\n")
        with pytest.raises(ConnectionResetError):
            await raw.receive()
        client = await served.connect()
        assert await ask(client, "still here") == "still here"
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "easynetwork.servers.async_tcp"


async def test_reset_by_the_client() -> None:
    """A client that leaves rudely is noticed."""
    greeted, left = anyio.Event(), anyio.Event()

    class Handler(Echo):
        async def on_connection(self, client: Any) -> None:
            greeted.set()

        async def on_disconnection(self, client: Any) -> None:
            left.set()

    async with serve(Handler(), LINES) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"half of a pac")
        await greeted.wait()  # one that was reset before is not accepted
        raw.reset()
        with anyio.fail_after(PATIENCE):
            await left.wait()


async def test_tls() -> None:
    """TLS, over a connection that cuts and delays."""
    pytest.importorskip("trustme")  # WebAssembly has none
    from tests.tls_peers import client_context, server_context

    network = MemoryNetwork(chunks=range(1, 100), latency=0.001)
    async with serve(Echo(), LINES, network=network, ssl=server_context()) as served:
        client = await served.connect(ssl=client_context(), server_hostname="localhost")
        long = "x" * 10_000
        assert await ask(client, long) == long
        await client.aclose()


async def test_back_pressure() -> None:
    """Who sends faster than the other end reads has to wait."""
    is_sending = anyio.Event()
    sent = 0

    class Flood(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            nonlocal sent
            yield
            is_sending.set()
            while True:
                await client.send_packet("x" * 1023)
                sent += 1

    async with serve(Flood(), LINES) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"go\n")
        await is_sending.wait()
        await anyio.wait_all_tasks_blocked()
        assert 128 <= sent <= 300  # KiB: two buffers, and what waits in the transport
        before = sent
        for _ in range(10):
            await raw.receive()
        await anyio.wait_all_tasks_blocked()
        assert sent > before
        raw.reset()


async def test_nothing_of_the_system() -> None:
    """Serving takes neither a descriptor nor a thread."""
    before = threads() | descriptors()
    async with serve(Echo(), LINES) as served:
        clients = [await served.connect() for _ in range(10)]
        assert [await ask(client, "hello") for client in clients] == ["hello"] * 10
        assert threads() | descriptors() <= before  # a thread of an earlier test may have ended


async def test_blocking_handler() -> None:
    """A blocking handler is served, in its threads."""

    class Handler(BlockingStreamRequestHandler[str, str]):
        def handle(self, client: Any) -> None:
            for packet in client.packets():
                client.send_packet(f"{packet} {threading.current_thread() is main}")

    main = threading.current_thread()
    async with serve(Handler(), LINES) as served:
        assert await ask(await served.connect(), "hello") == "hello False"


async def test_faults_of_one_connection() -> None:
    """A connection has faults of its own, each direction by itself."""
    async with serve(Echo(), LINES) as served:
        cut = await served.connect(to_client=Faults(reset_after=9))
        assert await ask(cut, "hello") == "hello"
        with pytest.raises(ConnectionAbortedError):
            await ask(cut, "hello")
        short = await served.connect(raw=True, to_client=Faults(truncate_after=3))
        await short.send(b"hello\n")
        assert [await short.receive(), await short.receive()] == [b"hel", b""]
        assert await ask(await served.connect(), "hello") == "hello"


async def test_first_end() -> None:
    """Of two ends of a connection, the one after fewer bytes comes."""
    async with serve(Echo(), LINES) as served:
        for reset_after, truncate_after in (1, 2), (2, 1), (2, 2):
            faults = Faults(reset_after=reset_after, truncate_after=truncate_after)
            raw = await served.connect(raw=True, to_client=faults)
            await raw.send(b"hello\n")
            received = await raw.receive()
            assert received == b"h" * (min(reset_after, truncate_after) == 1) or received == b"he"
            if reset_after < truncate_after:
                with pytest.raises(ConnectionResetError):
                    await raw.receive()
            else:
                assert await raw.receive() == b""


async def test_datagrams_of_many_clients() -> None:
    """What becomes of responses does not depend on which client was served first."""

    async def received_by(order: list[int]) -> dict[int, list[str]]:
        network = MemoryNetwork(seed=3, loss=0.5)
        async with serve(Echo(), DATAGRAMS, network=network) as served:
            clients = [await served.connect(to_server=Faults()) for _ in order]
            for number in range(20):
                for index in order:
                    await clients[index].send_packet(f"{number}")
            await anyio.wait_all_tasks_blocked()
            return {
                index: [packet async for packet in clients[index].iter_received_packets(timeout=0)]
                for index in order
            }

    received = await received_by([0, 1, 2])
    assert received == await received_by([2, 0, 1])
    assert 5 < len(received[0]) < 15


async def test_same_network() -> None:
    """Two servers on one network do not meet, and a server that is closed refuses."""
    network = MemoryNetwork(seed=5)
    async with serve(Echo(), LINES, network=network) as one:
        async with serve(Echo(), LINES, network=network) as other:
            assert one.address != other.address
            assert one.network is network
            await ask(await one.connect(), "hello")
        with pytest.raises(ConnectionRefusedError):
            await other.connect()
        await one.server.server_close()
    assert repr(network) == "MemoryNetwork(seed=5)"


async def test_failing_test() -> None:
    """What a test raises arrives as it is, and everything is shut down before.

    A note shows the network, by which the failure can be reproduced.
    """
    network = MemoryNetwork(seed=5, chunks=1)
    for error in AssertionError("no"), KeyError("no"):
        with pytest.raises(type(error)) as caught:
            async with serve(Echo(), LINES, network=network) as served:
                client = await served.connect()
                raise error
        assert caught.value is error
        assert error.__notes__ == ["The network: MemoryNetwork(seed=5, chunks=1)"]
        assert client.is_closing()
        assert not served.server.is_serving()


async def test_failing_service_init() -> None:
    """So does what `service_init()` raises."""

    class Handler(Echo):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            raise OSError("no database")

    with pytest.raises(OSError, match="no database"):
        async with serve(Handler(), LINES):
            pytest.fail("nothing is served")


async def test_cancellation() -> None:
    """A test that is cancelled ends in order."""
    with anyio.CancelScope() as scope:
        async with serve(Echo(), LINES) as served:
            await served.connect()
            scope.cancel()
            await anyio.sleep_forever()
    assert not served.server.is_serving()


async def test_handler_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a handler leaves unread keeps nobody for long at the end."""
    monkeypatch.setattr("easynetwork.testing._serving._CLOSE_TIMEOUT", 0.1)

    class Handler(Echo):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            await anyio.sleep_forever()
            yield

    async with serve(Handler(), LINES) as served:
        client = await served.connect()
        with anyio.move_on_after(0.05):
            await client.send_packet("x" * 200_000)
        start = anyio.current_time()
    assert anyio.current_time() - start < 10


@pytest.mark.parametrize("options", [{"host": "::1"}, {"backlog": 0}, {"colour": "red"}], ids=str)
async def test_options(options: dict[str, Any]) -> None:
    """Options are those of the server, and checked by it."""
    with pytest.raises((TypeError, ValueError)):
        async with serve(Echo(), LINES, **options):
            pytest.fail("nothing is served")


async def test_rate(anyio_backend_name: str) -> None:
    """A conversation takes less than a millisecond: server, connection, request, response, end.

    (Ten times that is allowed, for machines that are busy. Measured: 0.2 ms.)
    """
    protocol: Any = StreamProtocol(JSONSerializer())
    count = 50
    began = time.process_time()
    async with serve(Echo(), protocol, log_client_connection=False) as served:
        for number in range(count):
            async with contextlib.aclosing(await served.connect()) as client:
                assert await ask(client, f"{number}") == f"{number}"
    assert (time.process_time() - began) / count < 0.01
