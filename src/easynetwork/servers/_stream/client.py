"""A connected client: what its handler sees of it, and what its session needs beyond that.

Responses to one chunk of requests leave in one write: while more packets of the chunk are waiting,
`send_packet()` gathers, unless bytes are unsent already. Nothing stays gathered when the handler
waits for anything: the session flushes before it waits for the next packet, and the event loop does
at its next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from easynetwork.addresses._ancillary import RawAncillary
from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.backends.abc import AsyncBackend, Incoming, StreamTransport, discard
from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers.handlers import AsyncStreamClient

_FLUSH_SIZE: Final = 64 * 1024
"""Bytes of responses to one chunk that are gathered before they are sent.

As much as the transport takes before it is congested; larger writes gain nothing (measured)."""


class ServedClient(AsyncStreamClient[Any]):
    """A connected client as its handler sees it, and what its session needs beyond that.

    Attributes:
        address: The client's address.
        decoder: Where its packets come from.
        gathered: Responses to earlier packets of a chunk, while more of them wait; see `flush()`.
        is_closed: What `is_closing()` returns.
        transport: The connection.
    """

    __slots__ = (
        *("_attributes", "_encode", "_flush_is_scheduled", "_options"),
        *("address", "decoder", "gathered", "is_closed", "transport"),
    )

    def __init__(self, options: StreamOptions, incoming: Incoming, decoder: StreamDecoder) -> None:
        self.transport: StreamTransport = incoming.transport
        self.decoder: StreamDecoder = decoder
        self.address: AnySocketAddress = incoming.address
        self._attributes = incoming.attributes
        self._options = options
        self._encode = options.encode
        self.is_closed: bool = False
        self.gathered: bytearray = bytearray()
        self._flush_is_scheduled = False

    def __repr__(self) -> str:
        return f"<client with address {self.address} at {id(self):#x}>"

    def backend(self) -> AsyncBackend:
        return self._options.backend

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {**self.transport.extra_attributes, **self._attributes}

    def is_closing(self) -> bool:
        return self.is_closed

    async def send_packet(self, packet: Any, /) -> None:
        if self.is_closed:
            raise tag_with_client(self, ClientClosedError("Closed client"))
        transport = self.transport
        try:
            if self.gathered:
                self.gathered += self._encode(packet)
                if not self.decoder.has_more or len(self.gathered) >= _FLUSH_SIZE:
                    self.flush()
            elif transport.congested:
                async with transport.turn():  # a packet has no bytes before its turn
                    transport.write(self._encode(packet))
            elif self.decoder.has_more and not transport.get_unsent_size():
                # On top of bytes that the kernel does not take, to gather would save nothing, and
                # hide them from the transport's high-water mark.
                self._begin_to_gather(self._encode(packet))
            else:
                transport.write(self._encode(packet))
            if transport.congested:
                await transport.drain()
        except ConnectionError as exc:
            raise self._explained(exc) from exc.__cause__

    async def send_packet_with_ancillary(
        self, packet: Any, ancillary_data: RawAncillary, /
    ) -> None:
        if self._options.ancillary_bufsize is None:
            await super().send_packet_with_ancillary(packet, ancillary_data)
        if self.is_closed:
            raise tag_with_client(self, ClientClosedError("Closed client"))
        encode = partial(self._encode, packet)
        try:
            self.flush()
            await self.transport.send_with_ancillary(encode, ancillary_data)
        except ConnectionError as exc:
            raise self._explained(exc) from exc.__cause__

    def _explained(self, exc: ConnectionError) -> ConnectionError:
        """Return the error of an operation that was going on when the connection ended."""
        if self.is_closed:
            closed = ClientClosedError("Closed client")
            closed.__cause__ = exc
            exc = closed
        return tag_with_client(self, exc)

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
        with suppress(ConnectionError):  # reported to the next operation on the connection
            self.flush()

    def flush(self) -> None:
        """Send what was gathered.

        Raises:
            ConnectionError: The connection broke.
        """
        if self.gathered:
            data, self.gathered = self.gathered, bytearray()
            self.transport.write(data)

    def discard_input(self) -> None:
        """Drop received data, now and from now on."""
        self.transport.feed = discard
        self.decoder.clear()

    async def aclose(self) -> None:
        with suppress(ConnectionError):
            self.flush()
        self.is_closed = True
        has_unread = bool(self.decoder)
        self.discard_input()
        await self.transport.aclose(linger=has_unread)


def tag_with_client(client: ServedClient, exc: ConnectionError) -> ConnectionError:
    """Mark an error as coming from an operation on this client, and keep the client alive."""
    vars(exc)["_easynetwork_client"] = client
    return exc


def came_from_client(client: ServedClient, exc: BaseException) -> bool:
    """Whether an exception that left a handler came from an operation on this client."""
    return getattr(exc, "__dict__", {}).get("_easynetwork_client") is client
