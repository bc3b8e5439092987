"""One more event loop, for the tests of transports."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest

from tests.backends.pairs import LoopWithoutReaders


@pytest.fixture(scope="session")
def selector_thread() -> None:
    """Let anyio start the thread that waits for sockets where a loop does not; it is kept."""

    async def wait_once() -> None:
        one, other = socket.socketpair()
        with one, other:
            await anyio.wait_writable(one)

    with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
        runner.run(wait_once())
