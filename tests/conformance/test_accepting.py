"""Accepting connections when the process has run out of descriptors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from easynetwork.servers.statistics import CloseReason
from easynetwork.sockets.accepting import PAUSE
from tests.conformance.peers import Peer
from tests.conformance.support import Recorder, Records, Serve
from tests.times import PATIENCE

resource = pytest.importorskip("resource")

pytestmark = pytest.mark.anyio


@pytest.fixture
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a server that cannot accept try again after a fifth of the usual time."""
    monkeypatch.setattr("easynetwork.backends.socket_listener.PAUSE", PAUSE / 5)


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


async def test_descriptor_becomes_free(serve: Serve, log: Records) -> None:
    """Accepting pauses, with one line in the log, and goes on by itself; the others are served."""
    async with serve(Recorder()) as service:
        old = await service.connect()
        assert await old.ask("hello") == "hello"
        spare = os.dup(0)
        [address] = service.server.get_addresses()
        new = Peer(address, connects=False)
        service.peers.append(new)
        with no_more_descriptors():
            new.connect(address)
            new.send("hello")
            await log.logged("accept() failed")
            assert service.server.is_serving()
            os.close(spare)  # at once: within the first pause
            assert await new.receive() == "hello"
            assert await old.ask("still there?") == "still there?"
        [(level, message, _)] = log.problems()
        assert level == "ERROR"
        assert "Too many open files" in message


@pytest.mark.usefixtures("short_pause")
async def test_out_of_descriptors(serve: Serve, log: Records) -> None:
    """If it lasts, those who wait are reset instead of left hanging; later ones are served."""
    async with serve(Recorder()) as service:
        old = await service.connect()
        assert await old.ask("hello") == "hello"
        [address] = service.server.get_addresses()
        waiting = [Peer(address, connects=False) for _ in range(50)]
        later = Peer(address, connects=False)
        service.peers += [*waiting, later]
        with no_more_descriptors():
            for peer in waiting:
                peer.connect(address)
            for peer in waiting:
                assert await peer.rest(leave=False) == ("", "reset")
            assert await old.ask("still there?") == "still there?"
            later.connect(address)
            assert await later.rest(leave=False) == ("", "reset")
        last = await service.connect()
        assert await last.ask("hello") == "hello"
        [(level, message, _)] = log.problems()
        assert level == "ERROR"
        assert "New connections are reset until that is over" in message
        statistics = service.server.get_statistics()
        assert statistics.closed[CloseReason.FULL] == len([*waiting, later])
        assert statistics.accepted == statistics.clients + sum(statistics.closed.values())


@pytest.mark.usefixtures("short_pause")
async def test_reserve_is_taken(
    serve: Serve, log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If even the reserve cannot be had again, connections wait until there are descriptors."""
    is_allowed = False
    os_open = os.open

    def sometimes_open(*args: Any, **options: Any) -> int:
        if not is_allowed:
            raise OSError(errno.EMFILE, "forced")
        return os_open(*args, **options)

    async with serve(Recorder()) as service:
        old = await service.connect()
        assert await old.ask("hello") == "hello"  # the reserve is filled
        [address] = service.server.get_addresses()
        refused = Peer(address, connects=False)
        waiting = Peer(address, connects=False)
        service.peers += [refused, waiting]
        with no_more_descriptors():
            monkeypatch.setattr(os, "open", sometimes_open)
            refused.connect(address)
            assert await refused.rest(leave=False) == ("", "reset")  # by means of the reserve
            spare = os.dup(0)  # takes its place
            waiting.connect(address)
            waiting.socket.settimeout(PAUSE)  # five of those of this server
            with pytest.raises(TimeoutError):
                await waiting.receive()
            waiting.socket.settimeout(PATIENCE)
            is_allowed = True
        os.close(spare)
        assert await waiting.ask("hello") == "hello"
        assert len(log.problems()) == 1


async def test_shutdown_without_descriptors(serve: Serve, log: Records) -> None:
    """While it pauses, the server can be stopped."""
    async with serve(Recorder()) as service:
        [address] = service.server.get_addresses()
        peer = Peer(address, connects=False)
        service.peers.append(peer)
        with no_more_descriptors():
            peer.connect(address)
            await log.logged("accept() failed")
            with anyio.fail_after(1):
                await service.server.shutdown()
        assert service.server.is_listening()
        assert len(log.problems()) == 1
