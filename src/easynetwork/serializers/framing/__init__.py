"""Where a packet ends: behind a separator, its fixed size or its declared length, or in a file.

Subclasses give `serialize()` and `deserialize()`, one packet to its bytes and back; the rest is
here, three times over the same two bodies (`serialize_frame()`, `deserialize_frame()`): generators
fed with chunks, generators fed through a buffer, and frames for whoever cuts the stream itself.

A bad packet never takes the following ones with it: its end is known before it is looked at. The
exception is `FileBasedPacketSerializer`: only who reads such a packet finds its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.serializers.framing._frames import parse_frame as parse_frame
    from easynetwork.serializers.framing._frames import parse_in_buffer as parse_in_buffer
    from easynetwork.serializers.framing._lengths import Frame as Frame
    from easynetwork.serializers.framing._lengths import LengthField as LengthField
    from easynetwork.serializers.framing._lengths import new_length_field as new_length_field
    from easynetwork.serializers.framing.file_based import FileBasedPacketSerializer
    from easynetwork.serializers.framing.fixed_size import FixedSizePacketSerializer
    from easynetwork.serializers.framing.length_prefixed import LengthPrefixedPacketSerializer
    from easynetwork.serializers.framing.separated import AutoSeparatedPacketSerializer
    from easynetwork.serializers.framing.separated import (
        new_separated_buffer as new_separated_buffer,
    )
    from easynetwork.serializers.framing.separated import (
        read_separated_frame as read_separated_frame,
    )
    from easynetwork.serializers.framing.separated import strip_separators as strip_separators
else:
    __getattr__, __dir__ = lazy_attributes(
        __name__,
        {
            "AutoSeparatedPacketSerializer": "separated",
            "FileBasedPacketSerializer": "file_based",
            "FixedSizePacketSerializer": "fixed_size",
            "Frame": "_lengths",
            "LengthField": "_lengths",
            "LengthPrefixedPacketSerializer": "length_prefixed",
            "new_length_field": "_lengths",
            "new_separated_buffer": "separated",
            "parse_frame": "_frames",
            "parse_in_buffer": "_frames",
            "read_separated_frame": "separated",
            "strip_separators": "separated",
        },
    )

__all__ = [
    "AutoSeparatedPacketSerializer",
    "FileBasedPacketSerializer",
    "FixedSizePacketSerializer",
    "LengthPrefixedPacketSerializer",
]
