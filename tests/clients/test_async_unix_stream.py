"""What only asynchronous clients for Unix streams have."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork.addresses import (
    SCMCredentials,
    SocketAncillary,
    SocketCredential,
    UnixCredentials,
)
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.exceptions import ClientClosedError, EndOfStreamError, UnsupportedOperation
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    RecvAncillaryDataParams,
    RecvParams,
)
from tests.clients.async_tcp_support import Outcomes
from tests.clients.unix_support import (
    Descriptors,
    ancillary_of,
    fill,
    named,
    receive_all,
    receive_fds,
)
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

pytestmark = pytest.mark.anyio

Client = AsyncUnixStreamClient[str, str]

LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(limit=1 << 20))
BUFFERED: BufferedStreamProtocol[str, str, Any] = BufferedStreamProtocol(
    StringLineSerializer(limit=1 << 20)
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="credentials are Linux's")
each_protocol = pytest.mark.parametrize("protocol", [LINES, BUFFERED], ids=["chunks", "buffer"])


@contextlib.asynccontextmanager
async def connected(
    protocol: Any = LINES, **options: Any
) -> AsyncIterator[tuple[Client, socket.socket]]:
    """Yield a client and its peer, a plain blocking socket. All that must not take for ever."""
    with anyio.fail_after(PATIENCE), named() as listener:
        async with AsyncUnixStreamClient(listener.getsockname(), protocol, **options) as client:
            with listener.accept()[0] as peer:
                peer.settimeout(PATIENCE)
                yield client, peer


async def in_thread(function: Any, *args: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *args)


# -- Connecting --------------------------------------------------------------------------------


async def test_full_backlog() -> None:
    """Connecting waits while the server accepts no connection, and can be cancelled."""
    with named(backlog=0) as listener, contextlib.ExitStack() as stack:
        blocker = stack.enter_context(socket.socket(socket.AF_UNIX))
        blocker.connect(listener.getsockname())
        client = Client(listener.getsockname(), LINES)
        with anyio.move_on_after(0.05) as scope:
            await client.wait_connected()
        assert scope.cancelled_caught
        assert not client.is_connected()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.wait_connected)
            await anyio.sleep(0.02)
            assert not client.is_connected()
            stack.enter_context(listener.accept()[0])
        assert client.is_connected()
        await client.aclose()


@pytest.mark.parametrize("way", ["cancel", "close"])
async def test_local_path_of_an_attempt(folder: str, way: str) -> None:
    """The path is removed when an attempt to connect is cancelled, or the client is closed."""
    with named(backlog=0) as listener, socket.socket(socket.AF_UNIX) as blocker:
        blocker.connect(listener.getsockname())
        client = Client(listener.getsockname(), LINES, local_path=f"{folder}/client")
        outcomes = Outcomes()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, client.wait_connected)
            while not os.listdir(folder):
                await anyio.lowlevel.checkpoint()
            if way == "cancel":
                tasks.cancel_scope.cancel()
            else:
                await client.aclose()
        assert os.listdir(folder) == []
        assert outcomes.types() == ([] if way == "cancel" else [ClientClosedError])
        await client.aclose()


async def test_no_name() -> None:
    """A client has no name, unless it is given one."""
    async with connected() as (client, peer):
        assert client.get_local_name().is_unnamed()
        assert peer.getpeername() == ""


@linux_only
async def test_credentials() -> None:
    """The credentials are those of the process that listens."""
    client = Client("/nowhere", LINES)
    with pytest.raises(OSError, match="not connected") as caught:
        client.get_peer_credentials()
    assert caught.value.errno == errno.ENOTCONN
    async with connected() as (client, _):
        expected = UnixCredentials(os.getpid(), os.geteuid(), os.getegid())
        credentials = client.get_peer_credentials()
        assert credentials == expected
        assert client.get_peer_credentials() is credentials
        await client.aclose()
        with pytest.raises(ClientClosedError):
            client.get_peer_credentials()


# -- TLS ---------------------------------------------------------------------------------------


def serve_tls(listener: socket.socket) -> None:
    """Echo, until the client says goodbye."""
    with listener.accept()[0] as sock:
        sock.settimeout(PATIENCE)
        with server_context().wrap_socket(sock, server_side=True) as tls:
            with contextlib.suppress(OSError):
                while data := tls.recv(1 << 16):
                    tls.sendall(data)


async def test_tls() -> None:
    """TLS needs the name of the server; then it can be used, but not with ancillary data."""
    with anyio.fail_after(PATIENCE), named() as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread, serve_tls, listener)
            options: Any = {"ssl": client_context(), "server_hostname": "localhost"}
            async with Client(listener.getsockname(), LINES, **options) as client:
                await client.send_packet("hello")
                assert await client.recv_packet() == "hello"
                message = "^This transport does not have ancillary data support.$"
                with pytest.raises(UnsupportedOperation, match=message):
                    await client.send_packet("lost", ancillary_data=ancillary_of(0))
                with pytest.raises(UnsupportedOperation, match=message):
                    await client.recv_packet(ancillary_data=SocketAncillary())
                await client.send_packet("world")
                assert await client.recv_packet() == "world"


def test_tls_without_a_name() -> None:
    """A path is not the name in a certificate."""
    message = "^You must set server_hostname when using ssl without a host$"
    for context in (True, client_context()):
        with pytest.raises(ValueError, match=message):
            Client("/run/server", LINES, "asyncio", ssl=context)
    with pytest.raises(ValueError, match="^server_hostname is only meaningful with ssl$"):
        Client("/run/server", LINES, "asyncio", server_hostname="localhost")


async def test_tls_that_fails(folder: str) -> None:
    """The path of a client is removed when the handshake fails."""
    with anyio.fail_after(PATIENCE), named() as listener:
        client = Client(
            listener.getsockname(),
            LINES,
            local_path=f"{folder}/client",
            ssl=client_context(),
            server_hostname="localhost",
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread, close_next, listener)
            with pytest.raises(ConnectionError):
                await client.wait_connected()
        assert os.listdir(folder) == []
        await client.aclose()


def close_next(listener: socket.socket) -> None:
    with listener.accept()[0] as sock:
        sock.recv(1 << 16)


# -- Sending ancillary data --------------------------------------------------------------------


async def test_send(pipe: Descriptors) -> None:
    """Descriptors arrive with the packet; they may be closed as soon as it is sent."""
    async with connected() as (client, peer):
        copies = [os.dup(pipe.reading) for _ in range(3)]
        await client.send_packet("hello", ancillary_data=ancillary_of(*copies))
        for number in copies:
            os.close(number)
        data, descriptors = receive_fds(peer)
        assert data == b"hello\n"
        assert len(descriptors) == 3
        for number in descriptors:
            pipe.check(number)
        await client.send_packet("without")
        assert receive_fds(peer) == (b"without\n", [])


async def test_send_nothing() -> None:
    """Ancillary data may be empty."""
    async with connected() as (client, peer):
        await client.send_packet("hello", ancillary_data=SocketAncillary())
        assert receive_fds(peer) == (b"hello\n", [])


async def test_send_connects(pipe: Descriptors) -> None:
    """The first operation connects the client."""
    with named() as listener:
        client = Client(listener.getsockname(), LINES)
        await client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
        with listener.accept()[0] as peer:
            data, [number] = receive_fds(peer)
            assert data == b"hello\n"
            pipe.check(number)
        await client.aclose()


@linux_only
async def test_credentials_both_ways() -> None:
    """Credentials are sent, and received if the socket asks for them."""
    me = SocketCredential(os.getpid(), os.getuid(), os.getgid())
    sent, received = SocketAncillary(), SocketAncillary()
    sent.add_creds([me._replace(pid=0)])
    one, other = socket.socketpair()
    async with Client(one, LINES) as client, Client(other, LINES) as receiver:
        receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        await client.send_packet("hello", ancillary_data=sent)
        assert await receiver.recv_packet(ancillary_data=received) == "hello"
    [message] = received.messages()
    assert isinstance(message, SCMCredentials)
    assert list(message.credentials) == [me]


async def test_closed_descriptor(pipe: Descriptors) -> None:
    """A closed descriptor is an error, nothing is sent, and the client can still be used."""
    async with connected() as (client, peer):
        closed = os.dup(pipe.reading)
        os.close(closed)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
            await client.send_packet("lost", ancillary_data=ancillary_of(pipe.reading, closed))
        assert caught.value.errno == errno.EBADF
        assert not hasattr(caught.value, "__notes__")
        await client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
        data, [number] = receive_fds(peer)
        assert data == b"hello\n"
        pipe.check(number)


@linux_only
async def test_too_many_descriptors(pipe: Descriptors) -> None:
    """What the kernel refuses is an error, and nothing is sent (SCM_MAX_FD)."""
    async with connected() as (client, peer):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            await client.send_packet("lost", ancillary_data=ancillary_of(*[pipe.reading] * 254))
        await client.send_packet("hello", ancillary_data=ancillary_of(*[pipe.reading] * 253))
        data, descriptors = receive_fds(peer)
        assert data == b"hello\n"
        assert len(descriptors) == 253
        for number in descriptors:
            os.close(number)


async def test_packet_that_is_too_long(pipe: Descriptors) -> None:
    """A packet that is longer than the send buffer is an error, and nothing is sent."""
    async with connected() as (client, peer):
        limit = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        message = f"packet of {limit + 1} bytes is too long to be sent with ancillary data: at most"
        with pytest.raises(OSError, match=message) as caught:
            await client.send_packet("x" * limit, ancillary_data=ancillary_of(pipe.reading))
        assert caught.value.errno == errno.EMSGSIZE
        await client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
        data, [number] = receive_fds(peer)
        assert data == b"hello\n"
        pipe.check(number)


async def test_longest_packet(pipe: Descriptors) -> None:
    """A packet as long as the send buffer arrives whole, though the kernel takes it in pieces."""
    async with connected() as (client, peer):
        limit = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        packet = "x" * (limit - 1)
        await client.send_packet(packet, ancillary_data=ancillary_of(pipe.reading))
        await client.send_packet("next")
        data, [number] = receive_fds(peer, 1)
        pipe.check(number)
        rest = await in_thread(receive_all, peer, limit - 1 + len(b"next\n"))
        assert data + rest == f"{packet}\nnext\n".encode()


@pytest.mark.parametrize("way", ["serializer", "descriptors"])
async def test_wrong_arguments(way: str) -> None:
    """Nothing is sent of what cannot be turned into bytes."""
    async with connected() as (client, peer):
        ancillary = ancillary_of(1 << 40 if way == "descriptors" else 0)
        packet: Any = 3 if way == "serializer" else "lost"
        with pytest.raises((OverflowError, RuntimeError)):
            await client.send_packet(packet, ancillary_data=ancillary)
        await client.send_packet("hello")
        assert peer.recv(100) == b"hello\n"


# -- A peer that does not read -----------------------------------------------------------------


async def test_send_waits(pipe: Descriptors) -> None:
    """Sending waits until the peer reads. Packets of other tasks wait for their turn."""
    outcomes = Outcomes()
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        size = fill(client.socket, b"x" * 1000)
        for packet in "abc":
            ancillary = None if packet == "b" else ancillary_of(pipe.reading)
            send = partial(client.send_packet, packet, ancillary_data=ancillary)
            tasks.start_soon(outcomes.of, send)
            await anyio.wait_all_tasks_blocked()
        assert outcomes.all == []
        await in_thread(receive_all, peer, size)
        received, descriptors = b"", []
        while len(received) < 6:
            data, numbers = await in_thread(receive_fds, peer)
            received += data
            descriptors += numbers
        assert received == b"a\nb\nc\n"
        for number in descriptors:
            pipe.check(number)
        assert len(descriptors) == 2
    assert outcomes.all == [None, None, None]


async def test_cancelled_send(pipe: Descriptors) -> None:
    """If a task is cancelled while it waits, nothing is sent, and the next packet is whole."""
    async with connected() as (client, peer):
        size = fill(client.socket, b"x" * 1000)
        for packet in ("lost", "lost too"):
            with anyio.move_on_after(0.02) as scope:
                await client.send_packet(packet, ancillary_data=ancillary_of(pipe.reading))
            assert scope.cancelled_caught
        await in_thread(receive_all, peer, size)
        await client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
        data, [number] = receive_fds(peer)
        assert data == b"hello\n"
        pipe.check(number)


async def test_earlier_bytes_first(pipe: Descriptors) -> None:
    """Bytes that wait to be sent leave before a packet with ancillary data."""
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        size = fill(client.socket, b"x" * 1000)
        await client.send_packet("y" * 50_000)  # less than makes a task wait
        send = partial(client.send_packet, "last", ancillary_data=ancillary_of(pipe.reading))
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        data = await in_thread(receive_all, peer, size + 50_001)
        assert data == b"x" * size + b"y" * 50_000 + b"\n"
        data, [number] = await in_thread(receive_fds, peer)
        assert data == b"last\n"
        pipe.check(number)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transports give up early."""
    monkeypatch.setattr("easynetwork.backends.stream_transport.CLOSE_TIMEOUT", 0.05)


