"""Choose how a protocol object is driven: by whole frames, or by its generators.

A protocol object works through generators, which users may override, in the protocol's class or in
the serializer's. Where they have not, a serializer that receives or sends frames is asked for those
directly. This is where the two are told apart, once for a server or a client.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from easynetwork.decoder import DecoderFactory, FramedDecoder, GeneratorDecoder
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.parsers import BufferParser, ChunkParser, buffer_source, chunk_source, crash
from easynetwork.protocol import (
    AnyStreamProtocolType,
    BufferedStreamProtocol,
    DatagramProtocol,
    StreamProtocol,
    check_stream_protocol,
    raise_parse_error,
)
from easynetwork.serializers.abc import Framing, overrides
from easynetwork.serializers.framing._lengths import Frame
from easynetwork.serializers.framing.framers import new_framer


class Codec(NamedTuple):
    """What a connection does with a protocol object."""

    protocol: AnyStreamProtocolType[Any, Any]
    new_decoder: DecoderFactory
    encode: Callable[[Any], bytes]


def new_codec(protocol: AnyStreamProtocolType[Any, Any], sizehint: int) -> Codec:
    """Return what connections do with a protocol object.

    Args:
        protocol: The protocol object.
        sizehint: As for `new_decoder_factory`.

    Raises:
        TypeError: It is no protocol object for streams. Otherwise as `new_decoder_factory`.
    """
    check_stream_protocol(protocol)
    return Codec(protocol, new_decoder_factory(protocol, sizehint), packet_encoder(protocol))


def codec_of(protocol: AnyStreamProtocolType[Any, Any], sizehint: int) -> Codec:
    """Do what `new_codec()` does; remember some for the next time.

    A connection may change its protocol many times: it would take 12 microseconds (measured).
    """
    with suppress(TypeError):  # it is not hashable, or no protocol object
        return _remembered_codec(protocol, sizehint)
    return new_codec(protocol, sizehint)


_remembered_codec: Final = functools.lru_cache(maxsize=32)(new_codec)


def new_decoder_factory(protocol: AnyStreamProtocolType[Any, Any], sizehint: int) -> DecoderFactory:
    """Return what makes the decoder of one more connection.

    Args:
        protocol: The protocol object that the connections speak.
        sizehint: The most bytes taken from a connection at once, for `create_buffer`.

    Raises:
        TypeError: The serializer's ``framing()`` returned something else than it may.
        Exception: What ``framing()`` raised.
    """
    framing = _framing_of(protocol)
    if framing is None:
        return generator_decoder_factory(protocol, sizehint)
    framer = new_framer(framing, buffered=isinstance(protocol, BufferedStreamProtocol))
    build = _frame_builder(protocol)
    return lambda: FramedDecoder(framer, build)


def generator_decoder_factory(
    protocol: AnyStreamProtocolType[Any, Any], sizehint: int
) -> DecoderFactory:
    """Return what `new_decoder_factory` does if no shortcut may be taken."""
    if isinstance(protocol, BufferedStreamProtocol):
        source = buffer_source(protocol)
        new_buffer_parser = partial(BufferParser, source, protocol.create_buffer, sizehint)
        return lambda: GeneratorDecoder(new_buffer_parser, source.convert)
    source = chunk_source(protocol)
    new_chunk_parser = partial(ChunkParser, source)
    return lambda: GeneratorDecoder(new_chunk_parser, source.convert)


def _framing_of(protocol: AnyStreamProtocolType[Any, Any]) -> Framing | None:
    """Return where frames end; None if the protocol's generators have to tell."""
    buffered = isinstance(protocol, BufferedStreamProtocol)
    methods = ["build_packet_from_chunks"]
    if buffered:
        methods = ["create_buffer", "build_packet_from_buffer"]
    if not (_is_own(protocol, *methods) and protocol.serializer.receives_frames(buffered=buffered)):
        return None
    framing = protocol.serializer.framing()
    if not isinstance(framing, Framing):
        raise TypeError(
            f"{type(protocol.serializer).__name__}.framing() must return a SeparatorFraming, "
            f"a FixedSizeFraming, a LengthPrefixFraming or NoFraming, not {framing!r}"
        )
    return framing


