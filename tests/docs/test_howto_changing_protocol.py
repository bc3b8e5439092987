"""Test the statements and the examples of the page about changing the protocol.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import logging
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.changing_protocol import documents, upload
from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.codec import new_decoder_factory
from easynetwork.exceptions import BusyResourceError
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import (
    CBORSerializer,
    JSONSerializer,
    MessagePackSerializer,
    NetstringSerializer,
    RawSerializer,
    StringLineSerializer,
    StructSerializer,
)
from easynetwork.serializers.composite import StapledIncrementalPacketSerializer
from easynetwork.serializers.wrapper import ZlibCompressorSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import (
    Peer,
    check_quotations,
    complaints,
    connected,
    in_thread,
    serving,
)

pytestmark = pytest.mark.anyio

Client = AsyncStreamClient[Any]

LINES = StreamProtocol[str, str](StringLineSerializer(encoding="utf-8"))
JSON = StreamProtocol[Any, Any](JSONSerializer(use_lines=False))


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/changing_protocol.rst", globals())


# Receiving a file after a line of text


def test_both_directions() -> None:
    """What is sent and what is received after the call is of the new format.

    "client.set_protocol() continues the connection with another protocol object, in both
    directions. It does not wait for anything, so you do not await it."

    "you can change the format of the packets during a connection"
    """

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: Client) -> AsyncGenerator[None, Any]:
            await client.send_packet((yield))
            assert client.set_protocol(JSON) is None  # type: ignore[func-returns-value]
            await client.send_packet((yield))
            client.set_protocol(LINES)

    async def main() -> None:
        async with serve(Handler(), LINES) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"[1, 2]\n[1, 2][1, 2]\n")
            received = b""
            while received.count(b"]") < 3:
                received += await peer.receive()
            assert received == b"[1, 2]\n[1,2][1, 2]\n"

    anyio.run(main, backend_options=virtual_time())


@contextlib.asynccontextmanager
async def uploading(handler: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    async with serving(handler, upload.LINES) as server:
        monkeypatch.setattr(upload, "ADDRESS", server.get_addresses()[0][:2])
        yield server


async def test_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients send a file to the example's server.

    "This handler receives the name of a file, which is a line of text. The file follows, up to the
    end of the stream."

    "The clients of easynetwork have the same method. set_protocol(RAW) is for the file, and
    set_protocol(LINES) for the response"
    """
    async with uploading(upload.UploadRequestHandler(), monkeypatch):
        zeros = bytes(1_000_000)
        response = "a: 1,000,000 bytes, SHA-256 d29751f2..."
        assert await upload.upload_async("a", zeros) == response
        assert await in_thread(lambda: upload.upload_blocking("a", zeros)) == response
        assert await upload.upload_async("../a", zeros) == "refused"
        assert await in_thread(lambda: upload.upload_blocking("../a", zeros)) == "refused"


async def test_upload_in_one_piece(log: pytest.LogCaptureFixture) -> None:
    """The name and the file may arrive together, and the client may half-close the connection.

    "The file follows, up to the end of the stream."

    "For this part, the handler uses a RawSerializer: a packet is whatever has arrived, as bytes."

    "After the end of the stream, recv_packet() raises EndOfStreamError. The client can still
    receive the response: it has only ended its sending side."
    """
    async with serving(upload.UploadRequestHandler(), upload.LINES) as server:
        async with connected(server) as peer:
            await peer.send_bytes(b"lines.txt\none\ntwo\n")
            peer.socket.shutdown(1)
            assert await peer.receive() == "ready"
            assert await peer.receive() == "lines.txt: 8 bytes, SHA-256 c3f9c8c2..."
            assert await peer.ending() == "end of the stream"
    assert not complaints(log)


async def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file arrives in many packets, so that its size can be limited.

    "A large file arrives in many packets, and is never in memory as a whole."
    """

    class Handler(upload.UploadRequestHandler):
        max_size = 1_000_000
        received = 0

        async def receive_file(self, client: Client) -> tuple[int, str]:
            size, digest = await super().receive_file(client)
            self.received = size
            return size, digest

    handler = Handler()
    async with uploading(handler, monkeypatch):
        assert await upload.upload_async("a", bytes(1_500_000)) == "too large"
    assert 1_000_000 < handler.received < 1_500_000


async def test_refused_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that follows a refused name is parsed as lines.

    "If the server may refuse the file, the client must wait for the server's response before it
    sends the file. Otherwise, the server takes the file for commands."
    """
    async with uploading(upload.UploadRequestHandler(), monkeypatch) as server:
        async with connected(server) as peer:
            await peer.send_bytes(b"../a\nb/c\n")
            assert await peer.receive() == "refused"
            assert await peer.receive() == "refused"


