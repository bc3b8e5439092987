"""Clients that meet a limit are closed, with their reason, and all others are left alone.

In memory, in virtual time, seconds take no time. `test_each_transport` tries each limit for real.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import Any

import anyio
import pytest

from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason
from tests.conformance.peers import BasePeer
from tests.conformance.support import (
    Client,
    Echo,
    Narrow,
    Recorder,
    Records,
    Requests,
    Serve,
    each_family,
    one_protocol,
)
from tests.times import MS

pytestmark = [pytest.mark.anyio, one_protocol]

in_memory = pytest.mark.parametrize("transport", ["memory"])
SECOND = 1000 * MS
NONE = Limits.unlimited()
# Looks are due every half a second.
LATE = 0.6


class Noted(Echo):
    """Echoes, and notes why each connection ended."""

    async def on_disconnection(self, client: Client) -> None:
        reason = client.close_reason
        self.note("no reason" if reason is None else reason.name)


class Flooding(Narrow):
    """Answers each request with more than the kernel takes."""

    async def handle(self, client: Client) -> Requests:
        yield
        await client.send_packet("x" * 4_000_000)

    async def on_disconnection(self, client: Client) -> None:
        assert client.close_reason is not None
        self.note(client.close_reason.name)


async def end_of(peer: BasePeer) -> float:
    """Wait until the server has closed the connection; return when that was."""
    with contextlib.suppress(EOFError, ConnectionError):
        await peer.rest(leave=False)
    return anyio.current_time()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have looks be due every 50 milliseconds: less time to wait where it is real."""
    monkeypatch.setattr("easynetwork.servers._stream.timeouts._LOOKS_PER_SECOND", 20)


# -- each limit, at its boundary


@in_memory
@pytest.mark.parametrize("beginning", ["", "half"], ids=["nothing", "half a packet"])
async def test_first_packet(serve: Serve, log: Records, beginning: str) -> None:
    """A client that does not send its first packet in time is closed gracefully."""
    handler = Noted()
    async with serve(handler, limits=Limits(first_packet_timeout=3)) as service:
        begin = anyio.current_time()
        peer = await service.connect()
        peer.send_bytes(beginning.encode())
        assert 3 <= await end_of(peer) - begin <= 3 + LATE
        await handler.noted("FIRST_PACKET_TIMEOUT")
        await log.logged(f"{peer.name} is closed: no first packet in time")


@in_memory
async def test_first_packet_is_no_limit_for_the_second(serve: Serve) -> None:
    """Once it has sent a packet, it may be silent, and have half a packet on its way."""
    async with serve(Noted(), limits=Limits(first_packet_timeout=2)) as service:
        peer = await service.connect()
        await anyio.sleep(1.5)
        assert await peer.ask("one") == "one"
        peer.send_bytes(b"t")
        await anyio.sleep(4)
        assert await peer.ask("wo") == "two"


@in_memory
async def test_first_packet_after_a_slow_greeting(serve: Serve) -> None:
    """The time that the handler takes before it waits does not count."""

    class Handler(Noted):
        async def greet(self, client: Client) -> None:
            await anyio.sleep(5)
            await client.send_packet("welcome")

    handler = Handler()
    async with serve(handler, limits=Limits(first_packet_timeout=3)) as service:
        peer = await service.connect()
        assert await peer.receive() == "welcome"
        begin = anyio.current_time()
        await anyio.sleep(2)
        assert "FIRST_PACKET_TIMEOUT" not in handler.notes
        assert 3 <= await end_of(peer) - begin <= 3 + LATE
        await handler.noted("FIRST_PACKET_TIMEOUT")


@in_memory
async def test_packet_in_drops(serve: Serve) -> None:
    """Each byte is in time, the packet is not: the slow-loris attack."""
    handler = Noted()
    async with serve(handler, limits=Limits(packet_timeout=3)) as service:
        peer = await service.connect()
        assert await peer.ask("good") == "good"
        await anyio.sleep(2)
        begin = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drip, peer)
            assert 3 <= await end_of(peer) - begin <= 3 + LATE
            tasks.cancel_scope.cancel()
        await handler.noted("PACKET_TIMEOUT")


async def drip(peer: BasePeer) -> None:
    """Send a byte now and then."""
    with contextlib.suppress(ConnectionError):
        while True:
            peer.send_bytes(b"x")
            await anyio.sleep(0.1)


