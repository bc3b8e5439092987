"""Connections in memory do what Linux does over the loopback interface, and have faults."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import hypothesis
import pytest
from hypothesis import strategies as st

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.streams import BUFFER_SIZE
from easynetwork.testing._serving import RawConnection, serve
from tests.testing.sockets_compared import Compared, memory_pair, outcome, real_pair
from tests.times import MS, PATIENCE, SOON

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux")

WR, RD, BOTH = socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR
LINGER = ("setsockopt", socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
ERROR = ("getsockopt", socket.SOL_SOCKET, socket.SO_ERROR)
BOTH_BUFFERS = 2 * BUFFER_SIZE

# What one end does, with one or two letters for what it is called with.
STEPS: dict[str, tuple[Any, ...]] = {
    "send": ("send", b"abc"),
    "receive": ("recv", 100),
    "receive a byte": ("recv", 1),
    "peek": ("recv", 1, socket.MSG_PEEK),
    "end sending": ("shutdown", WR),
    "end receiving": ("shutdown", RD),
    "end both": ("shutdown", BOTH),
    "linger": LINGER,
    "close": ("close",),
    "error": ERROR,
    "peer": ("getpeername",),
    "name": ("getsockname",),
}


@contextlib.contextmanager
def compared() -> Iterator[Compared]:
    pairs = [dict(zip("ab", pair, strict=True)) for pair in (real_pair(), memory_pair())]
    with contextlib.closing(Compared(*pairs)) as both:
        yield both


@linux_only
@pytest.mark.parametrize(
    ("script", "results"),
    {
        "a send, b receive, b receive": [3, b"abc", "EAGAIN"],
        "a send, b peek, b receive a byte, b receive": [3, b"a", b"a", b"bc"],
        # -- ends
        "a close, b receive, b receive": [None, b"", b""],
        "a close, b send, b send, b receive": [None, 3, "EPIPE", b""],
        "a close, b send, b receive, b error, b send": [None, 3, b"", 32, "EPIPE"],
        "a end sending, b receive, b send, a receive": [None, b"", 3, b"abc"],
        "a end sending, b close, a end sending": [None, None, "ENOTCONN"],
        "a end sending, b end sending, a peer, b name": [None, None, "ENOTCONN", "b"],
        "a end both, b send, b receive, b send": [None, 3, b"", "EPIPE"],
        "a end both, b send, a error, a receive": [None, 3, 104, b""],
        "a end receiving, b send, a receive, a receive": [None, 3, b"abc", b""],
        # -- resets
        "a linger, a close, b receive, b receive": [None, None, "ECONNRESET", b""],
        "a linger, a close, b send, b send": [None, None, "ECONNRESET", "EPIPE"],
        "a linger, a close, b error, b receive": [None, None, 104, b""],
        "a linger, a close, b peer, b name": [None, None, "ENOTCONN", "b"],
        "a linger, a end sending, a close, b receive, b send": [None, None, None, b"", "EPIPE"],
        "a linger, b close, a close": [None, None, None],
        "a send, a linger, a close, b receive, b receive": [3, None, None, b"abc", "ECONNRESET"],
        "a send, b close, a receive, a receive": [3, None, "ECONNRESET", b""],
        "a send, b close, a send, a send": [3, None, "ECONNRESET", "EPIPE"],
        "a send, a end sending, b close, a receive": [3, None, None, "ECONNRESET"],
        # -- after all
        "a close, a send, a receive, a peer": [None, "EBADF", "EBADF", "EBADF"],
        "a close, a end both, a close": [None, "EBADF", None],
    }.items(),
)
def test_script(script: str, results: list[Any]) -> None:
    """A few calls, on real sockets and in memory."""
    steps = [step.partition(" ") for step in script.split(", ")]
    with compared() as both:
        assert [both.do(end, *STEPS[step]) for end, _, step in steps] == results


@linux_only
@hypothesis.settings(max_examples=300)
@hypothesis.given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(list(STEPS)))))
def test_any_script(script: list[tuple[str, str]]) -> None:
    """Any calls at all."""
    with compared() as both:
        for end, step in script:
            both.do(end, *STEPS[step])


# -- full buffers


def fill(sock: Any) -> int:
    """Send until there is no room, and return how many bytes."""
    count = 0
    while isinstance(sent := outcome(sock, "send", b"x" * 10_000), int):
        count += sent
    assert sent == "EAGAIN"
    return count


def drain(sock: Any, most: int = sys.maxsize) -> tuple[int, Any]:
    """Receive until there is nothing more; return how many bytes, and the last outcome.

    Args:
        sock: The socket.
        most: How many bytes are expected.
    """
    count = 0
    while received := outcome(sock, "recv", 10_000):
        if isinstance(received, bytes):
            count += len(received)
        elif received != "EAGAIN" or count >= most or not becomes_readable(sock):
            break
    return count, received


def becomes_readable(sock: Any) -> bool:
    """Wait until the kernel has delivered something. In memory that is done at once, or never."""
    return isinstance(sock, socket.socket) and bool(select.select([sock], [], [], PATIENCE / 5)[0])


PAIRS: dict[str, Callable[..., tuple[Any, Any]]] = {"real": real_pair, "memory": memory_pair}


@pytest.fixture(params=[pytest.param("real", marks=linux_only), "memory"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """Return a connection with small buffers, a real one and one in memory."""
    left, right = PAIRS[request.param](SO_SNDBUF=4096)
    with contextlib.closing(left), contextlib.closing(right):
        yield left, right


def test_no_room(pair: tuple[Any, Any]) -> None:
    """A sender has to wait until its peer has received something."""
    left, right = pair
    count = fill(left)
    assert count >= 4096
    assert drain(right, count) == (count, "EAGAIN")
    assert fill(left) >= 4096


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_end_with_full_buffers(pair: tuple[Any, Any], end: str) -> None:
    """What was sent before the end arrives."""
    left, right = pair
    count = fill(left)
    if end == "close":
        left.close()
    else:
        left.shutdown(WR)
    assert drain(right) == (count, b"")


def test_reset_with_full_buffers(pair: tuple[Any, Any]) -> None:
    """Some of what was sent before a reset arrives: what the receiver has room for."""
    left, right = pair
    right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    count = fill(left)
    outcome(left, *LINGER)
    left.close()
    received, error = drain(right)
    assert error == "ECONNRESET"
    assert 0 < received < count


def test_peer_that_leaves_with_full_buffers(pair: tuple[Any, Any]) -> None:
    """What it has not received resets the connection."""
    left, right = pair
    fill(left)
    right.close()
    becomes_readable(left)
    assert outcome(left, "send", b"x") == "ECONNRESET"
    assert outcome(left, "send", b"x") == "EPIPE"


# -- waiting


@pytest.fixture
def connections() -> tuple[RawConnection, RawConnection]:
    left, right = memory_pair()
    return RawConnection(left), RawConnection(right)


Connections = tuple[RawConnection, RawConnection]
LEAVING: dict[str, Callable[[RawConnection], object]] = {
    "close": RawConnection.close,
    "reset": RawConnection.reset,
    "end both": lambda connection: connection._socket.shutdown(BOTH),
}


@pytest.mark.anyio
async def test_back_pressure(connections: Connections) -> None:
    """A sender waits as long as 128 KiB are unread."""
    left, right = connections
    with anyio.fail_after(PATIENCE):
        await left.send(bytes(BOTH_BUFFERS))
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(SOON / 5) as scope:
                await left.send(b"x")
            assert scope.cancelled_caught
            tasks.start_soon(left.send, b"y")
            await anyio.wait_all_tasks_blocked()
            assert len(await right.receive(1)) == 1
        assert fill_size(right) == BOTH_BUFFERS


def fill_size(connection: RawConnection) -> int:
    """Return how many bytes have arrived at a connection."""
    return drain(connection._socket)[0]


@pytest.mark.anyio
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_sender_is_woken_up(connections: Connections, leave: str) -> None:
    """A sender that waits for room learns that its peer has left."""
    left, right = connections
    errors: list[str] = []

    async def send() -> None:
        try:
            await left.send(bytes(BOTH_BUFFERS + 1))
        except OSError as exc:
            errors.append(type(exc).__name__)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            LEAVING[leave](right)
    assert errors == ["ConnectionResetError"]


@pytest.mark.anyio
@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("who", ["the peer", "itself"])
async def test_receiver_is_woken_up(connections: Connections, leave: str, who: str) -> None:
    """A receiver that waits learns that its peer has left, or that another task has."""
    left, right = connections
    outcomes: list[Any] = []

    async def receive() -> None:
        try:
            outcomes.append(await left.receive())
        except OSError as exc:
            outcomes.append(type(exc).__name__)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            LEAVING[leave](right if who == "the peer" else left)
    expected: dict[tuple[str, str], Any] = {
        ("reset", "the peer"): "ConnectionResetError",
        ("reset", "itself"): "OSError",
        ("close", "itself"): "OSError",
    }
    assert outcomes == [expected.get((leave, who), b"")]


class Flood(AsyncStreamRequestHandler[str, str]):
    """Sends packets of a size without end to whoever asks for it."""

    async def handle(self, client: Any) -> Any:
        size = int((yield))
        try:
            while True:
                await client.send_packet("x" * size)
        finally:
            self.has_ended.set()

    has_ended: anyio.Event


@pytest.mark.anyio
@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("reads", [False, True])
async def test_transport_is_woken_up(leave: str, reads: bool) -> None:
    """So does a server's transport, whose peer may leave in the middle of a call to send()."""
    handler = Flood()
    handler.has_ended = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with serve(handler, StreamProtocol(StringLineSerializer())) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"9999\n")
            await anyio.wait_all_tasks_blocked()
            LEAVING[leave](peer)
            while reads and leave == "end both" and not handler.has_ended.is_set():
                with contextlib.suppress(OSError):
                    await peer.receive()
            if leave == "end both" and not reads:
                peer.close()
            await handler.has_ended.wait()


