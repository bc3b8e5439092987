"""What only asynchronous clients for Unix datagrams have."""

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
import anyio.to_thread
import pytest

from easynetwork.addresses import SCMCredentials, SocketAncillary, SocketCredential
from easynetwork.clients.async_unix_datagram import AsyncUnixDatagramClient
from easynetwork.exceptions import ClientClosedError, DatagramProtocolParseError
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    RecvAncillaryDataParams,
    RecvParams,
)
from tests.clients.async_tcp_support import Outcomes
from tests.clients.udp_support import NOT_A_PACKET, TEXT
from tests.clients.unix_support import Descriptors, ancillary_of, fill, named, receive_fds
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

Client = AsyncUnixDatagramClient[str, str]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux does this")


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Client, socket.socket]]:
    """Yield a client and its peer, a plain blocking socket that is connected to it."""
    with anyio.fail_after(PATIENCE), named(socket.SOCK_DGRAM) as peer:
        async with Client(peer.getsockname(), TEXT, **options) as client:
            peer.connect(client.socket.getsockname())
            yield client, peer


async def in_thread(function: Any, *args: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *args)


async def drain(peer: socket.socket, count: int) -> None:
    """Receive as many datagrams, and forget them."""
    for _ in range(count):
        await in_thread(peer.recv, 1 << 18)


# -- Names -------------------------------------------------------------------------------------


@linux_only
async def test_name_of_linux() -> None:
    """Without a local path, the client has an abstract name, to which the peer answers."""
    with anyio.fail_after(PATIENCE), named(socket.SOCK_DGRAM) as peer:
        async with Client(peer.getsockname(), TEXT) as client:
            assert client.get_local_name().as_abstract_name()
            await client.send_packet("hello")
            data, address = peer.recvfrom(100)
            assert (data, address) == (b"hello", client.get_local_name().as_raw())
            peer.sendto(b"world", address)
            assert await client.recv_packet() == "world"


