"""The page with all messages: those in a client.

Each test provokes messages, and does what the page says of them. See `message_support`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from easynetwork import socketserver as ours
from easynetwork.clients import (
    AsyncTCPNetworkClient,
    TCPNetworkClient,
    UDPNetworkClient,
)
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.testing import serve, virtual_time
from tests.clients.threads_support import wait_until
from tests.docs.howto_support import check_quotations
from tests.docs.memory_support import LINES, Obedient, play
from tests.docs.message_support import Seen
from tests.networks import own_network
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the texts are those of Linux")

PAGE = "troubleshooting.rst"
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())


def closed_port() -> int:
    """Return a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def new_client(host: str = "127.0.0.1", port: int = 9, **options: Any) -> Any:
    return TCPNetworkClient((host, port), LINES, **options)


# -- connecting


def test_refused(unix_path: str) -> None:
    """No program listens.

    "ConnectionRefusedError: cannot connect to ..., port ...:" "Connection refused"

    ConnectionRefusedError: "Connect call failed ...:" "Connection refused"

    "No program listens there."

    "For a Unix socket, the server has ended, and its file is still there."

    "ExceptionGroup: create_connection() failed"

    "The group is the cause of the exception, and has each attempt."
    """
    seen = Seen()
    error: Any = seen.calls(new_client, "127.0.0.1", closed_port())
    group = error.__cause__
    seen.note(group)
    assert len(group.exceptions) == 1
    seen.note(group.exceptions[0])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(unix_path)
        sock.listen()
    assert os.path.exists(unix_path)
    seen.calls(UnixStreamClient, unix_path, LINES)
    seen.check(test_refused)