async def test_close_waits_for_a_send(pipe: Descriptors) -> None:
    """A packet that waits for the peer is sent before the client closes."""
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        size = fill(client.socket, b"x" * 1000)
        send = partial(client.send_packet, "hello", ancillary_data=ancillary_of(pipe.reading))
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(client.aclose)
        await anyio.wait_all_tasks_blocked()
        await in_thread(receive_all, peer, size)
        data, [number] = await in_thread(receive_fds, peer)
        assert data == b"hello\n"
        pipe.check(number)
        assert await in_thread(peer.recv, 1) == b""


async def test_close_gives_up(impatient: None, pipe: Descriptors) -> None:
    """A peer that does not read is not waited for for ever; the task that sends is told."""
    outcomes = Outcomes()
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        size = fill(client.socket, b"x" * 1000)
        send = partial(client.send_packet, "lost", ancillary_data=ancillary_of(pipe.reading))
        tasks.start_soon(outcomes.of, send)
        await anyio.wait_all_tasks_blocked()
        await client.aclose()
        assert client.socket.fileno() == -1
        assert await in_thread(rest, peer) == size
    assert outcomes.types() == [ClientClosedError]


async def test_cancelled_close(monkeypatch: pytest.MonkeyPatch, pipe: Descriptors) -> None:
    """If the close is cancelled, the task that sends is told at once.

    It may not go on to wait for a number that another socket may have by then.
    """
    outcomes = Outcomes()
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        size = fill(client.socket, b"x" * 1000)
        send = partial(client.send_packet, "lost", ancillary_data=ancillary_of(pipe.reading))
        tasks.start_soon(outcomes.of, send)
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await client.aclose()
        assert client.socket.fileno() == -1
        assert await in_thread(rest, peer) == size
    assert outcomes.types() == [ClientClosedError]


