"""TLS for tests: certificates that are made on the spot, and a peer without the library."""

from __future__ import annotations

import functools
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

import trustme

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
NEWEST = ssl.TLSVersion.TLSv1_3


@functools.cache
def authority() -> trustme.CA:
    """Return who signs the certificates."""
    return trustme.CA()


@functools.cache
def server_context(version: ssl.TLSVersion = NEWEST) -> ssl.SSLContext:
    """Return the context of a server on this machine; it speaks this version alone."""
    context = new_server_context()
    context.minimum_version = context.maximum_version = version
    return context


@functools.cache
def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts it."""
    context = new_client_context()
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def new_server_context() -> ssl.SSLContext:
    """Return a context that may be changed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


def new_client_context() -> ssl.SSLContext:
    """Return a context that may be changed."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


class TLSSocket:
    """What `ssl.SSLSocket` is, with an end of the stream for each direction.

    Until the handshake is complete, which `do_handshake()` or the first `recv()` see to, what is
    sent is kept. After it, one thread may send while another one receives.

    Attributes:
        raw: The socket.
        object: OpenSSL's view of the connection.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, hostname: str | None = "localhost"
    ) -> None:
        self.raw = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=hostname is None, server_hostname=hostname
        )
        # Python 3.11 and 3.12 take an error of the one thread for one of the other.
        self._in_use = threading.Lock()
        self._is_ready = False
        self._early = b""  # plaintext, until the handshake is complete
        self._unsent = b""  # ciphertext that did not fit into the kernel's buffer
        self._unsent_size = 0  # of its plaintext
        self._is_shut_down = False  # here

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def do_handshake(self) -> None:
        """Do the handshake; may be called again."""
        while not self._is_ready:
            try:
                self.object.do_handshake()
                self._is_ready = True
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
            finally:
                self.flush()
        if self._early:
            early, self._early = self._early, b""
            self.sendall(early)

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        if self._is_ready:
            for start in range(0, len(data), 1 << 16):
                with self._in_use:
                    self.object.write(data[start : start + (1 << 16)])
                self.flush()
        else:
            self._early += data

    def send(self, data: bytes) -> int:
        """Send at most a record's worth; if that is not done, the same is to be sent again.

        Returns:
            How much of it has been sent.
        """
        if not self._unsent:
            self._unsent_size = self.object.write(data[: 1 << 14])
            self._unsent = self._outgoing.read()
        self._unsent = self._unsent[self.raw.send(self._unsent) :]
        return 0 if self._unsent else self._unsent_size

    def encrypt(self, data: bytes) -> bytes:
        """Return a record, for who wants to send it in pieces."""
        self.object.write(data)
        return self._outgoing.read()

    def recv(self, size: int) -> bytes:
        """Return what arrives, b"" at the end.

        Raises:
            ssl.SSLEOFError: The stream ended without a closing alert.
        """
        self.do_handshake()
        while not self._is_shut_down:
            try:
                with self._in_use:
                    return self.object.read(size)
            except ssl.SSLWantReadError:
                self.fill()
            except ssl.SSLZeroReturnError:
                break
        return b""

    def shutdown(self, how: int) -> None:
        """Say that nothing follows."""
        if how == socket.SHUT_WR:
            with suppress(ssl.SSLError):
                self.object.unwrap()
            self.flush()
        else:
            self._is_shut_down = True
            self.raw.shutdown(how)

    def close(self) -> None:
        """Say that nothing follows, if there is room for that, and leave."""
        if self.raw.fileno() >= 0:
            self.raw.setblocking(False)
            with suppress(OSError):
                self.shutdown(socket.SHUT_WR)
            self.raw.close()

    def flush(self) -> None:
        """Send what OpenSSL has to say."""
        if self._outgoing.pending:
            self.raw.sendall(self._outgoing.read())

    def fill(self) -> None:
        """Give OpenSSL what arrives.

        Raises:
            ssl.SSLEOFError: The stream ended without a closing alert.
        """
        if data := self.raw.recv(1 << 18):
            self._incoming.write(data)
        elif not self._is_shut_down:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "no closing alert")
