"""Serializers that wrap another serializer and transform its bytes.

`easynetwork.serializers.wrapper.base64` makes text of them, and can prove that they arrived as they
were sent; `easynetwork.serializers.wrapper.compressor` makes fewer of them;
`easynetwork.serializers.wrapper.length_prefixed` puts their number in front. What is wrapped may be
any serializer, one-shot ones included: where a packet ends is the wrapper's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.serializers.wrapper.base64 import (
        Base64EncoderSerializer as Base64EncoderSerializer,
    )
    from easynetwork.serializers.wrapper.compressor import (
        AbstractCompressorSerializer as AbstractCompressorSerializer,
        BZ2CompressorSerializer as BZ2CompressorSerializer,
        CompressorInterface as CompressorInterface,
        DecompressorInterface as DecompressorInterface,
        ZlibCompressorSerializer as ZlibCompressorSerializer,
    )
    from easynetwork.serializers.wrapper.length_prefixed import (
        LengthPrefixedSerializer as LengthPrefixedSerializer,
    )
else:
    __getattr__, __dir__, __all__ = lazy_attributes(
        __name__,
        {
            "AbstractCompressorSerializer": "compressor",
            "BZ2CompressorSerializer": "compressor",
            "Base64EncoderSerializer": "base64",
            "CompressorInterface": "compressor",
            "DecompressorInterface": "compressor",
            "LengthPrefixedSerializer": "length_prefixed",
            "ZlibCompressorSerializer": "compressor",
        },
    )
