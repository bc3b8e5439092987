"""Blocking handlers of datagrams: a thread for each peer that is served."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    UnsupportedOperation,
)
from easynetwork.servers.handlers import INETClientAttribute, UNIXClientAttribute
from tests.conformance.blocking_support import (
    Client,
    DatagramEcho,
    Echo,
    Stopwatch,
    handler_threads,
    threads_ended,
)
from tests.conformance.datagrams.support import NewServer, Serve, Service, on_ip
from tests.conformance.support import Records, restarting, serving
from tests.times import FACTOR, MS, PATIENCE, SOON

pytestmark = pytest.mark.anyio


async def test_conversation(serve: Serve) -> None:
    """Each datagram is one call, in a thread that is not the loop's."""

    class Handler(DatagramEcho):
        def answer(self, client: Client, request: str) -> str:
            assert threading.get_ident() != loop_thread
            assert not client.is_closing()
            return request.upper()

    loop_thread = threading.get_ident()
    async with serve(Handler()) as service:
        one, two = service.connect(), service.connect()
        for request in "first", "second":
            assert await one.ask(request) == request.upper()
            assert await two.ask(request) == request.upper()


async def test_order(serve: Serve) -> None:
    """The datagrams of one peer are handled in their order, one after the other."""

    class Handler(DatagramEcho):
        def answer(self, client: Client, request: str) -> str:
            assert not self.notes.count("begin") - self.notes.count("end")
            self.note("begin")
            time.sleep(MS)
            self.note("end")
            return request

    numbers = [str(number) for number in range(8)]  # a Unix socket's queue may have 10
    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send(*numbers)
        assert [await peer.receive() for _ in numbers] == numbers


async def test_several_of_one_peer(serve: Serve) -> None:
    """A call may receive more of the same peer, until none comes for some time."""

    class Handler(DatagramEcho):
        def handle(self, client: Client) -> None:
            received = []
            with pytest.raises(TimeoutError):
                while True:
                    received.append(client.recv_packet(timeout=2 * SOON))
            client.send_packet(" ".join(received))

    async with serve(Handler()) as service:
        one, two = service.connect(), service.connect()
        one.send("one", "two")
        two.send("1")
        one.send("three")
        assert [await one.receive(), await two.receive()] == ["one two three", "1"]


async def test_packets(serve: Serve) -> None:
    """A timeout that the handler lets out ends the call, which is no fault."""

    class Handler(DatagramEcho):
        def handle(self, client: Client) -> None:
            for request in client.packets(timeout=SOON):
                client.send_packet(request)

    async with serve(Handler()) as service:
        peer = service.connect()
        for request in "one", "two":
            assert await peer.ask(request) == request
        await anyio.sleep(2 * SOON)  # until the call has ended
        assert await peer.ask("three") == "three"


async def test_many_peers(serve: Serve, log: Records) -> None:
    """They wait for a thread, and each has its turn."""

    class Handler(DatagramEcho):
        def answer(self, client: Client, request: str) -> str:
            self.wait()
            assert len(handler_threads()) <= 4
            return request

    message = "All 4 threads of the request handler are busy: clients wait"
    handler = Handler(max_threads=4)
    async with serve(handler) as service:
        peers = [service.connect() for _ in range(100)]
        for number, peer in enumerate(peers):
            await anyio.to_thread.run_sync(peer.send, str(number))
        await log.logged(message)
        handler.released.set()
        for number, peer in enumerate(peers):
            assert await peer.receive() == str(number)
        assert log.problems() == [("WARNING", message, None)]


@on_ip
async def test_flood(serve: Serve, log: Records) -> None:
    """What a peer sends while its handler is slow is bounded, and others are served."""

    class Handler(DatagramEcho):
        def answer(self, client: Client, request: str) -> str:
            if request == "slow":
                self.note("slow")
                self.wait()
            return request

    handler = Handler()
    async with serve(handler) as service:
        slow, other = service.connect(), service.connect()
        slow.send("slow")
        await handler.noted("slow")
        for _ in range(20):
            slow.send(*["flood"] * 100)
            assert await other.ask("quick") == "quick"
        statistics = service.server.get_statistics()
        assert statistics.waiting <= 64
        assert statistics.dropped_by_count > 0
        # Some may have answered and not be free yet, but not each datagram has a thread.
        assert len(handler_threads()) < handler._max_threads
        handler.released.set()
        assert await slow.receive() == "slow"
        assert {message for _, message, _ in log.problems()} != set()


async def test_invalid_datagram(serve: Serve) -> None:
    """It is raised where it was to be received; the handler may answer, and receive more."""

    class Handler(DatagramEcho):
        def handle(self, client: Client) -> None:
            try:
                request = client.recv_packet()
            except DatagramProtocolParseError:
                client.send_packet("invalid")
                request = client.recv_packet()
            client.send_packet(request)

    async with serve(Handler()) as service:
        peer = service.connect()
        assert await peer.ask(b"\xff") == "invalid"
        assert await peer.ask("one") == "one"


