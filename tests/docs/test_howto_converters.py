"""Check that the examples of the how-to page for converters do what the page says.

Text in quotation marks in a docstring is quoted from the page, word for word (the first test checks
that), and the test fails if the quoted sentence is wrong.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, get_args

import pytest

from docs._include.examples.howto.converters import commands, readings
from docs._include.examples.howto.converters.readings import Reading, TrustingReadingConverter
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.converter import AbstractPacketConverter, AbstractPacketConverterComposite
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import CBORSerializer, JSONSerializer, MessagePackSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from tests.decoding import outcomes
from tests.docs.howto_support import Echo, check_quotations, complaints, connected, serving

pytestmark = pytest.mark.anyio

READING = '{"sensor":"kitchen","celsius":21.5}'


def test_quotations() -> None:
    """Each test quotes the page, word for word."""
    check_quotations("howto/converters.rst", globals())


# Introduction


def test_plain_objects() -> None:
    """The serializer cannot write an object that the converter makes plain.

    "A serializer reads and writes plain objects: dictionaries, lists, text, numbers. Your program
    works with objects of its own, such as readings and commands. A converter translates between the
    two."

    "create_from_dto_packet() converts a received plain object to one of your objects."
    """
    serializer = JSONSerializer()
    for plain in {"sensor": "kitchen"}, [1, "two"], "text", 21.5:
        assert serializer.deserialize(serializer.serialize(plain)) == plain
    objects: list[tuple[Any, Any]] = [
        (Reading("kitchen", 21.5), readings.ReadingConverter()),
        (commands.Say("hello"), commands.CommandConverter()),
    ]
    for obj, converter in objects:
        with pytest.raises(TypeError):
            serializer.serialize(obj)
        data = serializer.serialize(converter.convert_to_dto_packet(obj))
        assert converter.create_from_dto_packet(serializer.deserialize(data)) == obj


def test_no_converter() -> None:
    """What is wrong reaches the program.

    "Without a converter, your program works with the plain objects, and must check them wherever it
    uses them."
    """
    data = [READING.encode() + b"\n", b'{"sensor":"kitchen"}\n']
    plain = outcomes(StreamProtocol(JSONSerializer()), data)
    assert plain == [{"sensor": "kitchen", "celsius": 21.5}, {"sensor": "kitchen"}]
    good, error = outcomes(readings.protocol, data)
    assert good == Reading("kitchen", 21.5)
    assert error[0] is PacketConversionError


# Converting a dataclass


async def test_reading() -> None:
    """A server with the first example serves clients that do not use it.

    "Combine the converter with a serializer in a protocol object"

    "A converter keeps no state between packets, so one object serves all connections."
    """
    async with serving(Echo(), readings.protocol) as server:
        async with connected(server) as peer, connected(server) as other:
            for each in peer, other:
                assert await each.ask(READING) == READING


@pytest.mark.parametrize(
    "serializer", [JSONSerializer(), MessagePackSerializer(), CBORSerializer()]
)
def test_any_serializer(serializer: Any) -> None:
    """Several serializers can write the dictionary.

    "The converter decides which data is in the dictionary; the serializer must only be able to
    write it"
    """
    protocol = StreamProtocol(serializer, readings.ReadingConverter())
    data = b"".join(protocol.generate_chunks(Reading("kitchen", 21.5)))
    plain = serializer.deserialize(data)
    assert plain == {"sensor": "kitchen", "celsius": 21.5}
    assert protocol.converter is not None
    assert protocol.converter.create_from_dto_packet(plain) == Reading("kitchen", 21.5)


# Checking received packets

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
    """Each wrong packet causes one error, and the next packet is received.

    "Valid JSON from a peer can still contain the wrong data. Check it in the converter, with a
    match statement: first the names and types, then the range"

    "If celsius is not in the range -273.15 <= celsius <= 1000, or anything else is wrong, the
    converter raises a PacketConversionError"

    "For wrong data, raise a PacketConversionError"

    "NaN, which Python's JSON accepts, fails every range check."

    "The code that waits for the packet gets a StreamProtocolParseError (or
    DatagramProtocolParseError), whose error attribute is this exception. The bad packet is
    discarded, the connection stays open, and the next packet is received as usual."
    """
    handler = Echo()
    async with serving(handler, readings.protocol) as server, connected(server) as peer:
        assert await peer.ask(json.dumps(packet), READING) == READING
    [exc] = handler.errors
    assert type(exc) is StreamProtocolParseError
    assert type(exc.error) is PacketConversionError
    assert repr(exc.error.error_info) == repr(packet)


async def test_error_info() -> None:
    """The error carries the packet to the handler, and none of it to the client.

    "error_info is for debugging: put data in it that helps you find the mistake. It is not sent to
    any peer."
    """
    infos: list[Any] = []

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            try:
                yield
            except StreamProtocolParseError as exc:
                infos.append(exc.error.error_info)
                raise

    async with serving(Handler(), readings.protocol) as server, connected(server) as peer:
        await peer.send('{"sensor":"kitchen"}')
        assert await peer.ending() == "end of the stream"
    assert infos == [{"sensor": "kitchen"}]


def test_validation_library() -> None:
    """An exception of a library becomes a parse error, and is its cause.

    "You can also use any validation library. Call it in create_from_dto_packet(), and raise
    a PacketConversionError from its exception."
    """

    class InvalidError(Exception):
        """What the library raises."""

    def validate(packet: Any) -> Reading:
        if type(packet) is not dict or packet.keys() != {"sensor", "celsius"}:
            raise InvalidError
        return Reading(**packet)

    class Converter(readings.ReadingConverter):
        def create_from_dto_packet(self, packet: Any) -> Reading:
            try:
                return validate(packet)
            except InvalidError as exc:
                raise PacketConversionError("Not a reading") from exc

    protocol = DatagramProtocol(JSONSerializer(), Converter())
    assert protocol.build_packet_from_datagram(READING.encode()) == Reading("kitchen", 21.5)
    with pytest.raises(DatagramProtocolParseError) as caught:
        protocol.build_packet_from_datagram(b"[]")
    assert type(caught.value.error) is PacketConversionError
    assert type(caught.value.error.__cause__) is InvalidError


def test_whole_numbers() -> None:
    """Integers are accepted, which other languages send for 21.0; so are booleans.

    "In Python, bool is a subclass of int: "celsius": true passes the check and becomes 1.0."

    "To reject it, add case {"celsius": bool()} before the other cases and raise the error there."
    """

    class Strict(readings.ReadingConverter):
        def create_from_dto_packet(self, packet: Any) -> Reading:
            match packet:
                case {"celsius": bool()}:
                    raise PacketConversionError("Not a number")
                case _:
                    return super().create_from_dto_packet(packet)

    convert = readings.ReadingConverter().create_from_dto_packet
    for number, celsius in (21, 21.0), (True, 1.0):
        reading = convert({"sensor": "kitchen", "celsius": number})
        assert reading == Reading("kitchen", celsius)
        assert type(reading.celsius) is float
    with pytest.raises(PacketConversionError):
        Strict().create_from_dto_packet({"sensor": "kitchen", "celsius": True})
    plain = {"sensor": "kitchen", "celsius": 21}
    assert Strict().create_from_dto_packet(plain) == Reading("kitchen", 21.0)


async def test_trusting() -> None:
    """With the shorter converter, a mistake of a client counts as a bug of the converter.

    "If a peer leaves out a field, this converter raises TypeError. That is not a
    PacketConversionError, so it counts as a bug of your converter: the code that waits for the
    packet gets a ProtocolCrashedError."
    """
    handler = Echo()
    protocol = StreamProtocol(JSONSerializer(), TrustingReadingConverter())
    async with serving(handler, protocol) as server, connected(server) as peer:
        assert await peer.ask('{"sensor":"kitchen"}', READING) == READING
    [exc] = handler.errors
    assert isinstance(exc, ProtocolCrashedError)
    assert type(exc.__cause__) is TypeError


async def test_trusting_log(caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged if the handler does not catch the exception.

    "If a request handler does not catch it, the client is disconnected, and the server logs an
    error, the first time with a traceback."
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
    """A dataclass accepts fields of any type.

    "Also, a dataclass does not check types: {"sensor": [], "celsius": null} would become a
    Reading."
    """
    reading = TrustingReadingConverter().create_from_dto_packet({"sensor": [], "celsius": None})
    assert type(reading) is Reading


async def test_own_mistake() -> None:
    """An object that cannot be converted is not sent, and the connection can still be used.

    "An exception in convert_to_dto_packet() only affects your own program: send_packet() raises
    a ProtocolCrashedError with that exception as its __cause__, and nothing
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


