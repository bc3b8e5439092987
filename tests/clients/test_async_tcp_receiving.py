"""How the asynchronous TCP client receives packets, one at a time and as an iterator."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import (
    ClientClosedError,
    EndOfStreamError,
    LimitOverrunError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.framing.framers import MAX_BATCH
from easynetwork.serializers.line import StringLineSerializer
from tests.clients.async_tcp_support import (
    LINES,
    Accepted,
    Client,
    Outcomes,
    address_of,
    connected,
    deliver,
    each_protocol,
    hand_over,
    listening,
    outcome,
    until,
)
from tests.conftest import ALL_TESTS, BACKENDS
from tests.times import PATIENCE, SOON, STUCK

pytestmark = pytest.mark.anyio

ENDS: dict[str, Callable[[Accepted], None]] = {
    "EOF": lambda peer: peer.send_eof(),
    "close": lambda peer: peer.close(),
    "reset": lambda peer: peer.reset(),
}
each_end = pytest.mark.parametrize("end", ENDS)


class Picky(AbstractPacketConverter[str, str]):
    """Does not like every packet."""

    def create_from_dto_packet(self, packet: str, /) -> str:
        if packet == "crash":
            raise ZeroDivisionError
        if packet == "odd":
            raise PacketConversionError("I do not like it")
        return packet

    def convert_to_dto_packet(self, obj: str, /) -> str:
        return obj


@pytest.fixture(params=[StreamProtocol, BufferedStreamProtocol], ids=["chunks", "buffer"])
def lines(request: pytest.FixtureRequest) -> Any:
    """Return a protocol object for lines of text, of at most 500,000 bytes."""
    return request.param(StringLineSerializer(limit=500_000), Picky())


async def packets(iterator: AsyncIterator[str]) -> list[str]:
    """Return all packets of an iterator, which is over then."""
    received = [packet async for packet in iterator]
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)
    return received


# -- Packets -----------------------------------------------------------------------------------


async def test_packets(lines: Any) -> None:
    """Packets come one by one, however the peer has cut them."""
    received: list[str] = []

    async def receive() -> None:
        while len(received) < 6:
            received.append(await client.recv_packet())

    async with connected(lines) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        for piece in (b"a\nb\nc", b"d\ne", b"\n\n", b"f", b"\n"):
            await hand_over(piece, peer, client)
    assert received == ["a", "b", "cd", "e", "", "f"]


@pytest.mark.parametrize("max_recv_size", [None, 1, 1000])
async def test_size_of_chunks(lines: Any, max_recv_size: int | None) -> None:
    """Packets may be larger than what is taken from the connection at a time."""
    size = 1_000 if max_recv_size == 1 else 300_000
    async with connected(lines, max_recv_size=max_recv_size) as (client, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.send_much, b"x" * size + b"\ny\n")
            assert await client.recv_packet() == "x" * size
            assert await client.recv_packet() == "y"


@pytest.mark.parametrize("max_recv_size", [None, 1000])
async def test_size_of_buffer(max_recv_size: int | None) -> None:
    """A protocol object that has a buffer is told how much may arrive at a time."""
    sizes: list[int] = []

    class Curious(BufferedStreamProtocol[str, str, bytearray]):
        __slots__ = ()

        def create_buffer(self, sizehint: int) -> bytearray:
            sizes.append(sizehint)
            return super().create_buffer(sizehint)

    protocol = Curious(StringLineSerializer())
    async with connected(protocol, max_recv_size=max_recv_size) as (client, peer):
        peer.send("packet")
        assert await client.recv_packet() == "packet"
    assert set(sizes) == {max_recv_size or 64 * 1024}


async def test_wait(lines: Any) -> None:
    """Whoever asks before anything has arrived waits for it."""
    outcomes = Outcomes()
    async with connected(lines) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(outcomes.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        peer.send_bytes(b"pac")
        await anyio.wait_all_tasks_blocked()
        assert outcomes.all == []
        peer.send_bytes(b"ket\n")
    assert outcomes.all == ["packet"]


async def test_cancellation_loses_nothing(lines: Any) -> None:
    """What has arrived of a packet when receiving is cancelled is a part of the next packet."""
    async with connected(lines) as (client, peer):
        for number in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.recv_packet)
                await hand_over(b"part %d, " % number, peer, client)
                tasks.cancel_scope.cancel()
        peer.send("end", "next")
        assert await client.recv_packet() == "part 0, part 1, part 2, end"
        assert await client.recv_packet() == "next"


async def test_cancellation_after_the_fact(lines: Any) -> None:
    """A cancelled task takes no packet that others could have had."""
    outcomes = Outcomes()
    async with connected(lines) as (client, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, client.recv_packet)
            await anyio.wait_all_tasks_blocked()
            deliver(b"packet\n", peer, client)
            tasks.cancel_scope.cancel()
        received = outcomes.all or [await client.recv_packet()]
        assert received == ["packet"]


async def test_others_run_meanwhile(lines: Any) -> None:
    """A peer who has a lot to say does not keep other tasks from running."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with connected(lines, max_recv_size=1 << 20) as (client, peer):
        deliver(b"\n" * (20 * MAX_BATCH), peer, client)
        assert await client.recv_packet() == ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            for _ in range(20 * MAX_BATCH - 1):
                assert await client.recv_packet() == ""
            tasks.cancel_scope.cancel()
    assert turns >= 10


