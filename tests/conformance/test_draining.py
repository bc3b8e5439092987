"""A server that is shut down with a grace: who is ended, when, and what still arrives."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.exceptions import EndOfStreamError
from easynetwork.servers.statistics import CloseReason
from tests.conformance.peers import BasePeer, new_peer
from tests.conformance.support import (
    REFUSED,
    Client,
    NewServer,
    Recorder,
    Records,
    Requests,
    Serve,
    Service,
    one_protocol,
)
from tests.times import PATIENCE

pytestmark = [pytest.mark.anyio, one_protocol]

in_memory = pytest.mark.parametrize("transport", ["memory"])
on_sockets = pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
LONG = PATIENCE / 2


@pytest.fixture(autouse=True)
def silence(transport: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """Take clients to be silent sooner, where the time is real; return after how many seconds."""
    seconds = 1.0 if transport == "memory" else 0.2
    monkeypatch.setattr("easynetwork.servers._stream.drain.SILENCE", seconds)
    return seconds


class Versatile(Recorder):
    """Does what a request says; notes how each client has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[CloseReason | None] = []

    async def handle(self, client: Any) -> Requests:
        with self.noting_errors():
            request = yield
        self.note(request)
        match request.split():
            case ["work", seconds]:
                await anyio.sleep(float(seconds))
                await client.send_packet("worked")
            case ["wait"]:
                await self.released.wait()
                await client.send_packet("waited")
            case ["converse"]:
                await client.send_packet("more?")
                with self.noting_errors():
                    answer = yield
                await client.send_packet(answer)
            case ["receive"]:
                await client.send_packet("more?")
                with self.noting_errors():
                    await client.send_packet(await client.recv_packet())
            case ["beat"]:
                while True:
                    try:
                        answer = yield 0.3
                    except TimeoutError:
                        answer = "beat"
                    await client.send_packet(answer)
            case ["large", size]:
                await client.send_packet("x" * int(size))
            case _:
                await client.send_packet(request)

    async def on_disconnection(self, client: Any) -> None:
        self.reasons.append(client.close_reason)
        self.note(f"closing: {client.is_closing()}, draining: {client.is_draining()}")


async def timed(service: Service, grace: float) -> float:
    """Shut a server down; return how many seconds that took."""
    start = anyio.current_time()
    await service.server.shutdown(grace=grace)
    return anyio.current_time() - start


# -- the matrix, in virtual time: what is asked, when a drain ends, what has arrived, and the reason

DRAINED, STOPPED = CloseReason.DRAINED, CloseReason.STOPPED
MATRIX: dict[str, tuple[list[str], dict[int, tuple[float, str, CloseReason]]]] = {
    "idle": (["hi"], {0: (0, "hi", STOPPED), 1: (0, "hi", DRAINED), 10: (0, "hi", DRAINED)}),
    "working": (
        ["work 5"],
        {0: (0, "", STOPPED), 1: (1, "", STOPPED), 10: (5, "worked", DRAINED)},
    ),
    "pipelined": (
        ["work 0.4"] * 4,
        {
            0: (0, "", STOPPED),
            1: (1, "worked worked", STOPPED),
            10: (1.6, "worked worked worked worked", DRAINED),
        },
    ),
    "in a conversation": (
        ["converse"],
        {0: (0, "more?", STOPPED), 10: (1, "more?", DRAINED)},
    ),
    "in recv_packet()": (
        ["receive"],
        {0: (0, "more?", STOPPED), 10: (1, "more?", DRAINED)},
    ),
    "in a loop with a heartbeat": (
        ["beat"],
        {0: (0, "", STOPPED), 10: (1, "beat beat beat", DRAINED)},
    ),
}
CASES = [
    pytest.param(requests, grace, *expected, id=f"{name}-{grace}")
    for name, (requests, by_grace) in MATRIX.items()
    for grace, expected in by_grace.items()
]


