"""Records that no ordinary peer sends: made by hand, with the keys of a real connection.

`ssl` writes the secrets of a connection to a file when it is asked to (``keylog_filename``). The
ciphers are those that OpenSSL 3 prefers with our certificates, with AES-256-GCM and SHA-384.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HELLO_REQUEST = b"\0\0\0\0"
APPLICATION_DATA, HANDSHAKE, ALERT = 23, 22, 21
CLOSE_NOTIFY = b"\1\0"


class Forger13:
    """Makes the records of one side of a TLS 1.3 connection, behind its handshake (RFC 8446, 5.2).

    Args:
        keys: The file with the connection's secrets.
        side: "CLIENT" or "SERVER".
    """

    def __init__(self, keys: Path, side: str = "CLIENT") -> None:
        [self._secret] = secrets(keys, f"{side}_TRAFFIC_SECRET_0")
        self._renew()

    def _renew(self) -> None:
        self._key = AESGCM(expand(self._secret, b"key", 32))
        self._iv = int.from_bytes(expand(self._secret, b"iv", 12))
        self._number = 0

    def record(self, kind: int, content: bytes) -> bytes:
        """Return the next record."""
        header = struct.pack("!BHH", APPLICATION_DATA, 0x0303, len(content) + 17)
        nonce = (self._iv ^ self._number).to_bytes(12)
        self._number += 1
        return header + self._key.encrypt(nonce, content + bytes([kind]), header)

    def key_update(self) -> bytes:
        """Return the next record: a key update that asks for another one (RFC 8446, 4.6.3)."""
        record = self.record(HANDSHAKE, b"\x18\0\0\1\1")
        self._secret = expand(self._secret, b"traffic upd", 48)
        self._renew()
        return record


class Forger12:
    """Makes the records of one side of a TLS 1.2 connection, behind its handshake (RFC 5288).

    Args:
        keys: The file with the connection's secrets.
        server_hello: What the server sent first.
        side: "CLIENT" or "SERVER".
    """

    def __init__(self, keys: Path, server_hello: bytes, side: str = "CLIENT") -> None:
        client_random, master = secrets(keys, "CLIENT_RANDOM")
        block = prf(master, b"key expansion" + server_hello[11:43] + client_random, 72)
        index = ["CLIENT", "SERVER"].index(side)
        self._key = AESGCM(block[32 * index : 32 * index + 32])
        self._iv = block[64 + 4 * index : 68 + 4 * index]
        self._number = 1  # its last message of the handshake was encrypted as well
        self._client_random = client_random

    def record(self, kind: int, content: bytes) -> bytes:
        """Return the next record."""
        number = struct.pack("!Q", self._number)
        self._number += 1
        associated = number + struct.pack("!BHH", kind, 0x0303, len(content))
        header = struct.pack("!BHH", kind, 0x0303, len(content) + 24)
        return header + number + self._key.encrypt(self._iv + number, content, associated)

    def renegotiation(self) -> bytes:
        """Return the next record: a client's wish to do the handshake again."""
        hello = b"\x03\x03" + self._client_random + b"\0" + b"\0\2\xc0\x2c" + b"\1\0"
        return self.record(HANDSHAKE, b"\1" + len(hello).to_bytes(3) + hello)


def secrets(keys: Path, label: str) -> list[bytes]:
    """Return the secrets behind a label; for the client's random number, that number too."""
    found = re.search(rf"^{label} (\w+) (\w+)$", keys.read_text(), re.MULTILINE)
    assert found is not None
    random, secret = map(bytes.fromhex, found.groups())
    return [random, secret] if label == "CLIENT_RANDOM" else [secret]


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    """Return HKDF-Expand-Label (RFC 8446, 7.1) without a context, of up to 48 bytes."""
    label = b"tls13 " + label
    info = struct.pack("!HB", size, len(label)) + label + b"\0\1"
    return hmac.digest(secret, info, hashlib.sha384)[:size]


def prf(secret: bytes, seed: bytes, size: int) -> bytes:
    """Return the pseudorandom function of TLS 1.2 (RFC 5246, 5)."""
    result, link = b"", seed
    while len(result) < size:
        link = hmac.digest(secret, link, hashlib.sha384)
        result += hmac.digest(secret, link + seed, hashlib.sha384)
    return result[:size]
