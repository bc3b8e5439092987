"""What a peer may send, as Hypothesis makes it up, to every serializer in every way.

The tests take a small sample. For a larger one, set how many examples each of them tries:
``FUZZ_EXAMPLES=20000 pytest tests/serializers/test_fuzz.py --timeout=0``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easynetwork.exceptions import DeserializeError
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from tests.decoding import PROTOCOLS, Protocol, is_applicable, outcomes
from tests.serializers.catalogue import ENTRIES, Entry
from tests.tools import cuts

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20")),
    suppress_health_check=list(HealthCheck),
)
# Nobody unpickles what Hypothesis makes up: it might be a program.
HARMLESS = [entry for entry in ENTRIES if "Pickle" not in repr(entry.serializer)]


def protocols(entry: Entry) -> Iterator[Protocol]:
    """Yield what may drive a serializer on a stream; nothing if it is for datagrams only."""
    if isinstance(entry.serializer, AbstractIncrementalPacketSerializer):
        for make in PROTOCOLS:
            if is_applicable(make, entry.serializer):
                yield make(entry.serializer)


@st.composite
def streams(draw: st.DrawFn, entry: Entry) -> bytes:
    """Packets, parts of packets, and anything else, one behind the other."""
    serialize = entry.serializer.serialize
    if isinstance(entry.serializer, AbstractIncrementalPacketSerializer):
        serialize = entry.serializer.serialize_frame
    frames = entry.packet.map(serialize)
    parts = draw(st.lists(frames | st.binary(max_size=20), max_size=4))
    stream = bytearray(b"".join(parts))
    for _ in range(draw(st.integers(0, 3)) if stream else 0):
        stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    return bytes(stream)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
@fuzz
@given(data=st.data())
def test_round_trip(entry: Entry, data: st.DataObject) -> None:
    """What is sent is what is received, however the stream is cut."""
    packets = data.draw(st.lists(entry.packet, min_size=1, max_size=4))
    for packet in packets:
        assert entry.serializer.deserialize(entry.serializer.serialize(packet)) == packet
    for protocol in protocols(entry):
        stream = b"".join(chunk for packet in packets for chunk in protocol.generate_chunks(packet))
        assert outcomes(protocol, data.draw(cuts(stream))) == packets


@pytest.mark.parametrize("entry", HARMLESS, ids=lambda entry: entry.name)
@fuzz
@given(data=st.data())
def test_anything(entry: Entry, data: st.DataObject) -> None:
    """Whatever a peer sends is a packet or an ordinary error."""
    stream = data.draw(streams(entry))
    with contextlib.suppress(DeserializeError):
        entry.serializer.deserialize(stream)
    chunks = data.draw(cuts(stream))
    for protocol in protocols(entry):
        assert len(outcomes(protocol, chunks)) <= len(stream)
