"""How the asynchronous UDP client sends and receives packets, and what it makes of errors."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    DeserializeError,
    ProtocolCrashedError,
)
from tests.clients.async_tcp_support import Outcomes, outcome, until
from tests.clients.udp_support import (
    NOT_A_PACKET,
    TEXT,
    AsyncClient,
    Full,
    address_of,
    bound,
    connected,
    connected_to,
    deliver,
    each_family,
    send_unnoticed,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

LONGEST = {"127.0.0.1": 65_507, "::1": 65_527}


async def packets(iterator: AsyncIterator[str]) -> list[str]:
    """Return all packets of an iterator, which is over then."""
    received = [packet async for packet in iterator]
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)
    return received


# -- Packets -----------------------------------------------------------------------------------


@each_family
async def test_round_trip(host: str) -> None:
    """A packet leaves as a datagram, and a datagram comes back as a packet."""
    async with connected(host) as (client, peer):
        for number in range(3):
            await client.send_packet(f"question {number}")
            assert peer.recv(100) == b"question %d" % number
            peer.send(b"answer %d" % number)
            assert await client.recv_packet() == f"answer {number}"


@each_family
async def test_sizes(host: str) -> None:
    """A datagram may be empty, and as long as UDP can tell; each is one packet."""
    async with connected(host) as (client, peer):
        for packet in ("", "x", "", "x" * LONGEST[host]):
            await client.send_packet(packet)
            assert peer.recv(1 << 17) == packet.encode()
            peer.send(packet.encode())
            assert await client.recv_packet() == packet


@each_family
async def test_too_long(host: str) -> None:
    """A longer one is an error that says so; nothing was sent, and the client goes on."""
    async with connected(host) as (client, peer):
        for length in (LONGEST[host] + 1, 1 << 20):
            with pytest.raises(OSError, match=f"datagram of {length} bytes is too long") as caught:
                await client.send_packet("x" * length)
            assert caught.value.errno == errno.EMSGSIZE
        await client.send_packet("short")
        assert peer.recv(100) == b"short"


async def test_wait() -> None:
    """Whoever asks before anything has arrived waits for it."""
    outcomes = Outcomes()
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(outcomes.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        assert outcomes.all == []
        peer.send(b"packet")
    assert outcomes.all == ["packet"]


@each_family
async def test_strangers_are_ignored(host: str) -> None:
    """What others send is not received."""
    async with connected(host) as (client, peer):
        with bound(host) as stranger:
            stranger.sendto(b"stranger", client.get_local_address())
            peer.send(b"peer")
            stranger.sendto(b"stranger", client.get_local_address())
            assert await client.recv_packet() == "peer"
            assert await packets(client.iter_received_packets(timeout=0.02)) == []


async def test_cancellation_loses_nothing() -> None:
    """A datagram that arrives at the moment of a cancellation is there for whoever asks next."""
    async with connected() as (client, peer):
        for turns in range(5):
            outcomes = Outcomes()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outcomes.of, client.recv_packet)
                await anyio.wait_all_tasks_blocked()
                deliver(peer, client, b"packet")
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert (outcomes.all or [await client.recv_packet()]) == ["packet"]
            assert await packets(client.iter_received_packets()) == []


@pytest.mark.parametrize("direction", ["send", "receive"])
async def test_others_run_meanwhile(direction: str) -> None:
    """A task that never has to wait does not keep other tasks from running."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(count_turns)
        for _ in range(1200):
            if direction == "receive":
                peer.send(b"packet")
                await client.recv_packet()
            else:
                await client.send_packet("packet")
        tasks.cancel_scope.cancel()
    assert turns >= 2


async def test_endless_sender_can_be_cancelled() -> None:
    """So a task that sends for ever can be stopped."""
    async with connected() as (client, _):
        with anyio.move_on_after(0.01) as scope:
            while True:
                await client.send_packet("packet")
        assert scope.cancelled_caught


# -- Several tasks -----------------------------------------------------------------------------


async def test_packets_go_to_who_asked_first() -> None:
    """Several tasks get one packet each, in the order in which they asked."""
    asked: list[int] = []
    received: dict[int, str] = {}

    async def receive(task: int) -> None:
        asked.append(task)
        received[task] = await client.recv_packet()

    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        for task in range(3):
            tasks.start_soon(receive, task)
        await anyio.wait_all_tasks_blocked()
        for packet in (b"a", b"b", b"c"):
            peer.send(packet)
    assert [received[task] for task in asked] == ["a", "b", "c"]


