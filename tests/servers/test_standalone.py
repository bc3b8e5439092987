"""Standalone servers: their life, and what each call does at each time of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from easynetwork.backends.asyncio.backend import AsyncIOBackend
from easynetwork.exceptions import ServerAlreadyRunning, ServerClosedError
from easynetwork.servers.abc import AbstractNetworkServer
from easynetwork.servers.async_tcp import AsyncTCPNetworkServer
from easynetwork.servers.statistics import DatagramStatistics
from tests.clients.threads_support import InThread, wait_until
from tests.servers.standalone_support import (
    TCP,
    UDP,
    GatedBackend,
    Hooks,
    Kind,
    Peer,
    each_kind,
    each_loop,
    loop_options,
    serving,
)
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

# -- Construction ------------------------------------------------------------------------------


@each_kind
def test_default_backend(kind: Kind) -> None:
    """The event loop is asyncio's, unless one is asked for."""

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            assert server.backend().name == "asyncio"
            asyncio.get_running_loop()

    with serving(kind.new_server(Handler)):
        pass


@each_kind
@each_loop
def test_backend(kind: Kind, loop: str) -> None:
    """It is the one that was asked for, by name and options or by object."""
    loops = []

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            is_trio = server.backend().name == "trio"
            loops.append("trio" if is_trio else type(asyncio.get_running_loop()).__module__)

    with serving(kind.new_server(Handler, **loop_options(loop))):
        assert loops[0].startswith(loop)
    with serving(kind.new_server(Handler, backend=AsyncIOBackend())):
        assert loops[1].startswith("asyncio")


@each_kind
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"unknown": 1}, TypeError),
        ({"backend": "no such loop"}, NotImplementedError),
        ({"backend": 1}, TypeError),
        ({"port": 65536}, ValueError),
        ({"host": 1}, TypeError),
        ({"runner_options": ["debug"]}, TypeError),
    ],
    ids=str,
)
def test_bad_arguments(kind: Kind, options: dict[str, Any], error: type[Exception]) -> None:
    """An argument that cannot be used is refused at once, not when it is time to serve."""
    with pytest.raises(error):
        kind.new_server(**options)


@each_kind
def test_bad_objects(kind: Kind) -> None:
    """So is a protocol object or a request handler of another kind, or a class of them."""
    other = UDP if kind is TCP else TCP
    handler = type("Handler", (Hooks, kind.handler_class), {})
    for protocol, handler_argument in [
        (other.protocol, handler()),
        (type(kind.protocol), handler()),
        (kind.protocol, handler),
        (kind.protocol, type("Handler", (Hooks, other.handler_class), {})()),
    ]:
        with pytest.raises(TypeError, match="Expected a"):
            kind.server_class("127.0.0.1", 0, protocol, handler_argument)


@pytest.mark.parametrize("options", [{"backlog": 0}, {"max_recv_size": 0}], ids=str)
def test_bad_stream_options(options: dict[str, Any]) -> None:
    """So are the options that TCP alone has."""
    with pytest.raises(ValueError, match="strictly positive"):
        TCP.new_server(**options)


