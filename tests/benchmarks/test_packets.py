from __future__ import annotations

import json
import struct

import msgpack
import pytest

from benchmarks.packets import FORMATS, PACKETS
from benchmarks.servers import asyncio_formats


def test_every_format_has_a_server_by_hand():
    """No format is measured on one side only."""
    assert set(FORMATS) == set(asyncio_formats.ECHOES)


@pytest.mark.parametrize("name", ["msgpack", "prefixed"])
def test_length_in_front(name):
    """The length in front of a packet is that of the rest."""
    (size,) = struct.unpack_from("!I", PACKETS[name])

    assert size == len(PACKETS[name]) - 4


def test_json_and_msgpack_say_the_same():
    """Both are the same object, as the formats' own libraries write it."""
    packet = json.loads(PACKETS["json"])

    assert json.dumps(packet, separators=(",", ":")).encode() + b"\n" == PACKETS["json"]
    assert msgpack.packb(packet) == PACKETS["msgpack"][4:]


def test_struct_says_the_same():
    """A structure has the object's values, and the size that servers read."""
    number, time, celsius, _, place = asyncio_formats.READING.unpack(PACKETS["struct"])

    packet = json.loads(PACKETS["json"])
    assert [number, time, celsius, place.rstrip(b"\0").decode()] == list(packet.values())


def test_packets_are_of_one_size():
    """What is compared between formats is not the size: all have about 64 bytes."""
    assert all(48 <= len(packet) <= 64 for packet in PACKETS.values())
