"""Packets of a fixed layout: the binary structures that `struct` describes.

All packets of one serializer have the same size, so a stream is cut without a look at it, and
nothing that a peer sends can cost more than that size.

A format without a byte order is in network order, big-endian, without padding: what two machines
agree on. (`struct` itself would choose what this machine's C compiler does.)
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from struct import (
    Struct,
    error as StructError,  # noqa: N812  # It is a class.
)
from typing import Any, Final, TypeVar, final

from easynetwork._typevars import Received, Sent
from easynetwork.exceptions import DeserializeError
from easynetwork.serializers.framing import FixedSizePacketSerializer
from easynetwork.serializers.tools import check_encoding

__all__ = ["AbstractStructSerializer", "NamedTupleStructSerializer", "StructSerializer"]

# A class made by typing.NamedTuple or collections.namedtuple().
_TNamedTuple = TypeVar("_TNamedTuple", bound=tuple[Any, ...])

_BYTE_ORDERS: Final = ("@", "=", "<", ">", "!")
# One value: a character or a string. (An "x" is padding: it has no value.)
_FIELD_FORMAT: Final = re.compile(r"(?!x)[A-Za-z]|[0-9]+s", re.ASCII)


class _PicklableStruct(Struct):
    def __reduce__(self) -> tuple[Any, ...]:
        return _PicklableStruct, (self.format,)


class AbstractStructSerializer(FixedSizePacketSerializer[Sent, Received]):
    """Packets are structures; subclasses tell what a packet has to do with the structure's values.

    Args:
        format: As for `struct.Struct`; in network byte order unless it begins with another one.
        debug: Whether errors carry ``error_info``, a dictionary: the received ``data``.

    Raises:
        ValueError: The structure has no bytes.
        struct.error: `format` is invalid.
    """

    __slots__ = ("_struct",)

    def __init__(self, format: str, *, debug: bool = False) -> None:  # noqa: A002  # Part of the API.
        self._struct = _PicklableStruct(format if format.startswith(_BYTE_ORDERS) else f"!{format}")
        super().__init__(self._struct.size, debug=debug)

    @property
    @final
    def struct(self) -> Struct:
        """The compiled format."""
        return self._struct

    @abstractmethod
    def iter_values(self, packet: Sent, /) -> Iterable[Any]:
        """Return the structure's values, in order. Exceptions propagate to the sender."""
        raise NotImplementedError

    @abstractmethod
    def from_tuple(self, packet_tuple: tuple[Any, ...], /) -> Received:
        """Make a packet of the structure's values.

        Raises:
            DeserializeError: They do not make a packet. Any other exception is a bug of the
                serializer.
        """
        raise NotImplementedError

    @final
    def serialize(self, packet: Sent) -> bytes:
        """Return the bytes of the structure.

        Raises:
            struct.error: The values do not fit into the structure.
        """
        return self._struct.pack(*self.iter_values(packet))

    @final
    def deserialize(self, data: bytes) -> Received:
        """Make a packet of the bytes of a structure.

        Raises:
            DeserializeError: `data` is of another size, or `from_tuple()` refuses it.
        """
        try:
            values = self._struct.unpack(data)
        except StructError as exc:
            info = {"data": data} if self.debug else None
            raise DeserializeError(f"Invalid value: {exc}", info) from exc
        return self.from_tuple(values)


class StructSerializer(AbstractStructSerializer[tuple[Any, ...], tuple[Any, ...]]):
    """Packets are tuples: the values of a structure.

    Args:
        format: As for `struct.Struct`; in network byte order unless it begins with another one.
        debug: Whether errors carry ``error_info``, a dictionary: the received ``data``.

    Raises:
        ValueError: The structure has no bytes.
        struct.error: `format` is invalid.
    """

    __slots__ = ()

    @final
    def iter_values(self, packet: tuple[Any, ...], /) -> tuple[Any, ...]:
        """Return `packet`.

        Raises:
            TypeError: It is not a tuple.
        """
        if not isinstance(packet, tuple):
            raise TypeError(f"Expected a tuple instance, got {packet!r}")
        return packet

    @final
    def from_tuple(self, packet_tuple: tuple[Any, ...], /) -> tuple[Any, ...]:
        """Return `packet_tuple`."""
        return packet_tuple


