"""Blocking handlers of streams: their methods, what a client can do, contexts, arguments."""

from __future__ import annotations

import contextvars
import logging
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.exceptions import (
    ClientClosedError,
    EndOfStreamError,
    StreamProtocolParseError,
)
from easynetwork.servers.blocking import (
    BlockingStreamRequestHandler,
)
from easynetwork.servers.handlers import INETClientAttribute, UNIXClientAttribute
from tests.conformance.blocking_support import Client, Echo, handler_threads, threads_ended
from tests.conformance.support import (
    NewServer,
    Records,
    Serve,
    one_protocol,
    restarting,
    serving,
)
from tests.times import FACTOR, MS, PATIENCE, SOON

pytestmark = pytest.mark.anyio


# -- the methods


async def test_methods(serve: Serve) -> None:
    """They are called once for each client, in order, in one thread that is not the loop's."""

    class Handler(Echo):
        def note(self, what: str) -> None:
            super().note(f"{what} {threading.get_ident()}")

        def handle(self, client: Client) -> None:
            self.note("handle")
            super().handle(client)

    handler = Handler()
    async with serve(handler) as service:
        for _ in range(2):
            peer = await service.connect()
            assert await peer.ask("one") == "one"
            peer.send("two", "three")
            assert await peer.receive_lines(2) == ["two", "three"]
            peer.send_eof()
            assert await peer.rest() == ("", "EOF")
            methods, threads = zip(*(note.split() for note in handler.notes), strict=True)
            assert methods == ("on_connection", "handle", "on_disconnection")
            assert len({*threads, str(threading.get_ident())}) == 2
            handler.notes.clear()


async def test_default_methods(serve: Serve) -> None:
    """Only `handle()` has to be there; when it returns, the connection is closed."""

    class Handler(BlockingStreamRequestHandler[str, str]):
        def handle(self, client: Client) -> None:
            client.send_packet(client.recv_packet().upper())

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("one")
        assert await peer.rest() == ("ONE\n", "EOF")


async def test_greeting_and_goodbye(serve: Serve) -> None:
    """All methods may send; a request may be received in `on_connection()`."""

    class Handler(Echo):
        def on_connection(self, client: Client) -> None:
            client.send_packet(f"hello {client.recv_packet()}")

        def handle(self, client: Client) -> None:
            client.send_packet(client.recv_packet())

        def on_disconnection(self, client: Client) -> None:
            client.send_packet("bye")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("you", "one")
        assert await peer.rest() == ("hello you\none\nbye\n", "EOF")


async def test_large_answer(serve: Serve) -> None:
    """What was sent before `handle()` returns arrives."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            client.send_packet("x" * 5_000_000)

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.rest() == ("x" * 5_000_000 + "\n", "EOF")


# -- receiving


class Receiving(Echo):
    """Answers what receiving returns, or raises; it goes on after an error."""

    timeout: float | None = None

    def handle(self, client: Client) -> None:
        while True:
            try:
                answer = client.recv_packet(timeout=self.timeout)
            except EndOfStreamError:
                self.at_the_end(client)
                raise
            except Exception as exc:
                answer = type(exc).__name__
            client.send_packet(answer)

    def at_the_end(self, client: Client) -> None:
        """Do what a test has to do when the client has left."""


async def test_end_of_stream(serve: Serve) -> None:
    """It is an error, before which everything that was sent is received; answers still arrive."""

    class Handler(Receiving):
        def at_the_end(self, client: Client) -> None:
            assert not client.is_closing()
            client.send_packet("end of stream")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one", "two")
        peer.send_eof()
        assert await peer.rest() == ("one\ntwo\nend of stream\n", "EOF")
        await handler.noted("on_disconnection")


async def test_receiving_after_the_end(serve: Serve) -> None:
    """Each further attempt raises the error again."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            for _ in range(3):
                with pytest.raises(EndOfStreamError):
                    client.recv_packet()
            assert list(client.packets()) == []
            self.note("checked")

    handler = Handler()
    async with serve(handler) as service:
        (await service.connect()).send_eof()
        await handler.noted("checked")


@pytest.mark.parametrize("timeout", [0, 5 * MS])
async def test_timeout(serve: Serve, timeout: float) -> None:
    """A TimeoutError is raised at the call, and the next one receives what comes."""

    class Handler(Receiving):
        def handle(self, client: Client) -> None:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    client.recv_packet(timeout=timeout)
            client.send_packet("silence")
            super().handle(client)

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive() == "silence"
        assert await peer.ask("one") == "one"


