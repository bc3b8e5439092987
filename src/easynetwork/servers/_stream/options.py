"""What all connections of a stream server have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from easynetwork._tls_options import TLSOptions
from easynetwork.backends.abc import AsyncBackend
from easynetwork.codec import Codec
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._stream.census import Census
from easynetwork.servers._stream.timeouts import Timeouts
from easynetwork.servers._stream.tls import TLSLog
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.servers.limits import Limits


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What all connections of a server have in common.

    Attributes:
        backend: The server's.
        handler: The request handler.
        codec: What connections speak at first.
        max_recv_size: The most bytes taken from a connection at once.
        census: The connections that there are.
        limits: What each client is allowed, unless its handler has changed that.
        timeouts: Who looks whether clients are too slow.
        log: Where to report what goes wrong with clients.
        connection_log_level: The level of the lines about clients that come and go.
        tls: How connections get TLS; None if they begin without.
        tls_log: What the log says about TLS.
        ancillary_bufsize: The most bytes of ancillary data that come with a packet; None if the
            server has none.
    """

    backend: AsyncBackend
    handler: AsyncStreamRequestHandler[Any, Any]
    codec: Codec
    max_recv_size: int
    census: Census
    limits: Limits
    timeouts: Timeouts
    log: ServerLog
    connection_log_level: int
    tls: TLSOptions | None
    tls_log: TLSLog
    ancillary_bufsize: int | None