@in_memory
@pytest.mark.parametrize(("requests", "grace", "seconds", "answers", "reason"), CASES)
async def test_matrix(
    serve: Serve,
    requests: list[str],
    grace: float,
    seconds: float,
    answers: str,
    reason: CloseReason,
) -> None:
    """Who has something to finish does so within the grace; nobody else is waited for."""
    handler = Versatile()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send(*requests)
        await handler.noted(requests[0])
        await anyio.lowlevel.checkpoint()  # if it is answered at once, it is
        assert await timed(service, grace) == pytest.approx(seconds, abs=0.01)
        received, end = await peer.rest()
        assert received.split() == answers.split()
        assert end == "EOF"
    assert handler.reasons == [reason]


@in_memory
@pytest.mark.parametrize(("grace", "is_complete"), [(0, False), (1, False), (10, True)])
async def test_slow_reader(serve: Serve, grace: float, is_complete: bool) -> None:
    """A client that reads late gets its answer within the grace."""
    handler = Versatile()

    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("large 1000000")
        await handler.noted("large 1000000")

        async def read_late() -> None:
            await anyio.sleep(3)
            received, _ = await peer.rest()
            assert (len(received) == 1_000_001) == is_complete

        tasks.start_soon(read_late)
        seconds = await timed(service, grace)
        assert seconds == pytest.approx(3 if is_complete else grace + 0.5, abs=0.1)


@in_memory
async def test_slow_reader_in_a_conversation(serve: Serve) -> None:
    """A client is not silent while something waits to be sent to it."""

    class Handler(Versatile):
        async def handle(self, client: Client) -> Requests:
            yield
            with anyio.move_on_after(0.1):
                await client.send_packet("x" * 1_000_000)
            self.note("sent")
            yield

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("sent")

        async def read_late() -> None:
            await anyio.sleep(3)
            received, end = await peer.rest()
            assert (len(received), end) == (1_000_001, "EOF")

        tasks.start_soon(read_late)
        assert 3 <= await timed(service, 10) <= 4.1
    assert handler.reasons == [DRAINED]


@in_memory
async def test_conversation_goes_on(serve: Serve) -> None:
    """A client in a conversation is left alone while it speaks, also in the middle of a packet."""

    class Handler(Versatile):
        async def handle(self, client: Client) -> Requests:
            while True:
                await client.send_packet((yield))

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        assert await peer.ask("one") == "one"

        async def speak() -> None:
            for _ in range(2):
                await anyio.sleep(0.6)
                peer.send("word")
                await anyio.sleep(0.9)
                peer.send_bytes(b"w")
                await anyio.sleep(0.9)
                peer.send_bytes(b"ord\n")

        tasks.start_soon(speak)
        assert await timed(service, 20) == pytest.approx(2 * 2.4 + 1, abs=0.01)
        assert await peer.rest() == ("word\nword\n" * 2, "EOF")


@in_memory
async def test_talkative_client(serve: Serve) -> None:
    """A client that never stops talking is cancelled at the end of the grace."""
    handler = Versatile()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("beat")

        async def speak() -> None:
            while True:
                peer.send("word")
                await anyio.sleep(0.5)

        await handler.noted("beat")
        tasks.start_soon(speak)
        assert 5 <= await timed(service, 5) <= 5.6  # what it still sends makes the end linger
        tasks.cancel_scope.cancel()
    assert handler.reasons == [STOPPED]


@in_memory
async def test_greeting_generator(serve: Serve) -> None:
    """A client that does not answer a greeting is left alone for a second."""

    class Handler(Versatile):
        async def on_connection(self, client: Client) -> Any:
            await client.send_packet("name?")
            with self.noting_errors():
                yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.receive() == "name?"
        assert await timed(service, 10) == pytest.approx(1, abs=0.01)
        assert handler.notes == ["GeneratorExit"]


