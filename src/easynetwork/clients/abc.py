"""What every client promises, whatever it talks to."""

from __future__ import annotations

__all__ = ["AbstractAsyncNetworkClient", "AbstractNetworkClient"]

import ssl as _ssl  # the parameters of this name hide the module
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Generic, Self

from easynetwork._arguments import validated_delay
from easynetwork._typevars import Received, Sent
from easynetwork.backends import AsyncBackend
from easynetwork.clients._iterators import OVER, AsyncPacketIterator, PacketIterator
from easynetwork.exceptions import UnsupportedOperation
from easynetwork.protocol import AnyStreamProtocolType


class AbstractAsyncNetworkClient(ABC, Generic[Sent, Received]):
    """A client inside an asynchronous program.

    It is *new*, then *connected* (from `wait_connected()` on), and in the end *closed*. Methods
    must be called in the event loop's thread, by any task.
    """

    __slots__ = ("__weakref__",)

    async def __aenter__(self) -> Self:
        """Call `wait_connected()`."""
        await self.wait_connected()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Call `aclose()`."""
        await self.aclose()

    @abstractmethod
    def is_connected(self) -> bool:
        """Whether the client has been connected. Stays true when the connection ends."""

    @abstractmethod
    async def wait_connected(self) -> None:
        """Connect. Does nothing if the client is connected.

        Tasks that call this at the same time wait for the same attempt. If it fails, the client is
        as new, and this may be tried again.

        Raises:
            ClientClosedError: The client is closed.
            OSError: No connection can be made.
        """

    @abstractmethod
    def is_closing(self) -> bool:
        """Whether `aclose()` has been called."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the client for good; what was sent still arrives. May be called several times.

        Tasks that wait for the connection or for a packet get a `ClientClosedError`.

        Over a connection, this waits until the kernel has taken what was sent, for at most 30
        seconds, or `ssl_shutdown_timeout`. At this deadline, or if it is cancelled, the connection
        is reset. The kernel delivers what it has taken in the background.
        """

    @abstractmethod
    async def send_packet(self, packet: Sent) -> None:
        """Send a packet; connect first if needed. Several tasks may send at once.

        Over a connection, what the operating system does not take yet is sent in the background.
        While more than 64 KiB wait for that, the call waits for its turn before it hands over its
        packet, first come, first served. If it is cancelled before its turn, nothing was sent.
        After its turn, it waits until few enough bytes wait. If it is cancelled then, the packet is
        still sent, whole. In both cases, the client can still be used.

        Args:
            packet: What to send.

        Raises:
            ClientClosedError: The client is closed.
            OSError: The connection cannot be made, or it ended.
            ProtocolCrashedError: The protocol object cannot make bytes of the packet (the cause);
                nothing was sent.
        """

    @abstractmethod
    async def recv_packet(self) -> Received:
        """Wait for a packet and return it; connect first if need be.

        Several tasks may wait: each packet goes to one of them, in the order in which they asked.
        Nothing is lost when this is cancelled.

        Raises:
            ClientClosedError: The client is closed.
            EndOfStreamError: The peer has ended its side of the connection.
            OSError: The connection cannot be made, or it ended otherwise.
            BaseProtocolParseError: What was received is not a packet. The next call continues after
                it.
            ProtocolCrashedError: The protocol object has a bug (the cause).
        """

    def set_protocol(self, protocol: AnyStreamProtocolType[Any, Any], /) -> None:
        """Continue with another protocol object, in both directions.

        Bytes that were received, and not returned as packets, are parsed again by this one. None is
        lost or used twice, however the stream was cut. Packets that were sent before leave as they
        were.

        Args:
            protocol: Any stream protocol, with any serializer.

        Raises:
            TypeError: It is something else. Nothing has changed, here and in the next cases.
            RuntimeError: A generator of the current protocol object has got half a packet, which
                cannot be had back, or has failed.
            BusyResourceError: Another task waits for a packet, or the client is connecting.
            ClientClosedError: The client is closed.
            UnsupportedOperation: There is no connection.
        """
        raise UnsupportedOperation("Only clients with a connection have set_protocol()")

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
        """Continue over TLS, as the client.

        What was sent before leaves first, in clear text. Bytes that were received, and not returned
        as packets, are the beginning of the handshake. They are never parsed, so no packet can be
        injected into the encrypted conversation (CVE-2011-0411, CVE-2021-23214).

        Whatever ends the handshake early closes the client, which never continues in clear text.

        Args:
            ssl: What to trust, and everything else that can be chosen; True for
                `ssl.create_default_context()`.
            server_hostname: Whose certificate the server must have: the host that was asked for by
                default, "" for any host's.
            ssl_handshake_timeout: Seconds that the handshake may take. 60 by default.
            ssl_shutdown_timeout: Seconds that the server has, when the client is closed, to read
                what waits for it. 30 by default.
            ssl_standard_compatible: Whether the connection ends with a closing alert (RFC 8446,
                6.1). True by default.

        Raises:
            ssl.SSLError: The handshake failed. The server's certificate may be wrong, or it did not
                answer with TLS.
            TimeoutError: It took too long.
            ConnectionError: The connection ended.
            ClientClosedError: The client is closed.
            RuntimeError: The connection uses TLS already, `send_eof()` was called, or the input
                cannot be handed over: see `set_protocol()`. Nothing has changed, here and in the
                next cases.
            BusyResourceError: Another task waits for a packet, or the client is connecting.
            TypeError: `ssl` is not an `ssl.SSLContext` or True.
            ValueError: It is a server's, a timeout is negative or not a number, or it is not known
                whose certificate to expect.
            UnsupportedOperation: There is no connection.
        """
        raise UnsupportedOperation("Only clients with a connection have start_tls()")

    @abstractmethod
    async def _receive(self, deadline: float) -> Received:
        """Do what `recv_packet()` does, up to a deadline.

        Args:
            deadline: When to give up, on the event loop's clock, in seconds. One that has passed
                means that a packet is returned only if it has already been received, be it by the
                operating system alone.

        Raises:
            TimeoutError: The deadline has passed.
        """

    def iter_received_packets(self, *, timeout: float | None = 0) -> AsyncIterator[Received]:
        """Return an iterator over the packets that arrive in a given time.

        It ends, silently, when the time is up or when no packet can be received any more: at the
        first `OSError`. Other errors of `recv_packet()` are raised; the iterator continues after
        them. One task at a time may use it.

        Args:
            timeout: Seconds to wait, for all packets together; what happens between two packets
                does not count. 0 stands for what has already been received, None for no limit. With
                a negative number there are no packets.

        Raises:
            ValueError: `timeout` is not a number.
        """
        is_over = timeout is not None and timeout < 0
        return AsyncPacketIterator(self, OVER if is_over else validated_delay(timeout))

    @abstractmethod
    def backend(self) -> AsyncBackend:
        """Return the backend that the client runs on."""


class AbstractNetworkClient(ABC, Generic[Sent, Received]):
    """A client for programs, or threads, that wait.

    It is connected when it is made, and in the end *closed*. All methods may be called by any
    thread, at any time.
    """

    __slots__ = ("__weakref__",)

    def __enter__(self) -> Self:
        """Return the client, which is already connected."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Call `close()`."""
        self.close()

    @abstractmethod
    def is_closed(self) -> bool:
        """Whether `close()` has been called."""

    @abstractmethod
    def close(self) -> None:
        """Close the client for good; what was sent still arrives. May be called several times.

        Does not wait for a thread that is receiving: that one gets a `ClientClosedError`. Waits for
        a thread that is sending, for at most 30 seconds, or `ssl_shutdown_timeout`. If its packet
        has not left then, because the peer does not read, the connection is reset, and that thread
        gets a `ClientClosedError`, too. An exception of a signal handler, `KeyboardInterrupt` for
        example, ends the wait: the connection is reset, and the exception is raised.
        """

    @abstractmethod
    def send_packet(self, packet: Sent, *, timeout: float | None = None) -> None:
        """Send a packet. Several threads may send at once: packets are never mixed.

        Args:
            packet: What to send.
            timeout: Seconds until the packet has to be with the operating system, the time that
                other threads need to send theirs included. 0 does not wait; None is no limit.

        Raises:
            ClientClosedError: The client is closed.
            TimeoutError: The time is up. If a part of the packet was sent over a connection,
                nothing can be sent any more: see `TCPNetworkClient`.
            OSError: The connection ended.
            ProtocolCrashedError: The protocol object cannot make bytes of the packet (the cause);
                nothing was sent.
            ValueError: `timeout` is negative or not a number.
        """

    @abstractmethod
    def recv_packet(self, *, timeout: float | None = None) -> Received:
        """Wait for a packet and return it.

        Several threads may wait: each packet goes to one of them.

        Args:
            timeout: Seconds to wait for the whole packet, the time that other threads need to
                receive theirs included. 0 takes what has already been received; None is no limit.

        Raises:
            ClientClosedError: The client is closed.
            TimeoutError: The time is up. What has arrived of the packet is not lost.
            EndOfStreamError: The peer has ended its side of the connection.
            OSError: The connection ended otherwise.
            BaseProtocolParseError: What was received is not a packet. The next call continues after
                it.
            ProtocolCrashedError: The protocol object has a bug (the cause).
            ValueError: `timeout` is negative or not a number.
        """

    def iter_received_packets(self, *, timeout: float | None = 0) -> Iterator[Received]:
        """Return an iterator over the packets that arrive in a given time.

        It ends, silently, when the time is up or when no packet can be received any more: at the
        first `OSError`. Other errors of `recv_packet()` are raised; the iterator continues after
        them. One thread at a time may use it.

        Args:
            timeout: Seconds to wait, for all packets together; what happens between two packets
                does not count. 0 stands for what has already been received, None for no limit.

        Raises:
            ValueError: `timeout` is negative or not a number.
        """
        return PacketIterator(self, validated_delay(timeout))

    def set_protocol(self, protocol: AnyStreamProtocolType[Any, Any], /) -> None:
        """Continue with another protocol object, in both directions.

        Bytes that were received, and not returned as packets, are parsed again by this one. None is
        lost or used twice, however the stream was cut. Packets that were sent before leave as they
        were.

        Args:
            protocol: Any stream protocol, with any serializer.

        Raises:
            TypeError: It is something else. Nothing has changed, here and in the next cases.
            RuntimeError: A generator of the current protocol object has got half a packet, which
                cannot be had back, or has failed; or the exception of a signal handler has kept
                `recv_packet()` from returning a packet, which the next one returns.
            BusyResourceError: Another thread is using the client.
            ClientClosedError: The client is closed.
            UnsupportedOperation: There is no connection.
        """
        raise UnsupportedOperation("Only clients with a connection have set_protocol()")

    def start_tls(
        self,
        ssl: _ssl.SSLContext | bool = True,
        /,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
    ) -> None:
        """Continue over TLS, as the client.

        What was sent before leaves first, in clear text. Bytes that were received, and not returned
        as packets, are the beginning of the handshake. They are never parsed, so no packet can be
        injected into the encrypted conversation (CVE-2011-0411, CVE-2021-23214).

        Whatever ends the handshake early closes the client, which never continues in clear text.

        Args:
            ssl: What to trust, and everything else that can be chosen; True for
                `ssl.create_default_context()`.
            server_hostname: Whose certificate the server must have: the host that was asked for by
                default, "" for any host's.
            ssl_handshake_timeout: Seconds that the handshake may take. 60 by default.
            ssl_shutdown_timeout: Seconds that the server has, when the client is closed, to read
                what waits for it. 30 by default.
            ssl_standard_compatible: Whether the connection ends with a closing alert (RFC 8446,
                6.1). True by default.

        Raises:
            ssl.SSLError: The handshake failed. The server's certificate may be wrong, or it did not
                answer with TLS.
            TimeoutError: It took too long.
            ConnectionError: The connection ended.
            ClientClosedError: The client is closed.
            RuntimeError: The connection uses TLS already, `send_eof()` was called, or the input
                cannot be handed over: see `set_protocol()`. Nothing has changed, here and in the
                next cases.
            BusyResourceError: Another thread is using the client.
            TypeError: `ssl` is not an `ssl.SSLContext` or True.
            ValueError: It is a server's, a timeout is negative or not a number, or it is not known
                whose certificate to expect.
            UnsupportedOperation: There is no connection.
        """
        raise UnsupportedOperation("Only clients with a connection have start_tls()")

    @abstractmethod
    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 if the client is closed."""