async def test_sent_in_the_order_of_the_calls() -> None:
    """Packets that the kernel has no room for leave in order, before those that come later."""
    with anyio.fail_after(PATIENCE), bound() as peer:
        sock = connected_to(peer, Full)
        async with AsyncUDPNetworkClient(sock, TEXT) as client:
            started: list[str] = []

            async def send(packet: str) -> None:
                started.append(packet)
                await client.send_packet(packet)

            async with anyio.create_task_group() as tasks:
                for packet in ("one", "two", "three"):
                    tasks.start_soon(send, packet)
                await until(lambda: len(started) == 3)
                sock.room = True
                await send("four")
            assert [peer.recv(100).decode() for _ in range(4)] == started
            assert started[3] == "four"


# -- Bad data ----------------------------------------------------------------------------------


async def test_bad_datagram() -> None:
    """A datagram that is not a packet is an error; the next one is not concerned."""
    async with connected() as (client, peer):
        peer.send(NOT_A_PACKET)
        peer.send(b"good")
        with pytest.raises(DatagramProtocolParseError) as caught:
            await client.recv_packet()
        assert isinstance(caught.value.error, DeserializeError)
        assert await client.recv_packet() == "good"


async def test_crash() -> None:
    """An exception of the protocol object's is a RuntimeError's cause; the client goes on."""
    async with connected() as (client, peer):
        peer.send(b"crash")
        peer.send(b"good")
        with pytest.raises(
            RuntimeError, match=r"^protocol\.build_packet_from_datagram\(\) crashed$"
        ) as caught:
            await client.recv_packet()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await client.recv_packet() == "good"
        with pytest.raises(RuntimeError, match=r"^protocol\.make_datagram\(\) crashed$") as caught:
            await client.send_packet("crash")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        await client.send_packet("good")
        assert peer.recv(100) == b"good"


# -- A peer that is not there ------------------------------------------------------------------


@each_family
async def test_dead_peer(host: str) -> None:
    """That nobody listens is an error of a send or of the receive; the client goes on."""
    async with connected(host) as (client, peer):
        address = address_of(peer)
        peer.close()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError) as caught:
                await client.send_packet("anybody there?")
                await client.recv_packet()
            assert caught.value.errno == errno.ECONNREFUSED
        assert not client.is_closing()
        with bound(*address) as peer:
            await client.send_packet("and now?")
            assert peer.recvfrom(100) == (b"and now?", client.get_local_address())
            peer.sendto(b"yes", client.get_local_address())
            assert await client.recv_packet() == "yes"


@pytest.mark.skipif(sys.platform != "linux", reason="others hear of it with the next operation")
async def test_dead_peer_is_noticed_by_the_send() -> None:
    """On this machine, the packet that cannot arrive is the one that is an error; no other is."""
    async with connected() as (client, peer):
        peer.close()
        with pytest.raises(ConnectionRefusedError):
            await client.send_packet("anybody there?")
        with anyio.move_on_after(0.02) as scope:
            await client.recv_packet()
        assert scope.cancelled_caught


@pytest.mark.parametrize("first", ["receive", "send"])
async def test_dead_peer_is_noticed_by_the_receive(first: str) -> None:
    """Whoever waits for a packet hears of it otherwise, once, and can wait again."""
    outcomes = Outcomes()
    async with connected() as (client, peer):
        address = address_of(peer)
        peer.close()
        if first == "send":
            send_unnoticed(client, b"anybody there?")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, client.recv_packet)
            if first == "receive":
                await anyio.wait_all_tasks_blocked()
                send_unnoticed(client, b"anybody there?")
        assert outcomes.types() == [ConnectionRefusedError]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, client.recv_packet)
            await anyio.wait_all_tasks_blocked()
            with bound(*address) as peer:
                peer.sendto(b"hello", client.get_local_address())
        assert outcomes.all[1:] == ["hello"]


async def test_dead_peer_is_noticed_once() -> None:
    """Of two tasks that send and wait for answers, one hears that nobody listens."""
    outcomes = Outcomes()
    async with connected() as (client, peer):
        address = address_of(peer)
        peer.close()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, client.recv_packet)
            await anyio.wait_all_tasks_blocked()
            for _ in range(3):
                error = await outcome(lambda: client.send_packet("anybody there?"))
                await anyio.wait_all_tasks_blocked()
                assert isinstance(error or outcomes.all.pop(), ConnectionRefusedError)
                if error is None:
                    tasks.start_soon(outcomes.of, client.recv_packet)
                    await anyio.wait_all_tasks_blocked()
            with bound(*address) as peer:
                peer.sendto(b"hello", client.get_local_address())
        assert outcomes.all == ["hello"]


async def test_dead_peer_ends_an_iterator() -> None:
    """An iterator is over then, and the next one is not concerned."""
    async with connected() as (client, peer):
        deliver(peer, client, b"one", b"two")
        peer.close()
        iterator = client.iter_received_packets(timeout=None)
        assert await anext(iterator) == "one"
        send_unnoticed(client, b"anybody there?")
        assert await packets(iterator) == []
        assert await packets(client.iter_received_packets()) == ["two"]


