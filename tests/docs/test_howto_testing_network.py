"""Test what the page about tests says of the network in memory, and of its differences to sockets.

The rest of the page is in `test_howto_testing`, which explains the quotations.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
import struct
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.testing import Faults, MemoryNetwork, converse, serve, virtual_time
from tests.docs.howto_support import check_quotations

pytestmark = pytest.mark.anyio

LINES: Any = StreamProtocol(StringLineSerializer(limit=1 << 20))
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/testing.rst", globals())


class Echo(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


# Servers and clients


async def test_ends() -> None:
    """Closing is graceful, or not.

    "close() disconnects gracefully."

    "Like a kernel, it resets the connection if there are bytes that were not received."

    "At the end of the block, the clients are closed and the server is shut down."
    """
    ends: list[str] = []

    class Handler(Echo):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            try:
                await client.send_packet((yield))
            except ConnectionError:
                ends.append("reset")
                raise

        async def on_disconnection(self, client: Any) -> None:
            ends.append("end")

    async with serve(Handler(), LINES) as served:
        for receives in True, False:
            raw = await served.connect(raw=True)
            await raw.send(b"one\n")
            if receives:
                assert await raw.receive() == b"one\n"
            await anyio.wait_all_tasks_blocked()
            raw.close()
            await anyio.wait_all_tasks_blocked()
        client = await served.connect()
    assert client.is_closing()
    assert not served.server.is_serving()
    assert ends.count("end") == 3


async def test_datagram_server() -> None:
    """The protocol object decides what is served.

    "With a DatagramProtocol, the server is an AsyncUDPNetworkServer."
    """
    async with serve(Echo(), DATAGRAMS) as served:
        assert "UDP" in type(served.server).__mro__[1].__name__
        client = await served.connect()
        await client.send_packet("one")
        assert await client.recv_packet() == "one"


# Faults


@pytest.mark.parametrize(
    ("chunks", "sizes"), [(1, {1}), (range(1, 4), {1, 2, 3}), ([1, 2], {1, 2, 17})]
)
async def test_chunks(chunks: Any, sizes: set[int]) -> None:
    """Chunks have the sizes that the argument says.

    "chunks is the largest number of bytes that arrive at a time."

    "With a range, as above, each chunk has a random size. A list of numbers gives the sizes of the
    first chunks."
    """
    async with serve(Echo(), LINES) as served:
        raw = await served.connect(raw=True, to_client=Faults(chunks=chunks))
        await raw.send(b"x" * 19 + b"\n")
        received: list[bytes] = []
        while sum(map(len, received)) < 20:
            received.append(await raw.receive())
        assert {len(chunk) for chunk in received} <= sizes
        if isinstance(chunks, list):
            assert [len(chunk) for chunk in received] == [*chunks, 17]


def test_same_seed() -> None:
    """The seed decides.

    "A test with the same seed gets the same faults."
    """

    async def arrivals(seed: int) -> list[float]:
        network = MemoryNetwork(seed=seed, latency=(0.0, 10.0))
        async with converse(Echo(), LINES, network=network) as conversation:
            times = []
            for number in range(10):
                await conversation.send(f"{number}")
                await conversation.expect(f"{number}", timeout=60)
                times.append(anyio.current_time())
        return times

    one, again, other = (
        anyio.run(arrivals, seed, backend_options=virtual_time()) for seed in (1, 1, 2)
    )
    assert one == again != other


def test_order() -> None:
    """Latency keeps the order of bytes, and a datagram that is overtaken arrives at last.

    "The bytes of a connection stay in order."

    "A datagram that is reordered is overtaken by the next one of the same sender, or arrives a
    tenth of a second late if there is none."
    """

    async def main() -> None:
        network = MemoryNetwork(latency=(0.0, 10.0))
        async with converse(Echo(), LINES, network=network) as conversation:
            numbers = [f"{number}" for number in range(10)]
            await conversation.send(*numbers)
            await conversation.expect(*numbers, timeout=60)
        async with serve(Echo(), DATAGRAMS) as served:
            client = await served.connect(to_server=Faults(reorder=1.0))
            start = anyio.current_time()
            await client.send_packet("one")
            assert await client.recv_packet() == "one"
            assert anyio.current_time() - start == pytest.approx(0.1)

    anyio.run(main, backend_options=virtual_time())


# What is different from real sockets


async def test_like_loopback() -> None:
    """Some things are the same.

    "its buffers are limited, so a sender has to wait for a slow receiver; what has arrived can be
    received before the error of a reset; a datagram of more than 65,507 bytes is refused."
    """

    class Silent(Echo):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            await anyio.sleep_forever()
            yield

    async with serve(Echo(), DATAGRAMS) as datagrams:
        client = await datagrams.connect(raw=True)
        await client.send(b"x" * 65_507)
        with pytest.raises(OSError, match="too long"):
            await client.send(b"x" * 65_508)
    async with serve(Echo(), LINES) as served:
        raw = await served.connect(raw=True, to_client=Faults(reset_after=3))
        await raw.send(b"hello\n")
        await anyio.wait_all_tasks_blocked()
        assert await raw.receive() == b"hel"
        with pytest.raises(ConnectionResetError):
            await raw.receive()
    async with serve(Silent(), LINES) as served:
        raw = await served.connect(raw=True)
        with anyio.move_on_after(0.05) as scope:
            await raw.send(b"x" * 1_000_000)
        assert scope.cancelled_caught


async def test_addresses() -> None:
    """Addresses are made up, and nobody waits for a connection.

    "The addresses are made up: IPv4 addresses that are reserved for documentation."

    "Connecting succeeds at once, or raises ConnectionRefusedError if the server is closed."

    "The network belongs to one event loop. Other threads and processes cannot connect to it."
    """
    async with serve(Echo(), LINES) as served:
        client = await served.connect()
        hosts = [served.address[0], client.get_local_address().host]
        assert hosts == ["192.0.2.1", "198.51.100.1"]
        with socket.socket() as sock:
            sock.settimeout(0.05)
            with pytest.raises(OSError):  # noqa: PT011 - whatever this machine's network says
                sock.connect(served.address)
        await served.server.server_close()
        with pytest.raises(ConnectionRefusedError):
            await served.connect()


async def test_options() -> None:
    """Options are noted; three of them have an effect.

    "backlog and reuse_port have no effect. Neither have socket options, except SO_SNDBUF, SO_RCVBUF
    and SO_LINGER of a connection."

    "fileno() returns a number that is not a descriptor."
    """
    async with serve(Echo(), LINES, backlog=1, reuse_port=True) as served:
        clients = [await served.connect() for _ in range(50)]
        sock = clients[0].socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        with pytest.raises(OSError, match="[Bb]ad file descriptor"):
            os.fstat(sock.fileno())


@pytest.mark.parametrize("size", [1_000, 10_000])
async def test_buffers(size: int) -> None:
    """The sizes of the buffers have an effect, and lingering for 0 seconds.

    "Neither have socket options, except SO_SNDBUF, SO_RCVBUF and SO_LINGER of a connection."
    """
    async with serve(Echo(), LINES) as served:
        raw = await served.connect(raw=True)
        raw._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        raw._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert raw._socket.send(b"\n" * 1_000_000) == size + 65_536
        server_end = raw._socket._outgoing.reader
        raw.close()
        assert server_end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def test_silence() -> None:
    """A connection can be silent for a year.

    "Nothing ends a silent connection: there is no keep-alive, and no other timeout of the kernel."
    """

    async def main() -> None:
        async with converse(Echo(), LINES) as conversation:
            await anyio.sleep(366 * 24 * 3600)
            await conversation.send("still here")
            await conversation.expect("still here")

    anyio.run(main, backend_options=virtual_time())


async def test_queue_of_datagrams() -> None:
    """The queue is bounded by number.

    "A datagram socket holds 256 datagrams, whatever their size."

    "More are lost."
    """
    async with serve(Echo(), DATAGRAMS) as served:
        for size in 1, 1000:
            client = await served.connect(raw=True)
            to_client = served.server.client_for(client.address)
            for _ in range(300):
                await to_client.send_packet("x" * size)
            await anyio.wait_all_tasks_blocked()
            received = 0
            with anyio.move_on_after(0.05):
                while await client.receive():
                    received += 1
            assert received == 256


def test_uvloop() -> None:
    """The network does not need a certain loop.

    "On uvloop, the network works, but time is real."
    """
    pytest.importorskip("uvloop")

    async def main() -> None:
        assert "uvloop" in type(importlib.import_module("asyncio").get_running_loop()).__module__
        async with converse(Echo(), LINES) as conversation:
            await conversation.send("hello")
            await conversation.expect("hello")

    anyio.run(main, backend_options={"use_uvloop": True})


async def test_truncated() -> None:
    """A stream that is truncated ends as if it was closed.

    "With truncate_after, the stream ends there, as if the server had closed the connection"
    """
    async with serve(Echo(), LINES) as served:
        client: AsyncTCPNetworkClient[str, str] = await served.connect(
            to_client=Faults(truncate_after=3)
        )
        await client.send_packet("hello")
        with pytest.raises(EndOfStreamError):
            await client.recv_packet()
