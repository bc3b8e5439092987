"""Callbacks on loops that have them and on loops that have not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import anyio.lowlevel
import pytest

from easynetwork.backends.asyncio.selector import selector_of
from tests.backends.pairs import WITHOUT_READERS, connected_sockets

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[("asyncio", {}), WITHOUT_READERS], ids=["callbacks", "tasks"])
def anyio_backend(request: pytest.FixtureRequest, selector_thread: None) -> object:
    return request.param


class Ends:
    """Two connected sockets, and what was called for the first of them."""

    def __init__(self) -> None:
        self.sock, self.peer = connected_sockets()
        self.received = bytearray()
        self.writable = anyio.Event()

    def on_readable(self) -> None:
        self.received += self.sock.recv(1)

    def on_writable(self) -> None:
        self.writable.set()
        selector_of(asyncio.get_running_loop()).remove_writer(self.sock.fileno())


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    with ends.sock, ends.peer:
        yield ends


async def test_loop_itself(anyio_backend: object) -> None:
    """A loop that has the methods needs no stand-in; another has one stand-in for all."""
    loop = asyncio.get_running_loop()
    assert (selector_of(loop) is loop) is (anyio_backend != WITHOUT_READERS)
    assert selector_of(loop) is selector_of(loop)


async def test_callbacks(ends: Ends) -> None:
    """A function is called as long as there is something to read, or may be written, each."""
    selector = selector_of(asyncio.get_running_loop())
    fd = ends.sock.fileno()
    selector.add_reader(fd, ends.on_readable)
    selector.add_writer(fd, ends.on_writable)
    ends.peer.send(b"abc")
    await ends.writable.wait()
    while ends.received != b"abc":
        await anyio.lowlevel.checkpoint()

    assert selector.remove_reader(fd)
    assert not selector.remove_reader(fd)
    assert not selector.remove_writer(fd)
    ends.peer.send(b"d")
    await anyio.wait_all_tasks_blocked()
    assert ends.received == b"abc"


async def test_removed_at_once(ends: Ends) -> None:
    """A function that is not to be called after all leaves nothing open."""
    selector = selector_of(asyncio.get_running_loop())
    fd = ends.sock.fileno()
    selector.add_reader(fd, ends.on_readable)
    selector.add_writer(fd, ends.on_writable)
    selector.remove_reader(fd)
    selector.remove_writer(fd)
    ends.sock.close()
    await anyio.wait_readable(ends.peer)
    assert ends.peer.recv(1) == b""
