"""The TLS step of a stream service, and what the log says about TLS.

A failed handshake is the client's fault, and so is every violation of TLS that breaks a connection
later: one WARNING line, rate-limited. A client that just leaves, or never says anything, is worth
a DEBUG line.
"""

from __future__ import annotations

import logging
import ssl

from easynetwork._tls_options import TLSOptions
from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.backends.abc import Incoming, StreamTransport
from easynetwork.backends.tls_transport import TLSStreamTransport, start_tls
from easynetwork.servers._core.fault_log import ServerLog, printable


class TLSLog:
    """What the log of a server says about TLS.

    Attributes:
        failed: How many handshakes failed.
        completed: How many were completed.
        truncated: How many clients left without saying that nothing follows.
    """

    __slots__ = ("_log", "completed", "failed", "truncated")

    def __init__(self, log: ServerLog) -> None:
        self.completed: int = 0
        self.failed: int = 0
        self.truncated: int = 0
        self._log = log

    def report_failure(self, exc: OSError, address: AnySocketAddress) -> None:
        """Log why a handshake failed."""
        self.failed += 1
        if isinstance(exc, ssl.SSLError):
            message = "Error in client task (during TLS handshake) of %s: %s"
            self._log.fault(message, address, printable(exc))
        else:
            message = "%s left during the TLS handshake: %s"
            self._log.log(logging.DEBUG, message, address, printable(exc))

    def report_end(self, transport: StreamTransport, address: AnySocketAddress) -> None:
        """Log how a connection ended, if it used TLS, which has its own view of it."""
        if not isinstance(transport, TLSStreamTransport):
            return
        if transport.error is not None:
            reason = printable(transport.error)
            self._log.fault("TLS connection of %s broke: %s", address, reason)
        elif transport.is_truncated:
            self.truncated += 1
            message = (
                "%s left without TLS's closing alert, as %d clients so far: if it was cut off, "
                "the end of what it sent is missing"
            )
            self._log.log(logging.DEBUG, message, address, self.truncated)


async def accept_tls(options: TLSOptions, log: TLSLog, incoming: Incoming) -> Incoming | None:
    """Return a connection with TLS; None if the handshake failed, and the connection is closed.

    A step of `StreamService`, given its first two arguments.
    """
    try:
        transport = await start_tls(incoming.transport, options)
    except OSError as exc:
        log.report_failure(exc, incoming.address)
        return None
    log.completed += 1
    return incoming._replace(transport=transport)
