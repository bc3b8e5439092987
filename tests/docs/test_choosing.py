"""Test the tables and the statements of the page that helps to choose.

The tables are derived from the code: from signatures, from what constructors accept, and from what
can be imported. A class or a serializer that is new has to be on the page.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import asyncio
import collections
import importlib
import inspect
import json
import os
import pkgutil
import re
import socket
import socketserver as stdlib
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio

import easynetwork.clients
import easynetwork.servers
from docs._include.examples.choosing import two_servers
from easynetwork import serializers, socketserver
from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.clients.abc import AbstractAsyncNetworkClient, AbstractNetworkClient
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    JSONSerializer,
    LengthPrefixedSerializer,
    PickleSerializer,
    RawSerializer,
    StapledPacketSerializer,
    StringLineSerializer,
    ZlibCompressorSerializer,
    framing,
)
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    AsyncUDPNetworkServer,
    StandaloneTCPNetworkServer,
)
from easynetwork.servers.abc import AbstractAsyncNetworkServer, AbstractNetworkServer
from easynetwork.servers.blocking import (
    BlockingDatagramRequestHandler,
    BlockingStreamRequestHandler,
)
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import Faults, serve, virtual_time
from tests.decoding import outcomes
from tests.docs.howto_support import (
    DOCS,
    DatagramEcho,
    Echo,
    check_quotations,
    in_thread,
    serving,
    table,
    until,
    words,
)
from tests.times import PATIENCE

PAGE = "choosing.rst"
TEXT = (DOCS / PAGE).read_text(encoding="utf-8")

STREAMS = ("TCP", "Unix streams")
TRANSPORTS = ("TCP", "UDP", "Unix streams", "Unix datagrams")


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def spelled(transports: Iterable[str]) -> str:
    """Return how the page's tables spell a set of transports."""
    found = tuple(name for name in TRANSPORTS if name in set(transports))
    names = {(): "none", TRANSPORTS: "all", STREAMS: "streams", TRANSPORTS[2:]: "Unix"}
    return names.get(found, ", ".join(found))


def public_classes(package: Any, base: type) -> dict[str, type]:
    """Return the concrete public classes of a package that are of a kind."""
    classes: dict[str, type] = {}
    for module_info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module_info.name.rpartition(".")[2].startswith("_"):
            module = importlib.import_module(module_info.name)
            classes |= {
                name: cls
                for name in getattr(module, "__all__", ())
                if isinstance(cls := getattr(module, name), type)
                and issubclass(cls, base)
                and not inspect.isabstract(cls)
            }
    return classes


ASYNC_SERVERS = public_classes(easynetwork.servers, AbstractAsyncNetworkServer)
STANDALONE_SERVERS = public_classes(easynetwork.servers, AbstractNetworkServer)
BLOCKING_CLIENTS = public_classes(easynetwork.clients, AbstractNetworkClient)
ASYNC_CLIENTS = public_classes(easynetwork.clients, AbstractAsyncNetworkClient)

SERVERS = {
    (row[0], column): cls
    for row in table(PAGE, "Transport", "Asynchronous", "Standalone", "socketserver")
    for column, name, classes in zip(
        ("Asynchronous", "Standalone", "socketserver"),
        row[1:],
        (ASYNC_SERVERS, STANDALONE_SERVERS, vars(socketserver)),
        strict=True,
    )
    for cls in [classes[name]]
}
CLIENTS = {
    (row[0], column): cls
    for row in table(PAGE, "Transport", "Blocking", "Asynchronous")
    if row[0] in TRANSPORTS
    for column, name, classes in zip(
        ("Blocking", "Asynchronous"), row[1:], (BLOCKING_CLIENTS, ASYNC_CLIENTS), strict=True
    )
    for cls in [classes[name]]
}


# Which transport?


def test_transports(tmp_path: Path) -> None:
    """TCP can use TLS, and is for another machine; a Unix socket is a file with permissions.

    "the two programs run on different machines, or you do not know yet."

    "It can use TLS." "The permissions of a file decide who may connect."

    "both programs run on one machine, which is not a Windows machine."
    """
    assert [row[0] for row in table(PAGE, "Transport", "Packets")] == [*TRANSPORTS]
    assert "ssl" in inspect.signature(SERVERS["TCP", "Asynchronous"]).parameters
    has_host = [name for name in STREAMS if "host" in parameters_of(SERVERS[name, "Asynchronous"])]
    assert has_host == ["TCP"]
    for transport in "Unix streams", "Unix datagrams":
        cls: Any = SERVERS[transport, "Standalone"]
        handler = Echo() if transport in STREAMS else DatagramEcho()
        path = str(tmp_path / "s.sock")
        with cls(path, server_options(transport)[1], handler, mode=0o600) as server:
            thread = NetworkServerThread(server)
            thread.start()
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            thread.join()