def rest(peer: socket.socket) -> int:
    """Return how many bytes still arrive."""
    size = 0
    with contextlib.suppress(ConnectionResetError):
        while chunk := peer.recv(1 << 18):
            size += len(chunk)
    return size


async def test_peer_that_leaves(pipe: Descriptors) -> None:
    """A task that waits for the peer is told when the peer leaves."""
    outcomes = Outcomes()
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        fill(client.socket, b"x" * 1000)
        send = partial(client.send_packet, "lost", ancillary_data=ancillary_of(pipe.reading))
        tasks.start_soon(outcomes.of, send)
        await anyio.wait_all_tasks_blocked()
        peer.close()
    assert outcomes.types() == [ConnectionAbortedError]


async def test_no_more_sending(pipe: Descriptors) -> None:
    """After the end of the stream, nothing is sent; nor to a peer that has left."""
    async with connected() as (client, peer):
        await client.send_eof()
        with pytest.raises(RuntimeError, match="has been called earlier"):
            await client.send_packet("late", ancillary_data=ancillary_of(pipe.reading))
        assert peer.recv(1) == b""
    async with connected() as (client, peer):
        peer.close()
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError):
                await client.send_packet("late", ancillary_data=ancillary_of(pipe.reading))


# -- Receiving ancillary data ------------------------------------------------------------------


