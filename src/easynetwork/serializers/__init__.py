"""Bytes <-> plain objects, one packet at a time: the formats that are ready to use.

One format a module. `easynetwork.serializers.abc` says what a serializer promises;
`easynetwork.serializers.framing` and `easynetwork.serializers.tools` help to write one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import attribute_getter

if TYPE_CHECKING:
    from easynetwork.serializers.json import JSONSerializer
    from easynetwork.serializers.line import StringLineSerializer
else:
    __getattr__ = attribute_getter(
        __name__, {"JSONSerializer": "json", "StringLineSerializer": "line"}
    )

__all__ = ["JSONSerializer", "StringLineSerializer"]