def parameters_of(server: type) -> Iterable[str]:
    return inspect.signature(server).parameters


def test_lost_packets() -> None:
    """Of two packets over UDP, the one that the network loses is not sent again.

    "a lost packet does not matter, or you send it again yourself: discovery, measurements,
    positions."
    """
    protocol: Any = DatagramProtocol(JSONSerializer())

    async def main() -> None:
        async with serve(DatagramEcho(), protocol) as served:
            for to_server in Faults(loss=1.0), Faults():
                client = await served.connect(to_server=to_server)
                await client.send_packet("hello")
                with anyio.move_on_after(1000) as scope:
                    assert await client.recv_packet() == "hello"
                assert scope.cancelled_caught is (to_server.loss == 1.0)

    anyio.run(main, backend_options=virtual_time())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
def test_unix_datagrams(tmp_path: Path) -> None:
    """Packets arrive as they were sent, each by itself and in order.

    "both programs run on one machine, and each packet stands for itself: log lines, notifications."
    """
    requests: list[bytes] = []

    class Handler(DatagramEcho):
        async def handle(self, client: Any) -> AsyncGenerator[None, Any]:
            requests.append((yield))

    async def main() -> None:
        path = str(tmp_path / "s.sock")
        cls: Any = SERVERS["Unix datagrams", "Asynchronous"]
        async with cls(path, DatagramProtocol(RawSerializer()), Handler()) as server:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(server.serve_forever)
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                    sock.bind(str(tmp_path / "c.sock"))
                    for number in range(3):
                        sock.sendto(b"line %d" % number, path)
                    await until(lambda: len(requests) == 3)
                await server.shutdown()

    anyio.run(main)
    assert requests == [b"line 0", b"line 1", b"line 2"]


# Which server?


def test_all_servers() -> None:
    """All classes of servers are in the table, each in its place.

    "This is what each of them can do. "Streams" are TCP and Unix streams"
    """
    names = {cls.__name__ for cls in SERVERS.values()}
    assert names >= ASYNC_SERVERS.keys() | STANDALONE_SERVERS.keys()
    for (transport, column), cls in SERVERS.items():
        kind = {"TCP": "TCP", "UDP": "UDP", "Unix streams": "UnixStream"}.get(transport)
        assert (kind or "UnixDatagram") in cls.__name__
        prefix = {"Asynchronous": "Async", "Standalone": "Standalone", "socketserver": ""}[column]
        assert cls.__name__.startswith(prefix)


def server_options(transport: str) -> tuple[tuple[object, ...], Any]:
    """Return the address, as arguments, and the protocol object of a server."""
    address = ("path.sock",) if transport.startswith("Unix") else ("127.0.0.1", 0)
    kind = StreamProtocol if transport in STREAMS else DatagramProtocol
    return address, kind(JSONSerializer())


def takes(transport: str, column: str, handler: Any) -> bool:
    """Return whether a server takes a handler."""
    address, protocol = server_options(transport)
    cls: Any = SERVERS[transport, column]
    try:
        if column == "socketserver":
            place = address if len(address) > 1 else address[0]
            with cls(place, handler, bind_and_activate=False, protocol=protocol):
                return True
        cls(*address, protocol, handler, backend="asyncio")
    except TypeError:
        return False
    return True


def takes_blocking(transport: str, column: str) -> bool:
    class Stream(BlockingStreamRequestHandler[Any, Any]):
        def handle(self, client: Any) -> None:
            pass

    class Datagram(BlockingDatagramRequestHandler[Any, Any]):
        def handle(self, client: Any) -> None:
            pass

    if column == "socketserver":
        is_stream = transport in STREAMS
        bases = socketserver.StreamPacketHandler, socketserver.DatagramPacketHandler
        handler: Any = type("Handler", (bases[not is_stream],), {"handle": lambda self: None})
    else:
        handler = Stream() if transport in STREAMS else Datagram()
    return takes(transport, column, handler)


