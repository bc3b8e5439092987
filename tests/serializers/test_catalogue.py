from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from easynetwork import serializers
from easynetwork.converter import AbstractPacketConverter, StapledPacketConverter
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    BufferedIncrementalPacketSerializer,
)
from easynetwork.testing import check_serializer
from tests.conftest import ALL_TESTS
from tests.serializers.catalogue import ENTRIES, Entry


@pytest.mark.in_turn
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_conformance(entry: Entry) -> None:
    """Each serializer, with each set of options, does what a serializer promises."""
    check_serializer(
        entry.serializer, entry.packets, malformed=entry.malformed, oversized=entry.oversized
    )


def test_complete() -> None:
    """No serializer is missing in the catalogue."""
    checked = {cls.__name__ for entry in ENTRIES for cls in type(entry.serializer).__mro__}

    # Without packets in the stream, nothing that the kit checks holds: see test_raw.py.
    assert {*vars(serializers)["__all__"]} - {"RawSerializer"} <= checked


each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
# From 2 on, object.__reduce_ex__() returns the same for all protocols.
PROTOCOLS = range(2 if ALL_TESTS else pickle.HIGHEST_PROTOCOL, pickle.HIGHEST_PROTOCOL + 1)
# The last one makes everything anew. The others share what they may, and are made in the same way.
COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(partial(lambda protocol, obj: pickle.loads(pickle.dumps(obj, protocol)), protocol)
      for protocol in PROTOCOLS),
]  # fmt: skip
each_copy = pytest.mark.parametrize(
    "copied", COPIES, ids=["copy", "deepcopy", *(f"pickle-{protocol}" for protocol in PROTOCOLS)]
)


@pytest.mark.in_turn
@each_entry
@each_copy
def test_copies(entry: Entry, copied: Callable[[Any], Any]) -> None:
    """A copy of a serializer, also out of another process, is as good as the original."""
    other = copied(entry.serializer)

    assert type(other) is type(entry.serializer)
    if ALL_TESTS or copied is COPIES[-1]:
        check_serializer(other, entry.packets[:1], malformed=entry.malformed[:1])
    for packet in entry.packets:
        data = entry.serializer.serialize(packet)
        assert other.deserialize(data) == entry.serializer.deserialize(data)
        assert entry.serializer.deserialize(other.serialize(packet)) == packet


class Identity(AbstractPacketConverter[Any, Any]):
    """Does nothing."""

    __slots__ = ()

    def create_from_dto_packet(self, packet: Any) -> Any:
        return packet

    def convert_to_dto_packet(self, obj: Any) -> Any:
        return obj


@each_entry
@each_copy
def test_copies_of_protocols(entry: Entry, copied: Callable[[Any], Any]) -> None:
    """So it is with what a serializer is put into."""
    packet = entry.packets[0]
    for converter in None, Identity(), StapledPacketConverter(Identity(), Identity()):
        serializer: Any = entry.serializer
        other = copied(DatagramProtocol(serializer, converter))
        assert other.build_packet_from_datagram(other.make_datagram(packet)) == packet
        if isinstance(serializer, AbstractIncrementalPacketSerializer):
            other = copied(StreamProtocol(serializer, converter))
            assert b"".join(other.generate_chunks(packet)) == serializer.serialize_frame(packet)
        if isinstance(serializer, BufferedIncrementalPacketSerializer):
            other = copied(BufferedStreamProtocol(serializer, converter))
            assert b"".join(other.generate_chunks(packet)) == serializer.serialize_frame(packet)


@each_entry
def test_keywords(entry: Entry) -> None:
    """What is given to a serializer may be named."""
    serializer: Any = entry.serializer
    packet = entry.packets[0]

    assert serializer.deserialize(data=serializer.serialize(packet=packet)) == packet
    if isinstance(serializer, AbstractIncrementalPacketSerializer):
        frame = b"".join(serializer.incremental_serialize(packet=packet))  # type: ignore[call-arg]  # As above.
        assert frame == serializer.serialize_frame(packet)
    converter: Any = StapledPacketConverter(Identity(), Identity())
    assert converter.create_from_dto_packet(packet=1) == 1
    assert converter.convert_to_dto_packet(obj=1) == 1
