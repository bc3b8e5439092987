"""A task goes on in the callback that has read for it, not a turn of the event loop later."""

from __future__ import annotations

import asyncio
import selectors
import socket
from typing import Any

import pytest

from easynetwork.backends.asyncio import readiness
from easynetwork.backends.asyncio.readiness import selector_of
from easynetwork.backends.asyncio.stream import waking_up
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from tests.backends.pairs import Pair, open_pair
from tests.times import PATIENCE


class Waiting:
    """A task that waits for a future, and notes what happens."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.notes: list[str] = []
        with socket.socket() as sock:
            self._wake_up = waking_up(selector_of(self.loop, sock))

    async def wait(self) -> None:
        await self.future
        self.notes.append("goes on")
        assert asyncio.current_task() is not None
        await asyncio.sleep(0)
        self.notes.append("ends")

    def wake_up(self) -> None:
        self._wake_up(self.future)
        self.notes.append("woken up")


def notes(*, tasks: int = 1, in_task: bool = False, debug: bool = False) -> list[str]:
    """Wake up tasks that wait for one future; return what happens."""

    async def main() -> list[str]:
        waiting = Waiting()
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(waiting.wait())
            await asyncio.sleep(0)
            if in_task:
                waiting.wake_up()
            else:
                waiting.loop.call_soon(waiting.wake_up)
        return waiting.notes

    return asyncio.run(main(), debug=debug)


def test_at_once() -> None:
    """The task runs until it waits again, before the callback returns."""
    assert notes() == ["goes on", "woken up", "ends"]


def test_debug() -> None:
    """It goes on in a turn of its own in debug mode, where asyncio logs which task takes long."""
    assert notes(debug=True) == ["woken up", "goes on", "ends"]


def test_in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another task watches the sockets, as on Windows, it goes on after that."""
    monkeypatch.setattr(readiness, "_watches", lambda loop: False)
    assert notes(in_task=True) == ["woken up", "goes on", "ends"]


def test_two_tasks() -> None:
    """Both go on, if two tasks wait for one future."""
    assert notes(tasks=2) == ["goes on", "woken up", "goes on", "ends", "ends"]


def test_nobody_waits() -> None:
    """A future that is waited for afterwards is done."""

    async def main() -> list[str]:
        waiting = Waiting()
        waiting.wake_up()
        await waiting.wait()
        return waiting.notes

    assert asyncio.run(main()) == ["woken up", "goes on", "ends"]


def test_error() -> None:
    """What leaves the task is its own affair, not the callback's."""

    async def main() -> list[str]:
        waiting = Waiting()

        async def fail() -> None:
            await waiting.future
            raise RuntimeError("its own")

        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        waiting.loop.call_soon(waiting.wake_up)
        with pytest.raises(RuntimeError, match="its own"):
            await task
        return waiting.notes

    assert asyncio.run(main()) == ["woken up"]


class CountingSelector(selectors.DefaultSelector):
    """Counts the turns of an event loop."""

    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        return super().select(timeout)


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> Any:
        packet = yield
        await client.send_packet(packet)


def test_turns_of_a_request() -> None:
    """A request is received, served and answered in one turn of the event loop."""
    selector = CountingSelector()
    requests = 100

    async def main() -> None:
        protocol = StreamProtocol(StringLineSerializer())
        async with AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Echo()) as server:
            is_up = asyncio.Event()
            serving = asyncio.create_task(server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            [address] = server.get_addresses()
            turns = await asyncio.to_thread(ask, address.for_connection())
            assert turns < 1.2 * requests
            await server.shutdown()
            await serving

    def ask(address: tuple[str, int]) -> int:
        with socket.create_connection(address) as sock:
            for number in range(-1, requests):
                sock.sendall(b"hello\n")
                assert sock.recv(10) == b"hello\n"
                if number < 0:
                    before = selector.turns
            return selector.turns - before

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(main())


class Busy:
    """A flow that uses the budget of a turn of the event loop."""

    finish_tag = 0


async def wait_for_its_turn(transport: Any) -> None:
    """Let a transport be busy, and receive when its turn has come."""
    transport.finish_tag = 1 << 80

    def exhaust() -> None:
        transport._fair_queue.charge(Busy(), 1 << 40)

    exhaust()
    asyncio.get_running_loop().call_soon(exhaust)  # after the budget is renewed, before reading
    await transport.receive()


def test_interrupted_in_its_turn() -> None:
    """A connection whose task raises KeyboardInterrupt there is still read, if that is caught."""

    async def interrupted(pair: Pair) -> None:
        await wait_for_its_turn(pair.transport)
        raise KeyboardInterrupt

    async def received(pair: Pair) -> bytes:
        await pair.peer_sends(b"more\n")
        async with asyncio.timeout(PATIENCE):
            await pair.transport.receive()
        return bytes(pair.fed)

    with asyncio.Runner() as runner:
        manager = open_pair()
        pair = runner.run(manager.__aenter__())
        runner.run(pair.peer_sends(b"first\n"))
        with pytest.raises(KeyboardInterrupt):
            runner.run(interrupted(pair))
        assert runner.run(received(pair)) == b"first\nmore\n"
        runner.run(manager.__aexit__(None, None, None))