@in_memory
@pytest.mark.parametrize("timeout", [None, 0.5], ids=["waits", "heartbeat"])
async def test_heartbeat_does_not_help(serve: Serve, timeout: float | None) -> None:
    """The handler may be told now and then that nothing has come."""
    handler = Noted()
    handler.timeout = timeout
    async with serve(handler, limits=Limits(packet_timeout=3)) as service:
        peer = await service.connect()
        begin = anyio.current_time()
        peer.send_bytes(b"x")
        assert 3 <= await end_of(peer) - begin <= 3 + LATE
        await handler.noted("PACKET_TIMEOUT")


@in_memory
async def test_large_packet_on_a_slow_line(serve: Serve) -> None:
    """Each KiB of it earns a second: 2 KiB per second are enough for any length."""
    async with serve(Noted(), limits=Limits(packet_timeout=1)) as service:
        peer = await service.connect()
        for _ in range(8):
            peer.send_bytes(b"x" * 1_024)
            await anyio.sleep(0.9)
        assert await peer.ask("") == "x" * 8_192


@in_memory
async def test_time_of_the_handler_does_not_count(serve: Serve) -> None:
    """A packet is not late because nobody asks for it."""

    class Handler(Noted):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))
            await anyio.sleep(5)

    limits = Limits(packet_timeout=2, idle_timeout=2, first_packet_timeout=2)
    async with serve(Handler(), limits=limits) as service:
        peer = await service.connect()
        peer.send_bytes(b"one\ntw")
        assert await peer.receive() == "one"
        await anyio.sleep(6)
        assert await peer.ask("o") == "two"


@in_memory
async def test_idle(serve: Serve) -> None:
    """A client that neither sends a packet nor gets one is closed."""
    handler = Noted()
    async with serve(handler, limits=Limits(idle_timeout=2)) as service:
        peer = await service.connect()
        for _ in range(3):
            await anyio.sleep(1.5)
            assert await peer.ask("here") == "here"
        begin = anyio.current_time()
        assert 2 <= await end_of(peer) - begin <= 2 + LATE
        await handler.noted("IDLE_TIMEOUT")


@in_memory
async def test_client_that_only_receives_is_not_idle(serve: Serve) -> None:
    """Packets are pushed to it, and it is silent."""

    class Handler(Noted):
        async def greet(self, client: Client) -> None:
            client.start_soon(self.push, client)

        async def push(self, client: Client) -> None:
            for number in range(6):
                await client.send_packet(str(number))
                await anyio.sleep(1)

    handler = Handler()
    async with serve(handler, limits=Limits(idle_timeout=2)) as service:
        peer = await service.connect()
        assert await peer.receive_lines(6) == list("012345")
        assert await end_of(peer)
        await handler.noted("IDLE_TIMEOUT")


@in_memory
async def test_client_that_does_not_read(serve: Serve) -> None:
    """It is reset when it has taken nothing for a while, and its memory is free."""
    handler = Flooding()
    async with serve(handler, limits=Limits(send_timeout=3)) as service:
        peer = await service.connect()
        begin = anyio.current_time()
        peer.send("more")
        await handler.noted("SEND_TIMEOUT")
        assert 3 - MS <= anyio.current_time() - begin <= 3 + LATE
        assert (await peer.rest())[1] == "reset"


@in_memory
async def test_slow_reader(serve: Serve) -> None:
    """One that takes a part now and then is not closed."""
    handler = Flooding()
    async with serve(handler, limits=Limits(send_timeout=2)) as service:
        peer = await service.connect()
        peer.send("more")
        for _ in range(5):
            await anyio.sleep(1.2)
            await peer._receive_some()
        assert handler.notes == ["on_connection"]
        assert await peer.receive()


@in_memory
async def test_client_that_stops_reading(serve: Serve) -> None:
    """Its time begins when it has taken something, which is noticed within a quarter of the limit.

    In this case, the quarter is a second.
    """
    handler = Flooding()
    async with serve(handler, limits=Limits(send_timeout=4)) as service:
        peer = await service.connect()
        peer.send("more")
        await anyio.sleep(0.1)
        await peer._receive_some()
        begin = anyio.current_time()
        await handler.noted("SEND_TIMEOUT")
        assert 4 <= anyio.current_time() - begin <= 5 + LATE


