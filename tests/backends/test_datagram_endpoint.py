"""The contract of `DatagramEndpoint`, on every backend."""

from __future__ import annotations

import contextvars
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.backends import ensure_backend
from easynetwork.backends.datagram_endpoint import BATCH_SIZE, SocketDatagramEndpoint
from tests.times import SOON

pytestmark = pytest.mark.anyio

IP_RECVERR = 11  # linux/in.h; the socket module does not have it


class Pair:
    """An endpoint and a plain socket, which are connected to each other.

    Attributes:
        served: What the endpoint handed over.
        errors: The errors that it did.
        batches: How many datagrams at once.
    """

    def __init__(self, endpoint: SocketDatagramEndpoint, peer: socket.socket) -> None:
        self.endpoint = endpoint
        self.peer = peer
        self.served: list[bytes] = []
        self.senders: set[Any] = set()
        self.errors: list[OSError] = []
        self.batches: list[int] = []
        self.arrived = anyio.Event()

    async def serve(self) -> None:
        await self.endpoint.serve(self.take, self.errors.append)

    def take(self, batch: list[tuple[bytes, Any]]) -> None:
        self.batches.append(len(batch))
        self.served += [datagram for datagram, _ in batch]
        self.senders |= {sender for _, sender in batch}
        self.arrived.set()
        self.arrived = anyio.Event()

    async def has_served(self, count: int) -> None:
        while len(self.served) < count:
            await self.arrived.wait()

    def fill(self) -> int:
        """Send until the kernel does not take any more; return how many it took."""
        count = 0
        while self.endpoint.send(b"x" * 1000):
            count += 1
        return count


