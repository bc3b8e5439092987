"""TLS on top of any stream transport.

Ciphertext that the inner transport feeds is decrypted on the spot, and fed to the owner:
one chunk in, at most one chunk out, and no task or wake-up in between. So everything that the inner
transport promises (back-pressure, deadlines, nothing lost when cancelled) holds here as well. What
is sent is encrypted at once; a chunk of answers is still one write.
"""

from __future__ import annotations

import errno
import math
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeAlias

import anyio

from easynetwork._tls_options import TLSOptions
from easynetwork._typevars import _T
from easynetwork.addresses import TLSAttribute
from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.backends.abc import StreamTransport, broken_connection, discard
from easynetwork.backends.abc.stream import Farewell, Feed, PaceObserver
from easynetwork.exceptions import TypedAttributeLookupError, UnsupportedOperation
from easynetwork.serializers.framing.framers import Overrun
from easynetwork.tls import PIECE_SIZE, pieces

Received: TypeAlias = tuple[bytes, Overrun | None]
"""Bytes, and what of those that follow is to be dropped: see `StreamDecoder.unread()`."""


async def start_tls(
    inner: StreamTransport,
    options: TLSOptions,
    take_over: Callable[[TLSStreamTransport], Received] = lambda _: (b"", None),
) -> TLSStreamTransport:
    """Do a TLS handshake over a connection, and return the transport of the decrypted bytes.

    Until the handshake is complete, other tasks wait for their turn to send.

    Args:
        inner: The connection. It belongs to the new transport, which takes its feed function from
            it; it is closed if this fails.
        options: Everything about TLS.
        take_over: Called with the new transport when everything has been written that has to leave
            before. Returns what has been received and belongs to TLS, as `StreamDecoder.unread()`.

    Raises:
        ssl.SSLError: The handshake failed.
        ConnectionError: The connection broke, or the peer left.
        TimeoutError: The handshake took too long.
    """
    transport: StreamTransport = inner
    timeout = options.handshake_timeout
    try:
        with anyio.fail_after(timeout):
            async with inner.turn():
                transport = tls = TLSStreamTransport(inner, options)
                await tls.handshake(*take_over(tls))
    except (ssl.SSLError, ConnectionError):
        await transport.aclose()  # in good order: an alert may tell the peer why
        raise
    except TimeoutError:
        transport.abort()
        await transport.aclose()
        message = f"The TLS handshake took longer than {timeout} seconds"
        raise TimeoutError(errno.ETIMEDOUT, message) from None
    except BaseException:
        transport.abort()
        with anyio.CancelScope(shield=True):
            await transport.aclose()
        raise
    return tls


