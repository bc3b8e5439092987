"""Ancillary data of a Unix stream: descriptors and credentials that come with its bytes.

The kernel ties ancillary data to the first byte that it was sent with, and hands it over with the
read that returns this byte. A read without room for it drops it, and closes descriptors
(:manpage:`unix(7)`). So it is read only on demand, and nothing of it waits in a transport.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from easynetwork.addresses._ancillary import AncillaryCallback, RawAncillary
from easynetwork.backends.abc import StreamTransport, broken_connection
from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import UnsupportedOperation
from easynetwork.parsers import NEED_DATA
from easynetwork.sockets.messages import MessageReader, too_long_for_ancillary

if TYPE_CHECKING:
    from easynetwork.backends.stream_transport import SocketStreamTransport


async def receive_with_ancillary(
    transport: SocketStreamTransport, bufsize: int, received: AncillaryCallback, deadline: float
) -> None:
    """Implement `StreamTransport.receive_with_ancillary`."""
    _check_supported(transport)
    feed = transport.feed
    reader = MessageReader(transport.socket, bufsize, received)

    def feed_once(data: bytes) -> bool:
        transport.feed, transport._source = feed, transport.socket
        feed(data)
        return True  # whether or not a packet is complete

    transport.feed, transport._source = feed_once, reader
    try:
        while transport.feed is feed_once:  # receive() returns when the connection ends, too
            await transport.receive(deadline)
    finally:
        transport._source = transport.socket
        if transport.feed is feed_once:  # nothing came; and not `discard`, after aclose()
            transport.feed = feed
    if reader.error is not None:
        raise reader.error


async def send_with_ancillary(
    transport: SocketStreamTransport, encode: Callable[[], bytes], ancillary: RawAncillary
) -> int:
    """Implement `StreamTransport.send_with_ancillary`."""
    _check_supported(transport)
    async with transport.turn():
        transport.congested = True  # other senders wait for their turns, too
        data = encode()
        if error := too_long_for_ancillary(transport.socket, data):
            raise error
        while (sent := await _try_to_send(transport, data, ancillary)) is None:
            _watch(transport)
        if sent < len(data):
            transport.write(data[sent:])
        return len(data)


async def _try_to_send(
    transport: SocketStreamTransport, data: bytes, ancillary: RawAncillary
) -> int | None:
    """Send at least the first byte, after all earlier ones; None if the kernel has no room."""
    while transport._all_sent is not None:
        await transport._all_sent.wait()
    if transport.is_closing():
        raise broken_connection(transport._error)
    try:
        return transport.socket.sendmsg([data], ancillary)
    except BlockingIOError:
        return None
    except ConnectionError as exc:
        transport._break_sending(exc)
        raise broken_connection(exc) from None


def _watch(transport: SocketStreamTransport) -> None:
    """Have `_all_sent` set when the kernel has room again, as if nothing were waiting to be sent.

    So there is only one that waits for the socket, also if another task writes meanwhile, and the
    limits of sending hold.
    """
    transport._unsent = memoryview(b"")
    transport._all_sent = anyio.Event()
    transport._send_later()
    transport.observer.note_unsent()


def _check_supported(transport: SocketStreamTransport) -> None:
    if transport.socket.family != getattr(socket, "AF_UNIX", None):
        raise UnsupportedOperation("This transport does not have ancillary data support.")


def encode_in_clear(
    encode: Callable[[], bytes], get_transport: Callable[[], StreamTransport | None]
) -> Callable[[], bytes]:
    """Return what makes the bytes of a packet when its turn has come, unless TLS has begun by then.

    Args:
        encode: Makes the bytes.
        get_transport: Returns the connection's transport. Another one than now is TLS.

    Raises:
        UnsupportedOperation: TLS has begun: what goes with ancillary data would not be encrypted.
            (Of the function that is returned.)
    """
    transport = get_transport()

    def encode_now() -> bytes:
        if get_transport() is not transport:
            raise UnsupportedOperation("TLS has begun, which does not have ancillary data support.")
        return encode()

    return encode_now


async def take_received(decoder: StreamDecoder, transport: StreamTransport) -> Any:
    """Return a packet of what has been received already, or `NEED_DATA`."""
    while (packet := decoder.take()) is NEED_DATA and decoder.refill():
        await transport.give_way()
    return packet
