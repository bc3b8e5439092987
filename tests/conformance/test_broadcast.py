"""`ClientGroup.broadcast()` to real clients: chats, feeds, and members that never read."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.servers.groups import ClientGroup
from tests.conformance.support import Client, Narrow, Recorder, Requests, Serve, one_protocol

pytestmark = [pytest.mark.anyio, one_protocol]

PACKET = "x" * 30_000


class Chat(Recorder):
    """Sends each line to everybody else."""

    def __init__(self) -> None:
        super().__init__()
        self.group = ClientGroup[str]()

    async def greet(self, client: Client) -> None:
        self.group.add(client)
        await super().greet(client)

    async def handle(self, client: Client) -> Requests:
        request = yield
        self.note(f"{self.group.broadcast(request, exclude=[client])}")


class Feed(Narrow):
    """Has a group of clients that do not read."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.group = ClientGroup[str](**options)

    async def greet(self, client: Client) -> None:
        self.group.add(client)
        await super().greet(client)


async def test_chat(serve: Serve) -> None:
    """Everybody gets what the others say, in order; who leaves is not a member any more."""
    handler = Chat()
    async with serve(handler) as service:
        peers = [await service.connect() for _ in range(4)]
        await handler.noted("on_connection", times=4)
        assert len(handler.group) == 4
        peers[0].send("hello", "everybody")
        for peer in peers[1:]:
            assert await peer.receive_lines(2) == ["hello", "everybody"]
        peers[3].send_eof()
        assert await peers[3].rest() == ("", "EOF")
        await handler.noted("on_disconnection")
        assert len(handler.group) == 3
        peers[1].send("bye")
        assert [await peers[0].receive(), await peers[2].receive()] == ["bye", "bye"]
    assert [note for note in handler.notes if note.isdigit()] == ["3", "3", "2"]
    assert len(handler.group) == 0


@pytest.mark.parametrize("slow", ["skip", "abort"])
async def test_members_that_never_read(serve: Serve, slow: Any) -> None:
    """At most the high-water mark and one packet wait for each; the others get everything."""
    handler = Feed(slow=slow)
    async with serve(handler) as service:
        reader = await service.connect()
        await handler.noted("handle")
        sleeper = await service.connect(receive_buffer=4096)
        await handler.noted("handle", times=2)
        slow_client = handler.clients[1]
        for number in range(100):
            sent = handler.group.broadcast(f"{number} {PACKET}")
            assert (await reader.receive()).startswith(f"{number} ")
            assert slow_client.get_unsent_size() < HIGH_WATER + 1.1 * len(PACKET)
            if slow_client.is_closing():
                break
        assert sent == 1
        if slow == "skip":
            assert 50 < handler.group.skipped < 100
            assert len(handler.group) == 2
            first, last = (await sleeper.receive()).split(" ")
            assert (first, last) == ("0", PACKET)
        else:
            assert handler.group.skipped == 1
            assert len(handler.group) == 1
            await handler.noted("on_disconnection")
            assert len((await sleeper.rest())[0]) < 100 * len(PACKET)


async def test_among_answers(serve: Serve) -> None:
    """A broadcast does not overtake answers that were gathered, nor is it overtaken."""

    class Handler(Chat):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await client.send_packet(f"{request} 1")
            self.group.broadcast(f"{request} 2")
            await client.send_packet(f"{request} 3")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("a", "b", "c")
        expected = [f"{letter} {number}" for letter in "abc" for number in (1, 2, 3)]
        assert await peer.receive_lines(9) == expected


async def test_in_hooks(serve: Serve) -> None:
    """A client that is on its way out does not get what is said of it."""

    class Handler(Chat):
        async def greet(self, client: Client) -> None:
            self.group.broadcast("new")
            await super().greet(client)

        async def on_disconnection(self, client: Client) -> None:
            assert client not in self.group
            self.group.broadcast("gone")
            self.group.add(client)
            assert client not in self.group
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        first = await service.connect()
        await handler.noted("on_connection")
        second = await service.connect()
        assert await first.receive() == "new"
        await handler.noted("on_connection", times=2)
        second.send_eof()
        assert await second.rest() == ("", "EOF")
        assert await first.receive() == "gone"
        first.send_eof()
        assert await first.rest() == ("", "EOF")
        await handler.noted("on_disconnection", times=2)


@pytest.mark.parametrize("transport", ["memory"])
async def test_many(serve: Serve) -> None:
    """More than 1,000 clients get several packets, each in their order."""
    handler = Chat()
    count = 1_050
    async with serve(handler) as service:
        peers = [await service.connect() for _ in range(count)]
        await handler.noted("on_connection", times=count)
        for number in range(3):
            assert handler.group.broadcast(f"{number}") == count
        for peer in (peers[0], peers[999], peers[1_000], peers[-1]):
            assert await peer.receive_lines(3) == ["0", "1", "2"]


async def test_other_thread(serve: Serve) -> None:
    """A broadcast in another thread says the rule; nobody gets anything."""
    handler = Chat()

    def run() -> None:
        with pytest.raises(RuntimeError, match="only be used in the thread of its event loop"):
            handler.group.broadcast("from another thread")

    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        await anyio.to_thread.run_sync(run)
        handler.group.broadcast("from this one")
        assert await peer.receive() == "from this one"
