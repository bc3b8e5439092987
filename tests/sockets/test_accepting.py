from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import INETSocketAttribute
from easynetwork.backends import ensure_backend, socket_listener
from easynetwork.backends.abc import Incoming
from easynetwork.backends.socket_listener import SocketListener
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.sockets import accepting as accepting_module
from tests.times import SOON

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

    def __init__(self, sock: FailingListener, stack: ExitStack) -> None:
        self.sock = sock
        self.listener = SocketListener(sock, ensure_backend(None), 1000, ServerLog(LOGGER).log)
        self.accepted: list[Incoming] = []
        self.arrived = anyio.Event()
        self._stack = stack

    async def admit(self, incoming: Incoming) -> None:
        self._stack.callback(incoming.transport.abort)
        self.accepted.append(incoming)
        self.arrived.set()

    def connect(self) -> socket.socket:
        return self._stack.enter_context(socket.create_connection(self.sock.getsockname()))

    async def run(self) -> None:
        await self.listener.accept_forever(self.admit)


@pytest.fixture
def sock() -> Iterator[FailingListener]:
    with FailingListener() as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


@pytest.fixture
async def accepting(sock: FailingListener, anyio_backend: object) -> AsyncIterator[Accepting]:
    with ExitStack() as stack:
        yield Accepting(sock, stack)


def error_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER.name]


async def test_accept(accepting: Accepting) -> None:
    """Each connection is handed over, non-blocking, with the addresses of its ends."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            accepting.arrived = anyio.Event()
            peer = accepting.connect()
            await accepting.arrived.wait()
            incoming = accepting.accepted[-1]
            assert incoming.address == peer.getsockname()
            assert incoming.local_address == peer.getpeername()
            proxy = incoming.transport.extra_attributes[INETSocketAttribute.socket]()
            assert not os.get_blocking(proxy.fileno())
        tasks.cancel_scope.cancel()


async def test_close_listener(accepting: Accepting) -> None:
    """Closing the listener ends it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        await anyio.wait_all_tasks_blocked()
        accepting.listener.close()


async def test_closed_by_connection(accepting: Accepting) -> None:
    """So does closing it as soon as a connection is there; the others are not accepted."""
    accepting.connect()
    accepting.connect()

    async def close(incoming: Incoming) -> None:
        await accepting.admit(incoming)
        accepting.listener.close()

    await accepting.listener.accept_forever(close)

    assert len(accepting.accepted) == 1


async def test_closed_before(accepting: Accepting) -> None:
    """From a closed listener, nothing is accepted."""
    accepting.listener.close()
    await accepting.run()


async def test_waits_for_admission(accepting: Accepting) -> None:
    """While one connection is being admitted, no other one is accepted."""
    admitted = anyio.Event()

    async def admit(incoming: Incoming) -> None:
        await accepting.admit(incoming)
        await admitted.wait()

    accepting.connect()
    accepting.connect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.listener.accept_forever, admit)
        await accepting.arrived.wait()
        await anyio.sleep(SOON)
        assert len(accepting.accepted) == 1
        accepting.arrived = anyio.Event()
        admitted.set()
        await accepting.arrived.wait()
        assert len(accepting.accepted) == 2
        tasks.cancel_scope.cancel()


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
    accepting.sock.errors = [getattr(errno, name)] * 99
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
    monkeypatch.setattr(socket_listener, "PAUSE", 0.001)
    accepting.sock.errors = [getattr(errno, name)] * 350
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


@pytest.mark.cost
async def test_processor_time(accepting: Accepting) -> None:
    """An error that persists costs next to nothing."""
    accepting.sock.errors = [errno.EPERM] * 10_000_000
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
    monkeypatch.setattr(socket_listener, "PAUSE", 0.001)
    accepting.sock.errors = [getattr(errno, name)]
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
    monkeypatch.setattr(socket_listener, "PAUSE", 0.001)
    accepting.sock.errors = [getattr(errno, name)] * 5
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        accepting.connect()
        await accepting.arrived.wait()
        tasks.cancel_scope.cancel()


async def test_pause(accepting: Accepting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts, the loop does not spin."""
    monkeypatch.setattr(socket_listener, "PAUSE", 1000)
    accepting.sock.errors = [errno.EMFILE] * 10
    accepting.connect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        with anyio.move_on_after(SOON):
            await anyio.sleep_forever()
        assert len(accepting.sock.errors) == 9
        tasks.cancel_scope.cancel()


async def test_closed_while_pausing(accepting: Accepting) -> None:
    """A listener that is closed when there are no resources is not tried again."""
    accepting.sock.errors = [errno.EMFILE]
    accepting.connect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        while accepting.sock.errors:
            await anyio.lowlevel.checkpoint()
        accepting.listener.close()


async def test_episodes(
    accepting: Accepting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a while without such errors, the next one is news."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(socket_listener, "PAUSE", 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.run)
        for delay, lines in ((0, 1), (9.9, 1), (9.9, 1), (10, 2), (1, 2)):
            now += delay
            accepting.sock.errors = [errno.EMFILE]
            accepting.arrived = anyio.Event()
            accepting.connect()
            await accepting.arrived.wait()
            assert len(error_lines(caplog)) == lines
        tasks.cancel_scope.cancel()


async def test_listener_fails(accepting: Accepting) -> None:
    """An error of the listening socket itself is raised."""
    accepting.sock.errors = [errno.EINVAL]
    accepting.connect()
    with pytest.raises(OSError, match="forced") as info:
        await accepting.run()
    assert info.value.errno == errno.EINVAL
