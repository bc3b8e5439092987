"""Run servers as a program, until a signal tells it to stop.

`signal.signal()` is what all event loops and platforms have: the handler counts, and wakes up the
loop. The loop's own means would be three, and none of them sees a signal that comes while the loop
starts.
"""

from __future__ import annotations

__all__ = ["EXIT_STUCK", "run"]

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import anyio
import anyio.lowlevel

from easynetwork._arguments import validated_delay, validated_runner_options
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._core.threads import occupied_threads
from easynetwork.servers.abc import AbstractAsyncNetworkServer

_Factory: TypeAlias = Callable[[], AbstractAsyncNetworkServer]
_Server: TypeAlias = BaseAsyncNetworkServer[Any, Any, Any, Any]

EXIT_STUCK: Final = 70
"""The exit status of a process that ends although request handlers still run.

They ignored their cancellation, which is a bug: EX_SOFTWARE of ``sysexits.h``.
"""

# SIGBREAK is what Control-Break sends, and `Popen.send_signal(CTRL_BREAK_EVENT)`, on Windows.
_SIGNALS: Final = [
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
]

_logger: Final = logging.getLogger(__name__)


def run(
    *factories: _Factory,
    backend: AsyncBackend | BuiltinAsyncBackendLiteral = "asyncio",
    grace: float = 10.0,
    runner_options: Mapping[str, Any] | None = None,
) -> None:
    """Run servers until the process gets SIGTERM or SIGINT (Control-C), then drain them.

    This is what the main block of a server program calls::

        if __name__ == "__main__":
            run(lambda: AsyncTCPNetworkServer(None, 9000, protocol, EchoRequestHandler()))

    The first signal has all servers drain at the same time: see
    `AbstractAsyncNetworkServer.shutdown()`. The second one stops them at once. Then this returns,
    without an exception. It also returns when all servers have been shut down in another way.

    If request handlers, or the threads of blocking ones, still run one second after their
    cancellation, nothing can end them. So this ends the process, with the exit status
    `EXIT_STUCK` (70): ``finally`` blocks, and functions registered with `atexit`, do not run.

    Signals that the process ignores, because its parent had them ignored, are ignored here, too. On
    Windows, SIGINT and SIGBREAK (Control-Break) can be sent.

    Args:
        *factories: Functions without arguments that return a server. They are called in the event
            loop. All servers are activated before the first one serves.
        backend: The backend, or its name.
        grace: Seconds that clients have to come to an end.
        runner_options: Keyword arguments of the function that runs the event loop:
            `asyncio.Runner` or `trio.run`.

    Raises:
        TypeError: There is no factory, or one has not returned an asynchronous server, or an
            argument is of the wrong type.
        ValueError: `grace` is negative or not a number.
        RuntimeError: This was not called in the main thread, the only one that gets signals. In
            others, use a standalone server.
        OSError: An address cannot be bound, or a name cannot be resolved.
        Exception: Whatever else one of the servers has failed with. The others are stopped.
        SystemExit: A factory, or ``service_init()`` of a handler, calls `sys.exit`.
    """
    validated_delay(grace)
    options = validated_runner_options(runner_options)
    if not factories:
        raise TypeError("run() needs at least one function that returns a server")
    for factory in factories:
        if not callable(factory):
            raise TypeError(f"run() takes functions that return a server, got {factory!r}")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "run() must be called in the main thread, the only one that gets signals. In other "
            "threads, use a standalone server"
        )
    program = _Program(grace)
    with _handling_signals(program.on_signal):
        ensure_backend(backend).bootstrap(program.main, factories, runner_options=options)
    if program.error is not None:
        try:
            raise program.error
        finally:
            program.error = None  # its traceback refers to this frame


@contextlib.contextmanager
def _handling_signals(handler: Callable[[int, Any], object]) -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = {number: old for number, old in handlers.items() if old != signal.SIG_IGN}
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in handled.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


class _Program:
    """One `run()`.

    Attributes:
        error: What the first server that failed has raised.
    """

    def __init__(self, grace: float) -> None:
        self.error: Exception | SystemExit | None = None
        self._grace = grace
        self._signals = 0  # that have arrived
        self._wake_up: Callable[[], object] = int  # the event loop; it does not run yet
        self._servers: list[_Server] = []
        self._shutdowns = 0  # that are going on
        self._is_stuck = False

    def on_signal(self, number: int, frame: object) -> None:
        """Handle a signal: called between any two instructions of the main thread."""
        self._signals += 1
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._wake_up()

    async def main(self, factories: Sequence[_Factory]) -> None:
        """Serve until told to stop."""
        self._arrived = anyio.Event()
        self._starting = anyio.CancelScope()
        token: Any = anyio.lowlevel.current_token().native_token
        call_soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon
        self._wake_up = lambda: call_soon(lambda: self._arrived.set())
        async with contextlib.AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            tasks.start_soon(self._obey_signals)
            with self._starting:
                try:
                    for factory in factories:
                        server = _checked(factory())
                        await stack.enter_async_context(server)
                        self._servers.append(server)
                except (Exception, SystemExit) as exc:
                    self.error = exc
            async with anyio.create_task_group() as serving:
                for server in self._servers:
                    serving.start_soon(self._serve, server)
            tasks.cancel_scope.cancel()
        if occupied_threads():
            _end_process()

    async def _serve(self, server: _Server) -> None:
        if self._signals or self.error is not None:
            return
        try:
            await server.serve_forever()  # from its first step on, shutdown() has an effect
            await server.server_close()  # refuses connections, whatever the others do
        except (Exception, SystemExit) as exc:
            if self.error is None:
                self.error = exc
            await self._shut_down_all(0.0)

    async def _obey_signals(self) -> None:
        async with anyio.create_task_group() as tasks:
            for count, grace in (1, self._grace), (2, 0.0):
                while self._signals < count:
                    self._arrived = anyio.Event()
                    await self._arrived.wait()
                self._starting.cancel()
                tasks.start_soon(self._shut_down_all, grace)

    async def _shut_down_all(self, grace: float) -> None:
        async with anyio.create_task_group() as tasks:
            for server in self._servers:
                tasks.start_soon(self._shut_down, server, grace)

    async def _shut_down(self, server: _Server, grace: float) -> None:
        self._shutdowns += 1
        try:
            self._is_stuck |= not await server._shut_down(grace)
        finally:
            self._shutdowns -= 1
        if self._is_stuck and not self._shutdowns:
            _end_process()


def _checked(server: object) -> _Server:
    if not isinstance(server, BaseAsyncNetworkServer):
        raise TypeError(f"Expected a function that returns an asynchronous server, got {server!r}")
    return server


def _end_process() -> NoReturn:
    """End the process although something runs that cannot be ended."""
    _logger.error("Ending the process with status %d: request handlers still run", EXIT_STUCK)
    logging.shutdown()
    for stream in sys.stdout, sys.stderr:
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(EXIT_STUCK)
