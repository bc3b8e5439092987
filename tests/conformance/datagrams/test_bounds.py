"""What is kept of peers that send more than is handled, and what is said of the rest."""

from __future__ import annotations

import contextlib
import dataclasses

import anyio
import anyio.lowlevel
import pytest

from easynetwork.servers.limits import DatagramLimits
from easynetwork.servers.statistics import DatagramStatistics
from tests.conformance.datagrams.support import (
    Client,
    NewServer,
    Recorder,
    Requests,
    Serve,
    new_peer,
    on_ip,
)
from tests.conformance.support import Records, restarting

pytestmark = pytest.mark.anyio


class Holding(Recorder):
    """Handles nothing until it is released, then answers in order."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        await self.released.wait()
        await client.send_packet(request[:10])


def warning(text: str) -> str:
    return (
        f"Datagrams are dropped: {text}. No more is logged until none was dropped for 10 seconds; "
        "get_statistics() counts them."
    )


async def test_waiting_datagrams(serve: Serve, log: Records) -> None:
    """Of one peer, 64 datagrams wait besides the one being handled; the newest are dropped."""
    handler = Holding()
    async with serve(handler) as service:
        peer, other = service.connect(), service.connect()
        for number in range(100):
            peer.send(str(number))
            await service.statistics(received=number + 1)
        other.send("other")
        await service.statistics(
            received=101, waiting=64, peers=2, dropped_by_count=35, dropped=35, refused=0
        )
        assert [problem[:2] for problem in log.problems()] == [
            ("WARNING", warning(f"64 of {peer.name} are waiting"))
        ]
        handler.released.set()
        assert [await peer.receive() for _ in range(65)] == list(map(str, range(65)))
        assert await other.receive() == "other"
        await service.statistics(waiting=0, peers=0, dropped=35)
        assert await peer.ask("after") == "after"


@on_ip
async def test_burst(new_server: NewServer) -> None:
    """As long as handlers do not wait, nothing of what the kernel has kept is dropped."""
    server = new_server(Recorder())
    async with server:
        with contextlib.closing(new_peer(server)) as peer:
            for number in range(200):
                peer.send(str(number))
            async with restarting(server):
                for number in range(200):
                    assert await peer.receive() == str(number)
        assert server.get_statistics().received == 200
        assert server.get_statistics().dropped == 0


async def test_waiting_bytes(serve: Serve, log: Records) -> None:
    """Of one peer, 256 KiB wait; a shorter datagram may still fit in."""
    handler = Holding()
    async with serve(handler) as service:
        peer = service.connect()
        for number in range(8):
            peer.send(f"{number:<60000}")
            await service.statistics(received=number + 1)
        peer.send("short")
        await service.statistics(received=9, waiting=5, dropped_by_size=3, dropped=3)
        assert [problem[:2] for problem in log.problems()] == [
            ("WARNING", warning(f"240000 bytes of {peer.name} are waiting"))
        ]
        handler.released.set()
        answers = [(await peer.receive()).strip() for _ in range(6)]
        assert answers == ["0", "1", "2", "3", "4", "short"]


@on_ip
async def test_bytes_that_are_taken(serve: Serve) -> None:
    """What a generator has taken does not count any more, however long that runs."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            while True:
                request = yield
                self.note("taken")
                await anyio.lowlevel.checkpoint()
                await client.send_packet(request[:10])

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        for _ in range(10):
            peer.send("x" * 60_000, "y" * 60_000)
            assert [await peer.receive() for _ in range(2)] == ["x" * 10, "y" * 10]
        await service.statistics(received=20, dropped=0, peers=1)


@pytest.mark.in_turn
@on_ip
async def test_peers(serve: Serve, log: Records, host: str) -> None:
    """A thousand peers have a generator at once; others are not heard meanwhile."""
    handler = Holding()
    async with serve(handler) as service:
        peers = []
        for number in range(1005):
            peers.append(service.connect())
            peers[-1].send("hello")
            if number % 50 == 0:
                await service.statistics(received=number + 1)
        await service.statistics(
            received=1005, peers=1000, waiting=0, dropped_by_peers=5, dropped=5
        )
        peers[0].send("known")
        await service.statistics(received=1006, waiting=1, dropped=5)
        assert [problem[:2] for problem in log.problems()] == [
            ("WARNING", warning("1000 peers have a request handler running"))
        ]
        handler.released.set()
        for peer in peers[:1000]:
            assert await peer.receive() == "hello"
        assert await peers[0].receive() == "known"
        await service.statistics(peers=0)
        assert await peers[-1].ask("again") == "again"


async def test_peers_of_all_sockets(serve: Serve, log: Records) -> None:
    """The peers of all sockets of a server count together."""
    handler = Holding()
    async with serve(handler, host=["127.0.0.1", "127.0.0.2"]) as service:
        peers = []
        for number in range(1001):
            peer = service.connect()
            peers.append(peer)
            peer.socket.connect(service.server.get_addresses()[number % 2])
            peer.send("hello")
            if number % 50 == 0:
                await service.statistics(received=number + 1)
        await service.statistics(received=1001, peers=1000, dropped_by_peers=1)
        assert len(log.problems()) == 1