# Receiving a header and a body


class Raw(AsyncStreamRequestHandler[Any, Any]):
    """Receives a line, then bytes; sends the bytes as they came."""

    async def handle(self, client: Client) -> AsyncGenerator[None, Any]:
        yield
        client.set_protocol(StreamProtocol(RawSerializer()))
        await client.send_packet(repr(await client.recv_packet()).encode())
        client.set_protocol(LINES)


def test_raw_has_no_end() -> None:
    """A packet of raw bytes goes on into the text that follows.

    "To continue with text after a binary part, both sides must know where that part ends.
    A RawSerializer does not: its packet may contain the beginning of the text."
    """

    async def main() -> None:
        async with serve(Raw(), LINES) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"body follows\nbody\0text\n")
            assert await peer.receive() == rb"b'body\x00text\n'"

    anyio.run(main, backend_options=virtual_time())


def test_sizes_of_bodies() -> None:
    """A body is kept until it is complete, has bytes, and may be received in parts.

    "Check the size before you use it: the server keeps the body in memory until it is complete.
    A packet has at least one byte, so a body without bytes is no packet: if your protocol allows
    a size of 0, do not receive one then. To handle a large body in parts, receive several packets,
    and make the last one smaller."
    """
    decoder = new_decoder_factory(documents.body_protocol(1_000_000), 1024)()
    tracemalloc.start()
    try:
        for _ in range(9):
            decoder.feed(bytes(100_000))
            assert decoder.take() is NEED_DATA
        assert tracemalloc.get_traced_memory()[0] > 900_000
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match="positive"):
        documents.body_protocol(0)

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: Client) -> AsyncGenerator[None, Any]:
            size = int((yield))
            parts = []
            while size:
                client.set_protocol(documents.body_protocol(min(10, size)))
                parts.append(await client.recv_packet())
                size -= len(parts[-1])
            client.set_protocol(LINES)
            await client.send_packet(b" ".join(parts).decode())

    async def main() -> None:
        async with serve(Handler(), LINES) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"25\nabcdefghijklmnopqrstuvwxy")
            assert await peer.receive() == b"abcdefghij klmnopqrst uvwxy\n"

    anyio.run(main, backend_options=virtual_time())


