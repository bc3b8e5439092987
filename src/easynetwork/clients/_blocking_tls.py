"""TLS for the blocking clients.

One thread may send while another one receives, but OpenSSL can only be called by one of them at a
time. So there is a lock around each call, which is never held while waiting. A thread that encrypts
has the lock for sending as well: records leave in the order in which they were made. What TLS
itself has to say leaves with the next packet, as it may (RFC 8446, 4.6.3).
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from easynetwork._forks import call_after_fork
from easynetwork._tls_options import TLSOptions
from easynetwork.clients._errors import aborted, ended, explain_stream
from easynetwork.clients._waiting import (
    LONGEST_WAIT,
    NO_WAIT,
    ClientLock,
    new_selector,
    wait_ready,
    wait_writable,
)
from easynetwork.serializers.framing.framers import Overrun

_RECV_SIZE: Final = 64 * 1024


class BlockingTLS:
    """TLS between a client and its socket."""

    __slots__ = ("__weakref__", "_lock", "_options", "_session")

    def __init__(self, options: TLSOptions) -> None:
        self._options = options
        self._session = options.new_session()
        self._renew_lock()
        call_after_fork(self, BlockingTLS._renew_lock)

    def _renew_lock(self) -> None:
        """Reset it after a fork: the thread that holds it may not exist in the child."""
        self._lock = ClientLock()

    # -- the handshake

    def handshake(
        self,
        sock: socket.socket,
        received: bytes,
        overrun: Overrun | None,
        wait: Callable[[float], None] | None = None,
    ) -> bytes:
        """Do the handshake; to be called once, before anything else.

        Args:
            sock: A connected socket, non-blocking.
            received: The first bytes of the server's part.
            overrun: What of the bytes to come is not yet part of the handshake.
            wait: Waits until the socket takes something, up to a deadline.

        Returns:
            What the server has sent after it so far.

        Raises:
            ssl.SSLError: It failed.
            ConnectionAbortedError: The connection ended.
            TimeoutError: It took too long.
        """
        timeout = self._options.handshake_timeout
        deadline = time.monotonic() + timeout
        try:
            with new_selector(sock, selectors.EVENT_READ) as readable:
                while True:
                    if overrun is not None:
                        received, overrun = overrun.cut(received)
                    self._session.receive(received)
                    if self._go_on(sock, deadline, wait):
                        break
                    while not wait_ready(readable, deadline, LONGEST_WAIT):
                        pass
                    received = _receive(sock)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            raise aborted(" (during the TLS handshake)") from exc
        except TimeoutError:
            message = f"The TLS handshake took longer than {timeout} seconds"
            raise TimeoutError(errno.ETIMEDOUT, message) from None
        return self._session.receive(b"")

    def _go_on(
        self, sock: socket.socket, deadline: float, wait: Callable[[float], None] | None
    ) -> bool:
        try:
            is_complete = self._session.handshake()
        except ssl.SSLError:
            with suppress(OSError):  # the alert tells the server why; the error tells the user
                _send_all(sock, self._session.take_output(), deadline, wait)
            raise
        _send_all(sock, self._session.take_output(), deadline, wait)
        return is_complete

    # -- afterwards

    def encrypt(self, piece: bytes | memoryview) -> bytes:
        """Return what to send for some bytes. Called with the lock for sending.

        Raises:
            ConnectionAbortedError: TLS is broken.
        """
        try:
            return self._lock.run(partial(self._session.send, piece))
        except ssl.SSLError as exc:
            raise aborted() from exc

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return the plaintext of what was received. Called with the lock for receiving."""
        return self._lock.run(partial(self._session.receive, ciphertext))

    def is_over(self) -> bool:
        """Whether there is nothing more to receive."""
        return self._session.is_over

    def is_peer_sending(self) -> bool:
        """Whether the server is probably about to send something; see `TLSSession`."""
        return self._session.is_peer_sending

    def ended(self) -> ConnectionAbortedError:
        """Return the error of `recv_packet()` when the connection has ended.

        If the server should have said that nothing follows, and has not, it may be that not
        everything has arrived: no `EndOfStreamError` then.
        """
        error = self._session.error
        if error is None and self._options.standard_compatible:
            error = self._session.end_error()
        result = aborted() if self._session.error else ended(is_complete=error is None)
        result.__cause__ = error
        return result

    def close(self, sock: socket.socket, deadline: float) -> None:
        """Send the closing alert, if there has to be one. Called with the lock for sending.

        Raises:
            OSError: The connection is broken.
            TimeoutError: The deadline has passed.
        """
        if self._options.standard_compatible:
            alert = self._lock.run(self._session.close)
            _send_all(sock, alert, deadline)


def _receive(sock: socket.socket) -> bytes:
    try:
        data = sock.recv(_RECV_SIZE)
    except BlockingIOError:  # a spurious wake-up
        return b""
    except OSError as exc:
        explain_stream(exc)
        raise
    if not data:
        raise aborted(" (end-of-stream during the TLS handshake)")
    return data


def _send_all(
    sock: socket.socket,
    data: bytes,
    deadline: float,
    wait: Callable[[float], None] | None = None,
) -> None:
    unsent = memoryview(data)
    while unsent:
        try:
            unsent = unsent[sock.send(unsent, NO_WAIT) :]
        except BlockingIOError:
            if wait is None:
                wait_writable(sock, deadline, LONGEST_WAIT)
            else:
                wait(deadline)
        except OSError as exc:
            explain_stream(exc)
            raise
