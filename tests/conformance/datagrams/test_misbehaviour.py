"""The boundary of one peer: whatever its handler does, the others do not notice."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket

import anyio
import anyio.lowlevel
import pytest

from tests import misbehaviours
from tests.conformance.datagrams.support import Client, Recorder, Requests, Serve
from tests.conformance.support import Records
from tests.misbehaviours import MISBEHAVIOURS, runs_on

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("silent_loops"),
    pytest.mark.parametrize("host", ["127.0.0.1"], ids=["ipv4"]),
    # Generators and task groups that a handler leaves open speak up when they are collected.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

STEPS = ("first step", "handle", "later", "waiting")


class Misbehaving(Recorder):
    """Does something wrong in the conversation with some peers, and serves the others.

    Attributes:
        steps: Where it will do so, by the peer.
        next_step: Where it will do so for those that come now.
    """

    next_step = ""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.misbehave = MISBEHAVIOURS[name]
        self.steps: dict[Client, str] = {}

    async def at(self, step: str, client: Client) -> None:
        if step == self.steps[client]:
            self.steps[client] = "done"
            await self.misbehave()

    async def handle(self, client: Client) -> Requests:
        self.steps.setdefault(client, self.next_step)
        await self.at("first step", client)
        request = yield
        await self.at("handle", client)
        await client.send_packet(request)
        request = yield
        if self.steps[client] == "waiting":
            await anyio.lowlevel.checkpoint()
            await self.at("waiting", client)
        await self.at("later", client)
        await client.send_packet(request)
        with contextlib.suppress(TimeoutError):
            await client.send_packet((yield 60))


@pytest.mark.in_turn
@pytest.mark.usefixtures("unlimited_log")
@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_misbehaviour(serve: Serve, log: Records, anyio_backend_name: str, name: str) -> None:
    """At each step, it ends that generator and is reported once; all peers are served on."""
    if not runs_on(name, anyio_backend_name):
        return
    handler = Misbehaving(name)
    names = {}
    async with serve(handler) as service:
        bystander = service.connect()
        for step in STEPS:
            assert await bystander.ask("one") == "one"  # in the middle of a conversation
            handler.next_step = step
            peer = service.connect()
            names[step] = peer.name
            received = service.server.get_statistics().received
            peer.send("a", "b", "c")
            await service.statistics(received=received + 3, waiting=0)
            while list(handler.steps.values())[-1] != "done":
                await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
            handler.next_step = ""
            assert await bystander.ask("two") == "two", step
            assert await service.connect().ask("hello") == "hello", step
            # The peer's next datagrams are served, by the next generator if need be.
            peer.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    peer.socket.recv(1 << 16)
            peer.socket.settimeout(10)
            assert await peer.ask("again") == "again", step
            assert service.server.is_serving(), step
        await service.server.shutdown()
        await misbehaviours.clean_up()
    problems = log.problems()
    expected = {1}
    if name in ("cancel_oneself_later", "leave_an_asyncio_timeout_open"):
        expected = {0, 1}  # if the generator ends before it would have been cancelled
    for step in STEPS:
        reports = [exc for _, message, exc in problems if names[step] in message]
        assert len(reports) in expected, (step, [str(exc) for exc in reports])


async def test_timeout_let_out(serve: Serve, log: Records) -> None:
    """A timeout that the handler yielded and lets out ends its generator: one DEBUG line."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))
            yield 0.01

    async with serve(Handler()) as service:
        peer = service.connect()
        for _ in range(2):
            assert await peer.ask("hello") == "hello"
            await service.statistics(peers=0)
        line = f"{peer.name} sent nothing for too long"
        assert log.messages(logging.DEBUG).count(line) == 2


async def test_port_0(serve: Serve, log: Records) -> None:
    """A datagram from port 0 is valid and cannot be answered: it is dropped and counted."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        pytest.skip("only root may send datagrams from port 0")
    handler = Recorder()
    with raw:
        async with serve(handler) as service:
            port = service.server.get_addresses()[0].port
            header = b"\0\0" + port.to_bytes(2, "big") + (13).to_bytes(2, "big") + b"\0\0"
            for _ in range(5):
                raw.sendto(header + b"hello", ("127.0.0.1", 0))
            await service.statistics(received=5, dropped_by_port=5, dropped=5)
            assert await service.connect().ask("hello") == "hello"
            assert handler.notes == ["handle", "hello"]
    [(level, message, _)] = log.problems()
    assert (level, "port 0" in message) == ("WARNING", True)


async def test_answers_that_fail(serve: Serve, log: Records) -> None:
    """Answers that the kernel refuses fill no log: one traceback, then three lines a second."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            raise OSError(errno.EINVAL, "Invalid argument")

    async with serve(Handler()) as service:
        peer = service.connect()
        for count in range(100):
            peer.send("hello")
            await service.statistics(received=count + 1, peers=0, waiting=0)
    problems = log.problems()
    assert [exc is None for _, _, exc in problems].count(False) == 1
    assert len(problems) < 30