# -- Several tasks -----------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[b"a\nb\nc\n"], [b"a\n", b"b\n", b"c\n"], [b"a", b"\nb\nc\n"]])
async def test_packets_go_to_who_asked_first(pieces: list[bytes]) -> None:
    """Several tasks get one packet each, in the order in which they asked."""
    asked: list[int] = []
    received: dict[int, str] = {}

    async def receive(task: int) -> None:
        asked.append(task)
        received[task] = await client.recv_packet()

    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        for task in range(3):
            tasks.start_soon(receive, task)
        await anyio.wait_all_tasks_blocked()
        for piece in pieces:
            await hand_over(piece, peer, client)
    assert [received[task] for task in asked] == ["a", "b", "c"]


@each_end
async def test_the_end_for_all(end: str) -> None:
    """When the connection ends, everybody who waits is told."""
    outcomes = Outcomes()
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(outcomes.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        ENDS[end](peer)
    expected = ConnectionAbortedError if end == "reset" else EndOfStreamError
    assert outcomes.types() == [expected] * 3


async def test_close_while_receiving(lines: Any) -> None:
    """When another task closes the client, everybody who waits is told."""
    outcomes = Outcomes()
    async with connected(lines) as (client, peer), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(outcomes.of, client.recv_packet)
        await hand_over(b"half a pack", peer, client)
        peer.send_eof()  # or the close would wait a second for that
        await client.aclose()
    assert outcomes.types() == [ClientClosedError] * 3
    assert {str(error) for error in outcomes.all} == {"Client is closing, or is already closed"}


async def test_slow_receiver() -> None:
    """A peer that sends more than anybody asks for is slowed down, and loses nothing."""
    line, count = b"x" * 999 + b"\n", 5_000
    with anyio.fail_after(PATIENCE), listening() as listener, contextlib.ExitStack() as stack:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(listener.getsockname())
        async with AsyncTCPNetworkClient(sock, LINES) as client:
            peer = stack.enter_context(contextlib.closing(Accepted(listener)))
            peer.socket.setblocking(False)
            sent = 0
            with pytest.raises(BlockingIOError):
                # The kernel and the client have a turn whenever the peer has to wait.
                while sent < len(line) * count:
                    try:
                        sent += peer.socket.send((line * 10)[sent % len(line) :])
                    except BlockingIOError:
                        with anyio.move_on_after(0.1) as waiting:
                            await anyio.wait_writable(peer.socket)
                        if waiting.cancelled_caught:
                            raise
            assert sent < 1_000_000
            peer.socket.settimeout(PATIENCE)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peer.send_much, (line * count)[sent:])
                for _ in range(count):
                    assert len(await client.recv_packet()) == 999


# -- The end -----------------------------------------------------------------------------------


@each_end
async def test_the_end(lines: Any, end: str) -> None:
    """A connection that ended is a `ConnectionAbortedError`, each time; the client stays open."""
    async with connected(lines) as (client, peer):
        ENDS[end](peer)
        for _ in range(3):
            with pytest.raises(ConnectionAbortedError) as caught:
                await client.recv_packet()
            assert caught.value.errno == errno.ECONNABORTED
            kind = ConnectionAbortedError if end == "reset" else EndOfStreamError
            assert type(caught.value) is kind
            assert ("(end-of-stream)" in str(caught.value)) is (end != "reset")
            cause = ConnectionResetError if end == "reset" else EOFError
            assert type(caught.value.__cause__) is cause
        assert client.is_connected()
        assert not client.is_closing()


@pytest.mark.parametrize("end", ["EOF", "close"])
async def test_packets_before_the_end(lines: Any, end: str) -> None:
    """What the peer has sent before is received first; an incomplete packet is dropped."""
    async with connected(lines) as (client, peer):
        peer.send_bytes(b"a\nb\nhalf a pack")
        ENDS[end](peer)
        assert await client.recv_packet() == "a"
        await anyio.wait_all_tasks_blocked()
        assert await client.recv_packet() == "b"
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError):
                await client.recv_packet()


