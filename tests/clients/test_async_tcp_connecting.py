"""How the asynchronous TCP client connects, fails to, tries again, and is interrupted."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import select
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.exceptions import ClientClosedError
from tests.clients.async_tcp_support import (
    LINES,
    Accepted,
    Client,
    Outcomes,
    address_of,
    each_family,
    is_waiting,
    listening,
    outcome,
    refusing,
    resolving_to,
    silent,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

OPERATIONS: dict[str, Callable[[Client], Any]] = {
    "wait_connected": lambda client: client.wait_connected(),
    "send_packet": lambda client: client.send_packet("packet"),
    "recv_packet": lambda client: client.recv_packet(),
    "send_eof": lambda client: client.send_eof(),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)


@pytest.fixture(params=["address", "socket"])
def new_client(request: pytest.FixtureRequest) -> Callable[[socket.socket], Client]:
    """Return a function that makes a client that can be connected to a listener."""

    def make(listener: socket.socket) -> Client:
        match request.param:
            case "address":
                return AsyncTCPNetworkClient(address_of(listener), LINES)
            case _:
                sock = socket.create_connection(address_of(listener))
                return AsyncTCPNetworkClient(sock, LINES)

    return make


def is_new(client: Client) -> bool:
    """Whether a client is as if nobody had tried to connect it."""
    return not client.is_connected() and not client.is_closing()


def attempts(exc: BaseException) -> list[str]:
    """Return the texts of the errors of all attempts, in their order."""
    group = exc.__cause__
    assert isinstance(group, ExceptionGroup)
    assert group.message == "create_connection() failed"
    assert all(isinstance(each, OSError) for each in group.exceptions)
    return [str(each) for each in group.exceptions]


async def let_run(turns: int) -> None:
    """Let other tasks take some steps."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


async def check_conversation(client: Client, listener: socket.socket) -> None:
    """Accept the client's connection and use it."""
    with contextlib.closing(Accepted(listener)) as peer:
        await client.send_packet("question")
        assert await peer.ask("answer") == "question"
        assert await client.recv_packet() == "answer"


async def check_all_closed(listener: socket.socket) -> list[str]:
    """Make sure that everybody who has connected closes; return what they sent."""
    received = []
    while is_waiting(listener):
        with contextlib.closing(Accepted(listener)) as peer:
            received.append((await peer.rest())[0])
    return received


# -- Failures ----------------------------------------------------------------------------------


@each_operation
async def test_refused(name: str) -> None:
    """A refusal is a `ConnectionRefusedError` that names host and port; its cause, the attempt."""
    with refusing() as sock:
        host, port = address_of(sock)
        client = AsyncTCPNetworkClient((host, port), LINES)
        with pytest.raises(ConnectionRefusedError) as caught:
            await OPERATIONS[name](client)
        assert caught.value.errno == errno.ECONNREFUSED
        assert f"cannot connect to '{host}', port {port}" in str(caught.value)
        [attempt] = attempts(caught.value)
        assert f"Connect call failed ('{host}', {port})" in attempt
        assert is_new(client)
        assert repr(client) == "<AsyncTCPNetworkClient (partially initialized)>"


async def test_refused_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several refusals are one refusal; IPv6 is tried first, and families take turns."""
    with refusing() as one, refusing() as two, refusing("::1") as three, refusing("::1") as four:
        addresses = [address_of(sock) for sock in (one, two, three, four)]
        resolving_to(monkeypatch, *addresses)
        client = AsyncTCPNetworkClient(("several", 80), LINES, happy_eyeballs_delay=math.inf)
        with pytest.raises(ConnectionRefusedError, match="cannot connect to 'several', port 80"):
            await client.wait_connected()
        error = await outcome(client.wait_connected)
        in_order = [addresses[2], addresses[0], addresses[3], addresses[1]]
        for address, attempt in zip(in_order, attempts(error), strict=True):
            assert f"Connect call failed {address}" in attempt


async def test_different_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """When attempts failed for different reasons, the error is an `OSError` that lists them."""
    with refusing() as one, refusing("::1") as two:
        resolving_to(monkeypatch, address_of(one), address_of(two))
        client = AsyncTCPNetworkClient(("several", 80), LINES, local_address=("127.0.0.1", 0))
        with pytest.raises(OSError, match="cannot connect to 'several', port 80: ") as caught:
            await client.wait_connected()
        assert type(caught.value) is OSError
        without_address, refused = attempts(caught.value)
        assert without_address.startswith("no matching local address with family=")
        assert "AF_INET6" in without_address
        assert f"Connect call failed {address_of(one)}" in refused
        assert without_address in str(caught.value)
        assert refused in str(caught.value)


@each_operation
async def test_unknown_host(name: str) -> None:
    """A name that nobody knows is the resolver's error, which names it."""
    client = AsyncTCPNetworkClient(("nowhere.invalid", 80), LINES)
    with anyio.fail_after(PATIENCE), pytest.raises(socket.gaierror, match="'nowhere.invalid'"):
        await OPERATIONS[name](client)
    assert is_new(client)


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "two..dots"])
async def test_no_host_name(host: str) -> None:
    """What is not even a name is no other kind of error."""
    client = AsyncTCPNetworkClient((host, 80), LINES)
    with anyio.fail_after(PATIENCE), pytest.raises(OSError, match="cannot resolve"):
        await client.wait_connected()


