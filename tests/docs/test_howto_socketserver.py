"""Test the statements and the examples of the page about socketserver.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests use the servers, handlers
and programs of the page. Sybil runs the programs whose output the page shows.

The rest of the page is in `test_howto_socketserver_handlers`, `test_howto_socketserver_limits` and
`test_howto_socketserver_moving_on`.
"""

from __future__ import annotations

import errno
import inspect
import ipaddress
import logging
import os
import re
import selectors
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from docs._include.examples.howto.socketserver import (
    echo,
    echo_simple,
    echo_threaded,
    four_servers,
    own_loop,
    own_servers,
    request_handlers,
    server_options,
)
from easynetwork.socketserver import (
    StreamPacketHandler,
    TCPServer,
    ThreadingMixIn,
    UDPServer,
)
from tests.conftest import ALL_TESTS
from tests.docs.howto_support import DOCS, check_quotations
from tests.docs.socketserver_program import server_class
from tests.docs.socketserver_support import (
    DATAGRAMS,
    EXAMPLES,
    FOLDER,
    KINDS,
    LOCAL,
    STREAMS,
    KeepingDatagrams,
    KeepingStreams,
    Peer,
    connected,
    entries,
    keeping,
    new_address,
    noting,
    output_of,
    running,
    serving,
)
from tests.docs.unix_support import short_folder
from tests.times import PATIENCE, SOON

PAGE = (DOCS / "howto/socketserver.rst").read_text(encoding="utf-8")


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/socketserver.rst", globals())


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


# The programs


def test_programs() -> None:
    """Each program of the page that ends by itself is shown with its output.

    "This program asks a server of each type for a greeting"
    """
    shown = re.findall(r"^ +\$ python (\S+)$", PAGE, re.MULTILINE)
    texts = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.py")}
    assert all("__main__" in text for text in texts.values())
    assert set(shown) == {name for name, text in texts.items() if "9000" not in text}
    assert len(shown) == len(set(shown))


def test_thread_of_a_server() -> None:
    """The program's main thread is that of its clients.

    "Its function serving() runs a server in a thread"
    """
    before = {*threading.enumerate()}
    with four_servers.serving(TCPServer(LOCAL, four_servers.GreetingStreamHandler)) as address:
        [thread] = {*threading.enumerate()} - before
        with connected(address) as peer:
            assert peer.ask("Ada") == "Hello, Ada!"
    assert not thread.is_alive()


def test_standard_classes_in_a_program(tmp_path: Path) -> None:
    """The servers of the standard library serve the same handlers.

    "The classes of socketserver itself serve these handlers, too: replace TCPServer by
    socketserver.TCPServer, and the program prints the same."
    """
    text = (FOLDER / "four_servers.py").read_text(encoding="utf-8")
    text, count = re.subn(rf"\b({'|'.join(KINDS)})\(", r"socketserver.\1(", text)
    assert count == len(KINDS)
    program = tmp_path / "four_servers.py"
    program.write_text(text.replace("import tempfile", "import socketserver, tempfile"))
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert "".join(f"   {line}\n" for line in done.stdout.splitlines()) in PAGE
    assert done.stdout.count("Hello, ") == len(KINDS)
    assert done.returncode == 0


def test_five_classes() -> None:
    """One of them is the base of the others, which serve.

    "socketserver defines five server classes. BaseServer defines the API, and is not used directly.
    The other four each serve one type of socket"
    """
    mix_ins = ("Threading", "Forking")
    names = {
        name
        for name, value in vars(socketserver).items()
        if inspect.isclass(value) and issubclass(value, socketserver.BaseServer)
    }
    assert {name for name in names if not name.startswith(mix_ins)} == {"BaseServer", *KINDS}
    assert not hasattr(socketserver.BaseServer, "get_request")
    for kind in KINDS:
        server: Any = getattr(socketserver, kind)
        family = socket.AF_UNIX if kind.startswith("Unix") else socket.AF_INET
        sock_type = socket.SOCK_STREAM if kind in STREAMS else socket.SOCK_DGRAM
        assert (server.address_family, server.socket_type) == (family, sock_type)


def test_only_unix() -> None:
    """Where there are no Unix sockets and no fork, the rest of the module is there.

    "The servers for Unix sockets exist only on Unix systems."

    "For processes, use ForkingMixIn."

    "It exists only on Unix systems"
    """
    program = """
import os, socket
del socket.AF_UNIX, os.fork
import easynetwork.socketserver as module
print([name for name in vars(module) if "Unix" in name or "Forking" in name])
print(hasattr(module, "ThreadingTCPServer"))
"""
    assert output_of(program) == "[]\nTrue\n"


