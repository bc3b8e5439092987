"""How a protocol object is driven: which decoder, which encoder.

A protocol object works through generators, which users may override, in the protocol's class or in
the serializer's. Where nobody did, a serializer that knows its frames is asked for those directly.
This is where the two are told apart, once for a server or a client.
"""

from __future__ import annotations

__all__ = ["datagram_builder", "datagram_encoder", "new_decoder_factory", "packet_encoder"]

from collections.abc import Callable
from typing import Any

from easynetwork.cutters import (
    Cutter,
    FixedSizeCutter,
    Frame,
    LengthPrefixCutter,
    SeparatorCutter,
)
from easynetwork.decoder import (
    BufferParser,
    ChunkParser,
    FramedDecoder,
    GeneratorDecoder,
    StreamDecoder,
)
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    PacketConversionError,
    StreamProtocolParseError,
)
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
    """
    buffered = isinstance(protocol, BufferedStreamProtocol)
    framing = _framing_of(protocol)
    if framing is None:
        if isinstance(protocol, BufferedStreamProtocol):
            return lambda: GeneratorDecoder(lambda: BufferParser(protocol, sizehint))
        return lambda: GeneratorDecoder(lambda: ChunkParser(protocol))
    build = _frame_builder(protocol)
    if isinstance(framing, LengthPrefixFraming):
        field = new_length_field(framing)
        return lambda: FramedDecoder(LengthPrefixCutter(field), build)
    cutter: Cutter
    if isinstance(framing, SeparatorFraming):
        cutter = SeparatorCutter(framing, buffered=buffered)
    else:
        cutter = FixedSizeCutter(framing)
    return lambda: FramedDecoder(cutter, build)


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
    return protocol.serializer.framing()


def _is_own(protocol: AnyStreamProtocolType[Any, Any], name: str) -> bool:
    """Whether the protocol object's method is the library's."""
    return definer(protocol, name) in (StreamProtocol, BufferedStreamProtocol)


def _frame_builder(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Frame], Any]:
    """Return what `build_packet_from_…` does behind the cutting, for one frame."""
    parse = protocol.serializer.deserialize_frame
    convert = None if protocol.converter is None else protocol._from_dto
    source = "buffer" if isinstance(protocol, BufferedStreamProtocol) else "chunks"

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
            raise RuntimeError(f"protocol.build_packet_from_{source}() crashed") from exc

    return build


def _chunk_joiner(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Any], bytes]:
    return lambda packet: b"".join(protocol.generate_chunks(packet))


def packet_encoder(protocol: AnyStreamProtocolType[Any, Any]) -> Callable[[Any], bytes]:
    """Return a function that makes the bytes of a packet, as `generate_chunks` would.

    The function raises `RuntimeError` with the original exception as its cause when the serializer
    or the converter cannot make bytes of the packet; nothing has been sent then.
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
            return serialize(packet if convert is None else convert(packet))
        except Exception as exc:
            raise RuntimeError("protocol.generate_chunks() crashed") from exc

    return encode


def datagram_builder(protocol: DatagramProtocol[Any, Any]) -> Callable[[bytes], Any]:
    """Return a function that makes a packet of a datagram, as `build_packet_from_datagram` would.

    The function raises `DatagramProtocolParseError` if that is the peer's fault, and `RuntimeError`
    with the original exception as its cause if it is the protocol object's.
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
            raise RuntimeError("protocol.build_packet_from_datagram() crashed") from exc

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
            return serialize(packet)
        except Exception as exc:
            raise RuntimeError("protocol.make_datagram() crashed") from exc

    return encode


def _needs_no_protocol(protocol: DatagramProtocol[Any, Any], method: str) -> bool:
    """Whether a method of a protocol object does no more than the serializer's."""
    return definer(protocol, method) is DatagramProtocol and protocol.converter is None
