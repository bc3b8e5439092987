"""A client for Unix streams, for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUnixStreamClient"]

import math
import os
import socket as _socket  # the property of this name hides the module inside the class
import ssl
from functools import partial

from easynetwork._arguments import validated_local_path
from easynetwork._tls_options import new_client_tls
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import StreamTransport
from easynetwork.backends.ancillary import encode_in_clear, take_received
from easynetwork.backends.tls_transport import TLSStreamTransport
from easynetwork.clients._addresses import UnixStreamNames
from easynetwork.clients._async_stream import BaseAsyncStreamClient
from easynetwork.clients._target import validated_unix_target
from easynetwork.clients._unix import LocalPath, collecting, validated_reception
from easynetwork.exceptions import UnsupportedOperation
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.unix import connect_unix


class AsyncUnixStreamClient(BaseAsyncStreamClient[_T_Sent, _T_Received], UnixStreamNames):
    """Sends and receives packets over a Unix stream. Not available on Windows.

    It is like `AsyncTCPNetworkClient`, except that packets may have ancillary data.
    """

    __slots__ = ("_credentials", "_local_path")

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress | _socket.socket,
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        local_path: str | os.PathLike[str] | bytes | UnixSocketAddress | None = None,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        max_recv_size: int | None = None,
    ) -> None:
        """Check the arguments; the connection is made later.

        Args:
            path: Where to connect to: a path or, on Linux, an abstract name (text or bytes that
                begin with a null character). Or a connected Unix stream socket, which belongs to
                the client from now on.
            protocol: The protocol object.
            backend: The backend, or its name; by default, the framework that is running.
            local_path: The name of this end; none by default. A path is removed when the client is
                closed. `""` is an abstract name that Linux chooses.
            ssl: Speak TLS, as this context says; True for `ssl.create_default_context()`.
            server_hostname: Whose certificate the server must have; needed with `ssl`. "" for any
                host's.
            ssl_handshake_timeout: Seconds that the handshake may take. 60 by default.
            ssl_shutdown_timeout: Seconds that the server has, when the client is closed, to take
                what waits for it. 30 by default.
            ssl_standard_compatible: Whether the connection ends with a closing alert (RFC 8446,
                6.1), and its absence is an error of its own. True by default.
            max_recv_size: The most bytes taken from the connection at a time. 64 KiB by default.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The socket is not connected.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        with close_on_error(path):
            local = validated_local_path(local_path)
            target = validated_unix_target(path, {"local_path": local}, _socket.SOCK_STREAM)
            tls_options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
            tls = new_client_tls(ssl, None, server_hostname, tls_options)
            super().__init__(target, protocol, backend, max_recv_size, tls)
        self._local_path = LocalPath(local)
        self._credentials = None

    async def _new_socket(self) -> _socket.socket:
        with self._local_path.new_socket(_socket.SOCK_STREAM) as sock:
            await connect_unix(sock, self._target)
            return sock

    async def _wrap(self, sock: _socket.socket) -> StreamTransport:
        try:
            return await super()._wrap(sock)
        except BaseException:
            self._local_path.remove()
            raise

    async def _close(self, transport: StreamTransport) -> None:
        self._local_path.remove()
        await super()._close(transport)

    async def send_packet(
        self, packet: _T_Sent, *, ancillary_data: SocketAncillary | None = None
    ) -> None:
        """Send a packet; connect first if need be.

        Args:
            packet: What to send.
            ancillary_data: Descriptors and credentials to send beside the first byte of the packet.
                When this returns, the kernel has the descriptors, and they may be closed here.

        Raises:
            UnsupportedOperation: There is ancillary data, and TLS is used.
            OSError: The packet is longer than the kernel takes at once with ancillary data
                (`EMSGSIZE`), or the kernel refuses this (`EBADF` for a closed descriptor). Nothing
                was sent.
            Exception: As `AbstractAsyncNetworkClient.send_packet()`.
        """
        if ancillary_data is None:
            return await super().send_packet(packet)
        transport = await self._connected()
        if self._has_sent_eof:
            raise RuntimeError("send_eof() has been called earlier")
        encode = encode_in_clear(partial(self._encode, packet), lambda: self._transport)
        try:
            await transport.send_with_ancillary(encode, ancillary_data.as_raw())
        except ConnectionError as exc:
            raise self._ended(exc) from exc.__cause__ or exc

    async def recv_packet(
        self, *, ancillary_data: SocketAncillary | None = None, ancillary_bufsize: int | None = None
    ) -> _T_Received:
        """Wait for a packet and return it; connect first if need be.

        With `ancillary_data`: if a packet is here already, it is returned without any. Otherwise
        the socket is read once, and what comes with the bytes is added, also what belongs to the
        next packet if both have arrived. The descriptors belong to the caller, who has to close
        them. What is not asked for is dropped, and its descriptors are closed.

        Args:
            ancillary_data: Where to add ancillary data.
            ancillary_bufsize: The most bytes of ancillary data; enough for Linux by default.

        Raises:
            EOFError: The packet is not complete after one read. Its bytes are kept for the next
                call.
            UnsupportedOperation: There is `ancillary_data`, and TLS is used.
            OSError: Ancillary data was cut off (`EMSGSIZE`). Its descriptors are closed.
            RuntimeError: Ancillary data could not be parsed (the cause).
            Exception: As `AbstractAsyncNetworkClient.recv_packet()`.
        """
        bufsize = validated_reception(ancillary_data, ancillary_bufsize)
        if ancillary_data is None:
            return await super().recv_packet()
        transport = await self._connected()
        await self._acquire_receiving(math.inf)
        try:
            transport = self._transport or transport
            if isinstance(transport, TLSStreamTransport):  # even if a packet is here already
                raise UnsupportedOperation("This transport does not have ancillary data support.")
            packet = await take_received(self._decoder, transport)
            if packet is NEED_DATA:
                with collecting(ancillary_data) as received:
                    await transport.receive_with_ancillary(bufsize, received)
                packet = await take_received(self._decoder, transport)
        except (EOFError, ConnectionError) as exc:
            raise self._ended(exc) from exc.__cause__ or exc
        finally:
            self._receiving.release()
        if packet is NEED_DATA:
            raise EOFError("Received partial packet data")
        result: _T_Received = packet
        return result
