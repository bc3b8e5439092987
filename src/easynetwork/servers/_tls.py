"""TLS on a server's connections, and what its log says about it.

A failed handshake is a peer's fault, and so is whatever breaks a connection later: one WARNING
line, one of so many. Who has just left, or never says anything, is not worth a line.
"""

from __future__ import annotations

import logging
import ssl

from easynetwork.addresses import SocketAddress
from easynetwork.backends._tls_options import TLSOptions
from easynetwork.backends.abc import StreamTransport
from easynetwork.backends.tls_transport import TLSStreamTransport, start_tls
from easynetwork.servers.reports import PeerFaultLog, printable


class TLSAcceptor:
    """The TLS side of a server.

    Attributes:
        truncated: How many clients left without saying that nothing follows.
    """

    __slots__ = ("_logger", "_options", "_peer_faults", "truncated")

    def __init__(
        self, options: TLSOptions, logger: logging.Logger, peer_faults: PeerFaultLog
    ) -> None:
        self.truncated = 0
        self._options = options
        self._logger = logger
        self._peer_faults = peer_faults

    async def accept(
        self, transport: StreamTransport, address: SocketAddress
    ) -> TLSStreamTransport | None:
        """Return a client's connection with TLS, None if the handshake failed."""
        try:
            return await start_tls(transport, self._options)
        except ssl.SSLError as exc:
            self._peer_faults.warning(
                "Error in client task (during TLS handshake) of %s: %s", address, printable(exc)
            )
        except OSError as exc:
            self._logger.debug("%s left during the TLS handshake: %s", address, exc)
        return None

    def report_end(self, transport: TLSStreamTransport, address: SocketAddress) -> None:
        """Say how a connection ended, if TLS has its own view of it."""
        if transport.error is not None:
            reason = printable(transport.error)
            self._peer_faults.warning("TLS connection of %s broke: %s", address, reason)
        elif transport.is_truncated:
            self.truncated += 1
            self._logger.debug(
                "%s left without TLS's closing alert, as %d clients so far: if it was cut off, "
                "the end of what it sent is missing",
                address,
                self.truncated,
            )
