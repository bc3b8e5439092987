"""Virtual time: what the clock does, what stops it, and what is refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
import trio.testing

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers._core.threads import asynchronous_datagram_handler
from easynetwork.servers.blocking import BlockingClient, BlockingDatagramRequestHandler
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import _virtual_time, _virtual_trio, virtual_time
from tests.times import MS, PATIENCE, SOON

REFUSED = "^Virtual time does not wait for real sockets, pipes and processes"


YEARS = 1e8  # seconds


def eager_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = virtual_time("asyncio")["loop_factory"]()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


class Runner:
    """Runs coroutines in virtual time: not by the fixtures, whose time limit would be virtual."""

    def __init__(self, backend: str, options: dict[str, Any]) -> None:
        self.backend = backend
        self.options = options

    def __call__(self, main: Callable[..., Awaitable[Any]], *args: object) -> Any:
        return anyio.run(main, *args, backend=self.backend, backend_options=self.options)


ASYNCIO = [pytest.param(Runner("asyncio", virtual_time()), id="asyncio")]
if sys.version_info >= (3, 12):
    ASYNCIO.append(pytest.param(Runner("asyncio", {"loop_factory": eager_loop}), id="eager"))
TRIO = pytest.param(Runner("trio", virtual_time("trio")), id="trio")

each_runner = pytest.mark.parametrize("run", [*ASYNCIO, TRIO])
each_asyncio = pytest.mark.parametrize("run", ASYNCIO)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads have little time to call the loop when nothing else can happen."""
    for module in (_virtual_time, _virtual_trio):
        monkeypatch.setattr(module, "GRACE", SOON)


# -- the clock


async def fail_after() -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(300):
        await anyio.sleep_forever()


async def sleep() -> None:
    await anyio.sleep(300)


async def asyncio_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(300):
            await asyncio.Event().wait()


async def call_later() -> None:
    is_over = asyncio.Event()
    asyncio.get_running_loop().call_later(300, is_over.set)
    await is_over.wait()


async def took_no_time(wait: Callable[[], Awaitable[None]]) -> None:
    """Check that waiting takes 300 seconds, and really next to nothing."""
    real = math.inf
    for _ in range(5):  # the machine may be busy with something else
        start, real_start = anyio.current_time(), time.perf_counter()
        await wait()
        real = min(real, time.perf_counter() - real_start)
        assert anyio.current_time() - start == 300
    assert real < 10 * MS


@each_runner
@pytest.mark.parametrize("wait", [fail_after, sleep])
def test_jump(run: Runner, wait: Callable[[], Awaitable[None]]) -> None:
    """A wait of minutes takes milliseconds."""
    run(took_no_time, wait)


@each_asyncio
@pytest.mark.parametrize("wait", [asyncio_timeout, call_later])
def test_jump_asyncio(run: Runner, wait: Callable[[], Awaitable[None]]) -> None:
    """So it does with asyncio's own means."""
    run(took_no_time, wait)


@each_runner
def test_same_times(run: Runner) -> None:
    """The same program sees the same times, in each run with the same options."""

    async def main() -> list[tuple[float, str]]:
        seen = []

        async def tick(name: str, seconds: float) -> None:
            for _ in range(3):
                await anyio.sleep(seconds)
                seen.append((anyio.current_time(), name))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick, "slow", 100)
            tasks.start_soon(tick, "quick", 0.1)
        return seen

    expected = [(0.1, "quick"), (0.2, "quick"), (0.1 + 0.1 + 0.1, "quick")]
    expected += [(100.0, "slow"), (200.0, "slow"), (300.0, "slow")]
    assert run(main) == run(main) == expected


@each_runner
def test_years(run: Runner) -> None:
    """The clock goes on after so long a time that a nanosecond does not change it."""

    async def main() -> None:
        await anyio.sleep(YEARS)
        await anyio.sleep(0.1)
        assert anyio.current_time() == pytest.approx(YEARS + 0.1, abs=1e-5)

    run(main)


