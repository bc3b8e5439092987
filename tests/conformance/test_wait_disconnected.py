"""`client.wait_disconnected()`: the end of a connection is seen while nobody waits for a packet."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable
from operator import methodcaller
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.exceptions import EndOfStreamError
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from tests.conformance.peers import BasePeer
from tests.conformance.support import (
    Client,
    Recorder,
    Records,
    Requests,
    Serve,
    one_protocol,
    serving,
)
from tests.times import SOON
from tests.tools import until

pytestmark = [pytest.mark.anyio, one_protocol]

LEAVE = {"half-close": methodcaller("send_eof"), "reset": methodcaller("reset")}


class Working(Recorder):
    """Works for a client that says "work" until it has left; echoes everything else."""

    async def handle(self, client: Client) -> Requests:
        with self.noting_errors():
            request = yield
        if request == "work":
            self.note("working")
            await self.work(client)
            self.note("left")
        else:
            self.note(request)
            await client.send_packet(request)

    async def work(self, client: Client) -> None:
        await client.wait_disconnected()


def watch_of(client: Any) -> Any:
    return client.watch


async def check_silence(awaitable: Awaitable[object]) -> None:
    """Check that something does not return."""
    with anyio.move_on_after(SOON):
        await awaitable
        raise AssertionError("It should wait")


# -- when it returns


@pytest.mark.parametrize("how", LEAVE)
async def test_peer_leaves(serve: Serve, how: str) -> None:
    """It returns when the peer ends or resets the connection; the generator ends at its `yield`."""
    handler = Working()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("working")
        await anyio.wait_all_tasks_blocked()
        assert "left" not in handler.notes
        LEAVE[how](peer)
        await handler.noted("on_disconnection")
    assert handler.notes[1:] == ["working", "left", "GeneratorExit", "on_disconnection"]


async def test_peer_has_left(serve: Serve) -> None:
    """It returns at once when that has happened already, as often as it is called."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            await self.released.wait()
            for _ in range(3):
                await client.wait_disconnected()

        async def on_disconnection(self, client: Client) -> None:
            await client.wait_disconnected()
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("working")
        peer.close()
        handler.released.set()
        await handler.noted("on_disconnection")
        await handler.clients[0].wait_disconnected()


async def test_reset_is_seen(serve: Serve, transport: str) -> None:
    """After a reset, the client is closing."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            assert not client.is_closing()
            await client.wait_disconnected()
            self.note(f"{client.is_closing()}")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("working")
        peer.reset()
        await handler.noted("left")
    if transport != "unix":
        assert "True" in handler.notes


async def test_half_close(serve: Serve) -> None:
    """A peer that only ends its sending side can still be answered."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            await client.wait_disconnected()
            assert not client.is_closing()
            await client.send_packet("bye")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("work")
        peer.send_eof()
        assert await peer.rest() == ("bye\n", "EOF")


async def test_truncation(serve: Serve, tls: ssl.SSLContext | None, log: Records) -> None:
    """Over TLS, the connection may end without a closing alert."""
    if tls is None:
        pytest.skip("not over TLS")
    handler = Working()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("working")
        peer._raw.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
        await handler.noted("on_disconnection")
    assert handler.notes[1:] == ["working", "left", "GeneratorExit", "on_disconnection"]
    assert len(log.problems()) <= 1  # a line about the truncation