async def test_too_many(serve: Serve, log: Records) -> None:
    """More clients than there may be are reset at once; a place that gets free is free."""
    handler = Noted()
    async with serve(handler, limits=Limits(max_clients=2)) as service:
        first, second = await service.connect(), await service.connect()
        assert await first.ask("one") == "one"
        assert await second.ask("two") == "two"
        third = await refused(service)
        await log.logged(f"{third.name} is refused: too many clients")
        assert service.server.get_statistics().closed == {CloseReason.FULL: 1}
        first.close()
        await handler.noted("PEER_CLOSED")
        with anyio.fail_after(5 * SECOND):
            while service.server.get_statistics().clients == 2:
                await anyio.sleep(MS)
        fourth = await service.connect()
        assert await fourth.ask("four") == "four"


async def refused(service: Any) -> BasePeer:
    """Connect, and see that the server does not want that."""
    from tests.conformance.peers import new_peer

    peer = new_peer(service.server)
    service.peers.append(peer)
    with contextlib.suppress(OSError):
        await peer.start()
        assert (await peer.rest(leave=False))[1] == "reset"
    return peer


@pytest.mark.parametrize("transport", ["tcp"])
@each_family
async def test_too_many_of_a_host(serve: Serve, host: str) -> None:
    """So are those of one host, whatever the others have."""
    async with serve(Noted(), limits=Limits(max_clients_per_host=2)) as service:
        for _ in range(2):
            peer = await service.connect()
            assert await peer.ask("hello") == "hello"
        await refused(service)
        assert service.server.get_statistics().closed == {CloseReason.FULL: 1}


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("first_packet_timeout", CloseReason.FIRST_PACKET_TIMEOUT),
        ("packet_timeout", CloseReason.PACKET_TIMEOUT),
        ("idle_timeout", CloseReason.IDLE_TIMEOUT),
        ("send_timeout", CloseReason.SEND_TIMEOUT),
    ],
)
async def test_each_transport(serve: Serve, limit: str, reason: CloseReason) -> None:
    """Each limit holds over each transport, on each loop, and for that client only."""
    handler = Flooding() if reason is CloseReason.SEND_TIMEOUT else Noted()
    limits: dict[str, Any] = {limit: 200 * MS}
    async with serve(handler, limits=Limits(**{**vars_of(NONE), **limits})) as service:
        peer = await service.connect()
        peer.send_bytes(b"more\n" if isinstance(handler, Flooding) else b"x")
        if limit == "idle_timeout":
            peer.send_bytes(b"\n")
        await handler.noted(reason.name)
        await end_of(peer)


def vars_of(limits: Limits) -> dict[str, Any]:
    """Return the values of limits."""
    from dataclasses import asdict

    return asdict(limits)


@in_memory
async def test_limits_of_one_client(serve: Serve) -> None:
    """The handler allows a client more than the others, after a login for example."""

    class Handler(Noted):
        async def greet(self, client: Client) -> None:
            if len(self.clients) == 1:
                client.set_limits(idle_timeout=None)

    handler = Handler()
    async with serve(handler, limits=Limits(idle_timeout=2)) as service:
        first = await service.connect()
        assert await first.ask("hello") == "hello"
        await end_of(await service.connect())
        assert await first.ask("still here") == "still here"
        with pytest.raises(TypeError, match="max_clients cannot be changed for one client"):
            handler.clients[0].set_limits(max_clients=5)
        with pytest.raises(ValueError, match="idle_timeout must be strictly positive"):
            handler.clients[0].set_limits(idle_timeout=0)
        with pytest.raises(TypeError, match="nonsense_timeout"):
            handler.clients[0].set_limits(nonsense_timeout=1)


@in_memory
@pytest.mark.parametrize("name", ["packet_timeout", "send_timeout"])
async def test_limits_of_one_client_that_is_slow_already(serve: Serve, name: str) -> None:
    """Another limit holds for a packet, or an answer, that is on its way."""
    handler = Noted() if name == "packet_timeout" else Flooding()
    async with serve(handler, limits=NONE) as service:
        peer = await service.connect()
        if name == "packet_timeout":
            assert await peer.ask("whole") == "whole"
            peer.send_bytes(b"half")
        else:
            peer.send("more")
        await anyio.sleep(3)
        begin = anyio.current_time()
        handler.clients[0].set_limits(**{name: 4})
        await handler.noted(name.upper())
        assert 1 - LATE <= anyio.current_time() - begin <= 4 + 2 * LATE


