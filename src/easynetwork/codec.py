"""How a protocol object is driven: which decoder, which encoder.

A protocol object works through generators, which users may override, in the protocol's class or in
the serializer's. Where nobody did, a serializer that knows its frames is asked for those directly.
This is where the two are told apart, once for a server or a client.
"""

from __future__ import annotations

__all__ = [
    "datagram_builder",
    "datagram_encoder",
    "generator_decoder_factory",
    "new_decoder_factory",
    "packet_encoder",
]

from collections.abc import Callable
from functools import partial
from typing import Any

from easynetwork.cutters import (
    FixedSizeCutter,
    Frame,
    LengthPrefixCutter,
    SeparatorCutter,
)
from easynetwork.decoder import FramedDecoder, GeneratorDecoder, StreamDecoder
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.parsers import BufferParser, ChunkParser, buffer_source, chunk_source, crash
from easynetwork.protocol import (
    AnyStreamProtocolType,
    BufferedStreamProtocol,
    DatagramProtocol,
    StreamProtocol,
    raise_parse_error,
)
from easynetwork.serializers.abc import (
    Framing,
    LengthPrefixFraming,
    SeparatorFraming,
    are_of_one_class,
    definer,
)
from easynetwork.serializers.framing import new_length_field


def new_decoder_factory(
    protocol: AnyStreamProtocolType[Any, Any], sizehint: int
) -> Callable[[], StreamDecoder]:
    """Return what makes the decoder of one more connection.

    Args:
        protocol: The protocol object that the connections speak.
        sizehint: The most bytes taken from a connection at once, for `create_buffer`.

    Raises:
        TypeError: The serializer's ``framing()`` returned something else than it may.
        Exception: What ``framing()`` raised.
    """
    buffered = isinstance(protocol, BufferedStreamProtocol)
    framing = _framing_of(protocol)
    if framing is None:
        return generator_decoder_factory(protocol, sizehint)
    build = _frame_builder(protocol)
    if isinstance(framing, LengthPrefixFraming):
        field = new_length_field(framing)
        return lambda: FramedDecoder(LengthPrefixCutter(field), build)
    if isinstance(framing, SeparatorFraming):
        separated = framing
        return lambda: FramedDecoder(SeparatorCutter(separated, buffered=buffered), build)
    cutter = FixedSizeCutter(framing)
    return lambda: FramedDecoder(cutter, build)


def generator_decoder_factory(
    protocol: AnyStreamProtocolType[Any, Any], sizehint: int
) -> Callable[[], StreamDecoder]:
    """Return what `new_decoder_factory` does if no shortcut may be taken."""
    if isinstance(protocol, BufferedStreamProtocol):
        source = buffer_source(protocol)
        new_buffer_parser = partial(BufferParser, source, protocol.create_buffer, sizehint)
        return lambda: GeneratorDecoder(new_buffer_parser, source.convert)
    source = chunk_source(protocol)
    new_chunk_parser = partial(ChunkParser, source)
    return lambda: GeneratorDecoder(new_chunk_parser, source.convert)


def _framing_of(protocol: AnyStreamProtocolType[Any, Any]) -> Framing | None:
    """Return how to cut without the protocol's generator; None if only that generator will do."""
    if isinstance(protocol, BufferedStreamProtocol):
        own = _is_own(protocol, "create_buffer") and _is_own(protocol, "build_packet_from_buffer")
        parser = "buffered_incremental_deserialize"
    else:
        own = _is_own(protocol, "build_packet_from_chunks")
        parser = "incremental_deserialize"
    if not own or not are_of_one_class(protocol.serializer, parser, "framing", "deserialize_frame"):
        return None
    framing = protocol.serializer.framing()
    if framing is not None and not isinstance(framing, Framing):
        raise TypeError(
            f"{type(protocol.serializer).__name__}.framing() must return a SeparatorFraming, "
            f"a FixedSizeFraming, a LengthPrefixFraming or None, not {framing!r}"
        )
    return framing


def _is_own(protocol: AnyStreamProtocolType[Any, Any], name: str) -> bool:
    """Whether the protocol object's method is the library's."""
    return definer(protocol, name) in (StreamProtocol, BufferedStreamProtocol)


