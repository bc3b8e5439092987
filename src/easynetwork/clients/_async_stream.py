"""The base of asynchronous clients with a connection: packets over a stream transport."""

from __future__ import annotations

import socket
import ssl as _ssl  # the parameters of this name hide the module
from typing import Any

from easynetwork._arguments import validated_max_recv_size
from easynetwork._tls_options import TLSOptions, required_client_tls
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import StreamTransport
from easynetwork.backends.tls_transport import Received, TLSStreamTransport, start_tls
from easynetwork.clients._async_client import AsyncClient, closed_error
from easynetwork.clients._errors import aborted, ended
from easynetwork.codec import codec_of, new_codec
from easynetwork.exceptions import BusyResourceError, UnsupportedOperation
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType


class BaseAsyncStreamClient(AsyncClient[_T_Sent, _T_Received, StreamTransport]):
    """A client that sends and receives packets over a stream transport."""

    __slots__ = ("_decoder", "_encode", "_has_sent_eof", "_max_recv_size", "_tls")

    def __init__(
        self,
        target: Any,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
        max_recv_size: int | None,
        tls: TLSOptions | None,
    ) -> None:
        self._max_recv_size = validated_max_recv_size(max_recv_size)
        codec = new_codec(protocol, self._max_recv_size)
        super().__init__(target, backend)
        self._decoder, self._encode = codec.new_decoder(), codec.encode
        self._tls = tls
        self._has_sent_eof = False

    # -- the connection

    async def _wrap(self, sock: socket.socket) -> StreamTransport:
        transport = self._backend.wrap_stream_socket(sock, self._decoder.feed, self._max_recv_size)
        return await start_tls(transport, self._tls) if self._tls else transport

    async def _close(self, transport: StreamTransport) -> None:
        await transport.aclose(linger=bool(self._decoder))

    # -- packets

    async def send_packet(self, packet: _T_Sent) -> None:
        transport = await self._connected()
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        try:
            if transport.congested:
                encode = self._encode  # the protocol may change before its turn, and TLS begin
                async with transport.turn():  # a packet has no bytes before its turn
                    (self._transport or transport).write(encode(packet))
            else:
                transport.write(self._encode(packet))
            if transport.congested:
                await transport.drain()
        except ConnectionError as exc:
            raise self._ended(exc) from exc.__cause__ or exc

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent. Receiving goes on.

        Does nothing if it was called before, or if the client is closed. After it, `send_packet()`
        raises `RuntimeError`.

        Raises:
            UnsupportedOperation: TLS cannot do that. The client can still be used.
            OSError: The client was not connected yet, and cannot be.
        """
        if not self._is_closing:
            transport = await self._connected()
            if self._tls is not None:  # also while start_tls() waits for its turn
                raise UnsupportedOperation("SSL/TLS API does not support sending EOF.")
            await transport.send_eof()
            self._has_sent_eof = True

    async def _receive(self, deadline: float) -> _T_Received:
        transport = await self._connected(deadline)
        await self._acquire_receiving(deadline)
        transport, decoder = self._transport or transport, self._decoder
        try:
            while (packet := decoder.take()) is NEED_DATA:
                try:
                    if decoder.refill():
                        await transport.give_way()
                    else:
                        await transport.receive(deadline)
                except (EOFError, ConnectionError) as exc:
                    if not (isinstance(exc, EOFError) and decoder.end_of_stream()):
                        raise self._ended(exc) from exc.__cause__ or exc
        finally:
            self._receiving.release()
        received: _T_Received = packet
        return received

    # -- a conversation that changes

    def set_protocol(self, protocol: AnyStreamProtocolType[Any, Any], /) -> None:
        self._check_changeable()
        codec = codec_of(protocol, self._max_recv_size)
        decoder = codec.new_decoder()
        decoder.succeed(self._decoder)
        self._decoder, self._encode = decoder, codec.encode
        if self._transport is not None:
            self._transport.feed = decoder.feed

    async def start_tls(
        self,
        ssl: _ssl.SSLContext | bool = True,
        /,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
    ) -> None:
        host = self._target[0] if isinstance(self._target, tuple) else None
        options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
        tls = required_client_tls(ssl, host, server_hostname, options)
        transport = await self._connected()
        self._check_changeable()
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        if isinstance(transport, TLSStreamTransport):
            raise RuntimeError("The connection uses TLS already")
        self._decoder.unread()  # it raises an exception, or will not later
        self._receiving.acquire_nowait()
        self._tls = tls
        try:
            await start_tls(transport, tls, self._begin_tls)
        except BaseException as exc:
            if self._is_closing and isinstance(exc, ConnectionError):
                raise closed_error() from exc
            self._is_closing = True
            self._decoder.clear()  # maybe it was not its turn yet
            raise
        finally:
            self._receiving.release()

    def _begin_tls(self, transport: TLSStreamTransport) -> Received:
        self._transport = transport
        return self._decoder.hand_over()

    def _check_changeable(self) -> None:
        if self._is_closing:
            raise closed_error()
        if self._receiving.locked() or self._connecting.locked():
            raise BusyResourceError("Another task is using the client")

    def _ended(self, exc: BaseException) -> ConnectionError:
        if self._is_closing:
            return closed_error()
        if isinstance(exc, EOFError):
            return ended()
        return aborted()
