"""The how-to page for protocol objects: what it says of its examples is what they do.

What stands in quotation marks in a docstring is what the page says, word for word (the first test
sees to that), and the test would fail if it were wrong.
"""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Generator
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.protocols import reading_protocols as examples
from docs._include.examples.howto.protocols.reading_protocols import Reading, ReadingConverter
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.codec import new_decoder_factory
from easynetwork.decoder import NEED_DATA, FramedDecoder, GeneratorDecoder
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    LimitOverrunError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    JSONSerializer,
    LengthPrefixedSerializer,
    PickleSerializer,
    StringLineSerializer,
)
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
)
from tests.decoding import outcomes
from tests.docs.howto_support import (
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
    """Send bytes and return as many as are expected to come back."""
    await peer.send_bytes(request)
    received: bytes = await in_thread(lambda: peer.socket.recv(size, socket.MSG_WAITALL))
    return received


def test_quotations() -> None:
    """What the tests quote is what the page says; each test quotes something."""
    check_quotations("howto/protocols.rst", globals())


# The Three Kinds


@pytest.mark.parametrize("protocol_class", TABLE, ids=lambda each: each.__name__)
def test_refused_at_once(protocol_class: Any) -> None:
    """What cannot do what is needed is no part of a protocol object.

    "A serializer that cannot do what is needed is refused at once, with a TypeError."
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
    """The page's protocol objects for streams serve a peer that was written without them.

    "TCP servers and clients"

    "In a stream, a packet needs an end that its receiver can find: here a newline, there a length
    in front."
    """
    assert b"".join(protocol.generate_chunks(READING)) == data
    async with serving(Echo(), protocol) as server, connected(server) as peer:
        assert await answer(peer, data * 2, 2 * len(data)) == data * 2
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            await client.send_packet(READING)
            assert await client.recv_packet() == READING


async def test_datagram() -> None:
    """The page's protocol object for datagrams serves a peer that was written without it.

    "a datagram has its own end"
    """
    async with serving(DatagramEcho(), examples.datagram_protocol) as server:
        with visiting(server) as peer:
            assert await peer.ask('["kitchen",21.5]') == '["kitchen",21.5]'


async def test_either_class_for_streams() -> None:
    """A buffered server, a client that is not.

    "The other end does not notice which of the two you use: they send the same bytes if their
    serializers do."
    """
    serializer = LengthPrefixedSerializer(JSONSerializer())
    protocol = StreamProtocol(serializer, ReadingConverter())
    async with serving(Echo(), examples.buffered_protocol) as server:
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            await client.send_packet(READING)
            assert await client.recv_packet() == READING


# Both Ends Agree


async def test_shared() -> None:
    """One object, two servers, three connections, in the middle of packets.

    "One object is enough for a whole program. It never changes and remembers nothing about a
    connection, so a server gives the same one to all its connections, and you may give it to
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


# What Is Not A Packet


async def test_errors_in_a_stream() -> None:
    """Whoever refuses it, a bad packet is an error at the yield, and the next packet is received.

    "Whatever it is, it ends in a packet or in one error, which is raised where you wait for a
    packet: at the yield of a request handler, or by recv_packet() of a client."

    "For packets that are too large, it is a LimitOverrunError."

    "The connection stays open, and the packets that follow the bad one can be received, provided
    that the serializer knows where they begin."
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
    """A client has the same error.

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
    """A bad datagram, then a good one.

    "The error is a StreamProtocolParseError or a DatagramProtocolParseError, and its error says
    who refused"
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
    """A converter that fails, inwards and outwards.

    "You get it as the __cause__ of a ProtocolCrashedError (a RuntimeError), when you receive as
    well as when you send. A packet that could not be made into bytes is not sent, and the
    connection can still be used. If a received packet crashed its converter, you can receive the
    next one"
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


def test_crash_of_a_parser() -> None:
    """Behind a parser that crashes, and behind a packet without a known end, nothing is found.

    "if it crashed a parser that is a generator, it is unknown where the next packet begins, and
    nothing more is received"

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
    """What a pool needs to be given, and gives back, can be pickled.

    "Errors, protocol objects and serializers can be pickled, so a process pool may parse packets
    and raise what it finds."
    """
    protocol = pickle.loads(pickle.dumps(examples.datagram_protocol))
    with pytest.raises(DatagramProtocolParseError) as caught:
        protocol.build_packet_from_datagram(b"[]")
    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error.error) is type(caught.value.error)
    assert str(error) == str(caught.value)


# Overriding Methods


async def test_tracing(caplog: pytest.LogCaptureFixture) -> None:
    """A server uses the methods of a derived class.

    "This one logs what goes through it"

    "Servers and clients use these methods, and make_datagram() and build_packet_from_datagram()
    for datagrams, so yours take effect."
    """
    caplog.set_level(logging.DEBUG, examples.logger.name)
    data = b'["kitchen",21.5]\n'
    async with serving(Echo(), examples.TracingReadingProtocol()) as server:
        async with connected(server) as peer:
            assert await answer(peer, data, len(data)) == data
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"Received {READING}", f"Sends {READING}"]


async def test_overridden_datagrams() -> None:
    """The same for datagrams.

    "make_datagram() and build_packet_from_datagram() for datagrams, so yours take effect"
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
    """Who overrides the generator has it run.

    "With most formats, a stream is cut into packets without these generators, which is faster. A
    class that overrides build_packet_from_chunks() does without this shortcut: its generator is
    run for each packet."
    """
    plain, traced = (
        new_decoder_factory(protocol, 1024)()
        for protocol in (examples.ReadingProtocol(), examples.TracingReadingProtocol())
    )
    assert isinstance(plain, FramedDecoder)
    assert isinstance(traced, GeneratorDecoder)