def _frame_builder(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Frame], Any]:
    """Return what `build_packet_from_…` does behind the cutting, for one frame."""
    parse = protocol.serializer.deserialize_frame
    convert = None if protocol.converter is None else protocol._from_dto
    buffered = isinstance(protocol, BufferedStreamProtocol)
    method = "build_packet_from_buffer" if buffered else "build_packet_from_chunks"

    def build(frame: Frame) -> Any:
        if not isinstance(frame, bytes):
            raise StreamProtocolParseError(b"", frame) from frame
        try:
            try:
                packet = parse(frame)
            except (DeserializeError, RecursionError) as exc:
                raise_parse_error(exc)
            try:
                return packet if convert is None else convert(packet)
            except PacketConversionError as exc:
                raise StreamProtocolParseError(b"", exc) from exc
        except StreamProtocolParseError:
            raise
        except Exception as exc:
            raise crash(method) from exc

    return build


def _chunk_joiner(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Any], bytes]:
    return lambda packet: b"".join(protocol.generate_chunks(packet))


def packet_encoder(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Any], bytes]:
    """Return a function that makes the bytes of a packet, as `generate_chunks` would.

    The function raises `ProtocolCrashedError` when the serializer or the converter cannot make
    bytes of the packet, with the original exception as its cause; nothing has been sent then.
    """
    serialize = _chunk_joiner(protocol)
    converter = None
    if _is_own(protocol, "generate_chunks") and are_of_one_class(
        protocol.serializer, "incremental_serialize", "serialize_frame"
    ):
        serialize = protocol.serializer.serialize_frame
        converter = protocol.converter
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


def datagram_builder(protocol: DatagramProtocol[Any, Any]) -> Callable[[bytes], Any]:
    """Return a function that makes a packet of a datagram, as `build_packet_from_datagram` would.

    The function raises `DatagramProtocolParseError` if that is the peer's fault, and
    `ProtocolCrashedError` with the original exception as its cause if it is the protocol object's.
    """
    parse: Callable[[bytes], Any] = protocol.build_packet_from_datagram
    peers_fault: tuple[type[DeserializeError | PacketConversionError], ...] = ()
    too_deep: tuple[type[RecursionError], ...] = ()
    if _needs_no_protocol(protocol, "build_packet_from_datagram"):
        parse = protocol.serializer.deserialize
        peers_fault = (DeserializeError, PacketConversionError)
        too_deep = (RecursionError,)

    def build(datagram: bytes) -> Any:
        try:
            return parse(datagram)
        except DatagramProtocolParseError:
            raise
        except peers_fault as exc:
            raise DatagramProtocolParseError(exc) from exc
        except too_deep as exc:
            error = DeserializeError("Data is nested too deeply")
            error.__cause__ = exc
            raise DatagramProtocolParseError(error) from error
        except Exception as exc:
            raise crash("build_packet_from_datagram") from exc

    return build


def datagram_encoder(protocol: DatagramProtocol[Any, Any]) -> Callable[[Any], bytes]:
    """Return a function that makes a datagram of a packet, as `make_datagram` would.

    The function raises what that of `packet_encoder` raises.
    """
    serialize: Callable[[Any], bytes] = protocol.make_datagram
    if _needs_no_protocol(protocol, "make_datagram"):
        serialize = protocol.serializer.serialize

    def encode(packet: Any) -> bytes:
        try:
            data = serialize(packet)
        except Exception as exc:
            raise crash("make_datagram") from exc
        return data if type(data) is bytes else _bytes_of(data, "make_datagram() returned")

    return encode


def _bytes_of(data: Any, what: str) -> bytes:
    """Copy what is like bytes, so that it cannot change while it waits to be sent.

    Raises:
        ProtocolCrashedError: `data` is something else.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ProtocolCrashedError(f"{what} a value of type {type(data).__name__}, not bytes")
    return bytes(data)


def _needs_no_protocol(protocol: DatagramProtocol[Any, Any], method: str) -> bool:
    """Whether a method of a protocol object does no more than the serializer's."""
    return definer(protocol, method) is DatagramProtocol and protocol.converter is None
