"""Every error that easynetwork raises, grouped by the side at fault.

The peer: what it sent cannot be understood, or it has ended its side::

    Exception
    ├── BaseProtocolParseError        raised at a handler's yield, and by recv_packet()
    │   ├── StreamProtocolParseError
    │   └── DatagramProtocolParseError
    ├── DeserializeError              raised by serializers; the `error` of the ones above
    │   └── IncrementalDeserializeError
    │       └── LimitOverrunError
    ├── PacketConversionError         raised by converters; likewise
    └── ConnectionError
        └── ConnectionAbortedError
            └── EndOfStreamError

The program: it used an object in a state, or in a way, that the object does not offer::

    Exception
    ├── ConnectionError
    │   └── ClientClosedError         the client was closed on this side
    ├── LookupError
    │   └── TypedAttributeLookupError
    └── RuntimeError
        ├── BusyResourceError
        ├── ProtocolCrashedError      a serializer or a converter has a bug
        ├── ServerAlreadyRunning
        ├── ServerClosedError
        └── NotImplementedError
            └── UnsupportedOperation

An error never refers to the buffer that its data was received in: a receive buffer is used again
for the next bytes, while an error may be kept. So every ``remaining_data`` is an immutable copy.

Every error survives `pickle` and `copy`, so that it can leave a process pool. (Python itself drops
``__cause__``.) An attribute that cannot be pickled, such as an ``error_info`` with an open file in
it, arrives as its `repr`.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import TypedAttributeLookupError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "BaseProtocolParseError",
    "BusyResourceError",
    "ClientClosedError",
    "DatagramProtocolParseError",
    "DeserializeError",
    "EndOfStreamError",
    "IncrementalDeserializeError",
    "LimitOverrunError",
    "PacketConversionError",
    "ProtocolCrashedError",
    "ServerAlreadyRunning",
    "ServerClosedError",
    "StreamProtocolParseError",
    "TypedAttributeLookupError",
    "UnsupportedOperation",
]

E = TypeVar("E", bound=BaseException)

# -- How errors are copied ---------------------------------------------------------------------


def _restore(cls: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    """Make an error again, whatever arguments the constructors of its class take."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


