"""What all connections of a stream server have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from easynetwork.backends.abc import AsyncBackend
from easynetwork.decoder import StreamDecoder
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._stream.tls import TLSAcceptor
from easynetwork.servers.handlers import AsyncStreamRequestHandler


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What all connections of a server have in common.

    Attributes:
        backend: The server's.
        handler: The request handler.
        new_decoder: Makes the decoder of one more connection.
        encode: Makes the bytes of a packet.
        log: Where to report what goes wrong with clients.
        connection_log_level: The level of the lines about clients that come and go.
        tls: The TLS side of the server; None if it serves plain connections.
        ancillary_bufsize: The most bytes of ancillary data that come with a packet; None if the
            server has none.
    """

    backend: AsyncBackend
    handler: AsyncStreamRequestHandler[Any, Any]
    new_decoder: Callable[[], StreamDecoder]
    encode: Callable[[Any], bytes]
    log: ServerLog
    connection_log_level: int
    tls: TLSAcceptor | None
    ancillary_bufsize: int | None