@in_memory
async def test_close(serve: Serve, log: Records) -> None:
    """A client that does not read everything before its connection is closed is reset in time."""

    class Handler(Flooding):
        async def handle(self, client: Client) -> Requests:
            yield
            client.try_send_packet("x" * 4_000_000)
            await client.aclose()

    handler = Handler()
    async with serve(handler, limits=Limits(close_timeout=3)) as service:
        peer = await service.connect()
        begin = anyio.current_time()
        peer.send("more")
        await handler.noted("CLOSED")
        await log.logged(f"{peer.name} is reset: {CloseReason.CLOSE_TIMEOUT.value}")
        assert 3 - MS <= anyio.current_time() - begin <= 3 + LATE
        assert service.server.get_statistics().closed == {CloseReason.CLOSE_TIMEOUT: 1}


# -- those who must not be hit


@in_memory
async def test_defaults_leave_the_silent_alone(serve: Serve) -> None:
    """A chat whose clients say nothing for hours: no default is met, and no time is spent."""
    async with serve(Recorder()) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        await anyio.sleep(9)
        timeouts = service.server._timeouts
        assert timeouts._looks == {}
        assert not timeouts._is_running


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test go on for hours, which are virtual."""
    for name in "tests.conftest.TIME_LIMIT", "tests.conformance.support.PATIENCE":
        monkeypatch.setattr(name, 100_000.0)


defaults = pytest.mark.parametrize(
    "limits", [Limits(), dataclasses.replace(Limits.public(), idle_timeout=None)]
)


@in_memory
@defaults
@pytest.mark.usefixtures("hours")
async def test_idle_for_an_hour(serve: Serve, limits: Limits) -> None:
    """A client may say nothing for an hour."""
    async with serve(Recorder(), limits=limits) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        await anyio.sleep(3600)
        assert await peer.ask("hello") == "hello"


@in_memory
@pytest.mark.usefixtures("hours")
async def test_receiving_for_an_hour(serve: Serve) -> None:
    """A client that gets something now and then does not have to say anything, either."""

    class Handler(Noted):
        async def greet(self, client: Client) -> None:
            client.start_soon(self.push, client)

        async def push(self, client: Client) -> None:
            for number in range(12):
                await client.send_packet(str(number))
                await anyio.sleep(300)

    limits = dataclasses.replace(Limits.public(), first_packet_timeout=None)
    async with serve(Handler(), limits=limits) as service:
        peer = await service.connect()
        assert await peer.receive_lines(12) == [str(number) for number in range(12)]


@in_memory
@defaults
@pytest.mark.parametrize(
    ("size", "rate"), [(4_000_000, 10_000), (75_000_000, 1_000_000)], ids=["10 kB/s", "1 MB/s"]
)
@pytest.mark.usefixtures("hours")
async def test_large_answer(serve: Serve, limits: Limits, size: int, rate: int) -> None:
    """A client may read a large answer as slowly as it does, if it reads at all."""

    class Handler(Noted):
        async def handle(self, client: Client) -> Requests:
            yield
            await client.send_packet("x" * size)

    handler = Handler()
    async with serve(handler, limits=limits) as service:
        peer: Any = await service.connect()
        peer.send("more")
        left, begin, piece = size, anyio.current_time(), min(rate, 100_000)
        while left > 0:
            await anyio.sleep(piece / rate)
            left -= len(await peer._connection.receive(piece))
        assert anyio.current_time() - begin >= size / rate - MS
        peer.send("more")  # it is still there
        assert await peer._connection.receive(100)
        assert handler.notes == ["on_connection"]


# -- reasons and statistics


@in_memory
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("leave", "PEER_CLOSED"),
        ("half", "TRUNCATED"),
        ("reset", "PEER_RESET"),
        ("close", "CLOSED"),
        ("abort", "ABORTED"),
        ("raise", "HANDLER_ERROR"),
        ("invalid", "INVALID_DATA"),
        ("refuse", "REFUSED"),
        ("timeout", "IDLE_TIMEOUT"),
        ("stop", "STOPPED"),
    ],
)
async def test_reasons(serve: Serve, log: Records, how: str, reason: str) -> None:
    """Why a connection ended is known in `on_disconnection()`, in the log, and counted."""

    class Handler(Noted):
        async def handle(self, client: Client) -> Requests:
            assert client.close_reason is None
            if how == "refuse":
                return
            request = yield 1 if how == "timeout" else None
            if request == "close":
                await client.aclose()
            elif request == "abort":
                client.abort()
            elif request == "raise":
                raise RuntimeError("planted")
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler, limit=100) as service:
        peer = await service.connect()
        if how == "leave":
            assert await peer.ask("hello") == "hello"
            peer.send_eof()
        elif how == "half":
            peer.send_bytes(b"hel")
            peer.send_eof()
        elif how == "reset":
            assert await peer.ask("hello") == "hello"
            peer.reset()
        elif how == "invalid":
            peer.send("x" * 200)
        elif how == "stop":
            assert await peer.ask("hello") == "hello"
            await service.server.shutdown()
        elif how not in ("refuse", "timeout"):
            peer.send(how)
        await handler.noted(reason)
        with anyio.fail_after(5 * SECOND):
            while service.server.get_statistics().clients:
                await anyio.sleep(MS)
        assert service.server.get_statistics().closed == {CloseReason[reason]: 1}
        assert CloseReason[reason].value in "".join(log.messages())
    log.problems()


async def test_statistics(serve: Serve, transport: str) -> None:
    """What a server counts is what its clients did."""
    async with serve(Noted()) as service:
        peers = [await service.connect() for _ in range(3)]
        for peer in peers:
            peer.send("one", "two", "three")
            assert await peer.receive_lines(3) == ["one", "two", "three"]
        found = service.server.get_statistics()
        assert (found.clients, found.accepted, found.closed) == (3, 3, {})
        assert (found.packets_received, found.packets_sent) == (9, 9)
        assert (found.bytes_received, found.bytes_sent) == (42, 42)
        assert found.tls_handshakes == (3 if transport == "tls" else 0)
        [*_, client] = clients = service.server.get_clients()
        assert len(clients) == 3
        of_client = client.get_statistics()
        assert (of_client.packets_received, of_client.bytes_sent) == (3, 14)
        assert of_client.state == "waiting"
        assert of_client.unsent == 0
        for peer in peers:
            peer.close()
        with anyio.fail_after(5 * SECOND):
            while service.server.get_statistics().clients:
                await anyio.sleep(MS)
        found = service.server.get_statistics()
        assert sum(found.closed.values()) + found.clients == found.accepted == 3
        assert (found.packets_received, found.bytes_sent) == (9, 42)


@pytest.mark.parametrize("transport", ["tcp"])
async def test_failed_handshakes_are_counted(serve: Serve) -> None:
    """They are connections, too."""
    from tests.tls_peers import server_context

    async with serve(Noted(), ssl=server_context()) as service:
        peer = await service.connect()
        peer.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
        with anyio.fail_after(5 * SECOND):
            while not service.server.get_statistics().closed:
                await anyio.sleep(MS)
        found = service.server.get_statistics()
        assert found.closed == {CloseReason.TLS_FAILED: 1}
        assert (found.tls_failures, found.tls_handshakes, found.clients) == (1, 0, 0)
        peer.close()


@pytest.fixture(autouse=True)
def expect_warnings(request: pytest.FixtureRequest, log: Records) -> Any:
    """Let a test that provokes problems leave them in the log."""
    yield
    if "failed_handshakes" in request.node.name or "reasons" in request.node.name:
        log.problems()


@in_memory
async def test_limits_are_in_the_log(serve: Serve, log: Records) -> None:
    """One line says which limits hold; if they are the defaults, at level DEBUG."""
    async with serve(Noted(), limits=Limits(max_clients=7)):
        assert "Clients have Limits(max_clients=7, " in "".join(log.messages(logging.INFO))
    async with serve(Noted()):
        assert "'auto'" not in "".join(log.messages(logging.DEBUG))
        assert sum("Clients have" in line for line in log.messages(logging.INFO)) == 1
        assert sum("Clients have" in line for line in log.messages(logging.DEBUG)) == 2