class TLSStreamTransport(StreamTransport):
    """A TLS connection.

    Attributes:
        is_truncated: Whether the peer left without the closing alert that it should have sent.
        error: What the peer did against the rules of TLS, if it did; the connection is broken then.
    """

    __slots__ = (
        *("_has_stopped", "_inner", "_is_closing", "_options", "_overrun", "_session", "address"),
        *("feed", "is_truncated", "local_address"),
    )

    def __init__(self, inner: StreamTransport, options: TLSOptions) -> None:
        timeout = options.shutdown_timeout
        self.close_timeout: float = inner.close_timeout if timeout is None else timeout
        self.feed: Feed = inner.feed
        self.local_address: AnySocketAddress = inner.local_address
        self.address: AnySocketAddress = inner.address
        self.is_truncated: bool = False
        self._inner = inner
        self._options = options
        self._session = options.new_session()
        self._is_closing = False
        self._has_stopped = False  # nothing is received any more, by our own decision
        self._overrun: Overrun | None = None
        inner.feed = self._feed_handshake

    @property
    def congested(self) -> bool:  # type: ignore[override]  # not to be set here
        return self._inner.congested

    @property
    def has_lost_descriptor(self) -> bool:  # type: ignore[override]  # as above
        return self._inner.has_lost_descriptor

    @property
    def observer(self) -> PaceObserver:
        return self._inner.observer

    @observer.setter
    def observer(self, observer: PaceObserver) -> None:
        self._inner.observer = observer

    @property
    def has_partial(self) -> bool:
        return self._session.is_peer_sending

    @property
    def has_given_up(self) -> bool:  # type: ignore[override]  # as above
        return self._inner.has_given_up

    @property
    def error(self) -> ssl.SSLError | None:
        return self._session.error

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        tls = self._session.object
        return {
            **self._inner.extra_attributes,
            TLSAttribute.sslcontext: lambda: tls.context,
            TLSAttribute.peercert: lambda: _known(tls.getpeercert()),
            TLSAttribute.cipher: lambda: _known(tls.cipher()),
            TLSAttribute.compression: lambda: _known(tls.compression()),
            TLSAttribute.alpn_protocol: lambda: _known(tls.selected_alpn_protocol()),
            TLSAttribute.tls_version: lambda: _known(tls.version()),
            TLSAttribute.standard_compatible: lambda: self._options.standard_compatible,
        }

    # -- the handshake

    async def handshake(self, received: bytes, overrun: Overrun | None) -> None:
        """Do the handshake; to be called once, before anything else. See `start_tls`.

        Args:
            received: The first bytes of the peer's part.
            overrun: What of the bytes to come is not yet part of the handshake.
        """
        self._overrun = overrun
        if received:
            self._feed_handshake(received)
        try:
            while not self._go_on():
                await self._inner.receive()
        except (EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            message = "The peer left during the TLS handshake"
            raise ConnectionAbortedError(errno.ECONNABORTED, message) from exc
        self._inner.feed = self._feed_ciphertext
        self._feed_ciphertext(b"")

    def _go_on(self) -> bool:
        try:
            return self._session.handshake()
        finally:
            self._send_output()

    def _feed_handshake(self, data: bytes) -> bool:
        if self._overrun is not None:
            data, self._overrun = self._overrun.cut(data)
        self._session.receive(data)
        return True

    def _send_output(self) -> None:
        with suppress(ConnectionError):  # reported to the next operation
            if output := self._session.take_output():
                self._inner.write(output)

    # -- receiving

    def _feed_ciphertext(self, data: bytes) -> int:
        session = self._session
        plaintext = session.receive(data)
        if session.has_output and not self._inner.congested:
            self._send_output()
        packets = self.feed(plaintext) if plaintext else 0
        return packets or session.is_over

    async def receive(self, deadline: float = math.inf) -> None:
        if self._session.is_over and not self._is_closing:
            if self._session.error is not None:
                raise broken_connection(self._session.error)
            raise EOFError
        if self._session.is_peer_sending:  # may have come together with something complete
            self._inner.observer.note_partial()
        try:
            await self._inner.receive(deadline)
        except EOFError:
            is_ours = self._is_closing or self._has_stopped
            is_to_be_announced = self._options.standard_compatible and not is_ours
            error = self._session.end_error() if is_to_be_announced else None
            if error is None:
                raise
            self.is_truncated = True
            raise broken_connection(error) from error

    def has_unread(self) -> bool:
        return self._session.is_peer_sending or self._inner.has_unread()

    def stop_receiving(self) -> None:
        self._has_stopped = True
        self._inner.stop_receiving()

    # -- sending

    def write(self, data: bytes | bytearray) -> int:
        if self._session.error is not None:
            raise broken_connection(self._session.error)
        try:
            if len(data) <= PIECE_SIZE:
                self._inner.write(self._session.send(data))
            else:
                for piece in pieces(data):
                    self._inner.write(self._session.send(piece))
        except ssl.SSLError as exc:
            raise broken_connection(exc) from exc
        return len(data)

    def turn(self) -> AbstractAsyncContextManager[None]:
        return self._inner.turn()

    async def drain(self) -> None:
        await self._inner.drain()

    async def give_way(self) -> None:
        await self._inner.give_way()

    def get_unsent_size(self) -> int:
        return self._inner.get_unsent_size()

    def get_progress(self) -> tuple[int, int] | None:
        return self._inner.get_progress()

    def make_room(self, high_water: int) -> bool:
        return self._inner.make_room(high_water)

    def limit_sending(self, timeout: float) -> None:
        self._inner.limit_sending(timeout)

    async def send_eof(self) -> None:
        raise UnsupportedOperation("SSL/TLS API does not support sending EOF.")

    # -- closing

    async def aclose(
        self, *, timeout: float | None = None, linger: bool = False, farewell: Farewell = None
    ) -> None:
        """Close gracefully, with a closing alert if the connection is to be standard compatible.

        It does not wait for the peer's (RFC 8446, 6.1): a peer that reads ours has read everything.
        It waits for data that the peer is in the middle of sending.
        """
        self._stop()
        session = self._session
        may_peer_send = session.error is not None or not session.is_over
        linger = may_peer_send and (linger or session.is_peer_sending)
        if timeout is None:
            timeout = self.close_timeout
        await self._inner.aclose(timeout=timeout, linger=linger, farewell=self._send_close_notify)

    def _send_close_notify(self) -> None:
        if self._options.standard_compatible and self._session.error is None:
            with suppress(ConnectionError):
                self._inner.write(self._session.close())

    def abort(self) -> None:
        self._stop()
        self._inner.abort()

    def _stop(self) -> None:
        self._is_closing = True
        self._inner.feed = discard  # otherwise, the two would refer to each other for ever

    def is_closing(self) -> bool:
        return self._is_closing or self._session.error is not None or self._inner.is_closing()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._inner.call_soon(callback)


def _known(value: _T | None) -> _T:
    if value is None:
        raise TypedAttributeLookupError("value not available")
    return value
