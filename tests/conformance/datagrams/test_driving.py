"""One generator at a time for each peer, fed in order; all peers at once."""

from __future__ import annotations

import asyncio
import sys

import anyio
import anyio.lowlevel
import pytest

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from tests.conformance.datagrams.support import Client, Recorder, Requests, Serve, on_ip, serving
from tests.conformance.support import Records

pytestmark = pytest.mark.anyio


# -- order


async def test_one_datagram_each(serve: Serve) -> None:
    """Datagrams that come while a handler is busy wait, and are handled in their order."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            self.note(request)
            if request == "slow":
                await self.released.wait()
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("slow", "a", "b")
        await service.statistics(received=3, waiting=2, peers=1)
        await handler.noted("slow")
        assert handler.notes == ["slow"]
        handler.released.set()
        assert [await peer.receive() for _ in range(3)] == ["slow", "a", "b"]
        await service.statistics(waiting=0, peers=0)


async def test_two_datagrams_each(serve: Serve) -> None:
    """A generator that yields again gets the peer's next datagram, if that is there or comes."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            request = yield
            if request == "two":
                request += yield
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("two", "x", "y")
        assert [await peer.receive() for _ in range(2)] == ["twox", "y"]
        peer.send("two")
        await service.statistics(received=4, peers=1, waiting=0)
        await anyio.wait_all_tasks_blocked()
        assert await peer.ask("z") == "twoz"
        assert handler.notes.count("handle") == 3


async def test_generator_for_ever(serve: Serve) -> None:
    """A generator that never returns gets all datagrams of its peer."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            while True:
                await client.send_packet((yield))

    handler = Handler()
    async with serve(handler) as service:
        one, other = service.connect(), service.connect()
        for number in range(5):
            assert await one.ask(f"one {number}") == f"one {number}"
            assert await other.ask(f"other {number}") == f"other {number}"
        one.send("a", "b", "c")
        assert [await one.receive() for _ in range(3)] == ["a", "b", "c"]
        assert handler.notes == ["handle", "handle"]


@pytest.mark.parametrize("wait", [False, True])
async def test_refusal(serve: Serve, wait: bool) -> None:
    """A generator that returns before its first yield discards its datagram, and no other."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            if wait:
                await anyio.lowlevel.checkpoint()
            if len(self.notes) < 3:
                return
            await client.send_packet((yield))

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        assert await peer.ask("1", "2", "3") == "3"
        await service.statistics(received=3, refused=2, dropped=0, peers=0)


async def test_empty_datagram(serve: Serve) -> None:
    """An empty datagram is a datagram, the first one or not."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            first = yield
            await client.send_packet(f"{first!r}, {(yield)!r}")

    async with serve(Handler()) as service:
        assert await service.connect().ask("", "") == "'', ''"


async def test_empty_answer(serve: Serve) -> None:
    """So is an empty answer."""
    async with serve(Recorder()) as service:
        assert await service.connect().ask("") == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_longest_datagram(serve: Serve, host: str) -> None:
    """Datagrams may be as long as UDP allows, both ways."""
    longest = "x" * (65_527 if ":" in host else 65_507)
    async with serve(Recorder()) as service:
        assert await service.connect().ask(longest) == longest


@on_ip
async def test_datagrams_are_forgotten(host: str, log: Records) -> None:
    """A generator that goes on costs what it keeps itself, not the datagrams that it got."""
    taken: list[bytes] = []

    class Serializer(StringLineSerializer):
        def deserialize_frame(self, frame: bytes, /) -> str:
            taken.append(frame)
            return super().deserialize_frame(frame)

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("taken")
            await self.released.wait()
            yield
            self.note("taken")
            yield

    handler = Handler()
    protocol = DatagramProtocol(Serializer())
    async with serving(AsyncUDPNetworkServer(host, 0, protocol, handler)) as service:
        peer = service.connect()
        for number in range(2):
            peer.send("x" * 60_000)
            await handler.noted("taken", number + 1)
            await anyio.wait_all_tasks_blocked()
            datagram, other = taken.pop(), bytes(60_000)
            held, free = sys.getrefcount(datagram), sys.getrefcount(other)
            assert held == free
            handler.released.set()


# -- concurrency


@on_ip
async def test_peers_at_once(serve: Serve) -> None:
    """A handler that waits keeps only its own peer waiting, however many datagrams come at once."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "wait":
                await self.released.wait()
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler) as service:
        peers = [service.connect() for _ in range(20)]
        for number, peer in enumerate(peers):
            peer.send("wait" if number % 2 else "go")
        for peer in peers[::2]:
            assert await peer.receive() == "go"
        await service.statistics(peers=10, waiting=0)
        handler.released.set()
        for peer in peers[1::2]:
            assert await peer.receive() == "wait"
        await service.statistics(peers=0)


@on_ip
async def test_tasks(serve: Serve, anyio_backend_name: str) -> None:
    """Generators that wait have tasks of their own, which no other generator ever has."""
    if anyio_backend_name == "trio":
        pytest.skip("Nobody can do anything to a trio task. One that does not wait long may go on.")

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            task = asyncio.current_task()
            assert task not in waiting
            if request == "wait":
                waiting.append(task)
                await asyncio.sleep(0)
                await asyncio.sleep(0.002)
            assert asyncio.current_task() is task
            await client.send_packet(request)

    waiting: list[object] = []
    async with serve(Handler()) as service:
        peers = [service.connect() for _ in range(20)]
        for round_number in range(3):
            for number, peer in enumerate(peers):
                peer.send(*["wait" if (number + round_number) % 2 else "go"] * 2)
            for peer in peers:
                await peer.receive()
                await peer.receive()
    assert len(waiting) == 60


async def test_task_after_waiting(serve: Serve) -> None:
    """A generator that follows one that has waited does not get its task."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            tasks.append(anyio.get_current_task())
            request = yield
            self.note(request)
            await self.released.wait()
            await client.send_packet(request)

    tasks: list[anyio.TaskInfo] = []
    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("one")
        await handler.noted("one")
        first = {task.id for task in anyio.get_running_tasks()}
        peer.send("two")
        await service.statistics(waiting=1)
        handler.released.set()
        assert [await peer.receive() for _ in range(2)] == ["one", "two"]
        assert tasks[0].id in first
        assert tasks[1].id not in first


async def test_one_task_for_an_exchange(serve: Serve) -> None:
    """A generator runs in one task from its beginning to its end."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            tasks = {anyio.get_current_task().id}
            for _ in range(3):
                request = yield
                tasks.add(anyio.get_current_task().id)
                await anyio.lowlevel.checkpoint()
            await client.send_packet(f"{request}: {len(tasks)}")

    async with serve(Handler()) as service:
        one, other = service.connect(), service.connect()
        one.send("1", "2")
        other.send("4")
        await service.statistics(received=3)
        other.send("5", "6")
        one.send("3")
        assert await one.receive() == "3: 1"
        assert await other.receive() == "6: 1"


# -- what is raised at a yield


async def test_parse_error_is_raised_late(serve: Serve) -> None:
    """A datagram is parsed when it is asked for, not before: a refused one never is."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            if len(self.notes) == 1:
                return
            await client.send_packet((yield))

    async with serve(Handler()) as service:
        assert await service.connect().ask(b"\xff", "fine") == "fine"
        assert service.server.get_statistics().invalid == 0