@pytest.mark.parametrize("how", ["aclose", "abort"])
@pytest.mark.parametrize("unread", [0, 75_000])
async def test_closed_here(serve: Serve, how: str, unread: int) -> None:
    """It returns when another task closes the client, also above the high-water mark."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(client.wait_disconnected)
                await anyio.wait_all_tasks_blocked()
                await until(lambda: len(decoder_of(client)) >= unread)
                if how == "aclose":
                    await client.aclose()
                else:
                    client.abort()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        if unread:
            await peer.send_much((b"x" * 9_999 + b"\n") * 8)
        await peer.rest()
        await handler.noted("left")
        await handler.noted("on_disconnection")


def decoder_of(client: Any) -> Any:
    return client.decoder


async def test_shutdown(serve: Serve) -> None:
    """A server that stops cancels a handler that waits; others who wait go on."""
    handler = Working()
    others: list[str] = []

    async def wait(client: Client) -> None:
        await client.wait_disconnected()
        others.append("returned")

    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("working")
        tasks.start_soon(wait, handler.clients[0])
        await anyio.wait_all_tasks_blocked()
        await service.server.shutdown()
        await peer.rest()
    assert handler.notes == ["on_connection", "working", "on_disconnection"]
    assert others == ["returned"]


# -- who waits


async def test_many_waiters(serve: Serve) -> None:
    """Any number of tasks may wait; those that are cancelled do not disturb the others."""
    returned: list[int] = []

    class Handler(Working):
        async def work(self, client: Client) -> None:
            async def wait(number: int) -> None:
                with scopes[number]:
                    await client.wait_disconnected()
                    returned.append(number)

            scopes = [anyio.CancelScope() for _ in range(30)]
            tasks_before = len(anyio.get_running_tasks())
            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(wait, number)
                await anyio.wait_all_tasks_blocked()
                assert len(anyio.get_running_tasks()) == tasks_before + 30 + 1
                for scope in scopes[::3]:
                    scope.cancel()
                await anyio.wait_all_tasks_blocked()
                self.note("cancelled")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("cancelled")
        assert returned == []
        peer.send_eof()
        await handler.noted("left")
    assert sorted(returned) == [number for number in range(30) if number % 3]


async def test_cancelled_waiters(serve: Serve) -> None:
    """At whatever moment those who wait are cancelled, no packet is lost."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            for turns in range(20):
                with anyio.move_on_after(3600) as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client.wait_disconnected)
                        for _ in range(turns % 5):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()
                assert await client.recv_packet() == f"{turns}"

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        for number in range(20):
            for byte in f"{number}\n".encode():
                peer.send_bytes(bytes([byte]))
                await anyio.lowlevel.checkpoint()
        await handler.noted("left")
        assert await peer.ask("hello") == "hello"


async def test_while_the_generator_waits(serve: Serve) -> None:
    """A task may wait while the generator waits at its `yield`, which still gets the packets."""
    handler = Recorder()
    returned: list[str] = []

    async def wait(client: Client) -> None:
        await client.wait_disconnected()
        returned.append("returned")

    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        await handler.noted("handle")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait, handler.clients[0])
        await anyio.wait_all_tasks_blocked()
        for part in b"he", b"llo\nhow ", b"are", b" you\n":
            peer.send_bytes(part)
            await anyio.wait_all_tasks_blocked()
        assert await peer.receive_lines(2) == ["hello", "how are you"]
        assert returned == []
        peer.send_eof()
        await handler.noted("on_disconnection")
    assert returned == ["returned"]
    assert handler.notes[-2:] == ["GeneratorExit", "on_disconnection"]


async def test_while_a_helper_waits(serve: Serve) -> None:
    """The same with `recv_packet()`; both learn of the end."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.listen, client)
                await anyio.wait_all_tasks_blocked()
                await client.wait_disconnected()
                self.note("disconnected")

        async def listen(self, client: Client) -> None:
            with pytest.raises(EndOfStreamError):
                while True:
                    self.note(await client.recv_packet())

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("working")
        peer.send("one", "two")
        await handler.noted("two")
        peer.send_eof()
        await handler.noted("left")
    assert "disconnected" in handler.notes


# -- packets


async def test_packets_before_the_end(serve: Serve) -> None:
    """It returns though packets wait; these are still delivered, and then the end."""
    handler = Working()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work", "one", "two")
        peer.send_eof()
        await handler.noted("left")
        assert await peer.rest() == ("one\ntwo\n", "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes[2:] == ["left", "one", "two", "GeneratorExit", "on_disconnection"]


async def test_packets_meanwhile(serve: Serve) -> None:
    """Packets that arrive meanwhile are kept, in order, however they are cut."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            with anyio.CancelScope() as self.scope:
                await client.wait_disconnected()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await handler.noted("working")
        for part in b"on", b"e\ntwo\nth", b"ree":
            peer.send_bytes(part)
            await anyio.wait_all_tasks_blocked()
        handler.scope.cancel()
        assert await peer.receive_lines(2) == ["one", "two"]
        assert await peer.ask("") == "three"


