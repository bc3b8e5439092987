"""Find where a packet ends: at a separator, after a fixed size or a declared length, or in a file.

`FramedPacketSerializer` derives the three parsing interfaces (chunks, buffer, frames) from a
framing, through one framer (`framers`). Its subclasses here map `serialize()` and `deserialize()`,
one packet to its bytes and back, to the frames of one framing each.

A bad packet never takes the following ones with it: its end is known before it is looked at. The
exception is `FileBasedPacketSerializer`: the end of its packets can only be found by reading them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.serializers.framing.file_based import (
        FileBasedPacketSerializer as FileBasedPacketSerializer,
    )
    from easynetwork.serializers.framing.fixed_size import (
        FixedSizePacketSerializer as FixedSizePacketSerializer,
    )
    from easynetwork.serializers.framing.framed import (
        FramedPacketSerializer as FramedPacketSerializer,
    )
    from easynetwork.serializers.framing.length_prefixed import (
        LengthPrefixedPacketSerializer as LengthPrefixedPacketSerializer,
    )
    from easynetwork.serializers.framing.separated import (
        AutoSeparatedPacketSerializer as AutoSeparatedPacketSerializer,
    )
else:
    __getattr__, __dir__, __all__ = lazy_attributes(
        __name__,
        {
            "AutoSeparatedPacketSerializer": "separated",
            "FileBasedPacketSerializer": "file_based",
            "FixedSizePacketSerializer": "fixed_size",
            "FramedPacketSerializer": "framed",
            "LengthPrefixedPacketSerializer": "length_prefixed",
        },
    )