@in_memory
async def test_log(serve: Serve, log: Records) -> None:
    """The log says at the start, every five seconds and at the end how many clients are left."""
    handler = Versatile()
    async with serve(handler) as service:
        for request in "work 2", "work 7":
            peer = await service.connect()
            peer.send(request)
            await handler.noted(request)
        await service.server.shutdown(grace=20)
    lines = [line for line in log.messages() if "rain" in line and "disconnected" not in line]
    assert lines == [
        "Draining for at most 20 seconds, clients left: 2",
        "Still draining, clients left: 1",
        "Drained, clients left: 0",
    ]


@in_memory
async def test_shorter_grace(serve: Serve) -> None:
    """A second call with a shorter grace shortens the first, one with a longer does nothing."""
    handler = Versatile()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("wait")
        await handler.noted("wait")
        ends = []

        async def shut_down(grace: float) -> None:
            ends.append(round(await timed(service, grace), 1))

        for grace in 20, 30, 2, 10:
            tasks.start_soon(shut_down, grace)
            await anyio.sleep(1)
    assert sorted(ends) == [1.0, 2.0, 3.0, 4.0]


@in_memory
async def test_stopped_meanwhile(serve: Serve) -> None:
    """Without a grace, the second call stops the server at once."""
    handler = Versatile()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("wait")
        await handler.noted("wait")
        tasks.start_soon(lambda: service.server.shutdown(grace=10))
        await anyio.sleep(1)
        assert await timed(service, 0) == pytest.approx(0, abs=0.01)
        assert not service.server.is_draining()


@in_memory
async def test_cancelled_caller(serve: Serve) -> None:
    """If the caller is cancelled, the drain goes on."""
    handler = Versatile()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("work 3")
        await handler.noted("work 3")
        with anyio.move_on_after(1):
            await service.server.shutdown(grace=10)
        assert await peer.rest() == ("worked\n", "EOF")


