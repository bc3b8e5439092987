"""How the asynchronous TCP client sends packets, waits for its peer, and closes."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import ClientClosedError
from easynetwork.serializers.line import StringLineSerializer
from tests.clients.async_tcp_support import (
    LINES,
    Client,
    Outcomes,
    connected,
    deliver,
    each_protocol,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.in_turn]

# More than the kernel and the client keep for a connection that was made `narrow`.
LARGE = "x" * 2_000_000


class Picky(AbstractPacketConverter[str, str]):
    """Does not send every packet."""

    def create_from_dto_packet(self, packet: str, /) -> str:
        return packet

    def convert_to_dto_packet(self, obj: str, /) -> str:
        return str(1 // len(obj)) + obj


class InPieces(StringLineSerializer):
    """A user's serializer: fails in the middle of some packets."""

    __slots__ = ()

    def incremental_serialize(self, packet: str, /) -> Iterator[bytes]:  # type: ignore[override]  # a generator is not needed
        for character in packet:
            yield str(1 // int(character)).encode()
        yield b"\n"


def fill(client: Client) -> None:
    """Leave no room for anything of the client's in the kernel."""
    with socket.socket(fileno=os.dup(client.socket.fileno())) as sock:
        sock.setblocking(False)
        # The kernel makes room as long as it gets rid of something: acknowledgements take 40 ms.
        while select.select([], [sock], [], 0.1)[1]:
            with suppress(BlockingIOError):
                while True:
                    sock.send(b"x" * 1000)


# -- Packets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(20, 60_000), (5000, 0)])
async def test_others_have_their_turn(count: int, size: int) -> None:
    """Who sends to a peer that takes it all leaves other tasks their share of the time."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with connected(LINES) as (client, _), anyio.create_task_group() as tasks:
        tasks.start_soon(take_turns)
        await anyio.lowlevel.checkpoint()
        turns = 0
        for _ in range(count):
            await client.send_packet("x" * size + "y")
        assert turns > 0
        tasks.cancel_scope.cancel()


@each_protocol
async def test_packets(protocol_class: Any) -> None:
    """Packets arrive in the order in which they were sent, empty lines too."""
    async with connected(protocol_class(StringLineSerializer())) as (client, peer):
        for packet in ("a", "", "b", "c"):
            await client.send_packet(packet)
        await client.aclose()
        assert await peer.rest() == ("a\n\nb\nc\n", "EOF")


async def test_concurrent_packets() -> None:
    """Several tasks may send: packets are not mixed, and leave in the order of the calls."""
    asked: list[str] = []

    async def send(letter: str) -> None:
        asked.append(letter)
        await client.send_packet(letter * 500_000)

    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        for letter in "abcdefgh":
            tasks.start_soon(send, letter)
        for number in range(8):
            line = await peer.receive()
            assert line == asked[number] * 500_000


@each_protocol
@pytest.mark.parametrize("kind", ["converter", "serializer"])
async def test_crash(protocol_class: Any, kind: str) -> None:
    """An object that no bytes can be made of is a `RuntimeError`, and nothing is sent."""
    serializer = StringLineSerializer() if kind == "converter" else InPieces()
    protocol = protocol_class(serializer, Picky() if kind == "converter" else None)
    bad, good, bytes_of_good = {"converter": ("", "a", "1a\n"), "serializer": ("10", "1", "1\n")}[
        kind
    ]
    async with connected(protocol) as (client, peer):
        with pytest.raises(RuntimeError) as caught:
            await client.send_packet(bad)
        assert str(caught.value) == "protocol.generate_chunks() crashed"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        await client.send_packet(good)
        await client.aclose()
        assert await peer.rest() == (bytes_of_good, "EOF")


async def test_wrong_type() -> None:
    """The same goes for an object of the wrong type."""
    async with connected() as (client, peer):
        with pytest.raises(RuntimeError, match=r"^protocol.generate_chunks\(\) crashed$"):
            await client.send_packet(3)  # type: ignore[arg-type]  # a mistake
        await client.send_packet("packet")
        assert await peer.receive() == "packet"


# -- A peer that does not read -----------------------------------------------------------------


async def test_waits_for_the_peer() -> None:
    """Who sends more than fits waits until the peer reads; nothing is lost."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        while sent < 10_000:
            await client.send_packet("x" * 999)
            sent += 1
        await client.send_eof()

    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert sent < 2_000
        assert await peer.rest() == (("x" * 999 + "\n") * 10_000, "EOF")
    assert sent == 10_000


async def test_does_not_wait_for_the_peer() -> None:
    """Who sends less than the high-water mark does not wait, even if the kernel takes nothing."""
    outcomes = Outcomes()
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        fill(client)
        await client.send_packet("x" * (HIGH_WATER - 1000))  # nobody reads: it would wait for ever
        tasks.start_soon(outcomes.of, lambda: client.send_packet(LARGE))
        await anyio.wait_all_tasks_blocked()
        assert outcomes.all == []
        for _ in range(2):
            await peer.receive()
    assert outcomes.all == [None]


async def test_cancelled_sending() -> None:
    """A task that is cancelled while it waits leaves the client to be closed, at once if wanted."""
    async with connected(narrow=True) as (client, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send_packet, LARGE)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        with anyio.move_on_after(0) as scope:
            await client.aclose()
        assert scope.cancelled_caught
        text, end = await peer.rest()
        assert len(text) < len(LARGE)
        assert end == "reset"


async def test_both_send_much() -> None:
    """Sending and receiving do not wait for each other."""
    received: list[str] = []

    async def receive() -> None:
        received.append(await client.recv_packet())

    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(client.send_packet, LARGE)
        tasks.start_soon(receive)
        await peer.send_much(f"{LARGE}\n".encode())
        assert await peer.receive() == LARGE
    assert received == [LARGE]


# -- A peer that is gone -----------------------------------------------------------------------


@pytest.mark.parametrize("rudely", [False, True], ids=["close", "reset"])
async def test_peer_is_gone(rudely: bool) -> None:
    """After the peer has left, a packet may seem to be sent; then it is an error each time."""
    async with connected() as (client, peer):
        peer.reset() if rudely else peer.close()
        with pytest.raises(ConnectionAbortedError) as caught:
            while True:
                await client.send_packet("packet")
                await anyio.lowlevel.checkpoint()
        assert caught.value.errno == errno.ECONNABORTED
        assert isinstance(caught.value.__cause__, ConnectionError)
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError):
                await client.send_packet("packet")
            with pytest.raises(ConnectionAbortedError):
                await client.recv_packet()
        assert client.is_connected()
        assert not client.is_closing()