def takes_asynchronous(transport: str, column: str) -> bool:
    if column != "socketserver":
        return takes(transport, column, Echo() if transport in STREAMS else DatagramEcho())

    async def handle(self: Any) -> AsyncGenerator[None, Any]:
        yield

    bases = socketserver.StreamPacketHandler, socketserver.DatagramPacketHandler
    return takes(
        transport, column, type("Handler", (bases[transport not in STREAMS],), {"handle": handle})
    )


def has_parameter(name: str) -> Callable[[str, str], bool]:
    return lambda *server: name in inspect.signature(SERVERS[server]).parameters


def has_method(name: str) -> Callable[[str, str], bool]:
    return lambda *server: hasattr(SERVERS[server], name)


def has_grace(transport: str, column: str) -> bool:
    return "grace" in inspect.signature(SERVERS[transport, column].shutdown).parameters


def shares_port(transport: str, column: str) -> bool:
    if column == "socketserver":
        return hasattr(SERVERS[transport, column], "allow_reuse_port") and "Unix" not in transport
    return has_parameter("reuse_port")(transport, column)


def has_mixin(kind: str) -> Callable[[str, str], bool]:
    """Return a test for classes of `socketserver` with a mix-in."""

    def check(transport: str, column: str) -> bool:
        name = f"{kind}{SERVERS[transport, column].__name__}"
        return column == "socketserver" and name in socketserver.__all__

    return check


# Each module is imported where there are no Unix sockets.
ON_WINDOWS = """
import functools, socket, sys
import asyncio, anyio
socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
del socket.AF_UNIX
import importlib
for name in sys.argv[1:]:
    module, _, attribute = name.rpartition(":")
    try:
        getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        print(name)
"""


def missing_on_windows(classes: Iterable[type]) -> set[str]:
    """Return the names of the classes that cannot be imported without Unix sockets."""
    names = {
        f"{'easynetwork.socketserver' if 'socketserver' in cls.__module__ else cls.__module__}"
        f":{cls.__name__}"
        for cls in classes
    }
    done = subprocess.run(
        [sys.executable, "-c", ON_WINDOWS, *names],
        capture_output=True,
        encoding="utf-8",
        timeout=2 * PATIENCE,  # it imports almost everything
        check=True,
    )
    return {name.partition(":")[2] for name in done.stdout.split()}


SERVER_FEATURES: dict[str, Callable[[str, str], bool]] = {
    "TLS (ssl)": has_parameter("ssl"),
    "On asyncio and trio (backend)": has_parameter("backend"),
    "On uvloop, or with other options of the event loop (runner_options)": has_parameter(
        "runner_options"
    ),
    "Asynchronous handlers": takes_asynchronous,
    "Blocking handlers": takes_blocking,
    "A thread for each request (ThreadingMixIn)": has_mixin("Threading"),
    "A process for each request (ForkingMixIn)": has_mixin("Forking"),
    "Limits of clients, times and sizes (limits)": has_parameter("limits"),
    "Stopping without losing a request (shutdown(grace=…))": has_grace,
    "Statistics (get_statistics())": has_method("get_statistics"),
    "Sockets of a supervisor (from_sockets())": has_method("from_sockets"),
    "Several processes at one port (reuse_port, allow_reuse_port)": shares_port,
    "Descriptors of open files, and credentials (ancillary_bufsize)": has_parameter(
        "ancillary_bufsize"
    ),
}


def test_features_of_servers() -> None:
    """The table says what the classes have.

    "This is what each of them can do."
    """
    columns = ("Asynchronous", "Standalone", "socketserver")
    missing = missing_on_windows(SERVERS.values())
    features = {
        **SERVER_FEATURES,
        "On Windows": lambda transport, column: SERVERS[transport, column].__name__ not in missing,
    }
    rows = table(PAGE, "Feature", *columns)
    assert [row[0] for row in rows] == [*features]
    for feature, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            having = [name for name in TRANSPORTS if features[feature](name, column)]
            assert cell.partition(":")[0] == spelled(having), (feature, column)