async def test_timeout_let_out(serve: Serve, log: Records) -> None:
    """It closes the connection, which is no fault."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            client.recv_packet(timeout=MS)

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "EOF")
        assert f"{peer.name} sent nothing for too long" in log.messages(logging.DEBUG)


async def test_wrong_timeout(serve: Serve) -> None:
    """A timeout that is no number is an error of the call."""

    class Handler(Receiving):
        timeout: Any = "soon"

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive_lines(2) == ["TypeError", "TypeError"]


async def test_invalid_packet(serve: Serve) -> None:
    """It is raised where it was to be received; the handler may answer and go on."""
    async with serve(Receiving()) as service:
        peer = await service.connect()
        peer.send_bytes(b"\xff\nnext\n")
        assert await peer.receive_lines(2) == [StreamProtocolParseError.__name__, "next"]


async def test_invalid_packet_let_out(serve: Serve, log: Records) -> None:
    """It closes the connection, and is one line in the log; the handler may answer it first."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            try:
                super().handle(client)
            except StreamProtocolParseError:
                client.send_packet("invalid")
                raise

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"one\n\xff\nnext\n")
        assert await peer.rest() == ("one\ninvalid\n", "EOF")
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: ")
        assert "\n" not in message
    assert handler.notes == ["on_connection", "on_disconnection"]


# -- closing, and what is known


async def test_close(serve: Serve) -> None:
    """A client that the handler has closed neither sends nor receives, and may be closed again."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            client.recv_packet()
            assert not client.is_closing()
            client.close()
            client.close()
            assert client.is_closing()
            for _ in range(2):
                with pytest.raises(ClientClosedError):
                    client.recv_packet()
                with pytest.raises(ClientClosedError):
                    client.send_packet("too late")
            self.note("checked")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one")
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "checked", "on_disconnection"]


async def test_closing_while_another_thread_receives(serve: Serve) -> None:
    """That thread gets an error at once."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            def receive() -> None:
                with self.noting_errors():
                    client.recv_packet()

            client.recv_packet()
            with ThreadPoolExecutor(1) as pool:
                receiving = pool.submit(receive)
                time.sleep(SOON)
                client.close()
                assert isinstance(receiving.exception(PATIENCE), ClientClosedError)
            self.note("checked")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one")
        await handler.noted("checked")


async def test_extra(serve: Serve, transport: str) -> None:
    """What is known of the connection is known in the thread."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            if transport == "unix":
                credentials = client.extra(UNIXClientAttribute.peer_credentials)
                assert tuple(credentials) == (os.getpid(), os.getuid(), os.getgid())
            else:
                host, port, *_ = client.extra(INETClientAttribute.remote_address)
                self.note(f"{host} {port}")
                assert client.extra(INETClientAttribute.socket).family == socket.AF_INET
            assert client.extra(object(), "default") == "default"
            self.note("checked")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("checked")
        if transport != "unix":
            assert "{} {}".format(*peer.address) in handler.notes


# -- other threads


async def test_receiving_in_two_threads(serve: Serve) -> None:
    """Each packet goes to one of them, none is lost."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            with ThreadPoolExecutor(4) as pool:
                received = list(pool.map(lambda _: client.recv_packet(), range(40)))
            client.send_packet(" ".join(sorted(received)))

    numbers = [f"{number:02}" for number in range(40)]
    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send(*numbers[:20])
        peer.send(*numbers[20:])
        assert await peer.receive() == " ".join(numbers)


async def test_timeout_beside_another_thread(serve: Serve) -> None:
    """A thread with a timeout does not wait longer because another one waits without."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(client.recv_packet)
                time.sleep(SOON)
                with pytest.raises(TimeoutError):
                    client.recv_packet(timeout=SOON)
                client.send_packet("timed out")
                client.send_packet(other.result(PATIENCE))

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive() == "timed out"
        assert await peer.ask("one") == "one"


async def test_returning_while_another_thread_receives(serve: Serve) -> None:
    """The connection is closed nevertheless, and that thread gets an error."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            def receive() -> None:
                self.note("receiving")
                try:
                    client.recv_packet()
                except ConnectionError:
                    self.note("over")

            self.thread = threading.Thread(target=receive, daemon=True)
            self.thread.start()
            time.sleep(SOON)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.rest(leave=False) == ("", "EOF")
        await handler.noted("over")
        await anyio.to_thread.run_sync(handler.thread.join, PATIENCE)