def test_no_name_of_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system chooses none, a local path is needed."""
    monkeypatch.setattr(sys, "platform", "darwin")
    message = "^local_path parameter is required on this platform and cannot be an empty string."
    with pytest.raises(ValueError, match=message) as caught:
        Client("/run/server", TEXT, "asyncio")
    assert caught.value.__notes__ == ["Automatic socket bind is not supported."]


async def test_local_path_of_a_conversation(folder: str) -> None:
    """The peer answers to the path of the client."""
    with anyio.fail_after(PATIENCE), named(socket.SOCK_DGRAM) as peer:
        async with Client(peer.getsockname(), TEXT, local_path=f"{folder}/client") as client:
            await client.send_packet("hello")
            assert peer.recvfrom(100) == (b"hello", f"{folder}/client")
            peer.sendto(b"world", f"{folder}/client")
            assert await client.recv_packet() == "world"
        with pytest.raises(FileNotFoundError):
            peer.sendto(b"late", f"{folder}/client")


@linux_only
async def test_strangers() -> None:
    """The kernel refuses what others send to a connected client."""
    async with connected() as (client, _):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            with pytest.raises(PermissionError):
                stranger.sendto(b"stranger", client.socket.getsockname())


# -- Datagrams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("has_ancillary", [False, True])
async def test_lengths(pipe: Descriptors, has_ancillary: bool) -> None:
    """Datagrams arrive whole, both ways, empty ones and those of 200,000 bytes as well."""
    options: Any = {"ancillary_data": SocketAncillary()} if has_ancillary else {}
    async with connected() as (client, peer):
        for length in (0, 1, 0, 65_536, 200_000, 0):
            await client.send_packet("x" * length, **options)
            assert await in_thread(peer.recv, 1 << 18) == b"x" * length
            peer.send(b"y" * length)
            assert await client.recv_packet(**options) == "y" * length


@pytest.mark.parametrize("has_ancillary", [False, True])
async def test_too_long(pipe: Descriptors, has_ancillary: bool) -> None:
    """A datagram that is longer than the send buffer is an error, and nothing is sent."""
    options: Any = {"ancillary_data": ancillary_of(pipe.reading)} if has_ancillary else {}
    async with connected() as (client, peer):
        length = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) + 1
        with pytest.raises(OSError, match=f"datagram of {length} bytes is too long: ") as caught:
            await client.send_packet("x" * length, **options)
        assert caught.value.errno == errno.EMSGSIZE
        await client.send_packet("short")
        assert receive_fds(peer) == (b"short", [])


@pytest.mark.parametrize("has_ancillary", [False, True])
async def test_peer_that_is_gone(pipe: Descriptors, has_ancillary: bool) -> None:
    """Sending to a peer that is gone is refused; then the kernel has disconnected the socket."""
    options: Any = {"ancillary_data": ancillary_of(pipe.reading)} if has_ancillary else {}
    async with connected() as (client, peer):
        peer.close()
        with pytest.raises(ConnectionRefusedError):
            await client.send_packet("hello", **options)
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            await client.send_packet("hello", **options)
        # From now on, the kernel would deliver what any other process sends.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            for ancillary in None, SocketAncillary():
                stranger.sendto(b"forged", client.socket.getsockname())
                with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                    await client.recv_packet(ancillary_data=ancillary)


# -- A peer that does not read -----------------------------------------------------------------


@pytest.mark.parametrize("has_ancillary", [False, True])
@pytest.mark.parametrize("is_connected", [False, True])
async def test_send_waits(pipe: Descriptors, has_ancillary: bool, is_connected: bool) -> None:
    """Sending waits until the peer reads; then all packets arrive, in order.

    What is full is the queue of the peer, or, if that is connected to the client, the buffer of the
    client.
    """
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), named(socket.SOCK_DGRAM) as peer:
        async with Client(peer.getsockname(), TEXT) as client, anyio.create_task_group() as tasks:
            if is_connected:
                peer.connect(client.socket.getsockname())
            count = fill(client.socket, b"xxxxxxxxxx") // 10
            for packet in "abc":
                ancillary = ancillary_of(pipe.reading) if has_ancillary else None
                send = partial(client.send_packet, packet, ancillary_data=ancillary)
                tasks.start_soon(outcomes.of, send)
                await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.02)
            assert outcomes.all == []
            await drain(peer, count)
            for expected in (b"a", b"b", b"c"):
                data, descriptors = await in_thread(receive_fds, peer)
                assert data == expected
                assert len(descriptors) == has_ancillary
                for number in descriptors:
                    pipe.check(number)
    assert outcomes.all == [None, None, None]


@pytest.mark.parametrize("has_ancillary", [False, True])
async def test_cancelled_send(pipe: Descriptors, has_ancillary: bool) -> None:
    """If a task is cancelled while it waits, nothing is sent."""
    options: Any = {"ancillary_data": ancillary_of(pipe.reading)} if has_ancillary else {}
    async with connected() as (client, peer):
        count = fill(client.socket, b"xxxxxxxxxx") // 10
        for _ in range(2):
            with anyio.move_on_after(0.02) as scope:
                await client.send_packet("lost", **options)
            assert scope.cancelled_caught
        await drain(peer, count)
        await client.send_packet("hello", **options)
        data, descriptors = receive_fds(peer)
        assert data == b"hello"
        assert len(descriptors) == has_ancillary
        for number in descriptors:
            pipe.check(number)


async def test_close_waits_for_a_send(pipe: Descriptors) -> None:
    """A packet that waits for the peer is sent before the client closes."""
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        count = fill(client.socket, b"xxxxxxxxxx") // 10
        send = partial(client.send_packet, "hello", ancillary_data=ancillary_of(pipe.reading))
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(client.aclose)
        await anyio.wait_all_tasks_blocked()
        assert client.socket.fileno() >= 0
        await drain(peer, count)
        data, [number] = await in_thread(receive_fds, peer)
        assert data == b"hello"
        pipe.check(number)


async def test_cancelled_close(pipe: Descriptors) -> None:
    """If the close is cancelled, the task that sends is told."""
    outcomes = Outcomes()
    async with connected() as (client, _), anyio.create_task_group() as tasks:
        fill(client.socket, b"xxxxxxxxxx")
        send = partial(client.send_packet, "lost", ancillary_data=ancillary_of(pipe.reading))
        tasks.start_soon(outcomes.of, send)
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await client.aclose()
        assert client.socket.fileno() == -1
    assert outcomes.types() == [ClientClosedError]


# -- Sending ancillary data --------------------------------------------------------------------


async def test_send(pipe: Descriptors) -> None:
    """Descriptors arrive with the packet; they may be closed as soon as it is sent."""
    async with connected() as (client, peer):
        copies = [os.dup(pipe.reading) for _ in range(3)]
        await client.send_packet("hello", ancillary_data=ancillary_of(*copies))
        for number in copies:
            os.close(number)
        data, descriptors = receive_fds(peer)
        assert data == b"hello"
        assert len(descriptors) == 3
        for number in descriptors:
            pipe.check(number)
        for ancillary in (None, SocketAncillary()):
            await client.send_packet("without", ancillary_data=ancillary)
            assert receive_fds(peer) == (b"without", [])


async def test_closed_descriptor(pipe: Descriptors) -> None:
    """A closed descriptor is an error, nothing is sent, and the client can still be used."""
    async with connected() as (client, peer):
        closed = os.dup(pipe.reading)
        os.close(closed)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
            await client.send_packet("lost", ancillary_data=ancillary_of(pipe.reading, closed))
        assert caught.value.errno == errno.EBADF
        assert not hasattr(caught.value, "__notes__")  # the socket's descriptor is open
        await client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
        data, [number] = receive_fds(peer)
        assert data == b"hello"
        pipe.check(number)


@linux_only
async def test_credentials() -> None:
    """Credentials are sent, and received if the socket asks for them."""
    me = SocketCredential(os.getpid(), os.getuid(), os.getgid())
    sent, received = SocketAncillary(), SocketAncillary()
    sent.add_creds([me._replace(pid=0)])
    async with connected() as (client, peer):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        peer.sendmsg([b"hello"], sent.as_raw())
        assert await client.recv_packet(ancillary_data=received) == "hello"
    [message] = received.messages()
    assert isinstance(message, SCMCredentials)
    assert list(message.credentials) == [me]


# -- Receiving ancillary data ------------------------------------------------------------------


async def test_receive(pipe: Descriptors) -> None:
    """Descriptors that come with a packet are added to the object, and are the caller's."""
    ancillary = SocketAncillary()
    async with connected() as (client, peer):
        for packet, count in (("one", 2), ("", 1), ("three", 0)):
            socket.send_fds(peer, [packet.encode()], [pipe.reading] * count)
        for packet, count in (("one", 2), ("", 3), ("three", 3)):
            assert await client.recv_packet(ancillary_data=ancillary) == packet
            assert len(list(ancillary.iter_fds())) == count
    numbers = list(ancillary.iter_fds())
    assert not any(map(os.get_inheritable, numbers))
    for number in numbers:
        pipe.check(number)