def udp_sockets(host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """Return two UDP sockets, bound but not connected."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    for sock in sockets:
        sock.bind((host, 0))
        sock.setblocking(False)
    return sockets


def dead_address() -> Any:
    """Return an address at which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


async def new_pair(one: socket.socket, other: socket.socket) -> Pair:
    endpoint = ensure_backend(None).wrap_datagram_socket(one)
    assert isinstance(endpoint, SocketDatagramEndpoint)
    return Pair(endpoint, other)


@pytest.fixture
async def unconnected(anyio_backend: object) -> AsyncIterator[Pair]:
    """UDP sockets that are not connected, as a server's."""
    one, other = udp_sockets()
    with other:
        pair = await new_pair(one, other)
        yield pair
        pair.endpoint.close()


@pytest.fixture
async def pair(anyio_backend: object) -> AsyncIterator[Pair]:
    """UDP sockets that are connected, as a client's."""
    one, other = udp_sockets()
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    with other:
        pair = await new_pair(one, other)
        yield pair
        pair.endpoint.close()


@pytest.fixture
async def narrow(anyio_backend: object) -> AsyncIterator[Pair]:
    """Sockets whose kernel buffer fills up. Over UDP's loopback it never does: it drops."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.setblocking(False)
    with other:
        pair = await new_pair(one, other)
        yield pair
        pair.endpoint.close()


# -- Receiving ---------------------------------------------------------------------------------


async def test_receive(pair: Pair) -> None:
    """Datagrams are received whole and in order, whether they are there or yet to come."""
    for data in (b"a", b"", b"x" * 65_507):
        pair.peer.send(data)
    assert [len(await pair.endpoint.receive()) for _ in range(3)] == [1, 0, 65_507]

    async def ask() -> None:
        assert await pair.endpoint.receive() == b"b"
        assert await pair.endpoint.receive() == b"c"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        pair.peer.send(b"b")
        await anyio.wait_all_tasks_blocked()
        pair.peer.send(b"c")


@pytest.mark.parametrize("delay", [0, SOON])
async def test_deadline(pair: Pair, delay: float) -> None:
    """When the deadline has passed, that is a TimeoutError; what is there is delivered first."""
    backend = ensure_backend(None)
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        await pair.endpoint.receive(backend.current_time() + delay)
    pair.peer.send(b"a")
    assert await pair.endpoint.receive(backend.current_time() - 1) == b"a"
    pair.peer.send(b"b")
    assert await pair.endpoint.receive(backend.current_time() + 5) == b"b"


async def test_datagram_before_the_deadline(pair: Pair) -> None:
    """What comes in time ends the wait."""
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            deadline = ensure_backend(None).current_time() + 5
            assert await pair.endpoint.receive(deadline) == b"a"

        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        pair.peer.send(b"a")


async def test_polling_gives_turns(pair: Pair) -> None:
    """Who asks again and again, with no time to wait, does not stop the event loop."""
    async with anyio.create_task_group() as tasks:

        async def poll() -> None:
            while True:
                with suppress(TimeoutError):
                    await pair.endpoint.receive(0)

        tasks.start_soon(poll)
        await anyio.sleep(SOON)
        tasks.cancel_scope.cancel()


async def test_cancelled_receive(pair: Pair) -> None:
    """What arrives when `receive()` is just being cancelled is there for the next one."""
    for _ in range(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.endpoint.receive)
            await anyio.wait_all_tasks_blocked()
            pair.peer.send(b"a")
            # Let the loop see that, on some rounds, and cancel what it wakes up.
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        pair.peer.send(b"b")
        received = [await pair.endpoint.receive()]
        if received == [b"a"]:
            received.append(await pair.endpoint.receive())
        assert received[-1] == b"b"


async def test_nothing_is_lost_by_cancelling(pair: Pair) -> None:
    """A datagram that wakes up a task which is cancelled in the same turn is not lost."""
    received = []

    async def receive() -> None:
        received.append(await pair.endpoint.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        pair.peer.send(b"a")
        tasks.cancel_scope.cancel()
    if not received:
        await receive()
    assert received == [b"a"]


async def test_receiving_gives_turns(pair: Pair) -> None:
    """A task that never has to wait for its datagrams lets others have a turn now and then."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        for _ in range(9):
            for _ in range(BATCH_SIZE):
                pair.peer.send(b"a")
            for _ in range(BATCH_SIZE):
                assert await pair.endpoint.receive() == b"a"
        tasks.cancel_scope.cancel()
    assert turns > 0


async def test_unasked_datagrams_stay_in_the_kernel(pair: Pair) -> None:
    """Nobody's datagrams are not read, and cost the event loop nothing."""
    pair.peer.send(b"a")
    await pair.endpoint.receive()
    pair.peer.send(b"b")
    pair.peer.send(b"c")
    await anyio.sleep(SOON)
    assert await pair.endpoint.receive() == b"b"
    assert await pair.endpoint.receive() == b"c"


async def test_refused(anyio_backend: object) -> None:
    """On a connected socket, a peer that does not exist is an error of what comes next."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(dead_address())
    endpoint = ensure_backend(None).wrap_datagram_socket(sock)

    async def receive() -> None:
        with pytest.raises(ConnectionRefusedError):
            await endpoint.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        endpoint.send(b"hello")
    endpoint.send(b"hello")
    with pytest.raises(ConnectionRefusedError):
        endpoint.send(b"hello")
    endpoint.close()


@pytest.mark.parametrize("who", ["receiver", "sender"])
async def test_after_an_error(anyio_backend: object, who: str) -> None:
    """An error, whoever met it, does not keep later datagrams from being received."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    address = peer.getsockname()
    peer.close()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(address)
    endpoint = ensure_backend(None).wrap_datagram_socket(sock)
    notes: list[str] = []

    async def receive() -> None:
        while notes.count("hello") < 3:
            try:
                notes.append((await endpoint.receive()).decode())
            except ConnectionRefusedError:
                notes.append("refused")

    async def noted(number: int) -> None:
        while len(notes) < number:
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            seen = len(notes)
            endpoint.send(b"hello?")
            if who == "sender":
                with pytest.raises(ConnectionRefusedError):
                    endpoint.send(b"hello?")
                await anyio.sleep(SOON)  # for an event loop to see what is no longer there
            else:
                await noted(seen + 1)
                assert notes[-1] == "refused"
            seen = len(notes)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(address)
                peer.sendto(b"hello", sock.getsockname())
            await noted(seen + 1)
    endpoint.close()
    assert notes.count("hello") == 3


# -- Serving -----------------------------------------------------------------------------------


async def test_serve(unconnected: Pair) -> None:
    """Datagrams are handed over with their senders, in order, as long as it serves."""
    address = unconnected.endpoint.socket.getsockname()
    unconnected.peer.sendto(b"before", address)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unconnected.serve)
        await unconnected.has_served(1)
        for data in (b"", b"a", b"x" * 65_507):
            unconnected.peer.sendto(data, address)
        await unconnected.has_served(4)
        tasks.cancel_scope.cancel()
    assert unconnected.served == [b"before", b"", b"a", b"x" * 65_507]
    assert unconnected.senders == {unconnected.peer.getsockname()}

    unconnected.peer.sendto(b"between", address)
    await anyio.sleep(SOON)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unconnected.serve)
        await unconnected.has_served(5)
        tasks.cancel_scope.cancel()
    assert unconnected.served[-1] == b"between"
    assert unconnected.errors == []


