"""The contract of `StreamTransport`, on every backend: receiving and sending."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.backends.abc import broken_connection
from tests.backends.pairs import MAX_RECV_SIZE, Pair, open_pair, tls_options, without_tls
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
async def pair(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Pair]:
    async with open_pair(tls_options() if request.param else None) as pair:
        yield pair


# -- Receiving ---------------------------------------------------------------------------------


async def test_receive(pair: Pair) -> None:
    """`receive()` returns when something complete has been fed, all the way in order."""
    await pair.peer_sends(b"a\n")
    await pair.transport.receive()
    assert pair.fed == b"a\n"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        for byte in (b"b", b"c", b"\n"):
            await pair.peer_sends(byte)
            await anyio.wait_all_tasks_blocked()
    assert pair.fed == b"a\nbc\n"


async def test_receive_large(pair: Pair) -> None:
    """Whatever the peer sends arrives complete, in chunks of at most the given size."""
    data = bytes(range(256)) * 4096

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.peer_sends, data)
        while len(pair.fed) < len(data):
            await pair.transport.receive()

    assert pair.fed == data
    assert max(pair.chunks) <= MAX_RECV_SIZE


async def test_feed_may_be_replaced(pair: Pair) -> None:
    """From the next chunk on, the new function gets what arrives."""
    found = []
    await pair.peer_sends(b"a\n")
    await pair.transport.receive()

    def feed(data: bytes) -> bool:
        found.append(data)
        return True

    pair.transport.feed = feed
    await pair.peer_sends(b"b")
    await pair.transport.receive()

    assert pair.fed == b"a\n"
    assert found == [b"b"]


async def test_chunks_do_not_change(pair: Pair) -> None:
    """A chunk is a copy: what arrives later does not overwrite it."""
    found: list[bytes] = []
    pair.transport.feed = lambda data: found.append(data) or True  # type: ignore[func-returns-value]
    async with open_pair() as other:
        for _ in range(3):
            await pair.peer_sends(b"mine\n")
            await pair.transport.receive()
            await other.peer_sends(b"other's\n")
            await other.transport.receive()

    assert found == [b"mine\n"] * 3


async def test_eof(pair: Pair) -> None:
    """The end of the peer's stream is told as often as one asks; answers can still be sent."""
    await pair.peer_sends(b"a")
    pair.peer.shutdown(1)

    for _ in range(3):
        with pytest.raises(EOFError):
            await pair.receive_to_end()

    assert pair.fed == b"a"
    assert not pair.transport.is_closing()
    pair.transport.write(b"answer")
    assert await pair.peer_receives(6) == b"answer"


async def test_eof_wakes_up(pair: Pair) -> None:
    """Whoever waits when the stream ends, learns it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect_eof, pair)
        await anyio.wait_all_tasks_blocked()
        pair.peer.shutdown(1)


async def expect_eof(pair: Pair) -> None:
    with pytest.raises(EOFError):
        await pair.receive_to_end()


@pytest.mark.parametrize("delay", [0.0, -1000.0, 0.01])
async def test_timeout(pair: Pair, delay: float) -> None:
    """Without anything complete, the deadline is kept; what has come is there afterwards."""
    await pair.peer_sends(b"a")

    with pytest.raises(TimeoutError, match=r"^timed out$"):
        await pair.transport.receive(anyio.current_time() + delay)

    assert pair.fed == b"a"
    await pair.peer_sends(b"b\n")
    await pair.transport.receive(anyio.current_time() + 10)
    assert pair.fed == b"ab\n"


@pytest.mark.parametrize("delay", [0.0, -1000.0])
async def test_passed_deadline(pair: Pair, delay: float) -> None:
    """What the kernel holds is taken, even if there is no time left to wait."""
    for _ in range(10):
        pair.fed.clear()
        pair.peer.send(b"a\n")
        await pair.transport.receive(anyio.current_time() + delay)
        assert pair.fed == b"a\n"


async def test_passed_deadline_of_endless_peer(pair: Pair) -> None:
    """The same when so much has come that reading was paused."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.peer_sends, b"x" * 1_000_000)
        await anyio.wait_all_tasks_blocked()
        fed = len(pair.fed)

        with suppress(TimeoutError):
            await pair.transport.receive(anyio.current_time())

        assert len(pair.fed) > fed
        tasks.cancel_scope.cancel()


