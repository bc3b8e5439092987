"""The life of a connection, in its order: accepted, greeted, served, gone."""

from __future__ import annotations

from operator import methodcaller

import anyio
import pytest

from easynetwork.exceptions import ClientClosedError
from tests.conformance.peers import new_peer
from tests.conformance.support import (
    Client,
    NewServer,
    Recorder,
    Records,
    Requests,
    Serve,
    each_family,
    on_ip,
    serving,
)

pytestmark = pytest.mark.anyio

LEAVE = {
    "close": methodcaller("close"),
    "half-close": methodcaller("send_eof"),
    "reset": methodcaller("reset"),
}


@each_family
async def test_echo_connection(serve: Serve, log: Records) -> None:
    """A connection is logged, greeted, served by one generator per request, and said goodbye to."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            self.note(log.messages()[-1])

        async def on_disconnection(self, client: Client) -> None:
            self.note("on_disconnection")
            assert not log.messages()[-1].endswith("disconnected (the client has left)")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("one") == "one"
        assert await peer.ask("two") == "two"
        peer.send_eof()
        assert await peer.rest() == ("", "EOF")
        assert log.messages()[1:] == [
            peer.accepted,
            f"{peer.name} disconnected (the client has left)",
        ]
    assert handler.notes == [
        peer.accepted,
        *("handle", "one", "handle", "two", "handle", "GeneratorExit"),
        "on_disconnection",
    ]


@on_ip
async def test_peer_that_vanished_before_it_was_accepted(
    new_server: NewServer, log: Records
) -> None:
    """A connection that was reset while it waited is dropped, silently and without the handler."""
    handler = Recorder()
    server = new_server(handler)
    await server.server_activate()
    for _ in range(3):
        new_peer(server).reset()
    async with serving(server) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        accepted = [message for message in log.messages() if "Accepted" in message]
    assert len(accepted) == 1
    assert len(handler.clients) == 1


async def test_many_connections(serve: Serve) -> None:
    """Clients are served side by side: one that waits holds up nobody."""
    handler = Recorder()
    async with serve(handler) as service:
        peers = [await service.connect() for _ in range(20)]
        for peer in reversed(peers):
            assert await peer.ask("hello") == "hello"
    assert len({id(client) for client in handler.clients}) == 20


async def test_all_in_one_task(serve: Serve) -> None:
    """The hooks, every generator and its clean-up run in the client's own task."""

    class Handler(Recorder):
        def note_task(self) -> None:
            self.note(str(anyio.get_current_task().id))

        async def greet(self, client: Client) -> None:
            self.note_task()

        async def handle(self, client: Client) -> Requests:
            self.note_task()
            try:
                await client.send_packet((yield))
            finally:
                self.note_task()

        async def on_disconnection(self, client: Client) -> None:
            self.note_task()
            self.released.set()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await peer.ask("one")
        peer.close()
        await handler.released.wait()
        assert len(handler.notes) == 6
        assert len(set(handler.notes)) == 1
        await service.connect()
        await handler.noted(handler.notes[0], times=6)


# -- requests


async def test_code_before_the_first_yield(serve: Serve) -> None:
    """A new generator runs to its first yield as soon as the last one has returned."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet("ready")
            await client.send_packet((yield))

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive() == "ready"
        assert await peer.ask("one") == "one"
        assert await peer.receive() == "ready"


async def test_several_yields(serve: Serve) -> None:
    """A generator gets one request at each of its yields."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            first = yield
            second = yield
            await client.send_packet(f"{first} {second}")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("a", "b", "c") == "a b"
        assert await peer.ask("d") == "c d"
        assert handler.notes.count("handle") == 3


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("requests", [0, 1])
async def test_refusal(serve: Serve, log: Records, requests: int, waits: bool) -> None:
    """A generator that returns before its first yield has the connection reset, silently."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            if self.notes.count("handled") == requests:
                if waits:
                    await anyio.lowlevel.checkpoint()
                self.note("refused")
                return
            await client.send_packet((yield))
            self.note("handled")

        async def on_disconnection(self, client: Client) -> None:
            self.note(f"closing: {client.is_closing()}")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        if requests:
            peer.send("hello")
        answer, end = await peer.rest()
        assert end == "reset"
        assert answer == "hello\n" * requests
    assert handler.notes == ["on_connection", *["handled"] * requests, "refused", "closing: True"]


# -- goodbye


class Goodbye(Recorder):
    """Ends a conversation as its peer wishes; says what `is_closing()` is at its end, and bye."""

    async def handle(self, client: Client) -> Requests:
        match (yield):
            case "close":
                await client.aclose()
            case "raise":
                raise LookupError("a bug")
            case "sleep":
                self.note("asleep")
                await anyio.sleep_forever()

    async def on_disconnection(self, client: Client) -> None:
        self.note(f"closing: {client.is_closing()}")
        if not client.is_closing():
            await client.send_packet("bye")


@pytest.mark.parametrize("how", LEAVE)
async def test_state_after_disconnection(serve: Serve, how: str) -> None:
    """When the peer has left, the client is closing in `on_disconnection()`."""
    handler = Goodbye()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        LEAVE[how](peer)
        await handler.noted("closing: True")


async def test_no_goodbye_after_disconnection(serve: Serve) -> None:
    """Nothing is sent any more then, even if the peer would still read."""

    class Handler(Recorder):
        async def on_disconnection(self, client: Client) -> None:
            with pytest.raises(ClientClosedError):
                await client.send_packet("bye")
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        peer.send_eof()
        assert await peer.rest() == ("", "EOF")
        assert handler.notes[-1] == "on_disconnection"


async def test_state_after_aclose(serve: Serve) -> None:
    """When the handler has closed the client, it is closing in `on_disconnection()`."""
    handler = Goodbye()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("close")
        assert await peer.rest() == ("", "EOF")
    assert handler.notes == ["on_connection", "closing: True"]


async def test_state_after_crash(serve: Serve, log: Records) -> None:
    """When the handler has raised, it can still say goodbye."""
    handler = Goodbye()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("raise")
        assert await peer.rest() == ("bye\n", "reset")
        assert [level for level, _, _ in log.problems()] == ["ERROR"]
    assert handler.notes == ["on_connection", "closing: False"]


@pytest.mark.parametrize("is_busy", [False, True])
async def test_state_after_shutdown(serve: Serve, is_busy: bool) -> None:
    """When the server stops, it can still say goodbye, and the peer sees the end of the stream."""
    handler = Goodbye()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        if is_busy:
            peer.send("sleep")
            await handler.noted("asleep")
        await service.server.shutdown()
        assert handler.notes[-1] == "closing: False"
        assert await peer.rest() == ("bye\n", "EOF")
