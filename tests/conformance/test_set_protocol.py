"""A conversation that goes on with another protocol: `client.set_protocol()`."""

from __future__ import annotations

from collections.abc import Generator
from itertools import chain, cycle, product
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork.exceptions import (
    BusyResourceError,
    ClientClosedError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import RawSerializer, StringLineSerializer
from easynetwork.servers.groups import ClientGroup
from tests.conformance.changes_support import (
    RAW,
    SAMPLES,
    Client,
    InGenerator,
    Number,
    Scripted,
    lines,
    receive_bytes,
    send_byte_by_byte,
)
from tests.conformance.support import (
    Narrow,
    Recorder,
    Records,
    Requests,
    Serve,
    one_protocol,
)
from tests.decoding import GeneratorBufferedProtocol, GeneratorStreamProtocol, MakeProtocol, Script
from tests.times import MS

pytestmark = pytest.mark.anyio

LF = StreamProtocol(lines())
CRLF = StreamProtocol(lines("CRLF"))
NUMBERS = StreamProtocol(Number())
MOMENT = 5 * MS
each_generator = pytest.mark.parametrize(
    "make", [GeneratorStreamProtocol, GeneratorBufferedProtocol]
)


async def has_got(client: Any, size: int) -> None:
    """Have the current protocol look at so many bytes, which are less than a packet."""
    while len(client.decoder) < size:
        with pytest.raises(TimeoutError):
            await client.recv_packet(timeout=MOMENT)


# -- Any pair of framings ----------------------------------------------------------------------

# Each framing is followed by each of them, also by itself.
EACH_PAIR = [*chain.from_iterable(product(SAMPLES, SAMPLES))]


@pytest.mark.in_turn
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "byte by byte"])
async def test_each_pair(serve: Serve, is_cut: bool) -> None:
    """The next packet begins where the last one ends, in whatever framing, and so do answers."""
    names = cycle(EACH_PAIR)
    expected = [SAMPLES[name].packet for name in EACH_PAIR]
    found: list[Any] = []

    async def got(client: Client, packet: Any) -> None:
        found.append(packet)
        await client.send_packet(packet)
        client.set_protocol(SAMPLES[next(names)].protocol)

    async def switch(client: Client) -> None:
        client.set_protocol(SAMPLES[next(names)].protocol)

    handler: Recorder = InGenerator(got)
    handler.greet = switch
    stream = b"".join(SAMPLES[name].data for name in EACH_PAIR)
    async with serve(handler) as service:
        peer = await service.connect()
        if is_cut:
            await send_byte_by_byte(peer, stream)
        else:
            peer.send_bytes(stream)
        assert await receive_bytes(peer, len(stream)) == stream
    assert found == expected


@one_protocol
@pytest.mark.parametrize("name", SAMPLES)
async def test_to_and_from_raw(serve: Serve, name: str) -> None:
    """What follows a packet is the first packet without framing, and the other way round."""
    sample = SAMPLES[name]

    async def script(client: Client) -> None:
        client.set_protocol(sample.protocol)
        assert await client.recv_packet() == sample.packet
        client.set_protocol(RAW)
        data = b""
        while len(data) < 6:
            data += await client.recv_packet()
        await client.send_packet(data)
        client.set_protocol(sample.protocol)
        await client.send_packet(await client.recv_packet())

    handler = Scripted(script)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(sample.data + b"\0raw")
        peer.send_bytes(b"\r\n")
        assert await receive_bytes(peer, 6) == b"\0raw\r\n"
        peer.send_bytes(sample.data)
        assert await receive_bytes(peer, len(sample.data)) == sample.data


@one_protocol
async def test_received_again(serve: Serve) -> None:
    """Bytes that wait are parsed by the protocol of the moment in which they are asked for."""

    async def script(client: Client) -> None:
        await client.recv_packet()
        protocols: list[Any] = [RAW, CRLF, GeneratorStreamProtocol(lines("CR")), NUMBERS, CRLF, LF]
        for protocol in protocols:
            client.set_protocol(protocol)
        assert await client.recv_packet() == "one"
        client.set_protocol(CRLF)
        assert await client.recv_packet() == "two\nthree"
        client.set_protocol(RAW)
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send_bytes(b"go\none\ntwo\nthree\r\nraw\r\n")
        assert await receive_bytes(peer, 5) == b"raw\r\n"