@each_runner
def test_ready_tasks_first(run: Runner) -> None:
    """Time passes only when no task can go on, be it ever so busy."""

    async def main() -> None:
        with anyio.move_on_after(0.001) as scope:
            for _ in range(1000):
                await anyio.lowlevel.checkpoint()
        assert not scope.cancelled_caught
        assert anyio.current_time() == 0

    run(main)


@pytest.mark.skipif(sys.platform == "win32", reason="event loops handle no signals there")
@each_asyncio
def test_signal_first(run: Runner) -> None:
    """What has happened already is dealt with before time passes."""

    async def main() -> None:
        loop, is_set = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, is_set.set)
        async with asyncio.timeout(100):
            os.kill(os.getpid(), signal.SIGUSR1)
            await is_set.wait()
        assert loop.time() == 0

    run(main)


def test_trio_call_first() -> None:
    """So is what another thread has asked trio to call."""

    async def main() -> None:
        is_set, token = trio.Event(), trio.lowlevel.current_trio_token()
        with trio.fail_after(100):
            await trio.sleep(1)
            token.run_sync_soon(is_set.set)
            await is_set.wait()
        assert trio.current_time() == 1

    trio.run(main, **virtual_time("trio"))


@each_runner
def test_runs_at_the_same_time(run: Runner) -> None:
    """Each thread's run has a clock of its own, with the same options as well."""
    barrier = threading.Barrier(2, timeout=PATIENCE)

    async def main(seconds: float) -> float:
        await anyio.to_thread.run_sync(barrier.wait)
        await anyio.sleep(seconds)
        await anyio.to_thread.run_sync(barrier.wait)
        return anyio.current_time()

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        assert [*executor.map(lambda seconds: run(main, seconds), (1, 500))] == [1, 500]


def test_wait_all_tasks_blocked() -> None:
    """The way of trio to let other tasks go first takes precedence over the clock."""

    async def main(cushion: float) -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 10)
            await trio.testing.wait_all_tasks_blocked(cushion)
            return trio.current_time()

    for cushion in (0, 0.01):
        assert trio.run(main, cushion, **virtual_time("trio")) == 0


# -- threads


async def anyio_thread() -> None:
    await anyio.to_thread.run_sync(time.sleep, SOON)


async def limited_thread() -> None:
    await anyio.to_thread.run_sync(time.sleep, SOON, limiter=anyio.CapacityLimiter(1))


async def in_generator() -> None:
    async def generate() -> AsyncIterator[None]:
        await anyio_thread()
        yield

    async for _ in generate():
        pass


async def asyncio_thread() -> None:
    await asyncio.to_thread(time.sleep, SOON)


async def executor() -> None:
    with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="mine") as pool:
        await asyncio.get_running_loop().run_in_executor(pool, time.sleep, SOON)


async def trio_thread() -> None:
    await trio.to_thread.run_sync(time.sleep, SOON)


async def thread_and_sleep(wait: Callable[[], Awaitable[None]]) -> None:
    """Check that the clock does not move while a thread works, and moves on afterwards."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 100)
        start = time.perf_counter()
        await wait()
        assert time.perf_counter() - start > 0.9 * SOON
        assert anyio.current_time() == 0
    assert anyio.current_time() == 100


@each_runner
@pytest.mark.parametrize("wait", [anyio_thread, limited_thread, in_generator])
def test_thread(run: Runner, wait: Callable[[], Awaitable[None]]) -> None:
    """The clock stands still while a worker thread runs."""
    run(thread_and_sleep, wait)


@each_asyncio
@pytest.mark.parametrize("wait", [asyncio_thread, executor])
def test_asyncio_thread(run: Runner, wait: Callable[[], Awaitable[None]]) -> None:
    """So it does for asyncio's ways to run one."""
    run(thread_and_sleep, wait)


