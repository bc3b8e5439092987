"""A connected client: what its handler sees of it, and what its session needs beyond that.

Answers to one chunk of requests leave in one write: while more frames of the chunk are waiting,
`send_packet` gathers, unless bytes wait to be sent already. Nothing stays gathered when the handler
waits for anything: the session flushes before it waits for the next packet, and the event loop does
at its next turn.
"""

from __future__ import annotations

__all__ = ["ServedClient", "StreamService", "is_owned_by"]

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio.lowlevel

from easynetwork._tuning import FAIR_SHARE, PACKET_COST
from easynetwork.addresses import INETSocketAttribute, SocketAddress, SocketProxy
from easynetwork.backends.abc import AsyncBackend, StreamTransport
from easynetwork.backends.session_tasks import SessionTasks
from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._stream.tls import TLSAcceptor
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

_FLUSH_SIZE: Final = 64 * 1024
"""Bytes of answers to one chunk that are gathered before they are sent.

As much as the transport takes before it is congested; larger writes gain nothing (measured)."""


@dataclass(frozen=True, slots=True)
class StreamService:
    """What all connections of a server share while it serves."""

    backend: AsyncBackend
    tasks: SessionTasks
    handler: AsyncStreamRequestHandler[Any, Any]
    new_decoder: Callable[[], StreamDecoder]
    encode: Callable[[Any], bytes]
    log: ServerLog
    connection_log_level: int
    tls: TLSAcceptor | None


class ServedClient(AsyncStreamClient[Any]):
    """A connected client as its handler sees it, and what its session needs beyond that.

    Attributes:
        address: The peer's address.
        decoder: What the peer sent.
        gathered: Answers to earlier frames of a chunk, while more of them wait; see `flush()`.
        is_closed: What `is_closing()` returns.
        transport: Where answers go.
    """

    __slots__ = (
        "_encode",
        "_flush_is_scheduled",
        "_local_address",
        "_sent_in_a_row",
        "_service",
        "address",
        "decoder",
        "gathered",
        "is_closed",
        "transport",
    )

    def __init__(
        self,
        service: StreamService,
        transport: StreamTransport,
        decoder: StreamDecoder,
        local_address: SocketAddress,
        address: SocketAddress,
    ) -> None:
        self.transport: StreamTransport = transport
        self.decoder: StreamDecoder = decoder
        self.address: SocketAddress = address
        self._local_address = local_address
        self._service = service
        self._encode = service.encode
        self.is_closed: bool = False
        self.gathered: bytearray = bytearray()
        self._flush_is_scheduled = False
        self._sent_in_a_row = 0

    def __repr__(self) -> str:
        return f"<client with address {self.address} at {id(self):#x}>"

    def backend(self) -> AsyncBackend:
        return self._service.backend

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        sock = self.transport.socket
        return {
            INETSocketAttribute.socket: lambda: SocketProxy(sock),
            INETSocketAttribute.family: lambda: sock.family,
            INETSocketAttribute.sockname: lambda: self._local_address,
            INETSocketAttribute.peername: lambda: self.address,
            **self.transport.extra_attributes,
        }

    def is_closing(self) -> bool:
        return self.is_closed

    async def send_packet(self, packet: Any, /) -> None:
        if self.is_closed:
            raise owned_by(self, ClientClosedError("Closed client"))
        transport = self.transport
        try:
            if self.gathered:
                self.gathered += self._encode(packet)
                if not self.decoder.frames or len(self.gathered) >= _FLUSH_SIZE:
                    self.flush()
            elif transport.congested:
                async with transport.turn():  # a packet has no bytes before its turn
                    transport.write(self._encode(packet))
            elif self.decoder.frames and not transport.get_unsent_size():
                # On top of bytes that the kernel does not take, to gather would save nothing, and
                # hide them from the transport's high-water mark.
                self._begin_to_gather(self._encode(packet))
            else:
                data = self._encode(packet)
                self._sent_in_a_row += len(data) + PACKET_COST
                transport.write(data)
            if self._sent_in_a_row > FAIR_SHARE:
                self._sent_in_a_row = 0
                await anyio.lowlevel.checkpoint()
            if transport.congested:
                await transport.drain()
        except ConnectionError as exc:
            if self.is_closed:
                raise owned_by(self, ClientClosedError("Closed client")) from exc
            raise owned_by(self, exc) from exc.__cause__

    def _begin_to_gather(self, data: bytes) -> None:
        self.gathered += data
        if len(data) >= _FLUSH_SIZE:
            self.flush()
        elif not self._flush_is_scheduled:
            # The handler may wait for something else before it comes to the last frame.
            self._flush_is_scheduled = True
            self.transport.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_is_scheduled = False
        with suppress(ConnectionError):  # reported to whoever uses the connection next
            self.flush()

    def flush(self) -> None:
        """Send what was gathered.

        Raises:
            ConnectionError: The connection broke.
        """
        if self.gathered:
            data, self.gathered = self.gathered, bytearray()
            self._sent_in_a_row += len(data) + PACKET_COST
            self.transport.write(data)

    def stop_listening(self) -> None:
        """Forget what the peer sends from now on."""
        self.transport.feed = _discard
        self.decoder.clear()

    async def aclose(self) -> None:
        with suppress(ConnectionError):
            self.flush()
        self.is_closed = True
        has_unread = bool(self.decoder)
        self.stop_listening()
        await self.transport.aclose(linger=has_unread)


def _discard(data: bytes) -> bool:
    return False


def owned_by(client: ServedClient, exc: ConnectionError) -> ConnectionError:
    """Mark an error as coming from an operation on this client."""
    vars(exc)["_easynetwork_client"] = client
    return exc


def is_owned_by(client: ServedClient, exc: BaseException) -> bool:
    """Whether an exception that left a handler came from an operation on this client."""
    return getattr(exc, "__dict__", {}).get("_easynetwork_client") is client
