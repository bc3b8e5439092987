"""The packet of each format: a small one, byte for byte as any program would write it.

Written by hand, not made by a serializer: a load that takes the bytes from the code under test
cannot notice that they are wrong, and needs the formats' libraries.
"""

from __future__ import annotations

import struct

__all__ = ["FORMATS", "PACKETS"]

PACKETS = {
    # Without optional white space: 64 bytes with the newline.
    "json": b'{"id":10427,"time":1735689600,"celsius":71.25,"place":"boiler"}\n',
    # The same object: 47 bytes, and their number in front.
    "msgpack": b"\x00\x00\x00\x2f"
    b"\x84\xa2id\xcd\x28\xbb\xa4time\xce\x67\x74\x85\x80"
    b"\xa7celsius\xcb\x40\x51\xd0\x00\x00\x00\x00\x00\xa5place\xa6boiler",
    "prefixed": b"\x00\x00\x00\x3c" + b"0123456789abcde" * 4,
    # Redis's protocol (RESP2): a command of three words. The parser is written by hand.
    "resp": b"*3\r\n$3\r\nSET\r\n$6\r\nboiler\r\n$24\r\n71.25 degrees, 0.5 bar. \r\n",
    "struct": struct.pack("!IIdd40s", 10427, 1735689600, 71.25, 0.5, b"boiler"),
}
"""By family of contenders: a request, and its answer."""

FORMATS = tuple(PACKETS)
