"""What a peer may send, as Hypothesis makes it up, to every serializer in every way.

The tests take a sample that costs about 8 seconds, or twice that if ``CONFORMANCE`` is ``all``. For
a larger one, set how many examples each of them tries:
``FUZZ_EXAMPLES=20000 pytest tests/serializers/test_fuzz.py --timeout=0``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from easynetwork.exceptions import DeserializeError, LimitOverrunError
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from tests.conftest import EXAMPLES
from tests.decoding import PROTOCOLS, Protocol, is_applicable, outcomes
from tests.serializers.catalogue import ENTRIES, Entry
from tests.tools import cuts

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", EXAMPLES // 2)),
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


def certain(entry: Entry, found: list[Any]) -> list[Any]:
    """Leave out what may depend on how the stream is cut.

    Of a packet that is too large, that is the message. Without frames, it is all that follows an
    error: the serializer may not know where the next packet begins. After a packet that is too
    large, there is nothing then.
    """
    assert isinstance(entry.serializer, AbstractIncrementalPacketSerializer)
    has_frames = entry.serializer.framing() is not None
    for count, outcome in enumerate(found):
        kind = outcome[0] if isinstance(outcome, tuple) and outcome else None
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            continue
        is_too_large = issubclass(kind, LimitOverrunError)
        if has_frames:
            found = [*found[:count], "too large" if is_too_large else outcome, *found[count + 1 :]]
            continue
        assert not is_too_large or count == len(found) - 1
        return [*found[:count], "an error"]
    return found


def assert_same(found: list[Any], expected: list[Any]) -> None:
    """Assert that two lists are equal; what is not even equal to itself has to look the same."""
    assert found == expected or repr(found) == repr(expected)


@pytest.mark.in_turn
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


@pytest.mark.in_turn
@pytest.mark.parametrize("entry", HARMLESS, ids=lambda entry: entry.name)
@fuzz
@given(data=st.data())
def test_anything(entry: Entry, data: st.DataObject) -> None:
    """Whatever a peer sends is a packet or an ordinary error, the same one in each way."""
    stream = data.draw(streams(entry))
    with contextlib.suppress(DeserializeError):
        entry.serializer.deserialize(stream)
    chunks, other_chunks = data.draw(cuts(stream)), data.draw(cuts(stream))
    found = [outcomes(protocol, chunks) for protocol in protocols(entry)]
    assert all(len(each) <= len(stream) for each in found)
    found = [certain(entry, each) for each in found]
    # Each protocol that may take the shortcut is followed by one that does not.
    for by_shortcut, by_generators in zip(found[::2], found[1::2], strict=True):
        assert_same(by_shortcut, by_generators)
    for protocol, each in zip(protocols(entry), found, strict=True):
        assert_same(certain(entry, outcomes(protocol, other_chunks)), each)
