"""Standalone servers under the hands of many threads, of processes that fork, and of signals."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork._tuning import STOP_TIMEOUT
from easynetwork.exceptions import ServerClosedError
from tests.clients.threads_support import InThread, fork, wait_until
from tests.conftest import ALL_TESTS
from tests.servers.standalone_support import (
    TCP,
    GatedBackend,
    Hooks,
    Kind,
    each_kind,
    each_loop,
    loop_options,
    serving,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.in_turn

ROOT = Path(__file__).resolve().parents[2]

THREADS = 8
CALLS = 1000  # in each round, by all threads together
ROUNDS = 5 if ALL_TESTS else 2  # with other random numbers each


@pytest.fixture(autouse=True)
def restless_interpreter() -> Iterator[None]:
    """Let threads take turns much more often than usual, in the middle of whatever they do."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def hammer(server: Any, seed: int, once: Callable[[], object]) -> None:
    """Call methods at random from many threads while the server runs, again and again.

    Args:
        server: The server.
        seed: Of the random numbers.
        once: Also called, once, at a random moment.
    """
    questions = [server.is_serving, server.get_addresses, server.get_sockets] * 3
    methods = [*questions, lambda: repr(server.get_sockets()), server.shutdown]
    moment = random.Random(seed).randrange(CALLS)
    begin = threading.Barrier(THREADS + 1)

    def call_methods(numbers: range) -> None:
        rng = random.Random(f"{seed} {numbers}")
        begin.wait(PATIENCE)
        for number in numbers:
            rng.choice(methods)()
            if number == moment:
                once()

    def serve() -> None:
        begin.wait(PATIENCE)
        with contextlib.suppress(ServerClosedError):
            while not all(not call.is_waiting() for call in callers):
                server.serve_forever()

    callers = [InThread(call_methods, range(first, CALLS, THREADS)) for first in range(THREADS)]
    run = InThread(serve)
    for call in callers:
        call.result()
    wait_until(
        lambda: server.shutdown() or not run.is_waiting()
    )  # it may be about to serve once more
    run.result()


