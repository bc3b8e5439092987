"""The how-to page for converters: what it says of its examples is what they do.

What stands in quotation marks in a docstring is what the page says, word for word (the first test
sees to that), and the test would fail if it were wrong.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from docs._include.examples.howto.converters import commands, readings
from docs._include.examples.howto.converters.readings import Reading, TrustingReadingConverter
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import (
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import CBORSerializer, JSONSerializer, MessagePackSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from tests.docs.howto_support import Echo, check_quotations, complaints, connected, serving

pytestmark = pytest.mark.anyio

READING = '{"sensor":"kitchen","celsius":21.5}'


def test_quotations() -> None:
    """What the tests quote is what the page says; each test quotes something."""
    check_quotations("howto/converters.rst", globals())


# A Dataclass


async def test_reading() -> None:
    """The first example serves a peer that was written without it.

    "Together with a serializer, it makes a protocol object"

    "A converter keeps no state between two packets: one object serves all connections."
    """
    async with serving(Echo(), readings.protocol) as server:
        async with connected(server) as peer, connected(server) as other:
            for each in peer, other:
                assert await each.ask(READING) == READING


@pytest.mark.parametrize(
    "serializer", [JSONSerializer(), MessagePackSerializer(), CBORSerializer()]
)
def test_any_serializer(serializer: Any) -> None:
    """The dictionary goes through several formats.

    "What is in the dictionary is the converter's choice, the serializer only has to be able to
    write it"
    """
    protocol = StreamProtocol(serializer, readings.ReadingConverter())
    data = b"".join(protocol.generate_chunks(Reading("kitchen", 21.5)))
    plain = serializer.deserialize(data)
    assert plain == {"sensor": "kitchen", "celsius": 21.5}
    assert protocol.converter is not None
    assert protocol.converter.create_from_dto_packet(plain) == Reading("kitchen", 21.5)


# Checking

WRONG: tuple[Any, ...] = (
    None,
    [],
    {},
    {"sensor": "kitchen"},
    {"sensor": None, "celsius": 21.5},
    {"sensor": "kitchen", "celsius": "21.5"},
    {"sensor": "kitchen", "celsius": -300},
    {"sensor": "kitchen", "celsius": 10**400},
    {"sensor": "kitchen", "celsius": float("nan")},
    {"sensor": "kitchen", "celsius": float("inf")},
)


@pytest.mark.parametrize("packet", WRONG, ids=repr)
async def test_wrong(packet: Any) -> None:
    """Each wrong packet is one error, and the next packet is received.

    "What does not fit is a PacketConversionError"

    "NaN, which JSON in Python can carry, is in no range."

    "The one who waits for the packet gets it as the error of a StreamProtocolParseError (or
    DatagramProtocolParseError). The bad packet is gone, the connection stays open, and the next
    packet is received as usual."
    """
    handler = Echo()
    async with serving(handler, readings.protocol) as server, connected(server) as peer:
        assert await peer.ask(json.dumps(packet), READING) == READING
    [exc] = handler.errors
    assert type(exc) is StreamProtocolParseError
    assert type(exc.error) is PacketConversionError
    assert repr(exc.error.error_info) == repr(packet)


def test_whole_numbers() -> None:
    """What other languages send for 21.0 is accepted, and so is what Python takes for a number.

    "For Python, bool is a kind of int: "celsius": true passes, and becomes 1.0."
    """
    convert = readings.ReadingConverter().create_from_dto_packet
    for number, celsius in (21, 21.0), (True, 1.0):
        reading = convert({"sensor": "kitchen", "celsius": number})
        assert reading == Reading("kitchen", celsius)
        assert type(reading.celsius) is float


async def test_trusting() -> None:
    """The shorter converter takes a peer's mistake for its own.

    "A peer that leaves out a field now causes a TypeError. That is not a PacketConversionError,
    so it counts as a bug of your converter: where you wait for the packet, ProtocolCrashedError is
    raised."
    """
    handler = Echo()
    protocol = StreamProtocol(JSONSerializer(), TrustingReadingConverter())
    async with serving(handler, protocol) as server, connected(server) as peer:
        assert await peer.ask('{"sensor":"kitchen"}', READING) == READING
    [exc] = handler.errors
    assert isinstance(exc, ProtocolCrashedError)
    assert type(exc.__cause__) is TypeError


async def test_trusting_log(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that does not catch it leaves errors in the log.

    "If a request handler does not catch it, the client is disconnected, and the log gets an error,
    the first time with a traceback."
    """

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            yield

    caplog.set_level(logging.DEBUG, "easynetwork")
    protocol = StreamProtocol(JSONSerializer(), TrustingReadingConverter())
    async with serving(Handler(), protocol) as server:
        for _ in range(2):
            async with connected(server) as peer:
                await peer.send('{"sensor":"kitchen"}')
                assert await peer.ending() == "connection reset"
    assert [bool(record.exc_info) for record in complaints(caplog)] == [True, False]
    assert {record.levelno for record in complaints(caplog)} == {logging.ERROR}