# Server types

QUESTIONS = (
    ("four_servers", "Zoe", "Hello, Zoe!"),
    ("request_handlers", '{"name":"Zoe"}', '{"name":"Zoe"}'),
)
HANDLERS = {
    ("four_servers", STREAMS): "GreetingStreamHandler",
    ("four_servers", DATAGRAMS): "GreetingDatagramHandler",
    ("request_handlers", STREAMS): "PatientRequestHandler",
    ("request_handlers", DATAGRAMS): "EchoDatagramHandler",
}


def check_kind(kind: str, address: Any, question: str, answer: str) -> None:
    """Check that a server answers two peers, one after the other, and one of them twice."""
    for times in 2, 1:
        with connected(address, kind) as peer:
            for _ in range(times):
                assert peer.ask(question) == answer


@pytest.mark.parametrize(("module", "question", "answer"), QUESTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "Threading"])
@pytest.mark.parametrize("library", ["easynetwork.socketserver", "socketserver"])
def test_kinds(
    library: str, prefix: str, kind: str, module: str, question: str, answer: str, folder: Path
) -> None:
    """Servers of all types, with and without threads, serve the handlers.

    "They work with every server class of socketserver, and with your own subclasses of these."

    "It serves TCP, UDP, Unix streams and Unix datagrams, and it can use a thread or a process for
    each request."

    "Often you only write the request handler, and use a server class as it is."

    "Your handler receives and sends objects instead of bytes, and everything that you know about
    socketserver continues to apply."

    "The handlers StreamPacketHandler and DatagramPacketHandler. They work with every server class
    of socketserver"
    """
    streams = STREAMS if kind in STREAMS else DATAGRAMS
    examples = {"four_servers": four_servers, "request_handlers": request_handlers}[module]
    handler_class = getattr(examples, HANDLERS[module, streams])
    server = server_class(f"{library}:{prefix}{kind}")(new_address(kind, folder), handler_class)
    with serving(server):
        check_kind(kind, server.server_address, question, answer)