@each_kind
@each_loop
@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("closes", [False, True], ids=["", "closes"])
def test_many_threads(
    kind: Kind, loop: str, seed: int, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever threads call and when, nothing hangs, nothing fails, each run ends cleanly."""
    caplog.set_level(logging.INFO, "easynetwork")
    server = kind.new_server(**loop_options(loop))
    hammer(server, seed, server.server_close if closes else server.is_serving)
    assert {record.levelno for record in caplog.records} <= {logging.INFO}
    assert [record.getMessage() for record in caplog.records][-1:] in ([], ["Server stopped"])
    assert server.is_serving() is False
    assert server.get_addresses() == server.get_sockets() == ()
    if closes:
        with pytest.raises(ServerClosedError):
            server.serve_forever()


# -- Processes that fork -----------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def in_child(function: Callable[[], object]) -> int:
    """Call a function in a child that forks off here; return how that ended, 0 if it succeeded."""
    return os.waitpid(fork(with_alarm, function), 0)[1]


def with_alarm(function: Callable[[], object]) -> None:
    """Call a function, and end the process should it wait all the same."""
    signal.alarm(int(PATIENCE))
    function()


@needs_fork
@each_kind
@each_loop
def test_fork(kind: Kind, loop: str) -> None:
    """A server that runs in a thread does not run in the child, where it can be run anew."""
    server = kind.new_server(**loop_options(loop))

    def use_server() -> None:
        assert server.is_serving() is False
        assert server.get_addresses() == server.get_sockets() == ()
        server.shutdown()
        assert sockets[0].fileno() == -1  # the parent's
        with serving(server), kind.connected(server) as peer:
            assert peer.ask("from the child") == "from the child"
            assert server.get_addresses() != addresses
        server.server_close()

    with serving(server):
        addresses, sockets = server.get_addresses(), server.get_sockets()
        assert in_child(use_server) == 0
        with kind.connected(server) as peer:
            assert peer.ask("from the parent") == "from the parent"


@needs_fork
@each_kind
def test_fork_while_starting(kind: Kind) -> None:
    """Nobody in the child waits for a start that happens in the parent."""
    backend = GatedBackend()
    server = kind.new_server(backend=backend)
    run = InThread(server.serve_forever).waits_in("wait")

    def use_server() -> None:
        assert server.get_addresses() == ()
        server.server_close()

    assert in_child(use_server) == 0
    backend.gate.set()
    wait_until(server.is_serving)
    server.shutdown()
    run.result()


@needs_fork
def test_fork_while_a_lock_is_held() -> None:
    """Nobody in the child waits for a thread of the parent."""
    server = TCP.new_server()
    with serving(server):
        (sock,) = server.get_sockets()
        run = server._run
        with server._lock:
            assert InThread(in_child, server.server_close).result() == 0
        with run._lock:
            assert InThread(in_child, sock.fileno).result() == 0
        # Each is held for a moment while another thread waits for the event, or sets it.
        for event in run.finished, run.stopped, run._reachable, run._started:
            with event._cond:
                assert InThread(in_child, server.is_serving).result() == 0


# -- Signals -----------------------------------------------------------------------------------

PROGRAM = """
import signal
import sys
import threading

from tests.clients.threads_support import InThread, fork, wait_until
from tests.servers.standalone_support import TCP, Hooks, loop_options


class Handler(Hooks):
    async def prepare(self, server):
        if moment == "starting":
            await self.announce(server)

    async def answer(self, client, request):
        print("asked", flush=True)
        await client.backend().sleep_forever()

    async def announce(self, server):
        print("starting", flush=True)
        await server.backend().sleep_forever()


class Up:
    def set(self):
        print(server.get_addresses()[0].port, flush=True)


loop, moment = sys.argv[1:]
server = TCP.new_server(Handler, **loop_options(loop))
if moment == "terminated":
    signal.signal(signal.SIGTERM, lambda signum, frame: server.shutdown(timeout=0))
server.serve_forever(is_up_event=Up())
print("over", flush=True)
"""


class Program:
    """A program of the test in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *args: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def stop(self, signum: signal.Signals) -> tuple[int, str, str, float]:
        """Send a signal; return exit status, what it still prints, errors, seconds to the end."""
        start = time.monotonic()
        self.process.send_signal(signum)
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors, time.monotonic() - start


def in_a_second(stop: Callable[[], float]) -> bool:
    """Whether it takes less than a second to stop a program, unless the machine is busy."""
    return any(stop() < 1 for _ in range(3))


@pytest.mark.in_turn
@each_loop
@pytest.mark.parametrize("moment", ["starting", "serving"])
def test_control_c(loop: str, moment: str) -> None:
    """Control-C ends the program at once, as Python programs end, and says no more than they do."""

    def stop() -> float:
        with Program(loop, moment) as program, contextlib.ExitStack() as stack:
            line = program.line()
            if moment == "serving":
                stack.enter_context(TCP.connected(_At(int(line)))).send("hello")
                line = program.line()
            assert line == {"starting": "starting", "serving": "asked"}[moment]
            status, output, errors, seconds = program.stop(signal.SIGINT)
        assert status == -signal.SIGINT  # to a shell: 130
        assert output == ""
        assert errors.startswith("Traceback (most recent call last):\n")
        assert errors.endswith("\nKeyboardInterrupt\n")
        assert errors.count("Traceback") == 1
        assert "Error" not in errors
        return seconds

    assert in_a_second(stop)


@each_loop
def test_signal(loop: str) -> None:
    """The handler of a signal may ask for the end; serve_forever() returns, the program goes on."""

    def stop() -> float:
        with Program(loop, "terminated") as program:
            with TCP.connected(_At(int(program.line()))) as peer:
                peer.send("hello")
                assert program.line() == "asked"
                status, output, errors, seconds = program.stop(signal.SIGTERM)
        assert (status, output, errors) == (0, "over\n", "")
        return seconds

    assert in_a_second(stop)


class _At:
    """Something that listens on a port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get_addresses(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", self.port)]


@each_kind
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_shutdown_with_a_stubborn_handler(
    kind: Kind,
    backend: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A handler that ignores its cancellation is reported; only the thread waits for it."""
    stop_timeout = STOP_TIMEOUT / 5
    for module in (
        *("backends.asyncio.tasks", "servers._core.life_cycle"),
        *("servers._core.run", "servers._core.threads"),
    ):
        monkeypatch.setattr(f"easynetwork.{module}.STOP_TIMEOUT", stop_timeout)
    ignoring, released = threading.Event(), threading.Event()

    class Stubborn(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            ignoring.set()
            while not released.is_set():
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep(0.01)
            return request

    server = kind.new_server(Stubborn, backend=backend)
    with serving(server), kind.connected(server) as peer:
        peer.send("hello")
        assert ignoring.wait(PATIENCE)
        begin = time.monotonic()
        server.shutdown()
        assert 0.9 < (time.monotonic() - begin) / stop_timeout < 10
        released.set()
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert f"Still running {stop_timeout} seconds after being cancelled" in record.getMessage()