async def test_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients exchange documents with the example's server.

    "Use a serializer for packets of the right size, such as BodySerializer. If the header contains
    the size, as in HTTP, make one for each body, as body_protocol() does"

    "A client calls set_protocol() in the same way, before and after each body"
    """
    async with serving(documents.DocumentRequestHandler(), documents.LINES) as server:
        address = server.get_addresses()[0][:2]
        body = b"one\r\n\r\ntwo"
        async with AsyncTCPNetworkClient[Any, Any](address, documents.LINES) as client:
            assert await documents.ask_async(client, body) == body.upper()
            assert await documents.ask_async(client, bytes(100_000)) == bytes(100_000)

        def ask() -> bytes:
            with TCPNetworkClient[Any, Any](address, documents.LINES) as client:
                assert documents.ask_blocking(client, b"hello") == b"HELLO"
                return documents.ask_blocking(client, body)

        assert await in_thread(ask) == body.upper()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_pipelining(size: int) -> None:
    """Requests that arrive together, or in pieces, are handled one by one.

    "A client may send several requests without waiting for the responses. The server still handles
    them one by one, because it parses each packet only when the handler asks for it"
    """
    requests = b"".join(
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in (b"a", b"\r\nb\r\n\r\n")
    )
    async with serving(documents.DocumentRequestHandler(), documents.LINES) as server:
        async with connected(server) as peer:
            for start in range(0, len(requests), size):
                await peer.send_bytes(requests[start : start + size])
            await peer.send_bytes(b"\r\n")
            assert await peer.receive() == "Content-Length: 1\r"
            assert await peer.receive() == "\r"
            rest = b"AContent-Length: 7\r\n\r\n\r\nB\r\n\r\nError: no usable length\r\n"
            assert await peer.ending() == f"end of the stream after {rest!r}"


@pytest.mark.parametrize("length", ["", "0", "-1", "many", "1000001", "9" * 4000, "²"])
async def test_size_is_checked(length: str, log: pytest.LogCaptureFixture) -> None:
    """A length that is wrong, or too large, is refused before there is a body.

    "Check the size before you use it"
    """
    async with serving(documents.DocumentRequestHandler(), documents.LINES) as server:
        async with connected(server) as peer:
            await peer.send_bytes(f"Content-Length: {length}\r\n\r\n".encode())
            assert await peer.receive() == "Error: no usable length\r"
            assert await peer.ending() == "end of the stream"
        async with connected(server) as peer:
            await peer.send_bytes(b"".join(b"%d: 1\r\n" % number for number in range(101)))
            assert await peer.receive() == "Error: too many headers\r"
    assert not complaints(log)


# Changing one direction only


async def test_one_direction() -> None:
    """A stapled serializer receives lines and sends structures.

    "To send packets in one format and receive them in another one, pass a StapledPacketSerializer
    to the new protocol object"
    """

    class Handler(AsyncStreamRequestHandler[str, Any]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            lines, numbers = StringLineSerializer(), StructSerializer("H")
            client.set_protocol(StreamProtocol(StapledIncrementalPacketSerializer(numbers, lines)))
            await client.send_packet((len(await client.recv_packet()),))
            client.set_protocol(LINES)

    async with serving(Handler()) as server, connected(server) as peer:
        await peer.send("go", "hello")
        assert await peer.receive_bytes(2) == b"\0\5"


# What happens to data that has already arrived


async def test_received_data() -> None:
    """Half a packet of a framing is the beginning of what comes next.

    "Bytes that were received, but not yet delivered as packets, are parsed again by the new
    protocol object. No byte is lost, and no byte is used twice, regardless of how the data was
    split on its way. This includes the first half of a packet: it becomes the beginning of whatever
    comes next."
    """

    class Handler(AsyncStreamRequestHandler[str, Any]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            with pytest.raises(TimeoutError):
                await client.recv_packet(timeout=0.01)
            client.set_protocol(StreamProtocol(NetstringSerializer()))
            await client.send_packet(b"now")
            await client.send_packet(await client.recv_packet())
            client.set_protocol(LINES)

    async with serving(Handler()) as server, connected(server) as peer:
        await peer.send_bytes(b"go\n3:a")
        assert await peer.receive_bytes(6) == b"3:now,"
        await peer.send_bytes(b"\nb,")
        assert await peer.receive_bytes(6) == b"3:a\nb,"
        await peer.send("go")


async def test_sent_data() -> None:
    """What waits to be sent is not encoded again.

    "Packets that you sent before are sent in the old format, even if they are still waiting."
    """

    class Handler(AsyncStreamRequestHandler[str, Any]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            assert client.try_send_packet("x" * 10_000_000)
            assert client.get_unsent_size() > 0
            client.set_protocol(StreamProtocol(NetstringSerializer()))
            await client.send_packet(b"now")
            await client.aclose()

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.ask("go") == "x" * 10_000_000
        assert await peer.ending() == f"end of the stream after {b'3:now,'!r}"


async def test_busy() -> None:
    """The protocol stays as long as a task waits for a packet.

    "While a task waits for a packet, the protocol cannot change"

    "set_protocol() raises BusyResourceError."

    "So call it in the task that receives."
    """

    class Handler(AsyncStreamRequestHandler[str, Any]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            client.start_soon(self.intrude, client)
            packet = yield
            client.set_protocol(LINES)
            await client.send_packet(packet)

        async def intrude(self, client: Client) -> None:
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(BusyResourceError):
                client.set_protocol(StreamProtocol(RawSerializer()))
            await client.send_packet("busy")

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.receive() == "busy"
        assert await peer.ask("hello") == "hello"


# Changing the protocol after half a packet


def test_cancelled_wait() -> None:
    """A wait that was cancelled leaves half a packet behind, which the next wait completes.

    "Only a wait that has ended without a packet, because of a timeout or a cancellation, can leave
    half a packet behind"
    """
    cbor = StreamProtocol[Any, Any](CBORSerializer())

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: Client) -> AsyncGenerator[None, Any]:
            yield
            client.set_protocol(JSON)
            with anyio.move_on_after(1) as scope:
                await client.recv_packet()
            assert scope.cancelled_caught
            with pytest.raises(RuntimeError):
                client.set_protocol(cbor)
            await client.send_packet(await client.recv_packet())
            client.set_protocol(cbor)
            await client.send_packet(await client.recv_packet())
            client.set_protocol(LINES)

    async def main() -> None:
        async with serve(Handler(), LINES) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"\n[1, ")
            await anyio.sleep(2)
            await peer.send(b"2]\x82")
            assert await peer.receive() == b"[1,2]"
            await anyio.sleep(2)
            await peer.send(b"\1\2")
            assert await peer.receive() == b"\x82\1\2"

    anyio.run(main, backend_options=virtual_time())


class AfterHalf(AsyncStreamRequestHandler[str, Any]):
    """Gives up waiting for a packet, changes the protocol, and goes on."""

    def __init__(self, serializer: Any) -> None:
        self.protocol = StreamProtocol[Any, Any](serializer)
        self.has_failed = False
        self.received: Any = None

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        yield
        client.set_protocol(self.protocol)
        with pytest.raises(TimeoutError):
            await client.recv_packet(timeout=0.01)
        try:
            client.set_protocol(LINES)
        except RuntimeError:
            self.has_failed = True
        self.gave_up.set()
        self.received = await client.recv_packet()
        client.set_protocol(LINES)
        await client.send_packet("done")

    async def on_connection(self, client: Client) -> None:
        self.gave_up = anyio.Event()


async def after_half(peer: Peer, handler: AfterHalf, data: bytes) -> Any:
    await peer.send_bytes(b"go\n" + data[:3])
    await until_given_up(handler)
    await peer.send_bytes(data[3:])
    assert await peer.receive() == "done"
    return handler.received


async def until_given_up(handler: AfterHalf) -> None:
    while not hasattr(handler, "gave_up"):
        await anyio.lowlevel.checkpoint()
    await handler.gave_up.wait()


class OwnGenerator(StringLineSerializer):
    __slots__ = ()

    def incremental_deserialize(self) -> Any:
        return (yield from super().incremental_deserialize())


@pytest.mark.parametrize(
    ("serializer", "data", "packet"),
    [
        (JSONSerializer(use_lines=False), b'{"a": 1}\n', {"a": 1}),
        (MessagePackSerializer(), b"\x94\1\2\3\4", [1, 2, 3, 4]),
        (CBORSerializer(), b"\x84\1\2\3\4", [1, 2, 3, 4]),
        (ZlibCompressorSerializer(StringLineSerializer()), zlib.compress(b"hello"), "hello"),
        (OwnGenerator(), b"hello\n", "hello"),
    ],
    ids=lambda param: type(param).__name__,
)
async def test_after_half_a_packet(serializer: Any, data: bytes, packet: Any) -> None:
    """A generator that has got half a packet keeps it.

    "In one situation, bytes cannot be parsed again: the first half of a packet has arrived, and a
    serializer that finds the end of a packet only by
    parsing it has already received these bytes. set_protocol() then raises RuntimeError, and the
    old protocol object remains in use."

    "This concerns JSON without lines, MessagePack, CBOR, the compressors, and your own serializers
    that parse with a generator."

    "Directly after a packet, set_protocol() always succeeds, with every serializer. Only a wait
    that has ended without a packet, because of a timeout or a cancellation, can leave half a packet
    behind"
    """
    handler = AfterHalf(serializer)
    async with serving(handler) as server, connected(server) as peer:
        assert await after_half(peer, handler, data) == packet
        assert handler.has_failed
        assert await after_half(peer, handler, data) == packet


@pytest.mark.parametrize(
    "serializer",
    [StringLineSerializer(), NetstringSerializer(), StructSerializer("5s"), JSONSerializer()],
    ids=type,
)
async def test_after_half_a_frame(serializer: Any) -> None:
    """Half a frame can be given to another protocol object.

    "It does not concern lines, lengths, fixed sizes and raw bytes."
    """
    handler = AfterHalf(serializer)
    async with serving(handler) as server, connected(server) as peer:
        assert await after_half(peer, handler, b"2:ab\n") == "2:ab"
        assert not handler.has_failed
