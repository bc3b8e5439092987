"""What a serializer promises: bytes <-> plain objects, one packet at a time.

Three interfaces, each one richer than the one before:

* `AbstractPacketSerializer`: all the bytes of one packet at once. Enough for datagrams.
* `AbstractIncrementalPacketSerializer`: finds the end of a packet in a stream. Its parser is a
  generator that is sent chunks and returns the packet with the bytes that follow it.
* `BufferedIncrementalPacketSerializer`: the same, but the bytes are put into a buffer that the
  serializer allocates, a new one for each packet, and may be looked at there.

A serializer is shared by every connection of a client or a server: it keeps no state of a stream.
All state lives in the generators that it returns.

Generators make a parser easy to write, and cost one generator per packet. Most formats do not need
that: where a packet ends can be told without parsing it. A serializer says so through `framing()`
(`SeparatorFraming`, `FixedSizeFraming`, `LengthPrefixFraming`), and whole chunks are then cut in
one go, each frame being given to `deserialize_frame()`. This is a shortcut, never a different
behaviour: packets and errors are those of the generators.
"""

from __future__ import annotations

import dataclasses
from abc import ABCMeta, abstractmethod
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, get_args

from easynetwork._typevars import _T, Buffer, Received, Sent
from easynetwork.exceptions import DeserializeError, UnsupportedOperation
from easynetwork.serializers.tools import validated_limit, validated_positive

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "AbstractIncrementalPacketSerializer",
    "AbstractPacketSerializer",
    "BufferedIncrementalPacketSerializer",
    "FixedSizeFraming",
    "Framing",
    "LengthFormat",
    "LengthPrefixFraming",
    "NoFraming",
    "SeparatorFraming",
]


@dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True)
class SeparatorFraming:
    """Each packet ends with a separator, which does not appear inside it.

    Args:
        separator: The bytes that end a packet; not empty.
        limit: The most bytes before a separator. A longer packet is a `LimitOverrunError`. For a
            `BufferedStreamProtocol` they have to fit, with the separator and one byte more, in a
            buffer of this size: there, the most is ``limit - 1 - len(separator)``, or 0.
        keep_end: Whether the frame given to ``deserialize_frame()`` includes its separator.
        any_newline: Whether each of LF, CR and CRLF ends a packet. `separator` is CRLF then.
        ends_with_stream: Whether bytes after the last separator are a packet as well, when the
            stream ends in good order.

    After the error of a longer packet, everything up to its separator is dropped as it arrives.

    Raises:
        TypeError: `separator` is not `bytes`, or `limit` is not an integer.
        ValueError: `separator` is empty, or is not CRLF with `any_newline`, or `limit` is not
            positive.
    """

    separator: bytes
    limit: int
    keep_end: bool = False
    any_newline: bool = False
    ends_with_stream: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.separator, bytes):
            raise TypeError(f"separator must be bytes, not {self.separator!r}")
        if not self.separator:
            raise ValueError("Empty separator")
        if self.any_newline and self.separator != b"\r\n":
            raise ValueError("With any_newline, the separator is CRLF")
        validated_limit(self.limit)


@dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True)
class FixedSizeFraming:
    """All packets have the same size.

    Args:
        size: The size of a packet in bytes.

    Raises:
        TypeError: `size` is not an integer.
        ValueError: `size` is not positive.
    """

    size: int

    def __post_init__(self) -> None:
        validated_positive("size", self.size)


LengthFormat: TypeAlias = Literal[
    "u8", "u16", "u24", "u32", "u64", "varint", "decimal", "netstring"
]
"""How a length is written:

* ``"u8"``, ``"u16"``, ``"u24"``, ``"u32"``, ``"u64"``: an unsigned integer of so many bits.
* ``"varint"``: an unsigned LEB128 integer of at most 10 bytes, as in front of Protocol Buffers'
  length-delimited messages.
* ``"decimal"``: decimal digits and a terminator, as in the octet counting of syslog over TCP
  (:rfc:`6587`). Nothing follows the body.
* ``"netstring"``: decimal digits and a colon; a comma ends the packet. See
  https://cr.yp.to/proto/netstrings.txt.
"""

MAX_DIGITS: Final = {"varint": 10, "decimal": 20, "netstring": 20}
"""The most bytes of a length without its terminator: enough for 64 bits."""


@dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True)
class LengthPrefixFraming:
    """Each packet has its length in front of it, or close to its beginning.

    What is sent is ``head + length + body``: the frame that ``deserialize_frame()`` gets, with its
    length inserted after the first `offset` bytes, the head; without an `offset`, in front.

    Args:
        length: How the length is written.
        limit: The most bytes of a frame, the length itself not counted.
        byteorder: The order of the bytes of a length of fixed width.
        offset: How many bytes of the frame come before the length.
        adjustment: What to add to the length that is written to get the size of the body in bytes.
            Where the length counts more than the body, this is negative: -4 if a ``"u32"`` counts
            itself, -6 if it also counts a head of 2 bytes. Where the length counts less, because it
            leaves the first 3 bytes of the body out, this is 3.
        terminator: What ends the digits of a ``"decimal"`` length, and only of this one: bytes that
            do not begin with a digit. None for a space, as in :rfc:`6587`.
        max_digits: The most digits of a ``"decimal"`` or ``"netstring"`` length (20 by default), or
            the most bytes of a ``"varint"`` (10 by default). No packet is sent with a longer one.

    A length beyond the limit is a `LimitOverrunError` as soon as it is there, whatever follows. The
    packet is skipped: its remaining bytes are dropped as they come, none of them is ever taken for
    the beginning of another packet, and what follows them is parsed again. A peer may announce a
    packet that it never completes. Until it does, everything that it sends is dropped, so consider
    closing the connection.

    A malformed length (a varint that does not end, anything but digits and their terminator, more
    than `max_digits`, a length smaller than -`adjustment`) is an `IncrementalDeserializeError`. The
    parser cannot resynchronise: it resumes after the malformed bytes and may find anything. Close
    the connection.

    A decimal length of 0 is valid. One that begins with a 0 but has more digits is an
    `IncrementalDeserializeError` as soon as its packet is complete, and what follows the packet is
    parsed again. The same is true for a netstring without a comma at its end.

    Raises:
        TypeError: `limit`, `offset`, `adjustment` or `max_digits` is not an integer, or
            `terminator` is not `bytes`.
        ValueError: An option is out of its range, or cannot be combined with this `length`.
    """

    length: LengthFormat
    limit: int
    byteorder: Literal["big", "little"] = "big"
    offset: int = 0
    adjustment: int = 0
    _: dataclasses.KW_ONLY
    terminator: bytes | None = None
    max_digits: int | None = None

    def __post_init__(self) -> None:
        validated_limit(self.limit)
        for name, value, known in (
            ("length", self.length, get_args(LengthFormat)),
            ("byteorder", self.byteorder, ("big", "little")),
        ):
            if value not in known:
                expected = ", ".join(map(repr, known))
                raise ValueError(f"Invalid {name}: expected one of {expected}, got {value!r}")
        for name, number in (("offset", self.offset), ("adjustment", self.adjustment)):
            if not isinstance(number, int):
                raise TypeError(f"{name} must be an integer, not {number!r}")
        if self.offset < 0:
            raise ValueError("offset must not be negative")
        if self.length == "netstring" and (self.offset or self.adjustment):
            raise ValueError("A netstring has neither offset nor adjustment")
        self._check_digits()

    def _check_digits(self) -> None:
        if (terminator := self.terminator) is not None:
            if not isinstance(terminator, bytes):
                raise TypeError(f"terminator must be bytes, not {terminator!r}")
            if self.length != "decimal":
                raise ValueError("terminator is only for the length 'decimal'")
            if not terminator or terminator[:1].isdigit():
                raise ValueError("terminator must not be empty, nor begin with a digit")
        if self.max_digits is not None:
            validated_positive("max_digits", self.max_digits)
            if self.length not in MAX_DIGITS:
                raise ValueError(f"max_digits is not for the length {self.length!r}")
            if self.max_digits > (most := MAX_DIGITS[self.length]):
                raise ValueError(f"max_digits must be at most {most} for {self.length!r}")


@dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True)
class NoFraming:
    """There are no packets in the stream: whatever has arrived when one is asked for is one."""


Framing: TypeAlias = SeparatorFraming | FixedSizeFraming | LengthPrefixFraming | NoFraming
"""What `framing()` may return."""


def overrides(obj: object, base: type, *names: str) -> bool:
    """Whether the class of an object replaces one of these methods of a base class."""
    return any(getattr(type(obj), name) is not getattr(base, name) for name in names)


class AbstractPacketSerializer(Generic[Sent, Received], metaclass=ABCMeta):
    """Turns one whole packet into bytes and back."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def serialize(self, packet: Sent, /) -> bytes:
        """Return all the bytes of `packet`. Exceptions propagate to the sender."""
        raise NotImplementedError

    @abstractmethod
    def deserialize(self, data: bytes, /) -> Received:
        """Make a packet of `data`, which is expected to be exactly one.

        Raises:
            DeserializeError: `data` is not a packet. Whatever a peer can send must end in this
                error if it is not valid; any other exception is a bug of the serializer.
        """
        raise NotImplementedError


def validated_serializer(serializer: _T) -> _T:
    """Return a serializer.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(serializer, AbstractPacketSerializer):
        raise TypeError(f"Expected a serializer instance, got {serializer!r}")
    return serializer


