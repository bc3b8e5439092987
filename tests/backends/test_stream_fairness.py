"""The contract of `StreamTransport`, on every backend, while others come first."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork._tuning import HIGH_WATER, SEND_BUDGET_BYTES
from easynetwork.backends.fair_queue import QUANTUM, fair_queue
from easynetwork.backends.tls_transport import TLSStreamTransport
from tests.backends.pairs import MAX_RECV_SIZE, Pair, open_pair, tls_options, without_tls
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio


class Hog:
    """A flow that is first in each turn of the loop, and leaves nothing to others, until it ends.

    Attributes:
        finish_tag: Less than anybody else's.
    """

    def __init__(self) -> None:
        self.finish_tag = -1
        self._is_hungry = True
        self._queue = fair_queue()
        self._eat()

    def _eat(self) -> None:
        self.finish_tag = -1
        self._queue.charge(self, 1 << 40)
        self.finish_tag = -1
        if self._is_hungry:
            self._queue.enter(self, self, self._eat)

    def end(self) -> None:
        """Let others have their turns."""
        self._is_hungry = False

    async def wait_queued(self, pair: Pair) -> None:
        """Wait until a transport waits for its turn to read."""
        with anyio.fail_after(PATIENCE):
            while self._queue._waiting.get(inner(pair)) is None:
                await anyio.lowlevel.checkpoint()


def inner(pair: Pair) -> Any:
    """Return the transport that reads from the socket."""
    transport = pair.transport
    return transport._inner if isinstance(transport, TLSStreamTransport) else transport


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
async def pair(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Pair]:
    async with open_pair(tls_options() if request.param else None) as pair:
        yield pair


@pytest.fixture
async def hog(pair: Pair) -> AsyncIterator[Hog]:
    """What comes first, while the transport of the pair has been busy."""
    inner(pair).finish_tag = 1 << 80
    hog = Hog()
    yield hog
    hog.end()


async def test_busy_waits(pair: Pair, hog: Hog) -> None:
    """A busy connection is read when its turn has come, and nothing is lost."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await pair.peer_sends(b"a\n")
        await hog.wait_queued(pair)
        with anyio.move_on_after(SOON):
            await anyio.sleep_forever()
        assert pair.fed == b""
        hog.end()
    assert pair.fed == b"a\n"

    await pair.peer_sends(b"b\n")
    await pair.transport.receive()
    assert pair.fed == b"a\nb\n"


async def test_quiet_is_served(pair: Pair, hog: Hog) -> None:
    """A connection that is not busy is read at once; what is more than a little has to wait."""
    inner(pair).finish_tag = 0
    await pair.peer_sends(b"a\n")
    await pair.transport.receive()
    assert pair.fed == b"a\n"

    async with anyio.create_task_group() as tasks:
        await pair.peer_sends(b"b" * (MAX_RECV_SIZE - 1) + b"\n")
        tasks.start_soon(pair.receive)
        await hog.wait_queued(pair)
        assert len(pair.fed) < MAX_RECV_SIZE / 2
        hog.end()
    assert len(pair.fed) == MAX_RECV_SIZE + 2


async def test_deadline(pair: Pair, hog: Hog) -> None:
    """The deadline holds while a connection waits for its turn."""
    await pair.peer_sends(b"a\n")
    with pytest.raises(TimeoutError):
        await pair.transport.receive(anyio.current_time() + SOON)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await hog.wait_queued(pair)
        hog.end()
    assert pair.fed == b"a\n"


async def test_past_deadline(pair: Pair, hog: Hog) -> None:
    """What the kernel holds is taken at once, even if it is not the connection's turn."""
    with pytest.raises(TimeoutError):
        await pair.transport.receive(-math.inf)
    await pair.peer_sends(b"a" * 4000 + b"\n")
    await anyio.wait_readable(pair.sock.fileno())
    while True:
        try:
            await pair.transport.receive(-math.inf)
        except TimeoutError:  # TLS has sent a part of a record so far
            continue
        break
    assert len(pair.fed) == 4001


async def test_cancelled(pair: Pair, hog: Hog) -> None:
    """A task that waits for a connection's turn can be cancelled, and wait again."""
    await pair.peer_sends(b"a\n")
    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.receive)
            await hog.wait_queued(pair)
            tasks.cancel_scope.cancel()
    assert pair.fed == b""

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await hog.wait_queued(pair)
        hog.end()
    assert pair.fed == b"a\n"


@without_tls
async def test_feed_is_replaced(pair: Pair, hog: Hog) -> None:
    """A feed function that is set while a connection waits for its turn gets what arrives."""
    found = bytearray()

    def feed(data: bytes) -> bool:
        found.extend(data)
        return True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await pair.peer_sends(b"a\n")
        await hog.wait_queued(pair)
        pair.transport.feed = feed
        hog.end()
    assert (found, pair.fed) == (b"a\n", b"")


