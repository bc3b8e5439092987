"""Bytes as text, one packet a line; with a checksum or a signature if you like.

Base64 (RFC 4648) needs 4 characters for 3 bytes, none of which is white space: whatever is wrapped,
its packets can be told apart by their separator.

Only what an encoder may produce is accepted: characters of the right alphabet, complete, with
nothing in between, and with no bit set that stands for nothing. So a packet has one spelling.

A checksum uses no key: it detects corruption, not tampering. A signature (HMAC-SHA256) proves that
a packet was made with the key. It neither hides the packet nor says when it was made:
one that was recorded can be sent again.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, final

from easynetwork._typevars import Received, Sent
from easynetwork.exceptions import DeserializeError
from easynetwork.serializers.abc import AbstractPacketSerializer, validated_serializer
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT

__all__ = ["Base64EncoderSerializer"]


_DIGEST_SIZE: Final = 32  # SHA-256
_KEY_SIZE: Final = 32  # As much as the digest: RFC 2104, section 3, advises no less.

_TO_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
# The characters of the other alphabet become one that is in none.
_FROM_URLSAFE: Final = bytes.maketrans(b"-_+/", b"+/!!")

# What may come before "=" and "==": characters whose last 2 and 4 bits, which carry no data, are 0.
_BEFORE_PADDING: Final = b"AEIMQUYcgkosw048="
_BEFORE_DOUBLE_PADDING: Final = b"AQgw"


class Base64EncoderSerializer(AutoSeparatedPacketSerializer[Sent, Received]):
    """Encodes the packets of another serializer with base64.

    Args:
        serializer: What makes bytes of a packet and back.
        alphabet: ``"urlsafe"`` (with ``-`` and ``_``) or ``"standard"`` (with ``+`` and ``/``).
        checksum: False for none. True to append the SHA-256 digest of each packet and to check it.
            A key, as `generate_key()` returns it, to append and to check an HMAC-SHA256 signature.
        separator: What ends a packet.
        limit: The most bytes of an encoded packet: 4 for 3 bytes of the packet and its 32 bytes of
            checksum.
        debug: Whether errors carry ``error_info``, a dictionary: the received ``data``.

    Raises:
        TypeError: `serializer` is not a serializer, or `alphabet` or `checksum` is something else.
        ValueError: The key is not one, `separator` is empty, or `limit` is not positive.
    """

    __slots__ = ("_digest", "_from_alphabet", "_serializer", "_to_alphabet")

    def __init__(
        self,
        serializer: AbstractPacketSerializer[Sent, Received],
        *,
        alphabet: Literal["standard", "urlsafe"] = "urlsafe",
        checksum: bool | str | bytes = False,
        separator: bytes = b"\r\n",
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
    ) -> None:
        self._serializer = validated_serializer(serializer)
        if alphabet not in ("standard", "urlsafe"):
            raise TypeError("Invalid alphabet argument")
        super().__init__(
            separator,
            # White space is in neither alphabet.
            incremental_serialize_check_separator=not separator.isspace(),
            limit=limit,
            debug=debug,
        )
        urlsafe = alphabet == "urlsafe"
        self._to_alphabet = _TO_URLSAFE if urlsafe else None
        self._from_alphabet = _FROM_URLSAFE if urlsafe else None
        self._digest = _digest_function(checksum)

    @classmethod
    @final
    def generate_key(cls) -> bytes:
        """Return a new random key for the `checksum` argument: 32 bytes in URL-safe base64."""
        return urlsafe_b64encode(secrets.token_bytes(_KEY_SIZE))

    @final
    def serialize(self, packet: Sent) -> bytes:
        """Return the encoded packet, without separator."""
        data = self._serializer.serialize(packet)
        if self._digest is not None:
            data += self._digest(data)
        return binascii.b2a_base64(data, newline=False).translate(self._to_alphabet)

    @final
    def deserialize(self, data: bytes) -> Received:
        """Make a packet of what is encoded in `data`.

        Raises:
            DeserializeError: `data` is not base64, its checksum or signature is wrong, or the
                serializer refuses what is in it.
        """
        text = data.translate(self._from_alphabet)
        try:
            decoded = binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error as exc:
            raise self._invalid(data) from exc
        if (text.endswith(b"=") and text[-2] not in _BEFORE_PADDING) or (
            text.endswith(b"==") and text[-3] not in _BEFORE_DOUBLE_PADDING
        ):
            raise self._invalid(data)
        if self._digest is not None:
            decoded, digest = decoded[:-_DIGEST_SIZE], decoded[-_DIGEST_SIZE:]
            if not hmac.compare_digest(self._digest(decoded), digest):
                raise self._invalid(data)
        return self._serializer.deserialize(decoded)

    def _invalid(self, data: bytes) -> DeserializeError:
        return DeserializeError("Invalid token", {"data": data} if self.debug else None)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _digest_function(checksum: Any) -> Callable[[bytes], bytes] | None:
    """Return the function that computes the 32 bytes after each packet; None if there are none."""
    match checksum:
        case False:
            return None
        case True:
            return _sha256
        case str() | bytes():
            text = checksum.encode() if isinstance(checksum, str) else checksum
            message = "signing key must be 32 url-safe base64-encoded bytes."
            try:
                key = binascii.a2b_base64(text.translate(_FROM_URLSAFE), strict_mode=True)
            except binascii.Error as exc:
                raise ValueError(message) from exc
            if len(key) != _KEY_SIZE:
                raise ValueError(message)
            return partial(hmac.digest, key, digest="sha256")
        case _:
            raise TypeError("Invalid checksum argument")