async def test_eof_at_passed_deadline(pair: Pair) -> None:
    """The end of the stream counts as something that has come."""
    pair.peer.shutdown(1)
    await pair.transport.receive(anyio.current_time())
    with pytest.raises(EOFError):
        await pair.transport.receive(anyio.current_time())


async def test_cancelled(pair: Pair) -> None:
    """Whoever gives up loses nothing of what came before, meanwhile, or after."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await anyio.wait_all_tasks_blocked()
        await pair.peer_sends(b"a")
        await anyio.wait_all_tasks_blocked()
        pair.peer.send(b"b")
        tasks.cancel_scope.cancel()
    await pair.peer_sends(b"c\n")

    while not pair.fed.endswith(b"\n"):
        await pair.transport.receive()

    assert pair.fed == b"abc\n"


async def test_pause(pair: Pair) -> None:
    """Who sends what nobody asks for is stopped; later everything arrives."""
    size = 50_000_000
    sent = 0
    while sent < size:
        with anyio.move_on_after(SOON) as scope:
            await anyio.wait_writable(pair.peer)
        if scope.cancelled_caught:
            break
        sent += pair.peer.send(b"x" * 100_000)

    assert len(pair.fed) <= HIGH_WATER + 2 * MAX_RECV_SIZE
    assert sent < 1_000_000

    while len(pair.fed) < sent:
        with suppress(TimeoutError):
            await pair.transport.receive(anyio.current_time() + SOON)
    assert len(pair.fed) == sent


async def test_pause_after_complete_packets(pair: Pair) -> None:
    """What is complete counts as well, until somebody asks for more."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.peer_sends, b"\n" * 2_000_000)
        await pair.transport.receive()
        with anyio.move_on_after(SOON):
            await anyio.sleep_forever()
        assert len(pair.fed) <= 2 * HIGH_WATER

        while len(pair.fed) < 2_000_000:
            await pair.transport.receive()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_no_pause_after_what_was_asked_for(pair: Pair) -> None:
    """Half a packet that somebody has waited for does not count: a reset after it is noticed."""
    for number in range(1, 5):
        await pair.peer_sends(b"x" * (HIGH_WATER // 3))
        while len(pair.fed) < number * (HIGH_WATER // 3):
            with suppress(TimeoutError):
                await pair.transport.receive(anyio.current_time() + SOON)

    await pair.peer_sends(b"last")
    with anyio.fail_after(PATIENCE):
        while not pair.fed.endswith(b"last"):
            await anyio.sleep(SOON / 10)
        pair.reset()
        while not pair.transport.is_closing():
            await anyio.sleep(SOON / 10)


# -- Sending -----------------------------------------------------------------------------------


async def test_write_keeps_order(pair: Pair) -> None:
    """Many pieces of all sizes arrive as one stream, whoever is slow."""
    pieces = [bytes([number % 256]) * (number * 37 % 30_000) for number in range(200)]

    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def receive() -> None:
            await anyio.sleep(SOON)
            assert await pair.peer_receives() == b"".join(pieces)

        for piece in pieces:
            assert pair.transport.write(piece) == len(piece)
            if pair.transport.congested:
                await pair.transport.drain()
        await pair.transport.aclose()


async def test_write_at_once(pair: Pair) -> None:
    """What the kernel takes is gone without a turn of the event loop."""
    pair.transport.write(b"a")
    assert pair.peer.recv(10) == b"a"


async def test_congestion(pair: Pair) -> None:
    """A peer that does not read makes producers wait, and lets them go on when it reads."""
    written = pair.congest()
    resumed = []

    async def drain() -> None:
        await pair.transport.drain()
        resumed.append(pair.transport.congested)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(drain)
        with anyio.move_on_after(SOON):
            await anyio.sleep_forever()
        assert resumed == []
        assert len(await pair.peer_receives(written)) == written

    assert resumed == [False] * 3
    pair.transport.write(b"more")
    assert await pair.peer_receives(4) == b"more"


async def test_high_water(pair: Pair) -> None:
    """Congestion is when more than so many bytes wait that the kernel did not take."""
    written = 0
    while not pair.transport.congested:
        pair.transport.write(b"x" * 1000)
        written += 1000
    assert written > HIGH_WATER

    assert len(await pair.peer_receives(written)) == written
    await pair.transport.drain()
    assert not pair.transport.congested


async def test_drain_without_congestion(pair: Pair) -> None:
    """There is nothing to wait for when little is waiting, even if the peer does not read."""
    await pair.transport.drain()
    pair.transport.write(b"a")
    await pair.transport.drain()


async def test_drain_cancelled(pair: Pair) -> None:
    """Whoever gives up waiting takes back nothing."""
    written = pair.congest()
    with anyio.move_on_after(0):
        await pair.transport.drain()
    assert pair.transport.congested
    assert len(await pair.peer_receives(written)) == written


@without_tls
async def test_send_eof(pair: Pair) -> None:
    """The peer gets what was waiting and the end of the stream; it may go on sending."""
    written = pair.congest()

    await pair.transport.send_eof()
    await pair.transport.send_eof()

    assert len(await pair.peer_receives()) == written
    await pair.peer_sends(b"a\n")
    await pair.transport.receive()
    assert pair.fed == b"a\n"
    assert not pair.transport.is_closing()


@without_tls
async def test_send_eof_with_nothing_waiting(pair: Pair) -> None:
    """Of an empty stream, the peer gets the end."""
    await pair.transport.send_eof()
    assert await pair.peer_receives() == b""


async def test_full_duplex(pair: Pair) -> None:
    """Receiving and sending do not wait for each other."""
    data = b"x" * 1_000_000

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.peer_sends, data)

        @tasks.start_soon
        async def peer_receives() -> None:
            assert len(await pair.peer_receives(len(data))) == len(data)

        @tasks.start_soon
        async def receive() -> None:
            while len(pair.fed) < len(data):
                with suppress(TimeoutError):
                    await pair.transport.receive(anyio.current_time() + SOON)

        for start in range(0, len(data), 1000):
            pair.transport.write(data[start : start + 1000])
            await pair.transport.drain()


# -- A peer that resets ------------------------------------------------------------------------


async def test_reset(pair: Pair) -> None:
    """A connection that breaks is reported to everybody as a ConnectionError, and stays broken."""
    pair.reset()

    errors = []
    for _ in range(2):
        with pytest.raises(ConnectionError) as info:
            await pair.receive_to_end()
        errors.append(info.value)
    assert errors[0].errno == errno.ECONNRESET
    assert errors[0] is not errors[1]

    assert pair.transport.is_closing()
    with pytest.raises(ConnectionError):
        pair.transport.write(b"a")
    with pytest.raises(ConnectionError):
        await pair.transport.drain()


async def test_data_before_a_reset(pair: Pair) -> None:
    """What the peer sent before it broke the connection is received, then the error."""
    await pair.peer_sends(b"x" * 40_000)
    pair.reset()
    with pytest.raises(ConnectionError):
        await pair.receive_to_end()
    assert pair.fed == b"x" * 40_000


async def test_reset_wakes_up(pair: Pair) -> None:
    """Whoever waits to receive or to send when the connection breaks, learns it."""
    pair.congest()

    async def receive() -> None:
        with pytest.raises(ConnectionError):
            await pair.receive_to_end()

    async def drain() -> None:
        with pytest.raises(ConnectionError):
            await pair.transport.drain()

    async with anyio.create_task_group() as tasks:
        for function in (receive, drain, drain):
            tasks.start_soon(function)
        await anyio.wait_all_tasks_blocked()
        pair.reset()


async def test_reset_wakes_up_sender_alone(pair: Pair) -> None:
    """A sender learns it although nobody receives."""
    pair.congest()
    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def drain() -> None:
            with pytest.raises(ConnectionError):
                await pair.transport.drain()

        await anyio.wait_all_tasks_blocked()
        pair.reset()


async def test_write_after_reset(pair: Pair) -> None:
    """Who only sends learns it after a few packets at the latest."""
    pair.reset()

    async def write() -> None:
        for _ in range(100):
            pair.transport.write(b"a" * 1000)
            await pair.transport.drain()
            await anyio.lowlevel.checkpoint()

    with pytest.raises(ConnectionError):
        await write()


async def test_last_words_of_a_peer(pair: Pair) -> None:
    """What a peer has sent before it left can be received behind attempts to send that fail."""
    pair.peer.send(b"goodbye\n")
    pair.peer.close()

    async def write() -> None:
        for _ in range(100):
            pair.transport.write(b"a")
            await pair.transport.drain()
            with anyio.move_on_after(0.001):  # for the peer to complain
                await anyio.sleep_forever()

    with pytest.raises(ConnectionError):
        await write()
    with pytest.raises((EOFError, ConnectionError)):
        await pair.receive_to_end()
    assert pair.fed == b"goodbye\n"


@without_tls
async def test_send_eof_after_reset(pair: Pair) -> None:
    """There is nobody to tell the end to, and that is not an error."""
    pair.reset()
    await pair.transport.send_eof()
    with pytest.raises(ConnectionError):
        await pair.receive_to_end()
    await pair.transport.send_eof()


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(errno.ECONNRESET, "reset"), BrokenPipeError(errno.EPIPE, "pipe")],
)
def test_broken_connection(error: ConnectionError) -> None:
    """The kernel's reason is handed on, in a new exception for each who asks."""
    copy = broken_connection(error)
    assert copy is not error
    assert type(copy) is type(error)
    assert copy.args == error.args


