"""Check that the examples of the how-to page for protocol objects do what the page says.

Text in quotation marks in a docstring is quoted from the page, word for word (the first test checks
that), and the test fails if the quoted sentence is wrong.
"""

from __future__ import annotations

import inspect
import logging
import pickle
import socket
from collections.abc import Generator
from typing import Any, get_args

import anyio
import pytest

from docs._include.examples.howto.converters import commands
from docs._include.examples.howto.protocols import reading_protocols as examples
from docs._include.examples.howto.protocols.reading_protocols import Reading, ReadingConverter
from docs._include.examples.howto.serializers.writing_your_own import (
    BufferedMessageSerializer,
    Message,
)
from easynetwork import clients, servers
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.codec import new_decoder_factory
from easynetwork.decoder import FramedDecoder, GeneratorDecoder
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    LimitOverrunError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    JSONSerializer,
    LengthPrefixedSerializer,
    PickleSerializer,
    StringLineSerializer,
)
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
)
from easynetwork.serializers.composite import StapledIncrementalPacketSerializer
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
)
from tests.decoding import outcomes
from tests.docs.howto_support import (
    DOCS,
    DatagramEcho,
    Echo,
    check_quotations,
    connected,
    in_thread,
    serving,
    visiting,
)

pytestmark = pytest.mark.anyio

READING = Reading("kitchen", 21.5)
TABLE = {
    StreamProtocol: PickleSerializer(),
    BufferedStreamProtocol: JSONSerializer(),
    DatagramProtocol: ReadingConverter(),
}


async def answer(peer: Any, request: bytes, size: int) -> bytes:
    """Send bytes, and receive and return `size` bytes."""
    await peer.send_bytes(request)
    received: bytes = await in_thread(lambda: peer.socket.recv(size, socket.MSG_WAITALL))
    return received


def test_quotations() -> None:
    """Each test quotes the page, word for word."""
    check_quotations("howto/protocols.rst", globals())


# Introduction


def test_required() -> None:
    """Servers and clients cannot be created without a protocol object.

    "Each server and client needs one object that describes your packets: the protocol object."
    """
    classes = [getattr(module, name) for module in (clients, servers) for name in module.__all__]
    parameters = [inspect.signature(each).parameters for each in classes if isinstance(each, type)]
    protocols = [each["protocol"] for each in parameters if "protocol" in each]
    assert len(protocols) >= 10
    assert all(each.default is inspect.Parameter.empty for each in protocols)


def test_order() -> None:
    """Each part is called by the other's result.

    "optionally, a converter, which converts these plain objects to your own objects and back"

    "A packet that you send passes through the converter first, then through the serializer.
    A packet that you receive passes through them in reverse order. Neither part uses a socket, so
    you can try a protocol object without a network"
    """
    calls: list[str] = []

    class Serializer(AbstractPacketSerializer[Any, Any]):
        def serialize(self, packet: Any) -> bytes:
            calls.append(f"serialize {packet!r}")
            return JSONSerializer().serialize(packet)

        def deserialize(self, data: bytes) -> Any:
            calls.append(f"deserialize {data!r}")
            return JSONSerializer().deserialize(data)

    class Converter(ReadingConverter):
        def convert_to_dto_packet(self, obj: Reading) -> Any:
            calls.append(f"convert {obj!r}")
            return super().convert_to_dto_packet(obj)

        def create_from_dto_packet(self, packet: Any) -> Reading:
            calls.append(f"create from {packet!r}")
            return super().create_from_dto_packet(packet)

    protocol = DatagramProtocol(Serializer(), Converter())
    data = protocol.make_datagram(READING)
    assert protocol.build_packet_from_datagram(data) == READING
    assert calls == [
        f"convert {READING!r}",
        "serialize ['kitchen', 21.5]",
        f"deserialize {data!r}",
        "create from ['kitchen', 21.5]",
    ]
    without = DatagramProtocol(JSONSerializer())
    assert without.converter is None
    assert without.build_packet_from_datagram(data) == ["kitchen", 21.5]


