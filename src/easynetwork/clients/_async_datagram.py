"""The base of asynchronous clients without a connection: one datagram for each packet."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel

from easynetwork._tuning import SEND_BUDGET_DATAGRAMS
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses._ancillary import RawAncillary
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import DatagramEndpoint
from easynetwork.clients._async_client import AsyncClient, LazyTransport, closed_error
from easynetwork.clients._errors import explain_descriptor
from easynetwork.codec import datagram_builder, datagram_encoder
from easynetwork.protocol import DatagramProtocol, check_datagram_protocol


class AsyncDatagrams(LazyTransport[DatagramEndpoint]):
    """Sends and receives packets over a datagram socket."""

    __slots__ = ("_build", "_encode", "_sending", "_sent_in_a_row")

    def __init__(
        self,
        target: Any,
        protocol: DatagramProtocol[Any, Any],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
    ) -> None:
        check_datagram_protocol(protocol)
        super().__init__(target, backend)
        self._build: Callable[[Any], Any] = datagram_builder(protocol)
        self._encode = datagram_encoder(protocol)
        self._sending = anyio.Lock(fast_acquire=True)
        self._sent_in_a_row = 0

    # -- the connection

    async def _wrap(self, sock: socket.socket) -> DatagramEndpoint:
        return self._backend.wrap_datagram_socket(sock)

    async def _close(self, transport: DatagramEndpoint) -> None:
        try:
            if self._sending.locked():
                async with self._sending:
                    pass  # tasks that are sending a packet are through
        finally:
            with suppress(OSError):  # other code has closed the descriptor
                transport.close()

    # -- packets

    async def _send(
        self, packet: Any, ancillary: RawAncillary | None = None, address: Any = None
    ) -> None:
        endpoint = await self._connected()
        data = self._encode(packet)
        self._sent_in_a_row += 1
        if self._sent_in_a_row > SEND_BUDGET_DATAGRAMS:
            self._sent_in_a_row = 1
            await anyio.lowlevel.checkpoint()
        try:
            if self._sending.locked() or not endpoint.send(data, address, ancillary):
                async with self._sending:
                    while not endpoint.send(data, address, ancillary):
                        await endpoint.writable()
            endpoint.raise_pending_error()
        except OSError as exc:
            if ancillary is None or self._is_closing:  # else, EBADF is about what was to be sent
                self._explain(exc)
            raise

    async def _receive(
        self, deadline: float, receive: Callable[[DatagramEndpoint], Awaitable[bytes]] | None = None
    ) -> Any:
        endpoint = await self._connected(deadline)
        await self._acquire_receiving(deadline)
        try:
            datagram = await (endpoint.receive(deadline) if receive is None else receive(endpoint))
        except OSError as exc:
            self._explain(exc)
            raise
        finally:
            self._receiving.release()
        return self._build(datagram)

    def _explain(self, exc: OSError) -> None:
        if self._is_closing:
            raise closed_error() from exc
        explain_descriptor(exc)


class BaseAsyncDatagramClient(AsyncDatagrams, AsyncClient[_T_Sent, _T_Received, DatagramEndpoint]):
    """A client that is connected to one peer."""

    __slots__ = ()