def _reduce(error: BaseException) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Implement ``__reduce__()``.

    An exception that cannot be unpickled breaks a whole process pool, so each value is tried first.
    """
    args = tuple(map(_picklable, error.args))
    state = {name: _picklable(value) for name, value in vars(error).items()}
    return _restore, (type(error), args, state)


def _picklable(value: Any) -> Any:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        try:
            return repr(value)
        except Exception:
            return object.__repr__(value)
    return value


def _copy(error: E) -> E:
    """Implement ``__copy__()``."""
    return _restore(type(error), error.args, vars(error))


def _deepcopy(error: E, memo: dict[int, Any]) -> E:
    """Implement ``__deepcopy__()``."""
    return _restore(type(error), copy.deepcopy(error.args, memo), copy.deepcopy(vars(error), memo))


def _bytes_of(data: ReadableBuffer) -> bytes:
    """Copy bytes, and nothing else: ``bytes(5)`` would be five bytes that no peer has sent."""
    return data if type(data) is bytes else bytes(memoryview(data))


# -- The peer's fault --------------------------------------------------------------------------


class DeserializeError(Exception):
    """Received bytes do not make a packet.

    Attributes:
        error_info: Whatever helps to find out why, meant for debugging: it may hold the peer's
            data. The built-in serializers fill it only when they were created with ``debug=True``.
    """

    __reduce__ = _reduce
    __copy__ = _copy
    __deepcopy__ = _deepcopy

    def __init__(self, message: str, error_info: Any = None) -> None:
        super().__init__(message)
        self.error_info: Any = error_info


class IncrementalDeserializeError(DeserializeError):
    """Received bytes do not make a packet, and it is known where the next packet may begin.

    Attributes:
        remaining_data: The unread bytes that follow the bad packet.

    Raises:
        TypeError: `remaining_data` is not a bytes-like object.
    """

    def __init__(
        self, message: str, remaining_data: ReadableBuffer, error_info: Any = None
    ) -> None:
        super().__init__(message, error_info)
        self.remaining_data: bytes = _bytes_of(remaining_data)


class LimitOverrunError(IncrementalDeserializeError):
    """A packet is larger than its serializer accepts.

    It is dropped up to its end, and no byte of it is parsed as another packet. What of it is yet to
    come is dropped as it arrives. If the end of the packet is not known, everything that the peer
    still sends is dropped: close the connection.

    `GeneratorStreamReader.new_limit_error` makes one for a parser that reads with such a reader.

    Args:
        message: What happened.
        buffer: Everything received and not yet parsed.
        consumed: How many bytes belong to the oversized packet, counted from the beginning of
            `buffer`. If it is more than `buffer` has, the rest is yet to come. If it is all that
            `buffer` has, the end of the packet is unknown, unless `end_is_known` says otherwise.
        separator: What ends the packet. If given, the packet ends with the first separator that
            does not begin before `consumed`, in `buffer` or yet to come.
        end_is_known: Whether the packet ends after `consumed` bytes. Without a separator, None
            means: if that is not all of `buffer`.

    Attributes:
        consumed: As given.
        separator: As given.
        missing: How many bytes of the packet, following those in `buffer`, are yet to come. None if
            that is not known: the packet ends with the next `separator`, or nowhere if that is
            empty.
        remaining_data: The bytes of `buffer` that follow the packet. If a separator is yet to come:
            those which may be its beginning.

    Raises:
        TypeError: `buffer` or `separator` is not bytes-like, or `consumed` is not an integer.
        ValueError: `consumed` is negative.
    """

    def __init__(
        self,
        message: str,
        buffer: ReadableBuffer,
        consumed: int,
        separator: bytes = b"",
        *,
        end_is_known: bool | None = None,
    ) -> None:
        if consumed < 0:
            raise ValueError("consumed must not be negative")
        separator = _bytes_of(separator)
        size = memoryview(buffer).nbytes
        remaining_data = bytes(memoryview(buffer).cast("B")[consumed:])
        missing: int | None = max(consumed - size, 0)
        if separator:
            remaining_data, missing = _split_at_separator(remaining_data, separator)
        elif not (consumed != size if end_is_known is None else end_is_known):
            remaining_data, missing = b"", None
        super().__init__(message, remaining_data)
        self.consumed: int = consumed
        self.separator: bytes = separator
        self.missing: int | None = missing


def _split_at_separator(data: bytes, separator: bytes) -> tuple[bytes, int | None]:
    """Return what follows the separator, and how much is yet to come before it."""
    index = data.find(separator)
    if index >= 0:
        return data[index + len(separator) :], 0
    start = max(0, len(data) + 1 - len(separator))
    while not separator.startswith(data[start:]):
        start += 1
    return data[start:], None


class PacketConversionError(Exception):
    """A deserialized packet is well-formed, but the converter cannot make an object of it.

    Attributes:
        error_info: Whatever helps to find out why.
    """

    __reduce__ = _reduce
    __copy__ = _copy
    __deepcopy__ = _deepcopy

    def __init__(self, message: str, error_info: Any = None) -> None:
        super().__init__(message)
        self.error_info: Any = error_info


class BaseProtocolParseError(Exception):
    """A protocol object could not build a packet from what a peer sent.

    Attributes:
        error: The reason.
    """

    __reduce__ = _reduce
    __copy__ = _copy
    __deepcopy__ = _deepcopy

    def __init__(self, error: DeserializeError | PacketConversionError) -> None:
        super().__init__(f"Error while parsing data: {error}")
        self.error: DeserializeError | PacketConversionError = error


class DatagramProtocolParseError(BaseProtocolParseError):
    """A datagram is not a packet. It is discarded; later datagrams are unaffected.

    Attributes:
        sender_address: The `SocketAddress` that it came from, if an `AsyncUDPNetworkEndpoint` or a
            `UDPNetworkEndpoint` has received it; None otherwise.
    """

    sender_address: Any = None


class StreamProtocolParseError(BaseProtocolParseError):
    """A part of a stream is not a packet. The next packet can still be received.

    Where that begins is known to the connection, which goes on by itself. (Only after a
    `LimitOverrunError` that does not know where the packet ends, nothing more is received.)

    Attributes:
        error: The reason.
        remaining_data: The unread bytes that follow the bad packet.
    """

    error: IncrementalDeserializeError | PacketConversionError

    def __init__(
        self,
        remaining_data: ReadableBuffer,
        error: IncrementalDeserializeError | PacketConversionError,
    ) -> None:
        super().__init__(error)
        self.remaining_data: bytes = _bytes_of(remaining_data)


class EndOfStreamError(ConnectionAbortedError):
    """The peer has ended its side of the connection, and all that it sent has been received.

    It *is* an `OSError`.
    """


# -- The program's fault -----------------------------------------------------------------------


class BusyResourceError(RuntimeError):
    """Another task or thread is already using the resource in this way."""


class ClientClosedError(ConnectionError):
    """Operation on a client that this side has closed. It *is* an `OSError`."""


class ProtocolCrashedError(RuntimeError):
    """The serializer, the converter or the protocol object has a bug.

    It raised an exception of another kind than its contract allows, which is then the
    ``__cause__``, or it gave back something unusable. While sending, nothing has been sent, and the
    connection can still be used. While receiving, the next packet can still be received if it is
    known where it begins; otherwise everything that the peer still sends is dropped.
    """


class ServerClosedError(RuntimeError):
    """Operation on a server that has been closed."""


class ServerAlreadyRunning(RuntimeError):  # noqa: N818  # The name is part of the API.
    """``serve_forever()`` was called while the server is running."""


class UnsupportedOperation(NotImplementedError):  # noqa: N818  # As in the io module.
    """The object does not have this feature."""