async def test_batches(unconnected: Pair) -> None:
    """What waits is handed over together, but the loop gets a turn after a bounded number."""
    address = unconnected.endpoint.socket.getsockname()
    for number in range(2 * BATCH_SIZE + 10):
        unconnected.peer.sendto(str(number).encode(), address)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unconnected.serve)
        await unconnected.has_served(2 * BATCH_SIZE + 10)
        tasks.cancel_scope.cancel()
    assert unconnected.served == [str(number).encode() for number in range(2 * BATCH_SIZE + 10)]
    assert unconnected.batches == [BATCH_SIZE, BATCH_SIZE, 10]


async def test_context_of_serving(unconnected: Pair) -> None:
    """The callbacks run in the context of the task that serves."""
    variable = contextvars.ContextVar("variable", default="not set")
    found = []
    unconnected.take = lambda batch: found.append(variable.get())

    async def serve() -> None:
        variable.set("set")
        await unconnected.serve()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.wait_all_tasks_blocked()
        unconnected.peer.sendto(b"a", unconnected.endpoint.socket.getsockname())
        while not found:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert found == ["set"]


@pytest.mark.parametrize("where", ["outside", "inside"])
async def test_close_while_serving(unconnected: Pair, where: str) -> None:
    """Serving ends when the endpoint is closed, by the callback as well; nothing is an error."""
    address = unconnected.endpoint.socket.getsockname()
    if where == "inside":
        unconnected.take = lambda batch: unconnected.endpoint.close()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unconnected.serve)
        await anyio.wait_all_tasks_blocked()
        if where == "inside":
            unconnected.peer.sendto(b"a", address)
        else:
            unconnected.endpoint.close()
    assert unconnected.errors == []


async def test_errors_while_serving(unconnected: Pair) -> None:
    """An error of the socket is handed over, and serving goes on."""
    sock = unconnected.endpoint.socket
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unconnected.serve)
        await anyio.wait_all_tasks_blocked()
        sock.sendto(b"hello?", dead_address())
        with anyio.move_on_after(5):
            while not unconnected.errors:
                await anyio.lowlevel.checkpoint()
        unconnected.peer.sendto(b"a", sock.getsockname())
        await unconnected.has_served(1)
        tasks.cancel_scope.cancel()
    assert {error.errno for error in unconnected.errors} == {errno.ECONNREFUSED}


# -- Sending -----------------------------------------------------------------------------------


async def test_send(pair: Pair, unconnected: Pair) -> None:
    """A connected endpoint sends to its peer, another one to an address."""
    assert pair.endpoint.send(b"a")
    assert pair.peer.recv(10) == b"a"
    assert unconnected.endpoint.send(b"", unconnected.peer.getsockname())
    assert unconnected.peer.recvfrom(10) == (b"", unconnected.endpoint.socket.getsockname())


async def test_error_of_somebody_else(unconnected: Pair) -> None:
    """What became of an earlier datagram to another peer does not keep the next one from going."""
    endpoint = unconnected.endpoint
    endpoint.socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    for number in range(3):
        assert endpoint.send(b"hello?", dead_address())
        assert endpoint.send(str(number).encode(), unconnected.peer.getsockname())
    assert [unconnected.peer.recv(10) for _ in range(3)] == [b"0", b"1", b"2"]
    # The test can fail: this is what a plain socket does.
    endpoint.socket.sendto(b"hello?", dead_address())
    with pytest.raises(ConnectionRefusedError):
        endpoint.socket.sendto(b"3", unconnected.peer.getsockname())


