"""Test the statements and the examples of the page about many clients.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
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
from easynetwork.testing import serve, virtual_time
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

LINES = StreamProtocol[str, str](StringLineSerializer())

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

    server: Any = None

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

    "A ClientGroup is a set of clients. Its method add() adds a client, and broadcast() sends a
    packet to all of them, except those in exclude."

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

    "Do not write a loop that awaits send_packet() for one client after the other. As soon as one
    client does not read, send_packet() waits for it, and all clients that follow
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
        handler.server = server
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

    "you can send a packet to many clients at once, and no slow client delays the others"

    "Data that a client does not read waits in the memory of the server."

    "The operating system buffers more data for each connection, which is not counted here."

    "A group does not send to a client if more than high_water bytes are waiting for it, 64 KiB by
    default."

    "The client misses this packet, and may get the next one."

    "This is the default."

    "The skipped attribute counts how often this has happened."

    "So for each client, at most high_water bytes and one packet are waiting."

    "A client that reads nothing for 60 seconds is reset: see send_timeout"
    """
    assert Limits().send_timeout == 60
    assert HIGH_WATER == 64 * 1024
    handler = Listening()
    async with slow_and_quick(handler) as (slow, quick):
        client = next(iter(handler.group))
        count = await fill(handler, client, quick)
        assert handler.group.skipped == 1
        assert HIGH_WATER < client.get_unsent_size() < count * SIZE
        assert handler.group.broadcast("missed") == 1
        assert await quick.receive() == "missed"
        assert handler.group.skipped == 2
        for _ in range(count):
            assert await slow.receive() == PACKET
        await until(lambda: client.get_unsent_size() == 0)
        assert handler.group.broadcast("hello") == 2
        assert await slow.receive() == "hello"


def test_slow_argument() -> None:
    """There are two answers.

    "The slow argument says what happens instead"
    """
    assert inspect.signature(ClientGroup).parameters["slow"].default == "skip"
    assert inspect.signature(ClientGroup).parameters["high_water"].default == HIGH_WATER
    for slow in "skip", "abort":
        ClientGroup[str](slow=slow)
    with pytest.raises(ValueError, match="Invalid slow"):
        ClientGroup[str](slow="wait")  # type: ignore[arg-type]  # on purpose


def test_sum_of_skipped() -> None:
    """The group counts what two clients have missed; a loop can count for each of them.

    "It is the sum for all clients of the group. To count for each client, use try_send_packet() in
    a loop."
    """

    async def main() -> None:
        handler = Listening()
        async with serve(handler, LINES) as served:
            peers = [await served.connect(raw=True) for _ in range(2)]
            await until(lambda: len(handler.group) == 2)
            while handler.group.broadcast(PACKET):
                await anyio.sleep(0.001)
            assert handler.group.skipped == 2
            handler.group.broadcast(PACKET)
            assert handler.group.skipped == 4
            missed = dict.fromkeys(handler.group, 0)
            for client in handler.group:
                while not client.try_send_packet(PACKET) and missed[client] < 3:
                    missed[client] += 1
            assert list(missed.values()) == [3, 3]
            assert handler.group.skipped == 4
            del peers

    anyio.run(main, backend_options=virtual_time())


@pytest.mark.parametrize("high_water", [HIGH_WATER, 10_000, 500_000])
def test_memory(high_water: int) -> None:
    """Clients that do not read cost as much memory as the group allows.

    "For example, 1,000 clients that do not read cost about 64 MiB with the default and small
    packets. Choose high_water accordingly: a small value saves memory, a large value tolerates
    longer interruptions."
    """

    async def main() -> None:
        handler = Listening(high_water=high_water)
        async with serve(handler, LINES) as served:
            peers = [await served.connect(raw=True) for _ in range(3)]
            await until(lambda: len(handler.group) == 3)
            packets = 0
            while handler.group.broadcast("x" * 999):
                packets += 1
                await anyio.sleep(0.001)
            sizes = [client.get_unsent_size() for client in handler.group]
            assert all(high_water < size <= high_water + 1000 for size in sizes)
            assert packets > high_water / 1000
            if high_water == HIGH_WATER:
                assert sum(sizes) / 3 * 1000 / 2**20 == pytest.approx(64, abs=2)
            del peers

    anyio.run(main, backend_options=virtual_time())


async def test_abort(log: pytest.LogCaptureFixture) -> None:
    """A slow client is disconnected.

    "The connection of this client is reset."

    "It is right if a client must not miss a packet: the client can connect again, and ask for what
    it has missed."
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
        async with connected(handler.server) as again:
            await until(lambda: len(handler.group) == 2)
            assert await again.ask("what did I miss?") == "what did I miss?"
            assert handler.group.broadcast("hello") == 2
            assert await again.receive() == "hello"
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

    "Use one ClientGroup for each topic. A client can be in several groups. This handler calls
    group.add() for the request subscribe, group.discard() for unsubscribe, and group.broadcast()
    for publish"
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


def test_own_topics() -> None:
    """A group that has become empty can be deleted when its last client has left.

    "If your clients create them, limit their number, and delete a group that has become empty: in
    on_disconnection(), the client has already left its groups."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        def __init__(self) -> None:
            self.topics: dict[str, ClientGroup[str]] = {}

        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            topic = yield
            if topic not in self.topics and len(self.topics) == 2:
                await client.send_packet("too many topics")
            else:
                self.topics.setdefault(topic, ClientGroup()).add(client)
                await client.send_packet("subscribed")

        async def on_disconnection(self, client: Client) -> None:
            for topic, group in list(self.topics.items()):
                assert client not in group
                if not group:
                    del self.topics[topic]

    async def main() -> None:
        handler = Handler()
        async with serve(handler, LINES) as served:
            one, other = await served.connect(), await served.connect()
            for client, topic in (one, "weather"), (one, "sports"), (other, "weather"):
                await client.send_packet(topic)
                assert await client.recv_packet() == "subscribed"
            await other.send_packet("gossip")
            assert await other.recv_packet() == "too many topics"
            await one.aclose()
            await anyio.sleep(1)
            assert list(handler.topics) == ["weather"]
            await other.aclose()
            await anyio.sleep(1)
            assert not handler.topics

    anyio.run(main, backend_options=virtual_time())


# Sending from other places


def test_any_function() -> None:
    """A task of the service, and a thread with a portal, send to all clients.

    "You can call broadcast() in any function that runs in the thread of the event loop, for example
    in a task that service_init() has started."

    "Use a portal there"
    """

    class Handler(Listening):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            task_group = await exit_stack.enter_async_context(anyio.create_task_group())
            exit_stack.callback(task_group.cancel_scope.cancel)
            task_group.start_soon(self.send_news)
            portal = server.backend().create_threads_portal()
            self.portal = await exit_stack.enter_async_context(portal)

        async def send_news(self) -> None:
            await until(lambda: len(self.group) == 1)
            self.group.broadcast("news")

    async def main() -> None:
        handler = Handler()
        async with serve(handler, LINES) as served:
            client = await served.connect()
            assert await client.recv_packet() == "news"
            call = partial(handler.portal.call, handler.group.broadcast, "from a thread")
            assert await in_thread(call) == 1
            assert await client.recv_packet() == "from a thread"

    anyio.run(main)


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
