"""Test the statements and the examples of the page about many clients.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.many_clients import chat, topics
from easynetwork._tuning import HIGH_WATER
from easynetwork.exceptions import ProtocolCrashedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import RawSerializer, StringLineSerializer
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.limits import Limits
from tests.docs.howto_support import (
    Peer,
    Watched,
    check_quotations,
    complaints,
    connected,
    in_thread,
    serving,
    until,
)

pytestmark = pytest.mark.anyio

Client = AsyncStreamClient[str]

PACKET = "x" * 10_000
SIZE = len(PACKET) + 1


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/many_clients.rst", globals())


class Chat(Watched, chat.ChatRequestHandler):
    pass


class Listening(AsyncStreamRequestHandler[str, str]):
    """Has a group of its clients."""

    def __init__(self, **options: Any) -> None:
        self.group: ClientGroup[str] = ClientGroup(**options)

    async def on_connection(self, client: Client) -> None:
        self.group.add(client)

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        line = yield
        await client.send_packet(line)


# Sending to all clients


async def test_chat(log: pytest.LogCaptureFixture) -> None:
    """What one client says is sent to the others, as long as they are connected.

    "Its method broadcast() sends a packet to all of them."

    "You do not have to remove a client that disconnects: it leaves the group by itself. To remove a
    connected client, call discard()."

    "broadcast() never waits, so you do not await it. It returns the number of clients that get the
    packet"

    "The group works like a set: it supports len(), in and iteration."
    """
    handler = Chat()
    async with serving(handler) as server, connected(server) as ada:
        assert await ada.receive() == "1 in the room"
        async with connected(server) as grace, connected(server) as joan:
            await until(lambda: len(handler.members) == 3)
            assert await ada.receive() == "2 in the room"
            assert await ada.ask("hello") == "3 in the room"
            assert await ada.receive() == "(sent to 2)"
            for peer in grace, joan:
                while (line := await peer.receive()) != "hello":
                    assert line.endswith("in the room")
            first, *_ = handler.clients
            assert set(handler.members) == set(handler.clients)
            assert first in handler.members
            handler.members.discard(first)
            assert first not in handler.members
            handler.members.add(first)
        await until(lambda: len(handler.members) == 1)
        assert await ada.ask("anybody there?") == "(sent to 0)"
    assert not handler.members
    assert not complaints(log)


async def test_encoded_once() -> None:
    """Many clients share the bytes of a packet.

    "encodes the packet only once"
    """
    encoded: list[str] = []

    class Serializer(StringLineSerializer):
        __slots__ = ()

        def serialize_frame(self, packet: str) -> bytes:
            encoded.append(packet)
            return super().serialize_frame(packet)

    handler = Listening()
    async with serving(handler, StreamProtocol(Serializer())) as server:
        async with connected(server) as one, connected(server) as other:
            await until(lambda: len(handler.group) == 2)
            handler.group.broadcast("hello")
            assert [await one.receive(), await other.receive()] == ["hello", "hello"]
    assert encoded == ["hello"]


async def test_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large group gets packets in several turns of the event loop, in their order.

    "Every client gets the packets of several broadcasts in the order in which you sent them.
    A group of more than 1,000 clients gets a packet in several iterations of the event loop, so
    that other tasks can run in between."
    """
    from easynetwork.servers import groups

    assert groups._BATCH == 1000
    monkeypatch.setattr(groups, "_BATCH", 2)
    handler = Listening()
    async with serving(handler) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(server)) for _ in range(5)]
        await until(lambda: len(handler.group) == 5)
        assert handler.group.broadcast("one") == 5
        assert handler.group.broadcast("two") == 5
        for peer in peers:
            assert await peer.receive() == "one"
            assert await peer.receive() == "two"


async def test_loop_that_waits() -> None:
    """The loop that the page warns of is stopped by one client.

    "As soon as one client does not read, send_packet() waits for it, and all clients that follow
    wait, too."
    """
    handler = Listening()
    async with slow_and_quick(handler) as (_, quick):
        clients = list(handler.group)
        await fill(handler, clients[0], quick)
        with anyio.move_on_after(0.05) as scope:
            for client in clients:
                await client.send_packet("hello")
        assert scope.cancelled_caught
        handler.group.broadcast("hello")
        assert await quick.receive() == "hello"


# Dealing with slow clients


@contextlib.asynccontextmanager
async def slow_and_quick(handler: Listening) -> AsyncIterator[tuple[Peer, Peer]]:
    """Serve a client that does not read, and one that does."""
    async with serving(handler) as server, connected(server) as slow:
        await until(lambda: len(handler.group) == 1)
        async with connected(server) as quick:
            await until(lambda: len(handler.group) == 2)
            yield slow, quick


async def fill(handler: Listening, client: Client, quick: Peer) -> int:
    """Broadcast until the slow client gets no more; return how many packets it has got."""
    count = 0
    while handler.group.broadcast(PACKET) == 2:
        assert client.get_unsent_size() <= HIGH_WATER + SIZE
        assert await quick.receive() == PACKET
        count += 1
    assert await quick.receive() == PACKET
    return count


