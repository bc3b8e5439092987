"""Which peer gives up its place when all are taken and a stranger sends a datagram."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator

import anyio
import pytest

from easynetwork.exceptions import EndOfStreamError
from easynetwork.servers.limits import DatagramLimits
from tests.conformance.blocking_support import Client as BlockingClient, DatagramEcho
from tests.conformance.datagrams.support import (
    Client,
    Peer,
    Recorder,
    Requests,
    Serve,
    Service,
)
from tests.conformance.support import Records, restarting

pytestmark = pytest.mark.anyio

WARNING = (
    "Peers are evicted: {} have a request handler running, and others want one. No more is logged "
    "until none was evicted for 10 seconds; get_statistics() counts them."
)


@pytest.fixture(autouse=True)
def nothing_else_logged(log: Records) -> Iterator[None]:
    """Take note of the warnings that each test here causes, and of no others."""
    yield
    for level, message, _ in log.problems():
        assert level == "WARNING"
        assert message.startswith(("Peers are evicted:", "Datagrams are dropped:"))


class Conversing(Recorder):
    """Echoes all datagrams of a peer in one conversation. A test says what follows its end."""

    async def handle(self, client: Client) -> Requests:
        first = yield
        try:
            request = first
            while True:
                await client.send_packet(request)
                request = yield 60
        except TimeoutError:
            self.note(f"{first} evicted")
            await self.leave(client)

    async def leave(self, client: Client) -> None:
        """Do what is left to do for a peer that was evicted."""


async def conversing(service: Service, *names: str) -> list[Peer]:
    """Return peers that wait for the next datagram of their conversations, in this order."""
    peers = [service.connect() for _ in names]
    for peer, name in zip(peers, names, strict=True):
        assert await peer.ask(name) == name
        await anyio.wait_all_tasks_blocked()
    return peers


async def test_longest_wait(serve: Serve, log: Records) -> None:
    """The peer that has waited longest is evicted, not the one whose conversation is longest."""
    handler = Conversing()
    async with serve(handler, limits=DatagramLimits(max_peers=3)) as service:
        a, b, _ = await conversing(service, "a", "b", "c")
        assert await a.ask("more") == "more"
        await anyio.wait_all_tasks_blocked()
        _, e = await conversing(service, "d", "e")
        assert handler.notes == ["b evicted", "c evicted"]
        assert await a.ask("still there") == "still there"
        assert await b.ask("b again") == "b again"  # d waits longest now
        assert handler.notes[2:] == ["d evicted"]
        await service.statistics(evicted=3, peers=3, received=8, dropped=0, waiting=0)
        for peer in a, b, e:
            assert await peer.ask("there") == "there"
        await service.statistics(evicted=3)
    assert [problem[:2] for problem in log.problems()] == [("WARNING", WARNING.format(3))]


async def test_limit_not_exceeded(serve: Serve, log: Records) -> None:
    """As many peers as may be here evict none."""
    handler = Conversing()
    async with serve(handler, limits=DatagramLimits(max_peers=3)) as service:
        await conversing(service, "a", "b", "c")
        await service.statistics(evicted=0, peers=3)
    assert log.problems() == []


async def test_let_out(serve: Serve, log: Records) -> None:
    """A handler that lets out the error ends like one whose timeout is over: one DEBUG line."""

    class LettingOut(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))
            try:
                yield
            except TimeoutError as exc:
                self.note(str(exc))
                raise

    handler = LettingOut()
    async with serve(handler, limits=DatagramLimits(max_peers=1)) as service:
        a, _ = await conversing(service, "a", "b")
        await service.statistics(evicted=1, peers=1)
        assert f"{a.name} sent nothing for too long" in log.messages(logging.DEBUG)
        assert handler.notes == ["evicted: all places are taken, and another peer needs one"]
    assert len(log.problems()) == 1


async def test_yields_again(serve: Serve, log: Records) -> None:
    """A handler that yields once more is closed, whatever timeout it yields."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await client.send_packet(request)
            try:
                yield
            except TimeoutError:
                await client.send_packet("goodbye")
            with self.noting_errors():
                yield 0 if request == "a" else None

    handler = Handler()
    async with serve(handler, limits=DatagramLimits(max_peers=1)) as service:
        a, b, _ = await conversing(service, "a", "b", "c")
        assert [await a.receive(), await b.receive()] == ["goodbye", "goodbye"]
        assert handler.notes == ["GeneratorExit", "GeneratorExit"]
        await service.statistics(evicted=2, peers=1)
    assert len(log.problems()) == 1