def test_stream_options(caplog: pytest.LogCaptureFixture) -> None:
    """Options reach the asynchronous server."""
    logger = logging.getLogger("tests.mine")
    caplog.set_level(logging.INFO, logger.name)
    options: dict[str, Any] = {"backlog": 5, "max_recv_size": 10, "log_client_connection": False}
    server = TCP.new_server(logger=logger, reuse_port=True, **options)
    with serving(server), TCP.connected(server) as peer:
        assert peer.ask("hello") == "hello"
        option = server.get_sockets()[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert option == 1
    messages = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert messages[0].startswith("Start serving at ('127.0.0.1', ")
    assert messages[1:] == [
        "Server loop break, waiting for remaining tasks...",
        "Server stopped",
    ]


@each_loop
def test_tls(loop: str) -> None:
    """A server encrypts its connections, if that is what it was told."""
    server = TCP.new_server(ssl=server_context(), ssl_handshake_timeout=5.0, **loop_options(loop))
    address = "127.0.0.1"
    with serving(server):
        port = server.get_addresses()[0].port
        with (
            socket.create_connection((address, port), PATIENCE) as sock,
            client_context().wrap_socket(sock, server_hostname=address) as tls,
        ):
            assert Peer(tls).ask("hello") == "hello"


@each_kind
def test_context_manager(kind: Kind) -> None:
    """The context manager opens nothing, and closes the server at the end."""
    server = kind.new_server()
    assert issubclass(kind.server_class, AbstractNetworkServer)
    with server as entered:
        assert entered is server
        assert server.get_addresses() == ()
        with serving(server):
            pass
    with pytest.raises(ServerClosedError):
        server.serve_forever()


# -- When it does not run ----------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("state", ["new", "stopped", "closed"])
def test_nothing_fails(kind: Kind, state: str) -> None:
    """Nothing can be asked of a server in vain: there are answers if it does not run."""
    server = kind.new_server()
    if state != "new":
        with serving(server):
            pass
    if state == "closed":
        server.server_close()
    assert server.is_serving() is False
    assert server.get_addresses() == ()
    assert server.get_sockets() == ()
    server.shutdown()
    server.shutdown(timeout=0)
    server.server_close()
    server.server_close()


@each_kind
def test_closed(kind: Kind) -> None:
    """A closed server never serves again."""
    server = kind.new_server()
    server.server_close()
    with pytest.raises(ServerClosedError, match="^Closed server$"):
        server.serve_forever()


# -- Serving -----------------------------------------------------------------------------------


@each_kind
@each_loop
def test_serving(kind: Kind, loop: str) -> None:
    """serve_forever() blocks its thread and serves; the others see that it does."""
    server = kind.new_server(**loop_options(loop))
    is_up = threading.Event()
    run = InThread(server.serve_forever, is_up_event=is_up)
    assert is_up.wait(PATIENCE)
    assert server.is_serving() is True
    (address,) = server.get_addresses()
    assert address.host == "127.0.0.1"
    (sock,) = server.get_sockets()
    assert sock.getsockname() == address
    with kind.connected(server) as peer:
        assert peer.ask("hello") == "hello"
    assert run.is_waiting()
    server.shutdown()
    assert run.result() is None
    assert server.is_serving() is False
    assert server.get_addresses() == server.get_sockets() == ()


@each_kind
@each_loop
def test_running_again(kind: Kind, loop: str) -> None:
    """Each run has an asynchronous server, sockets and, with port 0, a port of its own."""
    ports = []

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            (address,) = server.get_addresses()
            ports.append(address.port)

    server = kind.new_server(Handler, **loop_options(loop))
    with socket.socket(socket.AF_INET, kind.socket_type) as occupant:
        with serving(server):
            pass
        occupant.bind(("127.0.0.1", ports[0]))  # it is free, and it is not needed again
        with serving(server), kind.connected(server) as peer:
            assert peer.ask("hello") == "hello"
    assert len(set(ports)) == 2


@each_kind
def test_two_runs_at_once(kind: Kind) -> None:
    """A server runs in one thread at a time."""
    server = kind.new_server()
    with serving(server):
        with pytest.raises(ServerAlreadyRunning, match="^Server is already running$"):
            server.serve_forever()
        assert server.is_serving()
        server.server_close()
    with pytest.raises(ServerClosedError):
        server.serve_forever()


@each_kind
def test_address_in_use(kind: Kind) -> None:
    """An address that cannot be bound is named with the reason, and may be tried again."""
    with socket.socket(socket.AF_INET, kind.socket_type) as occupant:
        occupant.bind(("127.0.0.1", 0))
        if kind is TCP:
            occupant.listen()
        address = occupant.getsockname()
        server = kind.new_server(port=address[1])
        with pytest.raises(OSError, match="in use") as caught:
            server.serve_forever()
        error = caught.value
        assert error.errno == errno.EADDRINUSE
        assert f"error while attempting to bind on address {address}: " in str(error)
        assert server.get_addresses() == ()
    with serving(server):
        assert server.get_addresses() == (address,)


@each_kind
@each_loop
def test_failing_service(kind: Kind, loop: str) -> None:
    """What service_init() raises leaves serve_forever() as it is."""

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            raise LookupError("no database")

    server = kind.new_server(Handler, **loop_options(loop))
    with pytest.raises(LookupError, match="no database"):
        server.serve_forever()
    assert server.get_addresses() == ()


@each_kind
def test_cancellation(kind: Kind) -> None:
    """Whoever cancels the main task stops the server, and serve_forever() just returns."""

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    assert kind.new_server(Handler).serve_forever() is None


def test_handler_sees_the_asynchronous_server() -> None:
    """What service_init() gets is the asynchronous server."""
    seen = []

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            seen.append(isinstance(server, AsyncTCPNetworkServer))

    with serving(TCP.new_server(Handler)):
        assert seen == [True]


# -- Options of the runner ---------------------------------------------------------------------


class Note(trio.abc.Instrument):
    def __init__(self) -> None:
        self.is_noted = False

    def before_run(self) -> None:
        self.is_noted = True


def test_runner_options_of_trio() -> None:
    """Options reach trio.run(); those of the call replace those of the constructor."""
    seen = []
    clock = trio.testing.MockClock(rate=1.0)

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            seen.append(trio.lowlevel.current_clock() is clock)

    replaced, used = Note(), Note()
    server = TCP.new_server(
        Handler, backend="trio", runner_options={"clock": clock, "instruments": [replaced]}
    )
    run = InThread(server.serve_forever, runner_options={"instruments": [used]})
    wait_until(server.is_serving)
    server.shutdown()
    run.result()
    assert seen == [True]
    assert used.is_noted
    assert not replaced.is_noted


def test_runner_options_of_asyncio() -> None:
    """Options reach asyncio.Runner; those of the call replace those of the constructor."""
    loops = []

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            loops.append(asyncio.get_running_loop())

    class Loop(asyncio.SelectorEventLoop):
        pass

    server = TCP.new_server(Handler, runner_options={"debug": True, "loop_factory": None})
    run = InThread(server.serve_forever, runner_options={"loop_factory": Loop})
    wait_until(server.is_serving)
    server.shutdown()
    run.result()
    with serving(server):
        pass
    assert [type(loop) is Loop for loop in loops] == [True, False]
    assert all(loop.get_debug() for loop in loops)


def test_bad_runner_options() -> None:
    """Options that are not a mapping are refused; the runner refuses those it does not know."""
    server = TCP.new_server()
    with pytest.raises(TypeError, match="mapping"):
        server.serve_forever(runner_options=["debug"])
    with pytest.raises(TypeError, match="no_such_option"):
        server.serve_forever(runner_options={"no_such_option": 1})
    with serving(server):
        pass


# -- shutdown() --------------------------------------------------------------------------------


@each_kind
@each_loop
def test_shutdown(kind: Kind, loop: str) -> None:
    """shutdown() cancels the clients, and returns when serve_forever() has finished everything."""
    is_asked, is_cleaned = threading.Event(), threading.Event()

    class Handler(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            is_asked.set()
            await anyio.sleep_forever()
            return request

        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            exit_stack.callback(is_cleaned.set)

    server = kind.new_server(Handler, **loop_options(loop))
    run = InThread(server.serve_forever)
    wait_until(server.is_serving)
    with kind.connected(server) as peer:
        peer.send("hello")
        assert is_asked.wait(PATIENCE)
        server.shutdown()
        assert is_cleaned.is_set()
        assert server.get_addresses() == ()
        run.result()


@each_kind
@each_loop
def test_shutdown_timeout(kind: Kind, loop: str) -> None:
    """shutdown() waits no longer than it may, says nothing, and the server stops all the same."""
    gate, is_blocked = threading.Event(), threading.Event()

    class Handler(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            is_blocked.set()
            gate.wait(PATIENCE)  # a bug: nothing else happens in this event loop
            return request

    server = kind.new_server(Handler, **loop_options(loop))
    with serving(server) as thread, kind.connected(server) as peer:
        peer.send("hello")
        assert is_blocked.wait(PATIENCE)
        server.shutdown(timeout=0.01)
        assert thread.is_alive()
        gate.set()
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()


@each_kind
def test_shutdown_timeout_expires(kind: Kind) -> None:
    """It returns though the server goes on, because a handler does not let itself be cancelled."""
    gate = threading.Event()
    is_asked = threading.Event()

    class Handler(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            is_asked.set()
            await anyio.to_thread.run_sync(gate.wait, PATIENCE)
            return request

    server = kind.new_server(Handler)
    with serving(server) as thread, kind.connected(server) as peer:
        peer.send("hello")
        assert is_asked.wait(PATIENCE)
        server.shutdown(timeout=0.01)
        assert thread.is_alive()
        assert not server.is_serving()
        gate.set()


@each_kind
def test_several_shutdowns(kind: Kind) -> None:
    """Several threads may shut a server down at once."""
    server = kind.new_server()
    with serving(server) as thread:
        for stop in [InThread(server.shutdown) for _ in range(5)]:
            stop.result()
        thread.join()


@each_kind
@each_loop
def test_shutdown_while_starting(kind: Kind, loop: str) -> None:
    """A server that is preparing its service can be shut down; it is never up then."""
    is_preparing, is_up = threading.Event(), threading.Event()

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            is_preparing.set()
            await anyio.sleep_forever()

    server = kind.new_server(Handler, **loop_options(loop))
    run = InThread(server.serve_forever, is_up_event=is_up)
    assert is_preparing.wait(PATIENCE)
    server.shutdown()
    run.result()
    assert not is_up.is_set()


@each_kind
def test_shutdown_before_the_loop(kind: Kind) -> None:
    """So can one whose event loop is only being made."""
    is_up = threading.Event()
    backend = GatedBackend()
    server = kind.new_server(backend=backend)
    run = InThread(server.serve_forever, is_up_event=is_up).waits_in("wait")
    stop = InThread(server.shutdown).waits_in("wait")
    backend.gate.set()
    stop.result()
    run.result()
    assert not is_up.is_set()
    with serving(server):  # it is not closed
        pass


# -- server_close() ----------------------------------------------------------------------------


@each_loop
def test_close_serves_the_connected(loop: str) -> None:
    """server_close() refuses newcomers; serve_forever() returns when the last client has left."""
    server = TCP.new_server(**loop_options(loop))
    with serving(server) as thread, TCP.connected(server) as peer:
        assert peer.ask("before") == "before"
        (address,) = server.get_addresses()
        server.server_close()
        assert server.is_serving() is False
        assert server.get_addresses() == server.get_sockets() == ()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        server.server_close()
        assert peer.ask("after") == "after"
        assert thread.is_alive()
        peer.socket.close()
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()


@each_kind
@each_loop
def test_close_ends_serving(kind: Kind, loop: str) -> None:
    """Without clients, it returns at once, whatever is being asked of the server."""
    server = kind.new_server(**loop_options(loop))
    with serving(server) as thread:
        server.server_close()
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()


@each_kind
@each_loop
def test_close_while_starting(kind: Kind, loop: str) -> None:
    """A server that is just starting is closed when it is up."""
    gate, is_preparing, is_up = threading.Event(), threading.Event(), threading.Event()

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            is_preparing.set()
            await anyio.to_thread.run_sync(gate.wait, PATIENCE)

    server = kind.new_server(Handler, **loop_options(loop))
    run = InThread(server.serve_forever, is_up_event=is_up)
    assert is_preparing.wait(PATIENCE)
    closing = InThread(server.server_close).waits_in("wait")
    assert server.get_addresses() != ()
    gate.set()
    closing.result()
    run.result()
    assert is_up.is_set()


@each_kind
def test_close_and_failing_start(kind: Kind) -> None:
    """A server that fails to start is closed as well."""
    gate, is_preparing = threading.Event(), threading.Event()

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            is_preparing.set()
            gate.wait(PATIENCE)
            raise LookupError("no database")

    server = kind.new_server(Handler)
    run = InThread(server.serve_forever)
    assert is_preparing.wait(PATIENCE)
    closing = InThread(server.server_close).waits_in("wait")
    gate.set()
    closing.result()
    with pytest.raises(LookupError):
        run.result()
    with pytest.raises(ServerClosedError):
        server.serve_forever()


# -- Questions ---------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("question", ["is_serving", "get_addresses", "get_sockets"])
def test_questions_while_starting(kind: Kind, question: str) -> None:
    """A question to a server that is just starting waits until the server listens."""
    backend = GatedBackend()
    server = kind.new_server(backend=backend)
    run = InThread(server.serve_forever).waits_in("wait")
    answer = InThread(getattr(server, question)).waits_in("wait")
    backend.gate.set()
    if question == "is_serving":
        assert isinstance(answer.result(), bool)
    else:
        assert len(answer.result()) == 1
    server.shutdown()
    run.result()


@each_kind
def test_question_to_one_that_cannot_start(kind: Kind) -> None:
    """If the server never listens, the answer is that it does not."""
    backend = GatedBackend()
    server = kind.new_server(host="192.0.2.1", backend=backend)  # RFC 5737: nobody's address
    run = InThread(server.serve_forever).waits_in("wait")
    answer = InThread(server.get_addresses).waits_in("wait")
    backend.gate.set()
    assert answer.result() == ()
    with pytest.raises(OSError, match="Cannot assign requested address"):
        run.result()


@each_kind
@each_loop
def test_sockets_are_asked_in_the_loop(kind: Kind, loop: str) -> None:
    """A socket answers in the event loop's thread, and after the end where it is asked."""
    gate, is_blocked = threading.Event(), threading.Event()

    class Handler(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            is_blocked.set()
            gate.wait(PATIENCE)
            return request

    server = kind.new_server(Handler, **loop_options(loop))
    with serving(server), kind.connected(server) as peer:
        (sock,) = server.get_sockets()
        peer.send("hello")
        assert is_blocked.wait(PATIENCE)
        answer = InThread(sock.getsockname).waits_in("wait", "_send_message_to_trio")
        gate.set()
        assert answer.result()[0] == "127.0.0.1"
    assert sock.fileno() == -1


@each_loop
def test_statistics(loop: str) -> None:
    """A UDP server tells other threads what it counts; one that does not run counts nothing."""
    server = UDP.new_server(**loop_options(loop))
    assert server.get_statistics() == DatagramStatistics()
    with serving(server), UDP.connected(server) as peer:
        peer.ask("hello")
        peer.ask("hello")
        assert server.get_statistics().received == 2
    assert server.get_statistics() == DatagramStatistics()


# -- In the event loop's own thread ------------------------------------------------------------


@each_kind
@each_loop
def test_calls_from_the_loop(kind: Kind, loop: str) -> None:
    """A handler may ask the server what others may; it cannot wait for its own thread."""

    class Handler(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            (address,), (sock,) = server.get_addresses(), server.get_sockets()
            assert sock.getsockname() == address
            for method in (server.shutdown, server.server_close):
                with pytest.raises(RuntimeError, match=f"^{method.__name__}.. would wait for the"):
                    method()
            return str(server.is_serving())

        async def prepare(self, async_server: Any) -> None:
            assert server.get_addresses() == async_server.get_addresses()
            with pytest.raises(RuntimeError):
                server.server_close()

    server = kind.new_server(Handler, **loop_options(loop))
    with serving(server), kind.connected(server) as peer:
        assert peer.ask("hello") == "True"
        assert server.is_serving()  # neither stopped nor closed
    with serving(server):
        pass


@each_kind
@each_loop
def test_shutdown_by_a_handler(kind: Kind, loop: str) -> None:
    """A handler may ask for the end of the server, if it does not wait for it."""

    class Handler(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            server.shutdown(timeout=0)
            await anyio.sleep_forever()
            return request

    server = kind.new_server(Handler, **loop_options(loop))
    with serving(server) as thread, kind.connected(server) as peer:
        peer.send("hello")
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()