@pytest.mark.in_turn
@one_protocol
async def test_many_packets_wait(serve: Serve) -> None:
    """More than are split off at a time: none of them is lost or used twice."""
    count = 3000

    async def script(client: Client) -> None:
        for number in range(count):
            client.set_protocol(CRLF if number % 3 else LF)
            assert await client.recv_packet() == f"{number}".ljust(3 + number % 3)
        await client.send_packet("done")

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        stream = [
            f"{number}".ljust(3 + number % 3) + ("\r\n" if number % 3 else "\n")
            for number in range(count)
        ]
        await peer.send_much("".join(stream).encode())
        assert await receive_bytes(peer, 6) == b"done\r\n"


# -- Half a packet -----------------------------------------------------------------------------


async def test_half_a_packet_of_a_framing(serve: Serve) -> None:
    """It is the beginning of whatever comes."""

    async def script(client: Client) -> None:
        assert await client.recv_packet() == "one"
        await has_got(client, 6)
        client.set_protocol(NUMBERS)
        assert await client.recv_packet() == int.from_bytes(b"half", "big")
        await has_got(client, 2)
        client.set_protocol(CRLF)
        await client.send_packet("go on")
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send_bytes(b"one\nhalfab")
        assert await peer.receive() == "go on\r"
        peer.send_bytes(b"\nc\r\n")
        assert await receive_bytes(peer, 6) == b"ab\nc\r\n"


@each_generator
async def test_half_a_packet_of_a_generator(serve: Serve, make: MakeProtocol) -> None:
    """It cannot be had back: nothing changes. After the packet, or if it is whole, it can."""
    generator = make(lines())

    async def script(client: Client) -> None:
        client.set_protocol(generator)
        await has_got(client, 4)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the beginning of the next packet"):
                client.set_protocol(NUMBERS)
        await client.send_packet("still a line")
        assert await client.recv_packet() == "half\0"
        client.set_protocol(NUMBERS)
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send_bytes(b"half")
        assert await peer.receive() == "still a line"
        peer.send_bytes(b"\0\n\0\0")
        peer.send_bytes(b"\0\1")
        assert await receive_bytes(peer, 4) == b"\0\0\0\1"


async def test_after_a_crash(serve: Serve, log: Records) -> None:
    """A generator that has failed has left it open where the next packet begins."""

    def parse(buffer: Any = None) -> Generator[None, bytes, Any]:
        yield
        raise ValueError

    async def script(client: Client) -> None:
        client.set_protocol(StreamProtocol(Script(parse)))
        with pytest.raises(ProtocolCrashedError):
            await client.recv_packet()
        with pytest.raises(RuntimeError, match="not known where the next packet begins"):
            client.set_protocol(LF)
        await client.aclose()

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send("something")
        assert await peer.rest() == ("", "EOF")


async def test_after_a_converter_failed(serve: Serve) -> None:
    """After the error of a packet whose end is known, the next one is of the new protocol."""

    async def script(client: Client) -> None:
        client.set_protocol(StreamProtocol(lines(encoding="ascii")))
        with pytest.raises(StreamProtocolParseError):
            await client.recv_packet()
        client.set_protocol(NUMBERS)
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send_bytes(b"\xff\n\0\0\0\2")
        assert await receive_bytes(peer, 4) == b"\0\0\0\2"


# -- Packets that are too long -----------------------------------------------------------------

LIMIT = 100
each_switch = pytest.mark.parametrize(
    "before", [StreamProtocol(lines(limit=LIMIT)), GeneratorStreamProtocol(lines(limit=LIMIT))]
)


@each_switch
async def test_overlong_packet_reported(serve: Serve, before: Any) -> None:
    """Once its error is raised, its bytes are gone, also those that have yet to arrive."""

    async def script(client: Client) -> None:
        client.set_protocol(before)
        with pytest.raises(StreamProtocolParseError):
            await client.recv_packet()
        await client.send_packet("too long")
        client.set_protocol(NUMBERS)
        assert await client.recv_packet() == 7
        await client.send_packet(8)

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send_bytes(b"x" * 3 * LIMIT)
        assert await peer.receive() == "too long"
        peer.send_bytes(b"yyyyyyyy\n\0\0\0\7")
        assert await receive_bytes(peer, 4) == b"\0\0\0\x08"