async def test_timeouts_afterwards(serve: Serve) -> None:
    """A `yield` with a timeout works as before once the connection is watched."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            await check_silence(client.wait_disconnected())
            for timeout in (SOON, 0):
                with pytest.raises(TimeoutError):
                    await client.recv_packet(timeout=timeout)

        async def handle(self, client: Client) -> Requests:
            yield
            await self.work(client)
            for timeout in (SOON, 0):
                with pytest.raises(TimeoutError):
                    yield timeout
            await client.send_packet("ready")
            await client.send_packet((yield 60))

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.ask("work") == "ready"
        assert await peer.ask("hello") == "hello"


class Generators(StringLineSerializer):
    """Parses with generators of its own."""

    def incremental_deserialize(self) -> Any:
        data = yield
        while b"\n" not in data:
            data += yield
        packet, _, rest = data.partition(b"\n")
        return packet.decode(), rest


@pytest.mark.parametrize("serializer", [StringLineSerializer, Generators])
async def test_long_packet(protocol_class: Any, log: Records, serializer: Any) -> None:
    """When the connection is watched, a packet may be longer than the high-water mark."""

    class Handler(Working):
        async def work(self, client: Client) -> None:
            await check_silence(client.wait_disconnected())
            await client.send_packet("ready")
            await client.send_packet(f"{len(await client.recv_packet())}")

    protocol = protocol_class(serializer(limit=1 << 20))
    async with serving(AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Handler())) as service:
        peer = await service.connect()
        assert await peer.ask("work") == "ready"
        await peer.send_much(b"x" * 500_000 + b"\n")
        assert await peer.receive() == "500000"
        await peer.send_much(b"y" * 500_000 + b"\n")
        assert len(await peer.receive()) == 500_000


async def test_bounded_memory(serve: Serve) -> None:
    """While nobody asks for packets, at most about the high-water mark is read."""

    async def send(peer: BasePeer) -> None:
        await peer.send_much((b"x" * 999 + b"\n") * 5_000)

    class Handler(Working):
        async def work(self, client: Client) -> None:
            await check_silence(client.wait_disconnected())
            await self.released.wait()

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("work")
        tasks.start_soon(send, peer)
        await handler.noted("working")
        [client] = handler.clients
        await until(lambda: len(decoder_of(client)) > HIGH_WATER)
        with anyio.move_on_after(SOON):
            await anyio.sleep_forever()
        assert len(decoder_of(client)) <= HIGH_WATER + 2 * 65_536
        handler.released.set()
        lines = await peer.receive_lines(5_000)
        assert {len(line) for line in lines} == {999}


@pytest.mark.parametrize("receiver", ["helper", "generator"])
async def test_end_after_many_packets(serve: Serve, receiver: str) -> None:
    """The end is seen as soon as no more than the high-water mark waits unread."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            client.start_soon(self.wait, client)
            await until(lambda: watch_of(client) and len(decoder_of(client)) > 79_900)
            await anyio.wait_all_tasks_blocked()
            assert "left" not in self.notes
            while len(decoder_of(client)) > HIGH_WATER:
                if receiver == "helper":
                    await client.recv_packet()
                else:
                    yield
            await self.noted("left")
            while True:
                yield

        async def wait(self, client: Client) -> None:
            await client.wait_disconnected()
            self.note("left")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work")
        await peer.send_much((b"x" * 9_999 + b"\n") * 8)
        peer.send_eof()
        await handler.noted("on_disconnection")


# -- the end of the watch


@pytest.mark.parametrize("end", ["peer", "crash", "aclose", "abort", "refused"])
@pytest.mark.parametrize("unread", [0, 75_000])
async def test_nothing_stays(serve: Serve, log: Records, end: str, unread: int) -> None:
    """After the connection, the task that reads is not left."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            if end == "refused":
                await self.use(client)
                return
            yield
            await self.use(client)
            while True:
                yield

        async def use(self, client: Client) -> None:
            with anyio.move_on_after(SOON):
                await client.wait_disconnected()
            await until(lambda: len(decoder_of(client)) >= unread)
            self.note("used")
            if end == "crash":
                raise LookupError
            if end == "aclose":
                await client.aclose()
            elif end == "abort":
                client.abort()

    handler = Handler()
    async with serve(handler) as service:
        first = len(anyio.get_running_tasks())
        peer = await service.connect()
        if end != "refused":
            peer.send("work")
        if unread:
            await peer.send_much((b"x" * 9_999 + b"\n") * 8)
        await handler.noted("used")
        if end == "peer":
            peer.send_eof()
        await peer.rest()
        await handler.noted("on_disconnection")
        await log.logged("disconnected")
        log.problems()
        await until(lambda: len(anyio.get_running_tasks()) <= first)


# -- threads


async def test_other_thread(serve: Serve) -> None:
    """A coroutine that runs in another thread is told the rule, and nothing begins."""

    def run(client: Client) -> None:
        coroutine = client.wait_disconnected()
        with pytest.raises(RuntimeError, match="only be used in the thread of its event loop"):
            coroutine.send(None)

    handler = Recorder()
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("handle")
        await anyio.to_thread.run_sync(run, handler.clients[0])
        assert watch_of(handler.clients[0]) is None
