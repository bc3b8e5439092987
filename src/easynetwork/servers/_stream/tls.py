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


class TLSAcceptor:
    """The TLS side of a server.

    Attributes:
        truncated: How many clients left without saying that nothing follows.
    """

    __slots__ = ("_log", "_options", "truncated")

    def __init__(self, options: TLSOptions, log: ServerLog) -> None:
        self.truncated: int = 0
        self._options = options
        self._log = log

    async def accept(self, incoming: Incoming) -> Incoming | None:
        """Return a connection with TLS; None if the handshake failed, and the connection is closed.

        A step of `StreamService`.
        """
        try:
            transport = await start_tls(incoming.transport, self._options)
        except ssl.SSLError as exc:
            message = "Error in client task (during TLS handshake) of %s: %s"
            self._log.fault(message, incoming.address, printable(exc))
        except OSError as exc:
            message = "%s left during the TLS handshake: %s"
            self._log.log(logging.DEBUG, message, incoming.address, printable(exc))
        else:
            return incoming._replace(transport=transport)
        return None

    def report_end(self, transport: StreamTransport, address: AnySocketAddress) -> None:
        """Log how a connection ended, if TLS has its own view of it."""
        assert isinstance(transport, TLSStreamTransport)
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