class AbstractIncrementalPacketSerializer(AbstractPacketSerializer[Sent, Received]):
    """Finds packets in a stream of bytes.

    If the end of a packet can be found without parsing it, derive from
    `easynetwork.serializers.framing.FramedPacketSerializer`, which is several times faster.
    """

    __slots__ = ()

    @abstractmethod
    def incremental_serialize(self, packet: Sent, /) -> Generator[bytes, None, None]:
        """Yield the bytes of `packet`, with all that a receiver needs to find its end."""
        raise NotImplementedError

    @abstractmethod
    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Received, bytes]]:
        """Return a generator that parses one packet.

        The generator is advanced to its first ``yield``, then sent chunks, never empty, each as
        soon as it is received. As soon as it has all it needs, it returns the packet and the bytes
        that follow it. It must bound what it keeps while waiting.

        Raises:
            IncrementalDeserializeError: The data is not a packet; ``remaining_data`` is what
                follows it. Any other `DeserializeError` is a bug of the serializer.
            LimitOverrunError: The packet is too large. What of it is yet to come is dropped as it
                arrives. If the error does not say where the packet ends, everything that the peer
                still sends is dropped.
        """
        raise NotImplementedError

    def serialize(self, packet: Sent) -> bytes:
        """Return the concatenation of what `incremental_serialize()` yields."""
        return b"".join(self.incremental_serialize(packet))

    def deserialize(self, data: bytes) -> Received:
        """Make a packet of `data` by means of `incremental_deserialize()`.

        Raises:
            DeserializeError: `data` is invalid, too short, or followed by something else.
            RuntimeError: The generator returned before its first ``yield``.
        """
        parser = self.incremental_deserialize()
        try:
            next(parser)
        except StopIteration:
            raise RuntimeError("self.incremental_deserialize() generator did not yield") from None
        try:
            if data:  # A parser is never sent an empty chunk, but an empty datagram exists.
                parser.send(data)
        except StopIteration as exc:
            packet: Received
            packet, extra = exc.value
        else:
            parser.close()
            raise DeserializeError("Missing data to create packet", error_info={"data": data})
        if extra:
            raise DeserializeError(
                "Extra data caught", error_info={"packet": packet, "extra": extra}
            )
        return packet

    # -- frames: what `FramedPacketSerializer` implements

    def framing(self) -> Framing | None:
        """Return where a packet ends; None (the default) if that takes parsing it.

        The answer must not change during the serializer's life; it is checked where a server or a
        client is created.
        """
        return None

    def receives_frames(self, *, buffered: bool) -> bool:
        """Whether a receiver may use `framing()` and `deserialize_frame()` in place of a generator.

        Args:
            buffered: Which generator: ``buffered_incremental_deserialize()`` or, if False,
                `incremental_deserialize()`.
        """
        return False

    def deserialize_frame(self, frame: bytes, /) -> Received:
        """Make a packet of one frame, as `framing()` describes it.

        Raises:
            IncrementalDeserializeError: The frame is not a packet. Its ``remaining_data`` is empty:
                the bytes after the frame are the caller's business.
        """
        raise UnsupportedOperation(f"{type(self).__name__} does not receive frames")

    def sends_frames(self) -> bool:
        """Whether a sender may use `serialize_frame()` in place of the generator."""
        return False

    def serialize_frame(self, packet: Sent, /) -> bytes:
        """Return all that `incremental_serialize()` yields, joined."""
        return b"".join(self.incremental_serialize(packet))


class BufferedIncrementalPacketSerializer(
    AbstractIncrementalPacketSerializer[Sent, Received], Generic[Sent, Received, Buffer]
):
    """Finds packets in a stream of bytes that are put into the serializer's own buffer."""

    __slots__ = ()

    @abstractmethod
    def create_deserializer_buffer(self, sizehint: int, /) -> Buffer:
        """Allocate a buffer for one packet.

        Args:
            sizehint: The size in bytes that suits the transport.

        Returns:
            A writable, non-empty bytes-like object, of any size and item format.
        """
        raise NotImplementedError

    @abstractmethod
    def buffered_incremental_deserialize(
        self, buffer: Buffer, /
    ) -> Generator[int | None, int, tuple[Received, ReadableBuffer]]:
        """Return a generator that parses one packet.

        Each ``yield`` tells the index, in bytes, at which the next bytes are to be written (None:
        at the beginning; negative: counted from the end of the buffer) and gives back how many
        were. The generator returns the packet and the bytes that follow it; these may be a view of
        the buffer, which the caller copies before it uses the buffer again.

        Args:
            buffer: What `create_deserializer_buffer()` returned, maybe used before.

        Raises:
            IncrementalDeserializeError: The data is not a packet; ``remaining_data`` is what
                follows it. Any other `DeserializeError` is a bug of the serializer.
            LimitOverrunError: The packet is too large, as for `incremental_deserialize()`.
        """
        raise NotImplementedError
