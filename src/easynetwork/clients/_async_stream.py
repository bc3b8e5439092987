"""The base of asynchronous clients with a connection: packets over a stream transport."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import anyio.lowlevel

from easynetwork._arguments import validated_max_recv_size
from easynetwork._tls_options import TLSOptions
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import StreamTransport
from easynetwork.backends.tls_transport import start_tls
from easynetwork.clients._async_client import AsyncClient, closed_error
from easynetwork.clients._errors import aborted, ended
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol


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
        check_stream_protocol(protocol)
        super().__init__(target, backend)
        self._max_recv_size = validated_max_recv_size(max_recv_size)
        self._decoder = new_decoder_factory(protocol, self._max_recv_size)()
        self._encode = packet_encoder(protocol)
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
                async with transport.turn():  # a packet has no bytes before its turn
                    transport.write(self._encode(packet))
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
            await transport.send_eof()
            self._has_sent_eof = True

    async def _receive(self, deadline: float) -> _T_Received:
        transport = await self._connected(deadline)
        decoder = self._decoder
        await self._acquire_receiving(deadline)
        try:
            while (packet := decoder.take()) is NEED_DATA:
                try:
                    if decoder.refill():
                        await anyio.lowlevel.checkpoint()
                    else:
                        await transport.receive(deadline)
                except (EOFError, ConnectionError) as exc:
                    raise self._ended(exc) from exc.__cause__ or exc
        finally:
            self._receiving.release()
        received: _T_Received = packet
        return received

    def _ended(self, exc: BaseException) -> ConnectionError:
        if self._is_closing:
            return closed_error()
        if isinstance(exc, EOFError):
            return ended()
        return aborted()