async def test_invalid_datagram_let_out(serve: Serve, log: Records) -> None:
    """It is one line in the log, and the next datagram is handled."""
    handler = DatagramEcho()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send(b"\xff")
        assert await peer.ask("one") == "one"
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert "sent invalid data" in message
    assert handler.notes == ["DatagramProtocolParseError"]


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("error", [LookupError, SystemExit, StopIteration])
async def test_crash(serve: Serve, log: Records, where: str, error: type[BaseException]) -> None:
    """It is an ERROR with a traceback, and costs one datagram."""

    class Handler(DatagramEcho):
        fails = True

        def handle(self, client: Client) -> None:
            if where == "before":
                self.fail()
            request = client.recv_packet()
            self.fail()
            client.send_packet(request)

        def fail(self) -> None:
            if self.fails:
                self.fails = False
                raise error

    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send("one")
        assert await peer.ask("two") == "two"
        [(level, message, exc)] = log.problems()
        assert (level, "Exception occurred" in message) == ("ERROR", True)
        assert exc is not None


async def test_extra(serve: Serve, host: str) -> None:
    """What is known of the peer is known in the thread."""

    class Handler(DatagramEcho):
        def answer(self, client: Client, request: str) -> str:
            if host == "unix":
                return str(client.extra(UNIXClientAttribute.peer_name))
            return str(client.extra(INETClientAttribute.remote_address)[1])

    async with serve(Handler()) as service:
        peer = service.connect()
        answer = await peer.ask("who am I?")
        assert answer == (peer.name if host == "unix" else str(peer.address[1]))


who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_context(serve: Serve) -> None:
    """What `service_init()` sets is visible, and a call's own changes are gone with it."""

    class Handler(DatagramEcho):
        async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
            who.set("service")

        def answer(self, client: Client, request: str) -> str:
            before = who.get()
            who.set(request)
            return before

    async with serve(Handler()) as service:
        peer = service.connect()
        assert [await peer.ask("one"), await peer.ask("two")] == ["service"] * 2
    assert who.get() == "nobody"


# -- stopping


class Waiting(DatagramEcho):
    """Waits in each thread for a second datagram."""

    def handle(self, client: Client) -> None:
        client.send_packet(client.recv_packet())
        with self.noting_errors():
            client.recv_packet()


@pytest.mark.parametrize("end", ["shutdown", "cancellation"])
async def test_stopping(new_server: NewServer, end: str) -> None:
    """What waits gets a ClientClosedError at once, and no thread is left."""
    handler = Waiting()
    scope = anyio.CancelScope()
    is_up = anyio.Event()

    async def serve(server: Any) -> None:
        with scope:
            await server.serve_forever(is_up_event=is_up)

    with anyio.fail_after(PATIENCE):
        async with new_server(handler) as server:
            with contextlib.closing(Service(server)) as service, Stopwatch() as stopwatch:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(serve, server)
                    await is_up.wait()
                    peers = [service.connect() for _ in range(4)]
                    for peer in peers:
                        assert await peer.ask("one") == "one"
                    if end == "shutdown":
                        await server.shutdown()
                    else:
                        scope.cancel()
    assert stopwatch.elapsed < 1 * FACTOR
    assert handler.notes == ["ClientClosedError"] * 4
    await threads_ended()


async def test_use_after_the_end(serve: Serve) -> None:
    """A client that is kept never waits."""

    class Handler(DatagramEcho):
        def answer(self, client: Client, request: str) -> str:
            self.client = client
            return request

    def use(client: Client) -> None:
        with pytest.raises(ClientClosedError):
            client.recv_packet()
        with pytest.raises(ClientClosedError):
            client.send_packet("too late")

    handler = Handler()
    async with serve(handler) as service:
        assert await service.connect().ask("one") == "one"
    with anyio.fail_after(1 * FACTOR):
        await anyio.to_thread.run_sync(use, handler.client)


async def test_serving_again(new_server: NewServer) -> None:
    """After a shutdown the same handler serves on."""
    server = new_server(DatagramEcho())
    async with serving(server, Service) as service:
        assert await service.connect().ask("one") == "one"
        await server.shutdown()
        await threads_ended()
        async with restarting(server):
            assert await service.connect().ask("two") == "two"


async def test_handler_of_streams(new_server: NewServer) -> None:
    """A handler of the other kind is refused."""
    with pytest.raises(TypeError, match="Echo object"):
        new_server(Echo())


async def test_close(serve: Serve) -> None:
    """There is no connection that could be closed or counted, and the error says so."""

    class Handler(DatagramEcho):
        def answer(self, client: Client, request: str) -> str:
            for method in client.close, client.get_statistics, client.set_limits:
                with pytest.raises(UnsupportedOperation, match=r"^There is no connection$"):
                    method()
            assert client.close_reason is None
            assert not client.is_draining()
            return request

    async with serve(Handler()) as service:
        assert await service.connect().ask("one") == "one"