def test_trio_thread() -> None:
    """So it does for trio's."""
    trio.run(thread_and_sleep, trio_thread, **virtual_time("trio"))


@each_runner
def test_thread_calls_back(run: Runner) -> None:
    """A worker thread that waits for the event loop does not stop the clock; one beside it does."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio_thread)
            await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 300)
        assert anyio.current_time() == 300

    async def beside() -> float:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, anyio.from_thread.run, anyio.sleep, 300)
            await anyio_thread()
            now = anyio.current_time()
        return now

    run(main)
    assert run(beside) == 0


@each_runner
def test_waiting_for_a_thread(run: Runner) -> None:
    """A task that waits for a free thread does not stop the clock."""

    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)

        async def call() -> None:
            sleep = functools.partial(anyio.from_thread.run, anyio.sleep, 300)
            await anyio.to_thread.run_sync(sleep, limiter=limiter)

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(call)
        assert anyio.current_time() == 600

    run(main)


@each_asyncio
def test_default_executor_ends(run: Runner) -> None:
    """Threads of asyncio that are still at work when the loop ends are waited for."""

    async def main() -> None:
        task = asyncio.create_task(asyncio.to_thread(time.sleep, SOON))
        await asyncio.sleep(0)
        task.cancel()

    run(main)  # a warning is an error


class Handler(BlockingDatagramRequestHandler[Any, Any]):
    """Calls a function in its thread."""

    def __init__(self, call: Callable[[BlockingClient[Any, Any]], object]) -> None:
        super().__init__(max_threads=1)
        self.call = call

    def handle(self, client: BlockingClient[Any, Any], /) -> None:
        self.call(client)


async def served(call: Callable[[BlockingClient[Any, Any]], object], clients: int = 1) -> None:
    """Have a blocking handler serve clients that never send a packet, one after the other."""

    async def send_packet(packet: float) -> None:
        await anyio.sleep(packet)

    async def serve() -> None:
        client: Any = SimpleNamespace(is_closing=lambda: False, send_packet=send_packet)
        generator = handler.handle(client)
        with contextlib.suppress(StopAsyncIteration):
            timeout = await anext(generator)
            while True:
                assert isinstance(timeout, float | int)
                await anyio.sleep(timeout)
                timeout = await generator.athrow(TimeoutError("timed out"))

    logger = logging.getLogger("test")
    logger.setLevel(logging.ERROR)  # that clients wait for a thread is meant
    handler = asynchronous_datagram_handler(Handler(call))
    async with contextlib.AsyncExitStack() as stack:
        await handler.service_init(stack, SimpleNamespace(logger=logger))
        async with anyio.create_task_group() as tasks:
            for _ in range(clients):
                tasks.start_soon(serve)


@each_runner
def test_blocking_handler_works(run: Runner) -> None:
    """The clock stands still while a blocking handler works."""

    async def main() -> None:
        with anyio.fail_after(60):
            await served(lambda client: time.sleep(SOON))
        assert anyio.current_time() < 1

    run(main)


@each_runner
def test_thread_that_calls_while_threads_are_looked_at(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock does not jump: the loop has something to do, though it has just had nothing."""

    def look_late(jobs: int) -> bool:
        time.sleep(0.01)
        return are_threads_at_work(jobs)

    are_threads_at_work = _virtual_time.are_threads_at_work
    for module in (_virtual_time, _virtual_trio):
        monkeypatch.setattr(module, "are_threads_at_work", look_late)

    def handle(client: BlockingClient[Any, Any]) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                client.recv_packet(timeout=300)
            time.sleep(0.002)
        client.send_packet(1.0)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 5000)
            await served(handle)
            assert anyio.current_time() < 1000

    run(main)


