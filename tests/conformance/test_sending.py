"""Answers: in order, in one piece, without delay, and no faster than the peer reads."""

from __future__ import annotations

import socket
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from easynetwork._tuning import HIGH_WATER, SEND_BUDGET_BYTES
from tests.conformance.changes_support import Upper
from tests.conformance.support import Client, Narrow, Recorder, Requests, Serve, on_ip

pytestmark = pytest.mark.anyio


class Pausing(Recorder):
    """Answers a request at once; a request "pause" is answered, then it waits to be released."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        await client.send_packet(request)
        if request == "pause":
            self.note("pause")
            await self.released.wait()


@pytest.mark.in_turn
async def test_pipelined_requests(serve: Serve) -> None:
    """Requests that come all at once are answered in their order, however many they are."""
    requests = [f"request {number}" for number in range(10_000)]
    async with serve(Recorder()) as service:
        peer = await service.connect()
        await peer.send_much("".join(f"{line}\n" for line in requests).encode())
        assert await peer.receive_lines(len(requests)) == requests


async def test_answers_leave_while_the_handler_waits(serve: Serve) -> None:
    """Answers to pipelined requests are not kept back while the handler waits for something."""
    handler = Pausing()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one", "pause", "three")
        assert await peer.receive_lines(2) == ["one", "pause"]
        assert handler.notes == ["on_connection", "pause"]
        handler.released.set()
        assert await peer.receive() == "three"


async def test_answers_leave_at_a_later_yield(serve: Serve) -> None:
    """Nor while it waits for a further request with time to spare."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            while True:
                await client.send_packet((yield 60))

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("one", "two")
        peer.send_bytes(b"thr")
        assert await peer.receive() == "one"
        assert await peer.receive() == "two"
        assert await peer.ask("ee") == "three"


@on_ip
async def test_broadcast(serve: Serve) -> None:
    """What several tasks send to one client arrives whole; what one of them sends, in order."""

    async def broadcast(client: Client, name: str, count: int) -> None:
        for number in range(count):
            await client.send_packet(f"{name} {number} " + name * 20_000)

    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        async with anyio.create_task_group() as tasks:
            for name in "ab":
                tasks.start_soon(broadcast, handler.clients[0], name, 50)
            await peer.send_much("".join(f"c {n} {'c' * 20_000}\n" for n in range(50)).encode())
            received = [line.split(" ") for line in await peer.receive_lines(150)]
    assert all(text == name * 20_000 for name, _, text in received)
    for sender in "abc":
        numbers = [int(number) for name, number, _ in received if name == sender]
        assert numbers == list(range(50))


async def test_gathered_and_sent_elsewhere(serve: Serve) -> None:
    """What another task sends between two answers to one chunk comes between them."""

    class Handler(Pausing):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await client.send_packet(request)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.send_packet, f"behind {request}")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("one", "two")
        expected = ["one", "behind one", "two", "behind two"]
        assert await peer.receive_lines(4) == expected


async def test_sent_by_a_converter(serve: Serve) -> None:
    """What a converter sends to the same client, as a log may, leaves before its packet."""

    class Talkative(Upper):
        __slots__ = ()

        def convert_to_dto_packet(self, obj: str) -> str:
            [client] = handler.clients
            if obj.startswith("answer"):
                client.try_send_packet(f"log of {obj}")
            return super().convert_to_dto_packet(obj)

    class Handler(Pausing):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await client.send_packet(f"answer to {request}")

    handler = Handler()
    async with serve(handler, converter=Talkative()) as service:
        peer = await service.connect()
        peer.send("one", "two", "three")
        assert [(await peer.receive()).lower() for _ in range(6)] == [
            *("log of answer to one", "answer to one"),
            *("log of answer to two", "answer to two"),
            *("log of answer to three", "answer to three"),
        ]


@pytest.mark.in_turn
async def test_large_packet(serve: Serve) -> None:
    """A packet larger than any buffer goes through, both ways."""
    packet = "x" * 10_000_000
    async with serve(Recorder(), limit=20_000_000) as service:
        peer = await service.connect()
        await peer.send_much(f"{packet}\n".encode())
        assert await peer.receive() == packet


