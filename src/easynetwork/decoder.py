"""Turn the bytes of a stream into packets, without touching a socket.

The owner of a connection calls `StreamDecoder.feed()` with each chunk that arrives, and
`StreamDecoder.take()` when it wants a packet. There are two decoders:

* `FramedDecoder`, for serializers that receive frames: one call into C splits a whole chunk. Each
  frame is parsed when it is taken, so that errors are raised in order.
* `GeneratorDecoder`, for everything else: one generator of the protocol object for each packet.

`easynetwork.codec` chooses between them.

A decoder can be replaced at any packet: `StreamDecoder.succeed()` hands the bytes that no packet
has used, as they were fed, to the decoder of another protocol object.

Invariants: bytes are fed once and never looked at again except as part of a packet; the cost of a
byte does not depend on how the stream is cut into chunks; what waits here is bounded by what the
owner feeds, and at most `MAX_BATCH` packets are taken before the owner gives the event loop a turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from easynetwork.exceptions import LimitOverrunError, ProtocolCrashedError, StreamProtocolParseError
from easynetwork.parsers import NEED_DATA, PARSER_CHUNK, Parser
from easynetwork.serializers.framing._lengths import Frame
from easynetwork.serializers.framing.framers import MAX_BATCH, Framer, Overrun


class StreamDecoder(ABC):
    """Takes packets out of one stream. Belongs to one connection; not thread-safe.

    Attributes:
        at_hand: Whether `take()` probably has something to give: true, in a condition, if so.
        has_rest: Whether more of something is yet to come, of a packet or of what is dropped; or,
            after `NEED_DATA`, whether bytes wait for `refill()`.
        received: Bytes that have arrived so far, on this connection.
    """

    __slots__ = ("_found", "_overrun", "_rest", "has_rest", "received")

    at_hand: object

    def __init__(self) -> None:
        self.has_rest: bool = False
        self.received: int = 0
        self._found = 0  # packets, and errors in their place
        self._rest: bytes | bytearray = b""  # what has arrived and is not looked at yet
        self._overrun: Overrun | None = None  # while bytes are dropped that belong to no packet

    def succeed(self, other: StreamDecoder) -> None:
        """Take over from another decoder, which is not used any more: see `unread()`."""
        data, self._overrun = other.unread()
        self.has_rest = self._is_dropping()
        self._found, self.received = other.taken, other.received - len(data)
        if data:
            self.feed(data)

    @property
    def taken(self) -> int:
        """How many packets, and errors in their place, were taken on this connection."""
        return self._found

    def hand_over(self) -> tuple[bytes, Overrun | None]:
        """Return what `unread()` does, as if it had not been fed, and begin anew."""
        result = self.unread()
        self.clear()
        self._overrun, self.received = None, self.received - len(result[0])
        return result

    @abstractmethod
    def unread(self) -> tuple[bytes, Overrun | None]:
        """Return the bytes that no packet has used.

        Packets and errors that `take()` has given out, or raised, have used their bytes. Nothing
        changes here.

        Returns:
            The bytes, as they were fed, and what of the bytes that follow them belongs to an error
            that was raised.

        Raises:
            RuntimeError: That is not known: a generator has got half a packet, or has failed.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Return how many bytes of the peer are here that no packet has used, at least."""

    @abstractmethod
    def clear(self) -> None:
        """Forget what is here: it will not be read any more."""

    def _append(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
        else:
            self._rest = bytearray(data)

    def _is_dropping(self) -> bool:
        """Whether bytes have to come that are dropped."""
        return self._overrun is not None and self._overrun.is_in_frame

    def _drop(self, overrun: Overrun, data: bytes) -> bytes:
        """Return what follows the frame that is being dropped."""
        data, self._overrun = overrun.cut(data)
        return data

    @abstractmethod
    def feed(self, data: bytes) -> int:
        """Add bytes that arrived, at least one.

        Returns:
            How many packets are at hand, about; 0 if it is not worth calling `take` now.
        """

    def end_of_stream(self) -> bool:
        """Take note that nothing follows; return whether that makes a packet of what is here."""
        return False

    @abstractmethod
    def take(self) -> Any:
        """Return the next packet, or `NEED_DATA`.

        Raises:
            StreamProtocolParseError: The peer's bytes are not a packet. The next call goes on
                after them; if it is not known where they end, it gets nothing any more.
            ProtocolCrashedError: The protocol object misbehaved. If it raised an exception of
                another kind, that is the cause. The next call gets the next packet, if it is known
                where that begins, and otherwise nothing any more.
        """

    def peek(self) -> Any:
        """Do what `take()` does with a frame, and leave the frame at hand; see `skip()`.

        An exception that interrupts this at any moment, such as KeyboardInterrupt, costs no packet.
        """
        return NEED_DATA

    def skip(self) -> None:
        """Drop the next frame, if one is at hand."""

    @abstractmethod
    def refill(self) -> bool:
        """Prepare the next batch from bytes fed earlier.

        To be called after `NEED_DATA` if there is a rest. When it returns true, the event
        loop is to get a turn: here, a connection with a lot to say lets the others speak.

        Returns:
            Whether `take` has something to give without more data.
        """


DecoderFactory: TypeAlias = Callable[[], StreamDecoder]


class FramedDecoder(StreamDecoder):
    """Frames are split off in C, a chunk at a time, and parsed when they are taken."""

    __slots__ = (
        *("_build", "_chunk", "_framer", "_is_cut", "_scanned", "_split_frames"),
        "at_hand",
    )
    has_rest: bool
    received: int

    def __init__(self, framer: Framer, build: Callable[[Frame], Any]) -> None:
        super().__init__()
        self._framer = framer
        self._split_frames = framer.split_frames  # looked up once: this is done for every chunk
        self._build = build
        self.at_hand: list[Frame] = []  # the last one first: list.pop() takes from the end
        self._chunk: bytes | bytearray = b""  # what they were split off, while there are some
        self._is_cut = False  # the end of the last of them is yet to come
        self._scanned = 0  # bytes of `_rest` known to complete no frame

    def __len__(self) -> int:
        return len(self._rest) + sum(len(frame) for frame in self.at_hand if type(frame) is bytes)

    def __bool__(self) -> bool:
        return bool(self.at_hand or self._rest)

    @property
    def taken(self) -> int:
        return self._found - len(self.at_hand)

    def clear(self) -> None:
        if self._is_cut:
            self._begin_to_drop(self.at_hand[0])
        self._found -= len(self.at_hand)
        self.at_hand = []
        self._rest = self._chunk = b""
        self._scanned = 0
        self.has_rest = False

    def unread(self) -> tuple[bytes, Overrun | None]:
        if not self.at_hand:
            return bytes(self._rest), self._overrun
        chunk = bytes(self._chunk)
        frames, rest = self._split_frames(chunk)
        arrived_later = bytes(memoryview(self._rest)[len(rest or b"") :])
        if (taken := len(frames) - len(self.at_hand)) > 0:
            chunk = self._split_frames(chunk, taken)[1] or b""
        return chunk + arrived_later, None

    def feed(self, data: bytes) -> int:
        self.received += len(data)
        if self._rest or self.at_hand or self._overrun is not None:
            self._append(data)
            self.has_rest = True
            return len(self.at_hand) if self.refill() else 0
        frames, rest = self._split_frames(data)
        if rest != b"":
            self._keep(frames, rest)
        if not frames:
            return 0
        frames.reverse()
        self.at_hand = frames
        self._found += (count := len(frames))
        self._chunk = data
        return count

    def take(self) -> Any:
        frames = self.at_hand
        if not frames:
            return NEED_DATA
        frame = frames.pop()
        if not frames:
            self._chunk = b""  # nothing refers to it while the connection is idle
            if self._is_cut:
                self._begin_to_drop(frame)
        return self._build(frame)

    def peek(self) -> Any:
        return self._build(self.at_hand[-1]) if self.at_hand else NEED_DATA

    def skip(self) -> None:
        if len(self.at_hand) == 1:
            self._chunk = b""
            if self._is_cut:
                self._begin_to_drop(self.at_hand[0])
        del self.at_hand[-1:]  # last: after it, no signal handler may run before this returns

    def _begin_to_drop(self, frame: Frame) -> None:
        """Drop the rest of a frame, now that its error is raised, and all of it was here so far."""
        self._is_cut = False
        self._overrun = self._framer.overrun_after(frame)
        # After the CR of a line, an LF may come, or nothing: that is no packet that takes too long.
        self.has_rest = bool(self._rest) or self._is_dropping()

    def refill(self) -> bool:
        if self.at_hand:
            return True
        if self._overrun is not None and self._rest:
            self._rest = bytearray(self._drop(self._overrun, bytes(self._rest)))
            self.has_rest = self._is_dropping()
        if len(self._rest) > self._scanned:
            frames, rest = self._framer.resume(self._rest, self._scanned)
            if frames:
                self._chunk = self._rest
                self._keep(frames, rest)
                frames.reverse()
                self.at_hand = frames
                self._found += len(frames)
            else:
                self._scanned, self.has_rest = len(self._rest), True
        return bool(self.at_hand)

    def end_of_stream(self) -> bool:
        if self._rest and self._overrun is None and not self.at_hand:
            self.at_hand = self._framer.last_frames(bytes(self._rest))
            if self.at_hand:
                self._found += len(self.at_hand)
                self._chunk, self._rest, self._scanned = self._rest, b"", 0
                self.has_rest = False
        return bool(self.at_hand)

    def _keep(self, frames: list[Frame], rest: bytes | None) -> None:
        """Keep the bytes that follow some frames."""
        self._is_cut = rest is None
        self._rest = bytearray(rest) if rest else b""
        self.has_rest = bool(rest)
        # The framer stopped at a full batch: then, more frames may be complete.
        self._scanned = len(self._rest) if len(frames) < MAX_BATCH else 0


class GeneratorDecoder(StreamDecoder):
    """Packets are found by the protocol object's own generators, one for each packet.

    After a `ProtocolCrashedError` of a generator it is unknown where the next packet begins, and
    everything that still arrives is dropped. After one of a converter, that is known.
    """

    __slots__ = ("_budget", "_convert", "_leftover", "_new_parser", "_pace", "_parser")
    has_rest: bool
    received: int

    def __init__(
        self, new_parser: Callable[[], Parser], convert: Callable[[Any, bytes], Any] | None
    ) -> None:
        super().__init__()
        self._new_parser = new_parser
        self._convert = convert  # see `easynetwork.parsers.Source`
        self._parser: Parser | None = None
        self._leftover = b""  # what the last generator did not need; before `_rest`
        self._budget, self._pace = MAX_BATCH, 1  # of this chunk; packets of the last one, about

    @property
    def at_hand(self) -> object:  # type: ignore[override]  # not to be set here
        return self._leftover or self._rest

    def __len__(self) -> int:
        # A parser stays only while it has half a packet.
        parsed = 0 if self._parser is None else self._parser.received
        return len(self._leftover) + len(self._rest) + parsed

    def clear(self) -> None:
        self._rest = self._leftover = b""
        self._parser, self.has_rest = None, False

    def unread(self) -> tuple[bytes, Overrun | None]:
        if self._parser is not None:
            raise RuntimeError("The protocol object has got the beginning of the next packet")
        if self._overrun is not None and self._overrun.is_endless:
            raise RuntimeError("It is not known where the next packet begins")
        return self._leftover + self._rest, self._overrun

    def feed(self, data: bytes) -> int:
        self.received += len(data)
        self.refill()  # a chunk is fed in a turn of its own
        if self._overrun is not None:
            data = self._drop(self._overrun, data)
            self.has_rest = self._is_dropping()
        if self._leftover or self._rest or len(data) > PARSER_CHUNK:
            self._append(data)
        else:
            self._leftover = data  # the usual case, which copies nothing
        return self._pace if self.at_hand else 0

    def refill(self) -> bool:
        self._pace, self._budget = max(1, MAX_BATCH - self._budget), MAX_BATCH
        return bool(self.at_hand)

    def take(self) -> Any:
        while self._budget and (self._leftover or self._rest):
            self._budget -= 1
            try:
                parser = self._parser or self._new_parser()
                self._parser, self.has_rest = None, False
                chunk, self._leftover = self._leftover, b""
                result = parser.send(chunk or self._next_chunk())
            except StreamProtocolParseError as exc:
                self._found += 1
                self._skip(parser, exc)
                raise
            except ProtocolCrashedError:
                self._drop_rest(Overrun(None))
                raise
            if result is not NEED_DATA:
                self._found += 1
                packet, self._leftover = result
                if self._convert is not None:
                    return self._convert(packet, self._leftover)
                return packet
            self._parser, self.has_rest = parser, True
        if self._leftover or self._rest:
            self.has_rest = True
        return NEED_DATA

    def _skip(self, parser: Parser, exc: StreamProtocolParseError) -> None:
        """Go on after what is wrong, or drop the part of it that has yet to arrive."""
        try:
            self._leftover = parser.leftover_of(exc)
        except ProtocolCrashedError:
            self._drop_rest(Overrun(None))
            raise
        error = exc.error
        if isinstance(error, LimitOverrunError) and error.missing != 0:
            self._drop_rest(Overrun(error.missing, error.separator))

    def _drop_rest(self, overrun: Overrun) -> None:
        """Drop what is at hand, too, in one go: each byte is looked at once."""
        self._overrun = overrun
        self._leftover = self._drop(overrun, self._leftover)
        if self._overrun is not None:
            self._rest = bytearray(self._drop(overrun, bytes(self._rest)))
        self.has_rest = self._is_dropping()

    def _next_chunk(self) -> bytes:
        chunk = bytes(self._rest[:PARSER_CHUNK])
        if len(chunk) < len(self._rest):
            del self._rest[:PARSER_CHUNK]  # type: ignore[union-attr]  # not empty: a bytearray
        else:
            self._rest = b""
        return chunk