async def test_receive_later(pipe: Descriptors) -> None:
    """The same if the client has to wait. Each task gets a packet with what came with it."""
    outcomes = Outcomes()
    ancillary = [SocketAncillary() for _ in range(3)]
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        for each in ancillary:
            tasks.start_soon(outcomes.of, partial(client.recv_packet, ancillary_data=each))
            await anyio.wait_all_tasks_blocked()
        for count, packet in enumerate((b"a", b"b", b"c")):
            socket.send_fds(peer, [packet], [pipe.reading] * count)
    assert outcomes.all == ["a", "b", "c"]
    for count, each in enumerate(ancillary):
        numbers = list(each.iter_fds())
        assert len(numbers) == count
        for number in numbers:
            pipe.check(number)


async def test_not_asked_for(pipe: Descriptors) -> None:
    """Descriptors that are not asked for are closed; those of the next packet are not lost."""
    ancillary = SocketAncillary()
    async with connected() as (client, peer):
        for packet in (b"one", b"two", b"three"):
            socket.send_fds(peer, [packet], [pipe.reading])
        assert await client.recv_packet() == "one"
        assert await client.recv_packet(ancillary_data=ancillary) == "two"
    [number] = ancillary.iter_fds()
    pipe.check(number)


async def test_bad_packet(pipe: Descriptors) -> None:
    """What comes with something that is not a packet is added, too: the caller has to close it."""
    ancillary = SocketAncillary()
    async with connected() as (client, peer):
        socket.send_fds(peer, [NOT_A_PACKET], [pipe.reading])
        socket.send_fds(peer, [b"good"], [pipe.reading])
        with pytest.raises(DatagramProtocolParseError):
            await client.recv_packet(ancillary_data=ancillary)
        assert await client.recv_packet(ancillary_data=ancillary) == "good"
    numbers = list(ancillary.iter_fds())
    assert len(numbers) == 2
    for number in numbers:
        pipe.check(number)