@each_runner
def test_blocking_handler_waits(run: Runner) -> None:
    """It goes on while the handler waits for its client, and stands still again after that."""

    def handle(client: BlockingClient[Any, Any]) -> None:
        for _ in range(10):
            with pytest.raises(TimeoutError):
                client.recv_packet(timeout=300)
            time.sleep(SOON / 10)
        client.send_packet(50.0)
        times.append(anyio.from_thread.run_sync(anyio.current_time, token=tokens[0]))

    async def main() -> None:
        tokens.append(anyio.lowlevel.current_token())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 5000)
            await served(handle)
            assert anyio.current_time() < 3051

    tokens: list[Any] = []
    times: list[float] = []
    run(main)
    assert times == [3050]


@each_runner
def test_waiting_for_the_blocking_handler(run: Runner) -> None:
    """Clients that wait for a thread do not stop the clock."""

    def handle(client: BlockingClient[Any, Any]) -> None:
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=300)

    async def main() -> None:
        await served(handle, clients=3)
        assert 900 <= anyio.current_time() < 901

    run(main)


@each_runner
def test_stopped_service(run: Runner) -> None:
    """When a server stops, the clock stands still until its threads have finished."""

    def handle(client: BlockingClient[Any, Any]) -> None:
        is_started.set()
        time.sleep(SOON)
        ends.append(time.perf_counter())

    async def main() -> float:
        is_started.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(served, handle)
            while not is_started.is_set():
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert ends[-1] < time.perf_counter()
        return anyio.current_time()

    is_started, ends = threading.Event(), [math.inf]
    assert run(main) < 0.1


# -- what takes real time


@contextlib.asynccontextmanager
async def refusal() -> AsyncIterator[None]:
    """Check that there is the error, be it in a group or not."""
    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        yield
    errors: list[BaseException] = [caught.value]
    while isinstance(errors[0], BaseExceptionGroup):
        errors = [*errors[0].exceptions]
    assert len(errors) == 1
    assert isinstance(errors[0], RuntimeError)
    with pytest.raises(RuntimeError, match=REFUSED):
        raise errors[0]


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> Any:
        yield


@each_runner
def test_socket(run: Runner) -> None:
    """A task that waits for a socket gets an error, and can go on; so can the others."""

    async def main() -> None:
        one, other = socket.socketpair()
        with one, other:
            other.send(b"hello")  # ready or not
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 10)
                for sock in (one, other):
                    for wait in (anyio.wait_readable, anyio.wait_writable):
                        async with refusal():
                            await wait(sock)
                await anyio.sleep(5)
                anyio.notify_closing(one)
            assert anyio.current_time() == 10

    run(main)


@each_runner
def test_cancelled_wait(run: Runner) -> None:
    """A wait that is cancelled already ends by that."""

    async def main() -> None:
        one, other = socket.socketpair()
        with one, other:
            with anyio.CancelScope() as scope:
                scope.cancel()
                with contextlib.suppress(RuntimeError):  # asyncio cancels later
                    await anyio.wait_readable(one)
            async with refusal():
                await anyio.wait_readable(one)

    run(main)


@each_runner
def test_servers_and_clients(run: Runner) -> None:
    """Servers and clients with sockets say so, whichever of the libraries they are of."""
    protocol = StreamProtocol(StringLineSerializer())

    async def main() -> None:
        async with AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Echo()) as server:
            async with refusal():
                await server.serve_forever()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            async with refusal():
                await AsyncTCPNetworkClient(address, protocol).wait_connected()
            client = AsyncTCPNetworkClient(socket.create_connection(address), protocol)
            async with refusal(), client:
                await client.recv_packet()
            async with refusal():
                await anyio.connect_tcp(*address)

    run(main)


