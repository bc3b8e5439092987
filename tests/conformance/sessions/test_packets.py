"""What goes wrong with a packet is raised at the `yield` that asked for it, or where it is sent."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import DeserializeError, PacketConversionError, ProtocolCrashedError
from tests.conformance.sessions.kinds import Catching, Handler, Kind, Requests
from tests.conformance.support import Records

pytestmark = pytest.mark.anyio


class Trap(AbstractPacketConverterComposite[str, str, str, str]):
    """A converter with a bug, which a certain packet finds, in both directions."""

    def create_from_dto_packet(self, packet: str) -> str:
        return packet if packet != "trap" else str(1 / 0)

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj if obj != "trap" else str(1 / 0)


class Quoting(AbstractPacketConverterComposite[str, str, str, str]):
    """Refuses certain packets, and quotes them."""

    def create_from_dto_packet(self, packet: str) -> str:
        if "fire" in packet:
            raise PacketConversionError(f"what is {packet}?")
        return packet

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


# -- malformed packets


async def test_parse_error(kind: Kind) -> None:
    """Data that is no packet is an error at its place; the next yield goes on."""

    class Describing(Catching):
        def describe(self, exc: Exception) -> str:
            assert isinstance(exc, kind.parse_error)
            error: Any = getattr(exc, "error", None)
            assert isinstance(error, DeserializeError)
            assert isinstance(error.__cause__, UnicodeDecodeError)
            return "bad"

    async with kind.serve(Describing()) as service:
        peer = await kind.connect(service)
        peer.send("one")
        kind.send_invalid(peer)
        peer.send("two")
        kind.send_invalid(peer)
        kind.send_invalid(peer)
        peer.send("three")
        answers = [await peer.receive() for _ in range(6)]
        assert answers == ["one", "bad", "two", "bad", "bad", "three"]
        first = await kind.connect(service)
        kind.send_invalid(first)
        assert await first.receive() == "bad"


@pytest.mark.parametrize("in_a_group", [False, True])
async def test_parse_error_let_out(kind: Kind, log: Records, in_a_group: bool) -> None:
    """The log gets one WARNING line without traceback; other peers do not notice.

    A task group around the yield makes no traceback of it either.
    """

    class Plain(Handler):
        async def handle(self, client: Any) -> Requests:
            if in_a_group:
                async with anyio.create_task_group():
                    await client.send_packet((yield))
            else:
                await client.send_packet((yield))

    async with kind.serve(Plain()) as service:
        peer, other = await kind.connect(service), await kind.connect(service)
        assert await other.ask("hello") == "hello"
        assert await peer.ask("hello") == "hello"
        kind.send_invalid(peer)
        await kind.check_end(peer, "EOF")
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: ")
        assert message.isascii()
        assert "\n" not in message
        assert await other.ask("hello") == "hello"


async def test_escaping(kind: Kind, log: Records) -> None:
    """What a peer sent appears in the log escaped, on one line, and shortened."""
    async with kind.serve(Handler(), Quoting()) as service:
        peer = await kind.connect(service)
        peer.send("\x1b[2J\rERROR the disk is on fire" + "!" * 10_000)
        await kind.check_end(peer, "EOF")
        [(_, message, _)] = log.problems()
        assert message.isprintable()
        assert message.isascii()
        assert "\\x1b[2J\\rERROR" in message
        assert len(message) < 500


# -- bugs of the protocol object


async def test_protocol_crash(kind: Kind) -> None:
    """A bug of the protocol object has a type and a cause, and can be survived."""
    async with kind.serve(Catching(), Trap()) as service:
        peer = await kind.connect(service)
        assert await peer.ask("trap", "one") == (
            f"ProtocolCrashedError: protocol.{kind.deserializing}() crashed, ZeroDivisionError"
        )
        assert await peer.receive() == "one"


async def test_protocol_crash_let_out(kind: Kind, log: Records) -> None:
    """If the handler does not catch it, that is a crash: it is a bug of the program."""
    async with kind.serve(Handler(), Trap()) as service:
        peer = await kind.connect(service)
        peer.send("trap")
        await kind.check_end(peer, "reset")
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert isinstance(exc, ProtocolCrashedError)
        assert isinstance(exc.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("converter", [None, Trap()], ids=["serializer", "converter"])
async def test_unsendable_packet(kind: Kind, converter: Any) -> None:
    """A packet without bytes is a RuntimeError with its cause; the client stays usable."""

    class Sending(Handler):
        async def handle(self, client: Any) -> Requests:
            yield
            try:
                await client.send_packet("\xe9" if converter is None else "trap")
            except RuntimeError as exc:
                await client.send_packet(f"{exc}, {type(exc.__cause__).__name__}")

    cause = "UnicodeEncodeError" if converter is None else "ZeroDivisionError"
    async with kind.serve(Sending(), converter) as service:
        peer = await kind.connect(service)
        for _ in range(2):
            assert await peer.ask("one") == f"protocol.{kind.serializing}() crashed, {cause}"