@pytest.mark.anyio
async def test_connection_that_breaks_while_it_takes_something() -> None:
    """A transport learns that the first part of what it sends has reset the connection."""
    handler = Flood()
    handler.has_ended = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with serve(handler, StreamProtocol(StringLineSerializer())) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"1000000\n")
            LEAVING["end both"](peer)
            await handler.has_ended.wait()


# -- a network


@pytest.mark.anyio
async def test_connection_that_is_not_accepted() -> None:
    """It can be used; it is reset when the listener is closed, and then others are refused."""
    network = MemoryNetwork()
    listener = network.listen(1)
    address: Any = listener.local_address
    sock = network.connect(address, None, None, None)
    assert sock.send(b"hello") == 5
    listener.close()
    assert outcome(sock, "recv", 1) == "ECONNRESET"
    with pytest.raises(ConnectionRefusedError):
        network.connect(address, None, None, None)
    sock.close()


# -- faults


def chunks_of(data: bytes, seed: int = 0, **faults: Any) -> list[bytes]:
    """Return what arrives of some bytes, one call of recv() after the other."""
    left, right = memory_pair(Faults(**faults), seed)
    with contextlib.closing(left), contextlib.closing(right):
        assert left.send(data) == len(data)
        chunks = []
        while isinstance(chunk := outcome(right, "recv", 100), bytes):
            chunks.append(chunk)
        return chunks


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (None, [b"0123456789"]),
        (4, [b"0123", b"4567", b"89"]),
        ([1, 5], [b"0", b"12345", b"6789"]),
        ([3], [b"012", b"3456789"]),
        (range(2, 3), [b"01", b"23", b"45", b"67", b"89"]),
    ],
)
def test_chunks(chunks: Any, expected: list[bytes]) -> None:
    """Bytes arrive in chunks of given sizes."""
    assert chunks_of(b"0123456789", chunks=chunks) == expected