async def test_server_closes_at_once() -> None:
    """Receiving fails at once, sending sooner or later; the client is open until it is closed."""
    async with connected() as (client, peer):
        peer.close()
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError):
                await client.recv_packet()
        with pytest.raises(ConnectionAbortedError) as caught:
            while True:
                await client.send_packet("packet")
                await anyio.lowlevel.checkpoint()
        assert isinstance(caught.value.__cause__, (BrokenPipeError, ConnectionResetError))
        assert not client.is_closing()
        await client.aclose()
        assert client.is_closing()
        with pytest.raises(ClientClosedError):
            await client.send_packet("packet")


async def test_peer_leaves_while_sending() -> None:
    """Everybody who waits for a peer to read is told that it has left."""
    outcomes = Outcomes()
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(outcomes.of, lambda: client.send_packet(LARGE))
        await anyio.wait_all_tasks_blocked()
        peer.reset()
    assert outcomes.types() == [ConnectionAbortedError] * 3


# -- The end of the stream ---------------------------------------------------------------------


async def test_send_eof() -> None:
    """After the end of the stream nothing can be sent, but packets still arrive."""
    async with connected() as (client, peer):
        await client.send_packet("packet")
        await client.send_eof()
        await client.send_eof()
        assert await peer.rest() == ("packet\n", "EOF")
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"^send_eof\(\) has been called earlier$"):
                await client.send_packet("packet")
        assert not client.is_closing()
        peer.send("answer")
        assert await client.recv_packet() == "answer"


