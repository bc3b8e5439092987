"""Show that the definitions of the glossary hold.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import inspect
import itertools
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.backends.asyncio.backend import AsyncIOBackend
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    PacketConversionError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
)
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import (
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)
from easynetwork.testing import MemoryNetwork, serve
from tests.conftest import HAS_TRIO
from tests.docs.howto_support import DatagramEcho, Echo, check_quotations
from tests.docs.memory_support import play

JSON: Any = StreamProtocol(JSONSerializer())


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("glossary.rst", globals())


# Frameworks


@pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed")
def test_backends() -> None:
    """These names are known, and no other; an object will do.

    "A library that runs coroutines: it provides the event loop, its tasks and its timers.
    easynetwork runs on asyncio and on"

    "The argument backend of servers and clients takes the name of a framework, or an AsyncBackend
    object."

    "The part of easynetwork that runs on one asynchronous framework. There are two, for asyncio and
    for trio."
    """
    own = AsyncIOBackend()

    def server(backend: Any) -> Any:
        return AsyncTCPNetworkServer("127.0.0.1", 0, JSON, Echo(), backend).backend()

    def client(backend: Any) -> Any:
        return AsyncTCPNetworkClient(("127.0.0.1", 9), JSON, backend=backend).backend()

    for make in server, client:
        assert make(own) is own
        for name in "asyncio", "trio":
            assert type(make(name)).__module__ == f"easynetwork.backends.{name}.backend"
        with pytest.raises(NotImplementedError, match="there are 'asyncio', 'trio'"):
            make("curio")


def test_virtual_time() -> None:
    """Ten minutes pass at once, in the order of the timers.

    "The time of an event loop whose clock jumps to the next timer when all tasks wait. In a test, a
    timeout of minutes then takes milliseconds."
    """
    woken: list[float] = []

    async def sleep(begin: float, seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(anyio.current_time() - begin)

    async def main() -> None:
        begin = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for seconds in 600, 1, 300:
                tasks.start_soon(sleep, begin, seconds)

    begin = time.perf_counter()
    play(main)
    assert woken == pytest.approx([1, 300, 600])
    assert time.perf_counter() - begin < 5  # on a slow machine


@pytest.mark.asyncio
async def test_portal() -> None:
    """What is called is called in the other thread.

    "An object through which other threads call functions in the thread of an event loop."
    """
    async with anyio.from_thread.BlockingPortal() as portal:
        called_in = await anyio.to_thread.run_sync(portal.call, threading.get_ident)
    assert called_in == threading.get_ident()


# Packets


class Doubling(AsyncStreamRequestHandler[int, int]):
    """Receives a number, and sends back twice as much."""

    async def handle(self, client: AsyncStreamClient[int]) -> AsyncGenerator[None, int]:
        request = yield
        await client.send_packet(2 * request)


def test_packets() -> None:
    """Objects here, bytes there; one call for each, whatever arrives together.

    "The unit that servers and clients exchange: you send it with one call, and the receiver gets it
    with one call. It is a Python object in your program, and a sequence of bytes on the wire."

    "A packet that a server receives."

    "A packet that a server sends back to the client of a request."

    "The object that you write for a server. Its method handle() is an asynchronous generator that
    receives requests from a client and sends responses."
    """

    async def main() -> None:
        async with serve(Doubling(), JSON) as served:
            client, other = await served.connect(), await served.connect(raw=True)
            for number in 1, 2, 3:
                await client.send_packet(number)
            assert [await client.recv_packet() for _ in range(3)] == [2, 4, 6]
            await other.send(b"10\n20\n")
            assert await other.receive() == b"20\n40\n"

    assert inspect.isasyncgenfunction(Doubling.handle)
    play(main)


def test_datagrams() -> None:
    """No datagram is torn or joined with another; those of the network may overtake each other.

    "A packet that is sent on its own, without a connection. It arrives complete or not at all. UDP
    and Unix datagram sockets carry datagrams; those of UDP may arrive in any order."
    """
    for family in socket.AF_UNIX, socket.AF_INET:
        if family == socket.AF_UNIX:
            receiver, sender = socket.socketpair(family, socket.SOCK_DGRAM)
        else:
            receiver, sender = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
            receiver.bind(("127.0.0.1", 0))
            sender.connect(receiver.getsockname())
        with receiver, sender:
            for data in b"one", b"", b"two" * 1000:
                sender.send(data)
            assert [receiver.recv(65536) for _ in range(3)] == [b"one", b"", b"two" * 1000]
    texts = [str(number) for number in range(10)]

    async def main() -> None:
        protocol: Any = DatagramProtocol(StringLineSerializer())
        network = MemoryNetwork(seed=1, reorder=0.5)
        async with serve(DatagramEcho(), protocol, network=network) as served:
            client = await served.connect()
            for text in texts:
                await client.send_packet(text)
            received = [await client.recv_packet() for _ in texts]
            assert sorted(received) == texts != received

    play(main)


# Serializers


class Reversed(AbstractPacketSerializer[str, str]):
    """The smallest kind of serializer."""

    __slots__ = ()

    def serialize(self, packet: str, /) -> bytes:
        return packet[::-1].encode()

    def deserialize(self, data: bytes, /) -> str:
        return data.decode()[::-1]


def test_serializers_have_no_state() -> None:
    """Two connections that share one do not notice.

    "An object that converts a packet to bytes and back. It stores nothing between calls, so all
    connections of a program can share one serializer."
    """
    serializer = JSONSerializer()
    assert serializer.deserialize(serializer.serialize({"a": 1})) == {"a": 1}
    one, other = serializer.incremental_deserialize(), serializer.incremental_deserialize()
    next(one), next(other)
    one.send(b"[1, ")
    other.send(b"[2, ")
    results = []
    for parser, rest in (one, b"10]\n"), (other, b"20]\n"):
        with pytest.raises(StopIteration) as end:
            parser.send(rest)
        results.append(end.value.value)
    assert results == [([1, 10], b""), ([2, 20], b"")]


def test_kinds_of_serializers() -> None:
    """The classes derive from each other, in this order.

    "There are three kinds: the one-shot serializer, the incremental serializer and the buffered
    serializer. Each kind has all features of the kind before it."
    """
    classes = (
        AbstractPacketSerializer,
        AbstractIncrementalPacketSerializer,
        BufferedIncrementalPacketSerializer,
    )
    assert inspect.getmro(classes[-1])[:3] == classes[::-1]
    for smaller, larger in itertools.pairwise(classes):
        assert {*dir(smaller)} < {*dir(larger)}


def test_one_shot_serializer() -> None:
    """It is enough for datagrams, but not for a stream.

    "A serializer that needs all bytes of a packet at once, and no other bytes with them. This is
    sufficient for datagrams."

    "A serializer that also finds the end of a packet in bytes that arrive in pieces. A stream, such
    as a TCP connection or a Unix stream, needs an incremental serializer."
    """
    datagrams: Any = DatagramProtocol(Reversed())
    assert datagrams.build_packet_from_datagram(datagrams.make_datagram("hello")) == "hello"
    small: Any = Reversed()
    for stream_class in StreamProtocol, BufferedStreamProtocol:
        with pytest.raises(TypeError):
            stream_class(small)
    for data in b'{"a": ', b'{"a": 1}\n{"b": 2}':  # a part, and more than one
        with pytest.raises(DeserializeError):
            JSONSerializer().deserialize(data)
    parser = JSON.build_packet_from_chunks()
    next(parser)
    parser.send(b'{"a": ')
    with pytest.raises(StopIteration) as end:
        parser.send(b'1}\n{"b": 2}')
    assert end.value.value == ({"a": 1}, b'{"b": 2}')


def test_buffered_serializer() -> None:
    """The received bytes are written into its own buffer.

    "An incremental serializer that can also provide the buffer into which received bytes are
    written."
    """
    protocol: Any = BufferedStreamProtocol(StringLineSerializer())
    buffer = protocol.create_buffer(1024)
    parser = protocol.build_packet_from_buffer(buffer)
    start = next(parser) or 0
    memoryview(buffer)[start : start + 4] = b"one\n"
    with pytest.raises(StopIteration) as end:
        parser.send(4)
    assert end.value.value[0] == "one"


# Protocol objects


class Point(NamedTuple):
    x: int
    y: int


class Points(AbstractPacketConverter[Point, Any]):
    """Makes points of dictionaries, if they are points."""

    def create_from_dto_packet(self, packet: Any) -> Point:
        try:
            return Point(**packet)
        except TypeError as exc:
            raise PacketConversionError(str(exc)) from exc

    def convert_to_dto_packet(self, obj: Point) -> Any:
        return obj._asdict()


def test_converter() -> None:
    """A dictionary that is no point does not come through.

    "An object that converts the plain objects of a serializer (for example, dictionaries) to
    objects of your own classes, and back. A converter is the place to validate received packets."
    """
    protocol: Any = DatagramProtocol(JSONSerializer(), Points())
    data = protocol.make_datagram(Point(1, 2))
    assert data == b'{"x":1,"y":2}'
    assert protocol.build_packet_from_datagram(data) == Point(1, 2)
    with pytest.raises(DatagramProtocolParseError):
        protocol.build_packet_from_datagram(b'{"x": 1}')


def test_protocol_object() -> None:
    """It takes no other argument, and cannot be changed; with another one, nothing is understood.

    "A serializer and, optionally, a converter. It tells a server or a client everything about the
    format of your packets. Both ends of a connection need compatible protocol objects. A protocol
    object is immutable, so it can be shared."
    """
    for protocol_class in StreamProtocol, BufferedStreamProtocol, DatagramProtocol:
        converter = inspect.signature(protocol_class).parameters["converter"]
        assert [*inspect.signature(protocol_class).parameters] == ["serializer", "converter"]
        assert converter.default is None
    for name in "serializer", "converter", "other":
        with pytest.raises(AttributeError):
            setattr(JSON, name, None)

    async def main() -> None:
        async with serve(Doubling(), JSON) as served:
            clients = [await served.connect(protocol=JSON) for _ in range(2)]
            for client in clients:
                await client.send_packet(1)
                assert await client.recv_packet() == 2
            lines: Any = StreamProtocol(StringLineSerializer())
            stranger = await served.connect(protocol=lines)
            await stranger.send_packet("no JSON")
            with pytest.raises((ConnectionError, StreamProtocolParseError)):
                await stranger.recv_packet()

    play(main)


def test_handlers_of_both_kinds() -> None:
    """There is a base class for each of them.

    "The object that you write for a server."
    """
    for base in AsyncStreamRequestHandler, AsyncDatagramRequestHandler:
        assert base.__abstractmethods__ == {"handle"}


# Unix sockets


def test_unix_sockets(unix_path: str) -> None:
    """The two kinds of names, and the two kinds of sockets.

    "A socket that connects programs on the same machine. Its address is a path or, on Linux, an
    abstract name. There are Unix sockets for streams and for datagrams."
    """
    names = [unix_path, f"\0{unix_path}"]
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        for name in names:
            with (
                socket.socket(socket.AF_UNIX, kind) as server,
                socket.socket(socket.AF_UNIX, kind) as client,
            ):
                server.bind(name)
                if kind == socket.SOCK_STREAM:
                    server.listen()
                client.connect(name)
        os.unlink(unix_path)
    assert UnixSocketAddress.from_pathname(unix_path).as_pathname() is not None
    assert UnixSocketAddress.from_abstract_name("name").as_abstract_name() == b"name"


@pytest.mark.asyncio
async def test_ancillary_data() -> None:
    """A descriptor and credentials arrive with a packet.

    "What travels beside a packet over a Unix socket: descriptors of open files, and credentials."
    """
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        async with (
            AsyncUnixStreamClient(ours, JSON) as sender,
            AsyncUnixStreamClient(theirs, JSON) as receiver,
        ):
            sent, received = SocketAncillary(), SocketAncillary()
            sent.add_fds([writer])
            await sender.send_packet("hello", ancillary_data=sent)
            assert await receiver.recv_packet(ancillary_data=received) == "hello"
            [fd] = received.iter_fds()
            os.write(fd, b"through the pipe")
            os.close(fd)
            assert os.read(reader, 100) == b"through the pipe"
            credentials = [
                credential
                for message in received.messages()
                for credential in getattr(message, "credentials", ())
            ]
            assert [credential.pid for credential in credentials] == [os.getpid()]
    finally:
        os.close(reader)
        os.close(writer)
