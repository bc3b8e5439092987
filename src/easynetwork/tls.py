"""Turn ciphertext into plaintext and back, without touching a socket.

Strategy: the owner of the connection gives `TLSSession.receive` what the network delivered, cut in
any way, and sends what `send`, `close` and `take_output` return. OpenSSL does the work, between two
buffers in memory.

Invariants:

* OpenSSL gets whole records only, a few KiB of them at a time. This avoids `SSLWantReadError`,
  which costs more than decrypting a record, keeps OpenSSL's buffers small, and lets us count
  records without application data, which are limited.
* Answers of TLS itself that are not sent yet are bounded.
* Nothing is decrypted before the handshake is complete, nor after the peer's close_notify. A
  connection that ends without that alert may have been truncated; see `end_error()`.

TLS 1.0 does not work: a peer sends an empty record before each one there. (It should not be used:
RFC 8996.)
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

RECORD_SIZE: Final = 16 * 1024
"""The most plaintext in a record (RFC 8446, 5.1)."""

PIECE_SIZE: Final = 64 * 1024
"""Bytes to encrypt, and to hand over, at a time: the only copy of a huge packet is what waits to be
sent."""

MAX_HANDSHAKE_BYTES: Final = 64 * 1024
"""Bytes that a peer may send in a handshake before there is anything to answer.

Certificates are most of it: a chain of four with keys of the largest kind takes 50 KiB (ML-DSA-87,
FIPS 204). OpenSSL would wait for 128 KiB, twice over. Go allows 64 KiB for a message.
"""

MAX_EMPTY_RECORDS: Final = 32
"""Records without application data that a peer may send in a row: key updates, for example.

Each takes a few bytes to send, and here 15 microseconds and an answer (measured: key updates). As
BoringSSL; Go allows 16. For each `_CREDIT` records with data, there may be one more.
"""

MAX_REPLIES: Final = 16 * 1024
"""Bytes of TLS's own answers that are not sent, because the peer does not read."""

_CREDIT: Final = 16
_GROUP_SIZE: Final = 4 * 1024  # of small records: enough for their number not to matter

_HEADER_SIZE: Final = 5  # content type, version (2 bytes), length (2 bytes): RFC 8446, 5.1
_CONTENT_TYPES: Final = range(20, 25)  # RFC 8446, B.1; RFC 6520
_MAX_RECORD: Final = _HEADER_SIZE + RECORD_SIZE + 2048  # RFC 5246, 6.2.3