async def test_yields_for_ever(serve: Serve, log: Records) -> None:
    """A handler that ignores even that is a bug, and is logged; strangers are served on."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))
            with contextlib.suppress(TimeoutError, GeneratorExit):
                while True:
                    with contextlib.suppress(TimeoutError):
                        yield
            yield

    async with serve(Handler(), limits=DatagramLimits(max_peers=1)) as service:
        a, _ = await conversing(service, "a", "b")
        assert await a.ask("again") == "again"
        await service.statistics(evicted=2, peers=1)
    _, (level, message, error) = log.problems()[:2]
    assert (level, a.name in message, type(error)) == ("ERROR", True, RuntimeError)


async def test_work(serve: Serve, log: Records) -> None:
    """A peer that does not wait for a datagram keeps its place, before its first `yield`, too."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            if self.notes == ["handle"]:
                await self.released.wait()
            request = yield
            await self.released.wait()
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler, limits=DatagramLimits(max_peers=2)) as service:
        a, b, c = (service.connect() for _ in range(3))
        a.send("a")
        await handler.noted("handle")
        b.send("b")
        await handler.noted("handle", 2)
        c.send("c")
        await service.statistics(peers=2, dropped_by_peers=1, evicted=0)
        handler.released.set()
        assert [await a.receive(), await b.receive()] == ["a", "b"]
        assert await c.ask("again") == "again"
    assert len(log.problems()) == 1


class Farewell(Conversing):
    """Takes its time after it was evicted."""

    async def leave(self, client: Client) -> None:
        await self.released.wait()
        await client.send_packet("goodbye")


async def test_farewell(serve: Serve) -> None:
    """The stranger waits until the generator has ended; never do more run than there are places."""
    handler = Farewell()
    async with serve(handler, limits=DatagramLimits(max_peers=1, max_waiting=1)) as service:
        [a] = await conversing(service, "a")
        b, c = service.connect(), service.connect()
        b.send("b")
        await handler.noted("a evicted")
        b.send("more")
        b.send("too much")  # its queue is like any other
        await service.statistics(received=4, peers=1, evicted=1, waiting=1, dropped_by_count=1)
        a.send("too late")  # and that of the other has ended
        c.send("none to evict")
        await service.statistics(received=6, dropped_by_peers=2, dropped=3)
        handler.released.set()
        assert await a.receive() == "goodbye"
        assert [await b.receive(), await b.receive()] == ["b", "more"]
        assert await a.ask("hello again") == "hello again"
        await service.statistics(peers=1, waiting=0, dropped=3, evicted=2)


async def test_other_place(serve: Serve) -> None:
    """The first place that becomes free is the stranger's, whoever leaves it."""

    class Handler(Farewell):
        def __init__(self) -> None:
            super().__init__()
            self.worked = anyio.Event()

        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "work":
                await self.worked.wait()
                return
            await client.send_packet(request)
            try:
                yield
            except TimeoutError:
                self.note("evicted")
                await self.released.wait()
                await client.send_packet("goodbye")

    handler = Handler()
    async with serve(handler, limits=DatagramLimits(max_peers=2)) as service:
        a, worker, b = (service.connect() for _ in range(3))
        assert await a.ask("a") == "a"
        worker.send("work")
        await service.statistics(peers=2)
        b.send("b")
        await handler.noted("evicted")
        handler.worked.set()
        assert await b.receive() == "b"  # a's generator is still there
        await service.statistics(peers=2, evicted=1)
        handler.released.set()
        assert await a.receive() == "goodbye"
        await service.statistics(peers=1)


async def test_at_once(serve: Serve) -> None:
    """A peer whose datagram has arrived waits no longer, though its task has yet to run."""
    handler = Conversing()
    async with serve(handler, limits=DatagramLimits(max_peers=1)) as service:
        [a] = await conversing(service, "a")
        b = service.connect()
        a.send("more")
        b.send("b")  # both are taken at once: nothing here lets the event loop run
        assert await a.receive() == "more"
        await service.statistics(received=3, dropped_by_peers=1, evicted=0)
        await anyio.wait_all_tasks_blocked()
        b.send("b")
        a.send("too late")
        assert await b.receive() == "b"
        await service.statistics(received=5, dropped_by_peers=2, evicted=1, peers=1)


async def test_burst(serve: Serve) -> None:
    """Many strangers at once evict many peers at once; the places go to the first of them."""
    handler = Conversing()
    async with serve(handler, limits=DatagramLimits(max_peers=5)) as service:
        await conversing(service, *"abcde")
        strangers = [service.connect() for _ in range(7)]
        for number, stranger in enumerate(strangers):
            stranger.send(str(number))
        for number, stranger in enumerate(strangers[:5]):
            assert await stranger.receive() == str(number)
        assert set(handler.notes[:5]) == {f"{name} evicted" for name in "abcde"}
        statistics = await service.statistics(received=12, peers=5)
        assert statistics.evicted + statistics.dropped_by_peers == 7