@each_asyncio
def test_asyncio_sockets(run: Runner) -> None:
    """What asyncio would only log comes out of the call."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        one, other = socket.socketpair()
        one.setblocking(False)
        with one, other:
            for add in (loop.add_reader, loop.add_writer):
                async with refusal():
                    add(one.fileno(), print)
            for call in (
                loop.sock_recv(one, 1),
                loop.create_connection(asyncio.Protocol, sock=one),
                loop.connect_accepted_socket(asyncio.Protocol, one),
                loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=one),
                loop.connect_read_pipe(asyncio.Protocol, one),
                asyncio.start_server(print, "127.0.0.1", 0),
                asyncio.open_connection("127.0.0.1", 1),
                anyio.run_process([sys.executable, "-c", ""]),
            ):
                async with refusal():
                    await call
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, socket.socket() as sock:
            sock.setblocking(False)
            async with refusal():
                await loop.sock_connect(sock, listener.getsockname())

    run(main)


def test_public_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error arrives as well if trio's private name is gone."""

    async def main() -> None:
        one, other = socket.socketpair()
        with one, other, monkeypatch.context() as patch:
            patch.delattr(trio.lowlevel.Task, "_attempt_abort")
            await trio.lowlevel.wait_readable(one)

    with pytest.raises(RuntimeError, match=REFUSED):
        trio.run(main, **virtual_time("trio"))


# -- when nothing can happen


@each_runner
@pytest.mark.usefixtures("no_grace")
def test_stuck(run: Runner) -> None:
    """If no task can ever go on, an error names those that wait, and the lines where they do."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await anyio_thread()  # whose worker is idle from now on
            tasks.start_soon(anyio.sleep_forever, name="the other one")
            await anyio.Event().wait()

    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        run(main)
    error = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    message = str(error)
    assert message.startswith(
        "Nothing can happen any more: every task waits, and there is no timer"
    )
    assert "\n  the other one" in message
    line = main.__code__.co_firstlineno + 4
    assert f"main, in test_stuck.<locals>.main ({__file__}:{line})" in message


@pytest.mark.parametrize("prefix", ["", "of the program"])
def test_executor_of_the_program(prefix: str) -> None:
    """Its threads may wait for the event loop, whatever their names are."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(300), loop).result()

        with concurrent.futures.ThreadPoolExecutor(1, prefix) as executor:
            await loop.run_in_executor(executor, work)
        assert loop.time() == 300

    anyio.run(main, backend_options=virtual_time())


@each_runner
def test_portal(run: Runner) -> None:
    """So may those that use a portal."""

    async def main() -> None:
        async with anyio.from_thread.BlockingPortal() as portal:
            await anyio.to_thread.run_sync(portal.call, anyio.sleep, 300)
        assert anyio.current_time() == 300

    run(main)


@pytest.mark.usefixtures("no_grace")
def test_submitted_work() -> None:
    """What an executor computes may be what a task waits for."""

    async def main() -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            await asyncio.wrap_future(executor.submit(time.sleep, 3 * SOON))
            done.append("the work")
            await anyio.sleep_forever()

    done: list[str] = []
    with pytest.raises(RuntimeError, match="Nothing can happen"):
        anyio.run(main, backend_options=virtual_time())
    assert done


@each_runner
@pytest.mark.usefixtures("no_grace")
def test_called_by_another_thread(run: Runner) -> None:
    """Another thread may still call the loop."""

    async def main() -> None:
        is_set, token = anyio.Event(), anyio.lowlevel.current_token()

        def call() -> None:
            time.sleep(3 * SOON)
            anyio.from_thread.run_sync(is_set.set, token=token)

        thread = threading.Thread(target=call)
        thread.start()
        await is_set.wait()
        await anyio.to_thread.run_sync(thread.join)

    run(main)


# -- the function


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("uvloop", "^uvloop's clock is real: virtual time needs 'asyncio' or 'trio'$"),
        ("curio", "^There is no virtual time for 'curio', only for asyncio and trio$"),
    ],
)
def test_unknown_backend(backend: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        virtual_time(backend)


def test_trio_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trio, asking for it tells what to install; asyncio works."""
    monkeypatch.delitem(sys.modules, "easynetwork.testing._virtual_trio")
    monkeypatch.setitem(sys.modules, "trio", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        virtual_time("trio")
    assert virtual_time("asyncio")