@each_protocol
async def test_receive(pipe: Descriptors, protocol: Any) -> None:
    """Descriptors that come with a packet are added to the object, and are the caller's."""
    ancillary = SocketAncillary()
    async with connected(protocol) as (client, peer):
        for packet, count in (("one", 2), ("two", 1), ("three", 0)):
            socket.send_fds(peer, [f"{packet}\n".encode()], [pipe.reading] * count)
            assert await client.recv_packet(ancillary_data=ancillary) == packet
    numbers = list(ancillary.iter_fds())
    assert len(numbers) == 3
    assert not any(map(os.get_inheritable, numbers))
    for number in numbers:
        pipe.check(number)


@each_protocol
async def test_receive_later(pipe: Descriptors, protocol: Any) -> None:
    """The same if the client has to wait for the packet."""
    ancillary = SocketAncillary()
    outcomes = Outcomes()
    async with connected(protocol) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(outcomes.of, partial(client.recv_packet, ancillary_data=ancillary))
        await anyio.wait_all_tasks_blocked()
        socket.send_fds(peer, [b"hello\n"], [pipe.reading])
    assert outcomes.all == ["hello"]
    [number] = ancillary.iter_fds()
    pipe.check(number)


@each_protocol
async def test_packet_that_is_here(pipe: Descriptors, protocol: Any) -> None:
    """A packet that is here already is returned without ancillary data, which waits."""
    ancillary = SocketAncillary()
    async with connected(protocol) as (client, peer):
        peer.sendall(b"a\nb\nc\n")
        assert await client.recv_packet() == "a"
        socket.send_fds(peer, [b"d\n"], [pipe.reading])
        for packet in "bc":
            assert await client.recv_packet(ancillary_data=ancillary) == packet
            assert list(ancillary.iter_fds()) == []
        assert await client.recv_packet(ancillary_data=ancillary) == "d"
    [number] = ancillary.iter_fds()
    pipe.check(number)


