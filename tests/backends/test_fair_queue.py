from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.backends import fair_queue as module
from easynetwork.backends.fair_queue import BUSY_SIZE, QUANTUM, SMALL_SIZE, FairQueue, fair_queue


class Flow:
    """A connection that has more to read whenever it is served.

    Attributes:
        finish_tag: See `Flow` of the module.
    """

    def __init__(self, loop: Loop, name: str, size: int = QUANTUM) -> None:
        self.finish_tag = 0
        self._loop, self._name, self._size = loop, name, size

    def read(self) -> None:
        """Read once, now."""
        self._loop.served[-1] += self._name
        self._loop.queue.charge(self, self._size)

    def be_readable(self) -> None:
        """Read now or in its turn."""
        if self._loop.queue.must_wait(self):
            self._loop.queue.enter(self, self, self.read)
        else:
            self.read()


class Loop:
    """An event loop that does nothing but its turns.

    Attributes:
        queue: The queue under test.
        served: The names of the flows that were served, by turn.
    """

    def __init__(self) -> None:
        self.served = [""]
        self._callbacks: list[Callable[[], None]] = []
        self.queue = FairQueue(self._callbacks.append)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done in the next turn."""
        return not self._callbacks

    def turn(self, *readable: Flow) -> None:
        """Do the callbacks of one turn; then, some flows are readable."""
        self.served.append("")
        callbacks, self._callbacks[:] = self._callbacks[:], []
        for callback in callbacks:
            callback()
        for flow in readable:
            flow.be_readable()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that the test sets. Turns take neither little nor long as long as it does not."""
    clock = SimpleNamespace(now=1.0, step=0.0025)

    def perf_counter() -> float:
        clock.now += clock.step
        return float(clock.now)

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=perf_counter))
    return clock


@pytest.fixture
def loop(clock: SimpleNamespace) -> Loop:
    loop = Loop()
    for _ in range(3):  # the queue measures the time of two turns
        Flow(loop, "").read()
        loop.turn()
    loop.served = [""]
    return loop


def busy_flows(loop: Loop, names: str, size: int = QUANTUM) -> list[Flow]:
    """Return flows that have just read."""
    flows = [Flow(loop, name, size) for name in names]
    for flow in flows:
        flow.read()
    return flows


def test_one_chunk_per_turn(loop: Loop) -> None:
    """In each turn of the loop, one of the busy flows is served, and all get the same."""
    flows = busy_flows(loop, "abc")
    for _ in range(6):
        loop.turn(*flows)

    assert sorted(loop.served[1:4]) == sorted(loop.served[4:7]) == ["a", "b", "c"]


def test_alone(loop: Loop) -> None:
    """A busy flow that is alone is served in every turn. The queue is idle when it has left."""
    [flow] = busy_flows(loop, "a")
    for _ in range(3):
        loop.turn(flow)
    assert loop.served == ["a"] * 4

    loop.turn()
    assert loop.is_idle