@pytest.mark.anyio
async def test_kinds_of_servers() -> None:
    """An asynchronous server runs in your event loop; a standalone one has its own.

    "Asynchronous: for a program that uses async. It serves thousands of clients in one thread."

    "Standalone: for any other program."

    "It runs an asynchronous server in an event loop of its own. The code around the server needs no
    async."

    "socketserver: for a program that is written with socketserver, or that needs a process for each
    request."

    "The handler is blocking code."
    """
    threads = set()

    class Handler(Echo):
        async def handle(self, client: Any) -> AsyncGenerator[None, Any]:
            threads.add(threading.get_ident())
            await client.send_packet((yield))

    async with serving(Handler(), StreamProtocol(JSONSerializer())) as server:
        address = server.get_addresses()[0][:2]
        async with anyio.create_task_group() as task_group:
            for _ in range(20):
                task_group.start_soon(ask, address)
    assert threads == {threading.get_ident()}
    protocol = StreamProtocol(JSONSerializer())
    with StandaloneTCPNetworkServer("127.0.0.1", 0, protocol, Echo()) as standalone:
        assert not inspect.iscoroutinefunction(standalone.serve_forever)
    for (transport, column), cls in SERVERS.items():
        assert issubclass(cls, stdlib.BaseServer) is (column == "socketserver")
        assert has_mixin("Forking")(transport, column) is (column == "socketserver")


async def ask(address: tuple[str, int]) -> None:
    protocol = StreamProtocol(JSONSerializer())
    async with AsyncTCPNetworkClient[Any, Any](address, protocol) as client:
        await client.send_packet("hello")
        assert await client.recv_packet() == "hello"


# Changing your mind


def test_one_handler() -> None:
    """The example serves one handler over two transports; a standalone server takes it as well.

    "A request handler and a protocol object do not know which server uses them. This program serves
    one handler over TCP and over a Unix socket, at the same time"

    "A standalone server takes the same handlers, too."

    "So it is a small step from one server to another, unless you leave streams for datagrams, or
    socketserver for the others."

    "For the same kind of transport (streams or datagrams), request handlers and protocol objects
    are the same."
    """
    handlers = Echo(), DatagramEcho()
    for transport in TRANSPORTS:
        for column in "Asynchronous", "Standalone":
            assert takes(transport, column, handlers[transport not in STREAMS])
            assert not takes(transport, column, handlers[transport in STREAMS])
            assert not takes(transport, column, socketserver.StreamPacketHandler)
        assert not takes(transport, "socketserver", handlers[transport not in STREAMS])
    assert issubclass(two_servers.Counter, type(handlers[0]).__mro__[2])


# Which client?


def test_all_clients() -> None:
    """All classes of clients are in the table, each in its place.

    "A client does not have to be of the same kind as the server"
    """
    on_page = {name for row in table(PAGE, "Transport", "Blocking") for name in row[1:]}
    assert on_page >= BLOCKING_CLIENTS.keys() | ASYNC_CLIENTS.keys()
    for name in on_page - BLOCKING_CLIENTS.keys() - ASYNC_CLIENTS.keys():
        assert hasattr(easynetwork.clients, name)  # endpoints, which have no peer
    for (transport, column), cls in CLIENTS.items():
        kind = {"TCP": "TCP", "UDP": "UDP", "Unix streams": "UnixStream"}.get(transport)
        assert (kind or "UnixDatagram") in cls.__name__
        assert cls.__name__.startswith("Async") is (column == "Asynchronous")


def overrides(name: str) -> Callable[[type], bool]:
    """Return a test for classes whose method is not the one that only raises an exception."""
    bases = (AbstractNetworkClient, AbstractAsyncNetworkClient)
    return lambda cls: getattr(cls, name) not in [getattr(base, name) for base in bases]


def receives_with_timeout(cls: Any) -> bool:
    return "timeout" in inspect.signature(cls.recv_packet).parameters


CLIENT_FEATURES: dict[str, Callable[[type], bool]] = {
    "TLS (ssl, start_tls())": lambda cls: (
        "ssl" in inspect.signature(cls).parameters and overrides("start_tls")(cls)
    ),
    "Changing the protocol object (set_protocol())": overrides("set_protocol"),
    "Ending one direction (send_eof())": lambda cls: hasattr(cls, "send_eof"),
    "Timeouts as arguments (recv_packet(timeout=…))": receives_with_timeout,
    "On asyncio and trio (backend)": lambda cls: "backend" in inspect.signature(cls).parameters,
}


def test_features_of_clients() -> None:
    """The table says what the classes have.

    "Changing the protocol object (set_protocol())" "Timeouts as arguments"
    """
    columns = ("Blocking", "Asynchronous")
    missing = missing_on_windows(CLIENTS.values())
    features = {**CLIENT_FEATURES, "On Windows": lambda cls: cls.__name__ not in missing}
    rows = table(PAGE, "Feature", *columns)
    assert [row[0] for row in rows] == [*features]
    for feature, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            having = [name for name in TRANSPORTS if features[feature](CLIENTS[name, column])]
            assert cell.partition(":")[0] == spelled(having), (feature, column)