@each_protocol
async def test_partial_packet(pipe: Descriptors, protocol: Any) -> None:
    """One read is all: a packet that is not complete then is an error, and its bytes are kept."""
    ancillary = SocketAncillary()
    async with connected(protocol) as (client, peer):
        for part in (b"h", b"el"):
            socket.send_fds(peer, [part], [pipe.reading])
            with pytest.raises(EOFError, match="^Received partial packet data$"):
                await client.recv_packet(ancillary_data=ancillary)
        socket.send_fds(peer, [b"lo\nwor"], [pipe.reading])
        assert await client.recv_packet(ancillary_data=ancillary) == "hello"
        peer.sendall(b"ld\n")
        assert await client.recv_packet() == "world"
    numbers = list(ancillary.iter_fds())
    assert len(numbers) == 3
    for number in numbers:
        pipe.check(number)


async def test_not_asked_for(pipe: Descriptors) -> None:
    """Descriptors that are not asked for are closed; so are those that nothing has received."""
    async with connected() as (client, peer):
        for packet in ("one", "two", "three"):
            socket.send_fds(peer, [f"{packet}\n".encode()], [pipe.reading])
        for packet in ("one", "two"):
            assert await client.recv_packet() == packet


async def test_cut_off(pipe: Descriptors) -> None:
    """Ancillary data that is longer than its buffer is an error. The packet is kept."""
    ancillary = SocketAncillary()
    options: Any = {"ancillary_data": ancillary, "ancillary_bufsize": socket.CMSG_SPACE(4)}
    async with connected() as (client, peer):
        socket.send_fds(peer, [b"a\n"], [pipe.reading] * 5)
        with pytest.raises(OSError, match="ancillary data was cut off") as caught:
            await client.recv_packet(**options)
        assert caught.value.errno == errno.EMSGSIZE
        assert await client.recv_packet() == "a"
        socket.send_fds(peer, [b"b\n"], [pipe.reading])
        assert await client.recv_packet(**options) == "b"
    [number] = ancillary.iter_fds()
    pipe.check(number)


async def test_ancillary_data_that_cannot_be_parsed(
    monkeypatch: pytest.MonkeyPatch, pipe: Descriptors
) -> None:
    """That is the cause of an error; the packet is kept."""

    def crash(self: SocketAncillary, messages: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SocketAncillary, "update_from_raw", crash)
    async with connected() as (client, peer):
        peer.sendall(b"hello\n")
        message = r"^ancillary_data_received\(\) crashed$"
        with pytest.raises(RuntimeError, match=message) as caught:
            await client.recv_packet(ancillary_data=SocketAncillary())
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await client.recv_packet() == "hello"


