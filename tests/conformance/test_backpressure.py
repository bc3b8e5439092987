"""A peer that does not read: how much waits for it, and for how long."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.servers.handlers import INETClientAttribute
from easynetwork.servers.limits import Limits
from tests.conformance.support import Client, Narrow, Recorder, Requests, Serve, one_protocol
from tests.times import SOON

pytestmark = pytest.mark.anyio

PACKET = 60_000


def unsent(client: Any) -> int:
    """Return how many bytes wait for a client, those of TLS's records included."""
    return int(client.gathered_size()) + int(client.transport.get_unsent_size())


def close_timeout(seconds: float) -> dict[str, Any]:
    """Return options of a server that limit the time of closing."""
    return {"limits": Limits(close_timeout=seconds)}


# -- how much waits


@one_protocol
@pytest.mark.parametrize("how", ["timeouts", "tasks", "cancelled tasks"])
async def test_bound(serve: Serve, how: str) -> None:
    """However many tasks send, and give up: the high-water mark and one packet wait, no more."""

    async def send(client: Client) -> None:
        with anyio.move_on_after(0 if how == "timeouts" else 3600):
            await client.send_packet("x" * PACKET)

    handler = Narrow()
    async with serve(handler) as service:
        await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                if how == "timeouts":
                    await send(client)
                else:
                    tasks.start_soon(send, client)
            if how != "timeouts":
                await anyio.wait_all_tasks_blocked()
            assert HIGH_WATER < unsent(client) < HIGH_WATER + 1.1 * PACKET
            tasks.cancel_scope.cancel()
        assert unsent(client) < HIGH_WATER + 1.1 * PACKET


@pytest.mark.in_turn
@one_protocol
async def test_bound_of_gathered_answers(serve: Serve) -> None:
    """The same holds for answers to a chunk of requests, which are gathered before they leave."""

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            while True:
                yield
                with anyio.move_on_after(0):
                    await client.send_packet("x" * 1_000)
                self.largest = max(self.largest, unsent(client))

        largest = 0

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        for _ in range(10):
            peer.send(*"a" * 400)
            await anyio.wait_all_tasks_blocked()
        assert handler.clients[0].transport.congested  # type: ignore[attr-defined]
        assert handler.largest < HIGH_WATER + 2_000


@one_protocol
async def test_first_come_first_served(serve: Serve) -> None:
    """Tasks send in the order in which they asked; a cancelled one has sent nothing."""
    handler = Narrow()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        impatient = anyio.CancelScope()

        async def send(number: int) -> None:
            if number == 3:
                with impatient:
                    await client.send_packet(f"{number}" * 100_000)
                    raise AssertionError
            else:
                await client.send_packet(f"{number}" * 100_000)

        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(send, number)
                await anyio.wait_all_tasks_blocked()
            impatient.cancel()
            await anyio.wait_all_tasks_blocked()
            lines = await peer.receive_lines(5)
        assert lines == [f"{number}" * 100_000 for number in (0, 1, 2, 4, 5)]


@one_protocol
async def test_newcomers_wait_behind_others(serve: Serve) -> None:
    """A sender that comes when there is room again does not overtake those who waited for it."""

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            async with anyio.create_task_group() as tasks:
                for name in "abc":
                    tasks.start_soon(client.send_packet, name * 100_000)
                    await anyio.wait_all_tasks_blocked()
                self.note("full")
                while unsent(client) > HIGH_WATER // 4:
                    await anyio.lowlevel.checkpoint()
                await client.send_packet("d" * 100_000)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("full")
        assert [line[0] for line in await peer.receive_lines(4)] == ["a", "b", "c", "d"]


async def test_connection_that_breaks(serve: Serve) -> None:
    """Everybody who waits for a turn is told when there will be none."""
    handler = Narrow()
    errors: list[type[BaseException]] = []

    async def send(client: Client) -> None:
        try:
            await client.send_packet("x" * 200_000)
        except ConnectionError as exc:
            errors.append(type(exc))

    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send, handler.clients[0])
            await anyio.wait_all_tasks_blocked()
            peer.reset()
        assert len(errors) == 3
        await handler.noted("on_disconnection")


# -- how long


class Stuck(Narrow):
    """Has a task that sends to a peer that does not read; closes in the way of the test."""

    way = ""

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request != "go":
            await client.send_packet(request)
            return
        with anyio.move_on_after(SOON):
            await client.send_packet("x" * 1_000_000)
        if self.way == "aclose":
            await client.aclose()
        elif self.way == "aclose of another task":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.aclose)
        self.note("closed")
        if self.way == "crash":
            raise LookupError

    async def on_disconnection(self, client: Client) -> None:
        self.note("on_disconnection")
        if self.way == "crash":
            with self.noting_errors():
                await client.send_packet("bye")


