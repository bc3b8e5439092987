r"""Check that a serializer keeps its promises.

`check_serializer()` takes a serializer and some packets, and tries what a network and a peer may do
to them: cut the stream anywhere, send what is not a packet, send more than is allowed. It does so
in each way in which a server or a client would use the serializer, through the very code that they
use. It needs no test framework: it raises AssertionError and says what was sent, and what came.

    >>> from easynetwork.serializers import StringLineSerializer
    >>> from easynetwork.testing import check_serializer
    >>> check_serializer(
    ...     StringLineSerializer(limit=64),
    ...     ["hello", "world", " "],
    ...     malformed=[b"caf\xc3\xa9\n"],
    ...     oversized=[b"x" * 100],
    ... )

It takes milliseconds. To try more, give it packets that a tool such as Hypothesis makes up.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Final

from easynetwork.exceptions import DeserializeError
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
)
from easynetwork.testing._streams import Equal, Refusal, are_equal, check_stream, require, shown
from easynetwork.testing._virtual_time import virtual_time

__all__ = ["check_serializer", "virtual_time"]

_MOST_SPOILT: Final = 10
"""In a longer packet, not every byte is changed, but so many, spread over it."""


def check_serializer(
    serializer: AbstractPacketSerializer[Any, Any],
    packets: Iterable[Any],
    *,
    received: Iterable[Any] | None = None,
    malformed: Iterable[bytes] = (),
    garbage: Iterable[bytes] = (),
    oversized: Iterable[bytes] = (),
    equal: Equal = operator.eq,
) -> None:
    """Check that a serializer does what `easynetwork.serializers.abc` promises.

    Of any serializer:

    * What it made of a packet, it makes the packet of.
    * Of anything else (a part of a packet, one with other bytes in it, `malformed`, `garbage`), it
      makes some packet or raises `DeserializeError`, and nothing but that.

    Of an incremental one, moreover, with the generators that are sent chunks, with those that are
    given a buffer (if it has them), with new buffers and used ones, and with whole frames (if it
    receives them):

    * Packets come out of the stream that they were sent in, as soon as their last byte is there:
      all at once, byte by byte, cut in two at any position, and with the beginning of another
      packet after them.
    * Two streams at a time do not disturb each other: there is no state outside of the generators.
    * `malformed` is an error, and costs neither the packet before it nor the one after it.
    * `garbage` ends in packets or in errors, and each of them uses up some of it.
    * `oversized` is refused with exactly one error, however it is cut, and no byte of it becomes
      part of a packet. The packet before it comes out; those that follow it do, or are dropped with
      it, if it is not known where it ends; which of the two does not depend on the cuts.
    * Frames give what the generators give.

    Args:
        serializer: What to check.
        packets: What to send. At least one; none that is sent as no bytes at all.
        received: What comes out, if that is not equal to `packets`.
        malformed: What is not a packet, but known to end where it does, as a line of nonsense
            between two lines. For serializers that are not incremental, as `garbage`.
        garbage: What makes no sense. Some is made of `packets`, anyhow.
        oversized: What is more than the serializer's limit allows: a whole packet that is too
            large, or the beginning of one. If its size is declared, more than two other packets are
            yet to come of it.
        equal: What tells whether a packet that came out is the one expected.

    Raises:
        AssertionError: One of these is not so.
        ValueError: There are no packets.
    """
    packets = list(packets)
    if not packets:
        raise ValueError("There is nothing to check without packets")
    expected = packets if received is None else list(received)
    malformed = list(malformed)
    samples = list(zip(packets, expected, strict=True))
    datagrams = [_check_one_shot(serializer, *sample, equal) for sample in samples]
    garbage = [b"", *garbage, *malformed, *_spoilt(datagrams)]
    for data in garbage:
        _call("deserialize", serializer.deserialize, data)
    if not isinstance(serializer, AbstractIncrementalPacketSerializer):
        return
    frames = [_check_incremental_serialize(serializer, packet) for packet in packets]
    garbage = list(dict.fromkeys([*garbage, *_spoilt(frames)]))
    oversized = list(oversized)
    check_stream(serializer, frames, expected, malformed, garbage, oversized, equal)


def _spoilt(valid: list[bytes]) -> list[bytes]:
    """Return what is like valid data: shortened, with other bytes in it, with bytes after it."""
    spoilt = []
    for data in valid:
        spoilt += [data + b"\0", data + data]
        for index in range(0, len(data), 1 + len(data) // _MOST_SPOILT):
            before, byte, behind = data[:index], data[index], data[index + 1 :]
            spoilt.append(before)
            spoilt += [before + bytes([other]) + behind for other in (0, 0xFF, byte ^ 1)]
    return spoilt


# -- One packet at a time ----------------------------------------------------------------------


def _check_one_shot(
    serializer: AbstractPacketSerializer[Any, Any], packet: Any, expected: Any, equal: Equal
) -> bytes:
    data = serializer.serialize(packet)
    require(type(data) is bytes, f"serialize({shown(packet)}) returned {shown(data)}")
    result = _call("deserialize", serializer.deserialize, data)
    require(
        are_equal([result], [expected], equal),
        f"deserialize({shown(data)}) gave {shown(result)}, not {shown(expected)}",
    )
    return data


def _check_incremental_serialize(
    serializer: AbstractIncrementalPacketSerializer[Any, Any], packet: Any
) -> bytes:
    name = f"incremental_serialize({shown(packet)})"
    chunks = list(serializer.incremental_serialize(packet))
    for chunk in chunks:
        require(type(chunk) is bytes, f"{name} yielded {shown(chunk)}")
    frame = b"".join(chunks)
    require(bool(frame), f"{name} yielded no bytes, which nobody can receive")
    shortcut = serializer.serialize_frame(packet)
    require(
        shortcut == frame,
        f"{name} yielded {shown(frame)}, but serialize_frame() returned {shown(shortcut)}",
    )
    return frame


def _call(name: str, function: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return function(data)
    except DeserializeError as exc:
        return Refusal(type(exc), str(exc))
    except Exception as exc:
        raise AssertionError(f"{name}({shown(data)}) raised {exc!r}") from exc
