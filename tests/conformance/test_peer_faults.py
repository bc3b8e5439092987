"""A parse error that the handler lets out: the peer's fault, and one line in the log."""

from __future__ import annotations

import time

import pytest

from easynetwork.exceptions import StreamProtocolParseError
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
