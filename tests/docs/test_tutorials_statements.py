"""What the tutorials say besides what they show: each statement, tried in small.

As in `test_tutorials`, which plays the pages from top to bottom, what stands in quotation marks in
a docstring is what a page says, word for word. Most of it stands on both pages.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import errno
import importlib
import inspect
import logging
import os
import re
import runpy
import socket
import sys
import time
import types
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
import sniffio

from docs._include.examples.tutorials.echo_client_server_tcp import echo_handler as tcp_example
from docs._include.examples.tutorials.echo_client_server_udp import echo_handler as udp_example
from easynetwork.clients import TCPNetworkClient, UDPNetworkClient
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    EndOfStreamError,
    StreamProtocolParseError,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import run
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncStreamClient
from easynetwork.testing import Faults, serve
from tests.conftest import HAS_TRIO
from tests.docs.howto_support import DOCS, check_quotations_in, in_thread, serving, words
from tests.docs.memory_support import play
from tests.docs.test_tutorials import EXAMPLES, PAGES, TCP, UDP
from tests.times import PATIENCE, SOON

JSON: Any = StreamProtocol(JSONSerializer())
DATAGRAMS: Any = DatagramProtocol(JSONSerializer())
LINES: Any = StreamProtocol(StringLineSerializer())
TEXTS: Any = DatagramProtocol(StringLineSerializer())

both_pages = pytest.mark.parametrize("page", PAGES, ids=["tcp", "udp"])
both_frameworks = pytest.mark.parametrize(
    "backend",
    [
        "asyncio",
        pytest.param(
            "trio", marks=pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed")
        ),
    ],
)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """A page says what the tests quote; each test quotes something."""
    check_quotations_in([words(page) for page in PAGES], globals())


# The files


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def folder(page: str) -> Path:
    return EXAMPLES / Path(page).stem


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def section(page: str, heading: str) -> str:
    """Return the section of a page that has a heading."""
    parts = re.split(r"^(\S.*)\n=+\n", text_of(page), flags=re.MULTILINE)
    [number] = [number for number, part in enumerate(parts) if part.startswith(heading)]
    return parts[number + 1]


@both_pages
def test_steps(page: str) -> None:
    """Each step has a file and a command, and so have the failures; tracebacks are shortened.

    "The server is deliberately trivial, so that the four parts of every easynetwork program stand
    out"

    "Each of the four steps adds one part and ends with a program that you can run."

    "Afterwards you make the programs fail in three ways, and see what happens."

    "replaces most of each traceback; only its last line matters here."
    """
    assert len(re.findall(r"^\* the ", section(page, "Introduction"), re.MULTILINE)) == 4
    assert len(re.findall(r"^Step \d: ", text_of(page), re.MULTILINE)) == 4
    for step in "1234":
        text = section(page, f"Step {step}: ")
        assert text.index(".. literalinclude::") < text.index("$ python ")
    failures = section(page, "Make the programs fail")
    assert len(re.findall(r"^\S.*\n-+\n", failures, re.MULTILINE)) == 3
    tracebacks = re.findall(r"Traceback .*\n(.*)\n   (\w.*)\n", failures)
    assert len(tracebacks) == failures.count("Traceback") >= 2
    assert all(line.strip() == "..." and "Error: " in last for line, last in tracebacks)


@both_pages
def test_files(page: str) -> None:
    """Each listing is captioned with its file, which is in the folder that the page names.

    "Each listing has its file name above it. Save all files in this folder. (You can also copy them
    from docs/_include/examples/tutorials/"

    "in the repository; the file of step 1 is in its subfolder step_1.)"

    "The server and the client both import this file."

    "The server logs this line because the program enables logging."
    """
    logger = logging.getLogger("easynetwork")  # which shows no such line by itself
    assert not [h for h in logger.handlers if not isinstance(h, logging.NullHandler)]
    assert f":file:`docs/_include/examples/tutorials/{folder(page).name}`" in text_of(page)
    listings = re.findall(
        r"literalinclude:: \.\./_include/examples/tutorials/(\S+)\n +:caption: (\S+)\n",
        text_of(page),
    )
    assert len(listings) == text_of(page).count("literalinclude::")
    for path, caption in listings:
        assert (EXAMPLES / path).is_file()
        assert Path(path).name == caption
    assert Path(listings[0][0]).parent.name == "step_1"
    assert "the file of step 1 is in its subfolder :file:`step_1`" in text_of(page)
    assert {Path(path).parent.name for path, _ in listings[1:]} == {folder(page).name}
    programs = [*folder(page).glob("server_*.py"), *folder(page).glob("client_*.py")]
    assert len(programs) == 6
    for program in programs:
        imported = {node.module for node in tree(program).body if isinstance(node, ast.ImportFrom)}
        assert "echo_protocol" in imported
        text = program.read_text(encoding="utf-8")
        enables = "logging.basicConfig(level=logging.INFO)" in text
        assert enables == program.name.startswith("server_")


@both_pages
def test_folders(page: str) -> None:
    """The commands, as a shell would follow them.

    "Finally, create a folder for the programs and change to it"

    "Open the second terminal, change to the same folder"

    "and activate the environment there, too"
    """
    setup = text_of("_include/tutorial-setup.rst")
    clone = "/clone"
    [environment] = re.findall(r"\$ python3 -m venv (\S+)", setup)
    [made], [entered] = (re.findall(rf"\$ {word} (\S+)", text_of(page)) for word in ("mkdir", "cd"))
    [named] = re.findall(r"change to the same folder \(:file:`(\S+)`\)", text_of(page))
    [activated] = re.findall(r"^   \$ \. (\S+)/bin/activate", text_of(page), re.MULTILINE)
    assert made == entered == f"../{named}"
    here = os.path.normpath(f"{clone}/{made}")
    assert os.path.normpath(f"{here}/{activated}") == os.path.normpath(f"{clone}/{environment}")


@both_pages
def test_only_asynchronous_function(page: str) -> None:
    """There is no other one in the files of these variants.

    "If async and await are new to you, choose the standalone server and the blocking client: then
    the only asynchronous function is handle(), whose body has two lines."

    "This program does not use async."
    """
    names = "echo_protocol.py", "echo_handler.py", "server_standalone.py", "client_blocking.py"
    trees = [tree(folder(page) / name) for name in names]
    [handle] = (
        node for t in trees for node in ast.walk(t) if isinstance(node, ast.AsyncFunctionDef)
    )
    assert handle.name == "handle"
    assert [statement.lineno - handle.body[0].lineno for statement in handle.body] == [0, 1]
    assert not [node for node in ast.walk(trees[2]) if isinstance(node, (ast.AsyncWith, ast.Await))]


@both_pages
def test_next_steps(page: str) -> None:
    """The pages have what the list says.

    "All features of request handlers: timeouts, greetings, logins, background tasks."

    "All features of request handlers: refusing datagrams, waiting for more of them, timeouts,
    background tasks."

    "All features of clients: timeouts, errors, several threads or tasks."

    "All features of clients, and the meaning of their errors."

    "Formats other than JSON, and how to write your own."

    "howto/advanced/standalone_servers Running a standalone server in the background of a program."

    "tutorials/echo_client_server_udp The same two programs over UDP."

    "tutorials/echo_client_server_tcp The same two programs over TCP."

    "Every class and method of the clients: parameters, errors, guarantees."
    """
    kind, other = ("tcp", UDP) if page == TCP else ("udp", TCP)
    wanted = {
        "howto/serializers": ["StructSerializer", "Writing your own serializer"],
        "howto/advanced/standalone_servers": ["Running the server in the background"],
        f"howto/{kind}_servers": ["Cancellation and timeouts", "background task"],
        f"howto/{kind}_clients": ["timeout", "Sharing a client between threads or tasks", "Error"],
    }
    if page == TCP:
        wanted["howto/tcp_servers"] += ["greet", "login"]
    else:
        wanted["howto/udp_servers"] += ["Refusing datagrams", "Using multiple yield statements"]
        wanted["howto/udp_clients"] += ["Handling network errors"]
    steps = section(page, "Next steps")
    for target, parts in wanted.items():
        assert f":doc:`/{target}`" in steps
        assert [part for part in parts if part not in words(f"{target}.rst")] == [], target
    assert f":doc:`/{other.removesuffix('.rst')}`" in steps
    assert ":doc:`/api/clients`" in steps
    described = set(re.findall(r"automodule:: (\S+)\n   :members:", text_of("api/clients.rst")))
    package = importlib.import_module("easynetwork.clients")
    assert {getattr(package, name).__module__ for name in package.__all__} <= described
    files = {name.name for name in folder(page).iterdir() if name.name != "__pycache__"}
    assert files == {name.name for name in folder(other).iterdir() if name.name != "__pycache__"}


# Steps 1 and 2


def test_serializer() -> None:
    """What JSON has comes back as it was.

    "Your program works with dictionaries, lists and strings. A serializer converts one to the
    other, with serialize() and deserialize()"

    "JSONSerializer converts every object that JSON can represent."

    "which converts a packet to bytes and back"
    """
    serializer = JSONSerializer()
    packets: list[Any] = [None, True, 1, -1.5, "é\0\n", [], {}, [1, {"a": [None, {"b": ""}]}]]
    for packet in packets:
        data = serializer.serialize(packet)
        assert type(data) is bytes
        assert serializer.deserialize(data) == packet
    with pytest.raises(TypeError):
        serializer.serialize({1, 2})


def test_reference_of_serializers() -> None:
    """All of them, and the base classes.

    "lists the other serializers and explains how to write your own."
    """
    text = text_of("api/serializers.rst")
    listed = re.findall(r"auto(?:module|class):: (\S+)", text)
    package = importlib.import_module("easynetwork.serializers")
    for name in package.__all__:
        home = getattr(package, name).__module__
        assert any(item == home or item.rpartition(".")[2] == name for item in listed), name
    assert "easynetwork.serializers.abc" in listed


def test_stream() -> None:
    """What is sent in two pieces arrives in one, or in seven, without any sign of the two.

    "TCP does not carry packets. It carries a stream of bytes: data that you send in two pieces may
    arrive in one piece, or in seven. The receiver therefore has to find where one packet ends and
    the next one begins."

    "The protocol object does this, here a StreamProtocol from easynetwork.protocol."

    "Each packet now ends with"

    "With a StreamProtocol, the JSONSerializer writes each document on a line of its own, and the
    receiver reads up to the end of the line. From here on, the protocol object takes care of it."

    "(TCP carries a stream of bytes, in which the end of each packet has to be marked. There, a
    StreamProtocol takes care of it.)"
    """
    packets = [{"message": "Hello"}, {"message": "How are you?"}]
    lines = [b"".join(JSON.generate_chunks(packet)) for packet in packets]
    assert [line.index(b"\n") for line in lines] == [len(line) - 1 for line in lines]
    size = len(b"".join(lines))
    for pieces in 1, 7:
        step = -(-size // pieces)
        sender, receiver = socket.socketpair()
        with sender, receiver:
            for line in lines:
                sender.send(line)
            chunks = [receiver.recv(step) for _ in range(pieces)]
        assert b"".join(chunks) == b"".join(lines)
        received, rest, parser = [], b"", JSON.build_packet_from_chunks()
        next(parser)
        for chunk in chunks:
            rest = chunk
            while rest:
                try:
                    parser.send(rest)
                    rest = b""
                except StopIteration as end:
                    packet, rest = end.value
                    received.append(packet)
                    parser = JSON.build_packet_from_chunks()
                    next(parser)
        assert received == packets


def test_datagram() -> None:
    """A datagram is a packet, neither more nor less.

    "A datagram arrives complete or not at all. Each datagram is therefore one packet, and the
    receiver does not have to find where a packet ends."

    "The protocol object for datagrams is a DatagramProtocol, which contains a serializer."

    "Each line is a datagram, which contains only the bytes of the serializer."
    """
    data = DATAGRAMS.make_datagram([1, 2])
    assert data == DATAGRAMS.serializer.serialize([1, 2]) == b"[1,2]"
    receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with receiver, sender:
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        sender.send(data)
        sender.send(data)
        assert [receiver.recv(1000) for _ in range(2)] == [data] * 2
    for wrong in data[:-1], data + data:
        with pytest.raises(DatagramProtocolParseError):
            DATAGRAMS.build_packet_from_datagram(wrong)


@both_pages
def test_bytes_that_are_printed(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A client sends what the program prints.

    "print the bytes that would be sent."
    """
    runpy.run_path(str(folder(page) / "echo_protocol.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    kind = socket.SOCK_STREAM if page == TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if page == TCP:
            server.listen()
        client_class: Any = TCPNetworkClient if page == TCP else UDPNetworkClient
        protocol = JSON if page == TCP else DATAGRAMS
        with client_class(server.getsockname(), protocol) as client:
            accepted = server.accept()[0] if page == TCP else server.dup()
            with accepted:
                for line, message in zip(printed, ["Hello", "How are you?"], strict=True):
                    client.send_packet({"message": message})
                    assert line == repr(accepted.recv(1000))


# Step 3


def test_handlers() -> None:
    """Over both transports, a request comes back; the bytes are JSON.

    "In this tutorial you write two programs that exchange packets over TCP: a server that sends
    every packet back, and a client. Each packet is a JSON document."

    "In this tutorial you write two programs that exchange packets over UDP: a server that sends
    every packet back, and a client. Each packet is a JSON document in a datagram of its own."

    "which defines the format of the packets. It is all that both programs have to agree on"

    "which defines how the server responds to a request"

    "which sends requests and receives responses."

    "A request is a packet that the server receives. A response is a packet that it sends back."

    "The request handler defines what the server does with a request. This one sends each request
    back"

    "requests and responses can be any object that JSON can represent."
    """
    packets = [{"message": "Hello"}, [1, None], "text"]

    async def main() -> None:
        for example, protocol in ((tcp_example, JSON), (udp_example, DATAGRAMS)):
            async with serve(example.EchoRequestHandler(), protocol) as served:
                client = await served.connect()
                for packet in packets:
                    await client.send_packet(packet)
                    assert await client.recv_packet() == packet
                raw = await served.connect(raw=True)
                await raw.send(b'{"a":1}\n')
                assert (await raw.receive()).strip() == b'{"a":1}'

    play(main)
    for handler in tcp_example.EchoRequestHandler, udp_example.EchoRequestHandler:
        [base] = vars(handler)["__orig_bases__"]
        assert get_args(base) == (Any, Any)


class WithoutHints(ast.NodeTransformer):
    """Removes type hints, parameters of base classes, and a docstring."""

    def visit_arg(self, node: ast.arg) -> Any:
        return ast.arg(node.arg)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        self.generic_visit(node)
        node.bases = [
            base.value if isinstance(base, ast.Subscript) else base for base in node.bases
        ]
        node.body = [part for part in node.body if not isinstance(part, ast.Expr)]
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        self.generic_visit(node)
        node.returns = None
        return node


@pytest.mark.parametrize(("page", "kind"), [(TCP, "Stream"), (UDP, "Datagram")], ids=str)
def test_rest_of_the_handler(page: str, kind: str) -> None:
    """Without them, and without what is imported for them, this is what the file is.

    "The rest of the file is type hints."
    """
    *imports, handler = WithoutHints().visit(tree(folder(page) / "echo_handler.py")).body
    rest = f"""
class EchoRequestHandler(Async{kind}RequestHandler):
    async def handle(self, client):
        request = yield
        await client.send_packet(request)
"""
    assert ast.unparse(handler) == ast.unparse(ast.parse(rest))
    names = {name.name for node in imports for name in node.names}
    hints = {"annotations", "AsyncGenerator", "Any", f"Async{kind}Client"}
    assert names - hints == {f"Async{kind}RequestHandler"}


def test_course_of_a_request() -> None:
    """Calls, responses and another client, in the order in which they happen.

    "handle() pauses there, and the server serves other clients in the meantime. When a complete
    request has arrived, the server decodes it, and it becomes the value of the yield expression.
    handle() resumes, and"

    "sends the response. Then the server calls handle() again for the next request of the same
    client."
    """
    events: list[Any] = []

    class Handler(tcp_example.EchoRequestHandler):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            events.append("call")
            request = yield
            events.append(request)
            await client.send_packet(request)

    async def main() -> None:
        async with serve(Handler(), JSON) as served:
            slow = await served.connect(raw=True)
            await slow.send(b"[1,")
            await anyio.wait_all_tasks_blocked()
            events.append("the other one")
            other = await served.connect()
            await other.send_packet("meanwhile")
            assert await other.recv_packet() == "meanwhile"
            events.append("the slow one")
            await slow.send(b" 2]\n")
            assert await slow.receive() == b"[1,2]\n"
            await anyio.wait_all_tasks_blocked()

    play(main)
    index = events.index("the slow one")
    assert events[index + 1 :][:2] == [[1, 2], "call"]
    assert "meanwhile" in events[events.index("the other one") : index]


def test_course_of_datagrams() -> None:
    """Each of two clients sends two datagrams, which take a second.

    "The decoded request is the value of the yield expression, and"

    "The server calls handle() for each datagram that it receives: one after the other for the same
    client, and concurrently for different clients."
    """
    begun: list[tuple[float, Any]] = []
    ended: list[tuple[float, Any]] = []

    class Handler(udp_example.EchoRequestHandler):
        async def handle(self, client: AsyncDatagramClient[Any]) -> AsyncGenerator[None, Any]:
            request = yield
            begun.append((anyio.current_time(), request))
            await anyio.sleep(1)
            ended.append((anyio.current_time(), request))

    async def main() -> None:
        async with serve(Handler(), DATAGRAMS) as served:
            for name in "ab":
                client = await served.connect()
                for number in 1, 2:
                    await client.send_packet([name, number])
            await anyio.sleep(10)

    play(main)
    start = begun[0][0]
    for name in "ab":
        times = [time - start for time, request in begun if request[0] == name]
        assert times == pytest.approx([0, 1], abs=0.01)
    assert [request for _, request in sorted(ended)][:2] in (
        [["a", 1], ["b", 1]],
        [["b", 1], ["a", 1]],
    )


@pytest.mark.asyncio
async def test_server(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has sockets, accepts clients and calls the handler; the log shows all of its addresses.

    "The handler needs a server, which opens the sockets, accepts clients and calls the handler."

    "The handler needs a server, which opens the sockets, receives datagrams and calls the handler."

    "(If localhost also has an IPv6 address, the line shows both addresses.)"
    """
    resolve = socket.getaddrinfo

    def both(host: Any, *args: Any, **options: Any) -> list[Any]:
        if host != "localhost":
            return resolve(host, *args, **options)
        return [*resolve("127.0.0.1", *args, **options), *resolve("::1", *args, **options)]

    if not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    monkeypatch.setattr(socket, "getaddrinfo", both)
    for example, protocol in ((tcp_example, JSON), (udp_example, DATAGRAMS)):
        log.clear()
        handler = example.EchoRequestHandler()
        async with serving(handler, protocol, "localhost") as server:
            assert {address[0] for address in server.get_addresses()} == {"127.0.0.1", "::1"}
            [line] = [r.getMessage() for r in log.records if "Start serving" in r.getMessage()]
            assert "'127.0.0.1'" in line
            assert "'::1'" in line
            kind = socket.SOCK_STREAM if protocol is JSON else socket.SOCK_DGRAM
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.settimeout(PATIENCE)
                address = next(a for a in server.get_addresses() if a[0] == "127.0.0.1")
                sock.connect(address)
                sock.send(b"[1]\n")
                assert (await in_thread(lambda: sock.recv(100))).strip() == b"[1]"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that loads a program of a page, with another address."""

    def load(page: str, name: str, host: str, port: int) -> dict[str, Any]:
        protocol = runpy.run_path(str(folder(page) / "echo_protocol.py"))
        module = types.ModuleType("echo_protocol")
        vars(module).update(protocol, host=host, port=port)
        monkeypatch.setitem(sys.modules, "echo_protocol", module)
        example = tcp_example if page == TCP else udp_example
        monkeypatch.setitem(sys.modules, "echo_handler", example)
        return runpy.run_path(str(folder(page) / f"{name}.py"))

    return load


@both_pages
def test_address_and_format(page: str, programs: Any) -> None:
    """Servers and clients get both from the file.

    "defines the address of the server, and"

    "defines the format of the packets."

    "If another program is using it, choose a different port in echo_protocol.py."
    """
    kind = socket.SOCK_STREAM if page == TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

    async def main() -> None:
        module = programs(page, "server_asyncio", "127.0.0.1", port)
        async with module["new_server"]() as server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            assert [tuple(address) for address in server.get_addresses()] == [("127.0.0.1", port)]
            await server.shutdown()
        data = {"message": "Hello"}
        protocol = module["protocol"]
        made = (
            b"".join(protocol.generate_chunks(data))
            if page == TCP
            else protocol.make_datagram(data)
        )
        assert made.strip() == b'{"message":"Hello"}'

    asyncio.run(main())
    file = (folder(page) / "echo_protocol.py").read_text(encoding="utf-8")
    assert [line for line in file.splitlines() if "9000" in line] == [
        'host, port = "localhost", 9000'
    ]


# Step 4


@both_pages
@pytest.mark.anyio
async def test_clients(
    page: str, programs: Any, log: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each program sends its arguments and prints what comes back; then it has disconnected.

    "The client sends each command-line argument as a request and prints the response."

    "connects the client, and disconnects it when the block ends."

    "opens a socket, and closes it when the block ends."

    "The server logs the connection"

    "The server logs nothing, because clients neither connect nor disconnect."
    """
    framework = sniffio.current_async_library()
    handler = (tcp_example if page == TCP else udp_example).EchoRequestHandler()
    async with serving(handler, JSON if page == TCP else DATAGRAMS) as server:
        host, port = server.get_addresses()[0][:2]
        log.clear()
        log.set_level(logging.INFO, "easynetwork")
        for name in framework, "blocking":
            main = programs(page, f"client_{name}", host, port)["main"]
            arguments = ["Hello", "How are you?"]
            if name == framework:
                await main(arguments)
            else:
                await in_thread(partial(main, arguments))
            assert capsys.readouterr().out.splitlines() == [
                f"From server: {{'message': '{argument}'}}" for argument in arguments
            ]
        if page == TCP:
            with anyio.fail_after(PATIENCE):
                while server.get_statistics().clients:
                    await anyio.sleep(0.001)
            lines = [record.getMessage() for record in log.records]
            assert len([line for line in lines if line.startswith("Accepted new connection")]) == 2
            assert (
                len([line for line in lines if "disconnected (the client has left)" in line]) == 2
            )
        else:
            assert not log.records


@both_frameworks
def test_timeouts(backend: str) -> None:
    """They last for five seconds; a packet that comes before that is received.

    "recv_packet() waits until a complete packet has arrived."

    "To set a timeout, call it in a block async with asyncio.timeout(5):"

    "To set a timeout, call it in a block with trio.fail_after(5):"

    "recv_packet() waits for a datagram."

    "sets a timeout, because the request or the response may be lost, and no error reports the loss.
    After the timeout, the block raises TimeoutError."

    "After the timeout, the block raises trio.TooSlowError."

    "Only a timeout of trio raises another one, trio.TooSlowError."

    "Do not rely on it: if the computer of the server is down, or if the datagram is lost on its
    way, there is neither a response nor an error, and you need a timeout."
    """

    @contextlib.asynccontextmanager
    async def timeout() -> Any:
        if backend == "asyncio":
            async with asyncio.timeout(5):
                yield
        else:
            import trio

            with trio.fail_after(5):
                yield

    async def main() -> None:
        error: Any = TimeoutError
        if backend == "trio":
            import trio

            error = trio.TooSlowError
        async with serve(udp_example.EchoRequestHandler(), DATAGRAMS) as served:
            client = await served.connect(to_server=Faults(loss=1))
            await client.send_packet("lost")
            begin = anyio.current_time()
            with pytest.raises(error):
                async with timeout():
                    await client.recv_packet()
            assert anyio.current_time() - begin == pytest.approx(5)
        for latency in 3, 6:
            async with serve(tcp_example.EchoRequestHandler(), JSON) as streams:
                late = await streams.connect(to_client=Faults(latency=latency))
                await late.send_packet("complete")
                begin = anyio.current_time()
                with pytest.raises(error) if latency > 5 else contextlib.nullcontext():
                    async with timeout():
                        assert await late.recv_packet() == "complete"
                assert anyio.current_time() - begin == pytest.approx(min(latency, 5))

    play(main, backend)


def test_timeouts_of_blocking_clients() -> None:
    """The number is one of seconds, and half a packet is none.

    "would wait for at most 5 seconds."

    "waits for a datagram for at most 5 seconds. The timeout is necessary because the request or the
    response may be lost, and no error reports the loss. After the timeout, recv_packet() raises
    TimeoutError."
    """
    for page, client_class, protocol in (
        (TCP, TCPNetworkClient, JSON),
        (UDP, UDPNetworkClient, DATAGRAMS),
    ):
        kind = socket.SOCK_STREAM if page == TCP else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as server:
            server.bind(("127.0.0.1", 0))
            if page == TCP:
                server.listen()
            with client_class(server.getsockname(), protocol) as client:
                accepted = server.accept()[0] if page == TCP else server.dup()
                with accepted:
                    if page == TCP:
                        accepted.send(b'{"half')
                    else:
                        client.send_packet("lost")
                    begin = time.perf_counter()
                    with pytest.raises(TimeoutError):
                        client.recv_packet(timeout=0.02)
                    assert 0.02 <= time.perf_counter() - begin < 2
    source = (folder(UDP) / "client_blocking.py").read_text(encoding="utf-8")
    assert "recv_packet(timeout=5)" in source


def test_opening_sends_nothing() -> None:
    """A server hears nothing of a new client, and nothing of its end.

    "This sends nothing, because UDP has no connections."
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        with UDPNetworkClient(server.getsockname(), DATAGRAMS) as client:
            assert client.get_remote_address()[:2] == server.getsockname()
        with pytest.raises(BlockingIOError):
            server.recv(1)


def test_any_number_of_clients() -> None:
    """A hundred of them are served at the same time.

    "You now have a server that serves any number of clients, and a client. Both send and receive
    Python objects."

    "You now have a server that responds to any number of clients, and a client."

    "Both send and receive Python objects."
    """

    async def main() -> None:
        for example, protocol in ((tcp_example, JSON), (udp_example, DATAGRAMS)):
            async with serve(example.EchoRequestHandler(), protocol) as served:
                clients = [await served.connect() for _ in range(100)]
                for number, client in enumerate(clients):
                    await client.send_packet({"number": number})
                for number, client in enumerate(clients):
                    assert await client.recv_packet() == {"number": number}

    play(main)


# Make the programs fail


def test_data_that_is_not_json(log: pytest.LogCaptureFixture) -> None:
    """One line comes back, the next one ends the connection of this client, and of no other one.

    "With a different serializer, the same client class uses a different format. This client sends
    and receives lines of text."

    "The first line was JSON, so the server sent it back, and this client read it as a line of text.
    The second line was not JSON. The server closed the connection and logged the reason afterwards.
    It continues to serve the other clients."

    "The error of the client means that the server has closed the connection. Its text is the
    operating system's. TCP does not transmit a reason, so you find the reason only in the log of
    the server."

    "Both errors are subclasses of ConnectionError, so one except clause catches both."

    "(The error numbers and texts are those of Linux; other systems have others.)"
    """

    async def main() -> None:
        async with serve(tcp_example.EchoRequestHandler(), JSON) as served:
            client = await served.connect(protocol=LINES)
            other = await served.connect()
            await client.send_packet('{"message": "This is JSON"}')
            assert await client.recv_packet() == '{"message":"This is JSON"}'
            await client.send_packet("This is not JSON")
            with pytest.raises(EndOfStreamError) as info:
                await client.recv_packet()
            assert info.value.errno == errno.ECONNABORTED == 103
            assert os.strerror(errno.ECONNABORTED) in str(info.value)
            assert "JSON decode" not in str(info.value)
            await other.send_packet("still there")
            assert await other.recv_packet() == "still there"

    play(main)
    messages = [record.getMessage() for record in log.records]
    [closed] = [message for message in messages if "(the client sent invalid data" in message]
    [reason] = [message for message in messages if "sent invalid data: Incremental" in message]
    assert messages.index(closed) < messages.index(reason)
    assert "JSON decode error" in reason
    assert issubclass(EndOfStreamError, ConnectionError)
    assert issubclass(ConnectionRefusedError, ConnectionError)


def test_datagram_that_is_not_json(log: pytest.LogCaptureFixture) -> None:
    """One text comes back, the next one is a line in the log and nothing else.

    "With a different serializer, the same client class uses a different format. This client sends
    and receives text."

    "The first text was JSON, so the server sent it back, and this client read it as a line of text.
    The second text was not JSON. The server logged one line about it, and continues to serve all
    clients. The client receives nothing and times out: there is no connection that the server could
    close."
    """

    async def main() -> None:
        async with serve(udp_example.EchoRequestHandler(), DATAGRAMS) as served:
            client = await served.connect(protocol=TEXTS)
            await client.send_packet('{"message": "This is JSON"}')
            assert await client.recv_packet() == '{"message":"This is JSON"}'
            log.clear()
            await client.send_packet("This is not JSON")
            with pytest.raises(TimeoutError), anyio.fail_after(1):
                await client.recv_packet()
            assert len(log.records) == 1
            for sender in client, await served.connect(protocol=TEXTS):
                await sender.send_packet("[]")
                assert await sender.recv_packet() == "[]"

    play(main)


def test_handlers_that_catch_the_error() -> None:
    """They get it where they wait, and can respond.

    "The server also raised a StreamProtocolParseError at the yield of your handler, which did not
    catch it. A handler that catches the exception can send a response and keep the connection open"

    "The server also raised a DatagramProtocolParseError at the yield of your handler, which did not
    catch it."

    "A handler that catches the exception can send a response: see the section about error handling
    in"
    """

    class Streams(tcp_example.EchoRequestHandler):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            try:
                request = yield
            except StreamProtocolParseError:
                request = "that is not JSON"
            await client.send_packet(request)

    class Datagrams(udp_example.EchoRequestHandler):
        async def handle(self, client: AsyncDatagramClient[Any]) -> AsyncGenerator[None, Any]:
            try:
                request = yield
            except DatagramProtocolParseError:
                request = "that is not JSON"
            await client.send_packet(request)

    async def main() -> None:
        handlers: list[tuple[Any, Any, Any]] = [
            (Streams(), JSON, LINES),
            (Datagrams(), DATAGRAMS, TEXTS),
        ]
        for handler, protocol, other in handlers:
            async with serve(handler, protocol) as served:
                client = await served.connect(protocol=other)
                await client.send_packet("???")
                assert await client.recv_packet() == '"that is not JSON"'
                await client.send_packet("[1]")
                assert await client.recv_packet() == "[1]"

    play(main)
    for page in "tcp_servers", "udp_servers":
        assert "Error handling" in words(f"howto/{page}.rst")


def test_memory_of_a_line() -> None:
    """A client without an end is cut off at the limit; a larger one lets it go on.

    "Until it has received the end of a line, the server has to store the beginning. How much memory
    can a client use up in this way?"

    "If your packets are larger, write JSONSerializer(limit=1_000_000) in echo_protocol.py."
    """
    taken: dict[int, int] = {}

    async def main() -> None:
        for limit in 65_536, 1_000_000:
            protocol: Any = StreamProtocol(JSONSerializer(limit=limit))
            async with serve(tcp_example.EchoRequestHandler(), protocol) as served:
                client = await served.connect(raw=True)
                taken[limit] = 0
                with contextlib.suppress(ConnectionError):
                    await client.send(b'"')
                    while taken[limit] < 2_000_000:
                        await client.send(b"x" * 10_000)
                        await anyio.wait_all_tasks_blocked()
                        taken[limit] += 10_000
            packet = "x" * (limit - 100)
            async with serve(tcp_example.EchoRequestHandler(), protocol) as served:
                good = await served.connect()
                await good.send_packet(packet)
                assert await good.recv_packet() == packet

    play(main)
    assert taken[65_536] < 100_000
    assert 900_000 < taken[1_000_000] < 1_100_000


def test_size_of_a_datagram() -> None:
    """The sizes are those of the operating system.

    "How much data fits into a datagram?"

    "The client refused the first datagram and did not send it. The server received nothing, and the
    client remains usable. UDP sets this limit: at most 65,535 bytes, including the headers of IPv4
    (20 bytes) and UDP (8 bytes)."
    """
    most = 65_535 - 20 - 8
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(server.getsockname())
            assert sock.send(b"x" * most) == most
            assert len(server.recv(100_000)) == most
            with pytest.raises(OSError, match="long"):
                sock.send(b"x" * (most + 1))
        with UDPNetworkClient(server.getsockname(), DATAGRAMS) as client:
            with pytest.raises(OSError, match=f"at most {most} bytes fit"):
                client.send_packet("x" * 70_000)
            client.send_packet("small")
            assert server.recv(100_000) == b'"small"'


def test_whole_packets() -> None:
    """A part of a packet is not received.

    "recv_packet() waits until a complete packet has arrived."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = TCPNetworkClient[Any, Any](listener.getsockname(), JSON)
        server, _ = listener.accept()
    with server, client:
        server.sendall(b'{"message":')
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=SOON)
        server.sendall(b'"Hello"}\n')
        assert client.recv_packet(timeout=PATIENCE) == {"message": "Hello"}


def test_draining() -> None:
    """What `run()` does at Control-C is to shut the server down with this grace.

    "run() drains the server before it stops: requests that have arrived are answered first."

    "The client notices when it next receives, and cannot reconnect:"
    """
    assert inspect.signature(run).parameters["grace"].default == 10

    class Slow(tcp_example.EchoRequestHandler):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            request = yield
            await anyio.sleep(5)
            await client.send_packet(request)

    async def main() -> None:
        async with serve(Slow(), JSON) as served, anyio.create_task_group() as tasks:
            client = await served.connect()
            await client.send_packet("in time")
            await anyio.sleep(1)
            tasks.start_soon(lambda: served.server.shutdown(grace=10))
            assert await client.recv_packet() == "in time"
            for _ in range(2):
                with pytest.raises(EndOfStreamError):
                    await client.recv_packet()

    play(main)


def test_server_that_is_gone() -> None:
    """The first datagram finds nobody, the next one is told so; then the server is back.

    "The client has no connection that could end. It notices when it sends the next datagram"

    "Your operating system reports this error, because no program on your computer uses the port."

    "The client remains usable. Start the server again"

    "The same client can send and receive again"
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
    with UDPNetworkClient(address, DATAGRAMS) as client:
        with pytest.raises(ConnectionRefusedError):
            for _ in range(2):
                client.send_packet("Are you there?")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                sock.send(b"x")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.settimeout(PATIENCE)
            server.bind(address)
            client.send_packet("Are you back?")
            data, sender = server.recvfrom(1000)
            server.sendto(data, sender)
            assert client.recv_packet(timeout=PATIENCE) == "Are you back?"
