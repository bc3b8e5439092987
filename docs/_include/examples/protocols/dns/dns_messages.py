from __future__ import annotations

import struct

import dns.flags
import dns.message
from dns.message import Message

from easynetwork.exceptions import DeserializeError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import LengthPrefixedSerializer
from easynetwork.serializers.abc import AbstractPacketSerializer

HEADER_SIZE = 12
MAX_QUERY_SIZE = 1232
MAX_QUERY_RECORDS = 8


class MessageSerializer(AbstractPacketSerializer[Message, Message]):
    """Sends responses and receives queries: the server's side."""

    def serialize(self, packet: Message) -> bytes:
        return packet.to_wire(prefer_truncation=True)

    def deserialize(self, data: bytes) -> Message:
        if not HEADER_SIZE <= len(data) <= MAX_QUERY_SIZE:
            raise DeserializeError(f"{len(data)} bytes are not a query")
        flags, *record_counts = struct.unpack_from("!5H", data, 2)
        if flags & dns.flags.QR:
            raise DeserializeError("this is a response, not a query")
        if sum(record_counts) > MAX_QUERY_RECORDS:
            data = data[:4] + bytes(8)  # the same header, but without records
        return dns.message.from_wire(data, continue_on_error=True)


udp_protocol = DatagramProtocol(MessageSerializer())
tcp_protocol = StreamProtocol(
    LengthPrefixedSerializer(MessageSerializer(), "u16", limit=MAX_QUERY_SIZE)
)
