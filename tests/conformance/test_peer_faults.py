"""A parse error that the handler lets out: the peer's fault, and one line in the log."""

from __future__ import annotations

import time

import anyio
import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import PacketConversionError, StreamProtocolParseError
from tests.conformance.support import Client, Recorder, Records, Requests, Serve

pytestmark = pytest.mark.anyio


async def test_parse_error_let_out(serve: Serve, log: Records) -> None:
    """The connection ends behind a goodbye; the log gets one WARNING line without traceback."""

    class Handler(Recorder):
        async def on_disconnection(self, client: Client) -> None:
            assert not client.is_closing()
            await client.send_packet("bye")
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        peer, other = await service.connect(), await service.connect()
        assert await other.ask("hello") == "hello"
        peer.send_bytes(b"hello\n\xff\nmore\n")
        assert (await peer.rest())[0] == "hello\nbye\n"
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: ")
        assert await other.ask("hello") == "hello"
        other.send_bytes(b"\xff\n")
        await other.rest()
        assert len(log.problems()) == 1


async def test_parse_error_in_a_group(serve: Serve, log: Records) -> None:
    """A task group around the yield makes no traceback of it either."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            async with anyio.create_task_group():
                yield

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send_bytes(b"\xff\n")
        await peer.rest()
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: ")


async def test_parse_error_of_another_client(serve: Serve, log: Records) -> None:
    """A parse error that was not raised at a yield of this client is a crash."""

    class Handler(Recorder):
        error: Exception | None = None

        async def handle(self, client: Client) -> Requests:
            try:
                yield
            except StreamProtocolParseError as exc:
                self.error = exc
                await client.aclose()
            else:
                assert self.error is not None
                raise self.error

    async with serve(Handler()) as service:
        peer, other = await service.connect(), await service.connect()
        peer.send_bytes(b"\xff\n")
        assert await peer.rest() == ("", "EOF")
        other.send("hello")
        assert await other.rest() == ("", "reset")
        assert [level for level, _, _ in log.problems()] == ["ERROR"]


class Quoting(AbstractPacketConverterComposite[str, str, str, str]):
    """Refuses every packet, and quotes it."""

    def create_from_dto_packet(self, packet: str) -> str:
        raise PacketConversionError(f"what is {packet}?")

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


async def test_escaping(serve: Serve, log: Records) -> None:
    """What a peer sent appears in the log escaped, on one line, and shortened."""
    async with serve(Recorder(), Quoting()) as service:
        peer = await service.connect()
        peer.send_bytes(b"\x1b[2J\rERROR the disk is on fire" + b"!" * 10_000 + b"\n")
        await peer.rest()
        [(_, message, _)] = log.problems()
        assert message.isprintable()
        assert message.isascii()
        assert "\\x1b[2J\\rERROR" in message
        assert len(message) < 500


async def test_flood(serve: Serve, log: Records) -> None:
    """However many peers send garbage, the log gets three lines a second; the rest is counted."""
    async with serve(Recorder()) as service:
        begin = int(time.monotonic())
        for _ in range(50):
            peer = await service.connect()
            peer.send_bytes(b"\xff\n")
            await peer.rest()
        seconds = int(time.monotonic()) - begin + 1
    lines = [message for _, message, _ in log.problems()]
    logged = [line for line in lines if "sent invalid data" in line]
    counts = [int(line.split()[0]) for line in lines if "were not logged" in line]
    assert len(logged) <= 3 * seconds
    assert len(counts) <= seconds
    assert len(logged) + sum(counts) == 50


async def test_flood_of_crashes(serve: Serve, log: Records) -> None:
    """A bug that peers can trigger writes one traceback; then it is counted like their faults."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            raise LookupError((yield))

    async with serve(Handler()) as service:
        begin = int(time.monotonic())
        for number in range(50):
            peer = await service.connect()
            peer.send(f"\x1b[2J{number}")
            await peer.rest()
        seconds = int(time.monotonic()) - begin + 1
    problems = log.problems()
    assert all(line.isprintable() and line.isascii() for _, line, _ in problems)
    assert len([exc for *_, exc in problems if exc is not None]) == 1
    logged = [line for _, line, _ in problems if "Exception occurred" in line]
    counts = [int(line.split()[0]) for _, line, _ in problems if "were not logged" in line]
    assert len(logged) <= 1 + 3 * seconds
    assert len(logged) + sum(counts) == 50
