"""The contract of `StreamTransport`, on every backend: all the ways in which a connection ends."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.exceptions import UnsupportedOperation
from tests.backends.pairs import Pair, open_pair, tls_options, without_tls
from tests.times import SOON

pytestmark = pytest.mark.anyio

ANSWER = bytes(range(256)) * 4096


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
async def pair(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Pair]:
    async with open_pair(tls_options() if request.param else None) as pair:
        yield pair


def set_linger_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("easynetwork.backends.stream_transport.LINGER_TIME", seconds)


async def assert_closed(pair: Pair) -> None:
    """Assert that nothing can be done any more, and that nobody gets stuck trying to."""
    transport = pair.transport
    assert transport.is_closing()
    with pytest.raises(ConnectionError):
        transport.write(b"a")
    with suppress(ConnectionError):
        await transport.drain()
    with pytest.raises((EOFError, ConnectionError)):
        await transport.receive()
    with suppress(UnsupportedOperation):
        await transport.send_eof()


# -- Gracefully --------------------------------------------------------------------------------


@pytest.mark.parametrize("linger", [False, True])
async def test_aclose(pair: Pair, linger: bool) -> None:
    """All that was written arrives, then the end; the descriptor is closed by then."""
    pair.transport.write(ANSWER)

    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def close() -> None:
            await pair.transport.aclose(linger=linger)
            assert pair.sock.fileno() == -1
            await assert_closed(pair)

        await anyio.wait_all_tasks_blocked()
        assert pair.transport.is_closing()
        assert await pair.peer_receives() == ANSWER
        pair.peer.close()

    await pair.transport.aclose(linger=linger)
    await assert_closed(pair)


async def test_copy_of_descriptor(pair: Pair) -> None:
    """The peer sees the end even if another process keeps a copy of the descriptor."""
    copy = os.dup(pair.sock.fileno())
    try:
        pair.transport.write(b"last")
        await pair.transport.aclose()
        assert await pair.peer_receives() == b"last"
    finally:
        os.close(copy)


async def test_waits_for_slow_peers(pair: Pair) -> None:
    """Closing takes as long as the peer needs to take what is waiting, and is not open to more."""
    pair.transport.write(ANSWER)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.transport.aclose)
        for _ in range(3):
            with anyio.move_on_after(SOON):
                await anyio.sleep_forever()
            assert pair.sock.fileno() != -1
            with pytest.raises(ConnectionError):
                pair.transport.write(b"a")
        assert await pair.peer_receives() == ANSWER


@pytest.mark.parametrize("linger", [False, True])
async def test_drain_while_closing(pair: Pair, linger: bool) -> None:
    """A producer who waits when another task closes learns that nothing was lost."""
    pair.congest()
    drained = []

    async def drain() -> None:
        await pair.transport.drain()
        drained.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        tasks.start_soon(lambda: pair.transport.aclose(linger=linger))
        await anyio.wait_all_tasks_blocked()
        assert drained == []
        await pair.peer_receives()
        pair.peer.close()

    await drain()
    assert drained == [True, True]


async def test_aclose_wakes_up(pair: Pair) -> None:
    """Whoever waits to receive from a connection that is closed here, learns it at once."""
    pair.congest()
    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def receive() -> None:
            with pytest.raises(EOFError):
                await pair.receive_to_end()
            tasks.cancel_scope.cancel()

        await anyio.wait_all_tasks_blocked()
        await pair.transport.aclose()
        pytest.fail("the peer does not read, so this should not have returned")


async def test_aclose_of_broken_connection(pair: Pair) -> None:
    """Closing raises no OSError, whatever happened to the connection before or meanwhile."""
    pair.congest()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.transport.aclose)
        await anyio.wait_all_tasks_blocked()
        pair.reset()
    await pair.transport.aclose(linger=True)
    await assert_closed(pair)


@pytest.mark.parametrize("linger", [False, True])
async def test_aclose_after_reset(pair: Pair, linger: bool) -> None:
    """The same when the event loop has not heard of it yet."""
    pair.reset()
    await pair.transport.aclose(linger=linger)
    await assert_closed(pair)


@without_tls
async def test_aclose_after_send_eof(pair: Pair) -> None:
    """Closing comes after the end of the stream as after anything else."""
    pair.transport.write(ANSWER)
    await pair.transport.send_eof()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.transport.aclose)
        assert await pair.peer_receives() == ANSWER


@pytest.mark.parametrize("lingers", [[False] * 3, [True] * 3, [False, True], [True, False]])
async def test_several_closers(pair: Pair, lingers: list[bool]) -> None:
    """Everybody may close; each call returns when the descriptor is closed."""
    pair.transport.write(ANSWER)

    async def close(linger: bool) -> None:
        await pair.transport.aclose(linger=linger)
        assert pair.sock.fileno() == -1

    async with anyio.create_task_group() as tasks:
        for linger in lingers:
            tasks.start_soon(close, linger)
        assert await pair.peer_receives() == ANSWER
        pair.peer.close()


@pytest.mark.parametrize("linger", [False, True])
async def test_first_closer_gives_up(pair: Pair, linger: bool) -> None:
    """If one closer gives up, the others still come to an end."""
    pair.transport.write(ANSWER if not linger else b"")

    async with anyio.create_task_group() as others:
        async with anyio.create_task_group() as first:
            first.start_soon(lambda: pair.transport.aclose(linger=linger))
            await anyio.wait_all_tasks_blocked()
            others.start_soon(lambda: pair.transport.aclose(linger=linger))
            others.start_soon(pair.transport.aclose)
            await anyio.wait_all_tasks_blocked()
            first.cancel_scope.cancel()

    assert pair.sock.fileno() == -1


# -- With a peer that is still sending ---------------------------------------------------------


@pytest.mark.parametrize("unread", [0, 4 * HIGH_WATER])
async def test_linger(pair: Pair, unread: int) -> None:
    """A peer in the middle of sending gets every byte of the answer and the end, and no reset."""
    request = b"x" * 1_000_000
    got: list[bytes] = []

    async def answer() -> None:
        pair.transport.write(ANSWER)
        await pair.transport.aclose(linger=True)

    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def peer() -> None:
            async with anyio.create_task_group() as peer_tasks:
                peer_tasks.start_soon(pair.peer_sends, request)
                got.append(await pair.peer_receives())
            pair.peer.close()

        if unread:
            # So much that nobody reads any more.
            with anyio.move_on_after(SOON):
                await anyio.sleep_forever()
        await answer()

    assert got == [ANSWER]


async def test_linger_with_peer_that_sends_first(pair: Pair) -> None:
    """The same with a peer that does not read before it has sent everything."""
    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def peer() -> None:
            await pair.peer_sends(b"x" * 1_000_000)
            assert await pair.peer_receives() == ANSWER
            pair.peer.close()

        pair.transport.write(ANSWER)
        await pair.transport.aclose(linger=True)


async def test_linger_forgets(pair: Pair) -> None:
    """What comes after the end is not fed."""
    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def peer() -> None:
            assert await pair.peer_receives() == b""
            await pair.peer_sends(b"too late\n")
            pair.peer.close()

        await pair.transport.aclose(linger=True)

    assert pair.fed == b""


async def test_closed_while_lingering(pair: Pair) -> None:
    """To its owner, a connection that lingers is closed."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: pair.transport.aclose(linger=True))
        await anyio.wait_all_tasks_blocked()
        assert pair.sock.fileno() != -1
        await assert_closed(pair)
        pair.peer.close()