# The mixin of the standard library calls the handlers of either module in the same way.
@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("library", "module", "question", "answer"),
    [
        *(("easynetwork.socketserver", *question) for question in QUESTIONS),
        *(("socketserver", *question) for question in (QUESTIONS if ALL_TESTS else QUESTIONS[-1:])),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_with_processes(
    library: str, kind: str, module: str, question: str, answer: str, folder: Path
) -> None:
    """The same with a process for each request.

    "There are ready-made combinations: ThreadingTCPServer, ForkingUDPServer, and so on."
    """
    handler = f"{EXAMPLES}.{module}:{HANDLERS[module, STREAMS if kind in STREAMS else DATAGRAMS]}"
    with running(f"{library}:Forking{kind}", handler, new_address(kind, folder)) as program:
        check_kind(kind, program.address, question, answer)


@pytest.mark.parametrize("prefix", ["", "Threading", "Forking"])
@pytest.mark.parametrize("kind", KINDS)
def test_subclasses(kind: str, prefix: str) -> None:
    """The servers are those of the standard library.

    "Each of them is a subclass of the class with the same name in socketserver."
    """
    bases = server_class(f"easynetwork.socketserver:{prefix}{kind}").__mro__
    assert getattr(socketserver, kind) in bases
    assert not prefix or getattr(socketserver, f"{prefix}MixIn") in bases


# Server objects

HANDLER_CLASSES: dict[str, Any] = {
    **dict.fromkeys(STREAMS, four_servers.GreetingStreamHandler),
    **dict.fromkeys(DATAGRAMS, four_servers.GreetingDatagramHandler),
}


class Coroutine(four_servers.GreetingStreamHandler):
    async def handle(self) -> None:  # type: ignore[override]
        raise NotImplementedError


class Generator(four_servers.GreetingStreamHandler):
    def handle(self) -> Iterator[None]:  # type: ignore[override]
        yield


class AsynchronousGenerator(four_servers.GreetingDatagramHandler):
    async def handle(self) -> AsyncIterator[None]:  # type: ignore[override]
        yield


@pytest.mark.parametrize(
    ("kind", "handler_class"),
    [
        *((kind, four_servers.GreetingDatagramHandler) for kind in STREAMS),
        *((kind, four_servers.GreetingStreamHandler) for kind in DATAGRAMS),
        ("TCPServer", server_options.EchoRequestHandler),
        ("TCPServer", Coroutine),
        ("TCPServer", Generator),
        ("UDPServer", AsynchronousGenerator),
    ],
)
def test_wrong_handlers(kind: str, handler_class: Any, folder: Path) -> None:
    """The constructor refuses handlers that cannot work.

    "The constructor raises TypeError if there is no protocol object, or if the handler is of the
    wrong type: for example, a StreamPacketHandler for a UDPServer, or a handler whose handle() is
    async def or a generator."
    """
    with pytest.raises(TypeError):
        server_class(f"easynetwork.socketserver:{kind}")(new_address(kind, folder), handler_class)


def test_handler_objects() -> None:
    """There is a handler object for each connection, and for each datagram.

    "To create a server, pass it an address and a request handler class, not an instance: the server
    creates a handler object for each connection, or for each datagram."

    "Each connection has its own handler object."
    """
    with serving(keeping(TCPServer(LOCAL, KeepingStreams))) as server:
        for _ in range(2):
            with connected(server.server_address) as peer:
                assert peer.ask("Zoe") == peer.ask("Zoe")
        assert len(server.kept) == 2
    with serving(keeping(UDPServer(LOCAL, KeepingDatagrams))) as server:
        with connected(server.server_address, "UDPServer") as peer:
            assert peer.ask("Zoe") == peer.ask("Zoe")
        assert len(server.kept) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_address_in_use(kind: str, folder: Path) -> None:
    """The constructor binds the socket, and a second server does not get the address.

    "The server binds its socket and listens at once. If the address is in use, the constructor
    raises OSError."
    """
    new_server = server_class(f"easynetwork.socketserver:{kind}")
    handler_class = HANDLER_CLASSES[kind]
    with new_server(new_address(kind, folder), handler_class) as server:
        with connected(server.server_address, kind):
            pass
        with pytest.raises(OSError, match="in use") as info:
            new_server(server.server_address, handler_class)
        assert info.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("kind", ["TCPServer", "UDPServer"])
def test_port(kind: str) -> None:
    """The operating system chooses a port.

    "With port 0, the operating system chooses a free port. server.server_address contains the port
    that it chose."

    "The operating system chooses another port at each run."

    "If the server should always listen on the same port, pass this port to EchoServer instead of
    the 0."
    """
    new_server = server_class(f"easynetwork.socketserver:{kind}")
    handler_class = HANDLER_CLASSES[kind]
    with new_server(LOCAL, handler_class) as server:
        assert server.server_address == server.socket.getsockname()
        with new_server(LOCAL, handler_class) as other:
            assert len({0, server.server_address[1], other.server_address[1]}) == 3
        address = other.server_address
    with new_server(address, handler_class) as other:
        assert other.server_address == address


def test_handle_request_processes_one() -> None:
    """handle_request() returns after one request.

    "processes one request, and returns."
    """
    with TCPServer(LOCAL, echo.EchoRequestHandler) as server:
        with connected(server.server_address) as first, connected(server.server_address) as second:
            for peer in first, second:
                peer.send("hello")
            server.handle_request()
            assert first.receive() == "hello"
            assert first.ending() == "end of the stream"
            assert not second.hears()
            server.handle_request()
            assert second.receive() == "hello"


def test_end() -> None:
    """shutdown() ends serve_forever(), and the end of a with statement closes the socket.

    "processes requests until another thread calls shutdown()."

    "At the end, server_close() closes the socket. A with statement calls it for you."
    """
    server = TCPServer(LOCAL, echo.EchoRequestHandler)
    with serving(server), connected(server.server_address) as peer:
        assert peer.ask("hello") == "hello"
    assert server.socket.fileno() == -1
    with pytest.raises(ConnectionRefusedError), connected(server.server_address):
        pass


def test_protocol_of_server() -> None:
    """A handler without a protocol object uses the server's, any other its own.

    "If many handlers share one protocol object, pass it to the server instead. A handler whose
    protocol is None uses the server's."

    "The request handler deals with the protocol: it interprets the data that arrives, and
    responds."

    "easynetwork.socketserver adds packets to this framework."

    "The protocol attribute is the protocol object of the handler: it defines how packets become
    bytes."
    """

    class Bare(StreamPacketHandler[Any, Any]):
        def handle(self) -> None:
            self.send_packet(f"received {self.recv_packet()!r}")

    class WithJSON(Bare):
        protocol = request_handlers.CountingRequestHandler.protocol

    for handler_class, answer in (Bare, "received '1'"), (WithJSON, '"received 1"'):
        server = server_options.server_with_protocol(LOCAL, handler_class)
        with serving(server), connected(server.server_address) as peer:
            assert peer.ask("1") == answer


def test_shutdown_in_the_same_thread() -> None:
    """shutdown() in the thread of serve_forever() waits for itself.

    "shutdown() waits until serve_forever() has returned. Do not call it in the thread that runs
    serve_forever(): it would wait forever."

    "A server without threads calls its handlers in this thread."
    """
    called, returned = threading.Event(), threading.Event()

    class Handler(echo.EchoRequestHandler):
        def handle(self) -> None:
            assert threading.current_thread() is thread
            called.set()
            self.server.shutdown()
            returned.set()

    with TCPServer(LOCAL, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with connected(server.server_address):
            assert called.wait(PATIENCE)
            assert not returned.wait(SOON)
            # There is no way out but this one.
            server._BaseServer__is_shut_down.set()  # type: ignore[attr-defined]
            assert returned.wait(PATIENCE)
        thread.join(PATIENCE)


# Implementing a server


class Refusing:
    """Comes before a server class in the bases of a test's class; refuses one address."""

    refused_network = ipaddress.ip_network("127.0.0.2/32")
    verify_request = own_servers.SelectiveServer.verify_request


class SelectiveTCPServer(Refusing, own_servers.SelectiveServer):
    pass


class SelectiveUDPServer(Refusing, UDPServer):
    pass


def test_verify_request() -> None:
    """The server refuses the clients of one network.

    "The server closes the connection of a refused client without calling a handler"

    "verify_request() returns True to process a request, and False to ignore it. This server refuses
    clients from a range of addresses"
    """
    with serving(keeping(SelectiveTCPServer(LOCAL, KeepingStreams))) as server:
        with connected(server.server_address, host="127.0.0.2") as refused:
            assert refused.ending() == "end of the stream"
        assert server.kept == []
        with connected(server.server_address) as peer:
            assert peer.ask("Zoe") == "Hello, Zoe!"
    with serving(own_servers.SelectiveServer(LOCAL, own_servers.EchoRequestHandler)) as server:
        with connected(server.server_address) as peer:
            assert peer.ask("hello") == "hello"
    assert not own_servers.SelectiveServer.verify_request(server, None, ("192.0.2.7", 1))


def test_verify_request_of_datagram() -> None:
    """Datagrams are refused in the same way.

    "and ignores a refused datagram"
    """
    with serving(keeping(SelectiveUDPServer(LOCAL, KeepingDatagrams))) as server:
        kind = "UDPServer"
        with connected(server.server_address, kind, "127.0.0.2") as refused:
            refused.send("Zoe")
            with connected(server.server_address, kind) as peer:
                assert peer.ask("Zoe") == "Hello, Zoe!"
            assert not refused.hears()
        assert len(server.kept) == 1


def test_process_request() -> None:
    """The server forks for each connection, and collects the children.

    "This server forks a process for each connection"

    "The server closes its own copy of the connection with close_request(), which leaves the
    connection open for the child. The child handles the request, ends the connection with
    shutdown_request(), and exits with os._exit(). serve_forever() calls service_actions() after
    each request, and at least every half second: here, it collects the children that have ended."
    """
    handler = "tests.docs.socketserver_program:ReportingRequestHandler"
    with running(f"{EXAMPLES}.own_servers:ProcessServer", handler, LOCAL) as program:
        assert not program.has_children()
        with connected(program.address) as first, connected(program.address) as second:
            answers = [peer.ask("hello").split() for peer in (first, second)]
            assert program.has_children()
            assert first.ask("again") == f"{answers[0][0]} again"
            first.socket.shutdown(socket.SHUT_WR)
            assert first.ending() == "end of the stream"
        pids = {int(pid) for pid, _ in answers}
        assert [text for _, text in answers] == ["hello", "hello"]
        assert len(pids | {program.pid}) == 3
        deadline = time.monotonic() + PATIENCE
        while program.has_children():
            assert time.monotonic() < deadline


def test_process_request_with_error() -> None:
    """A child whose handler raises an exception ends like any other.

    "The child handles the request, ends the connection with shutdown_request(), and exits with
    os._exit()."
    """
    handler = "tests.docs.socketserver_program:ReportingRequestHandler"
    with running(f"{EXAMPLES}.own_servers:ProcessServer", handler, LOCAL) as program:
        with connected(program.address) as peer:
            peer.send("crash")
            assert peer.ending() == "end of the stream"
        text = ""
        while "LookupError: on demand" not in text:
            text += program.line()
        with connected(program.address) as peer:
            assert peer.ask("hello").endswith(" hello")


@pytest.mark.parametrize(("text", "status"), [("hello", 0), ("crash", 1)])
def test_status_of_a_child(
    text: str, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a program does, a child tells by its exit status whether it has succeeded.

    "The child handles the request, ends the connection with shutdown_request(), and exits with
    os._exit()."
    """

    class Server(own_servers.ProcessServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            if text == "crash":
                raise LookupError("on demand")

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "fork", lambda: 0, raising=False)
    monkeypatch.setattr(os, "_exit", leave)
    ours, theirs = socket.socketpair()
    with Server(LOCAL, own_servers.EchoRequestHandler) as server, ours, theirs:
        with pytest.raises(SystemExit) as caught:
            server.process_request(ours, ("127.0.0.1", 1))
    assert caught.value.code == status
    assert ("on demand" in caplog.text) == (status == 1)


def test_finish_request() -> None:
    """The server uses another handler class for one network.

    "This server uses another handler class for the clients of one network"

    "If the server classes do not meet your needs, override one of their methods in a subclass."
    """

    class Server(own_servers.AdminServer):
        admin_network = ipaddress.ip_network("127.0.0.2/32")

    with serving(own_servers.AdminServer(LOCAL, own_servers.EchoRequestHandler)) as server:
        with connected(server.server_address) as peer:
            assert peer.ask("hello") == "Administrator: hello"
    with serving(Server(LOCAL, own_servers.EchoRequestHandler)) as server:
        with connected(server.server_address) as peer:
            assert peer.ask("hello") == "hello"
        with connected(server.server_address, host="127.0.0.2") as peer:
            assert peer.ask("hello") == "Administrator: hello"


def test_constructor_of_handler() -> None:
    """The handler's constructor does everything.

    "The constructor of the handler calls setup(), handle() and finish(). So when the constructor
    returns, the request has been handled."

    "finish_request() creates a request handler with the class that was passed to the constructor."

    "You can override three methods"

    "Often, handle() is all that you need."
    """
    calls: list[str] = []

    class Server(TCPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            super().finish_request(request, client_address)
            calls.append("exists")

    with Server(LOCAL, noting(own_servers.EchoRequestHandler, calls)) as server:
        with connected(server.server_address) as peer:
            peer.send("hello")
            server.handle_request()
            assert peer.receive() == "hello"
    assert calls == ["setup", "handle", "finish", "exists"]
    methods = {name for name in dir(socketserver.BaseRequestHandler) if not name.startswith("_")}
    assert methods == {"setup", "handle", "finish"}
    assert not {"setup", "finish"} & {*vars(own_servers.EchoRequestHandler)}


# Echo example, threads and processes


def test_sequence_of_calls(caplog: pytest.LogCaptureFixture) -> None:
    """Both ways to process a request call the same methods.

    "This program contains a server and a request handler that accept connections and send back what
    a client sends."

    "The other methods are overridden to log that they are called, so the output shows the sequence
    of calls. The program first runs the server in a thread and connects to it. Then it shuts the
    server down, and processes one more request with handle_request()"

    "The client connects before thread.start() runs the server."

    "serve_forever() does not call handle_request(). Both call the same methods from get_request()
    on."

    "shutdown() logs its line when serve_forever() has ended."

    "process_request() calls finish_request() to do the work, then closes the connection."
    """
    caplog.set_level(logging.DEBUG)
    with echo.EchoServer(LOCAL, echo.EchoRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        with connected(server.server_address) as peer:
            peer.send("Hello, world")
            thread.start()
            assert peer.receive() == "Hello, world"
            server.shutdown()
            thread.join()
        first = calls_of(caplog)
        with connected(server.server_address) as peer:
            peer.send("Hello, world")
            server.handle_request()
            assert peer.receive() == "Hello, world"
        second = calls_of(caplog)
    assert first[:4] == ["__init__", "server_bind", "server_activate", "serve_forever"]
    assert first[-1] == "shutdown"
    assert second[0] == "handle_request"
    assert first[4:-1] == second[1:]
    order = ["get_request", "process_request", "finish_request", "shutdown_request"]
    assert [name for name in second if name in order] == order


def calls_of(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the methods that the program has logged since the last call."""
    names = [record.getMessage() for record in log.records if record.name.startswith("Echo")]
    log.clear()
    return names


def test_no_server_needed_to_connect() -> None:
    """A client can connect before the server runs.

    "From server_activate() on, the operating system accepts connections, and they wait until the
    server processes them."

    "The server deals with the communication: it listens on a socket and accepts connections."
    """
    server = TCPServer(LOCAL, echo.EchoRequestHandler, bind_and_activate=False)
    with server:
        server.server_bind()
        with pytest.raises(ConnectionRefusedError), connected(server.server_address):
            pass
        server.server_activate()
        with connected(server.server_address) as peer:
            peer.send("hello")
            assert not peer.hears()
            server.handle_request()
            assert peer.receive() == "hello"


def test_poll_interval() -> None:
    """serve_forever() looks for shutdown() twice a second.

    "It can take half a second: the poll_interval of serve_forever()."
    """
    parameters = inspect.signature(TCPServer.serve_forever).parameters
    assert parameters["poll_interval"].default == 0.5


def test_one_connection_at_a_time() -> None:
    """A server without threads serves one client after the other.

    "This server handles one connection at a time. While a client is connected, all others wait."

    "Always use a timeout with clients that you do not trust. Otherwise, a silent client keeps its
    thread or process, and a server without threads serves no other client."

    "This is the same program without logging. It uses TCPServer instead of its own server class,
    and its handler serves all packets() of a connection"
    """
    with serving(TCPServer(LOCAL, echo_simple.EchoRequestHandler)) as server:
        with connected(server.server_address) as first, connected(server.server_address) as second:
            assert first.ask("one") == "one"
            assert first.ask("more") == "more"
            second.send("two")
            assert not second.hears()
            first.close()
            assert second.receive() == "two"


def test_threads() -> None:
    """A server with threads serves all clients at the same time, each in its own.

    "The mix-ins override process_request(): it starts a thread or a process for the request, and
    returns at once."

    "The response contains the name of the thread that has handled the request"

    "To handle several requests at the same time, add a mix-in to the bases of your server class,
    before the server class."
    """
    with serving(echo_threaded.ThreadedEchoServer(LOCAL, echo_simple.EchoRequestHandler)) as server:
        with connected(server.server_address) as first, connected(server.server_address) as second:
            assert first.ask("one") == "one"
            assert second.ask("two") == "two"
            assert first.ask("three") == "three"
    handler_class = echo_threaded.ThreadedEchoRequestHandler
    with serving(echo_threaded.ThreadedEchoServer(LOCAL, handler_class)) as server:
        names = set()
        with connected(server.server_address) as first, connected(server.server_address) as second:
            for peer in second, first:
                name, text = peer.ask("hello").split(": ")
                assert text == "hello"
                names.add(name)
        assert len(names) == 2

    class WrongOrder(TCPServer, ThreadingMixIn):
        pass

    assert WrongOrder.process_request is TCPServer.process_request
    with serving(WrongOrder(LOCAL, echo_simple.EchoRequestHandler)) as server:
        with connected(server.server_address) as first, connected(server.server_address) as second:
            assert first.ask("one") == "one"
            second.send("two")
            assert not second.hears()


@pytest.mark.parametrize("example", ["echo", "echo_simple", "echo_threaded", "tls_server"])
def test_failing_client(example: str) -> None:
    """An exception of the client ends the examples, whose server nobody shuts down.

    "With daemon=True, the program also ends if the client raises an exception."
    """
    program = f"""
from {EXAMPLES} import {example}

def fail(client):
    raise LookupError("the client fails")

{example}.TCPNetworkClient.recv_packet = fail
{example}.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    # The server may complain about the connection after that.
    assert "\nLookupError: the client fails\n" in done.stderr


def test_thread_keeps_program_alive() -> None:
    """A thread that is not a daemon thread has to end before the program does.

    "Otherwise the thread of the server keeps it alive."
    """
    program = f"""
import os, threading
from easynetwork.socketserver import TCPServer
from {EXAMPLES}.echo_simple import EchoRequestHandler

def give_up():
    print("still alive")
    os._exit(0)

with TCPServer(("127.0.0.1", 0), EchoRequestHandler) as server:
    threading.Thread(target=server.serve_forever).start()
    timer = threading.Timer({SOON}, give_up)
    timer.daemon = True
    timer.start()
"""
    assert output_of(program) == "still alive\n"


def test_socket_in_child() -> None:
    """A child has the sockets of its parent, and keeps a connection open.

    "The child has a copy of each socket of your program."

    "the client's socket is open in the child, too, and close() of this socket does not end the
    connection. A handler that waits for the end of the connection then waits forever."
    """
    program = f"""
import os, select, signal, socket
from {EXAMPLES}.echo_forking import ForkingEchoServer
from {EXAMPLES}.echo_simple import EchoRequestHandler

with ForkingEchoServer(("127.0.0.1", 0), EchoRequestHandler) as server:
    with socket.create_connection(server.server_address, timeout={PATIENCE}) as client:
        client.sendall(b"hello\\n")
        server.handle_request()
        assert client.recv(100) == b"hello\\n"
    [child] = server.active_children
    descriptor = os.pidfd_open(child)
    print("waits" if not select.select([descriptor], [], [], {SOON})[0] else "has ended")
    os.kill(child, signal.SIGKILL)
"""
    assert output_of(program) == "waits\n"


def test_lock_in_child() -> None:
    """A lock that another thread holds is locked in the child, whose only thread has forked.

    "The child has only the thread that forked. If another thread holds a lock at the moment of the
    fork, the lock is never released in the child."
    """
    program = """
import os, threading

lock, over = threading.Lock(), threading.Event()

def hold():
    with lock:
        held.set()
        over.wait()

held = threading.Event()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
if not os.fork():
    over.set()
    os.write(1, f"{threading.active_count()} {lock.acquire(timeout=0.02)}".encode())
    os._exit(0)
os.wait()
over.set()
thread.join()
"""
    assert output_of(program, "-W", "ignore") == "1 False"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python does not warn")
def test_threads_and_processes() -> None:
    """Python warns of a fork beside other threads.

    "From version 3.12 on, Python issues a DeprecationWarning when a program with several threads
    forks."

    "The response contains the ID of the process that has handled the request"
    """
    program = f"""
import threading
from {EXAMPLES} import echo_forking

over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
echo_forking.main()
over.set()
"""
    output = output_of(program, "-W", "default")
    assert "DeprecationWarning: " in output
    assert "is multi-threaded, use of fork() may lead to deadlocks in the child" in output
    [parent, child] = re.findall(r"process (\d+)(?::|$)", output, re.MULTILINE)
    assert parent != child


# Using handle_request() in your own loop


def test_selectors() -> None:
    """A selector waits for a server like for any other socket.

    "A server has a fileno() method, so you can wait for it with selectors, together with other
    sockets: pass it to register(). When a client connects, the server is ready for reading."

    "Use it if your program has an event loop of its own"
    """
    with (
        own_loop.EchoServer(LOCAL, own_loop.EchoRequestHandler) as server,
        socket.socket(type=socket.SOCK_DGRAM) as other,
        selectors.DefaultSelector() as selector,
    ):
        other.bind(LOCAL)
        for file in server, other:
            selector.register(file, selectors.EVENT_READ)
        assert selector.select(0) == []
        other.sendto(b"hello", other.getsockname())
        assert [key.fileobj for key, _ in selector.select(PATIENCE)] == [other]
        other.recv(100)
        with connected(server.server_address) as peer:
            assert [key.fileobj for key, _ in selector.select(PATIENCE)] == [server]
            peer.send("hello")
            server.handle_request()
            assert peer.receive() == "hello"


class NotingTimeouts(own_loop.EchoServer):
    timeouts = 0

    def handle_timeout(self) -> None:
        super().handle_timeout()
        self.timeouts += 1


def test_handle_timeout() -> None:
    """handle_request() returns if there is no client.

    "In this case, because of timeout = 0, handle_request() calls handle_timeout() and returns at
    once. By default, handle_timeout() does nothing."
    """
    with NotingTimeouts(LOCAL, own_loop.EchoRequestHandler) as server:
        server.handle_request()
        assert server.timeouts == 1
        with connected(server.server_address) as peer:
            peer.send("hello")
            server.handle_request()
            assert peer.receive() == "hello"
        assert server.timeouts == 1


def test_client_that_has_left(log: pytest.LogCaptureFixture) -> None:
    """A client that has left before it is accepted does no harm.

    "The client may have disconnected already: some systems drop a connection that ends before it is
    accepted."
    """
    with NotingTimeouts(LOCAL, own_loop.EchoRequestHandler) as server:
        for leave in Peer.close, Peer.reset:
            with connected(server.server_address) as peer:
                leave(peer)
            server.handle_request()
    assert {level for level, _ in entries(log)} <= {"DEBUG"}


def test_no_timeout() -> None:
    """Without a timeout, handle_request() waits.

    "Without timeout = 0, handle_request() would wait for the next client."
    """
    with TCPServer(LOCAL, echo.EchoRequestHandler) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        thread.join(SOON)
        assert thread.is_alive()
        with connected(server.server_address) as peer:
            assert peer.ask("hello") == "hello"
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_silent_client_in_loop() -> None:
    """The handler of the loop's server gives up after a second.

    "The loop stops while a handler works. So this handler waits at most one second for its client."

    "Use ThreadingMixIn if handlers take longer."
    """
    with own_loop.EchoServer(LOCAL, own_loop.EchoRequestHandler) as server:
        with connected(server.server_address) as peer:
            begin = time.monotonic()
            server.handle_request()
            assert 0.9 < time.monotonic() - begin < PATIENCE
            assert peer.ending() == "end of the stream"


@pytest.mark.parametrize("timeout", [None, 0, 0.05])
def test_busy_threads_in_loop(timeout: float | None) -> None:
    """handle_request() returns although no thread becomes free.

    "Then handle_request() waits for a free one for at most timeout seconds, or half a second if
    timeout is None. If none becomes free, it calls handle_timeout() and returns."

    "The server is still ready for reading, so with timeout = 0 this loop runs without a pause while
    all threads are busy."

    "With ThreadingMixIn, all threads may be busy."

    "Use a small value instead, for example timeout = 0.05."
    """

    class Server(ThreadingMixIn, NotingTimeouts):  # type: ignore[misc]
        pass

    Server.timeout = timeout
    with Server(LOCAL, echo_simple.EchoRequestHandler, max_threads=1) as server:
        with connected(server.server_address) as peer, connected(server.server_address) as waiting:
            server.handle_request()
            assert peer.ask("one") == "one"
            waiting.send("two")
            begin = time.monotonic()
            server.handle_request()
            duration = time.monotonic() - begin
            assert server.timeouts == 1
            expected = 0.5 if timeout is None else timeout
            assert expected <= duration < expected + 0.2 + SOON
            peer.close()
            while not waiting.hears():
                server.handle_request()
            assert waiting.receive() == "two"


def test_children_in_loop() -> None:
    """handle_request() does what serve_forever() does for the children.

    "With ForkingMixIn, handle_request() also collects children that have ended, and keeps the limit
    max_children."
    """
    program = f"""
import contextlib, os, socket
from {EXAMPLES}.echo_forking import ForkingEchoServer
from {EXAMPLES}.echo_simple import EchoRequestHandler
from easynetwork.socketserver import StreamPacketHandler

def ask(server):
    with socket.create_connection(server.server_address, timeout={PATIENCE}) as client:
        client.sendall(b"hello\\n")
        server.handle_request()
        assert client.recv(100)

class Handler(EchoRequestHandler):
    def handle(self):
        self.send_packet(self.recv_packet())

class SlowHandler(StreamPacketHandler):
    protocol = EchoRequestHandler.protocol
    def handle(self):
        with contextlib.suppress(TimeoutError):
            self.recv_packet(timeout=0.3)

with ForkingEchoServer(("127.0.0.1", 0), Handler) as server:
    ask(server)
    [child] = server.active_children
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    ask(server)
    assert child not in server.active_children

class LimitedServer(ForkingEchoServer):
    max_children = 2

with LimitedServer(("127.0.0.1", 0), SlowHandler) as server, contextlib.ExitStack() as stack:
    for _ in range(5):
        stack.enter_context(socket.create_connection(server.server_address))
    for _ in range(5):
        server.handle_request()
        assert len(server.active_children) <= 2
print("done")
"""
    assert output_of(program) == "done\n"