def test_trusting_types() -> None:
    """Nobody checks the types of a dataclass's fields.

    "And a dataclass does not check types: {"sensor": [], "celsius": null} would become a Reading."
    """
    reading = TrustingReadingConverter().create_from_dto_packet({"sensor": [], "celsius": None})
    assert type(reading) is Reading


async def test_own_mistake() -> None:
    """What cannot be converted is not sent, and only its sender knows.

    "send_packet() raises a ProtocolCrashedError with that exception as its __cause__, and nothing
    is sent."
    """
    async with serving(Echo(), readings.protocol) as server:
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), readings.protocol) as client:
            with pytest.raises(ProtocolCrashedError) as caught:
                await client.send_packet("no dataclass")  # type: ignore[arg-type]  # on purpose
            assert type(caught.value.__cause__) is TypeError
            await client.send_packet(Reading("kitchen", 21.5))
            assert await client.recv_packet() == Reading("kitchen", 21.5)


# Several Kinds Of Packets


def test_kinds() -> None:
    """Each kind is told by the packet, and nothing else is accepted.

    "Let each packet tell its kind, and the receiver choose the class."
    """
    converter = commands.CommandConverter()
    for command in commands.Login("Zoe"), commands.Say("hello"):
        plain = converter.convert_to_dto_packet(command)
        assert plain["type"] == type(command).__name__.lower()
        assert converter.create_from_dto_packet(plain) == command
    wrong: list[Any] = [None, {}, {"type": []}, {"type": "reply", "ok": True}, {"type": "login"}]
    for packet in wrong:
        with pytest.raises(PacketConversionError):
            converter.create_from_dto_packet(packet)


# Requests And Responses


async def test_two_directions() -> None:
    """The server of the program, and clients of its kind and of another one.

    "write a converter for each, and put them together, the one for what is sent first"

    "The last two lines are what the stranger gets, over one connection that survives both
    mistakes."
    """
    async with serving(commands.CommandHandler(), commands.ServerProtocol()) as server:
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), commands.ClientProtocol()) as client:
            await client.send_packet(commands.Login("Zoë"))
            assert await client.recv_packet() == commands.Reply(True, "Welcome, Zoë")
        async with connected(server) as peer:
            for wrong in '{"type":"say"}', '["hello"]', "not JSON":
                assert '"ok":false' in await peer.ask(wrong)
            assert '"ok":true' in await peer.ask('{"type":"say","text":"hello"}')


def test_reply() -> None:
    """Replies are checked, too: a server is a peer like any other.

    "It is where you check what others sent you."
    """
    converter = commands.ReplyConverter()
    reply = commands.Reply(True, "hello")
    plain = converter.convert_to_dto_packet(reply)
    assert plain == dataclasses.asdict(reply)
    assert converter.create_from_dto_packet(plain) == reply
    with pytest.raises(PacketConversionError):
        converter.create_from_dto_packet({"ok": 1, "text": "hello"})
