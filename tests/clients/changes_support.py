"""What the tests of clients whose conversation changes share: clients of all kinds, for a thread.

The test's thread is the other end, a plain socket; it calls asynchronous clients through a portal.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread

from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from tests.clients.threads_support import InThread
from tests.times import PATIENCE

LF: StreamProtocol[Any, Any] = StreamProtocol(StringLineSerializer())


class Blocking:
    """A blocking client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def send(self, packet: Any, timeout: float = PATIENCE) -> None:
        self.client.send_packet(packet, timeout=timeout)

    def receive(self, timeout: float = PATIENCE) -> Any:
        return self.client.recv_packet(timeout=timeout)

    def set_protocol(self, protocol: Any) -> None:
        self.client.set_protocol(protocol)

    def start_tls(self, *args: Any, **options: Any) -> None:
        self.client.start_tls(*args, **options)

    def send_eof(self) -> None:
        self.client.send_eof()

    def close(self) -> None:
        self.client.close()

    def is_closed(self) -> bool:
        return bool(self.client.is_closed())

    def is_receiving(self) -> bool:
        return bool(self.client._locks.receiving.is_taken)

    def is_in_handshake(self) -> bool:
        return bool(self.client._tls is not None)


class Async:
    """An asynchronous client, called through a portal into its event loop."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal, client: Any) -> None:
        self.portal = portal
        self.client = client

    def _call(self, function: Callable[..., Any], *args: Any, timeout: float = PATIENCE) -> Any:
        async def call() -> Any:
            with anyio.fail_after(timeout):
                return await function(*args)

        return self.portal.call(call)

    def send(self, packet: Any, timeout: float = PATIENCE) -> None:
        self._call(self.client.send_packet, packet, timeout=timeout)

    def receive(self, timeout: float = PATIENCE) -> Any:
        return self._call(self.client.recv_packet, timeout=timeout)

    def set_protocol(self, protocol: Any) -> None:
        self.portal.call(self.client.set_protocol, protocol)

    def start_tls(self, *args: Any, **options: Any) -> None:
        self._call(lambda: self.client.start_tls(*args, **options))

    def send_eof(self) -> None:
        self._call(self.client.send_eof)

    def close(self) -> None:
        self._call(self.client.aclose)

    def is_closed(self) -> bool:
        return bool(self.client.is_closing())

    def is_receiving(self) -> bool:
        return bool(self.client._receiving.locked())

    def is_in_handshake(self) -> bool:
        return self.is_receiving()


class Kind:
    """A kind of client.

    Args:
        family: "tcp" or "unix".
        loop: The event loop of an asynchronous client, None for a blocking one.
    """

    def __init__(self, family: str, loop: tuple[str, dict[str, Any]] | None) -> None:
        self.family = family
        self.loop = loop
        self.is_blocking = loop is None

    @contextlib.contextmanager
    def open(self, host: str = "localhost", **options: Any) -> Iterator[tuple[Any, socket.socket]]:
        """Yield a client and its other end; close both in the end."""
        with contextlib.ExitStack() as stack:
            listener, target = self._listen(stack, host)
            connect = self._new_client(stack)
            client = connect(target, options.pop("protocol", LF), **options)
            stack.callback(client.close)
            peer, _ = listener.accept()
            stack.enter_context(peer)
            peer.settimeout(PATIENCE)
            yield client, peer

    def _listen(self, stack: contextlib.ExitStack, host: str) -> tuple[socket.socket, Any]:
        if self.family == "unix":
            path = stack.enter_context(tempfile.TemporaryDirectory(prefix="unix-")) + "/socket"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()
            target: Any = path
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            target = host, listener.getsockname()[1]
        listener.settimeout(PATIENCE)
        return listener, target

    def _new_client(self, stack: contextlib.ExitStack) -> Callable[..., Any]:
        if self.loop is None:
            cls: Any = TCPNetworkClient if self.family == "tcp" else UnixStreamClient
            return lambda *args, **options: Blocking(cls(*args, **options))
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal(*self.loop))
        async_cls: Any = AsyncTCPNetworkClient if self.family == "tcp" else AsyncUnixStreamClient

        async def connect(*args: Any, **options: Any) -> Any:
            client = async_cls(*args, **options)
            await client.wait_connected()
            return client

        return lambda *args, **options: Async(
            portal, portal.call(lambda: connect(*args, **options))
        )


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def receiving(client: Any) -> InThread:
    """Return a thread that waits for a packet."""
    thread = InThread(client.receive)
    wait_until(client.is_receiving)
    if isinstance(client, Blocking):
        thread.waits_for_socket()
    return thread


def read_exactly(peer: socket.socket, size: int) -> bytes:
    """Return so many of the bytes that arrive."""
    data = b""
    while len(data) < size:
        chunk = peer.recv(size - len(data))
        assert chunk, data
        data += chunk
    return data


def read_all(peer: socket.socket) -> bytes:
    """Return all bytes that arrive, whatever the end."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := peer.recv(1 << 16):
            data += chunk
    return data