async def test_empty_packet(serve: Serve) -> None:
    """An empty line is a packet, as it is when it is received."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await client.send_packet("")
            await client.send_packet(request)

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert [await peer.ask("one", "two"), await peer.receive()] == ["", "one"]
        assert [await peer.receive(), await peer.receive()] == ["", "two"]


# -- peers that do not read


class Streaming(Narrow):
    """Sends big packets for ever."""

    async def handle(self, client: Client) -> Requests:
        yield
        while True:
            await client.send_packet(f"{self.notes.count('sent')} " + "x" * 50_000)
            self.note("sent")


async def settled(count: Callable[[], int]) -> int:
    """Return a number when nothing makes it grow any more."""
    while True:
        before = count()
        await anyio.wait_all_tasks_blocked()
        if count() == before:
            return before


async def test_back_pressure(serve: Serve) -> None:
    """A peer that does not read makes `send_packet()` wait, and loses nothing of it."""
    handler = Streaming()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("sent")
        sent = await settled(lambda: handler.notes.count("sent"))
        # What the kernel holds, 64 KiB in the transport, and the packet that was too much.
        assert sent < 20
        for number in range(sent + 5):
            assert (await peer.receive()).startswith(f"{number} x")
        assert handler.notes.count("sent") > sent


async def test_back_pressure_on_several_tasks(serve: Serve) -> None:
    """All tasks that send to such a peer wait, and all go on."""
    handler = Streaming()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("on_connection")
        async with anyio.create_task_group() as tasks:
            for name in "abcde":
                tasks.start_soon(handler.clients[0].send_packet, name * 100_000)
            await anyio.wait_all_tasks_blocked()
            lines = await peer.receive_lines(5)
    assert set(lines) == {name * 100_000 for name in "abcde"}


async def test_reset_while_waiting_to_send(serve: Serve) -> None:
    """If such a peer resets the connection, `send_packet()` raises; nothing is logged."""

    class Handler(Streaming):
        async def handle(self, client: Client) -> Requests:
            with self.noting_errors():
                async for _ in super().handle(client):
                    yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("sent")
        await settled(lambda: handler.notes.count("sent"))
        peer.reset()
        await handler.noted("on_disconnection")
    assert handler.notes[-2] in ("ConnectionResetError", "BrokenPipeError")


async def test_client_that_does_not_read_its_answers(serve: Serve) -> None:
    """Nor does the server read on: what a peer may make it keep is limited."""
    handler = Recorder()
    packet = "x" * 50_000 + "\n"
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.socket.setblocking(False)
        await handler.noted("on_connection")
        sent = 0

        def push() -> int:
            nonlocal sent
            try:
                while True:
                    sent += peer.socket.send(packet.encode()[sent % len(packet) :])
            except BlockingIOError:
                return sent

        total = await settled(push)
        # The kernel's buffers both ways (net.ipv4.tcp_rmem and tcp_wmem: up to 6 and 4 MiB).
        assert total < 20_000_000
        peer.socket.setblocking(True)
        assert await peer.receive() == packet[:-1]


# -- fairness


@pytest.mark.in_turn
async def test_heartbeat_in_a_storm(serve: Serve) -> None:
    """A client that asks now and then is answered in the middle of a storm of requests."""

    class Handler(Recorder):
        storm = 0

        async def handle(self, client: Client) -> Requests:
            if (yield) == "beat":
                await client.send_packet(str(self.storm))
            else:
                self.storm += 1

    clouds, drops = 3, 15_000
    handler = Handler()
    async with serve(handler) as service:
        calm = await service.connect()
        storm = [await service.connect() for _ in range(clouds)]
        await handler.noted("on_connection", times=1 + clouds)
        for peer in storm:
            await peer.send_much(b"one of very many...\n" * drops)
        for _ in range(5):
            before = handler.storm
            # A turn of the loop or two, of at most 1,024 packets of each connection.
            assert int(await calm.ask("beat")) - before <= clouds * 1024 * 3
        while handler.storm < clouds * drops:
            await anyio.lowlevel.checkpoint()


@pytest.mark.in_turn
async def test_turns_in_a_torrent(serve: Serve) -> None:
    """Nor does the event loop stand still while a handler sends and the kernel takes it all."""

    class Handler(Recorder):
        sent = 0

        async def handle(self, client: Client) -> Requests:
            yield
            while True:
                await client.send_packet("x" * 9_999)
                self.sent += 10_000

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        greedy = await service.connect()
        greedy.send("go")
        tasks.start_soon(greedy.rest)
        try:
            while (before := handler.sent) < 5_000_000:
                await anyio.lowlevel.checkpoint()
                # A handler sends 256 KiB a turn, and a packet; 64 KiB may wait besides, which cost
                # the loop nothing. This task may see two turns at once.
                turn = SEND_BUDGET_BYTES + HIGH_WATER + 10_000
                assert handler.sent - before <= 2 * turn
        finally:
            greedy.socket.shutdown(socket.SHUT_RDWR)