def test_small_reads_add_up(loop: Loop) -> None:
    """As many flows are served in a turn as read one chunk together."""
    flows = busy_flows(loop, "abcdefgh", QUANTUM // 4)
    loop.turn(*flows)
    loop.turn(*flows)

    assert [len(names) for names in loop.served[1:]] == [4, 4]
    assert sorted(loop.served[1] + loop.served[2]) == [*"abcdefgh"]


def test_smaller_share(loop: Loop) -> None:
    """A flow that has had less than others goes before all of them."""
    flows = busy_flows(loop, "abcdefgh")
    modest = Flow(loop, "x", BUSY_SIZE)
    for _ in range(8):
        loop.turn(*flows)
    modest.read()
    loop.turn(*flows, modest)
    loop.turn(*flows)

    assert "x" in loop.served[-1]


def test_quiet(loop: Loop) -> None:
    """A flow that has never read much, or not lately, need not wait; but it reads only a little."""
    view = memoryview(bytearray(QUANTUM))
    flows = busy_flows(loop, "abc")
    once = Flow(loop, "x")
    once.read()
    for _ in range(9):
        loop.turn(*flows)

    assert loop.queue.is_exhausted
    assert loop.queue.must_wait(flows[0])
    assert not loop.queue.must_wait(Flow(loop, "y"))
    assert not loop.queue.must_wait(once)
    assert len(loop.queue.limited(view)) == SMALL_SIZE
    assert len(loop.queue.limited(view[:10])) == 10


def test_leave(loop: Loop) -> None:
    """A flow that has left is not served. If it comes back, it has kept its one place."""
    a, b = busy_flows(loop, "ab")
    loop.queue.enter(a, a, a.read)
    loop.queue.enter(b, b, b.read)
    for _ in range(100):
        assert loop.queue.leave(a)
        assert not loop.queue.leave(a)
        loop.queue.enter(a, a, a.read)
    loop.queue.leave(b)
    for _ in range(3):
        loop.turn()

    assert "".join(loop.served[1:]) == "a"
    assert loop.is_idle


def test_error(loop: Loop) -> None:
    """A flow that raises an exception in its turn does not keep others waiting for ever."""
    a, b = busy_flows(loop, "ab")

    def fail() -> None:
        raise ZeroDivisionError

    loop.queue.enter(a, a, fail)
    loop.queue.enter(b, b, b.read)
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.turn()

    assert loop.served[-1] == "b"


def test_short_turns(loop: Loop, clock: SimpleNamespace) -> None:
    """While turns are short, more is read in each, up to a limit."""
    clock.step = 0.000_01
    flows = busy_flows(loop, "abcdefghijklmnopqrstuvwxyz")
    for _ in range(20):
        loop.turn(*flows)

    assert len(loop.served[-1]) == 16


def test_long_turns(loop: Loop, clock: SimpleNamespace) -> None:
    """While turns are long, fewer flows are served in each, at least one."""
    clock.step = 0.1
    flows = busy_flows(loop, "abcdefgh", QUANTUM // 4)
    for _ in range(20):
        loop.turn(*flows)
    assert len(loop.served[-1]) == 1


def test_pause(loop: Loop, clock: SimpleNamespace) -> None:
    """After a pause, one chunk is read as at the beginning."""
    for step in (0.000_01, 10.0):
        clock.step = step
        flows = busy_flows(loop, "abcdefghijklmnopqrstuvwxyz")
        for _ in range(30):
            loop.turn(*flows)
        for _ in range(30):
            loop.turn()
            flows[0].read()
    clock.step = 0.0025
    loop.turn()
    loop.turn(*[Flow(loop, name, QUANTUM // 4) for name in "abcdefgh"])

    assert loop.queue.is_exhausted


@pytest.mark.anyio
async def test_renewed_by_the_loop() -> None:
    """On every event loop, the next turn is the loop's next turn."""
    queue = fair_queue()
    flow, served = SimpleNamespace(finish_tag=0), anyio.Event()
    queue.charge(flow, QUANTUM)
    queue.enter("key", flow, served.set)
    with anyio.fail_after(10):
        await served.wait()
    assert queue is fair_queue()
    assert not queue.is_exhausted


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_loop_ends(backend: str) -> None:
    """An event loop may end while a flow waits, and is forgotten then."""
    rounds = 0

    async def main() -> weakref.ref[Any]:
        queue, flow = fair_queue(), SimpleNamespace(finish_tag=0)

        def serve() -> None:
            nonlocal rounds
            rounds += 1
            queue.charge(flow, QUANTUM)
            queue.enter("key", flow, serve)

        serve()
        while rounds < 3:
            await anyio.lowlevel.checkpoint()
        return weakref.ref(anyio.lowlevel.current_token().native_token)

    event_loop = anyio.run(main, backend=backend)
    assert rounds >= 3
    gc.collect()
    assert event_loop() is None


def test_one_queue_per_loop() -> None:
    """Two loops, which may run at the same time, do not share it."""

    async def queue() -> FairQueue:
        return fair_queue()

    assert anyio.run(queue) is not anyio.run(queue)