async def close(pair: Pair) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.transport.aclose)
        await anyio.lowlevel.checkpoint()
        pair.reset()  # or it would read on, for a second


async def abort(pair: Pair) -> None:
    pair.transport.abort()


@pytest.mark.parametrize("end", [close, abort])
async def test_ended_here(pair: Pair, hog: Hog, end: Callable[[Pair], Any]) -> None:
    """A connection that is closed while it waits for its turn wakes up the task that receives."""

    async def receive_to_end() -> None:
        with pytest.raises((EOFError, ConnectionError)):
            await pair.receive_to_end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive_to_end)
        await pair.peer_sends(b"a\n")
        await hog.wait_queued(pair)
        await end(pair)
    hog.end()
    await anyio.wait_all_tasks_blocked()
    assert pair.fed == b""


async def test_reset_by_peer(pair: Pair, hog: Hog) -> None:
    """A connection that the peer resets while it waits for its turn ends."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await pair.peer_sends(b"a\n")
        await hog.wait_queued(pair)
        pair.reset()
        hog.end()
    with anyio.fail_after(PATIENCE), pytest.raises(ConnectionError):
        await pair.receive_to_end()


@without_tls
async def test_descriptor_is_closed(pair: Pair, hog: Hog) -> None:
    """A connection whose descriptor other code closes while it waits for its turn is broken."""

    async def receive_to_end() -> None:
        with pytest.raises(ConnectionError):
            await pair.receive_to_end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive_to_end)
        await pair.peer_sends(b"a\n")
        await hog.wait_queued(pair)
        os.close(pair.sock.fileno())
        hog.end()
    assert pair.transport.has_lost_descriptor


async def test_reading_stops(pair: Pair, hog: Hog) -> None:
    """A connection whose turn comes when no task wants its data is read up to the high water."""
    size = 4 * HIGH_WATER

    async def send() -> None:
        await pair.peer_sends(b"a" * (size - 1) + b"\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        with anyio.move_on_after(SOON):
            await pair.transport.receive(anyio.current_time() + PATIENCE)
        hog.end()
        with anyio.move_on_after(SOON):
            await anyio.sleep_forever()
        assert len(pair.fed) <= HIGH_WATER + MAX_RECV_SIZE
        while len(pair.fed) < size:
            await pair.transport.receive()


@pytest.fixture
def sending(pair: Pair) -> Pair:
    """The pair, whose peer reads so fast that only the budget congests it."""
    data = b"x" * (QUANTUM // 8)
    total = 0
    while not pair.transport.congested:
        pair.transport.write(data)
        total += len(data)
        while total > 0:
            try:
                total -= len(pair.peer.recv(1 << 16))
            except BlockingIOError:
                break
    assert not pair.transport.get_unsent_size()
    assert inner(pair)._budget < 0 < SEND_BUDGET_BYTES
    return pair


@without_tls
async def test_sender_waits(sending: Pair, hog: Hog) -> None:
    """A task that has sent its budget goes on when its turn has come."""
    is_done = anyio.Event()

    async def drain() -> None:
        await sending.transport.drain()
        is_done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        tasks.start_soon(drain)
        with anyio.move_on_after(SOON):
            await is_done.wait()
        assert not is_done.is_set()
        hog.end()
    assert not sending.transport.congested


async def test_give_way(pair: Pair, hog: Hog) -> None:
    """A task that has served many packets goes on when its turn has come."""
    with anyio.move_on_after(SOON) as scope:
        await pair.transport.give_way()
    assert scope.cancelled_caught

    hog.end()
    with anyio.fail_after(PATIENCE):
        await pair.transport.give_way()


@without_tls
async def test_sender_is_woken_up(sending: Pair, hog: Hog) -> None:
    """A task that waits for its turn to send wakes up when the connection is aborted."""

    async def drain() -> None:
        with pytest.raises(ConnectionError):
            await sending.transport.drain()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            await anyio.lowlevel.checkpoint()
            sending.transport.abort()


async def test_loop_ends(pair: Pair, hog: Hog) -> None:
    """An event loop may end while a connection waits for its turn."""
    await pair.peer_sends(b"a\n")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await hog.wait_queued(pair)
        tasks.cancel_scope.cancel()


@without_tls
async def test_polling(pair: Pair) -> None:
    """A task that takes what is here already lets others run, though the peer sends ever more."""
    turns = 0

    def feed(data: bytes) -> bool:
        pair.peer.send(b"x")
        return turns == 3

    async def count() -> None:
        nonlocal turns
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            turns += 1

    pair.transport.feed = feed
    pair.peer.send(b"x")
    await anyio.wait_readable(pair.sock.fileno())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await pair.transport.receive(-math.inf)
    assert turns == 3
