"""Connections that one task of trio watches, because they are many."""

from __future__ import annotations

import array
import errno
import os
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork.backends import ensure_backend
from tests.backends.pairs import MAX_RECV_SIZE, Pair, open_pair, without_garbage_collection
from tests.times import PATIENCE, SOON
from tests.trio_readiness import watch_all

trio = pytest.importorskip("trio")
readiness = pytest.importorskip("easynetwork.backends.trio.readiness")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["trio"]),
    pytest.mark.skipif(not readiness._EVENTS, reason="this system has no epoll(7)"),
]


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    watch_all(monkeypatch)
    async with open_pair() as pair:
        yield pair


def watched() -> int:
    """Return how many connections are watched."""
    return len(readiness.readiness()._watched)


async def test_first_few(anyio_backend: str) -> None:
    """They wait as trio has them do; others are watched, as long as there are so many."""
    tasks = len(anyio.get_running_tasks())
    async with AsyncExitStack() as stack, AsyncExitStack() as first_one:
        pairs = [await first_one.enter_async_context(open_pair())]
        for _ in range(readiness.FEW + 1):
            pairs.append(await stack.enter_async_context(open_pair()))
        assert watched() == 2
        assert len(anyio.get_running_tasks()) == tasks + 1
        for pair in pairs:
            await pair.peer_sends(b"hello\n")
            await pair.transport.receive()
            assert pair.fed == b"hello\n"
        await first_one.aclose()
        async with open_pair():
            assert watched() == 2
    assert watched() == 0
    with anyio.fail_after(PATIENCE):
        while len(anyio.get_running_tasks()) > tasks:
            await anyio.lowlevel.checkpoint()


async def test_closed_by_what_is_fed(pair: Pair) -> None:
    """The last connection may end while the task that watches reads for it."""

    def feed(data: bytes) -> bool:
        pair.transport.abort()
        return True

    pair.transport.feed = feed
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await anyio.wait_all_tasks_blocked()
        await pair.peer_sends(b"hello\n")
    with pytest.raises(EOFError), anyio.fail_after(PATIENCE):
        await pair.transport.receive()
    assert watched() == 0


async def test_end_that_comes_with_data(pair: Pair) -> None:
    """The kernel tells of both at once, and never again of the end."""
    await pair.peer_sends(b"hello\n")
    pair.peer.close()
    await anyio.sleep(SOON)
    with anyio.fail_after(PATIENCE):
        await pair.transport.receive()
        assert pair.fed == b"hello\n"
        with pytest.raises(EOFError):
            await pair.receive_to_end()


async def test_urgent_data(pair: Pair) -> None:
    """A read stops at it, though more is there (tcp(7))."""
    async with anyio.create_task_group() as tasks:
        for part in (b"be", b"fore\n"):
            tasks.start_soon(pair.receive)
            await anyio.wait_all_tasks_blocked()
            pair.peer.send(part[:-1], socket.MSG_OOB)
            await pair.peer_sends(part[-1:] + b"after\n")
            with anyio.fail_after(PATIENCE):
                while not pair.fed.endswith(b"after\n"):
                    await anyio.sleep(SOON / 10)


async def test_more_than_one_read(pair: Pair) -> None:
    """What fills the buffer leaves more, of which the kernel does not tell again."""
    data = b"x" * (3 * MAX_RECV_SIZE) + b"\n"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive)
        await anyio.wait_all_tasks_blocked()
        await pair.peer_sends(data)
    assert pair.fed == data


async def test_other_ancillary_data(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    """On a Unix socket, a read stops where other descriptors come (unix(7))."""
    watch_all(monkeypatch)
    sock, peer = socket.socketpair()
    sock.setblocking(False)
    pair = Pair(peer)
    with peer:
        transport = ensure_backend(None).wrap_stream_socket(sock, pair.feed, MAX_RECV_SIZE)
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                while len(pair.fed) < 6:
                    await transport.receive()

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            fds = array.array("i", [peer.fileno()]).tobytes()
            for part in (b"ab", b"cd", b"e\n"):
                peer.sendmsg([part], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            with anyio.fail_after(PATIENCE):
                while len(pair.fed) < 6:
                    await anyio.sleep(SOON / 10)
        await transport.aclose()
    assert pair.chunks == [2, 2, 2]


async def test_copy_in_another_process(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the descriptor stays open, and what comes there wakes up nobody."""
    events: list[object] = []
    with socket.socket(fileno=os.dup(pair.sock.fileno())) as copy:
        async with open_pair():
            pair.transport.abort()
            monkeypatch.setattr(
                readiness.Readiness, "_tell", lambda _, epoll: events.extend(epoll.poll(0))
            )
            await pair.peer_sends(b"hello\n")
            assert copy.recv(10, socket.MSG_PEEK) == b"hello\n"
            await anyio.sleep(SOON)
    assert events == []


async def test_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    """A connection that cannot be watched waits as trio has it do."""
    watch_all(monkeypatch)

    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with AsyncExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr("select.epoll", fail)
            pair = await stack.enter_async_context(open_pair())
        assert watched() == 0
        other = await stack.enter_async_context(open_pair())
        assert watched() == 1
        # The kernel knows it already.
        assert not readiness.readiness().join(other.sock.fileno(), other.transport)
        for each in pair, other:
            await each.peer_sends(b"hello\n")
            with anyio.fail_after(PATIENCE):
                await each.transport.receive()
            assert each.fed == b"hello\n"


@pytest.mark.parametrize("has_loop", [True, False])
async def test_descriptor_of_another_thread(pair: Pair, has_loop: bool) -> None:
    """Another thread may get the descriptor's number, after other code has closed it."""

    async def lose() -> None:
        pair.transport.lose_descriptor()  # type: ignore[attr-defined]  # of sockets

    def in_thread() -> None:
        if has_loop:
            trio.run(lose)
        else:
            pair.transport.lose_descriptor()  # type: ignore[attr-defined]  # of sockets

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive_error, pair)
        await anyio.wait_all_tasks_blocked()
        os.close(pair.sock.fileno())
        with anyio.fail_after(PATIENCE):
            await anyio.to_thread.run_sync(in_thread)
    assert watched() == 0


async def receive_error(pair: Pair) -> None:
    with suppress(ConnectionError):
        await pair.receive_to_end()


async def test_no_garbage(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    """What a connection that breaks leaves behind is freed at once."""
    watch_all(monkeypatch)
    with without_garbage_collection():
        async with open_pair() as pair:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive_error, pair)
                await anyio.wait_all_tasks_blocked()
                pair.reset()
            known = weakref.ref(pair.transport)
            pair.transport.feed = len  # not that of the pair
        del pair
        await anyio.wait_all_tasks_blocked()
        assert known() is None