@pytest.mark.parametrize("error", [None, OSError(errno.ETIMEDOUT, "timed out")])
def test_aborted_connection(error: OSError | None) -> None:
    """Any other reason is a connection that was aborted."""
    aborted = broken_connection(error)
    assert isinstance(aborted, ConnectionAbortedError)
    assert aborted.errno == errno.ECONNABORTED
    assert aborted.__cause__ is error


# -- The rest ----------------------------------------------------------------------------------


async def test_call_soon(pair: Pair) -> None:
    """A function is called in one of the next turns, in order, not at once."""
    called: list[int] = []
    for number in range(3):
        pair.transport.call_soon(lambda number=number: called.append(number))  # type: ignore[misc]
    assert called == []
    await anyio.wait_all_tasks_blocked()
    assert called == [0, 1, 2]


async def test_turn_of_the_loop_is_no_room(pair: Pair) -> None:
    """A task that gave the loop a turn does not let others write while too much is unsent."""
    while not pair.transport.congested:  # the kernel takes all of it
        pair.transport.write(b"a")
    assert not pair.transport.get_unsent_size()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.transport.drain)
        await anyio.lowlevel.checkpoint()
        pair.transport.write(b"x" * 10_000_000)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert pair.transport.congested
        tasks.cancel_scope.cancel()


async def test_socket(pair: Pair) -> None:
    """The socket is there to ask for addresses and options."""
    assert pair.sock.getpeername() == pair.peer.getsockname()
    assert not os.get_blocking(pair.sock.fileno())