async def test_use_after_the_end(serve: Serve) -> None:
    """A client that is kept raises an error, in whatever thread, also when the server is gone."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            self.client = client

    def use(client: Client) -> None:
        with pytest.raises(ConnectionError):
            client.recv_packet()
        with pytest.raises(ClientClosedError):
            client.send_packet("too late")
        assert client.is_closing()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "EOF")
        with anyio.fail_after(1 * FACTOR):
            await anyio.to_thread.run_sync(use, handler.client)
    with anyio.fail_after(1 * FACTOR):
        await anyio.to_thread.run_sync(use, handler.client)


async def test_use_in_the_event_loop(serve: Serve) -> None:
    """That would wait for itself, and is an error instead."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            self.client = client
            self.note("handle")
            super().handle(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("handle")
        with pytest.raises(RuntimeError, match="event loop thread"):
            handler.client.recv_packet()
        with pytest.raises(RuntimeError, match="event loop thread"):
            handler.client.send_packet("one")
        with pytest.raises(RuntimeError, match="event loop thread"):
            handler.client.close()
        assert await peer.ask("one") == "one"


# -- blocking


@one_protocol
async def test_slow_handler(serve: Serve) -> None:
    """While it blocks, the event loop runs, and other clients are served."""

    class Handler(Echo):
        def answer(self, client: Client, request: str) -> str:
            if request == "slow":
                self.note("slow")
                self.wait()
            return request

    handler = Handler()
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await anyio.sleep(0.002)

    async with serve(handler) as service, anyio.create_task_group() as tasks:
        slow, other = await service.connect(), await service.connect()
        slow.send("slow")
        await handler.noted("slow")
        tasks.start_soon(beat)
        for _ in range(50):
            assert await other.ask("quick") == "quick"
        await anyio.sleep(4 * SOON)
        assert max(after - before for before, after in pairwise(beats)) < 3 * SOON
        handler.released.set()
        assert await slow.receive() == "slow"
        tasks.cancel_scope.cancel()


# -- context variables

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_context(serve: Serve) -> None:
    """What `service_init()` sets is visible; what a method sets belongs to its connection."""

    class Handler(Echo):
        async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
            who.set("service")

        def on_connection(self, client: Client) -> None:
            client.send_packet(who.get())

        def answer(self, client: Client, request: str) -> str:
            before = who.get()
            who.set(request)
            return before

        def on_disconnection(self, client: Client) -> None:
            self.note(who.get())

    handler = Handler()
    async with serve(handler) as service:
        for times in 1, 2:  # the second time in threads that have served others
            one, two = await service.connect(), await service.connect()
            assert [await one.receive(), await two.receive()] == ["service"] * 2
            assert [await one.ask("one"), await two.ask("two")] == ["service"] * 2
            assert [await one.ask("1"), await two.ask("2")] == ["one", "two"]
            one.close()
            two.close()
            await handler.noted("1", times)
            await handler.noted("2", times)
    assert who.get() == "nobody"


# -- one handler, several servers


async def test_serving_again(new_server: NewServer) -> None:
    """After a shutdown the same handler serves the next clients."""
    handler = Echo()
    server = new_server(handler)
    async with serving(server) as service:
        assert await (await service.connect()).ask("one") == "one"
        for _ in range(2):
            await server.shutdown()
            await threads_ended()
            async with restarting(server):
                assert await (await service.connect()).ask("two") == "two"


async def test_two_servers(new_server: NewServer, transport: str) -> None:
    """A handler serves two servers at once; each has as many threads as `max_threads` says."""
    if transport == "unix":
        pytest.skip("there is one path")
    handler = Echo(max_threads=1)
    first, second = new_server(handler), new_server(handler)
    async with serving(first) as one, serving(second) as two:
        peers = [await one.connect(), await two.connect()]
        for peer in peers:
            assert await peer.ask("one") == "one"
        assert len(handler_threads()) == 2
        await first.shutdown()
        assert await peers[1].ask("two") == "two"
