"""What all connections of a stream server have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from easynetwork._tls_options import new_server_tls
from easynetwork.backends.abc import AsyncBackend
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.decoder import StreamDecoder
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
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


def check_stream_arguments(protocol: object, handler: object) -> None:
    """Make sure that a server has a protocol object and a request handler for streams.

    Raises:
        TypeError: One of them is something else.
    """
    check_stream_protocol(protocol)
    if not isinstance(handler, AsyncStreamRequestHandler):
        raise TypeError(f"Expected an AsyncStreamRequestHandler object, got {handler!r}")


def new_stream_options(
    backend: AsyncBackend,
    protocol: AnyStreamProtocolType[Any, Any],
    handler: AsyncStreamRequestHandler[Any, Any],
    log: ServerLog,
    *,
    max_recv_size: int,
    log_client_connection: bool | None,
    ancillary_bufsize: int | None = None,
    tls: dict[str, Any],
) -> StreamOptions:
    """Return what the connections of a server have in common, by the server's arguments.

    Args:
        backend: The server's.
        protocol: The protocol object.
        handler: The request handler.
        log: The server's log.
        max_recv_size: As for `new_decoder_factory`.
        log_client_connection: Of the server, as the following one.
        ancillary_bufsize: None if the server has none.
        tls: The arguments of `new_server_tls`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot be used.
    """
    tls_options = new_server_tls(**tls)
    return StreamOptions(
        backend=backend,
        handler=handler,
        new_decoder=new_decoder_factory(protocol, max_recv_size),
        encode=packet_encoder(protocol),
        log=log,
        connection_log_level=logging.DEBUG if log_client_connection is False else logging.INFO,
        tls=None if tls_options is None else TLSAcceptor(tls_options, log),
        ancillary_bufsize=ancillary_bufsize,
    )