async def test_skip() -> None:
    """A slow client misses packets, and the others get all.

    "A group does not send to a client if more than high_water bytes are waiting for it, 64 KiB by
    default."

    "The client misses this packet, and may get the next one. This is the default."

    "The skipped attribute counts how often this has happened."

    "So for each client, at most high_water bytes and one packet are waiting."

    "A client that reads nothing for 60 seconds is reset"
    """
    assert Limits().send_timeout == 60
    assert HIGH_WATER == 64 * 1024
    handler = Listening()
    async with slow_and_quick(handler) as (slow, quick):
        client = next(iter(handler.group))
        count = await fill(handler, client, quick)
        assert handler.group.skipped == 1
        assert handler.group.broadcast("missed") == 1
        assert await quick.receive() == "missed"
        assert handler.group.skipped == 2
        for _ in range(count):
            assert await slow.receive() == PACKET
        await until(lambda: client.get_unsent_size() == 0)
        assert handler.group.broadcast("hello") == 2
        assert await slow.receive() == "hello"


async def test_abort(log: pytest.LogCaptureFixture) -> None:
    """A slow client is disconnected.

    "The connection of this client is reset."
    """
    handler = Listening(slow="abort")
    async with slow_and_quick(handler) as (slow, quick):
        client = next(iter(handler.group))
        await fill(handler, client, quick)
        assert client.is_closing()
        assert len(handler.group) == 1
        with pytest.raises(ConnectionResetError):
            while await slow.receive():
                pass
    assert not complaints(log)


async def test_high_water() -> None:
    """What the handler sends by itself counts as well.

    "The packets that a handler sends to a client with send_packet() wait in the same place, and
    count, too."
    """
    handler = Listening(high_water=0)
    async with slow_and_quick(handler) as (_, quick):
        client = next(iter(handler.group))
        while not client.get_unsent_size():
            await client.send_packet(PACKET)
        assert handler.group.broadcast("hello") == 1
        assert await quick.receive() == "hello"
        assert client.get_unsent_size() <= SIZE


# Publishing by topic


async def test_topics() -> None:
    """Messages reach the subscribers of their topic.

    "Use one group for each topic. A client can be in several groups"
    """
    handler = topics.NewsRequestHandler("weather", "sports")
    async with serving(handler) as server:
        async with connected(server) as one, connected(server) as other:
            assert await one.ask("subscribe weather") == "Subscribed to weather"
            assert await one.ask("subscribe sports") == "Subscribed to sports"
            assert await other.ask("subscribe sports") == "Subscribed to sports"
            assert await other.ask("subscribe gossip") == "Unknown topic: gossip"
            assert await other.ask("shout sports") == "Unknown command: shout"
            assert await other.ask("publish weather rain") == "Sent to 1"
            assert await one.receive() == "[weather] rain"
            assert await other.ask("publish sports 3:2") == "[sports] 3:2"
            assert await other.receive() == "Sent to 2"
            assert await one.receive() == "[sports] 3:2"
            assert await one.ask("unsubscribe sports") == "Unsubscribed from sports"
            assert await one.ask("publish sports 4:2") == "Sent to 1"


# Sending from other places


async def test_other_thread() -> None:
    """A group belongs to the thread of the event loop.

    "In another thread, it raises RuntimeError if the group is not empty."
    """
    handler = Listening()
    assert await in_thread(lambda: handler.group.broadcast("nobody")) == 0
    async with serving(handler) as server, connected(server) as peer:
        await until(lambda: len(handler.group) == 1)
        with pytest.raises(RuntimeError):
            await in_thread(lambda: handler.group.broadcast("hello"))
        assert handler.group.broadcast("at last") == 1
        assert await peer.receive() == "at last"


async def test_one_by_one() -> None:
    """A loop over a group can send without waiting.

    "To send a different packet to each client, iterate over the group and call try_send_packet(),
    which does not wait either"
    """
    handler = Listening()
    async with slow_and_quick(handler) as (_, quick):
        await fill(handler, next(iter(handler.group)), quick)
        assert [client.try_send_packet("hello") for client in handler.group] == [False, True]
        assert await quick.receive() == "hello"


# Clients with different protocols


async def test_different_protocols() -> None:
    """A packet is encoded for each protocol object; one that cannot costs no other its packet.

    "If a client uses another protocol object (see changing_protocol), broadcast() encodes the
    packet for this client, too. If one protocol object cannot encode the packet, the clients with
    another one still get it, and then broadcast() raises ProtocolCrashedError."

    "So before a client continues with a format that is not for these packets, for example to upload
    a file, remove it from the group."
    """

    class Handler(Listening):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            serializer: Any = RawSerializer() if (yield) == "raw" else StringLineSerializer("CRLF")
            client.set_protocol(StreamProtocol(serializer))
            self.changed = client

    handler = Handler()
    async with slow_and_quick(handler) as (one, other):
        await one.send("windows")
        await until(lambda: hasattr(handler, "changed"))
        handler.group.broadcast("hello")
        assert [await one.receive(), await other.receive()] == ["hello\r", "hello"]
        first = handler.changed
        await other.send("raw")
        await until(lambda: handler.changed is not first)
        with pytest.raises(ProtocolCrashedError):
            handler.group.broadcast("lost")
        assert await one.receive() == "lost\r"
        handler.group.discard(handler.changed)
        assert handler.group.broadcast("found") == 1
        assert await one.receive() == "found\r"