class NamedTupleStructSerializer(AbstractStructSerializer[_TNamedTuple, _TNamedTuple]):
    """Packets are named tuples, each field of which is a value of a structure.

    Args:
        namedtuple_cls: The class of the packets.
        field_formats: The format of each field: a character, or a number and ``s`` for so many
            bytes.
        format_endianness: The byte order, one of ``@=<>!``; network byte order if empty.
        encoding: The encoding of the ``s`` fields, which then are text. If None, they are bytes.
        unicode_errors: What to do with characters and bytes that `encoding` does not know; see
            :ref:`error handlers <error-handlers>`.
        strip_string_trailing_nul_bytes: Whether the NULs that fill an ``s`` field are removed when
            it is received. (So are those that the sender meant.)
        debug: Whether errors carry ``error_info``, a dictionary: the received ``data``, or the
            ``unpacked_struct`` if its text cannot be decoded.

    Raises:
        LookupError: `encoding` or `unicode_errors` is unknown.
        ValueError: The byte order or the format of a field is invalid, or not all fields have one.
        struct.error: `struct` does not know the format of a field, in that byte order.
    """

    __slots__ = ("_encoding", "_namedtuple_cls", "_strip", "_texts", "_unicode_errors")

    def __init__(
        self,
        namedtuple_cls: type[_TNamedTuple],
        field_formats: Mapping[str, str],
        format_endianness: str = "",
        encoding: str | None = "utf-8",
        unicode_errors: str = "strict",
        strip_string_trailing_nul_bytes: bool = True,
        *,
        debug: bool = False,
    ) -> None:
        if format_endianness and format_endianness not in _BYTE_ORDERS:
            raise ValueError("Invalid endianness character")
        if encoding is not None:
            check_encoding(encoding, unicode_errors)
        fields: tuple[str, ...] = namedtuple_cls._fields  # type: ignore[attr-defined]  # A named tuple has it.
        if set(fields) != set(field_formats):
            raise ValueError(f"Expected the formats of {fields}, got {tuple(field_formats)}")
        for field, field_format in field_formats.items():
            if not _FIELD_FORMAT.fullmatch(field_format):
                raise ValueError(f"{field!r}: Invalid field format")
        formats = [field_formats[field] for field in fields]
        super().__init__(format_endianness + "".join(formats), debug=debug)
        self._namedtuple_cls = namedtuple_cls
        # The fields that are text or bytes: their names, positions and sizes.
        self._texts = [
            (field, index, int(field_format[:-1] or 1))
            for index, (field, field_format) in enumerate(zip(fields, formats, strict=True))
            if field_format.endswith("s")
        ]
        self._encoding = encoding
        self._unicode_errors = unicode_errors
        self._strip = bool(strip_string_trailing_nul_bytes)

    @final
    def iter_values(self, packet: _TNamedTuple, /) -> list[Any]:
        """Return the values of the fields, text encoded.

        Raises:
            TypeError: `packet` is of another class.
            ValueError: A text does not fit into its field. (`struct` would cut it off.)
        """
        if not isinstance(packet, self._namedtuple_cls):
            raise TypeError(f"Expected a {self._namedtuple_cls.__name__} instance, got {packet!r}")
        values = list(packet)
        for field, index, size in self._texts:
            if self._encoding is not None:
                values[index] = values[index].encode(self._encoding, self._unicode_errors)
            if len(values[index]) > size:
                raise ValueError(
                    f"{field!r}: {len(values[index])} bytes do not fit into a field of {size}"
                )
        return values

    @final
    def from_tuple(self, packet_tuple: tuple[Any, ...], /) -> _TNamedTuple:
        """Make a packet of the values, text decoded.

        Raises:
            DeserializeError: Bytes cannot be decoded.
        """
        values = list(packet_tuple)
        for _, index, _ in self._texts:
            if self._strip:
                values[index] = values[index].rstrip(b"\0")
            if self._encoding is not None:
                try:
                    values[index] = values[index].decode(self._encoding, self._unicode_errors)
                except UnicodeError as exc:
                    raise DeserializeError(
                        f"UnicodeError when building packet from unpacked struct value: {exc}",
                        {"unpacked_struct": packet_tuple} if self.debug else None,
                    ) from exc
        packet: _TNamedTuple = self._namedtuple_cls._make(values)  # type: ignore[attr-defined]  # As above.
        return packet