async def test_error_of_this_datagram(unconnected: Pair) -> None:
    """An error that is about this very datagram is raised."""
    with pytest.raises(OSError, match="Invalid argument") as info:
        unconnected.endpoint.send(b"a", ("127.0.0.1", 0))
    assert info.value.errno == errno.EINVAL


@pytest.mark.parametrize(("host", "limit"), [("127.0.0.1", 65_507), ("::1", 65_527)])
async def test_too_long(anyio_backend: object, host: str, limit: int) -> None:
    """The longest datagram is sent; the error of a longer one says how long both are."""
    one, other = udp_sockets(host)
    with other:
        pair = await new_pair(one, other)
        with pytest.raises(
            OSError, match=f"{limit + 1} bytes is too long: at most {limit} "
        ) as info:
            pair.endpoint.send(b"x" * (limit + 1), other.getsockname())
        assert info.value.errno == errno.EMSGSIZE
        assert pair.endpoint.send(b"x" * limit, other.getsockname())
        assert len(other.recv(1 << 17)) == limit
        pair.endpoint.close()


async def test_too_long_for_the_system(narrow: Pair) -> None:
    """Where the system's limit is lower, the error does not claim to know it."""
    narrow.endpoint.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
    with pytest.raises(OSError, match=r"of 60000 bytes is too long: the system ") as info:
        narrow.endpoint.send(b"x" * 60_000)
    assert info.value.errno == errno.EMSGSIZE


async def test_full_buffer(narrow: Pair) -> None:
    """If the kernel has no room, nothing is sent, and `writable()` waits until there is."""
    count = narrow.fill()
    assert count > 0
    with anyio.move_on_after(SOON) as scope:
        await narrow.endpoint.writable()
    assert scope.cancelled_caught
    sent = []

    async def send(data: bytes) -> None:
        while not narrow.endpoint.send(data):
            await narrow.endpoint.writable()
        sent.append(data)

    async with anyio.create_task_group() as tasks:
        for data in (b"a", b"b", b"c"):
            tasks.start_soon(send, data)
        await anyio.wait_all_tasks_blocked()
        assert sent == []
        for _ in range(count):
            assert narrow.peer.recv(2000) == b"x" * 1000
    assert sorted(narrow.peer.recv(10) for _ in range(3)) == [b"a", b"b", b"c"]


async def test_cancelled_writer(narrow: Pair) -> None:
    """If one of those who wait for room is cancelled, another one notices it."""
    count = narrow.fill()
    scope = anyio.CancelScope()

    async def wait(scope: anyio.CancelScope) -> None:
        with scope:
            await narrow.endpoint.writable()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, scope)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait, anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        for _ in range(count):
            narrow.peer.recv(2000)


# -- Closing -----------------------------------------------------------------------------------


async def test_close(narrow: Pair) -> None:
    """Closing wakes up everybody; from then on, everything fails."""
    narrow.fill()
    woken = []

    async def receive() -> None:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await narrow.endpoint.receive()
        woken.append("receive")

    async def wait() -> None:
        await narrow.endpoint.writable()
        woken.append("writable")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        narrow.endpoint.close()
        narrow.endpoint.close()
    assert sorted(woken) == ["receive", "writable", "writable"]

    await narrow.endpoint.writable()
    for address in (None, "nowhere"):
        with pytest.raises(OSError, match="Bad file descriptor") as info:
            narrow.endpoint.send(b"a", address)
        assert info.value.errno == errno.EBADF
    with pytest.raises(OSError, match="Bad file descriptor"):
        await narrow.endpoint.receive()
    with anyio.fail_after(5):
        await narrow.serve()
    assert narrow.errors == []


async def test_received_and_closed(pair: Pair) -> None:
    """What arrived for a task that does not get to see it is gone with the endpoint."""
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(OSError, match="Bad file descriptor"):
                await pair.endpoint.receive()

        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        pair.peer.send(b"a")
        pair.endpoint.close()
