"""Test what the pages about TCP and UDP servers say of blocking code.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of a
page.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from docs._include.examples.howto.advanced.standalone_servers import blocking_work
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers.blocking import BlockingClient, BlockingStreamRequestHandler
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)
from easynetwork.testing import serve
from tests.docs.howto_support import check_quotations_in, connected, serving, words
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

PAGES = (
    *("../README.md", "howto/tcp_servers.rst", "howto/udp_servers.rst", "howto/socketserver.rst"),
    "howto/advanced/standalone_servers.rst",
)
LINES: Any = StreamProtocol(StringLineSerializer())
TEXTS: Any = DatagramProtocol(StringLineSerializer())
JSON: Any = StreamProtocol(JSONSerializer())


def test_quotations() -> None:
    """One of the pages contains each quotation, and each test quotes it."""
    check_quotations_in([words(page) for page in PAGES], globals())


class Noting:
    """Notes when a request arrives, and which were waiting when the event loop was free again."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def work(self, name: str) -> None:
        self.notes += [f"{name} begins", f"{name} ends"]


class Stream(Noting, AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        self.work((yield))


class Datagram(Noting, AsyncDatagramRequestHandler[str, str]):
    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        self.work((yield))


@pytest.mark.parametrize("over_udp", [False, True], ids=["tcp", "udp"])
async def test_all_clients_wait(over_udp: bool) -> None:
    """While one handler computes, that of another client does not begin.

    "One thread serves all clients. While a handler computes, calls time.sleep() or waits for a
    database driver that is not asynchronous, no other client is served."

    "A handler that blocks makes all of them wait"
    """
    handler: Any = Datagram() if over_udp else Stream()
    async with serve(handler, TEXTS if over_udp else LINES) as served:
        clients = [await served.connect() for _ in "ab"]
        for name, client in zip("ab", clients, strict=True):
            await client.send_packet(name)
        with anyio.fail_after(PATIENCE):
            while len(handler.notes) < 4:
                await anyio.lowlevel.checkpoint()
    assert handler.notes in (
        ["a begins", "a ends", "b begins", "b ends"],
        ["b begins", "b ends", "a begins", "a ends"],
    )


async def test_worker_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's handler works in a thread, while the same server serves another client.

    "If a part of the handler blocks, run this part in a worker thread, and limit the number of
    threads with an anyio.CapacityLimiter."

    "has an example whose handler works with this server, too."
    """
    gate, threads = threading.Event(), set[threading.Thread]()

    def derive_key(password: str) -> dict[str, Any]:
        threads.add(threading.current_thread())
        if password == "slow":
            assert gate.wait(PATIENCE)
        return {"password": password}

    monkeypatch.setattr(blocking_work, "derive_key", derive_key)
    handler = blocking_work.KeyRequestHandler(2)
    assert isinstance(handler.limiter, anyio.CapacityLimiter)
    async with serving(handler, JSON) as server:
        async with connected(server) as one, connected(server) as other:
            await one.send('"slow"')
            assert await other.ask('"quick"') == '{"password":"quick"}'
            gate.set()
            assert await one.receive() == '{"password":"slow"}'
    assert threading.current_thread() not in threads


async def test_blocking_handler() -> None:
    """Each client has a thread, in which it can block.

    "If the whole handler blocks, write a BlockingStreamRequestHandler instead, and pass it to this
    server. Its methods are ordinary methods, which run in a thread for each client"

    "The handler can do without async, too: a BlockingStreamRequestHandler has ordinary methods,
    which run in a thread for each client."

    "The handler can also be blocking code: a BlockingStreamRequestHandler has ordinary methods,
    which run in a thread for each client."

    "You can take a smaller step: keep blocking handlers, and change only the server."
    """
    together = threading.Barrier(2, timeout=PATIENCE)
    threads = []

    class Handler(BlockingStreamRequestHandler[str, str]):
        def handle(self, client: BlockingClient[str, str]) -> None:
            threads.append(threading.current_thread())
            request = client.recv_packet()
            together.wait()
            client.send_packet(request)

    for name in "handle", "on_connection", "on_disconnection":
        assert not inspect.iscoroutinefunction(getattr(Handler, name))
    handler: Any = Handler()
    async with serving(handler, LINES) as server:
        async with connected(server) as one, connected(server) as other:
            await one.send("one")
            await other.send("other")
            assert [await one.receive(), await other.receive()] == ["one", "other"]
    assert len({*threads, threading.current_thread()}) == 3
