"""A blocking client for Unix streams."""

from __future__ import annotations

__all__ = ["UnixStreamClient"]

import errno
import os
import socket as _socket  # the property of this name hides the module inside the class
import ssl
from functools import partial

from easynetwork._arguments import validated_local_path
from easynetwork._tls_options import new_client_tls
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.addresses._ancillary import RawAncillary
from easynetwork.clients._addresses import UnixStreamNames
from easynetwork.clients._blocking_stream import BlockingStreamClient
from easynetwork.clients._target import validated_unix_target
from easynetwork.clients._unix import LocalPath, collecting, validated_reception
from easynetwork.clients._waiting import NO_WAIT
from easynetwork.exceptions import UnsupportedOperation
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.messages import MessageReader, too_long_for_ancillary


class UnixStreamClient(BlockingStreamClient[_T_Sent, _T_Received], UnixStreamNames):
    """Sends and receives packets over a Unix stream. Not available on Windows.

    It is like `TCPNetworkClient`, except that packets may have ancillary data.
    """

    __slots__ = ("_credentials", "_local_path")

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress | _socket.socket,
        /,
        protocol: AnyStreamProtocolType[_T_Sent, _T_Received],
        *,
        connect_timeout: float | None = None,
        local_path: str | os.PathLike[str] | bytes | UnixSocketAddress | None = None,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        max_recv_size: int | None = None,
        retry_interval: float = 1.0,
    ) -> None:
        """Connect.

        Args:
            path: Where to connect to: a path or, on Linux, an abstract name (text or bytes that
                begin with a null character). Or a connected Unix stream socket, which belongs to
                the client from now on.
            protocol: The protocol object.
            connect_timeout: Seconds that a busy server has to accept the connection; None for no
                limit.
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
            retry_interval: Seconds after which a waiting thread looks whether the client has been
                closed, should the kernel not tell it.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The connection cannot be made, or the socket is not connected. If TLS fails, an
                `ssl.SSLError`.
        """
        with close_on_error(path):
            check_stream_protocol(protocol)
            local = validated_local_path(local_path)
            options = {"connect_timeout": connect_timeout, "local_path": local}
            target = validated_unix_target(path, options, _socket.SOCK_STREAM)
            tls_options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
            tls = new_client_tls(ssl, None, server_hostname, tls_options)
            self._local_path = LocalPath(local)
            self._credentials = None
            connect = partial(
                self._local_path.connect, target, _socket.SOCK_STREAM, connect_timeout
            )
            try:
                super().__init__(protocol, connect, max_recv_size, retry_interval, tls)
            except BaseException:
                self._local_path.remove()
                raise

    def _close_descriptor(self) -> None:
        self._local_path.remove()
        super()._close_descriptor()

    def send_packet(
        self,
        packet: _T_Sent,
        *,
        timeout: float | None = None,
        ancillary_data: SocketAncillary | None = None,
    ) -> None:
        """Send a packet.

        Args:
            packet: What to send.
            timeout: The most seconds to wait; None for no limit.
            ancillary_data: Descriptors and credentials to send beside the first byte of the packet.
                When this returns, the kernel has the descriptors, and they may be closed here.

        Raises:
            UnsupportedOperation: There is ancillary data, and TLS is used.
            OSError: The packet is longer than the kernel takes at once with ancillary data
                (`EMSGSIZE`), or the kernel refuses this (`EBADF` for a closed descriptor). Nothing
                was sent.
            Exception: As `AbstractNetworkClient.send_packet()`.
        """
        if ancillary_data is None:
            return super().send_packet(packet, timeout=timeout)
        send = partial(self._send_with_ancillary, ancillary_data.as_raw())
        self._run_sending(send, packet, timeout)

    def _send_with_ancillary(
        self, ancillary: RawAncillary, packet: _T_Sent, deadline: float
    ) -> None:
        self._check_ancillary()
        self._check_can_send()
        data = self._encode(packet)
        if error := too_long_for_ancillary(self._socket, data):
            raise error
        while True:
            self._check_open()
            try:
                self._partial_packet_sent = True
                sent = self._socket.sendmsg([data], ancillary, NO_WAIT)
                break
            except BlockingIOError:
                self._partial_packet_sent = False
                self._wait_writable(deadline)
            except OSError as exc:
                self._partial_packet_sent = exc.errno is None
                if isinstance(exc, ConnectionError) or exc.errno == errno.ENOTCONN:
                    self._explain(exc)
                raise
        if sent < len(data):
            self._write(data[sent:], deadline, True)
        self._partial_packet_sent = False

    def recv_packet(
        self,
        *,
        timeout: float | None = None,
        ancillary_data: SocketAncillary | None = None,
        ancillary_bufsize: int | None = None,
    ) -> _T_Received:
        """Wait for a packet and return it.

        With `ancillary_data`: if a packet is here already, it is returned without any. Otherwise
        the socket is read once, and what comes with the bytes is added, also what belongs to the
        next packet if both have arrived. The descriptors belong to the caller, who has to close
        them. What is not asked for is dropped, and its descriptors are closed.

        Args:
            timeout: The most seconds to wait; None for no limit.
            ancillary_data: Where to add ancillary data.
            ancillary_bufsize: The most bytes of ancillary data; enough for Linux by default.

        Raises:
            EOFError: The packet is not complete after one read. Its bytes are kept for the next
                call.
            UnsupportedOperation: There is `ancillary_data`, and TLS is used.
            OSError: Ancillary data was cut off (`EMSGSIZE`). Its descriptors are closed.
            RuntimeError: Ancillary data could not be parsed (the cause).
            Exception: As `AbstractNetworkClient.recv_packet()`.
        """
        bufsize = validated_reception(ancillary_data, ancillary_bufsize)
        if ancillary_data is None:
            return super().recv_packet(timeout=timeout)
        receive = partial(self._receive_with_ancillary, ancillary_data, bufsize)
        return self._run_receiving(receive, timeout)

    def _receive_with_ancillary(
        self, ancillary_data: SocketAncillary, bufsize: int, deadline: float
    ) -> _T_Received:
        self._check_ancillary()
        packet = self._take()
        if packet is NEED_DATA:
            with collecting(ancillary_data) as received:
                reader = MessageReader(self._socket, bufsize, received)
                self._fill(deadline, reader.recv)
            if reader.error is not None:
                raise reader.error
            packet = self._take()
        if packet is NEED_DATA:
            raise EOFError("Received partial packet data")
        result: _T_Received = packet
        return result

    def _check_ancillary(self) -> None:
        if self._tls is not None:
            raise UnsupportedOperation("This transport does not have ancillary data support.")