# Choosing a protocol class


@pytest.mark.parametrize("protocol_class", TABLE, ids=lambda each: each.__name__)
def test_refused_at_once(protocol_class: Any) -> None:
    """Each protocol class rejects an unsuitable serializer.

    "If the serializer lacks these abilities, the constructor raises TypeError."
    """
    with pytest.raises(TypeError, match="Expected an? .*serializer"):
        protocol_class(TABLE[protocol_class])


@pytest.mark.parametrize(
    ("protocol", "data"),
    [
        (examples.stream_protocol, b'["kitchen",21.5]\n'),
        (examples.buffered_protocol, b'\0\0\0\x10["kitchen",21.5]'),
        (examples.ReadingProtocol(), b'["kitchen",21.5]\n'),
    ],
    ids=["stream", "buffered", "named"],
)
async def test_stream(protocol: Any, data: bytes) -> None:
    """Servers with the page's protocol objects for streams serve clients that do not use them.

    "servers and clients for TCP and Unix streams"

    "In a stream, the receiver must be able to find the end of each packet. Here, the first protocol
    object adds a newline, and the second one adds a length prefix."
    """
    assert b"".join(protocol.generate_chunks(READING)) == data
    async with serving(Echo(), protocol) as server, connected(server) as peer:
        assert await answer(peer, data * 2, 2 * len(data)) == data * 2
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            await client.send_packet(READING)
            assert await client.recv_packet() == READING


def test_three_protocols() -> None:
    """The same reading is sent in three ways, and comes out of each.

    "Reading is a named tuple, and ReadingConverter creates one from a list of a text and a number."

    "The three protocol objects convert the same reading to these bytes"
    """
    assert isinstance(READING, tuple)
    assert ReadingConverter().create_from_dto_packet(["kitchen", 21.5]) == READING
    streams: list[Any] = [examples.stream_protocol, examples.buffered_protocol]
    line, prefixed = (b"".join(each.generate_chunks(READING)) for each in streams)
    datagram = examples.datagram_protocol.make_datagram(READING)
    assert line == datagram + b"\n"
    assert prefixed == len(datagram).to_bytes(4, "big") + datagram
    for protocol, data in zip(streams, (line, prefixed), strict=True):
        assert outcomes(protocol, [data]) == [READING]
    shown = (DOCS / "howto/protocols.rst").read_text(encoding="utf-8")
    for name, data in ("stream:  ", line), ("buffered:", prefixed), ("datagram:", datagram):
        assert f"   {name} {data!r}\n" in shown


def test_own_buffer() -> None:
    """Only one of the two classes uses the serializer's buffer.

    "For a stream, use StreamProtocol unless you have a reason not to. BufferedStreamProtocol is for
    serializers that parse received bytes in their own buffer, such as a serializer that you write
    for it."
    """
    buffers = []

    class Serializer(BufferedMessageSerializer):
        def create_deserializer_buffer(self, sizehint: int) -> bytearray:
            buffers.append(super().create_deserializer_buffer(sizehint))
            return buffers[-1]

    data = b"greeting 5\nhello"
    message = Message("greeting", b"hello")
    assert outcomes(StreamProtocol(Serializer()), [data]) == [message]
    assert not buffers
    assert outcomes(BufferedStreamProtocol(Serializer()), [data]) == [message]
    assert [bytes(buffer).rstrip(b"\0") for buffer in buffers] == [data]


async def test_datagram() -> None:
    """A server with the page's protocol object for datagrams serves a client that does not use it.

    "a datagram has its own end"
    """
    async with serving(DatagramEcho(), examples.datagram_protocol) as server:
        with visiting(server) as peer:
            assert await peer.ask('["kitchen",21.5]') == '["kitchen",21.5]'


