"""What the tests of blocking handlers share: handlers that keep notes from any thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import anyio

from easynetwork.servers.blocking import (
    BlockingClient,
    BlockingDatagramRequestHandler,
    BlockingStreamRequestHandler,
)
from tests.times import PATIENCE

Client: TypeAlias = BlockingClient[str, str]

# How the threads of handlers are called.
THREAD_NAME = "request handler"


class Notes:
    """Keeps notes that any thread writes, and lets threads wait for the test.

    Attributes:
        released: For methods that wait until the test lets them go on.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.released = threading.Event()

    def note(self, what: str) -> None:
        self.notes.append(what)

    def wait(self) -> None:
        """Block the thread until the test releases it."""
        assert self.released.wait(PATIENCE)

    async def noted(self, what: str, times: int = 1) -> None:
        """Wait until something has been noted that often."""
        while self.notes.count(what) < times:
            await anyio.sleep(0.001)

    @contextlib.contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Note what is raised in the block, and let it through."""
        try:
            yield
        except BaseException as exc:
            self.note(type(exc).__name__)
            raise


class Echo(Notes, BlockingStreamRequestHandler[str, str]):
    """Echoes lines, and keeps notes. A test overrides the method that it is about."""

    def __init__(self, max_threads: int = 10) -> None:
        Notes.__init__(self)
        BlockingStreamRequestHandler.__init__(self, max_threads=max_threads)

    def on_connection(self, client: Client) -> None:
        self.note("on_connection")

    def handle(self, client: Client) -> None:
        for request in client.packets():
            client.send_packet(self.answer(client, request))

    def answer(self, client: Client, request: str) -> str:
        return request

    def on_disconnection(self, client: Client) -> None:
        self.note("on_disconnection")


class DatagramEcho(Notes, BlockingDatagramRequestHandler[str, str]):
    """Echoes a datagram, and keeps notes. A test overrides the method that it is about."""

    def __init__(self, max_threads: int = 10) -> None:
        Notes.__init__(self)
        BlockingDatagramRequestHandler.__init__(self, max_threads=max_threads)

    def handle(self, client: Client) -> None:
        with self.noting_errors():
            request = client.recv_packet()
        client.send_packet(self.answer(client, request))

    def answer(self, client: Client, request: str) -> str:
        return request


def handler_threads() -> list[threading.Thread]:
    """Return the threads of handlers that run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


async def threads_ended() -> None:
    """Wait until no thread of a handler runs."""
    with anyio.fail_after(PATIENCE):
        while handler_threads():
            await anyio.sleep(0.001)


class Stopwatch:
    """Measures the seconds that a block takes.

    Attributes:
        elapsed: The seconds.
    """

    elapsed = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.monotonic()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.elapsed = time.monotonic() - self._start