async def test_send_eof_behind_packets() -> None:
    """The end of the stream comes behind what waits to be sent."""
    outcomes = Outcomes()
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(outcomes.of, lambda: client.send_packet(LARGE))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(client.send_eof)
        assert await peer.rest() == (f"{LARGE}\n", "EOF")
        peer.send("answer")
        assert await client.recv_packet() == "answer"
    assert outcomes.all == [None]


async def test_send_eof_wakes_nobody() -> None:
    """A task that waits for a packet goes on waiting."""
    outcomes = Outcomes()
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(outcomes.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        await client.send_eof()
        assert await peer.rest() == ("", "EOF")
        assert outcomes.all == []
        peer.send("answer")
    assert outcomes.all == ["answer"]


async def test_send_eof_to_nobody() -> None:
    """The end of a connection that is broken or closed needs no other end."""
    async with connected() as (client, peer):
        peer.reset()
        with pytest.raises(ConnectionAbortedError):
            await client.recv_packet()
        await client.send_eof()
        await client.aclose()
        await client.send_eof()


# -- Closing -----------------------------------------------------------------------------------


async def test_close_is_graceful() -> None:
    """What was sent arrives, and then the end of the stream."""
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        fill(client)
        await client.send_packet("y" * 60_000)  # waits in the client
        tasks.start_soon(client.aclose)
        text, end = await peer.rest()
        assert text.endswith("y" * 60_000 + "\n")
        assert end == "EOF"


async def test_close_waits_for_senders() -> None:
    """A packet that is being sent is sent to its end; others are refused, receivers woken."""
    senders, receivers, closers = Outcomes(), Outcomes(), Outcomes()
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(receivers.of, client.recv_packet)
        for _ in range(3):
            tasks.start_soon(senders.of, lambda: client.send_packet(LARGE))
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            tasks.start_soon(closers.of, client.aclose)
        await anyio.wait_all_tasks_blocked()
        assert client.is_closing()
        with pytest.raises(ClientClosedError):
            await client.send_packet("packet")
        assert senders.all == closers.all == []
        assert await peer.rest() == (f"{LARGE}\n" * 3, "EOF")
    assert senders.all == [None] * 3
    assert closers.all == [None] * 2
    assert receivers.types() == [ClientClosedError]


async def test_cancelled_close() -> None:
    """A close that is cancelled resets the connection, at once."""
    senders = Outcomes()
    async with connected(narrow=True) as (client, peer):
        async with anyio.create_task_group() as others, anyio.create_task_group() as tasks:
            others.start_soon(senders.of, lambda: client.send_packet(LARGE))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(client.aclose)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert senders.types() == [ClientClosedError]
        text, end = await peer.rest()
        assert len(text) < len(LARGE)
        assert end == "reset"
        await client.aclose()
        assert client.socket.fileno() == -1


async def test_close_after_the_peer() -> None:
    """A connection that is gone is closed without any error."""
    async with connected(narrow=True) as (client, peer):
        deliver(b"a packet that nobody asks for\n", peer, client)
        fill(client)
        await client.send_packet("a packet that nobody will read")
        peer.reset()
        await client.aclose()
        assert client.socket.fileno() == -1


@pytest.mark.parametrize("is_asked_for", [False, True])
async def test_close_while_the_peer_sends(is_asked_for: bool) -> None:
    """What was sent arrives even if the peer has sent something that nobody has received."""
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        deliver(b"a packet\nanother packet\n", peer, client)
        if is_asked_for:
            assert await client.recv_packet() == "a packet"
        fill(client)
        await client.send_packet("y" * 60_000)
        tasks.start_soon(client.aclose)
        text, end = await peer.rest()
        assert text.endswith("y" * 60_000 + "\n")
        assert end == "EOF"
        peer.close()


async def test_close_while_the_peer_goes_on_sending() -> None:
    """A peer that was interrupted while it sent can finish, and is not reset."""
    async with connected() as (client, peer), anyio.create_task_group() as tasks:
        deliver(b"a packet\nanother packet\n", peer, client)
        assert await client.recv_packet() == "a packet"
        await client.send_packet("enough")
        tasks.start_soon(client.aclose)
        assert await peer.rest() == ("enough\n", "EOF")
        for _ in range(20):
            peer.send("more")
            await anyio.lowlevel.checkpoint()
        peer.close()


async def test_receivers_are_woken_by_a_close() -> None:
    """Even a close that waits for the peer wakes up those who wait for packets."""
    receivers = Outcomes()
    async with connected(narrow=True) as (client, _), anyio.create_task_group() as tasks:
        fill(client)
        await client.send_packet("packet")
        for _ in range(3):
            tasks.start_soon(receivers.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(client.aclose)
        await until(lambda: len(receivers.all) == 3)
        tasks.cancel_scope.cancel()
    assert receivers.types() == [ClientClosedError] * 3


# -- Bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["timeouts", "tasks"])
async def test_bound(how: str) -> None:
    """However many tasks send, and give up: the high-water mark and one packet wait, no more."""

    async def send() -> None:
        with anyio.move_on_after(0 if how == "timeouts" else 3600):
            await client.send_packet("x" * 60_000)

    async with connected(narrow=True) as (client, _peer), anyio.create_task_group() as tasks:
        for _ in range(200):
            if how == "timeouts":
                await send()
            else:
                tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert client._transport is not None
        assert HIGH_WATER < client._transport.get_unsent_size() <= HIGH_WATER + 60_001
        tasks.cancel_scope.cancel()


async def test_cancelled_before_its_turn() -> None:
    """A task that is cancelled before its turn has sent nothing, and the client goes on."""
    async with connected(narrow=True) as (client, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send_packet, LARGE)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0):
                await client.send_packet("cancelled")
            tasks.start_soon(client.send_packet, "last")
            await anyio.wait_all_tasks_blocked()
            assert await peer.receive() == LARGE
            assert await peer.receive() == "last"


async def test_send_eof_behind_senders() -> None:
    """The end of the stream comes after the packets of tasks that wait for their turn."""
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(client.send_packet, name * 500_000)
            await anyio.wait_all_tasks_blocked()
        await client.send_eof()
        with pytest.raises(RuntimeError):
            await client.send_packet("too late")
        assert await peer.rest() == ("".join(f"{name * 500_000}\n" for name in "abc"), "EOF")


@pytest.mark.parametrize("senders", [1, 3])
async def test_close_gives_up(monkeypatch: pytest.MonkeyPatch, senders: int) -> None:
    """Closing waits for the peer to read for a limited time, then the connection is reset."""
    monkeypatch.setattr("easynetwork.backends.stream_transport.CLOSE_TIMEOUT", 0.1)
    outcomes = Outcomes()
    async with connected(narrow=True) as (client, peer), anyio.create_task_group() as tasks:
        for _ in range(senders):
            tasks.start_soon(outcomes.of, lambda: client.send_packet(LARGE))
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(2):
            await client.aclose()
        text, end = await peer.rest()
        assert len(text) < len(LARGE)
        assert end == "reset"
    assert outcomes.types() == [ClientClosedError] * senders


async def test_leaving_after_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does leaving the client's block after a send that took too long."""
    monkeypatch.setattr("easynetwork.backends.stream_transport.CLOSE_TIMEOUT", 0.1)
    async with connected(narrow=True) as (client, peer):
        with anyio.fail_after(2):
            async with client:
                with anyio.move_on_after(0.05):
                    await client.send_packet(LARGE)
        assert (await peer.rest())[1] == "reset"