@one_protocol
@pytest.mark.parametrize("way", ["aclose", "aclose of another task", "crash", "end"])
async def test_closing_has_a_deadline(serve: Serve, log: Any, way: str) -> None:
    """Whatever closes a connection waits for its peer a limited time; then it is reset."""
    options = close_timeout(SOON)
    handler = Stuck()
    handler.way = way
    async with serve(handler, **options) as service:
        other = await service.connect()
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("closed")
        if not way.startswith("aclose"):
            peer.send_eof()
        begin = time.monotonic()
        await log.logged(f"{peer.name} disconnected")
        [sock] = [
            client.extra(INETClientAttribute.socket)
            for client in handler.clients
            if str(client.extra(INETClientAttribute.remote_address)) == peer.name
        ]
        while sock.fileno() >= 0:
            await anyio.sleep(SOON / 10)
        assert time.monotonic() - begin < 20 * SOON
        assert ("ConnectionAbortedError" in handler.notes) == (way == "crash")
        got, end = await peer.rest()
        assert end == "reset"
        assert len(got) < 1_000_000
        assert await other.ask("hello") == "hello"
    log.problems()


@one_protocol
async def test_stuck_sender_beside_the_goodbye(serve: Serve) -> None:
    """`on_disconnection()` may wait for a task that sends: that ends in time as well."""
    options = close_timeout(SOON)

    class Handler(Narrow):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            self.tasks = await exit_stack.enter_async_context(anyio.create_task_group())
            self.sender_is_done = anyio.Event()

        async def send(self, client: Client) -> None:
            with pytest.raises(ConnectionError):
                await client.send_packet("x" * 1_000_000)
            self.sender_is_done.set()

        async def handle(self, client: Client) -> Requests:
            yield
            self.tasks.start_soon(self.send, client)
            yield

        async def on_disconnection(self, client: Client) -> None:
            await self.sender_is_done.wait()
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler, **options) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go", "!")
        await anyio.wait_all_tasks_blocked()
        peer.send_eof()
        await handler.noted("on_disconnection")


@one_protocol
async def test_reader_in_time(serve: Serve) -> None:
    """A peer that reads what waits for it in time gets all of it, also what waits for its turn."""
    options = close_timeout(5.0)

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            async with anyio.create_task_group() as tasks:
                for name in "abc":
                    tasks.start_soon(client.send_packet, name * 200_000)
                    await anyio.wait_all_tasks_blocked()
                self.note("full")
                await client.aclose()

    handler = Handler()
    async with serve(handler, **options) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("full")
        got, end = await peer.rest()
        assert (got, end) == ("".join(f"{name * 200_000}\n" for name in "abc"), "EOF")


@one_protocol
async def test_limit_does_not_touch_others(serve: Serve) -> None:
    """A connection with nothing to send is not reset by a limit that has passed."""
    options = close_timeout(SOON)

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield 0

        async def on_disconnection(self, client: Client) -> None:
            await anyio.sleep(2 * SOON)
            await client.send_packet("bye")

    async with serve(Handler(), **options) as service:
        peer = await service.connect()
        assert await peer.rest() == ("bye\n", "EOF")


class Counting(AbstractPacketConverterComposite[str, str, str, str]):
    """Counts the packets that are about to be serialized."""

    count = 0

    def create_from_dto_packet(self, packet: str) -> str:
        return packet

    def convert_to_dto_packet(self, obj: str) -> str:
        self.count += 1
        return obj


@pytest.mark.in_turn
@one_protocol
async def test_no_bytes_before_their_turn(serve: Serve) -> None:
    """A packet that waits for its turn is not serialized yet: it may be one of many."""
    handler, converter = Narrow(), Counting()
    async with serve(handler, converter) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(client.send_packet, "x" * 500_000)
            await anyio.wait_all_tasks_blocked()
            assert converter.count == 1
            assert len(await peer.receive_lines(10)) == 10
        assert converter.count == 10


@pytest.mark.in_turn
@one_protocol
async def test_bound_after_the_peer_has_read(serve: Serve) -> None:
    """The bound holds each time that the peer stops to read, not the first time only."""
    handler = Narrow()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(client.send_packet, "x" * PACKET)
            for _ in range(3):
                await anyio.wait_all_tasks_blocked()
                assert unsent(client) < HIGH_WATER + 1.1 * PACKET
                await peer.receive_lines(20)
            await anyio.wait_all_tasks_blocked()
            assert unsent(client) < HIGH_WATER + 1.1 * PACKET
            tasks.cancel_scope.cancel()


@pytest.mark.in_turn
@one_protocol
async def test_two_closers(serve: Serve, linger_time: float) -> None:
    """A second task that closes does not cut short what the first one waits for."""

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            with anyio.move_on_after(0):
                await client.send_packet("x" * 2_000_000)
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(client.aclose)
                self.note("closing")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go", "unread")
        await handler.noted("closing")
        await anyio.sleep(1.3 * linger_time)  # longer than a closed connection lingers
        assert await peer.rest() == ("x" * 2_000_000 + "\n", "EOF")


@pytest.mark.in_turn
@one_protocol
async def test_no_sender_is_passed_over(serve: Serve) -> None:
    """A sender whose bytes have left returns, although the next one has filled the queue again."""
    handler, returned = Narrow(), []

    async def send(client: Client, number: int) -> None:
        await client.send_packet("x" * 100_000)
        returned.append(number)

    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(send, client, number)
                await anyio.wait_all_tasks_blocked()
            await peer.receive_lines(15)
            await anyio.wait_all_tasks_blocked()
            assert returned == sorted(returned)
            assert len(returned) >= 12
            await peer.receive_lines(5)
        assert returned == list(range(20))