# Converting several types of packets


def test_kinds() -> None:
    """Each packet contains a type name; packets of other types are refused.

    "Put a type name into each packet, here under the key type, and let the receiver choose the
    class. Never let the peer choose by the name of any class: list the classes that you allow."
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


# Converting requests and responses


async def test_two_directions() -> None:
    """The program's server serves a client with the same converters and one without.

    "A server receives requests and sends responses; its clients send requests and receive
    responses. If requests and responses have different types, write a converter for each type, and
    combine them, the converter for sent packets first"

    "The last two lines are the responses to the second client. The handler catches each
    StreamProtocolParseError, so the connection stays open after both mistakes."
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


def test_program(capsys: pytest.CaptureFixture[str]) -> None:
    """The program prints what the page shows.

    "The program commands.py uses these protocol objects in a server and a client. A second client
    has no converter, and sends plain objects"
    """
    asyncio.run(commands.main())
    of_client, of_plain_client = capsys.readouterr().out.splitlines()[1::2]
    assert of_client == repr(commands.Reply(True, "You said 'hello'"))
    assert of_plain_client == repr({"ok": False, "text": "Not a command"})


class BothConverter(AbstractPacketConverterComposite[commands.Reply, commands.Command, Any, Any]):
    """One converter for the server's two types."""

    def convert_to_dto_packet(self, obj: commands.Reply) -> Any:
        return commands.ReplyConverter().convert_to_dto_packet(obj)

    def create_from_dto_packet(self, packet: Any) -> commands.Command:
        return commands.CommandConverter().create_from_dto_packet(packet)