def test_seed() -> None:
    """Sizes are chosen by the seed."""
    data = bytes(range(250))
    found = [chunks_of(data, seed, chunks=range(1, 20)) for seed in (1, 1, 2)]
    assert [b"".join(chunks) for chunks in found] == [data] * 3
    assert all(len(chunk) < 20 for chunks in found for chunk in chunks)
    assert found[0] == found[1] != found[2]


def test_cuts_do_not_depend_on_calls() -> None:
    """Where chunks end does not depend on how they were sent and received."""
    left, right = memory_pair(Faults(chunks=[4, 4]))
    with contextlib.closing(left), contextlib.closing(right):
        for part in b"ab", b"cdef", b"ghijkl":
            left.send(part)
        assert [right.recv(n) for n in (3, 3, 9, 9)] == [b"abc", b"d", b"efgh", b"ijkl"]


@pytest.mark.parametrize("count", [0, 3, 10])
@pytest.mark.parametrize("sizes", [(10, 4), (1,) * 10, (3, 7)])
def test_reset_after(count: int, sizes: tuple[int, ...]) -> None:
    """The connection is reset after so many bytes."""
    left, right = memory_pair(Faults(reset_after=count))
    with contextlib.closing(left), contextlib.closing(right):
        results = [outcome(left, "send", b"x" * size) for size in sizes]
        assert "ECONNRESET" in (*results, outcome(left, "recv", 1))
        assert drain(right) == (count, "ECONNRESET")


