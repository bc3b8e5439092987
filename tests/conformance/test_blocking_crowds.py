"""More clients than threads: each has its turn, and those that wait cost no thread."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable

import anyio
import anyio.to_thread
import pytest

from easynetwork import _episode
from tests.conformance.blocking_support import Client, Echo, handler_threads
from tests.conformance.peers import BasePeer
from tests.conformance.support import Records, Serve, one_protocol
from tests.times import FACTOR, MS, SOON, is_traced

pytestmark = [pytest.mark.anyio, one_protocol, pytest.mark.parametrize("transport", ["tcp"])]


def busy(max_threads: int) -> list[tuple[str, str, None]]:
    """Return what is logged when clients begin to wait for a thread."""
    line = f"All {max_threads} threads of the request handler are busy: clients wait"
    return [("WARNING", line, None)]


async def test_everybody_has_a_turn(
    serve: Serve,
    log: Records,
    anyio_backend_name: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Clients are served in the order in which they came; none waits longer than it has to."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            self.note(client.recv_packet())
            time.sleep(5 * MS)
            running.append(len(handler_threads()))
            client.send_packet("done")

    clients, max_threads = 200, 16
    running: list[int] = []
    handler = Handler(max_threads)
    async with serve(handler) as service:
        peers = []
        for number in range(clients):
            peers.append(await service.connect())
            peers[-1].send(str(number))
        start = time.monotonic()
        for peer in peers:
            assert await peer.rest() == ("done\n", "EOF")
        longest = time.monotonic() - start
        record_property("seconds", longest)
        assert longest < 5 * FACTOR
        order = [int(note) for note in handler.notes if note.isdigit()]
        assert sorted(order) == list(range(clients))
        if anyio_backend_name != "trio":  # which shuffles the tasks that it starts at once
            # The system may let one of the threads wait while the others go on.
            late = [abs(number - place) for place, number in enumerate(order)]
            assert sum(late) / clients < max_threads
        assert max(running) <= max_threads
        assert log.problems() == busy(max_threads)


async def test_clients_that_stay(serve: Serve, log: Records) -> None:
    """A client that waits gets the thread of the first one that leaves, not of one that is idle."""
    handler = Echo(max_threads=2)
    async with serve(handler) as service:
        first, second = [await service.connect() for _ in range(2)]
        assert [await first.ask("one"), await second.ask("two")] == ["one", "two"]
        assert log.problems() == []
        third = await service.connect()
        third.send("three")
        assert [await first.ask("one"), await second.ask("two")] == ["one", "two"]
        assert handler.notes == ["on_connection"] * 2
        first.close()
        assert await third.receive() == "three"
        assert log.problems() == busy(2)


async def test_warning_of_each_episode(
    serve: Serve, log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one line in the log, however many wait, and another one after a quiet time."""
    monkeypatch.setattr(_episode, "_QUIET_TIME", 4 * SOON)
    handler = Echo(max_threads=1)
    async with serve(handler) as service:
        for episode in 1, 2:
            peers = [await service.connect() for _ in range(5)]
            for peer in peers:
                peer.send("one")
                peer.send_eof()
            await handler.noted("on_disconnection", 5 * episode)
            assert log.problems() == busy(1)
            await anyio.sleep(5 * SOON)
        # A client that finds a free thread is no reason for a warning.
        assert await (await service.connect()).ask("one") == "one"


async def test_one_after_the_other(serve: Serve) -> None:
    """A client that comes when the last one is gone finds a free thread."""
    async with serve(Echo(max_threads=1)) as service:
        for _ in range(20):
            peer = await service.connect()
            assert await peer.ask("one") == "one"
            peer.send_eof()
            assert await peer.rest() == ("", "EOF")


async def test_client_that_leaves_while_it_waits(serve: Serve, log: Records) -> None:
    """Its turn comes, and finds the end of the stream; the next one is not held up."""
    handler = Echo(max_threads=1)
    async with serve(handler) as service:
        first = await service.connect()
        assert await first.ask("one") == "one"
        second, third = await service.connect(), await service.connect()
        second.send("two")
        second.close()
        third.send("three")
        first.close()
        assert await third.receive() == "three"
        third.close()
        await handler.noted("on_disconnection", times=3)
        assert log.problems() == busy(1)