def test_one_converter() -> None:
    """A converter of the other base class sends one type and receives another one.

    "AbstractPacketConverter is for packets of one type."

    "AbstractPacketConverterComposite is the base class of a single converter for both types."
    """
    protocol = DatagramProtocol(JSONSerializer(), BothConverter())
    reply = protocol.make_datagram(commands.Reply(True, "hello"))
    assert reply == b'{"ok":true,"text":"hello"}'
    request = protocol.build_packet_from_datagram(b'{"type":"say","text":"hello"}')
    assert request == commands.Say("hello")
    with pytest.raises(DatagramProtocolParseError):
        protocol.build_packet_from_datagram(reply)
    base, *_ = vars(AbstractPacketConverter)["__orig_bases__"]
    sent, received, sent_dto, received_dto = get_args(base)
    assert (sent, sent_dto) == (received, received_dto)


def test_reply() -> None:
    """The converter of the responses checks them, too.

    "Check the received data in this method."
    """
    converter = commands.ReplyConverter()
    reply = commands.Reply(True, "hello")
    plain = converter.convert_to_dto_packet(reply)
    assert plain == dataclasses.asdict(reply)
    assert converter.create_from_dto_packet(plain) == reply
    with pytest.raises(PacketConversionError):
        converter.create_from_dto_packet({"ok": 1, "text": "hello"})