def _is_own(protocol: AnyStreamProtocolType[Any, Any], *methods: str) -> bool:
    """Whether all these methods of a protocol object are the library's."""
    buffered = isinstance(protocol, BufferedStreamProtocol)
    return not overrides(protocol, BufferedStreamProtocol if buffered else StreamProtocol, *methods)


def _frame_builder(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Frame], Any]:
    """Return what makes a packet of one frame, as `build_packet_from_…` would."""
    parse = protocol.serializer.deserialize_frame
    convert = None if protocol.converter is None else protocol._convert_received
    buffered = isinstance(protocol, BufferedStreamProtocol)
    method = "build_packet_from_buffer" if buffered else "build_packet_from_chunks"

    def build(frame: Frame) -> Any:
        if not isinstance(frame, bytes):
            raise StreamProtocolParseError(b"", frame) from frame
        try:
            try:
                packet = parse(frame)
            # A peer that nests its data deeply enough makes any recursive parser fail like this.
            except (DeserializeError, RecursionError) as exc:
                raise_parse_error(exc)
            return packet if convert is None else convert(packet, b"")
        except StreamProtocolParseError:
            raise
        except Exception as exc:
            raise crash(method) from exc

    return build


def packet_encoder(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Any], bytes]:
    """Return a function that makes the bytes of a packet, as `generate_chunks` would.

    The function raises `ProtocolCrashedError` when the serializer or the converter cannot make
    bytes of the packet, with the original exception as its cause; nothing has been sent then.
    """
    is_own = _is_own(protocol, "generate_chunks")
    converter = protocol.converter if is_own else None
    if is_own and protocol.serializer.sends_frames():
        serialize = protocol.serializer.serialize_frame
    else:
        source = protocol.serializer.incremental_serialize if is_own else protocol.generate_chunks
        serialize = partial(_join_chunks, source)
    convert = None if converter is None else converter.convert_to_dto_packet

    def encode(packet: Any) -> bytes:
        try:
            data = serialize(packet if convert is None else convert(packet))
        except Exception as exc:
            raise crash("generate_chunks") from exc
        if type(data) is bytes and data:
            return data
        data = _bytes_of(data, "serialize_frame() returned")
        if not data:
            raise ProtocolCrashedError(
                "protocol.generate_chunks() yielded no bytes, which no peer can receive as a packet"
            )
        return data

    return encode


def _join_chunks(source: Callable[[Any], Iterable[bytes]], packet: Any) -> bytes:
    return b"".join(source(packet))


def datagram_builder(protocol: DatagramProtocol[Any, Any]) -> Callable[[bytes], Any]:
    """Return a function that makes a packet of a datagram, as `build_packet_from_datagram` does.

    The function raises `DatagramProtocolParseError` if that is the peer's fault, and
    `ProtocolCrashedError` with the original exception as its cause if it is the protocol object's.
    """
    parse = protocol.build_packet_from_datagram

    def build(datagram: bytes) -> Any:
        try:
            return parse(datagram)
        except DatagramProtocolParseError:
            raise
        except Exception as exc:
            raise crash("build_packet_from_datagram") from exc

    return build


def datagram_encoder(protocol: DatagramProtocol[Any, Any]) -> Callable[[Any], bytes]:
    """Return a function that makes a datagram of a packet, as `make_datagram` does.

    The function raises what that of `packet_encoder` raises.
    """
    make = protocol.make_datagram

    def encode(packet: Any) -> bytes:
        try:
            data = make(packet)
        except Exception as exc:
            raise crash("make_datagram") from exc
        return data if type(data) is bytes else _bytes_of(data, "make_datagram() returned")

    return encode


def _bytes_of(data: Any, what: str) -> bytes:
    """Return bytes, copied from a mutable buffer, which might change while it waits to be sent.

    Raises:
        ProtocolCrashedError: `data` is something else.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ProtocolCrashedError(f"{what} a value of type {type(data).__name__}, not bytes")
    return bytes(data)