@in_memory
async def test_broken_listener(serve: Serve, log: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the backlog cannot be accepted, the server stops, and says why."""

    async def fail(*args: object) -> None:
        raise OSError("broken")

    async with serve(Versatile()) as service:
        monkeypatch.setattr("easynetwork.servers._stream.service.StreamService.stop", fail)
        assert await timed(service, 5) == pytest.approx(0, abs=0.01)
        [(level, message, exc)] = log.problems()
        assert (level, message, str(exc)) == ("ERROR", "Draining ends early", "broken")


@in_memory
async def test_new_connection(serve: Serve) -> None:
    """A client that has just connected has a second to send its first request."""
    async with serve(Versatile()) as service, anyio.create_task_group() as tasks:
        silent, prompt = await service.connect(), await service.connect()
        begin = anyio.current_time()  # not 0 on uvloop
        tasks.start_soon(lambda: service.server.shutdown(grace=10))
        await anyio.sleep(0.9)
        prompt.send("hello")
        assert await prompt.rest() == ("hello\n", "EOF")
        assert await silent.rest() == ("", "EOF")
        assert anyio.current_time() - begin < 1.5


# -- on every loop


async def test_idle(serve: Serve, log: Records, silence: float) -> None:
    """A client between two requests is closed as if it had left; the server is as new."""
    handler = Versatile()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hi") == "hi"
        await anyio.sleep(silence)
        [client] = service.server.get_clients()
        await service.server.shutdown(grace=LONG)
        assert await peer.rest() == ("", "EOF")
        assert handler.notes[-2:] == ["GeneratorExit", "closing: True, draining: True"]
        assert handler.reasons == [DRAINED]
        assert not service.server.is_listening()
        assert not service.server.is_draining()
        assert not client.is_draining()


async def test_states(serve: Serve) -> None:
    """While a server drains, it and its clients say so, it listens no more, and goes on working."""
    handler = Versatile()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        address = service.server.get_addresses()[0]
        peer = await service.connect()
        peer.send("wait", "two", "three")
        await handler.noted("wait")
        tasks.start_soon(lambda: service.server.shutdown(grace=LONG))
        while service.server.is_listening():
            await anyio.sleep(0.001)
        assert service.server.is_draining()
        assert not service.server.is_serving()
        assert handler.clients[0].is_draining()
        with pytest.raises(REFUSED):
            new_peer(service.server, address)
        handler.released.set()
        assert await peer.rest() == ("waited\ntwo\nthree\n", "EOF")


async def test_conversation(serve: Serve) -> None:
    """Where a handler waits for more, it is told that the client has left."""
    handler = Versatile()
    async with serve(handler) as service:
        peers = [await service.connect() for _ in range(2)]
        for peer, request in zip(peers, ("converse", "receive"), strict=True):
            assert await peer.ask(request) == "more?"
        await service.server.shutdown(grace=LONG)
        for peer in peers:
            assert await peer.rest() == ("", "EOF")
    assert {"GeneratorExit", EndOfStreamError.__name__} <= {*handler.notes}
    assert handler.reasons == [DRAINED, DRAINED]


@pytest.mark.in_turn
async def test_speaking(serve: Serve, silence: float) -> None:
    """What a client in a conversation says while the server drains is answered."""

    class Handler(Versatile):
        async def handle(self, client: Client) -> Requests:
            while True:
                await client.send_packet((yield))

    async with serve(Handler()) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        assert await peer.ask("one") == "one"
        tasks.start_soon(lambda: service.server.shutdown(grace=LONG))
        while service.server.is_listening():
            await anyio.sleep(0.001)
        for word in "two", "three", "four":
            await anyio.sleep(silence / 4)
            assert await peer.ask(word) == word
        assert await peer.rest() == ("", "EOF")


async def test_half_a_packet(serve: Serve) -> None:
    """What a client has not completed is no packet, though the protocol takes a last line."""
    handler = Versatile()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hi") == "hi"
        peer.send_bytes(b"abc")
        await service.server.shutdown(grace=LONG)
        assert await peer.rest() == ("", "EOF")
    assert "abc" not in handler.notes


async def test_watched_client(serve: Serve) -> None:
    """A task in `wait_disconnected()` sees the end of a client that is idle."""

    class Handler(Versatile):
        async def greet(self, client: Any) -> None:
            client.start_soon(self.watch, client)

        async def watch(self, client: Any) -> None:
            try:
                await client.wait_disconnected()
            finally:  # the end of the client may come first
                self.note("disconnected")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hi") == "hi"
        await service.server.shutdown(grace=LONG)
        assert await peer.rest() == ("", "EOF")
        await handler.noted("disconnected")
    assert handler.reasons == [DRAINED]


async def test_shutdown_by_a_client(new_server: NewServer) -> None:
    """A handler may drain its server: its own client counts as finished."""

    class Handler(Versatile):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "stop":
                with self.noting_errors():
                    await server.shutdown(grace=LONG)
            await self.released.wait()
            await client.send_packet(request)

    handler = Handler()
    server = new_server(handler)
    with anyio.fail_after(LONG):
        async with server, anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_forever)
            other, peer = new_peer(server), new_peer(server)
            await other.start()
            await peer.start()
            other.send("work")
            peer.send("stop")
            while not server.is_draining():
                await anyio.sleep(0.001)
            handler.released.set()
            assert await other.rest() == ("work\n", "EOF")
            assert await peer.rest() == ("", "EOF")
    assert "cancelled" in handler.notes


@pytest.mark.parametrize("transport", ["tcp", "unix", "memory"])
async def test_backlog(new_server: NewServer) -> None:
    """Connections that wait to be accepted when a drain begins are served."""
    handler = Versatile()
    server = new_server(handler)
    with anyio.fail_after(LONG):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()

            async def drain_at_once() -> None:
                await is_up.wait()
                for _ in range(200):  # in one turn of the loop: none is accepted
                    peers.append(new_peer(server))
                for peer in peers:
                    peer.send("hello")
                await server.shutdown(grace=LONG)

            peers: list[BasePeer] = []
            tasks.start_soon(drain_at_once)
            await server.serve_forever(is_up_event=is_up)
            for peer in peers:
                assert await peer.rest() == ("hello\n", "EOF")


@pytest.mark.parametrize("transport", ["tls"])
async def test_handshakes(serve: Serve) -> None:
    """Clients in the middle of a TLS handshake are dropped at once."""
    async with serve(Versatile()) as service:
        address = service.server.get_addresses()[0].for_connection()
        with socket.create_connection(address) as sock:
            sock.settimeout(PATIENCE)
            while not service.server._census.connections:
                await anyio.sleep(0.001)
            with anyio.fail_after(LONG):
                await service.server.shutdown(grace=PATIENCE)
            with pytest.raises(ConnectionResetError):
                await anyio.to_thread.run_sync(sock.recv, 1)
        assert service.server._census.closed == {DRAINED: 1}


@pytest.mark.in_turn
async def test_no_request_is_lost(serve: Serve) -> None:
    """Each request that is answered to the end is one that was read, and none is answered twice."""
    handler = Versatile()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peers = [await service.connect() for _ in range(20)]
        for peer in peers:
            assert await peer.ask("0") == "0"

        async def ask(peer: BasePeer) -> None:
            answered = 0
            with pytest.raises((EOFError, OSError)):
                while True:
                    answered += 1
                    assert await peer.ask(str(answered)) == str(answered)
            counts.append(answered)

        counts: list[int] = []
        for peer in peers:
            tasks.start_soon(ask, peer)
        await handler.noted("50")
        await service.server.shutdown(grace=LONG)
    read = [note for note in handler.notes if note.isdecimal()]
    assert len(read) == sum(counts)  # of each client, all but the last were read, and "0"


@pytest.mark.parametrize("transport", ["tcp"])
@pytest.mark.parametrize("grace", [0, 0.1])
async def test_stubborn(serve: Serve, log: Records, grace: float, stop_timeout: float) -> None:
    """A handler that ignores its cancellation delays the end by a second, and is named."""

    class Handler(Versatile):
        async def handle(self, client: Client) -> Requests:
            self.note((yield))
            while not self.released.is_set():
                try:
                    await self.released.wait()
                except anyio.get_cancelled_exc_class():
                    self.note("ignored")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("go")
        try:
            seconds = await timed(service, grace)
        finally:
            handler.released.set()
        # uvloop's clock has whole milliseconds.
        assert grace + stop_timeout - 0.002 < seconds < grace + 2 * stop_timeout + 0.3
        [(level, message, _)] = log.problems()
        assert (level, "Still running" in message) == ("ERROR", True)
        await peer.rest()


async def test_serve_again(new_server: NewServer) -> None:
    """After a drain the server may serve again, and opens its listeners for that."""
    server = new_server(Versatile())

    async def serve(is_up: anyio.Event) -> None:
        await server.serve_forever(is_up_event=is_up)

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(serve, is_up)
            await is_up.wait()
            peer = new_peer(server)
            await peer.start()
            assert await peer.ask("hello") == "hello"
            await server.shutdown(grace=LONG)
            assert await peer.rest() == ("", "EOF")
            assert server.get_addresses() == ()
    await server.server_close()


async def test_after_server_close(serve: Serve) -> None:
    """A server that is closed, and serves the rest, can still drain."""
    handler = Versatile()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("wait")
        await handler.noted("wait")
        await service.server.server_close()
        tasks.start_soon(lambda: service.server.shutdown(grace=LONG))
        while not service.server.is_draining():
            await anyio.sleep(0.001)
        handler.released.set()
        assert await peer.rest() == ("waited\n", "EOF")


async def test_without_clients(serve: Serve) -> None:
    """Without clients, a drain is over at once; the second call does nothing."""
    async with serve(Versatile()) as service:
        for _ in range(2):
            assert await timed(service, PATIENCE) < LONG


@pytest.mark.parametrize("grace", [-1, float("nan")])
async def test_invalid_grace(serve: Serve, grace: float) -> None:
    """A grace is a number of seconds."""
    async with serve(Versatile()) as service:
        with pytest.raises(ValueError, match="Invalid delay"):
            await service.server.shutdown(grace=grace)
        assert service.server.is_serving()
