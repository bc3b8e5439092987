"""What the tests of conversations that change share: scripts, framings, peers that start TLS."""

from __future__ import annotations

import contextlib
import ssl
import struct
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import anyio
import anyio.lowlevel

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    JSONSerializer,
    LengthPrefixedSerializer,
    NetstringSerializer,
    RawSerializer,
    StringLineSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.struct import AbstractStructSerializer
from easynetwork.servers.handlers import AsyncStreamClient
from tests.conformance.peers import BasePeer
from tests.conformance.support import Recorder
from tests.decoding import GeneratorBufferedProtocol, GeneratorStreamProtocol, Protocol
from tests.tls_peers import client_context

Client: TypeAlias = AsyncStreamClient[Any]
Script: TypeAlias = Callable[[Client], Awaitable[object]]


class Scripted(Recorder):
    """Runs a coroutine function when a client connects; after it, behaves like `Recorder`."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    async def greet(self, client: Client) -> None:
        self.note("on_connection")
        await self._script(client)


class InGenerator(Recorder):
    """Receives packets at the `yield` of `handle()`, for as long as a function wants more."""

    def __init__(self, got: Callable[[Client, Any], Awaitable[object]]) -> None:
        super().__init__()
        self._got = got

    async def handle(self, client: Client) -> AsyncGenerator[None, Any]:
        while True:
            try:
                packet = yield
            except Exception as exc:
                packet = exc
            await self._got(client, packet)


# -- Framings ----------------------------------------------------------------------------------


class Sample(NamedTuple):
    """A protocol, a packet, and its bytes."""

    protocol: Protocol
    packet: Any
    data: bytes


class Number(AbstractStructSerializer[int, int]):
    """Numbers of four bytes."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(">I")

    def iter_values(self, packet: int, /) -> Iterable[Any]:
        return (packet,)

    def from_tuple(self, packet_tuple: tuple[Any, ...], /) -> int:
        return int(packet_tuple[0])


class Upper(AbstractPacketConverterComposite[str, str, str, str]):
    """Small letters on the wire, capital ones in the program."""

    __slots__ = ()

    def create_from_dto_packet(self, packet: str) -> str:
        return packet.upper()

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj.lower()


def lines(newline: Any = "LF", **options: Any) -> StringLineSerializer:
    return StringLineSerializer(newline, **options)


# The bytes of each are half of something in another framing.
SAMPLES = {
    "LF": Sample(StreamProtocol(lines()), "one\r", b"one\r\n"),
    "CRLF": Sample(BufferedStreamProtocol(lines("CRLF")), "\ntwo", b"\ntwo\r\n"),
    "fixed": Sample(StreamProtocol(Number()), 0x0A0D0A00, b"\n\r\n\0"),
    "fixed-buffer": Sample(BufferedStreamProtocol(Number()), 0x0D0A2C7D, b"\r\n,}"),
    "length": Sample(
        BufferedStreamProtocol(LengthPrefixedSerializer(JSONSerializer(), "u16")),
        ["\n"],
        b'\0\6["\\n"]',
    ),
    "netstring": Sample(StreamProtocol(NetstringSerializer()), b"\n\r\n,1:", b"6:\n\r\n,1:,"),
    "base64": Sample(
        StreamProtocol(Base64EncoderSerializer(JSONSerializer())), {"a": 1}, b"eyJhIjoxfQ==\r\n"
    ),
    "JSON": Sample(StreamProtocol(JSONSerializer()), {"\n": 2}, b'{"\\n":2}\n'),
    "zlib": Sample(
        StreamProtocol(ZlibCompressorSerializer(JSONSerializer(), compress_level=0)),
        [3],
        zlib.compress(b"[3]", 0),
    ),
    "converter": Sample(StreamProtocol(lines(), Upper()), "FOUR", b"four\n"),
    "generator": Sample(GeneratorStreamProtocol(lines("CR")), "\nfive", b"\nfive\r"),
    "generator-buffer": Sample(GeneratorBufferedProtocol(lines()), "\rsix", b"\rsix\n"),
}

RAW = StreamProtocol(RawSerializer())


# -- Peers -------------------------------------------------------------------------------------


async def send_byte_by_byte(peer: BasePeer, data: bytes, size: int = 1) -> None:
    """Send each byte on its own, or so many; let the server have them before the next ones."""
    for start in range(0, len(data), size):
        peer.send_bytes(data[start : start + size])
        for _ in range(3):
            await anyio.lowlevel.checkpoint()


async def receive_bytes(peer: BasePeer, size: int) -> bytes:
    """Return so many of the bytes that arrive."""
    while len(peer._received) < size:
        data = await peer._receive_some()
        assert data, f"the end, after {bytes(peer._received)!r}"
        peer._received += data
    data = bytes(peer._received[:size])
    del peer._received[:size]
    return data


async def drain(peer: BasePeer) -> None:
    """Read all that still arrives, whatever it is."""
    with contextlib.suppress(ConnectionError):
        while await peer._receive_some():
            pass


class TLSPeer(BasePeer):
    """The other end of a connection that goes on over TLS: as the client, without the library.

    Attributes:
        plain: The peer so far.
    """

    def __init__(self, plain: BasePeer, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.plain = plain
        self.socket, self.address, self.family = plain.socket, plain.address, plain.family
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = (context or client_context()).wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost"
        )

    def hello(self) -> bytes:
        """Return the first bytes of the handshake, to be sent by the caller."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read()
        raise AssertionError

    async def start(self) -> None:
        """Do the handshake, or go on with it."""
        while True:
            try:
                return self.object.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                await self._fill()
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.plain.send_bytes(self._outgoing.read())

    async def _fill(self) -> None:
        if data := bytes(self.plain._received):
            self.plain._received.clear()
        else:
            data = await self.plain._receive_some()
        if not data:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "no closing alert")
        self._incoming.write(data)

    def encrypt(self, data: bytes) -> bytes:
        """Return a record, to be sent by the caller."""
        self.object.write(data)
        return self._outgoing.read()

    def send_bytes(self, data: bytes) -> None:
        self.plain.send_bytes(self.encrypt(data))

    async def send_much(self, data: bytes) -> None:
        await self.plain.send_much(self.encrypt(data))

    async def _receive_some(self) -> bytes:
        while True:
            try:
                return self.object.read(1 << 18)
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    def send_eof(self) -> None:
        """Send the closing alert."""
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        self._flush()

    def close(self) -> None:
        self.plain.close()

    def reset(self) -> None:
        self.plain.reset()


def record(kind: int, body: bytes) -> bytes:
    """Return a record of TLS in clear text (RFC 8446, 5.1)."""
    return struct.pack(">BHH", kind, 0x0303, len(body)) + body
