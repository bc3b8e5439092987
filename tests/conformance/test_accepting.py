"""Accepting connections when the process has run out of descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from tests.conformance.support import Peer, Recorder, Records, Serve

resource = pytest.importorskip("resource")

pytestmark = pytest.mark.anyio


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let the process open no more files while the block runs."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_out_of_descriptors(serve: Serve, log: Records) -> None:
    """Accepting pauses, with one line in the log, and goes on by itself; the others are served."""
    async with serve(Recorder()) as service:
        old = await service.connect()
        assert await old.ask("hello") == "hello"
        spare = os.dup(0)
        [address] = service.server.get_addresses()
        new = [Peer(address, connects=False) for _ in range(3)]
        service.peers += new
        with no_more_descriptors():
            for peer in new:
                peer.socket.connect(address)
                peer.send("hello")
            await log.logged("accept() failed")
            assert service.server.is_serving()
            assert await old.ask("still there?") == "still there?"
            os.close(spare)
            assert await new[0].receive() == "hello"
            await anyio.wait_all_tasks_blocked()
        for peer in new[1:]:
            assert await peer.receive() == "hello"
        [(level, message, _)] = log.problems()
        assert level == "ERROR"
        assert "Too many open files" in message


async def test_shutdown_without_descriptors(serve: Serve, log: Records) -> None:
    """While it pauses, the server can be stopped."""
    async with serve(Recorder()) as service:
        [address] = service.server.get_addresses()
        peer = Peer(address, connects=False)
        service.peers.append(peer)
        with no_more_descriptors():
            peer.socket.connect(address)
            await log.logged("accept() failed")
            with anyio.fail_after(1):
                await service.server.shutdown()
        assert service.server.is_listening()
        assert len(log.problems()) == 1