@pytest.mark.parametrize("is_rude", [False, True], ids=["EOF", "reset"])
async def test_silent_clients_that_leave_while_they_wait(
    serve: Serve, log: Records, is_rude: bool
) -> None:
    """They are gone at once, and no thread is spent on them."""
    handler = Echo(max_threads=1)
    async with serve(handler) as service:
        first = await service.connect()
        assert await first.ask("one") == "one"
        for _ in range(10):
            peer = await service.connect()
            await log.logged(peer.accepted)
            peer.reset() if is_rude else peer.close()
            await log.logged(f"{peer.name} disconnected")
        last = await service.connect()
        last.send("two")
        first.close()
        assert await last.receive() == "two"
        assert handler.notes.count("on_connection") == 2
        assert log.problems() == busy(1)


@pytest.mark.parametrize("sent", ["", "h", "hello\n"], ids=["nothing", "a part", "a packet"])
async def test_first_timeout_after_waiting(serve: Serve, log: Records, sent: str) -> None:
    """It counts from the call, and a packet that came while the client waited is there at once."""

    class Handler(Echo):
        def on_connection(self, client: Client) -> None:
            client.send_packet("welcome")

        def handle(self, client: Client) -> None:
            for timeout in (2 * SOON, 0):
                start = time.monotonic()
                try:
                    answer = client.recv_packet(timeout=timeout)
                except TimeoutError as exc:
                    answer = str(exc)
                    assert time.monotonic() - start >= timeout - 2 * MS  # uvloop rounds
                client.send_packet(answer)
            super().handle(client)

    async with serve(Handler(max_threads=1)) as service:
        first = await service.connect()
        assert await first.receive() == "welcome"
        second = await service.connect()
        await log.logged(second.accepted)
        second.send_bytes(sent.encode())
        assert await first.receive_lines(2) == ["timed out"] * 2
        first.close()
        assert await second.receive() == "welcome"
        answer = "hello" if sent == "hello\n" else "timed out"
        assert await second.receive_lines(2) == [answer, "timed out"]
        second.send("world")
        assert await second.receive() == ("hworld" if sent == "h" else "world")
        assert log.problems() == busy(1)


async def test_stopping_while_silent_clients_wait(serve: Serve, log: Records) -> None:
    """They leave with the server, as those that have sent something do."""
    handler = Echo(max_threads=1)
    async with serve(handler) as service:
        first = await service.connect()
        assert await first.ask("one") == "one"
        second = await service.connect()
        await log.logged(second.accepted)
        await service.server.shutdown()
        assert (await second.rest())[0] == ""
    assert handler.notes.count("on_connection") == 1
    assert log.problems() == busy(1)


@pytest.mark.cost
async def test_silent_clients(
    serve: Serve, log: Records, record_property: Callable[[str, object], None]
) -> None:
    """A thousand of them have no more threads than allowed, and little memory."""
    if is_traced():
        pytest.skip("coverage costs memory")
    clients, max_threads = 1000, 8
    handler = Echo(max_threads)
    threads_before = threading.active_count()
    async with serve(handler, backlog=clients) as service:
        await service.connect()
        await handler.noted("on_connection")
        peers: list[BasePeer] = []
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(clients):
                peers.append(await service.connect())
            accepted = "Accepted new connection"
            while sum(accepted in line for line in log.messages()) <= clients:
                await anyio.sleep(SOON)
            log.records[:] = [record for record in log.records if accepted not in record.msg]
            each = (tracemalloc.get_traced_memory()[0] - before) / clients
        finally:
            tracemalloc.stop()
        record_property("bytes", each)
        assert each < 32_000
        assert len(handler_threads()) == max_threads
        assert threading.active_count() <= threads_before + max_threads + 1  # a peer's thread
        with anyio.fail_after(2 * FACTOR):
            await service.server.shutdown()
        assert handler.notes.count("on_connection") == max_threads
        assert log.problems() == busy(max_threads)
