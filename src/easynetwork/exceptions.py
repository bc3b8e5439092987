"""Every error that easynetwork raises, grouped by who is at fault.

* The peer: what it sent cannot be understood. `BaseProtocolParseError` and its two subclasses reach
  a request handler at its ``yield`` and a caller at ``recv_packet()``; their ``error`` attribute is
  the reason, one of `DeserializeError` and its subclasses, or `PacketConversionError`.
* The program: it used an object in a state, or in a way, that the object does not offer.

An error never refers to the buffer that its data was received in: a receive buffer is used again
for the next bytes, while an error may be kept. So every ``remaining_data`` is an immutable copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    "ServerAlreadyRunning",
    "ServerClosedError",
    "StreamProtocolParseError",
    "TypedAttributeLookupError",
    "UnsupportedOperation",
]

# -- The peer's fault --------------------------------------------------------------------------


class DeserializeError(Exception):
    """Received bytes do not make a packet.

    Attributes:
        error_info: Whatever helps to find out why, meant for debugging: it may hold the peer's
            data. The built-in serializers fill it only when they were created with ``debug=True``.
    """

    def __init__(self, message: str, error_info: Any = None) -> None:
        super().__init__(message)
        self.error_info: Any = error_info


class IncrementalDeserializeError(DeserializeError):
    """Received bytes do not make a packet, and it is known where the next packet may begin.

    Attributes:
        remaining_data: The unread bytes that follow the bad packet.
    """

    def __init__(
        self, message: str, remaining_data: ReadableBuffer, error_info: Any = None
    ) -> None:
        super().__init__(message, error_info)
        self.remaining_data: bytes = bytes(remaining_data)


class LimitOverrunError(IncrementalDeserializeError):
    """A packet is larger than its serializer accepts.

    Args:
        message: What happened.
        buffer: Everything received and not yet parsed.
        consumed: How many bytes are known to belong to the oversized packet. More than `buffer` has
            if the packet's size is known and the rest of it is yet to come, to be dropped then.
        separator: What ends a packet. If given, the packet's own separator is dropped as well: all
            of it when it begins at `consumed`, otherwise `remaining_data` begins where a separator,
            maybe one whose end is yet to come, does.

    Attributes:
        consumed: As given.
    """

    def __init__(
        self, message: str, buffer: ReadableBuffer, consumed: int, separator: bytes = b""
    ) -> None:
        remaining_data = bytes(memoryview(buffer)[consumed:])
        if separator:
            remaining_data = _skip_to_separator(remaining_data, separator)
        super().__init__(message, remaining_data)
        self.consumed: int = consumed


def _skip_to_separator(data: bytes, separator: bytes) -> bytes:
    if data.startswith(separator):
        return data[len(separator) :]
    start = data.find(separator)
    if start < 0:
        start = max(0, len(data) + 1 - len(separator))
        while not separator.startswith(data[start:]):
            start += 1
    return data[start:]


class PacketConversionError(Exception):
    """A deserialized packet is well-formed, but the converter cannot make an object of it.

    Attributes:
        error_info: Whatever helps to find out why.
    """

    def __init__(self, message: str, error_info: Any = None) -> None:
        super().__init__(message)
        self.error_info: Any = error_info


class BaseProtocolParseError(Exception):
    """A protocol object could not build a packet from what a peer sent.

    Attributes:
        error: The reason.
    """

    def __init__(self, error: DeserializeError | PacketConversionError) -> None:
        super().__init__(f"Error while parsing data: {error}")
        self.error: DeserializeError | PacketConversionError = error


class DatagramProtocolParseError(BaseProtocolParseError):
    """A datagram is not a packet. The datagram is lost, the next one is not concerned."""


class StreamProtocolParseError(BaseProtocolParseError):
    """A part of a stream is not a packet. Parsing can go on with `remaining_data`.

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
        self.remaining_data: bytes = bytes(remaining_data)


class EndOfStreamError(ConnectionAbortedError):
    """The peer has ended its side of the connection, and all that it sent has been received."""


# -- The program's fault -----------------------------------------------------------------------


class BusyResourceError(RuntimeError):
    """Another task or thread is already using the resource in this way."""


class ClientClosedError(ConnectionError):
    """Operation on a client that this side has closed. It *is* an `OSError`."""


class ServerClosedError(RuntimeError):
    """Operation on a server that has been closed."""


class ServerAlreadyRunning(RuntimeError):  # noqa: N818  # The name is part of the API.
    """``serve_forever()`` was called while the server is running."""


class UnsupportedOperation(NotImplementedError):  # noqa: N818  # As in the io module.
    """The object does not have this feature."""