# -- Iterators ---------------------------------------------------------------------------------


async def test_what_the_kernel_holds() -> None:
    """By default, an iterator gives what has arrived, and does not wait for more."""
    async with connected() as (client, peer):
        assert await packets(client.iter_received_packets()) == []
        deliver(peer, client, b"one", b"", b"three")
        assert await packets(client.iter_received_packets()) == ["one", "", "three"]
        deliver(peer, client, *(b"%d" % i for i in range(100)))
        received = await packets(client.iter_received_packets(timeout=0))
        assert received == [*map(str, range(100))]


async def test_what_the_kernel_holds_for_a_new_client() -> None:
    """What has arrived at a socket before the client began to use it has arrived."""
    with bound() as peer, connected_to(peer) as sock:
        client: AsyncClient = AsyncUDPNetworkClient(sock, TEXT)
        peer.sendto(b"one", sock.getsockname())
        sock.recv(3, socket.MSG_PEEK)
        assert await packets(client.iter_received_packets(timeout=0)) == ["one"]
        await client.aclose()


async def test_what_has_arrived_while_nobody_asked() -> None:
    """What arrives between two packets, while the event loop runs, has arrived as well."""
    async with connected() as (client, peer):
        peer.send(b"one")
        assert await client.recv_packet() == "one"
        deliver(peer, client, b"two")
        await anyio.wait_all_tasks_blocked()
        deliver(peer, client, b"three")
        assert await packets(client.iter_received_packets()) == ["two", "three"]


async def test_until_the_time_is_up() -> None:
    """With a limit, an iterator waits for packets, and for no longer than that."""
    async with connected() as (client, peer):
        start = anyio.current_time()
        peer.send(b"a")
        peer.send(b"b")
        assert await packets(client.iter_received_packets(timeout=0.05)) == ["a", "b"]
        assert 0.04 < anyio.current_time() - start < PATIENCE / 2


async def test_errors_while_iterating() -> None:
    """Bad datagrams and crashes are raised; the iterator goes on behind them, until the close."""
    async with connected() as (client, peer):
        iterator = client.iter_received_packets(timeout=None)
        for datagram in (b"a", NOT_A_PACKET, b"crash", b"b"):
            peer.send(datagram)
        outcomes = [await outcome(iterator.__anext__) for _ in range(4)]
        types = [type(each) for each in outcomes]
        assert types == [str, DatagramProtocolParseError, ProtocolCrashedError, str]
        await client.aclose()
        assert await packets(iterator) == []


# -- Closing -----------------------------------------------------------------------------------


async def start_sending(tasks: Any, client: AsyncClient, sock: Full, outcomes: Outcomes) -> None:
    """Let a task send a packet that the kernel has no room for."""
    tasks.start_soon(outcomes.of, lambda: client.send_packet("packet"))
    await until(lambda: sock.refused)


async def test_close_waits_for_senders() -> None:
    """A packet that is being sent is sent; later ones are refused at once."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), bound() as peer:
        sock = connected_to(peer, Full)
        client: AsyncClient = AsyncUDPNetworkClient(sock, TEXT)
        async with anyio.create_task_group() as tasks:
            await start_sending(tasks, client, sock, outcomes)
            tasks.start_soon(client.aclose)
            await until(client.is_closing)
            with pytest.raises(ClientClosedError):
                await client.send_packet("late")
            assert sock.fileno() >= 0
            sock.room = True
        assert outcomes.all == [None]
        assert peer.recv(100) == b"packet"
        assert sock.fileno() == -1


async def test_cancelled_close() -> None:
    """A close that is cancelled closes at once; whoever was sending is told."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), bound() as peer:
        sock = connected_to(peer, Full)
        client: AsyncClient = AsyncUDPNetworkClient(sock, TEXT)
        async with anyio.create_task_group() as tasks:
            await start_sending(tasks, client, sock, outcomes)
            with anyio.move_on_after(0.01) as scope:
                await client.aclose()
            assert scope.cancelled_caught
            assert sock.fileno() == -1
            sock.room = True
        assert outcomes.types() == [ClientClosedError]


async def test_descriptor_closed_by_somebody_else() -> None:
    """A descriptor that is not there any more is an error with an explanation."""
    async with connected() as (client, _):
        descriptor = client.socket.fileno()
        with socket.socket(fileno=os.dup(descriptor)):
            os.close(descriptor)
            for operation in (lambda: client.send_packet("hello"), client.recv_packet):
                with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
                    await operation()
                assert caught.value.errno == errno.EBADF
                assert caught.value.__notes__ == [
                    "The socket file descriptor was closed unexpectedly."
                ]