class TLSSession:
    """One end of a TLS connection.

    Not thread-safe: no two methods may run at the same time.

    Args:
        context: Certificates, versions, and everything else that can be chosen.
        server_side: Whether this is the server's end.
        server_hostname: The host that a client connects to; None if it does not say.

    Attributes:
        object: To be asked for certificates, version, and the like.
        is_established: Whether the handshake is complete.
        is_over: Whether nothing will be received any more: the peer said that nothing follows, or
            the connection broke.
        error: What broke the connection.
        has_output: Whether TLS itself may have something to send.
    """

    __slots__ = (
        *("__weakref__", "_awaits_tickets", "_empty_records", "_incoming"),
        *("_needs_more", "_outgoing", "_partial", "_unanswered", "error"),
        *("has_output", "is_established", "is_over", "object"),
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object: ssl.SSLObject = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname
        )
        self._needs_more = server_side  # from the peer, to go on with the handshake
        self._partial = b""  # the beginning of a record
        self._unanswered = 0  # bytes of the handshake
        self._empty_records = 0  # records without application data, times `_CREDIT`
        self._awaits_tickets = False
        self.is_established: bool = False
        self.is_over: bool = False
        self.error: ssl.SSLError | None = None
        self.has_output: bool = False

    @property
    def is_peer_sending(self) -> bool:
        """Whether the peer is probably about to send something, asked for or not.

        The rest of a record, or what a server sends first after a handshake of TLS 1.3: tickets for
        the next one (RFC 8446, 4.6.1).
        """
        return bool(self._partial) or self._awaits_tickets

    # -- the beginning

    def handshake(self) -> bool:
        """Go on with the handshake as far as possible.

        Returns:
            Whether it is complete. If not, the next call needs more from the peer.

        Raises:
            ssl.SSLError: It failed, or the peer says more than it has to. The output tells it why.
        """
        if self._needs_more and not self._incoming.pending:
            return False  # OpenSSL would only take memory for it: 32 KiB, measured
        self.has_output = True
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            self._needs_more = True
            if self._outgoing.pending:
                self._unanswered = 0
            elif self._unanswered > MAX_HANDSHAKE_BYTES:
                message = (
                    f"More than {MAX_HANDSHAKE_BYTES} bytes, and still not a step of the handshake"
                )
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, message) from None
            return False
        self.is_established = True
        self._awaits_tickets = not self.object.server_side and self.object.version() == "TLSv1.3"
        return True

    # -- receiving

    def receive(self, ciphertext: bytes) -> bytes:
        """Add bytes that arrived, decrypt what is complete.

        Returns:
            The decrypted bytes; empty during the handshake. Once the handshake is complete, call
            this once more, with ``b""`` if nothing new arrived, to decrypt data that came with the
            last handshake message.
        """
        if self.is_over:
            return b""
        data = self._partial + ciphertext if self._partial else ciphertext
        if len(data) > _HEADER_SIZE and data[3] << 8 | data[4] == len(data) - _HEADER_SIZE:
            self._partial = b""
            return self._decrypt(data, 1)  # the usual case
        plaintext = []
        start, is_more = 0, True
        while is_more:
            end, count = _whole_records(data, start)
            plaintext.append(self._decrypt(data[start:end], count))
            is_more = start < end < len(data)
            start = end
        self._partial = data[start:]
        return b"".join(plaintext)

    def _decrypt(self, records: bytes, count: int) -> bytes:
        self._incoming.write(records)
        if not self.is_established or self.is_over:
            self._unanswered += len(records)
            return b""
        plaintext: list[bytes] = []
        if count:
            self._awaits_tickets = False
        try:
            while size := self._incoming.pending:  # never less than the next record has in it
                if not (data := self.object.read(size)):
                    self.is_over = True
                    break
                plaintext.append(data)
        except ssl.SSLWantReadError:  # the last record had no data
            pass
        except ssl.SSLZeroReturnError:  # the end, after `close()`
            self.is_over = True
        except ssl.SSLError as exc:
            self._break(exc)
        if len(plaintext) != count or self._empty_records:
            self._count_empty(count - len(plaintext), len(plaintext))
        return plaintext[0] if len(plaintext) == 1 else b"".join(plaintext)

    def _count_empty(self, empty: int, others: int) -> None:
        self.has_output = True
        self._empty_records = max(self._empty_records + _CREDIT * empty - others, 0)
        if self.is_over:
            return
        if self._empty_records > _CREDIT * MAX_EMPTY_RECORDS:
            message = "The peer keeps TLS itself busy, and sends no data"
            self._break(ssl.SSLError(ssl.SSL_ERROR_SSL, message))
        elif self._outgoing.pending > MAX_REPLIES:
            message = "The peer asked for more answers of TLS itself than could be sent"
            self._break(ssl.SSLError(ssl.SSL_ERROR_SSL, message))

    def _break(self, error: ssl.SSLError) -> None:
        self.error = error.with_traceback(None)  # whose frames would keep the session alive
        self.is_over = self.has_output = True

    def end_error(self) -> ssl.SSLError | None:
        """Return the error of a stream that ends here, or None if it ends properly.

        It is `ssl.SSLEOFError` if the peer sent no close_notify: data may be missing.
        """
        if self.is_over:
            return self.error
        message = "The connection ended without a closing alert: data may be missing"
        return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, message)

    # -- sending

    def send(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Return what to send for some bytes, after all other output.

        The records are as large as they may be. All of them are in memory together: hand over a
        huge packet in `pieces`.

        Raises:
            ssl.SSLError: The connection is broken, now if it was not before. (If the peer wants to
                renegotiate, for instance: nothing can be sent meanwhile.)
        """
        if len(plaintext) <= RECORD_SIZE:
            self._encrypt(plaintext)
            return self._outgoing.read()
        records = []
        for piece in pieces(plaintext, RECORD_SIZE):
            self._encrypt(piece)
            records.append(self._outgoing.read())  # at once: OpenSSL keeps the room for it
        return b"".join(records)

    def _encrypt(self, data: bytes | bytearray | memoryview) -> None:
        if self.error is not None:
            raise self.error
        try:
            if data:
                self.object.write(data)
        except ssl.SSLError as exc:
            self._break(exc)
            raise

    def close(self) -> bytes:
        """Return what to send to say that nothing follows, after all other output."""
        if self.is_established and self.error is None:
            with suppress(ssl.SSLError):  # raised unless the peer has said so before
                self.object.unwrap()
        return self._outgoing.read()

    def take_output(self) -> bytes:
        """Return what TLS itself has to send."""
        self.has_output = False
        return self._outgoing.read()


def pieces(data: bytes | bytearray | memoryview, size: int = PIECE_SIZE) -> Iterator[memoryview]:
    """Yield views of some bytes, of at most `size` bytes each."""
    with memoryview(data) as view:
        for start in range(0, len(view), size):
            yield view[start : start + size]


def _whole_records(data: bytes, start: int) -> tuple[int, int]:
    """Return where the next group of whole records ends, and how many there are.

    Bytes that are not a record belong to the group as well: OpenSSL reports what is wrong.
    """
    end, count = start, 0
    while len(data) - end >= _HEADER_SIZE and end - start < _GROUP_SIZE:
        size = _HEADER_SIZE + (data[end + 3] << 8 | data[end + 4])
        if data[end] not in _CONTENT_TYPES or data[end + 1] != 3 or size > _MAX_RECORD:
            return len(data), count + 1
        if size > len(data) - end:
            break
        end += size
        count += 1
    return end, count