async def test_half_closed_peer(lines: Any) -> None:
    """A peer that has sent everything can still be sent to."""
    async with connected(lines) as (client, peer):
        peer.send_eof()
        for number in range(3):
            with pytest.raises(ConnectionAbortedError):
                await client.recv_packet()
            await client.send_packet(f"packet {number}")
            assert await peer.receive() == f"packet {number}"
        await client.aclose()
        assert await peer.rest() == ("", "EOF")


# -- Bad data ----------------------------------------------------------------------------------


async def test_no_packet(lines: Any) -> None:
    """What is not a packet is an error, once; the next packet follows."""
    async with connected(lines) as (client, peer):
        peer.send("good", "bäd", "good again")
        assert await client.recv_packet() == "good"
        with pytest.raises(StreamProtocolParseError) as caught:
            await client.recv_packet()
        assert isinstance(caught.value.error.__cause__, UnicodeDecodeError)
        assert await client.recv_packet() == "good again"


async def test_no_object(lines: Any) -> None:
    """What the converter refuses is an error of the same kind."""
    async with connected(lines) as (client, peer):
        peer.send("odd", "good")
        with pytest.raises(StreamProtocolParseError) as caught:
            await client.recv_packet()
        assert isinstance(caught.value.error, PacketConversionError)
        assert await client.recv_packet() == "good"


@each_protocol
async def test_endless_packet(protocol_class: Any) -> None:
    """A packet that does not end is an error at the limit."""
    protocol = protocol_class(StringLineSerializer(limit=1000))
    async with connected(protocol) as (client, peer):
        peer.send_bytes(b"x" * 3000)
        with pytest.raises(StreamProtocolParseError) as caught:
            await client.recv_packet()
        assert isinstance(caught.value.error, LimitOverrunError)


async def test_crash(lines: Any) -> None:
    """An error of another kind is the protocol object's; the client can still be used."""
    source = "buffer" if isinstance(lines, BufferedStreamProtocol) else "chunks"
    async with connected(lines) as (client, peer):
        peer.send("crash", "good")
        with pytest.raises(RuntimeError) as caught:
            await client.recv_packet()
        assert str(caught.value) == f"protocol.build_packet_from_{source}() crashed"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await client.recv_packet() == "good"


# -- Iterators ---------------------------------------------------------------------------------


async def test_what_the_kernel_holds(lines: Any) -> None:
    """By default, an iterator gives what has arrived, and does not wait for more."""
    async with connected(lines) as (client, peer):
        assert await packets(client.iter_received_packets()) == []
        deliver(b"a\nb\nhalf", peer, client)
        assert await packets(client.iter_received_packets()) == ["a", "b"]
        deliver(b" a packet\nc\n", peer, client)
        assert await packets(client.iter_received_packets(timeout=0)) == ["half a packet", "c"]
        assert await packets(client.iter_received_packets(timeout=0)) == []


async def test_what_the_client_holds(lines: Any) -> None:
    """What has arrived is given even if the connection has ended since."""
    async with connected(lines) as (client, peer):
        peer.send("a", "b", "c")
        peer.send_eof()
        assert await client.recv_packet() == "a"
        await anyio.wait_all_tasks_blocked()
        assert await packets(client.iter_received_packets()) == ["b", "c"]
        assert await packets(client.iter_received_packets()) == []


async def test_all_that_the_kernel_holds(lines: Any) -> None:
    """What has arrived is given however many chunks it makes, one packet or many."""
    async with connected(lines, max_recv_size=1000) as (client, peer):
        deliver(b"x" * 20_000 + b"\n" + b"a\n" * 5_000, peer, client)
        received = await packets(client.iter_received_packets(timeout=0))
        assert received == ["x" * 20_000] + ["a"] * 5_000


async def test_what_the_kernel_holds_for_a_new_client(lines: Any) -> None:
    """What has arrived at a socket before the client began to use it has arrived."""
    with anyio.fail_after(PATIENCE), listening() as listener:
        sock = socket.create_connection(address_of(listener))
        client: Client = AsyncTCPNetworkClient(sock, lines)
        with contextlib.closing(Accepted(listener)) as peer:
            peer.send("a", "b")
            sock.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
            assert await packets(client.iter_received_packets(timeout=0)) == ["a", "b"]
            await client.aclose()


