"""An exception that leaves the handler: what is logged, and that nobody else is concerned."""

from __future__ import annotations

import contextlib
import time

import anyio
import anyio.lowlevel
import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    PacketConversionError,
)
from tests.conformance.datagrams.support import (
    Client,
    Peer,
    Recorder,
    Requests,
    Serve,
)
from tests.conformance.support import Records

pytestmark = pytest.mark.anyio


def crash(peer: Peer) -> str:
    return f"Exception occurred during processing of request from {peer.name}"


def misuse(peer: Peer) -> str:
    return f"There have been attempts to do operation on closed client {peer.name}"


class Failing(Recorder):
    """Raises an exception in answer to a request "fail"."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request == "fail":
            raise self.error
        await client.send_packet(request)


async def test_crash_is_no_refusal(serve: Serve, log: Records) -> None:
    """The datagram at which a handler crashed counts as one that was handled."""
    async with serve(Failing(LookupError())) as service:
        peer = service.connect()
        assert await peer.ask("fail", "next") == "next"
        await service.statistics(received=2, refused=0)
        assert [level for level, _, _ in log.problems()] == ["ERROR"]


@pytest.mark.parametrize("waits", [False, True])
async def test_crash_before_the_first_yield(serve: Serve, log: Records, waits: bool) -> None:
    """It costs the datagram, and no other."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            if waits:
                await anyio.lowlevel.checkpoint()
            if len(self.notes) == 1:
                raise LookupError
            await client.send_packet((yield))

    async with serve(Handler()) as service:
        peer = service.connect()
        assert await peer.ask("lost", "next") == "next"
        assert [problem[:2] for problem in log.problems()] == [("ERROR", crash(peer))]
        assert service.server.get_statistics().refused == 0


async def test_bad_yield_let_out(serve: Serve, log: Records) -> None:
    """What is no timeout, at the first yield, costs the datagram too: it is not tried again."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            await client.send_packet((yield -1 if len(self.notes) == 1 else None))

    async with serve(Handler()) as service:
        assert await service.connect().ask("lost", "next") == "next"
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert isinstance(exc, ValueError)


async def test_no_generator(serve: Serve, log: Records) -> None:
    """A `handle()` that is no asynchronous generator function is a crash for each datagram."""

    class Handler(Recorder):
        def handle(self, client: Client) -> Requests:
            self.note("handle")
            return super().handle(client) if len(self.notes) > 2 else None  # type: ignore[return-value] # wrong on purpose

    async with serve(Handler()) as service:
        assert await service.connect().ask("one", "two", "three") == "three"
        assert [level for level, *_ in log.problems()] == ["ERROR", "ERROR"]


class Fatal(BaseException):
    pass


# -- the peer's fault


async def test_invalid_datagrams_are_counted(serve: Serve, log: Records) -> None:
    """An invalid datagram counts as such, and the log says why it is."""
    async with serve(Recorder()) as service:
        peer = service.connect()
        assert await peer.ask("one", b"\xff", "two") == "one"
        assert await peer.receive() == "two"
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: DeserializeError: ")
        await service.statistics(received=3, invalid=1)


class Trap(AbstractPacketConverterComposite[str, str, str, str]):
    """A converter with a bug, which every packet finds."""

    def create_from_dto_packet(self, packet: str) -> str:
        return str(1 / 0)

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


async def test_bug_of_the_protocol_is_not_counted(serve: Serve, log: Records) -> None:
    """A datagram at which the protocol object crashes need not be invalid."""
    async with serve(Recorder(), Trap()) as service:
        service.connect().send("one")
        await log.logged_often(1)
        await service.statistics(received=1, invalid=0, peers=0)
        assert [level for level, _, _ in log.problems()] == ["ERROR"]


async def test_parse_error_of_another_yield(serve: Serve, log: Records) -> None:
    """A parse error that is raised later, for reasons of the handler's own, is a crash."""

    class Handler(Recorder):
        error: Exception | None = None

        async def handle(self, client: Client) -> Requests:
            try:
                await client.send_packet((yield))
            except DatagramProtocolParseError as exc:
                self.error = exc
            if self.error is not None:
                yield
                raise self.error

    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send(b"\xff", "again")
        await log.logged(crash(peer))
        assert [level for level, _, _ in log.problems()] == ["ERROR"]


class Quoting(AbstractPacketConverterComposite[str, str, str, str]):
    """Refuses every packet but one, and quotes it."""

    def create_from_dto_packet(self, packet: str) -> str:
        if packet == "fine":
            return packet
        raise PacketConversionError(f"what is {packet}?")

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


async def test_escaping(serve: Serve, log: Records) -> None:
    """What a peer sent appears in the log escaped, on one line, and shortened."""
    async with serve(Recorder(), Quoting()) as service:
        peer = service.connect()
        await peer.ask(b"\x1b[2J\rERROR the disk is on fire\n" + b"!" * 10_000, "fine")
        [(_, message, _)] = log.problems()
        assert message.isprintable()
        assert message.isascii()
        assert "\\x1b[2J\\rERROR" in message
        assert len(message) < 500


async def test_flood_of_garbage(serve: Serve, log: Records) -> None:
    """However much garbage comes, the log gets three lines a second; the rest is counted."""
    async with serve(Recorder()) as service:
        begin = int(time.monotonic())
        peer = service.connect()
        for _ in range(50):
            await peer.ask(b"\xff", "hello")
        seconds = int(time.monotonic()) - begin + 1
        await service.statistics(invalid=50)
    lines = [message for _, message, _ in log.problems()]
    logged = [line for line in lines if "sent invalid data" in line]
    counts = [int(line.split()[0]) for line in lines if "were not logged" in line]
    assert len(logged) <= 3 * seconds
    assert len(counts) <= seconds
    assert len(logged) + sum(counts) == 50


# -- misuse


@pytest.mark.parametrize("grouped", [False, True])
async def test_use_of_a_closed_client(serve: Serve, log: Records, grouped: bool) -> None:
    """To send when the server has been closed is a mistake that gets a warning."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await service.server.server_close()
            with anyio.CancelScope(shield=True):
                if grouped:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client.send_packet, "too late")
                await client.send_packet("too late")

    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send("close")
        await log.logged("Server stopped")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("WARNING", misuse(peer))
        assert isinstance(exc, ExceptionGroup if grouped else ClientClosedError)


async def test_misuse_and_crash(serve: Serve, log: Records) -> None:
    """Of a group, what is not that mistake is a crash."""
    error = ExceptionGroup("both", [LookupError("a bug"), ClientClosedError("Closed client")])
    async with serve(Failing(error)) as service:
        peer = service.connect()
        assert await peer.ask("fail", "next") == "next"
        (warning, *_, misused), (level, message, exc) = log.problems()
        assert (warning, level, message) == ("WARNING", "ERROR", crash(peer))
        assert isinstance(misused, ExceptionGroup)
        assert isinstance(exc, ExceptionGroup)
        assert [type(part) for part in exc.exceptions] == [LookupError]


# -- handlers that do not do what they are told
