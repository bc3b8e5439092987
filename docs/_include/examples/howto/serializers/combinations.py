"""Serializers that wrap or combine other serializers."""

from __future__ import annotations

from easynetwork.serializers import (
    Base64EncoderSerializer,
    JSONSerializer,
    LengthPrefixedSerializer,
    MessagePackSerializer,
    PickleSerializer,
    StringLineSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.composite import StapledIncrementalPacketSerializer

# Lines of text, which only a program that has the key can create.
key = Base64EncoderSerializer.generate_key()
signed = Base64EncoderSerializer(MessagePackSerializer(), checksum=key)

# Fewer bytes for large packets.
compressed = ZlibCompressorSerializer(JSONSerializer(), limit=1_000_000)

# The same, but the packets that follow a corrupt packet are not lost.
prefixed = LengthPrefixedSerializer(compressed)

# A one-shot serializer in a stream, between processes that trust each other.
pickles = LengthPrefixedSerializer(PickleSerializer(), "u16")

# Requests are lines of text, responses are JSON documents.
requests, responses = StringLineSerializer(), JSONSerializer()
of_client = StapledIncrementalPacketSerializer(requests, responses)
of_server = StapledIncrementalPacketSerializer(responses, requests)
