"""The boundary of one client: whatever its handler does, the others do not notice."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any

import anyio
import pytest

from easynetwork.servers.handlers import INETClientAttribute
from tests import misbehaviours
from tests.conformance.peers import BasePeer, Peer
from tests.conformance.support import Client, Recorder, Records, Requests, Serve, one_protocol
from tests.misbehaviours import MISBEHAVIOURS, runs_on

pytestmark = [
    pytest.mark.anyio,
    # Generators and task groups that a handler leaves open speak up when they are collected.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

# Where a handler misbehaves. "leaving" is in the clean-up at a yield, when its peer leaves.
STEPS = ("on_connection", "greeting", "first step", "handle", "leaving", "on_disconnection")


class Misbehaving(Recorder):
    """Does something wrong for some clients, each at one step, and serves the others.

    Attributes:
        steps: Where it does so for each client that has connected.
        next_step: Where it does so for those that connect now.
    """

    next_step = ""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.misbehave = MISBEHAVIOURS[name]
        self.steps: dict[Client, str] = {}

    async def at(self, step: str, client: Client) -> None:
        if step == self.steps[client]:
            await self.misbehave()

    def on_connection(self, client: Client) -> Any:
        self.steps[client] = self.next_step
        return self.ask(client) if self.next_step == "greeting" else self.greet(client)

    async def greet(self, client: Client) -> None:
        await self.at("on_connection", client)

    async def ask(self, client: Client) -> Requests:
        await client.send_packet((yield))
        await self.at("greeting", client)

    async def handle(self, client: Client) -> Requests:
        await self.at("first step", client)
        try:
            request = yield
        except GeneratorExit:
            await self.at("leaving", client)
            raise
        await self.at("handle", client)
        await client.send_packet(request)
        # The conversation goes on at another yield, in the same generator.
        await client.send_packet((yield))

    async def on_disconnection(self, client: Client) -> None:
        await self.at("on_disconnection", client)


def expected_reports(name: str, step: str) -> set[int]:
    """Return how many reports are right."""
    if step == "leaving" and name in ("GeneratorExit", "group of GeneratorExit"):
        return {0}  # the generator was being closed: an ordinary disconnection
    if name in ("cancel_oneself_later", "leave_an_asyncio_timeout_open"):
        return {0, 1}  # if the client leaves before it would have been cancelled
    return {1}


@pytest.mark.in_turn
@one_protocol
@pytest.mark.usefixtures("silent_loops", "unlimited_log")
@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_misbehaviour(serve: Serve, log: Records, anyio_backend_name: str, name: str) -> None:
    """At each step, it ends that client and is reported once; a bystander notices nothing."""
    if not runs_on(name, anyio_backend_name):
        return
    handler = Misbehaving(name)
    names = {}
    async with serve(handler) as service:
        bystander = await service.connect()
        for step in STEPS:
            assert await bystander.ask("one") == "one"  # it is in the middle of a conversation
            handler.next_step = step
            peer = await service.connect()
            names[step] = peer.name
            await misbehave(peer, step, log)
            handler.next_step = ""
            assert await bystander.ask("two") == "two", step
            assert await (await service.connect()).ask("hello") == "hello", step
            assert service.server.is_serving(), step
        await service.server.shutdown()
        await misbehaviours.clean_up()
    problems = log.problems()
    for step in STEPS:
        reports = [exc for _, message, exc in problems if names[step] in message]
        assert len(reports) in expected_reports(name, step), (step, [str(exc) for exc in reports])


async def misbehave(peer: BasePeer, step: str, log: Records) -> None:
    """Be the client for which a handler misbehaves at a step, until it has left."""
    with contextlib.suppress(OSError):
        peer.send("bad")
        if step in ("leaving", "on_disconnection"):
            await peer.receive()
            peer.send("more")
            await peer.receive()
        peer.send("worse", "worst")
        peer.send_eof()
    await log.logged(f"{peer.name} disconnected")
    await anyio.wait_all_tasks_blocked()


# -- logs in disorder


class BrokenError(BaseException):
    pass


class Raising(logging.Filter):
    """Raises for records whose message begins in a certain way."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self.beginning = beginning
        self.count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if self.beginning in record.getMessage():
            self.count += 1
            raise BrokenError
        return True