async def test_host_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without addresses is an `OSError`."""
    resolving_to(monkeypatch)
    client = AsyncTCPNetworkClient(("several", 80), LINES)
    with pytest.raises(OSError, match=r"^getaddrinfo\('several'\) returned empty list$"):
        await client.wait_connected()


async def test_try_again_after_a_failure() -> None:
    """A client that failed to connect is as new, and connects as soon as somebody listens."""
    with anyio.fail_after(PATIENCE), refusing() as sock:
        client = AsyncTCPNetworkClient(address_of(sock), LINES)
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await client.wait_connected()
        sock.listen()
        async with client:
            assert client.get_remote_address() == address_of(sock)
            await check_conversation(client, sock)


async def test_close_after_a_failure() -> None:
    """A client that failed to connect can be closed."""
    with refusing() as sock:
        client = AsyncTCPNetworkClient(address_of(sock), LINES)
        with pytest.raises(ConnectionRefusedError):
            await client.wait_connected()
        await client.aclose()
        assert client.is_closing()
        with pytest.raises(ClientClosedError):
            await client.wait_connected()


# -- Which address -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_host(host: str) -> None:
    """A host is a number or a name; the address may be a list."""
    with anyio.fail_after(PATIENCE), listening() as listener:
        address: Any = [host, address_of(listener)[1]]
        async with AsyncTCPNetworkClient(address, LINES) as client:
            assert client.get_remote_address() == address_of(listener)


async def test_ipv6_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has both kinds of addresses is reached over IPv6."""
    with anyio.fail_after(PATIENCE), listening() as ipv4, listening("::1") as ipv6:
        resolving_to(monkeypatch, address_of(ipv4), address_of(ipv6))
        async with AsyncTCPNetworkClient(("several", 80), LINES) as client:
            assert client.get_remote_address() == ipv6.getsockname()
            assert not is_waiting(ipv4)


async def test_next_address_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """When an attempt fails, the next one begins at once."""
    with anyio.fail_after(PATIENCE), refusing() as refused, listening() as listener:
        resolving_to(monkeypatch, address_of(refused), address_of(listener))
        async with AsyncTCPNetworkClient(
            ("several", 80), LINES, happy_eyeballs_delay=math.inf
        ) as client:
            assert client.get_remote_address() == address_of(listener)


@pytest.mark.parametrize("delay", [None, 0.01, 0.0])
async def test_next_address_after_a_while(
    monkeypatch: pytest.MonkeyPatch, delay: float | None
) -> None:
    """While an address does not answer, the next one is tried: after 0.25 seconds by default."""
    with anyio.fail_after(PATIENCE), silent() as mute, listening() as listener:
        resolving_to(monkeypatch, address_of(mute), address_of(listener))
        start = anyio.current_time()
        async with AsyncTCPNetworkClient(
            ("several", 80), LINES, happy_eyeballs_delay=delay
        ) as client:
            assert client.get_remote_address() == address_of(listener)
        assert (anyio.current_time() - start > 0.24) is (delay is None)


async def test_one_address_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an infinite delay, nothing else is tried while an address does not answer."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), silent() as mute, listening() as listener:
        resolving_to(monkeypatch, address_of(mute), address_of(listener))
        client = AsyncTCPNetworkClient(("several", 80), LINES, happy_eyeballs_delay=math.inf)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, client.wait_connected)
            await anyio.wait_all_tasks_blocked()
            # Longer than the usual delay: what must not happen can only be waited for.
            assert await anyio.to_thread.run_sync(select.select, [listener], [], [], 0.3) == (
                [],
                [],
                [],
            )
            await client.aclose()
    assert outcomes.types() == [ClientClosedError]