@each_switch
async def test_overlong_packet_not_reported(serve: Serve, before: Any) -> None:
    """Until its error is raised, all of its bytes are here, for a protocol with room for them."""

    async def script(client: Client) -> None:
        await client.recv_packet()
        client.set_protocol(before)
        assert await client.recv_packet() == "fits"
        client.set_protocol(LF)
        await client.send_packet("go on")
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        line = "x" * 3 * LIMIT
        peer.send_bytes(f"go\nfits\n{line}".encode())
        assert await peer.receive() == "go on"
        peer.send_bytes(b"y\n")
        assert await peer.receive() == line + "y"


# -- Sending -----------------------------------------------------------------------------------


async def test_gathered_answers(serve: Serve) -> None:
    """Answers to one chunk are encoded by the protocol of their moment, and stay in order."""

    async def script(client: Client) -> None:
        for number, protocol in enumerate[Any]([LF, CRLF, NUMBERS, RAW]):
            await client.recv_packet()
            await client.send_packet(f"answer {number}")
            client.set_protocol(protocol)
            packet: Any = {LF: "line", CRLF: "line", NUMBERS: 1, RAW: b"\0"}[protocol]
            assert client.try_send_packet(packet)
            client.set_protocol(LF)

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send("one", "two", "three", "four")
        expected = b"answer 0\nline\nanswer 1\nline\r\nanswer 2\n\0\0\0\1answer 3\n\0"
        assert await receive_bytes(peer, len(expected)) == expected


@one_protocol
async def test_senders_that_wait(serve: Serve) -> None:
    """What waits for its turn across the change was sent before it: the old protocol encodes it."""

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            while client.try_send_packet("x" * 50_000):
                pass
            changes: dict[str, Any] = {"a": LF, "b": CRLF, "c": NUMBERS}
            for name, protocol in changes.items():
                client.start_soon(self.send, client, name)
                await self.noted(name)
                client.set_protocol(protocol)
            self.note("changed")
            await client.send_packet(13)
            await client.aclose()

        async def send(self, client: Client, packet: str) -> None:
            self.note(packet)
            await client.send_packet(packet)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("changed")
        received, _ = await peer.rest()
    assert received.lstrip("x\n") == "a\nb\nc\r\n\0\0\0\r"


@one_protocol
async def test_broadcast(serve: Serve) -> None:
    """A group encodes once for each protocol, and knows which one a client speaks now."""
    group: ClientGroup[str] = ClientGroup()

    async def script(client: Client) -> None:
        group.add(client)
        client.set_protocol(CRLF if len(group) % 2 else LF)
        if len(group) == 3:
            assert group.broadcast("all") == 3

    async with serve(Scripted(script)) as service:
        peers = [await service.connect()]
        for count in 2, 3:
            while len(group) < count - 1:
                await anyio.lowlevel.checkpoint()
            peers.append(await service.connect())
        assert await receive_bytes(peers[0], 5) == b"all\r\n"
        assert await receive_bytes(peers[1], 4) == b"all\n"
        assert await receive_bytes(peers[2], 5) == b"all\r\n"


# -- Where it may be called --------------------------------------------------------------------


@one_protocol
@pytest.mark.parametrize(
    "wrong",
    [None, "lines", StreamProtocol, StringLineSerializer(), DatagramProtocol(lines())],
    ids=lambda wrong: type(wrong).__name__,
)
async def test_wrong_type(serve: Serve, wrong: Any) -> None:
    """What is not a stream protocol changes nothing."""

    async def script(client: Client) -> None:
        assert await client.recv_packet() == "one"
        with pytest.raises(TypeError):
            client.set_protocol(wrong)
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        assert await peer.ask("one", "two") == "two"