async def test_own_limits(serve: Serve, log: Records) -> None:
    """Each limit that a server is given is where it begins to drop."""
    handler = Holding()
    limits = DatagramLimits(max_peers=2, max_waiting=3, max_waiting_bytes=10)
    async with serve(handler, limits=limits) as service:
        a, b, c = (service.connect() for _ in range(3))
        a.send("first", *"abc")
        await service.statistics(received=4, waiting=3, dropped=0)
        a.send("d")
        await service.statistics(received=5, waiting=3, dropped=1, dropped_by_count=1)
        b.send("x" * 50, "x" * 6, "x" * 4)  # the first one does not wait
        await service.statistics(received=8, waiting=5, dropped=1)
        b.send("")
        await service.statistics(received=9, waiting=6, dropped=1)  # ten bytes are not too many
        handler.released.set()
        assert [await a.receive() for _ in range(4)] == ["first", "a", "b", "c"]
        assert [await b.receive() for _ in range(4)] == ["x" * 10, "x" * 6, "x" * 4, ""]
        handler.released = anyio.Event()
        b.send("first", "x" * 6)
        await service.statistics(received=11, waiting=1)
        b.send("x" * 5)
        await service.statistics(received=12, dropped=2, dropped_by_size=1)
        a.send("second of two")
        await service.statistics(received=13, peers=2, dropped=2)
        c.send("third")
        await service.statistics(received=14, peers=2, dropped=3, dropped_by_peers=1)
        handler.released.set()
        await service.statistics(peers=0)
        assert await c.ask("again") == "again"
    assert [problem[:2] for problem in log.problems()] == [
        ("WARNING", warning(f"3 of {a.name} are waiting"))
    ]


@on_ip
async def test_peers_of_one_host(serve: Serve, log: Records, host: str) -> None:
    """With a limit, a host gets so many places; those that end are free for it again."""
    handler = Holding()
    async with serve(handler, limits=DatagramLimits(max_peers_per_host=2)) as service:
        a, b, c = (service.connect() for _ in range(3))
        other = service.connect("127.0.0.9") if host == "127.0.0.1" else None
        a.send("a", "more")
        b.send("b")
        c.send("c")
        await service.statistics(received=4, peers=2, dropped_by_host=1, dropped=1)
        if other is not None:
            other.send("other")
            await service.statistics(peers=3, dropped=1)
        handler.released.set()
        assert [await a.receive(), await a.receive(), await b.receive()] == ["a", "more", "b"]
        await service.statistics(peers=0)
        for peer in a, b, c:
            assert await peer.ask("again") == "again"
    [(level, message, _)] = log.problems()
    assert level == "WARNING"
    assert " 2 peers of " in message


@on_ip
async def test_host_evicts_none(serve: Serve, log: Records, host: str) -> None:
    """A host that has all its places takes none from others."""

    class Waiting(Recorder):
        async def handle(self, client: Client) -> Requests:
            while True:
                await client.send_packet((yield))

    limits = DatagramLimits(max_peers=2, max_peers_per_host=2)
    async with serve(Waiting(), limits=limits) as service:
        a, b, c = (service.connect() for _ in range(3))
        assert await a.ask("a") == "a"
        assert await b.ask("b") == "b"
        c.send("c")
        await service.statistics(received=3, dropped_by_host=1, evicted=0)
        if host == "127.0.0.1":
            assert await service.connect("127.0.0.9").ask("other") == "other"
            assert await c.ask("c") == "c"  # the host of a has a place less
            await service.statistics(evicted=2, peers=2)
    log.problems()


@pytest.mark.parametrize("host", ["unix"])
async def test_host_of_unix_sockets(serve: Serve) -> None:
    """The peers of a Unix socket are of no host."""
    handler = Holding()
    async with serve(handler, limits=DatagramLimits(max_peers_per_host=1)) as service:
        for number in range(5):
            service.connect().send("hello")
            await service.statistics(received=number + 1, peers=number + 1, dropped=0)
        handler.released.set()
        await service.statistics(peers=0)


async def test_stop(serve: Serve) -> None:
    """What is waiting when the server stops is dropped, and counted; nothing is left."""
    handler = Holding()
    async with serve(handler) as service:
        one, other = service.connect(), service.connect()
        one.send("1", "2", "3")
        other.send("1", "2")
        await service.statistics(received=5, peers=2, waiting=3)
        await service.server.shutdown()
        await service.statistics(received=5, peers=0, waiting=0, dropped_by_stop=3, dropped=3)
        one.send("kept by the kernel")
        handler.released.set()
        async with restarting(service.server):
            assert await one.receive() == "kept by th"
        await service.statistics(received=6, dropped=3)


async def test_statistics(serve: Serve) -> None:
    """A snapshot does not change, and counts from the beginning."""
    async with serve(Recorder()) as service:
        before = service.server.get_statistics()
        assert before == DatagramStatistics()
        assert before.dropped == 0
        await service.connect().ask("hello")
        await service.statistics(received=1, peers=0)
        assert before.received == 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.received = 5  # type: ignore[misc] # that is the point
        assert not hasattr(before, "__dict__")


async def test_handler_sees_itself(serve: Serve) -> None:
    """The peers that have a generator include the one that asks."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            await anyio.wait_all_tasks_blocked()
            await client.send_packet(str(service.server.get_statistics().peers))

    async with serve(Handler()) as service:
        assert await service.connect().ask("hello") == "1"