@pytest.mark.parametrize("host", ["127.0.0.1"], ids=["ipv4"])
async def test_several_sockets(serve: Serve) -> None:
    """A peer of one socket makes room for one of another."""
    handler = Farewell()
    hosts, limits = ["127.0.0.1", "127.0.0.2"], DatagramLimits(max_peers=2)
    async with serve(handler, host=hosts, limits=limits) as service:
        addresses = service.server.get_addresses()

        async def ask(peer: Peer, name: str, number: int) -> None:
            peer.socket.connect(addresses[number])
            assert await peer.ask(name) == name
            await anyio.wait_all_tasks_blocked()

        a, b, c, d = (service.connect() for _ in range(4))
        await ask(a, "a", 0)
        await ask(b, "b", 0)
        handler.released.set()
        await ask(c, "c", 1)
        await ask(d, "d", 1)
        assert handler.notes == ["a evicted", "b evicted"]
        assert [await a.receive(), await b.receive()] == ["goodbye", "goodbye"]
        await service.statistics(peers=2, evicted=2, dropped=0)


async def test_stop(serve: Serve, log: Records) -> None:
    """When the server stops, what is in the lobby is dropped and counted; nothing is left."""
    handler = Farewell()
    async with serve(handler, limits=DatagramLimits(max_peers=1)) as service:
        await conversing(service, "a")
        b = service.connect()
        b.send("b", "more")
        await handler.noted("a evicted")
        await service.statistics(received=3, waiting=1)
        await service.server.shutdown()
        await service.statistics(peers=0, waiting=0, dropped_by_stop=2, dropped=2)
        async with restarting(service.server):
            assert await b.ask("again") == "again"
            await service.statistics(peers=1, evicted=1)
    assert len(log.problems()) == 1


async def test_cancelled_wait(serve: Serve) -> None:
    """A scope around a `yield` may end in the same moment: then the error is the handler's own."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))
            with anyio.CancelScope() as self.scope:
                yield
            self.note("cancelled" if self.scope.cancelled_caught else "not cancelled")

    handler = Handler()
    async with serve(handler, limits=DatagramLimits(max_peers=1)) as service:
        await conversing(service, "a")
        b = service.connect()
        b.send("b")
        handler.scope.cancel()  # the event loop has not run
        assert await b.receive() == "b"
        await service.statistics(peers=1, dropped=0)


async def test_blocking_handler(serve: Serve) -> None:
    """`recv_packet()` of a blocking handler raises TimeoutError, and then `EndOfStreamError`."""

    class Handler(DatagramEcho):
        def handle(self, client: BlockingClient) -> None:
            client.send_packet(client.recv_packet())
            with self.noting_errors(), contextlib.suppress(TimeoutError):
                client.recv_packet(timeout=60)
            with pytest.raises(EndOfStreamError), self.noting_errors():
                client.recv_packet()

    handler = Handler()
    async with serve(handler, limits=DatagramLimits(max_peers=1)) as service:
        for name in "a", "b":
            assert await service.connect().ask(name) == name
            while not service.server._service.places.waiting:
                await anyio.sleep(0.001)
        await service.statistics(peers=1, evicted=1)
        assert handler.notes == ["EndOfStreamError"]


@pytest.mark.in_turn
@pytest.mark.parametrize("seed", range(3))
async def test_accounts(serve: Serve, seed: int) -> None:
    """Whatever peers and handlers do, no more run than may, and every datagram is accounted for."""
    choices = random.Random(seed)
    running, most = 0, 4

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            nonlocal running
            running += 1
            assert running <= most
            try:
                request = yield
                self.note(request)
                while choices.random() < 0.7:
                    if choices.random() < 0.3:
                        await anyio.sleep(0.001)
                    self.note((yield choices.choice([0, 0.002, 60, None])))
            except TimeoutError:
                if choices.random() < 0.5:
                    await anyio.sleep(0.002)
                if choices.random() < 0.5:
                    self.note((yield))  # there was a timeout of its own, if it gets one
            finally:
                running -= 1

    handler = Handler()
    limits = DatagramLimits(max_peers=most, max_waiting=2)
    async with serve(handler, limits=limits) as service:
        peers = [service.connect() for _ in range(9)]
        for number in range(1, 301):
            choices.choice(peers).send("x")
            if choices.random() < 0.4 or number % 8 == 0:  # a Unix socket's queue may have 10
                await service.statistics(received=number)
        await service.statistics(received=300, waiting=0)
        await service.server.shutdown()
        assert service.server.get_statistics().peers == running == 0
        async with restarting(service.server):  # the places are all free
            for peer in peers:
                received = service.server.get_statistics().received
                peer.send("again")
                await service.statistics(received=received + 1)
        statistics = await service.statistics(peers=0, waiting=0)
        assert len(handler.notes) + statistics.dropped == statistics.received
