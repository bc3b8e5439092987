"""Serializers made of serializers."""

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

# Lines of text, which only who has the key can make.
key = Base64EncoderSerializer.generate_key()
signed = Base64EncoderSerializer(MessagePackSerializer(), checksum=key)

# Fewer bytes, for packets that are large.
compressed = ZlibCompressorSerializer(JSONSerializer(), limit=1_000_000)

# The same, and a packet that is damaged does not cost those that follow it.
prefixed = LengthPrefixedSerializer(compressed)

# A one-shot serializer in a stream, between processes that trust each other.
pickles = LengthPrefixedSerializer(PickleSerializer(), "u16")

# Commands are lines of text, answers are JSON documents.
commands, answers = StringLineSerializer(), JSONSerializer()
of_client = StapledIncrementalPacketSerializer(commands, answers)
of_server = StapledIncrementalPacketSerializer(answers, commands)