async def test_either_class_for_streams() -> None:
    """A server with a buffered protocol object serves a client without one.

    "The peer does not notice which of the two classes you use: they send the same bytes if their
    serializers do."
    """
    serializer = LengthPrefixedSerializer(JSONSerializer())
    protocol = StreamProtocol(serializer, ReadingConverter())
    async with serving(Echo(), examples.buffered_protocol) as server:
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            await client.send_packet(READING)
            assert await client.recv_packet() == READING


# Sharing a protocol object


async def test_shared() -> None:
    """Two servers and three connections share one object, in the middle of packets.

    "One object is enough for a whole program. It is immutable and stores nothing about a
    connection, so a server uses the same object for all its connections, and you can pass it to
    several servers and clients."
    """
    protocol = examples.stream_protocol
    data = b'["kitchen",21.5]\n'
    with pytest.raises(AttributeError):
        protocol.serializer = JSONSerializer()  # type: ignore[misc]  # the point of it
    async with serving(Echo(), protocol) as server, serving(Echo(), protocol) as other_server:
        async with connected(server) as one, connected(server) as two:
            async with connected(other_server) as three:
                peers = one, two, three
                for peer in peers:
                    await peer.send_bytes(data[:5])
                await anyio.wait_all_tasks_blocked()
                for peer in peers:
                    assert await answer(peer, data[5:], len(data)) == data


def test_mirrored_types() -> None:
    """What one end sends, the other one receives, with two serializers or two converters.

    "If requests and responses have different types, the two ends have mirrored types: the clients
    of a server with a StreamProtocol[Response, Request] have a StreamProtocol[Request, Response].
    The type of sent packets comes first. You can combine two serializers or two converters, one for
    each direction."
    """
    sent, _ = vars(StreamProtocol)["__parameters__"]
    assert StreamProtocol.generate_chunks.__annotations__["packet"] == sent.__name__
    types = [
        get_args(vars(each)["__orig_bases__"][0])
        for each in (commands.ServerProtocol, commands.ClientProtocol)
    ]
    assert types == [
        (commands.Reply, commands.Command),
        (commands.Command, commands.Reply),
    ]
    lines, json = StringLineSerializer(), JSONSerializer()
    pairs: list[tuple[Any, Any, Any, Any]] = [
        (
            StreamProtocol(StapledIncrementalPacketSerializer(json, lines)),
            StreamProtocol(StapledIncrementalPacketSerializer(lines, json)),
            "a line",
            {"a": "document"},
        ),
        (
            commands.ServerProtocol(),
            commands.ClientProtocol(),
            commands.Say("hello"),
            commands.Reply(True, "hello"),
        ),
    ]
    for server, client, request, response in pairs:
        assert outcomes(server, client.generate_chunks(request)) == [request]
        assert outcomes(client, server.generate_chunks(response)) == [response]


# Handling invalid data


async def test_errors_in_a_stream() -> None:
    """A bad packet raises one error at the yield, and the next packet is received.

    "A peer can send any data. The result is either a packet or one error, which is raised where you
    wait for a packet: at the yield of a request handler, or by recv_packet() of a client."

    "If a packet is too large, it is a LimitOverrunError."

    "The connection stays open, and you can receive the packets that follow the bad packet if the
    serializer knows where they begin."
    """
    handler = Echo()
    bad = b'not JSON\n["kitchen"]\n' + b"x" * 1500 + b"\n"
    data = b'["kitchen",21.5]\n'
    async with serving(handler, examples.ReadingProtocol()) as server:
        async with connected(server) as peer:
            assert await answer(peer, bad + data, len(data)) == data
    assert {type(exc) for exc in handler.errors} == {StreamProtocolParseError}
    serializer, converter, *rest = [type(exc.error) for exc in handler.errors]
    assert issubclass(serializer, DeserializeError)
    assert converter is PacketConversionError
    assert LimitOverrunError in rest