async def test_linger_wakes_up(pair: Pair) -> None:
    """Whoever waits to receive is not kept waiting for what nobody wants."""
    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def receive() -> None:
            with pytest.raises(EOFError):
                await pair.receive_to_end()
            pair.peer.close()

        await anyio.wait_all_tasks_blocked()
        await pair.transport.aclose(linger=True)


@pytest.mark.parametrize("sends", [False, True])
async def test_linger_has_an_end(pair: Pair, sends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that never ends its side does not keep the connection."""
    set_linger_time(monkeypatch, SOON)

    async def send_for_ever() -> None:
        with pytest.raises(ConnectionError):
            while True:
                await pair.peer_sends(b"x" * 1000)

    async with anyio.create_task_group() as tasks:
        if sends:
            tasks.start_soon(send_for_ever)
        await pair.transport.aclose(linger=True)

    assert pair.sock.fileno() == -1


async def test_linger_begins_when_all_is_sent(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that reads the answer late, and goes on sending meanwhile, gets all of it."""
    set_linger_time(monkeypatch, 2 * SOON)

    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def peer() -> None:
            with anyio.move_on_after(3 * SOON):
                await anyio.sleep_forever()
            await pair.peer_sends(b"x")
            assert await pair.peer_receives() == ANSWER
            pair.peer.close()

        pair.transport.write(ANSWER)
        await pair.transport.aclose(linger=True)


async def test_linger_without_reason(pair: Pair) -> None:
    """There is nothing to wait for when the peer has ended its side."""
    pair.peer.shutdown(1)
    with pytest.raises(EOFError):
        await pair.receive_to_end()
    pair.transport.write(b"answer")

    await pair.transport.aclose(linger=True)

    assert await pair.peer_receives() == b"answer"


# -- Forcibly ----------------------------------------------------------------------------------


async def expect_reset(pair: Pair) -> bytes:
    """Return what the peer gets before it is told that the connection was reset."""
    data = bytearray()
    with pytest.raises(ConnectionResetError):
        while True:
            await anyio.wait_readable(pair.peer)
            chunk = pair.peer.recv(1 << 16)
            assert chunk, "the stream ended as if everything had been sent"
            data += chunk
    return bytes(data)


async def test_abort(pair: Pair) -> None:
    """The peer is told that something is missing."""
    written = pair.congest()

    pair.transport.abort()
    pair.transport.abort()

    assert len(await expect_reset(pair)) < written
    await assert_closed(pair)
    with pytest.raises(ConnectionAbortedError):
        await pair.transport.drain()
    await pair.transport.aclose()
    assert pair.sock.fileno() == -1
    pair.transport.abort()


async def test_abort_with_nothing_waiting(pair: Pair) -> None:
    """A peer can tell it from a graceful end, even if it has got everything."""
    pair.transport.abort()
    await pair.transport.aclose()
    assert await expect_reset(pair) == b""


async def test_abort_wakes_everybody(pair: Pair) -> None:
    """Whoever receives, sends or closes when the connection is reset here, learns it."""
    pair.congest()

    async def receive() -> None:
        with pytest.raises(EOFError):
            await pair.receive_to_end()

    async def drain() -> None:
        with pytest.raises(ConnectionError) as info:
            await pair.transport.drain()
        assert info.value.errno == errno.ECONNABORTED

    async with anyio.create_task_group() as tasks:
        for function in (receive, drain, drain):
            tasks.start_soon(function)
        await anyio.wait_all_tasks_blocked()
        pair.transport.abort()

    await pair.transport.aclose()
    await expect_reset(pair)


@pytest.mark.parametrize("linger", [False, True])
async def test_abort_ends_closing(pair: Pair, linger: bool) -> None:
    """A graceful end that takes too long can be cut short by another task."""
    pair.congest()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: pair.transport.aclose(linger=linger))
        await anyio.wait_all_tasks_blocked()
        pair.transport.abort()
    assert pair.sock.fileno() == -1
    await expect_reset(pair)


