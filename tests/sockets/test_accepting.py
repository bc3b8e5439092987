from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.sockets import accepting as accepting_module
from easynetwork.sockets.accepting import accept_forever, close_listener
from tests.backends.pairs import SOON

pytestmark = pytest.mark.anyio

LOGGER = logging.getLogger("tests.listener")


class FailingListener(socket.socket):
    """A real listener whose `accept()` fails as often as a test wants."""

    __slots__ = ("errors",)

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[int] = []

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            raise OSError(self.errors.pop(), "forced")
        return super().accept()


class Accepting:
    """A listener that is being accepted from, and what came of it."""

    def __init__(self, listener: FailingListener, stack: ExitStack) -> None:
        self.listener = listener
        self.accepted: list[tuple[socket.socket, Any]] = []
        self.arrived = anyio.Event()
        self._stack = stack

    def on_connection(self, connection: socket.socket, address: Any) -> None:
        self._stack.enter_context(connection)
        self.accepted.append((connection, address))
        self.arrived.set()

    def connect(self) -> socket.socket:
        return self._stack.enter_context(socket.create_connection(self.listener.getsockname()))

    async def run(self) -> None:
        await accept_forever(self.listener, self.on_connection, LOGGER)


@pytest.fixture
def listener() -> Iterator[FailingListener]:
    with FailingListener() as listener:
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


@pytest.fixture
async def accepting(listener: FailingListener, anyio_backend: object) -> AsyncIterator[Accepting]:
    with ExitStack() as stack:
        yield Accepting(listener, stack)


def error_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER.name]


async def test_accept(accepting: Accepting) -> None:
    """Each connection is handed over, non-blocking, with its peer's address."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            accepting.arrived = anyio.Event()
            peer = accepting.connect()
            await accepting.arrived.wait()
            connection, address = accepting.accepted[-1]
            assert address == peer.getsockname()
            assert connection.gettimeout() == 0
        tasks.cancel_scope.cancel()


async def test_close_listener(accepting: Accepting) -> None:
    """Closing the listener ends it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        await anyio.wait_all_tasks_blocked()
        close_listener(accepting.listener)


async def test_closed_by_connection(accepting: Accepting) -> None:
    """So does whoever closes it as soon as a connection is there; the others are not accepted."""
    accepting.connect()
    accepting.connect()
    on_connection = accepting.on_connection

    def close(connection: socket.socket, address: Any) -> None:
        on_connection(connection, address)
        close_listener(accepting.listener)

    await accept_forever(accepting.listener, close, LOGGER)

    assert len(accepting.accepted) == 1


async def test_closed_before(accepting: Accepting) -> None:
    """From a closed listener, nothing is accepted."""
    accepting.listener.close()
    await accepting.run()


async def test_turns(accepting: Accepting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of connections does not keep the event loop from other tasks."""
    monkeypatch.setattr(accepting_module, "_BATCH", 2)
    for _ in range(20):
        accepting.connect()
    seen = set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        while len(accepting.accepted) < 20:
            await anyio.lowlevel.checkpoint()
            seen.add(len(accepting.accepted))
        tasks.cancel_scope.cancel()

    assert len(seen) >= 4


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPROTO", "ENETDOWN", "EPERM"])
async def test_transient_error(
    accepting: Accepting, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of a few connections are not logged, and do not delay the next connection."""
    accepting.listener.errors = [getattr(errno, name)] * 99
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        accepting.connect()
        await accepting.arrived.wait()
        tasks.cancel_scope.cancel()
    assert error_lines(caplog) == []


@pytest.mark.parametrize("name", ["ECONNABORTED", "ENETDOWN", "EPERM"])
async def test_persistent_error(
    accepting: Accepting,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run of errors without a success in between: accepting pauses, and says so once."""
    monkeypatch.setattr(accepting_module, "_PAUSE", 0.001)
    accepting.listener.errors = [getattr(errno, name)] * 350
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        accepting.connect()
        await accepting.arrived.wait()
        tasks.cancel_scope.cancel()
    (line,) = error_lines(caplog)
    assert line == (
        f"accept() failed: [Errno {getattr(errno, name)}] forced. "
        "New connections wait until that is over."
    )


async def test_processor_time(accepting: Accepting) -> None:
    """An error that persists costs next to nothing."""
    accepting.listener.errors = [errno.EPERM] * 10_000_000
    accepting.connect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        await anyio.sleep(SOON)
        used = time.thread_time()
        await anyio.sleep(0.5)
        used = time.thread_time() - used
        tasks.cancel_scope.cancel()
    assert used < 0.1


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"])
async def test_out_of_resources(
    accepting: Accepting,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Accepting pauses, says so once, and resumes by itself."""
    monkeypatch.setattr(accepting_module, "_PAUSE", 0.001)
    accepting.listener.errors = [getattr(errno, name)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        accepting.connect()
        await accepting.arrived.wait()
        tasks.cancel_scope.cancel()
    (line,) = error_lines(caplog)
    assert line.startswith(f"accept() failed: [Errno {getattr(errno, name)}] forced. ")
    assert "ulimit -n" in line


@pytest.mark.parametrize("name", ["ENOMEM", "ENOBUFS"])
async def test_out_of_memory(
    accepting: Accepting, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a descriptor in reserve would not help, connections wait."""
    monkeypatch.setattr(accepting_module, "_PAUSE", 0.001)
    accepting.listener.errors = [getattr(errno, name)] * 5
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        accepting.connect()
        await accepting.arrived.wait()
        tasks.cancel_scope.cancel()


async def test_pause(accepting: Accepting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts, the loop does not spin."""
    monkeypatch.setattr(accepting_module, "_PAUSE", 1000)
    accepting.listener.errors = [errno.EMFILE] * 10
    accepting.connect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        with anyio.move_on_after(SOON):
            await anyio.sleep_forever()
        assert len(accepting.listener.errors) == 9
        tasks.cancel_scope.cancel()


async def test_closed_while_pausing(accepting: Accepting) -> None:
    """A listener that is closed when there are no resources is not tried again."""
    accepting.listener.errors = [errno.EMFILE]
    accepting.connect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        while accepting.listener.errors:
            await anyio.lowlevel.checkpoint()
        close_listener(accepting.listener)


async def test_episodes(
    accepting: Accepting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a while without such errors, the next one is news."""
    now = 100.0
    monkeypatch.setattr(anyio, "current_time", lambda: now)
    monkeypatch.setattr(accepting_module, "_PAUSE", 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        for delay, lines in ((0, 1), (9.9, 1), (9.9, 1), (10, 2), (1, 2)):
            now += delay
            accepting.listener.errors = [errno.EMFILE]
            accepting.arrived = anyio.Event()
            accepting.connect()
            await accepting.arrived.wait()
            assert len(error_lines(caplog)) == lines
        tasks.cancel_scope.cancel()


async def test_listener_fails(accepting: Accepting) -> None:
    """An error of the listening socket itself is raised."""
    accepting.listener.errors = [errno.EINVAL]
    accepting.connect()
    with pytest.raises(OSError, match="forced") as info:
        await accepting.run()
    assert info.value.errno == errno.EINVAL