@one_protocol
@pytest.mark.parametrize(
    "message", ["Accepted new connection", "disconnected", "Exception occurred", "invalid data"]
)
async def test_log_that_raises(
    serve: Serve, log: Records, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    """A log's filter that raises goes to `sys.unraisablehook`; the connection is served as ever."""
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: unraisable.append(args.exc_type))

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "fail":
                raise LookupError
            await client.send_packet(request)

    raising = Raising(message)
    logger = logging.getLogger("easynetwork.raising")
    logger.addFilter(raising)
    try:
        async with serve(Handler(), logger=logger) as service:
            bystander = await service.connect()
            assert await bystander.ask("hello") == "hello"
            for request in b"fail\n", b"\xff\n":
                peer = await service.connect()
                peer.send_bytes(request)
                assert (await peer.rest())[0] == ""
            assert await bystander.ask("hello") == "hello"
            assert service.server.is_serving()
    finally:
        logger.removeFilter(raising)
    assert raising.count >= 1
    assert unraisable == [BrokenError] * raising.count
    log.problems()


# -- sockets in disorder


class Closing(Recorder):
    """Closes the descriptor of its connection, whose owner it is not."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request == "close":
            os.close(client.extra(INETClientAttribute.socket).fileno())
            self.note("closed")
            await self.after(client)
        await client.send_packet(request)

    async def after(self, client: Client) -> None:
        pass


@one_protocol
async def test_descriptor_closed_and_used(serve: Serve, log: Records) -> None:
    """To send on it then is noticed, reported, and ends that client."""
    handler = Closing()
    async with serve(handler) as service:
        bystander = await service.connect()
        assert await bystander.ask("hello") == "hello"
        peer = await service.connect()
        peer.send("close")
        await log.logged(f"{peer.name} disconnected")
        [(level, message, exc)] = log.problems()
        assert (level, peer.name in message) == ("ERROR", True)
        assert "descriptor" in str(exc)
        assert await bystander.ask("hello") == "hello"
        assert await (await service.connect()).ask("hello") == "hello"


@one_protocol
@pytest.mark.parametrize("writes", [False, True])
async def test_descriptor_closed_and_taken_over(serve: Serve, log: Records, writes: bool) -> None:
    """A new connection that gets its number is served; the old one ends, and is reported."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "close":
                if writes:
                    sock = client.extra(INETClientAttribute.socket)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                    with anyio.move_on_after(0):
                        await client.send_packet("x" * 1_000_000)
                self.numbers.append(client.extra(INETClientAttribute.socket).fileno())
                self.note("closing")
                await self.released.wait()
                os.close(self.numbers[0])
                self.note("closed")
                yield  # nobody tells that nothing will come
            self.numbers.append(client.extra(INETClientAttribute.socket).fileno())
            await client.send_packet(request)

        numbers: list[int]

    handler = Handler()
    handler.numbers = []
    async with serve(handler) as service:
        bystander = await service.connect()
        assert await bystander.ask("hello") == "hello"
        handler.numbers.clear()
        peer = await service.connect(receive_buffer=4096)
        peer.send("close")
        await handler.noted("closing")
        # What connects has its own descriptor before: only accept() may get the one that is closed.
        address = service.server.get_addresses()[0]
        newcomers = [Peer(address, connects=False) for _ in range(3)]
        service.peers += newcomers
        handler.released.set()
        await handler.noted("closed")
        for newcomer in newcomers:
            newcomer.connect(address)
            assert await newcomer.ask("hello") == "hello"
        assert handler.numbers[0] in handler.numbers[1:]
        await log.logged(f"{peer.name} disconnected")
        for other in (bystander, *newcomers):
            assert await other.ask("hello") == "hello"
        [(level, message, exc)] = log.problems()
        assert (level, peer.name in message) == ("ERROR", True)
        assert "descriptor" in str(exc)


@one_protocol
async def test_descriptor_closed_when_the_server_stops(serve: Serve, log: Records) -> None:
    """A server stops in order, although a connection's descriptor is gone."""

    class Handler(Closing):
        async def after(self, client: Client) -> None:
            await anyio.sleep_forever()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("close")
        await handler.noted("closed")
        await service.server.shutdown()
    [(level, message, _)] = log.problems()
    assert (level, peer.name in message) == ("ERROR", True)