async def test_abort_ends_lingering(pair: Pair) -> None:
    """So can the wait for a peer that has got everything."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: pair.transport.aclose(linger=True))
        assert await pair.peer_receives() == b""
        await anyio.wait_all_tasks_blocked()
        pair.transport.abort()
    assert pair.sock.fileno() == -1


@pytest.mark.parametrize("linger", [False, True])
async def test_aclose_cancelled(pair: Pair, linger: bool) -> None:
    """A graceful end that is given up becomes a reset."""
    written = pair.congest()

    with anyio.move_on_after(SOON) as scope:
        await pair.transport.aclose(linger=linger)

    assert scope.cancelled_caught
    assert len(await expect_reset(pair)) < written
    await pair.transport.aclose()
    assert pair.sock.fileno() == -1
    await assert_closed(pair)


async def test_aclose_cancelled_from_the_start(pair: Pair) -> None:
    """Even a task that may not wait at all leaves nothing open."""
    pair.congest()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await pair.transport.aclose()
    await expect_reset(pair)
    with anyio.CancelScope(shield=True):
        await pair.transport.aclose()
    assert pair.sock.fileno() == -1


@pytest.mark.parametrize("method", ["aclose", "abort"])
async def test_answer_is_not_lost(pair: Pair, method: Any) -> None:
    """What the kernel has taken does not depend on this side's unread data, unless it is reset."""
    pair.transport.write(b"answer")
    if method == "aclose":
        await pair.transport.aclose()
        assert await pair.peer_receives() == b"answer"
    else:
        pair.transport.abort()
        assert await expect_reset(pair) in (b"", b"answer")