@pytest.mark.anyio
async def test_blocking_client() -> None:
    """A blocking client talks to an asynchronous server, from several threads.

    "blocking clients talk to asynchronous servers. Only the transport and the format of packets
    have to agree."

    "A blocking client may be used by several threads, and an asynchronous client by several tasks
    of one event loop."
    """
    protocol = StreamProtocol(JSONSerializer())
    received: list[int] = []

    async with serving(Echo(), protocol) as server:
        address = server.get_addresses()[0][:2]
        with TCPNetworkClient[Any, Any](address, protocol) as client:

            def exchange(number: int) -> None:
                client.send_packet(number)
                received.append(client.recv_packet(timeout=PATIENCE))

            async with anyio.create_task_group() as task_group:
                for number in range(8):
                    task_group.start_soon(in_thread, lambda number=number: exchange(number))
            assert sorted(received) == [*range(8)]
        async with AsyncTCPNetworkClient[Any, Any](address, protocol) as other:
            async with anyio.create_task_group() as task_group:
                for number in range(8):
                    task_group.start_soon(other.send_packet, number)
            assert sorted([await other.recv_packet() for _ in range(8)]) == [*range(8)]


def test_other_programs() -> None:
    """Bytes that another program has made are a packet.

    "The other end can also be any other program that speaks your protocol."
    """

    async def main() -> None:
        async with serve(Echo(), StreamProtocol(JSONSerializer())) as served:
            peer = await served.connect(raw=True)
            await peer.send(json.dumps({"celsius": 21.5}).encode() + b"\n")
            assert json.loads(await peer.receive()) == {"celsius": 21.5}

    anyio.run(main, backend_options=virtual_time())


# Which protocol object?


def test_wrong_protocol() -> None:
    """Each class takes the protocol object of its row, and refuses the others.

    "A server or a client refuses the wrong one with a TypeError."
    """
    kinds: dict[str, Any] = {
        "StreamProtocol": StreamProtocol(StringLineSerializer()),
        "BufferedStreamProtocol": BufferedStreamProtocol(StringLineSerializer()),
        "DatagramProtocol": DatagramProtocol(StringLineSerializer()),
    }
    for transports, protocols, _ in table(PAGE, "Transport", "Protocol object", "Serializer"):
        right = {name for name in re.findall(r"\w+", protocols) if name in kinds}
        assert right
        for transport in transports.split(", "):
            for name, protocol in kinds.items():
                assert takes_protocol(transport, protocol) is (name in right), (transport, name)


def takes_protocol(transport: str, protocol: Any) -> bool:
    """Return what all servers and clients for a transport agree on."""
    address = server_options(transport)[0]
    handler = Echo() if transport in STREAMS else DatagramEcho()
    found = set()
    for column in "Asynchronous", "Standalone":
        server_class: Any = SERVERS[transport, column]
        try:
            server_class(*address, protocol, handler, backend="asyncio")
        except TypeError:
            found.add(False)
        else:
            found.add(True)
    client_class: Any = CLIENTS[transport, "Asynchronous"]
    place = address if len(address) > 1 else address[0]
    try:
        client_class(place, protocol, backend="asyncio")
    except TypeError:
        found.add(False)
    else:
        found.add(True)
    [agreed] = found
    return agreed


def test_buffered() -> None:
    """Not every serializer for streams has a buffer.

    "BufferedStreamProtocol is only for serializers that bring their own buffer"
    """
    with pytest.raises(TypeError):
        BufferedStreamProtocol(JSONSerializer())  # type: ignore[call-overload]  # the point of it


# Which serializer?

Pair = collections.namedtuple("Pair", ["x", "y"])

SAMPLES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "JSONSerializer": ((), {"a": [1]}),
    "StringLineSerializer": ((), "hello"),
    "StructSerializer": ((">hh",), (1, 2)),
    "NamedTupleStructSerializer": ((Pair, {"x": "h", "y": "h"}), Pair(1, 2)),
    "MessagePackSerializer": ((), {"a": [1, b"\xff"]}),
    "CBORSerializer": ((), {"a": [1, b"\xff"]}),
    "NetstringSerializer": ((), b"\xff"),
    "RawSerializer": ((), b"\xff"),
    "PickleSerializer": ((), {"a": [1]}),
}
OPTIONAL = ("msgpack", "cbor2")