async def test_from_on_connection_on(serve: Serve) -> None:
    """What `on_connection()` sets holds for `handle()`; what a generator sets, for the next."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            client.set_protocol(NUMBERS)

        async def handle(self, client: Client) -> Requests:
            packet = yield
            await client.send_packet(packet)
            client.set_protocol(CRLF if packet == 1 else NUMBERS)

    async with serve(Handler()) as service:
        peer = await service.connect()
        stream = b"\0\0\0\1two\r\n\0\0\0\3"
        peer.send_bytes(stream)
        assert await receive_bytes(peer, len(stream)) == stream


@one_protocol
async def test_busy(serve: Serve) -> None:
    """While a task waits for a packet, in `recv_packet()` or at a `yield`, nothing changes."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.receive, client)
                tasks.start_soon(self.try_to_change, client)

        async def receive(self, client: Client) -> None:
            self.note(await client.recv_packet())

        async def handle(self, client: Client) -> Requests:
            client.start_soon(self.try_to_change, client)
            packet = yield
            await client.send_packet(packet)

        async def try_to_change(self, client: Client) -> None:
            while not client.is_receiving:  # type: ignore[attr-defined]
                await anyio.lowlevel.checkpoint()
            with pytest.raises(BusyResourceError):
                client.set_protocol(NUMBERS)
            await client.send_packet("busy")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.receive() == "busy"
        peer.send("one")
        await handler.noted("one")
        assert await peer.receive() == "busy"
        assert await peer.ask("two") == "two"


@one_protocol
async def test_closed(serve: Serve) -> None:
    """A client that was closed here speaks no protocol any more."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            await client.aclose()
            with pytest.raises(ClientClosedError):
                client.set_protocol(NUMBERS)
            self.note("refused")

        async def on_disconnection(self, client: Client) -> None:
            with pytest.raises(ClientClosedError):
                client.set_protocol(NUMBERS)
            self.note("refused")

    handler = Handler()
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("refused", times=2)


@one_protocol
async def test_conversation_is_over(serve: Serve) -> None:
    """When the generator has failed, only the last words are to be said, in the same protocol."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            await self.released.wait()
            yield 0

        async def on_disconnection(self, client: Client) -> None:
            with pytest.raises(RuntimeError, match="is over"):
                client.set_protocol(NUMBERS)
            await client.send_packet("bye")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("hello")
        handler.released.set()
        assert await peer.receive() == "bye"


@one_protocol
async def test_other_thread(serve: Serve) -> None:
    """Only in the thread of the event loop."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        with pytest.raises(RuntimeError):
            await anyio.to_thread.run_sync(handler.clients[0].set_protocol, NUMBERS)
        assert await peer.ask("hello") == "hello"


# -- Other things that wait --------------------------------------------------------------------


async def read_by_the_watch(client: Any, size: int) -> None:
    while len(client.decoder) < size:
        await anyio.lowlevel.checkpoint()


async def test_watched(serve: Serve) -> None:
    """What was read while nobody waited for a packet is for the new protocol as well."""

    async def script(client: Client) -> None:
        client.start_soon(client.wait_disconnected)
        await client.recv_packet()
        await read_by_the_watch(client, 2)
        client.set_protocol(NUMBERS)
        await client.send_packet(0x0A)
        await read_by_the_watch(client, 8)
        assert await client.recv_packet() == 1
        client.set_protocol(LF)
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send_bytes(b"one\n\0\0")
        assert await peer.receive() == "\0\0\0"
        peer.send_bytes(b"\0\1two\n")
        assert await peer.receive() == "two"


async def test_end(serve: Serve, log: Records) -> None:
    """How many bytes a client has left unused is known to the new protocol."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            client.set_protocol(NUMBERS)
            yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"\0\0")
        peer.close()
        await handler.noted("on_disconnection")
        await log.logged("; 2 bytes of an incomplete packet were dropped")


async def test_raw_both_ways(serve: Serve) -> None:
    """Without packets, all bytes arrive, in order, in pieces that are never empty."""
    data = bytes(range(256)) * 2000

    class Handler(Recorder):
        async def handle(self, client: Any) -> Requests:
            client.set_protocol(StreamProtocol(RawSerializer()))
            while True:
                packet: Any = yield
                assert type(packet) is bytes
                assert packet
                await client.send_packet(packet)

    async with serve(Handler()) as service:
        peer = await service.connect()
        received = b""
        for start in range(0, len(data), 32_000):
            piece = data[start : start + 32_000]
            peer.send_bytes(piece)
            received += await receive_bytes(peer, len(piece))
        assert received == data
        peer.send_eof()
        assert await peer.rest() == ("", "EOF")
