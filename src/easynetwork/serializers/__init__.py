"""Bytes <-> plain objects, one packet at a time: the formats that are ready to use.

One format a module. `easynetwork.serializers.abc` says what a serializer promises;
`easynetwork.serializers.framing` and `easynetwork.serializers.tools` help to write one.
"""

from __future__ import annotations

from easynetwork.serializers.json import JSONSerializer
from easynetwork.serializers.line import StringLineSerializer

__all__ = ["JSONSerializer", "StringLineSerializer"]