async def test_one_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    """When several addresses answer, one connection is used and the others are closed."""
    with anyio.fail_after(PATIENCE), ExitStack() as stack:
        listeners = [stack.enter_context(listening()) for _ in range(4)]
        resolving_to(monkeypatch, *map(address_of, listeners))
        async with AsyncTCPNetworkClient(
            ("several", 80), LINES, happy_eyeballs_delay=0.0
        ) as client:
            [winner] = [
                listener
                for listener in listeners
                if address_of(listener) == client.get_remote_address()
            ]
            await check_conversation(client, winner)
            listeners.remove(winner)
            for listener in listeners:
                await check_all_closed(listener)


# -- From which address ------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is not everywhere an address")
@pytest.mark.parametrize("port", [0, None])
async def test_local_address(port: int | None) -> None:
    """The client connects from the address that it was told, and from that port unless it is 0."""
    with anyio.fail_after(PATIENCE), listening() as listener:
        if port is None:
            with refusing("127.0.0.2") as sock:
                port = address_of(sock)[1]  # a free one
        async with AsyncTCPNetworkClient(
            address_of(listener), LINES, local_address=("127.0.0.2", port)
        ) as client:
            assert client.get_local_address().host == "127.0.0.2"
            assert port in (0, client.get_local_address().port)
            with contextlib.closing(Accepted(listener)) as peer:
                assert peer.address == client.get_local_address()


@each_family
async def test_local_address_in_use(host: str) -> None:
    """An address that cannot be used is named, and why."""
    with listening(host) as listener:
        address = address_of(listener)
        client = AsyncTCPNetworkClient(address, LINES, local_address=address)
        with pytest.raises(OSError, match=f"cannot connect to '{host}', port {address[1]}: ") as e:
            await client.wait_connected()
        assert e.value.errno == errno.EADDRINUSE
        [attempt] = attempts(e.value)
        assert f"error while attempting to bind on address {address}: " in attempt
        assert is_new(client)


async def test_unknown_local_address() -> None:
    """A name that nobody knows is the resolver's error, which names it."""
    with anyio.fail_after(PATIENCE), listening() as listener:
        client = AsyncTCPNetworkClient(
            address_of(listener), LINES, local_address=("nowhere.invalid", 0)
        )
        with pytest.raises(socket.gaierror, match="'nowhere.invalid'"):
            await client.wait_connected()


# -- Several tasks -----------------------------------------------------------------------------


async def test_one_attempt(new_client: Callable[[socket.socket], Client]) -> None:
    """Whatever needs the connection at the same time waits for the same attempt."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), listening() as listener:
        async with new_client(listener) as client, anyio.create_task_group() as tasks:
            for name in ("wait_connected", "wait_connected", "send_packet", "recv_packet"):
                tasks.start_soon(outcomes.of, lambda name=name: OPERATIONS[name](client))
            with contextlib.closing(await anyio.to_thread.run_sync(Accepted, listener)) as peer:
                assert await peer.ask("packet") == "packet"
        assert sorted(outcomes.all, key=str) == [None, None, None, "packet"]
        assert not is_waiting(listener)


async def test_failure_of_all() -> None:
    """When the attempt fails, everybody who waits for it hears of it."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), refusing() as sock:
        client = AsyncTCPNetworkClient(address_of(sock), LINES)
        async with anyio.create_task_group() as tasks:
            for name in OPERATIONS:
                tasks.start_soon(outcomes.of, lambda name=name: OPERATIONS[name](client))
    assert outcomes.types() == [ConnectionRefusedError] * 4
    assert is_new(client)


# -- Interruptions -----------------------------------------------------------------------------