@pytest.mark.parametrize("timeout", [None, math.inf])
@each_end
async def test_until_the_end(timeout: float | None, end: str) -> None:
    """Without a limit, an iterator gives everything until the connection ends."""
    received: list[str] = []

    async def receive() -> None:
        received.extend(await packets(client.iter_received_packets(timeout=timeout)))

    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        for number in range(3):
            await hand_over(b"packet %d\n" % number, peer, client)
        ENDS[end](peer)
    assert received == ["packet 0", "packet 1", "packet 2"]


async def test_until_the_client_is_closed(lines: Any) -> None:
    """An iterator ends when another task closes the client, and one of a closed client is empty."""
    received: list[str] = []

    async def receive() -> None:
        async for packet in client.iter_received_packets(timeout=None):
            received.append(packet)
        received.append("over")

    async with connected(lines) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        peer.send("packet")
        await until(lambda: received == ["packet"])
        await client.aclose()
        tasks.start_soon(receive)
    assert received == ["packet", "over", "over"]


async def test_until_the_time_is_up(lines: Any) -> None:
    """With a limit, an iterator waits for packets, and for no longer than that."""
    async with connected(lines) as (client, peer):
        start = anyio.current_time()
        iterator = client.iter_received_packets(timeout=0.05)
        peer.send("a")
        assert await anext(iterator) == "a"
        deliver(b"b\nhalf", peer, client)
        assert await packets(iterator) == ["b"]
        assert 0.04 < anyio.current_time() - start < PATIENCE / 2
        peer.send(" a packet")
        assert await client.recv_packet() == "half a packet"


@pytest.mark.in_turn
@pytest.mark.parametrize("anyio_backend", BACKENDS if ALL_TESTS else [BACKENDS[0], BACKENDS[-1]])
async def test_time_of_the_caller(anyio_backend: object) -> None:
    """The time that the caller spends between packets does not count."""
    outcomes = Outcomes()
    async with connected() as (client, peer):
        iterator = client.iter_received_packets(timeout=STUCK)
        peer.send("a")
        assert await anext(iterator) == "a"
        await anyio.sleep(STUCK + SOON)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, iterator.__anext__)
            await anyio.lowlevel.checkpoint()
            peer.send("b")
    assert outcomes.all == ["b"]


async def test_no_time() -> None:
    """A limit that is not a number is refused at once."""
    async with connected() as (client, _):
        with pytest.raises(ValueError, match="NaN"):
            client.iter_received_packets(timeout=math.nan)


async def test_errors_while_iterating(lines: Any) -> None:
    """Bad data and crashes are raised; the iterator goes on behind them."""
    async with connected(lines) as (client, peer):
        iterator = client.iter_received_packets(timeout=None)
        peer.send("a", "odd", "crash", "b")
        peer.send_eof()
        outcomes = [await outcome(iterator.__anext__) for _ in range(4)]
        assert [type(each) for each in outcomes] == [
            str,
            StreamProtocolParseError,
            ProtocolCrashedError,
            str,
        ]
        assert await packets(iterator) == []


async def test_iterator_left_alone(lines: Any) -> None:
    """A loop may be left at any time: what it did not take remains for others."""
    async with connected(lines) as (client, peer):
        peer.send("a", "b", "c")
        async for packet in client.iter_received_packets(timeout=None):
            assert packet == "a"
            break
        assert await client.recv_packet() == "b"
        assert await anext(client.iter_received_packets(timeout=None)) == "c"


async def test_cancelled_iterator(lines: Any) -> None:
    """An iterator that is cancelled while it waits loses nothing, and goes on."""
    async with connected(lines) as (client, peer):
        iterator = client.iter_received_packets(timeout=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome, iterator.__anext__)
            await hand_over(b"half", peer, client)
            tasks.cancel_scope.cancel()
        peer.send(" a packet")
        assert await anext(iterator) == "half a packet"


# -- Event loops -------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_another_event_loop(loop: str) -> None:
    """A client that is used in another event loop says so, and waits for nothing there."""
    new_loop = (asyncio if loop == "asyncio" else pytest.importorskip(loop)).new_event_loop

    async def received(client: Client) -> str:
        async with asyncio.timeout(STUCK):
            return await client.recv_packet()

    async def connect(address: tuple[str, int]) -> Client:
        client = AsyncTCPNetworkClient(address, LINES)
        await client.wait_connected()
        return client

    with (
        listening() as listener,
        asyncio.Runner(loop_factory=new_loop) as its_own,
        asyncio.Runner(loop_factory=new_loop) as another,
    ):
        client = its_own.run(connect(address_of(listener)))
        peer = Accepted(listener)
        peer.send("hello")
        assert its_own.run(received(client)) == "hello"
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            another.run(received(client))
        its_own.run(client.aclose())
        peer.close()