async def test_cut_off(pipe: Descriptors) -> None:
    """Ancillary data that is longer than its buffer is an error, and the packet is lost."""
    ancillary = SocketAncillary()
    options: Any = {"ancillary_data": ancillary, "ancillary_bufsize": socket.CMSG_SPACE(4)}
    async with connected() as (client, peer):
        socket.send_fds(peer, [b"a"], [pipe.reading] * 5)
        socket.send_fds(peer, [b"b"], [pipe.reading])
        with pytest.raises(OSError, match="ancillary data was cut off") as caught:
            await client.recv_packet(**options)
        assert caught.value.errno == errno.EMSGSIZE
        assert await client.recv_packet(**options) == "b"
    [number] = ancillary.iter_fds()
    pipe.check(number)


async def test_ancillary_data_that_cannot_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the cause of an error; the client goes on."""

    def crash(self: SocketAncillary, messages: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SocketAncillary, "update_from_raw", crash)
    async with connected() as (client, peer):
        peer.send(b"one")
        peer.send(b"two")
        message = r"^ancillary_data_received\(\) crashed$"
        with pytest.raises(RuntimeError, match=message) as caught:
            await client.recv_packet(ancillary_data=SocketAncillary())
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await client.recv_packet() == "two"


async def test_sizes() -> None:
    """A size without an object is an error, and so is one that is not strictly positive."""
    async with connected() as (client, peer):
        with pytest.raises(
            ValueError, match="^ancillary_bufsize is only meaningful with ancillary"
        ):
            await client.recv_packet(ancillary_bufsize=100)
        wrong: Any
        for wrong in (0, -1, 1.5, "x"):
            with pytest.raises(
                ValueError, match="^ancillary_bufsize must be a strictly positive i"
            ):
                await client.recv_packet(ancillary_data=SocketAncillary(), ancillary_bufsize=wrong)
        peer.send(b"hello")
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
        socket.send_fds(peer, [b"hello"], [pipe.reading])
        await anyio.wait_all_tasks_blocked()
        assert await client.recv_packet(ancillary_data=other) == "hello"
    assert list(ancillary.iter_fds()) == []
    [number] = other.iter_fds()
    pipe.check(number)


async def test_close_while_receiving() -> None:
    """A task that waits is told when the client is closed."""
    outcomes = Outcomes()
    async with connected() as (client, _):
        receive = partial(client.recv_packet, ancillary_data=SocketAncillary())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, receive)
            await anyio.wait_all_tasks_blocked()
            await client.aclose()
        await outcomes.of(receive)
    assert outcomes.types() == [ClientClosedError, ClientClosedError]


# -- Two clients -------------------------------------------------------------------------------


class Relay(AsyncDatagramRequestHandler[str, str]):
    """Sends each packet, and what comes with it, to all other clients that have sent something."""

    def __init__(self) -> None:
        self.clients: set[Any] = set()

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[Any, str]:
        ancillary = SocketAncillary()
        receive = RecvAncillaryDataParams(ancillary.update_from_raw)
        packet = yield RecvParams(recv_with_ancillary=receive)
        self.clients.add(client)
        if packet == "hello":
            await client.send_packet("welcome")
        for other in self.clients - {client}:
            if packet != "hello":
                await other.send_packet_with_ancillary(packet, ancillary.as_raw())
        for number in ancillary.iter_fds():
            os.close(number)


async def test_two_clients_and_a_server(folder: str, pipe: Descriptors) -> None:
    """Descriptors go from one client over a server to another one, and back."""
    path = f"{folder}/server"
    server = AsyncUnixDatagramServer(path, TEXT, Relay(), receive_ancillary_data=True)
    async with server, anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
        await is_up.wait()
        async with Client(path, TEXT) as one, Client(path, TEXT) as other:
            for client in (one, other):
                await client.send_packet("hello")
                assert await client.recv_packet() == "welcome"
            for sender, receiver in ((one, other), (other, one)):
                ancillary = SocketAncillary()
                await sender.send_packet("take", ancillary_data=ancillary_of(pipe.reading))
                assert await receiver.recv_packet(ancillary_data=ancillary) == "take"
                [number] = ancillary.iter_fds()
                pipe.check(number)
        await server.shutdown()
    assert os.listdir(folder) == []