async def test_sizes() -> None:
    """A size without an object is an error, and so is one that is not strictly positive."""
    async with connected() as (client, peer):
        with pytest.raises(
            ValueError, match="^ancillary_bufsize is only meaningful with ancillary"
        ):
            await client.recv_packet(ancillary_bufsize=100)
        for size in (0, -1, 1.5, "x"):
            with pytest.raises(
                ValueError, match="^ancillary_bufsize must be a strictly positive i"
            ):
                await client.recv_packet(
                    ancillary_data=SocketAncillary(),
                    ancillary_bufsize=size,  # type: ignore[arg-type]
                )
        peer.sendall(b"hello\n")
        assert await client.recv_packet() == "hello"


async def test_cancelled_receive(pipe: Descriptors) -> None:
    """A task that is cancelled while it waits takes nothing."""
    ancillary, other = SocketAncillary(), SocketAncillary()
    async with connected() as (client, peer):
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(client.recv_packet, ancillary_data=ancillary))
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        socket.send_fds(peer, [b"hello\n"], [pipe.reading])
        assert await client.recv_packet(ancillary_data=other) == "hello"
        socket.send_fds(peer, [b"world\n"], [pipe.reading])
        assert await client.recv_packet() == "world"
    assert list(ancillary.iter_fds()) == []
    [number] = other.iter_fds()
    pipe.check(number)


@pytest.mark.parametrize("way", ["peer", "client"])
async def test_end(way: str) -> None:
    """A task that waits is told when the peer ends the stream, or the client is closed."""
    outcomes = Outcomes()
    receive: Any
    async with connected() as (client, peer):
        receive = partial(client.recv_packet, ancillary_data=SocketAncillary())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, receive)
            await anyio.wait_all_tasks_blocked()
            if way == "peer":
                peer.close()
            else:
                await client.aclose()
        await outcomes.of(receive)
    error = EndOfStreamError if way == "peer" else ClientClosedError
    assert outcomes.types() == [error, error]


async def test_receivers_take_turns(pipe: Descriptors) -> None:
    """Each task gets a packet with what came with it."""
    outcomes = Outcomes()
    ancillary = [SocketAncillary() for _ in range(3)]
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        for each in ancillary:
            tasks.start_soon(outcomes.of, partial(client.recv_packet, ancillary_data=each))
            await anyio.wait_all_tasks_blocked()
        # One read ends after bytes with descriptors; those without are read with what follows.
        for count, packet in enumerate((b"a\n", b"b\n", b"c\n"), 1):
            socket.send_fds(peer, [packet], [pipe.reading] * count)
    assert outcomes.all == ["a", "b", "c"]
    for count, each in enumerate(ancillary, 1):
        numbers = list(each.iter_fds())
        assert len(numbers) == count
        for number in numbers:
            pipe.check(number)


# -- Two clients -------------------------------------------------------------------------------


class Relay(AsyncStreamRequestHandler[str, str]):
    """Sends each packet, and what comes with it, to all other clients."""

    def __init__(self) -> None:
        self.clients: set[Any] = set()

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        self.clients.add(client)
        await client.send_packet("welcome")

    async def on_disconnection(self, client: AsyncStreamClient[str]) -> None:
        self.clients.discard(client)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[Any, str]:
        ancillary = SocketAncillary()
        receive = RecvAncillaryDataParams(ancillary.update_from_raw)
        packet = yield RecvParams(recv_with_ancillary=receive)
        for other in self.clients - {client}:
            await other.send_packet_with_ancillary(packet, ancillary.as_raw())
        for number in ancillary.iter_fds():
            os.close(number)


async def test_two_clients_and_a_server(folder: str, pipe: Descriptors) -> None:
    """Descriptors go from one client over a server to another one, and back."""
    path = f"{folder}/server"
    server = AsyncUnixStreamServer(path, LINES, Relay())
    async with server, anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
        await is_up.wait()
        async with Client(path, LINES) as one, Client(path, LINES) as other:
            for client in (one, other):
                assert await client.recv_packet() == "welcome"
            for sender, receiver in ((one, other), (other, one)):
                ancillary = SocketAncillary()
                await sender.send_packet("take", ancillary_data=ancillary_of(pipe.reading))
                assert await receiver.recv_packet(ancillary_data=ancillary) == "take"
                [number] = ancillary.iter_fds()
                pipe.check(number)
        await server.shutdown()
    assert os.listdir(folder) == []