@each_operation
async def test_close_while_connecting(name: str) -> None:
    """To close a client ends the attempt; whoever waits for it is told that it is closed."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), silent() as listener:
        client = AsyncTCPNetworkClient(address_of(listener), LINES)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(outcomes.of, lambda: OPERATIONS[name](client))
            await let_run(20)
            assert outcomes.all == []
            await client.aclose()
    assert outcomes.types() == [ClientClosedError] * 2
    assert client.is_closing()
    assert not client.is_connected()
    with pytest.raises(ClientClosedError, match="Client is closing, or is already closed"):
        await client.wait_connected()


async def test_close_before_connecting(new_client: Callable[[socket.socket], Client]) -> None:
    """A client that was closed before it was connected never will be."""
    with listening() as listener:
        client = new_client(listener)
        await client.aclose()
        await client.aclose()
        for name in ("wait_connected", "send_packet", "recv_packet"):
            with pytest.raises(ClientClosedError, match="Client is closing, or is already closed"):
                await OPERATIONS[name](client)
        await client.send_eof()  # nothing to be done, and no error
        assert client.is_closing()
        assert not client.is_connected()
        for get in (client.get_local_address, client.get_remote_address):
            with pytest.raises(ClientClosedError):
                get()
        await check_all_closed(listener)


@pytest.mark.parametrize("last", [False, True])
async def test_close_at_any_moment(
    new_client: Callable[[socket.socket], Client], last: bool
) -> None:
    """However far the attempt has come, closing leaves no connection behind."""

    async def close(client: Client, turns: int) -> None:
        await let_run(turns)
        await client.aclose()

    is_in_time = False
    with anyio.fail_after(PATIENCE), listening() as listener:
        for turns in itertools.count():
            client = new_client(listener)
            outcomes = Outcomes()
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(outcomes.of, client.wait_connected)
                if last:
                    tasks.start_soon(close, client, turns)
                else:
                    await close(client, turns)
            is_in_time = outcomes.all == [None, None]
            for each in outcomes.all:
                assert each is None or type(each) is ClientClosedError
            await check_all_closed(listener)
            if is_in_time:
                break


async def test_cancel_at_any_moment(new_client: Callable[[socket.socket], Client]) -> None:
    """However far the attempt has come, after a cancellation it can be tried again."""
    is_in_time = False
    with anyio.fail_after(PATIENCE), listening() as listener:
        for turns in itertools.count():
            client = new_client(listener)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.wait_connected)
                await let_run(turns)
                is_in_time = client.is_connected()
                tasks.cancel_scope.cancel()
            assert not client.is_closing()
            await client.wait_connected()
            await client.send_packet("packet")
            await client.aclose()
            assert "packet\n" in await check_all_closed(listener)
            if is_in_time:
                break


async def test_reset_at_any_moment(new_client: Callable[[socket.socket], Client]) -> None:
    """However far the attempt has come, a peer that leaves is noticed then or later."""
    is_in_time = False
    with anyio.fail_after(PATIENCE), listening() as listener:
        for turns in itertools.count():
            client = new_client(listener)
            outcomes = Outcomes()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outcomes.of, client.wait_connected)
                await let_run(turns)
                is_in_time = client.is_connected()
                if is_waiting(listener):
                    Accepted(listener).reset()
            [result] = outcomes.all
            assert result is None or isinstance(result, OSError)
            assert client.is_connected() is (result is None)
            await client.aclose()
            await check_all_closed(listener)
            if is_in_time:
                break


async def test_take_over_at_any_moment(new_client: Callable[[socket.socket], Client]) -> None:
    """When the task that connects is cancelled, another one that waits goes on."""
    is_in_time = False
    with anyio.fail_after(PATIENCE), listening() as listener:
        for turns in itertools.count():
            client = new_client(listener)
            outcomes = Outcomes()
            async with anyio.create_task_group() as others, anyio.create_task_group() as tasks:
                tasks.start_soon(client.wait_connected)
                others.start_soon(outcomes.of, client.wait_connected)
                await let_run(turns)
                is_in_time = client.is_connected()
                tasks.cancel_scope.cancel()
            assert outcomes.all == [None]
            await client.aclose()
            await check_all_closed(listener)
            if is_in_time:
                break


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_iteration_limits_the_attempt(timeout: float) -> None:
    """An iterator does not wait longer for the connection than it may wait for packets."""
    with anyio.fail_after(PATIENCE), silent() as listener:
        client = AsyncTCPNetworkClient(address_of(listener), LINES)
        assert [packet async for packet in client.iter_received_packets(timeout=timeout)] == []
        assert is_new(client)


async def test_iteration_limits_the_wait_for_an_attempt() -> None:
    """Nor does it wait longer for the attempt of another task."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), silent() as listener:
        client = AsyncTCPNetworkClient(address_of(listener), LINES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.of, client.wait_connected)
            await anyio.wait_all_tasks_blocked()
            assert [packet async for packet in client.iter_received_packets(timeout=0.05)] == []
            assert outcomes.all == []
            await client.aclose()
    assert outcomes.types() == [ClientClosedError]


async def test_iteration_ends_when_connecting_fails() -> None:
    """An iterator over the packets of a client that cannot connect is empty."""
    with anyio.fail_after(PATIENCE), refusing() as sock:
        client = AsyncTCPNetworkClient(address_of(sock), LINES)
        assert [packet async for packet in client.iter_received_packets(timeout=None)] == []