async def test_errors_of_a_client() -> None:
    """A bad packet raises one error in a client, and the next packet is received.

    "or by recv_packet() of a client"
    """

    class Handler(Echo):
        async def on_connection(self, client: AsyncStreamClient[Any]) -> None:
            await client.send_packet('["kitchen"]')
            await client.send_packet('["kitchen",21.5]')

    async with serving(Handler(), StreamProtocol(StringLineSerializer())) as server:
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), examples.stream_protocol) as client:
            with pytest.raises(StreamProtocolParseError) as caught:
                await client.recv_packet()
            assert type(caught.value.error) is PacketConversionError
            assert await client.recv_packet() == READING


async def test_errors_of_datagrams() -> None:
    """Each bad datagram raises one error, and the next datagram is received.

    "The error is a StreamProtocolParseError or a DatagramProtocolParseError. The type of its error
    attribute shows which part rejected the data"

    "The serializer: the bytes are not in its format."

    "The converter: for example, the bytes are valid JSON, but not a reading."
    """
    handler = DatagramEcho()
    async with serving(handler, examples.datagram_protocol) as server:
        with visiting(server) as peer:
            assert await peer.ask("not JSON", '["kitchen"]', '["kitchen",21.5]')
    assert {type(exc) for exc in handler.errors} == {DatagramProtocolParseError}
    assert [type(exc.error) for exc in handler.errors] == [DeserializeError, PacketConversionError]


class BrokenConverter(ReadingConverter):
    def create_from_dto_packet(self, packet: Any) -> Reading:
        if packet == "trap":
            raise ZeroDivisionError
        return super().create_from_dto_packet(packet)

    def convert_to_dto_packet(self, obj: Reading) -> Any:
        if obj.celsius > 1000:
            raise OverflowError
        return super().convert_to_dto_packet(obj)


async def test_bugs() -> None:
    """A bug of a converter raises an error, and the connection can still be used.

    "Any other exception indicates a bug in the serializer or the converter. It is the __cause__ of
    a ProtocolCrashedError (a subclass of RuntimeError), which is raised
    when you receive or send the packet. If a packet cannot be converted to bytes, it is not sent,
    and the connection can still be used. If a received packet crashes the converter, you can
    receive the next packet."
    """
    handler = Echo()
    data = b'["kitchen",21.5]\n'
    protocol = StreamProtocol(JSONSerializer(), BrokenConverter())
    async with serving(handler, protocol) as server:
        async with connected(server) as peer:
            assert await answer(peer, b'"trap"\n' + data, len(data)) == data
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            with pytest.raises(ProtocolCrashedError) as caught:
                await client.send_packet(Reading("oven", 2000.0))
            await client.send_packet(READING)
            assert await client.recv_packet() == READING
    assert type(caught.value.__cause__) is OverflowError
    assert [type(exc) for exc in handler.errors] == [ProtocolCrashedError]
    assert type(handler.errors[0].__cause__) is ZeroDivisionError

    class BrokenSerializer(AutoSeparatedPacketSerializer[Any, Any]):
        def serialize(self, packet: Any) -> bytes:
            raise NotImplementedError

        def deserialize(self, data: bytes) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ProtocolCrashedError) as raised:
        outcomes(StreamProtocol(BrokenSerializer(b"\n")), [data])
    assert type(raised.value.__cause__) is ZeroDivisionError
    assert isinstance(raised.value, RuntimeError)


