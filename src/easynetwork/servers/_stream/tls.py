"""TLS on a server's connections, and what its log says about it.

A failed handshake is a peer's fault, and so is whatever breaks a connection later: one WARNING
line, one of so many. Who has just left, or never says anything, is not worth a line.
"""

from __future__ import annotations

import logging
import ssl

from easynetwork._tls_options import TLSOptions
from easynetwork.addresses import SocketAddress
from easynetwork.backends.abc import StreamTransport
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

    async def accept(
        self, transport: StreamTransport, address: SocketAddress
    ) -> TLSStreamTransport | None:
        """Return a client's connection with TLS, None if the handshake failed."""
        try:
            return await start_tls(transport, self._options)
        except ssl.SSLError as exc:
            self._log.fault(
                "Error in client task (during TLS handshake) of %s: %s", address, printable(exc)
            )
        except OSError as exc:
            self._log.log(
                logging.DEBUG, "%s left during the TLS handshake: %s", address, printable(exc)
            )
        return None

    def report_end(self, transport: StreamTransport, address: SocketAddress) -> None:
        """Log how a connection ended, if TLS has its own view of it."""
        assert isinstance(transport, TLSStreamTransport)
        if transport.error is not None:
            reason = printable(transport.error)
            self._log.fault("TLS connection of %s broke: %s", address, reason)
        elif transport.is_truncated:
            self.truncated += 1
            self._log.log(
                logging.DEBUG,
                "%s left without TLS's closing alert, as %d clients so far: if it was cut off, "
                "the end of what it sent is missing",
                address,
                self.truncated,
            )