@pytest.mark.parametrize("count", [0, 3, 10])
@pytest.mark.parametrize("sizes", [(10, 4), (1,) * 12, (3, 7)])
def test_truncate_after(count: int, sizes: tuple[int, ...]) -> None:
    """The stream ends after so many bytes; the sender does not notice."""
    left, right = memory_pair(Faults(truncate_after=count))
    with contextlib.closing(left), contextlib.closing(right):
        assert [left.send(b"x" * size) for size in sizes] == list(sizes)
        assert drain(right) == (count, b"")
        right.send(b"answer")
        assert left.recv(10) == b"answer"
        left.shutdown(WR)


@pytest.mark.anyio
@pytest.mark.parametrize("latency", [20 * MS, (0.0, 20 * MS), (10 * MS, 20 * MS)])
async def test_latency(latency: Any) -> None:
    """Bytes and the end arrive later, in order."""
    left, right = memory_pair(Faults(latency=latency))
    least = latency if isinstance(latency, float) else latency[0]
    begin = anyio.current_time()
    for number in range(10):
        left.send(b"%d" % number)
    left.close()
    connection = RawConnection(right)
    received = b""
    with contextlib.closing(connection), anyio.fail_after(PATIENCE):
        while data := await connection.receive():
            assert anyio.current_time() - begin >= least - MS  # uvloop rounds
            received += data
    assert received == b"0123456789"


@pytest.mark.anyio
async def test_latency_of_a_reset() -> None:
    """A reset overtakes what is on its way, but has the same latency."""
    left, right = memory_pair(Faults(latency=10 * MS))
    left.send(b"lost")
    left.abort()
    assert outcome(right, "recv", 10) == "EAGAIN"
    connection = RawConnection(right)
    with contextlib.closing(connection), anyio.fail_after(PATIENCE):
        with pytest.raises(ConnectionResetError):
            await connection.receive()


@pytest.mark.anyio
async def test_what_is_on_its_way_takes_room() -> None:
    """Latency does not make buffers larger."""
    left, right = memory_pair(Faults(latency=10 * MS))
    with contextlib.closing(left), contextlib.closing(right):
        assert fill(left) == BOTH_BUFFERS
        await RawConnection(right).receive()
        assert left.is_writable()


@pytest.mark.parametrize(
    "faults",
    [
        *({name: value} for name in ("loss", "duplicate", "reorder") for value in (-0.1, 1.1)),
        *({"latency": value} for value in (-1, float("inf"), float("nan"), (2, 1), (-1, 0))),
        *({"latency": value} for value in ("1", (1, 2, 3), [0, 1])),
        *({"chunks": value} for value in (0, -1, [], [1, 0], range(0), range(5))),
        *({"chunks": value} for value in (1.5, [1.5], "12", {1})),
        *({name: value} for name in ("reset_after", "truncate_after") for value in (-1, 1.5, "1")),
    ],
    ids=repr,
)
def test_wrong_values(faults: dict[str, Any]) -> None:
    """What makes no sense is a ValueError, for a network and for a connection."""
    for constructor in Faults, MemoryNetwork:
        with pytest.raises(ValueError, match=next(iter(faults))):
            constructor(**faults)


def test_repr() -> None:
    """A network says its seed, and its faults."""
    assert repr(MemoryNetwork()) == "MemoryNetwork(seed=0)"
    network = MemoryNetwork(seed=7, chunks=3, loss=0.5)
    assert repr(network) == "MemoryNetwork(seed=7, chunks=3, loss=0.5)"
