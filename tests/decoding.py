"""How the tests of decoders and of what drives them take packets out of a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeAlias

from easynetwork.codec import new_decoder_factory
from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType, BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    BufferedIncrementalPacketSerializer,
)
from tests.tools import failure

Protocol: TypeAlias = AnyStreamProtocolType[Any, Any]
MakeProtocol: TypeAlias = Callable[[Any], Protocol]
Serializer: TypeAlias = AbstractIncrementalPacketSerializer[Any, Any]


class GeneratorStreamProtocol(StreamProtocol[Any, Any]):
    """A user's protocol: parses like its base class, but the library cannot know that."""

    __slots__ = ()

    def build_packet_from_chunks(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        return super().build_packet_from_chunks()


class GeneratorBufferedProtocol(BufferedStreamProtocol[Any, Any, Any]):
    """The same for a protocol with a buffer."""

    __slots__ = ()

    def build_packet_from_buffer(self, buffer: Any) -> Generator[int | None, int, tuple[Any, Any]]:
        return super().build_packet_from_buffer(buffer)


PROTOCOLS: list[MakeProtocol] = [
    StreamProtocol,
    GeneratorStreamProtocol,
    BufferedStreamProtocol,
    GeneratorBufferedProtocol,
]
"""The protocols of the library, each followed by one that opts out of the shortcut."""


def is_applicable(make: MakeProtocol, serializer: Serializer) -> bool:
    """Return whether a kind of protocol takes that serializer."""
    return make in PROTOCOLS[:2] or isinstance(serializer, BufferedIncrementalPacketSerializer)


def new_decoder(protocol: Protocol, sizehint: int = 1024) -> StreamDecoder:
    """Return a decoder as a new connection would get it."""
    return new_decoder_factory(protocol, sizehint)()


def taken(decoder: StreamDecoder) -> Iterator[Any]:
    """Take packets and parse errors, comparable, until there is no complete one left."""
    while True:
        try:
            while (packet := decoder.take()) is not NEED_DATA:
                yield packet
        except StreamProtocolParseError as exc:
            yield failure(exc.error)
        else:
            if not decoder.refill():
                return


def outcomes(protocol: Protocol, chunks: Iterable[bytes]) -> list[Any]:
    """Feed a new decoder and take what there is after each chunk."""
    decoder = new_decoder(protocol)
    return [outcome for chunk in chunks if decoder.feed(chunk) for outcome in taken(decoder)]


class Script(BufferedIncrementalPacketSerializer[Any, Any, Any]):
    """Parses, either way, with the generator function that a test gives."""

    __slots__ = ("buffer", "parse")

    def __init__(self, parse: Callable[..., Generator[Any, Any, Any]], buffer: Any = None) -> None:
        self.parse = parse
        self.buffer = buffer

    def incremental_serialize(self, packet: Any, /) -> Generator[bytes, None, None]:
        raise NotImplementedError

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        return self.parse()

    def create_deserializer_buffer(self, sizehint: int, /) -> Any:
        return bytearray(sizehint) if self.buffer is None else self.buffer

    def buffered_incremental_deserialize(
        self, buffer: Any, /
    ) -> Generator[int | None, int, tuple[Any, Any]]:
        return self.parse(buffer)
