"""Bytes <-> plain objects, one packet at a time: the formats that are ready to use.

One format a module. `easynetwork.serializers.abc` says what a serializer promises;
`easynetwork.serializers.framing` and `easynetwork.serializers.tools` help to write one, and
`easynetwork.testing` to test it.

A format is imported when it is first asked for: a program pays only for those that it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.serializers.cbor import CBORSerializer as CBORSerializer
    from easynetwork.serializers.composite import StapledPacketSerializer as StapledPacketSerializer
    from easynetwork.serializers.json import JSONSerializer as JSONSerializer
    from easynetwork.serializers.line import StringLineSerializer as StringLineSerializer
    from easynetwork.serializers.msgpack import MessagePackSerializer as MessagePackSerializer
    from easynetwork.serializers.netstring import NetstringSerializer as NetstringSerializer
    from easynetwork.serializers.pickle import PickleSerializer as PickleSerializer
    from easynetwork.serializers.raw import RawSerializer as RawSerializer
    from easynetwork.serializers.struct import (
        NamedTupleStructSerializer as NamedTupleStructSerializer,
        StructSerializer as StructSerializer,
    )
    from easynetwork.serializers.wrapper import (
        Base64EncoderSerializer as Base64EncoderSerializer,
        BZ2CompressorSerializer as BZ2CompressorSerializer,
        LengthPrefixedSerializer as LengthPrefixedSerializer,
        ZlibCompressorSerializer as ZlibCompressorSerializer,
    )
else:
    __getattr__, __dir__, __all__ = lazy_attributes(
        __name__,
        {
            "BZ2CompressorSerializer": "wrapper.compressor",
            "Base64EncoderSerializer": "wrapper.base64",
            "CBORSerializer": "cbor",
            "JSONSerializer": "json",
            "LengthPrefixedSerializer": "wrapper.length_prefixed",
            "MessagePackSerializer": "msgpack",
            "NamedTupleStructSerializer": "struct",
            "NetstringSerializer": "netstring",
            "PickleSerializer": "pickle",
            "RawSerializer": "raw",
            "StapledPacketSerializer": "composite",
            "StringLineSerializer": "line",
            "StructSerializer": "struct",
            "ZlibCompressorSerializer": "wrapper.compressor",
        },
    )
