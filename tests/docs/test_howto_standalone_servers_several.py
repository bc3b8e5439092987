"""Test what the page about standalone servers says of several servers in one process.

As in `test_howto_standalone_servers`, a sentence in quotation marks in a docstring is a quotation
of the page.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import pytest

from docs._include.examples.howto.advanced.standalone_servers import two_servers
from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, run
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamClient
from tests.docs.howto_support import DOCS, check_quotations, words
from tests.docs.test_howto_standalone_servers import (
    PAGE,
    connected,
    in_thread,
    serving,
    tcp_server,
)
from tests.times import PATIENCE, SOON

LINES: Any = StreamProtocol(StringLineSerializer())


def test_quotations() -> None:
    """Each test quotes the page, and the page contains each quotation."""
    check_quotations(PAGE, globals())


class Handler(two_servers.VisitRequestHandler):
    """The handler of the page, which calls a function for each request."""

    def __init__(self, on_request: Callable[[], object]) -> None:
        super().__init__(two_servers.Visits())
        self.on_request = on_request
        self.thread = 0
        self.clients: ClientGroup[str] = ClientGroup()

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        self.clients.add(client)
        yield
        self.thread = threading.get_ident()
        self.on_request()
        await client.send_packet("done")


def test_program(capsys: pytest.CaptureFixture[str]) -> None:
    """Each server has a thread, and both have one counter.

    "Create a NetworkServerThread for each server."
    """
    two_servers.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in lines] == ["Port 9000: visit 1", "Port 9001: visit 2"]
    assert len({line.split(" by ")[1] for line in lines}) == 2


def test_one_thread() -> None:
    """What comes after `serve_forever()` has to wait for the end of its server.

    "A thread can only serve one of them, because serve_forever() does not return before its server
    stops"
    """
    with tcp_server() as one, tcp_server() as other:
        is_up = threading.Event()

        def serve_both() -> None:
            one.serve_forever(is_up_event=is_up)
            other.serve_forever()

        served = in_thread(serve_both)
        assert is_up.wait(PATIENCE)
        with pytest.raises(TimeoutError):
            served.result(SOON)
        assert not other.is_serving()
        one.shutdown()
        while not other.is_serving():
            pass
        other.shutdown()
        served.result(PATIENCE)


def test_blocked_server() -> None:
    """A client of the other server is served in the meantime.

    "Each server has its own event loop. A handler that blocks one of them does not delay the
    clients of the other"
    """
    gate, is_busy = threading.Event(), threading.Event()

    def block() -> None:
        is_busy.set()
        assert gate.wait(PATIENCE)

    one, other = tcp_server(Handler(block)), tcp_server(Handler(lambda: None))
    with serving(one), serving(other), connected(one) as client, connected(other) as another:
        client.send("hello")
        assert is_busy.wait(PATIENCE)
        assert another.ask("hello") == "done"
        gate.set()
        assert client.receive() == "done"


def test_at_the_same_time() -> None:
    """Each of the two handlers waits until the other runs: no lock, no order.

    "but the two handlers can run at the same time"

    "Protect data that both handlers use with a lock, as Visits does with _lock."
    """
    together = threading.Barrier(2, timeout=PATIENCE)
    handlers = Handler(together.wait), Handler(together.wait)
    one, other = map(tcp_server, handlers)
    with serving(one), serving(other), connected(one) as client, connected(other) as another:
        client.send("hello")
        another.send("hello")
        assert client.receive() == another.receive() == "done"
    assert handlers[0].thread != handlers[1].thread
    visits = two_servers.Visits()
    with visits._lock:
        added = in_thread(visits.add)
        with pytest.raises(TimeoutError):
            added.result(SOON)
    assert added.result(PATIENCE) == 1


def test_objects_of_one_loop() -> None:
    """A client can be used by the thread of its own server only.

    "Do not use an object of one event loop in the other, such as a client or a ClientGroup. Use the
    portal of the server to which it belongs"

    "It must not call the methods of the clients directly, because only the thread of the event loop
    may call them."
    """
    assert "Another thread of your program may need to send packets to the clients." in words(PAGE)
    handler = Handler(lambda: None)
    errors: list[Exception] = []

    def broadcast() -> None:
        try:
            handler.clients.broadcast("news")
        except Exception as exc:
            errors.append(exc)

    one, other = tcp_server(handler), tcp_server(Handler(broadcast))
    with serving(one), serving(other), connected(one) as client, connected(other) as another:
        assert client.ask("hello") == "done"
        assert another.ask("hello") == "done"
    assert [type(error) for error in errors] == [RuntimeError]


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="the program is stopped by a signal")
def test_one_loop() -> None:
    """Both handlers run in one thread.

    "If the handlers share more than a counter, run the servers in one event loop: there, only one
    handler runs at a time, and what it does between two await or yield expressions needs no lock.
    run() takes several asynchronous servers, and /choosing has a program with two of them."
    """
    program = (DOCS / "_include/examples/choosing/two_servers.py").read_text(encoding="utf-8")
    assert "choosing/two_servers.py" in (DOCS / "choosing.rst").read_text(encoding="utf-8")
    assert len(re.findall(r"Async\w+Server\(", program)) == 2
    handlers = [Handler(lambda: None), Handler(lambda: None)]
    created: list[AsyncTCPNetworkServer[str, str]] = []

    def new_server(handler: Handler) -> AsyncTCPNetworkServer[str, str]:
        created.append(AsyncTCPNetworkServer("127.0.0.1", 0, LINES, handler))
        return created[-1]

    def ask_both() -> None:
        try:
            while len(created) < 2 or not all(server.is_serving() for server in created):
                pass
            for server in created:
                address = server.get_addresses()[0][:2]
                with TCPNetworkClient[str, str](address, LINES) as client:
                    client.send_packet("hello")
                    assert client.recv_packet(timeout=PATIENCE) == "done"
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    asked = in_thread(ask_both)
    run(*(partial(new_server, handler) for handler in handlers), grace=0)
    asked.result(PATIENCE)
    assert handlers[0].thread == handlers[1].thread == threading.get_ident()