def test_crash_of_a_parser() -> None:
    """Nothing more is received after a crash of a parser, or after a packet with an unknown end.

    "If it crashes a parser that is a generator, the beginning of the next packet is unknown, and
    nothing more is received."

    "If a packet is too large and its end is unknown, nothing more is received"
    """

    class Crashing(AbstractIncrementalPacketSerializer[bytes, bytes]):
        def incremental_serialize(self, packet: bytes) -> Generator[bytes, None, None]:
            yield packet

        def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
            data = yield
            return data[: 100 // (data[0] - ord("0"))], data[1:]

    decoder = new_decoder_factory(StreamProtocol(Crashing()), 1024)()
    decoder.feed(b"101")
    assert decoder.take() == b"101"
    with pytest.raises(ProtocolCrashedError):
        decoder.take()
    decoder.feed(b"1")
    assert decoder.take() is NEED_DATA
    large = JSONSerializer(use_lines=False, limit=5)
    assert len(outcomes(StreamProtocol(large), [b"[1,2,3]", b"[1]"])) == 1


def test_process_pool() -> None:
    """The objects that a process pool receives and returns can be pickled.

    "Errors, protocol objects and serializers can be pickled, so you can parse packets in a process
    pool, which raises these errors in your process."
    """
    protocol = pickle.loads(pickle.dumps(examples.datagram_protocol))
    with pytest.raises(DatagramProtocolParseError) as caught:
        protocol.build_packet_from_datagram(b"[]")
    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error.error) is type(caught.value.error)
    assert str(error) == str(caught.value)


# Defining a protocol class


def test_subclass() -> None:
    """The class of the page sets the limit of its serializer.

    "Servers and clients mention their protocol object in only one place, but its parts can have
    many options. Define a subclass that sets these options"
    """
    protocols: list[Any] = [examples.ReadingProtocol(), examples.stream_protocol]
    assert [each.serializer.buffer_limit for each in protocols] == [1000, 65_536]
    assert isinstance(protocols[0].converter, ReadingConverter)


# Overriding methods


def test_one_packet() -> None:
    """The generator is sent chunks, and returns what follows the packet.

    "The generator of build_packet_from_chunks() parses one packet: each yield receives bytes, and
    the generator returns the packet and the bytes that follow it."
    """
    parser = examples.stream_protocol.build_packet_from_chunks()
    next(parser)
    parser.send(b'["kitchen"')
    with pytest.raises(StopIteration) as stopped:
        parser.send(b',21.5]\n["bath')
    assert stopped.value.value == (READING, b'["bath')


async def test_tracing(caplog: pytest.LogCaptureFixture) -> None:
    """A TCP server calls the overridden methods.

    "A protocol class can do more than its two parts. This class logs each packet that is sent or
    received"

    "Servers and clients call these methods, and make_datagram() and build_packet_from_datagram()
    for datagrams, so they also call your overrides."
    """
    caplog.set_level(logging.DEBUG, examples.logger.name)
    data = b'["kitchen",21.5]\n'
    async with serving(Echo(), examples.TracingReadingProtocol()) as server:
        async with connected(server) as peer:
            assert await answer(peer, data, len(data)) == data
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"Received {READING}", f"Sends {READING}"]


async def test_overridden_datagrams() -> None:
    """A UDP server calls the overridden methods.

    "make_datagram() and build_packet_from_datagram() for datagrams, so they also call your
    overrides."
    """

    class Shouting(DatagramProtocol[Any, Any]):
        def make_datagram(self, packet: Any) -> bytes:
            return super().make_datagram(packet) + b"!"

        def build_packet_from_datagram(self, datagram: bytes) -> Any:
            return super().build_packet_from_datagram(datagram) + "?"

    async with serving(DatagramEcho(), Shouting(StringLineSerializer())) as server:
        with visiting(server) as peer:
            assert await peer.ask("hello") == "hello?!"


def test_shortcut() -> None:
    """A class that overrides the generator is parsed by it.

    "With most formats, servers and clients split a stream into frames without these generators,
    which is faster. A class that overrides build_packet_from_chunks() does not use this fast path:
    its generator runs for each packet."
    """
    plain, traced = (
        new_decoder_factory(protocol, 1024)()
        for protocol in (examples.ReadingProtocol(), examples.TracingReadingProtocol())
    )
    assert isinstance(plain, FramedDecoder)
    assert isinstance(traced, GeneratorDecoder)
