"""`client.abort()`: the connection is reset now; `try_send_packet()` and `get_unsent_size()`."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import ClientClosedError, ProtocolCrashedError
from tests.conformance.support import Client, Narrow, Recorder, Requests, Serve, one_protocol

pytestmark = [pytest.mark.anyio, one_protocol]

PACKET = "x" * 30_000


# -- a reset


@pytest.mark.parametrize("where", ["on_connection", "handle", "task", "outside"])
async def test_abort(serve: Serve, where: str) -> None:
    """The generator, if there is one, is closed as after a disconnection; nothing is logged."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            if where == "on_connection":
                client.abort()
            elif where == "task":
                client.start_soon(self.abort, client)

        async def abort(self, client: Client) -> None:
            await self.noted("handle")
            client.abort()

        async def handle(self, client: Client) -> Requests:
            with self.noting_errors():
                self.note("handle")
                if where == "handle":
                    client.abort()
                    client.abort()
                yield

        async def on_disconnection(self, client: Client) -> None:
            assert client.is_closing()
            with pytest.raises(ClientClosedError):
                await client.send_packet("bye")
            client.abort()
            self.note("on_disconnection")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        if where == "outside":
            await handler.noted("handle")
            handler.clients[0].abort()
        assert await peer.rest() == ("", "reset")
        await handler.noted("on_disconnection")
        handler.clients[0].abort()
    expected = [] if where == "on_connection" else ["handle", "GeneratorExit"]
    assert handler.notes == [*expected, "on_disconnection"]


async def test_what_waits_is_lost(serve: Serve) -> None:
    """Those who wait for their turn to send, or for the peer to read, get ClientClosedError."""
    errors: list[str] = []

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(self.send, client)
                await anyio.wait_all_tasks_blocked()
                assert client.get_unsent_size() > HIGH_WATER
                client.abort()
                assert client.is_closing()
                assert client.get_unsent_size() == 0
            yield

        async def send(self, client: Client) -> None:
            try:
                await client.send_packet("x" * 300_000)
            except ClientClosedError as exc:
                errors.append(type(exc).__name__)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("on_disconnection")
        assert len((await peer.rest())[0]) < 300_000
    assert errors == ["ClientClosedError"] * 3


async def test_gathered_answers_are_lost(serve: Serve) -> None:
    """Answers that were gathered are lost, too; requests that wait are not delivered."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note((yield))
            await client.send_packet("answer")
            assert client.get_unsent_size() == len("answer\n")
            client.abort()
            assert client.get_unsent_size() == 0

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one", "two")
        assert await peer.rest() == ("", "reset")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "one", "on_disconnection"]


async def test_abort_ends_a_graceful_close(serve: Serve) -> None:
    """A task that closes the client gracefully does not wait for the peer any more."""

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.send, client)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(client.aclose)
                await anyio.wait_all_tasks_blocked()
                client.abort()
            self.note("closed")

        async def send(self, client: Client) -> None:
            with pytest.raises(ClientClosedError):
                await client.send_packet("x" * 1_000_000)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("closed")
        await handler.noted("on_disconnection")
        peer.close()


# -- sending without waiting


async def fill(client: Client) -> int:
    """Send until that takes waiting; return how many packets were sent."""
    sent = 0
    while client.try_send_packet(PACKET):
        sent += 1
        await anyio.lowlevel.checkpoint()
    return sent


async def test_try_send(serve: Serve) -> None:
    """Sends without waiting up to the high-water mark and one packet, and again when it is read."""
    handler = Narrow()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        assert client.get_unsent_size() == 0
        sent = await fill(client)
        size = client.get_unsent_size()
        assert HIGH_WATER < size < HIGH_WATER + 1.1 * len(PACKET)
        assert not client.try_send_packet("")
        assert client.get_unsent_size() <= size
        assert await peer.receive_lines(sent) == [PACKET] * sent
        assert client.get_unsent_size() == 0
        assert client.try_send_packet("more")
        assert await peer.receive() == "more"


async def test_try_send_behind_others(serve: Serve) -> None:
    """Does not overtake tasks that wait for their turn."""
    handler = Narrow()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        async with anyio.create_task_group() as tasks:
            for letter in "ab":
                tasks.start_soon(client.send_packet, letter * 200_000)
                await anyio.wait_all_tasks_blocked()
            assert not client.try_send_packet("c")
            lines = await peer.receive_lines(2)
        assert [line[0] for line in lines] == ["a", "b"]
        assert client.try_send_packet("c")
        assert await peer.receive() == "c"


async def test_try_send_with_gathered_answers(serve: Serve) -> None:
    """Keeps the order, and may be mixed with `send_packet()`."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            while True:
                request = yield
                assert client.try_send_packet(f"{request} 1")
                await client.send_packet(f"{request} 2")
                assert client.try_send_packet(f"{request} 3")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("a", "b", "c")
        expected = [f"{letter} {number}" for letter in "abc" for number in (1, 2, 3)]
        assert await peer.receive_lines(9) == expected


@pytest.mark.parametrize("how", ["aclose", "abort", "reset"])
async def test_try_send_to_a_client_that_is_gone(serve: Serve, how: str) -> None:
    """Returns False, and raises nothing."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            with self.noting_errors():
                yield
                await client.wait_disconnected()
                while client.try_send_packet("hello?"):
                    await anyio.lowlevel.checkpoint()
                self.note("False")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        [client] = handler.clients
        if how == "aclose":
            await client.aclose()
        elif how == "abort":
            client.abort()
        else:
            peer.send("go")
            await anyio.wait_all_tasks_blocked()
            peer.reset()
            await handler.noted("False")
        await handler.noted("on_disconnection")
        assert not client.try_send_packet("hello?")
        peer.close()


class Crashing(AbstractPacketConverter[str, str]):
    """Cannot send everything."""

    def create_from_dto_packet(self, packet: str) -> str:
        return packet

    def convert_to_dto_packet(self, obj: str) -> str:
        if obj == "crash":
            raise LookupError
        return obj


async def test_try_send_what_cannot_be_encoded(serve: Serve) -> None:
    """It is an error, as in `send_packet()`; the client can still be used."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with pytest.raises(ProtocolCrashedError) as info:
                client.try_send_packet("crash")
            assert isinstance(info.value.__cause__, LookupError)
            assert client.get_unsent_size() == 0
            assert client.try_send_packet("fine")

    async with serve(Handler(), Crashing()) as service:
        assert await (await service.connect()).ask("go") == "fine"


# -- threads


@pytest.mark.parametrize("method", ["abort", "try_send_packet"])
async def test_other_thread(serve: Serve, method: str) -> None:
    """In another thread they say the rule, and do nothing."""
    handler = Recorder()

    def run(client: Any) -> None:
        arguments = ["hello"] if method == "try_send_packet" else []
        with pytest.raises(RuntimeError, match="only be used in the thread of its event loop"):
            getattr(client, method)(*arguments)

    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("handle")
        await anyio.to_thread.run_sync(run, handler.clients[0])
        assert await peer.ask("still here") == "still here"