def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not answer.

    "TimeoutError: cannot connect to ..., port ...:" "Connection timed out"

    TimeoutError: "Connect call failed ...:" "Connection timed out"

    "There was no answer at all."
    """
    seen = Seen()
    # What connect(2) says after two minutes.
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *args: errno.ETIMEDOUT)
    error: Any = seen.calls(new_client)
    seen.note(error.__cause__.exceptions[0])
    seen.check(test_no_answer)


def test_no_way() -> None:
    """A network to which there is no way.

    "OSError: cannot connect to ..., port ...:" "No route to host"

    "OSError: cannot connect to ..., port ...:" "Network is unreachable"

    "There is no way to this address, or a firewall refuses it. It is common for IPv6 addresses in
    a network without IPv6."
    """
    seen = Seen()
    with own_network("route add unreachable 203.0.113.0/24"):
        for host in "192.0.2.1", "203.0.113.1", "2001:db8::1":
            seen.calls(new_client, host)
    assert seen.messages[2].endswith(("Network is unreachable", "Cannot assign requested address"))
    del seen.messages[2]
    seen.check(test_no_way)


def test_path_without_permission(unix_path: str) -> None:
    """A path that is closed to the process.

    PermissionError: "Connect call failed ...:" "Permission denied"

    "The process may not write to the Unix socket"
    """
    seen = Seen()
    user = os.geteuid()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(unix_path)
        sock.listen()
        os.chmod(unix_path, 0o500)
        os.chmod(os.path.dirname(unix_path), 0o755)
        if user == 0:
            os.seteuid(65534)  # an administrator may do anything
        try:
            seen.calls(UnixStreamClient, unix_path, LINES)
        finally:
            os.seteuid(user)
    seen.check(test_path_without_permission)


def test_several_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address of a host has a reason of its own.

    "OSError: cannot connect to ..., port ...: ..."

    "Our clients try all addresses of a host, IPv6 first."

    "The attempts failed for another reason, or each address of the host for a reason of its own."

    "OSError: no matching local address with family=... found"

    ExceptionGroup: "Could not create the UDP socket"

    "The local_address is not of the family of the server's address, or it cannot be bound. Leave it
    out, or choose one of the same family."
    """
    seen = Seen()
    port = closed_port()
    of_other_family = {"local_address": ("::1", 0)}
    error: Any = seen.calls(new_client, port=port, **of_other_family)
    seen.note(error.__cause__.exceptions[0])
    udp: Any = UDPNetworkClient
    error = seen.calls(udp, ("127.0.0.1", port), DATAGRAMS, **of_other_family)
    seen.note(error.__cause__)
    seen.calls(udp, ("127.0.0.1", port), DATAGRAMS, local_address=("203.0.113.9", 0))
    for options in {}, {"local_address": ("127.0.0.1", 0)}:
        udp(("127.0.0.1", port), DATAGRAMS, **options).close()
    failures = [errno.EHOSTUNREACH, errno.ENETUNREACH]
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *args: failures.pop(0))
    kind = socket.SOCK_STREAM
    found = [
        (family, kind, 0, "", (host, port))
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    error = seen.calls(new_client, "localhost", port)
    first, second = map(str, error.__cause__.exceptions)
    assert "'::1'" in first
    assert "'127.0.0.1'" in second
    for number in errno.EHOSTUNREACH, errno.ENETUNREACH:
        assert os.strerror(number) in str(error)
    seen.check(test_several_reasons)


async def connect(served: Any, **options: Any) -> Any:
    return await served.connect(server_hostname="localhost", **options)


def test_handshakes() -> None:
    """A server that does not speak TLS, or has another certificate.

    TimeoutError: "The TLS handshake took longer than ... seconds"

    "The server does not speak TLS, or the network is slow. ssl_handshake_timeout is the limit."

    ConnectionAbortedError: "The peer left during the TLS handshake"

    "The server does not accept the client, or does not speak TLS."

    "SSLCertVerificationError: certificate verify failed: ..."

    "The certificate of the server is not trusted, has expired, or does not match the host."
    """
    seen = Seen()

    class Silent(Obedient):
        async def on_connection(self, client: AsyncStreamClient[str]) -> None:
            await anyio.sleep(1000)

    class Refusing(Obedient):
        async def on_connection(self, client: AsyncStreamClient[str]) -> None:
            await client.aclose()

    async def main() -> None:
        async with serve(Silent(), LINES) as served:
            with seen.raised():
                await connect(served, ssl=client_context(), ssl_handshake_timeout=7)
            assert anyio.current_time() == pytest.approx(7, abs=0.1)
        async with serve(Refusing(), LINES) as served:
            with seen.raised():
                await connect(served, ssl=client_context())
        async with serve(Obedient(), LINES, ssl=server_context()) as served:
            with seen.raised():
                await connect(served, ssl=ssl.create_default_context())
            with seen.raised():
                await served.connect(ssl=client_context(), server_hostname="example.com")

    play(main)
    assert "after 7 seconds" in seen.messages[0] or "7 seconds" in seen.messages[0]
    assert "self-signed" in seen.messages[2] or "unable to get" in seen.messages[2]
    assert "Hostname mismatch" in seen.messages[3]
    seen.check(test_handshakes)


def test_socket_of_a_client() -> None:
    """An asynchronous client connects late.

    AttributeError: "Socket not connected"

    "An asynchronous client connects at its first operation, or in wait_connected() and async with.
    It has no socket before."
    """
    seen = Seen()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            for how in "send", "wait", "async with":
                client = AsyncTCPNetworkClient[str, str](address, LINES)
                with seen.raised():
                    client.socket.fileno()
                if how == "send":
                    await client.send_packet("hello")
                elif how == "wait":
                    await client.wait_connected()
                else:
                    await client.__aenter__()
                assert client.socket.fileno() >= 0
                await client.aclose()

    anyio.run(main)
    seen.check(test_socket_of_a_client)


# -- sending and receiving


@contextlib.contextmanager
def connected(protocol: Any = LINES, **options: Any) -> Iterator[Any]:
    """Yield a client, and the socket at the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with TCPNetworkClient[str, str](listener.getsockname(), protocol, **options) as client:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(PATIENCE)
                yield client, peer


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()


def test_ends() -> None:
    """How a connection ends.

    EndOfStreamError: "Software caused connection abort (end-of-stream)"

    "The server has ended the connection, and everything that it sent was received, also if it ended
    in the middle of a packet."

    ConnectionAbortedError: "Software caused connection abort"

    "A reset by the server (Connection reset by peer) is the cause of this exception, or a broken
    pipe."
    """
    seen = Seen()
    with connected() as (client, peer):
        peer.sendall(b"hello\n")
        peer.close()
        assert client.recv_packet() == "hello"
        seen.calls(client.recv_packet, timeout=PATIENCE)
    with connected() as (client, peer):
        reset(peer)
        error: Any = seen.calls(client.recv_packet, timeout=PATIENCE)
        assert isinstance(error.__cause__, ConnectionResetError)
    with connected() as (client, peer):
        peer.sendall(b"hel")
        peer.close()
        seen.calls(client.recv_packet, timeout=PATIENCE)
    assert [type(error) for error in seen.errors[::2]] == [EndOfStreamError] * 2
    seen.check(test_ends)


def test_servers_that_disconnect() -> None:
    """A server has reasons.

    "It often disconnects clients that sent invalid data, or were silent for too long"
    """

    async def main() -> None:
        from easynetwork.servers import Limits

        async with serve(Obedient(), LINES, limits=Limits(idle_timeout=5)) as served:
            silent = await served.connect()
            with pytest.raises(EndOfStreamError):
                await silent.recv_packet()
            assert anyio.current_time() == pytest.approx(5, abs=0.1)
            wrong = await served.connect(
                protocol=StreamProtocol(StringLineSerializer(encoding="latin-1"))
            )
            await wrong.send_packet("\xff")
            with pytest.raises(EndOfStreamError):
                await wrong.recv_packet()

    play(main)


SIZE = 20_000_000  # more than fits into the buffers of the system


def read(peer: socket.socket, size: int) -> None:
    """Receive so many bytes."""
    while size > 0:
        size -= len(peer.recv(1 << 20))


def test_timeouts() -> None:
    """Nothing arrives.

    TimeoutError: "The operation timed out"

    "Nothing arrived within the timeout, or another thread was receiving all the time. The
    connection stays open, and you can receive again."
    """
    seen = Seen()
    with connected() as (client, peer):
        seen.calls(client.recv_packet, timeout=0)
        packets: list[str] = []
        thread = threading.Thread(target=lambda: packets.append(client.recv_packet()))
        thread.start()
        wait_until(lambda: client._locks.receiving.is_taken)
        seen.calls(client.recv_packet, timeout=0)
        peer.sendall(b"one\ntwo\n")
        thread.join()
        assert [*packets, client.recv_packet()] == ["one", "two"]
    seen.check(test_timeouts)


def test_interrupted() -> None:
    """An operation that has not come to its end.

    ConnectionAbortedError: "... Close this client and connect another one"

    "An earlier operation was interrupted, for example by Control-C or by the timeout of
    send_packet(), and only a part of a packet was sent, or what was received is lost."
    """
    seen = Seen()
    with connected() as (client, _):
        with pytest.raises(TimeoutError):
            client.send_packet("x" * SIZE, timeout=0)
        seen.calls(client.send_packet, "hello")

    class Interrupted(StringLineSerializer):
        def incremental_deserialize(self) -> Any:
            yield
            raise KeyboardInterrupt

    with connected(StreamProtocol(Interrupted())) as (client, peer):
        peer.sendall(b"hello\n")
        with pytest.raises(KeyboardInterrupt):
            client.recv_packet()
        seen.calls(client.recv_packet)
    seen.check(test_interrupted)


def test_peer_that_does_not_read() -> None:
    """The buffers are full.

    TimeoutError: "The peer did not read what was sent to it in time"

    TimeoutError: "Another thread is still sending a packet"

    "The other side does not read, and the buffers are full."
    """
    seen = Seen()

    class Silent(Obedient):
        async def on_connection(self, client: AsyncStreamClient[str]) -> None:
            await anyio.sleep(1000)

    async def main() -> None:
        async with serve(Silent(), LINES) as served, anyio.create_task_group() as tasks:
            client = await served.connect()

            async def send() -> None:
                with pytest.raises(ConnectionError) as caught:
                    await client.send_packet("x" * 8_000_000)
                assert caught.value.__cause__ is not None
                seen.note(caught.value.__cause__)

            tasks.start_soon(send)
            await anyio.sleep(1)
            await client.aclose()

    play(main)
    with connected() as (client, peer):
        client._close_timeout = 0.01
        thread = threading.Thread(target=client.send_packet, args=("x" * SIZE,))
        thread.start()
        wait_until(lambda: client._locks.sending.is_taken)
        seen.calls(client.send_eof)
        read(peer, SIZE + 1)
        thread.join()
    seen.check(test_peer_that_does_not_read)


def test_two_senders() -> None:
    """Two programs that send and do not receive.

    "Two programs that both send and do not receive wait for each other."
    """

    class Sending(Obedient):
        async def on_connection(self, client: AsyncStreamClient[str]) -> None:
            await client.send_packet("x" * 8_000_000)

    async def main() -> None:
        async with serve(Sending(), LINES) as served:
            client = await served.connect()
            with anyio.move_on_after(10) as scope:
                for _ in range(8):
                    await client.send_packet("x" * 1_000_000)
            assert scope.cancelled_caught

    play(main)


def test_busy_clients() -> None:
    """Something needs the client for itself.

    BusyResourceError: "Another task is using the client"

    BusyResourceError: "Another thread is using the client"

    BusyResourceError: "This thread is already using the client, in the code that called this"

    "start_tls() and set_protocol() need the client for themselves. In the third case, a signal
    handler, or a method that the garbage collector called, used the client while the same thread
    was using it."
    """
    seen = Seen()

    async def main() -> None:
        async with serve(Obedient(), LINES) as served, anyio.create_task_group() as tasks:
            client = await served.connect()
            tasks.start_soon(client.recv_packet)
            await anyio.sleep(1)
            for change in client.set_protocol, client.start_tls:
                with seen.raised():
                    arguments: Any = (LINES,) if change == client.set_protocol else (True,)
                    result = change(*arguments)
                    if result is not None:
                        await result
            tasks.cancel_scope.cancel()

    play(main)
    with connected() as (client, peer):
        thread = threading.Thread(target=client.recv_packet)
        thread.start()
        wait_until(lambda: client._locks.receiving.is_taken)
        seen.calls(client.set_protocol, LINES)
        peer.sendall(b"hello\n")
        thread.join()

    class Interrupted(StringLineSerializer):
        """Stands for code that runs in between, as a signal handler does."""

        def incremental_serialize(self, packet: str) -> Any:
            yield from super().incremental_serialize(packet)

        def incremental_deserialize(self) -> Any:
            yield
            seen.calls(client.recv_packet)
            return "hello", b""

    with connected(StreamProtocol(Interrupted())) as (client, peer):
        peer.sendall(b"hello\n")
        assert client.recv_packet() == "hello"
    seen.check(test_busy_clients)


def test_another_event_loop() -> None:
    """A client is used in another event loop than that in which it was made.

    "RuntimeError: The connection belongs to another event loop"

    "The client was made in one asyncio.run() and used in another one."
    """
    seen = Seen()

    async def connect(address: tuple[str, int]) -> AsyncTCPNetworkClient[str, str]:
        client = AsyncTCPNetworkClient(address, LINES)
        await client.wait_connected()
        return client

    async def receive(client: AsyncTCPNetworkClient[str, str]) -> None:
        with seen.raised():
            await client.recv_packet()

    with socket.create_server(("127.0.0.1", 0)) as listening, asyncio.Runner() as runner:
        client = runner.run(connect(listening.getsockname()))
        asyncio.run(receive(client))
        runner.run(client.aclose())
    seen.check(test_another_event_loop)


def test_ending_one_side() -> None:
    """The end of the client's side.

    "RuntimeError: send_eof() has been called earlier"

    "After send_eof(), a client can only receive."

    UnsupportedOperation: "SSL/TLS API does not support sending EOF."

    "With TLS, a client cannot end its own side only."
    """
    seen = Seen()
    with connected() as (client, peer):
        client.send_eof()
        assert peer.recv(1) == b""
        seen.calls(client.send_packet, "hello")
        peer.sendall(b"hello\n")
        assert client.recv_packet() == "hello"

    async def main() -> None:
        async with serve(Obedient(), LINES, ssl=server_context()) as served:
            client = await connect(served, ssl=client_context())
            with seen.raised():
                await client.send_eof()
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"

    play(main)
    seen.check(test_ending_one_side)


def test_datagrams(unix_path: str) -> None:
    """Datagrams that cannot be sent, or received.

    "OSError: datagram of ... bytes is too long: at most ... bytes fit"

    "OSError: datagram of ... bytes is too long: the system does not send it whole"

    OSError: "Cannot send a datagram to an unnamed address."

    OSError: "Cannot send a datagram to ...: ..."

    "The receiver has no name, or is gone"
    """
    seen = Seen()
    with UDPNetworkClient[str, str](("127.0.0.1", 9), DATAGRAMS) as client:
        seen.calls(client.send_packet, "x" * 65_508)

    class Handler(ours.DatagramPacketHandler[str, str]):
        protocol = DATAGRAMS

        def handle(self) -> None:
            if self.packet == "gone":
                other.close()
            with seen.raised():
                self.send_packet("hello")

    with ours.UnixDatagramServer(unix_path, Handler) as server:
        with UnixDatagramClient[str, str](unix_path, DATAGRAMS) as local:
            seen.calls(local.send_packet, "x" * 4_000_000)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unnamed:
            unnamed.sendto(b"unnamed", unix_path)
            server.handle_request()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(f"{unix_path}.other")
            other.sendto(b"gone", unix_path)
            server.handle_request()
    assert isinstance(seen.errors[-1], ConnectionRefusedError)
    seen.messages[-1] = seen.messages[-1].replace("ConnectionRefusedError", "OSError")
    seen.check(test_datagrams)


def test_missing_alert() -> None:
    """A connection with TLS that is cut off.

    "If SSLEOFError is the cause, a connection with TLS ended without a closing alert: it may have
    been cut off. The text of a blocking client goes on with (end-of-stream) then."

    "Connect another client."

    SSLEOFError: "The connection ended without a closing alert: data may be missing"

    "The last one is the cause of an exception if the client was created with
    ssl_standard_compatible, as it is by default."
    """
    seen = Seen()

    async def main(ssl_standard_compatible: bool | None) -> None:
        async with serve(
            Obedient(), LINES, ssl=server_context(), ssl_standard_compatible=False
        ) as served:
            client = await connect(
                served, ssl=client_context(), ssl_standard_compatible=ssl_standard_compatible
            )
            await client.send_packet("close")
            with pytest.raises(ConnectionAbortedError) as caught:
                await client.recv_packet()
        if ssl_standard_compatible is False:
            assert type(caught.value) is EndOfStreamError
        else:
            assert type(caught.value) is ConnectionAbortedError
            assert not str(caught.value).endswith("(end-of-stream)")
            assert caught.value.__cause__ is not None
            seen.note(caught.value.__cause__)

    for option in None, True, False:
        anyio.run(main, option, backend_options=virtual_time())

    class Leaving(ours.StreamPacketHandler[str, str]):
        protocol = LINES

        def handle(self) -> None:
            pass

    options: dict[str, Any] = {"ssl": server_context(), "ssl_standard_compatible": False}
    with ours.TCPServer(("127.0.0.1", 0), Leaving, **options) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        port = server.socket.getsockname()[1]
        with new_client(port=port, ssl=client_context(), server_hostname="localhost") as client:
            with pytest.raises(ConnectionAbortedError, match="end-of-stream") as caught:
                client.recv_packet(timeout=PATIENCE)
            assert type(caught.value) is ConnectionAbortedError
            assert isinstance(caught.value.__cause__, ssl.SSLEOFError)
        thread.join()
    seen.check(test_missing_alert)