def formats() -> Iterator[list[str]]:
    yield from table(PAGE, "Serializer", "Use it for", "Bytes")


def wrappers() -> list[str]:
    """Return the names in the first column of the table of wrappers."""
    return [name for row in table(PAGE, "Wrapper", "Use it") for name in re.findall(r"\w+", row[0])]


def test_all_serializers() -> None:
    """Each serializer of the library is in one of the tables, or in the last sentence.

    "Four more wrap another serializer, and make a new format of it"

    "StapledPacketSerializer combines two serializers, one for each direction."
    """
    names = [row[0] for row in formats()] + wrappers()
    assert sorted([*names, "StapledPacketSerializer"]) == sorted(
        name for name in dir(serializers) if name.endswith("Serializer")
    )
    assert len(wrappers()) == 4
    for name in wrappers():
        [first, *_] = inspect.signature(getattr(serializers, name)).parameters
        assert first == "serializer"
    stapled = StapledPacketSerializer(StringLineSerializer(), JSONSerializer())
    assert stapled.deserialize(stapled.serialize("[1]")) == [1]


@pytest.mark.parametrize("row", [*formats()], ids=lambda row: row[0])
def test_serializer(row: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of serializers says what they do.

    "data for programs in any language" "bytes as they come, without packets"
    "the types of JSON, and bytes" "packets that are bytes already"
    """
    name, _, kind, protocols, needs = row
    cls: Any = getattr(serializers, name)
    arguments, packet = SAMPLES[name]
    if needs != "nothing":
        pytest.importorskip(needs)
    serializer = cls(*arguments)
    data = serializer.serialize(packet)
    assert serializer.deserialize(data) == packet
    assert kind == ("text" if data.isascii() and data.decode().isprintable() else "binary")

    found = []
    candidates: tuple[tuple[str, Any], ...] = (
        ("stream", StreamProtocol),
        ("buffered", BufferedStreamProtocol),
        ("datagram", DatagramProtocol),
    )
    for word, protocol_class in candidates:
        try:
            protocol_class(serializer)
        except TypeError:
            continue
        found.append(word)
    names = {
        "all": ["stream", "buffered", "datagram"],
        "not buffered": ["stream", "datagram"],
        "only datagram": ["datagram"],
    }
    assert names[protocols] == found

    missing = []
    for package in OPTIONAL:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            try:
                cls(*arguments)
            except ModuleNotFoundError:
                missing.append(package)
    assert needs == (", ".join(missing) or "nothing")


def test_times_and_sets() -> None:
    """CBOR has more types than JSON and MessagePack.

    "the same, and times, sets, large integers"
    """
    pytest.importorskip("cbor2")
    cbor = serializers.CBORSerializer()
    for packet in {1, 2}, 2**100:
        assert cbor.deserialize(cbor.serialize(packet)) == packet
    with pytest.raises(TypeError):
        JSONSerializer().serialize({1, 2})


def test_wrappers() -> None:
    """What the wrappers are for.

    "to put the length in front of each packet: then any serializer works in a stream, and the
    packets after a corrupt one are received"

    "to send binary data as lines of text, and to sign packets"

    "to compress large packets"
    """
    protocol = StreamProtocol(LengthPrefixedSerializer(PickleSerializer()))
    [good] = protocol.generate_chunks(1)
    parser = protocol.build_packet_from_chunks()
    next(parser)
    with pytest.raises(StreamProtocolParseError) as caught:
        parser.send(b"\0\0\0\x03bad" + good)
    assert bytes(caught.value.remaining_data) == good
    assert Base64EncoderSerializer(PickleSerializer()).serialize(1).isascii()
    assert "checksum" in inspect.signature(Base64EncoderSerializer).parameters
    large = ["the same words"] * 1000
    compressor = ZlibCompressorSerializer(JSONSerializer())
    assert len(compressor.serialize(large)) < len(JSONSerializer().serialize(large)) / 10


def test_order_of_questions() -> None:
    """The questions end with the serializer that the page begins with.

    "Choose the first line that is true"

    "If you are not sure, begin with AsyncTCPNetworkServer, a StreamProtocol and a JSONSerializer"
    """
    questions = re.findall(r"^#\. \*(.+?)\*", TEXT, re.MULTILINE)
    assert questions[0] == "The format is given."
    assert questions[-1] == "Everything else."
    assert "Everything else. JSON." in words(PAGE)
    AsyncTCPNetworkServer(
        "127.0.0.1", 0, StreamProtocol(JSONSerializer()), Echo(), backend="asyncio"
    )


def test_answers() -> None:
    """Each answer has what its question asks for.

    "People type the packets, or read them. Lines for commands, JSON for data."

    "Packets contain bytes, or are large. MessagePack or CBOR."

    "All packets have the same fields, and each byte counts. A struct."
    """
    kinds = {name: kind for name, _, kind, *_ in formats()}
    text = [name for name, kind in kinds.items() if kind == "text"]
    assert sorted(text) == ["JSONSerializer", "StringLineSerializer"]
    pytest.importorskip("msgpack")
    pytest.importorskip("cbor2")
    large = [{"x": x, "y": -x} for x in range(1000)]
    for cls in serializers.MessagePackSerializer, serializers.CBORSerializer:
        serializer = cls()
        assert serializer.deserialize(serializer.serialize(b"\xff")) == b"\xff"
        assert len(serializer.serialize(large)) < 0.7 * len(JSONSerializer().serialize(large))
        point = len(serializer.serialize({"x": 1, "y": 2}))
        struct = serializers.NamedTupleStructSerializer(Pair, {"x": "h", "y": "h"})
        assert len(struct.serialize(Pair(1, 2))) < point
    with pytest.raises(TypeError):
        JSONSerializer().serialize(b"\xff")


def test_base_classes() -> None:
    """A format that is not in the table is two methods away.

    "The format is given. Look for it in the table above. If it is not there, write a serializer"

    "For lengths, separators and fixed sizes, there are base classes."
    """

    class Plain:
        def serialize(self, packet: bytes) -> bytes:
            return packet

        def deserialize(self, data: bytes) -> bytes:
            return bytes(data)

    def check(base: Any, arguments: tuple[Any, ...], data: bytes) -> None:
        serializer = type("Own", (Plain, base), {})(*arguments)
        assert outcomes(StreamProtocol(serializer), [data * 2]) == [b"data"] * 2

    check(framing.LengthPrefixedPacketSerializer, ("u8",), b"\4data")
    check(framing.AutoSeparatedPacketSerializer, (b";",), b"data;")
    check(framing.FixedSizePacketSerializer, (4,), b"data")


class Executed:
    """Executes code when its pickle is accepted."""

    def __reduce__(self) -> Any:
        return print, ("executed",)


def test_pickle(capsys: pytest.CaptureFixture[str]) -> None:
    """Accepting a pickle executes what the sender wants.

    "who sends a pickle can execute any code in your program"
    """
    serializer = PickleSerializer()
    serializer.deserialize(serializer.serialize(Executed()))
    assert capsys.readouterr().out == "executed\n"


# Which event loop?


@pytest.mark.anyio
async def test_event_loop() -> None:
    """A server finds out which event loop runs.

    "An asynchronous server or client takes the event loop in which you create it, so there is
    nothing to pass."
    """
    server = AsyncUDPNetworkServer[Any, Any](
        "127.0.0.1", 0, DatagramProtocol(JSONSerializer()), DatagramEcho()
    )
    assert sniffio.current_async_library() in type(server.backend()).__module__
    await server.server_close()


def test_options_of_event_loops() -> None:
    """A standalone server takes the arguments of the table.

    "runner_options={"loop_factory": uvloop.new_event_loop}" "the default"

    "from Python 3.12 on"
    """
    protocol = StreamProtocol(JSONSerializer())
    rows = {row[0]: row[1:] for row in table(PAGE, "Event loop", "Asynchronous server or client")}
    assert [*rows] == ["asyncio", "uvloop", "trio"]
    first = re.search(r"loop_factory=.* from Python (\d+)\.(\d+) on", rows["uvloop"][0])
    assert first is not None
    has_factory = "loop_factory" in inspect.signature(asyncio.run).parameters
    assert has_factory == (sys.version_info >= (int(first[1]), int(first[2])))
    for name, (_, standalone) in rows.items():
        if name != "asyncio":
            module = pytest.importorskip(name)
            options = eval(f"dict({standalone})", {name: module})  # as the page shows it
            StandaloneTCPNetworkServer("127.0.0.1", 0, protocol, Echo(), **options).server_close()
