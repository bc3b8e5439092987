"""The page with all messages: those at the start of a server or of a client.

Each test provokes messages, and does what the page says of them. See `message_support`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import importlib
import logging
import os
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.addresses import UnixSocketAddress, new_socket_address
from easynetwork.clients import (
    AsyncTCPNetworkClient,
    AsyncUDPNetworkClient,
    TCPNetworkClient,
    UDPNetworkClient,
)
from easynetwork.clients.udp_endpoint import UDPNetworkEndpoint
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    AsyncUDPNetworkServer,
    StandaloneTCPNetworkServer,
    run,
)
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.blocking import BlockingStreamRequestHandler
from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.sockets import inherited_sockets, notify_systemd
from easynetwork.socketserver import StreamPacketHandler, TCPServer
from tests.docs.howto_support import DatagramEcho, Echo, check_quotations, serving
from tests.docs.memory_support import LINES, Obedient
from tests.docs.message_support import Seen
from tests.networks import own_network
from tests.times import PATIENCE
from tests.tls_peers import server_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the texts are those of Linux")

PAGE = "troubleshooting.rst"
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())


def new_server(host: Any = "127.0.0.1", port: int = 0, **options: Any) -> Any:
    return AsyncTCPNetworkServer(host, port, LINES, Echo(), **{"backend": "asyncio", **options})


def new_unix_server(path: Any, **options: Any) -> Any:
    return AsyncUnixStreamServer(path, LINES, Echo(), "asyncio", **options)


async def activate(server: Any) -> None:
    """Have a server listen, and close it."""
    async with server:
        pass


# -- addresses


def test_bind(tmp_path: Path) -> None:
    """An address that cannot be bound, and why.

    "OSError: error while attempting to bind on address ...: ..."

    "OSError: error while attempting to bind on address ...:" "Cannot assign requested address"

    "This machine does not have the address."

    "Use one of its own (ip address lists them), or None for all."

    "FileNotFoundError: error while attempting to bind on address ...:" "No such file or directory"

    "The operating system says which, at the end of the message."
    """
    seen = Seen()
    error = seen.runs(activate, new_server("192.0.2.1"))
    assert str(error).endswith(f": {os.strerror(errno.EADDRNOTAVAIL)}")
    for host in "127.0.0.1", None:
        anyio.run(activate, new_server(host))
    path = tmp_path / "missing" / "socket"
    seen.runs(activate, new_unix_server(path))
    assert not path.parent.exists()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        error = seen.runs(activate, new_server(port=sock.getsockname()[1]))
        assert str(error).endswith(f": {os.strerror(errno.EADDRINUSE)}")
    seen.check(test_bind)


def test_privileged_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forbidden to some.

    "PermissionError: error while attempting to bind on address ...:" "Permission denied"

    "On Linux, only privileged processes may listen at ports below 1,024."
    """
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    with own_network():  # its settings are those of Linux
        assert first.read_text() == "1024\n"

    def refuse(self: object, address: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    seen = Seen()
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "bind", refuse)
        seen.runs(activate, new_server(port=1023))
    seen.check(test_privileged_ports)


def test_folder_without_permission(unix_path: str) -> None:
    """A folder that is closed to the process.

    "PermissionError: error while attempting to bind on address ...:" "Permission denied"

    "For a Unix socket, the process may not create files in the folder."
    """
    seen = Seen()
    os.chmod(os.path.dirname(unix_path), 0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # an administrator may do anything
    try:
        seen.runs(activate, new_unix_server(unix_path))
    finally:
        os.seteuid(user)
    os.chmod(os.path.dirname(unix_path), 0o755)
    seen.check(test_folder_without_permission)


def test_stale_paths(unix_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is only replaced if no server listens there.

    "OSError: ...: a server uses it"

    "OSError: ...: it is not a socket"

    "OSError: ...: it cannot be found out whether a server uses it: ..."

    "OSError: another program holds the lock ..."

    "unlink_stale=True replaces only sockets at which no server listens. Stop the other server, or
    delete the file if it is not needed. The lock is a file beside the socket, with the suffix
    .lock: a program that starts at the same time holds it, for a moment."
    """

    def new(**options: Any) -> Any:
        return new_unix_server(unix_path, unlink_stale=True, **options)

    seen = Seen()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(unix_path)
        sock.listen()
        seen.runs(activate, new())
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect_ex", lambda *args: errno.EACCES)
        seen.runs(activate, new())
    anyio.run(activate, new())  # the server is gone: its file is replaced
    with open(unix_path, "w") as file:
        seen.runs(activate, new())
        os.unlink(file.name)
    anyio.run(activate, new())
    with open(f"{unix_path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr("easynetwork.sockets.unix._BEGIN_TIMEOUT", 0.01)
        error = seen.runs(activate, new())
        assert str(error).endswith(f"holds the lock {unix_path}.lock")
        seen.messages[-1] = f"OSError: {str(error).partition(': ')[2]}"  # without the address
    seen.check(test_stale_paths)


def test_long_path(tmp_path: Path, unix_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of a path is limited, not that of its folder.

    "Use a shorter one, or a relative path."
    """
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with pytest.raises(OSError, match=r"AF_UNIX path too long \(at most 107 bytes\)"):
        anyio.run(activate, new_unix_server(folder / "socket"))
    anyio.run(activate, new_unix_server(unix_path))
    monkeypatch.chdir(folder)
    anyio.run(activate, new_unix_server("socket"))


def test_several_addresses(monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture) -> None:
    """Each address, or each host, has an exception of its own.

    ExceptionGroup: "Error when trying to create listeners"

    "More than one address could not be bound, or more than one host could not be resolved. The
    group has an exception for each."

    INFO: "Addresses that this machine does not have are left out: ..."

    "One of the addresses of a host cannot be used here, for example ::1 on a machine without IPv6.
    The server listens at the others."
    """
    seen = Seen()
    hosts = ["203.0.113.1", "203.0.113.3"]
    group: Any = seen.runs(activate, new_server(hosts))
    assert len(group.exceptions) == 2
    resolve_nothing(monkeypatch)
    group = seen.runs(activate, new_server(["one.invalid", "other.invalid"]))
    assert [type(error) for error in group.exceptions] == [socket.gaierror] * 2

    async def both(*args: Any, **options: Any) -> list[Any]:
        kind = socket.SOCK_STREAM
        found = [("127.0.0.1", 0), ("192.0.2.1", 0)]
        return [(socket.AF_INET, kind, 0, "", address) for address in found]

    async def main() -> None:
        async with new_server("localhost") as server:
            assert [address.host for address in server.get_addresses()] == ["127.0.0.1"]

    monkeypatch.setattr("anyio.getaddrinfo", both)
    anyio.run(main)
    seen.logged(log.records, "left out")
    seen.check(test_several_addresses)


def resolve_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no DNS server answer."""

    async def fail(*args: Any, **options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("anyio.getaddrinfo", fail)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, with all levels."""
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is none.

    "OSError: empty listeners list"

    "The host is an empty sequence. Pass None to listen at all interfaces."

    "gaierror: cannot resolve ...: ..."

    "gaierror: cannot resolve ...: no address of family ..."

    "OSError: getaddrinfo(...) returned empty list"

    "The host does not exist, or not in this family of addresses, or no DNS server answered."
    """
    seen = Seen()
    seen.runs(activate, new_server([]))
    resolve_nothing(monkeypatch)
    seen.runs(activate, new_server("missing.invalid"))

    async def connect() -> None:
        async with AsyncUDPNetworkClient(("127.0.0.1", 9), DATAGRAMS, family=socket.AF_INET6):
            pass

    seen.runs(connect)

    async def nothing(*args: Any, **options: Any) -> list[Any]:
        return []

    monkeypatch.setattr("anyio.getaddrinfo", nothing)
    seen.runs(activate, new_server("missing.invalid"))
    seen.check(test_hosts)


# -- platforms


def test_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only some platforms have.

    "ValueError: reuse_port not supported by socket module"

    "This platform has no SO_REUSEPORT."

    "Windows is one."

    "Run one server for each port."

    "ValueError: ... parameter is required on this platform and cannot be an empty string."

    "An empty path asks the kernel to choose a name, which only Linux does."

    "Pass a path."

    "NotImplementedError: ... is not a known backend; there are ..."
    """
    seen = Seen()

    async def choose() -> None:
        async with new_unix_server("") as server:
            assert str(server.get_addresses()[0]).startswith("@")

    anyio.run(choose)
    with monkeypatch.context() as patched:
        patched.delattr(socket, "SO_REUSEPORT")
        seen.calls(new_server, reuse_port=True)
        new_server(backend="asyncio")
        patched.setattr(sys, "platform", "darwin")
        seen.calls(new_unix_server, "")
        new_unix_server("socket")
    seen.calls(new_server, backend="uvloop")
    seen.check(test_platforms)


def test_uvloop() -> None:
    """There is no backend for uvloop.

    "For uvloop, pass"

    "and a loop_factory in runner_options."
    """
    uvloop = pytest.importorskip("uvloop")
    loops: list[Any] = []

    def look() -> Any:
        loops.append(asyncio.get_running_loop())
        raise LookupError

    options = {"loop_factory": uvloop.new_event_loop}
    with pytest.raises(LookupError):
        run(look, backend="asyncio", runner_options=options)
    assert isinstance(loops[0], uvloop.Loop)


def test_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without Unix sockets.

    ImportError: "UNIX sockets are not supported on ..."

    "There are none on this platform. Use TCP at 127.0.0.1."
    """
    seen = Seen()
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "easynetwork.sockets.unix")
        patched.delattr(socket, "AF_UNIX")
        seen.calls(importlib.import_module, "easynetwork.sockets.unix")
    anyio.run(activate, new_server("127.0.0.1"))
    seen.check(test_without_unix_sockets)


# -- TLS


def test_contexts() -> None:
    """A context is for one side.

    "ValueError: ssl: ..."

    "The context cannot be used on this side. For a server, make it with
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) or ssl.PROTOCOL_TLS_SERVER; for a client,
    with ssl.create_default_context()."

    ValueError: "You must set server_hostname when using ssl without a host"

    "ValueError: check_hostname requires server_hostname"

    "TLS checks that the certificate is that of the host. If the client gets a socket in place of a
    host, pass the name in server_hostname."

    "TypeError: ssl.SSLSocket instances are forbidden"

    "Pass a plain socket, and the context in ssl."
    """
    seen = Seen()
    options: dict[str, Any] = {"backend": "asyncio"}
    of_client = ssl.create_default_context()
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    new_client: Any = AsyncTCPNetworkClient
    seen.calls(new_server, ssl=unnamed(), **options)
    for context in of_server, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER):
        new_server(ssl=context, **options)
        seen.calls(new_client, ("127.0.0.1", 9), LINES, ssl=context, **options)
    new_client(("127.0.0.1", 9), LINES, ssl=of_client, **options)
    with pair() as (one, _):
        seen.calls(new_client, one, LINES, ssl=of_client, **options)
    with pair() as (one, _):
        client = TCPNetworkClient[str, str](one, LINES, ssl=None)
        client.close()
    with pair() as (one, _):
        seen.calls(new_client, one, LINES, ssl=of_client, server_hostname="", **options)
    with pair() as (one, _):
        tls = of_client.wrap_socket(one, server_hostname="x", do_handshake_on_connect=False)
        seen.calls(new_client, tls, LINES, **options)
    seen.check(test_contexts)


def unnamed() -> ssl.SSLContext:
    """Return a client's context that expects no name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


@contextlib.contextmanager
def pair() -> Any:
    """Yield two TCP sockets that are connected."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname(), PATIENCE)
        with one, listener.accept()[0] as other:
            yield one, other


# -- supervisors


def test_adopted_sockets() -> None:
    """Sockets that other code has bound.

    "TypeError: from_sockets() does not take ...: the sockets are already bound." "Set it where they
    are bound"

    "OSError: a socket given to from_sockets() has been closed: ..."

    "ValueError: ... cannot be used: ..."

    "ValueError: ... is given twice"

    "from_sockets() takes bound, open sockets of the right family and type, each once. The options
    of binding belong into the configuration of the supervisor"
    """
    seen = Seen()
    adopt: Any = AsyncTCPNetworkServer.from_sockets
    arguments = LINES, Echo(), "asyncio"
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unbound = stack.enter_context(socket.socket())
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        for option in "backlog", "reuse_port", "host", "port":
            seen.calls(adopt, [listening], *arguments, **{option: None})
        for sock in unbound, datagrams, local:
            with pytest.raises(ValueError, match=r"does not listen|is of (type|family)"):
                adopt([sock], *arguments)
        seen.calls(adopt, [listening, listening], *arguments)
        adopt([listening], *arguments)
        os.close(unbound.fileno())
        seen.calls(adopt, [unbound], *arguments)
        unbound.detach()

    async def serve_closed() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        server = adopt([sock], LINES, Echo())
        sock.close()
        await activate(server)

    seen.runs(serve_closed)
    seen.check(test_adopted_sockets)


def test_variables_of_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a service.

    ValueError: "LISTEN_FDS is '0': expected the number of descriptors"

    "ValueError: ... is ...: expected a number"

    ValueError: "LISTEN_FDNAMES is ..., but LISTEN_FDS is '...'"

    ValueError: "LISTEN_FDS is '...', but descriptor ... is not open: ..."

    ValueError: "LISTEN_FDS is '...', but descriptor ... is not a socket"

    ValueError: "NOTIFY_SOCKET is ...: expected an absolute path, or '@name'"

    "A supervisor, for example systemd, sets these variables, and here they do not fit. Did another
    program set them, or close or use the descriptors before?"
    """
    seen = Seen()
    for name in "LISTEN_PIDFDID", "LISTEN_FDNAMES", "NOTIFY_SOCKET":
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with socket.socket() as sock, open(os.devnull, "rb") as file:
        for count, first, names in [
            ("0", sock.fileno(), ""),
            ("many", sock.fileno(), ""),
            ("1", sock.fileno(), "web:dns"),
            ("1", 1 << 20, ""),
            ("1", file.fileno(), ""),
        ]:
            monkeypatch.setattr("easynetwork.sockets.systemd._FIRST_DESCRIPTOR", first)
            monkeypatch.setenv("LISTEN_FDS", count)
            monkeypatch.setenv("LISTEN_FDNAMES", names)
            seen.calls(inherited_sockets)
    monkeypatch.setenv("NOTIFY_SOCKET", "relative")
    seen.calls(notify_systemd, "READY=1")
    seen.check(test_variables_of_a_supervisor)


# -- the life of a server


def test_run() -> None:
    """Where run() may be called, and with what.

    "TypeError: run() needs at least one function that returns a server"

    "TypeError: run() takes functions that return a server, got ..."

    "RuntimeError: run() must be called in the main thread, the only one that gets signals." "In
    other threads, use a standalone server"

    "Pass a function to run(), not a server, and call it in the main thread."
    """
    seen = Seen()
    seen.calls(run)
    seen.calls(run, new_server(backend="asyncio"))
    thread = threading.Thread(target=seen.calls, args=(run, new_server))
    thread.start()
    thread.join()
    seen.check(test_run)


def test_server_objects() -> None:
    """A server object serves once at a time, and not after it was closed.

    ServerAlreadyRunning: "Server is already running"

    ServerClosedError: "Closed server"

    ServerClosedError: "Server has been closed"

    "One server object serves in one place at a time, and not again after it was closed."

    "Make another server."

    BusyResourceError: "Cannot close server during serve_forever() setup."

    "service_init() is still running."

    "Call shutdown() first, which cancels it."
    """

    class Slow(Echo):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            notes.append("begun")
            try:
                await anyio.sleep_forever()
            finally:
                notes.append("cancelled")

    async def again() -> None:
        async with serving(Echo()) as server:
            with seen.raised():
                await server.serve_forever()
        with seen.raised():
            await server.serve_forever()

    async def closed_meanwhile() -> None:
        server = new_server("localhost")
        async with anyio.create_task_group() as tasks:

            async def activate() -> None:
                with seen.raised():
                    await server.server_activate()

            tasks.start_soon(activate)
            await anyio.lowlevel.checkpoint()
            await server.server_close()

    async def starting() -> None:
        async with AsyncTCPNetworkServer("127.0.0.1", 0, LINES, Slow()) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve_forever)
                while not notes:
                    await anyio.lowlevel.checkpoint()
                with seen.raised():
                    await server.server_close()
                assert notes == ["begun"]
                await server.shutdown()
                assert notes == ["begun", "cancelled"]

    seen = Seen()
    notes: list[str] = []
    anyio.run(again)
    anyio.run(closed_meanwhile)
    anyio.run(starting)
    seen.check(test_server_objects)


def test_standalone_server_in_its_own_thread() -> None:
    """A handler cannot wait for its own server.

    "RuntimeError: ...() would wait for the thread in which it was called: the one that runs
    serve_forever()." "Call it in another thread"

    "A handler called a method of a standalone server that waits for the server. It would wait for
    ever. Use a thread, for example with anyio.to_thread.run_sync()."
    """

    class Handler(Obedient):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            seen.calls(server.shutdown)
            await anyio.to_thread.run_sync(server.server_close)
            await client.send_packet("closed")

    seen = Seen()
    with StandaloneTCPNetworkServer("127.0.0.1", 0, LINES, Handler()) as server:
        thread = NetworkServerThread(server)
        thread.start()
        address = server.get_addresses()[0].for_connection()
        with TCPNetworkClient[str, str](address, LINES) as client:
            client.send_packet("hello")
            assert client.recv_packet(timeout=PATIENCE) == "closed"
        thread.join()
    seen.check(test_standalone_server_in_its_own_thread)


# -- classes that are not complete


class SilentHandler(BlockingStreamRequestHandler[str, str]):
    def __init__(self) -> None:
        pass

    def handle(self, client: Any) -> None:
        pass


class SilentSerializer(StringLineSerializer):
    def __init__(self) -> None:
        pass


def test_constructors() -> None:
    """What a constructor of a subclass has to call.

    "TypeError: ...__init__() did not call super().__init__()"

    "TypeError: ...__init__() did not call super().__init__(), which ... needs"

    "Your subclass has an __init__() of its own, which must call that of its base class."
    """
    seen = Seen()
    seen.calls(AsyncTCPNetworkServer, "127.0.0.1", 0, LINES, SilentHandler(), "asyncio")
    seen.calls(StreamProtocol, SilentSerializer())
    seen.check(test_constructors)


def test_socketserver() -> None:
    """The handler class of a server of `socketserver`.

    "TypeError: ... has no protocol object: set its attribute 'protocol', or pass one to the server"

    "TypeError: ssl needs a subclass of StreamPacketHandler, got ..."

    TypeError: "Pass the context to the server, which does not take an ssl.SSLSocket"

    "The handler class of a server of easynetwork.socketserver is not complete"
    """

    class Handler(StreamPacketHandler[str, str]):
        def handle(self) -> None:
            pass

    seen = Seen()
    address = ("127.0.0.1", 0)
    seen.calls(TCPServer, address, Handler)
    with TCPServer(address, Handler, protocol=LINES) as server, pair() as (one, other):
        tls = server_context().wrap_socket(one, server_side=True, do_handshake_on_connect=False)
        seen.calls(Handler, tls, other.getsockname(), server)
        tls.close()
    seen.calls(TCPServer, address, socketserver.StreamRequestHandler, ssl=server_context())
    seen.check(test_socketserver)


# -- sockets and addresses


def test_sockets() -> None:
    """A socket that is not of the kind that a class takes.

    ValueError: "Only these families are supported:" "AF_INET, AF_INET6"

    ValueError: "Only these families are supported:" "AF_UNIX"

    ValueError: "Only this type of socket is supported: ..."

    "ValueError: ... requires the socket to be named."

    ValueError: "The socket is connected, to ..."

    "The socket that you passed is not of the kind that this class takes. For example, a UDP client
    does not take a socket of TCP."
    """
    seen = Seen()
    with pair() as (one, _):
        seen.calls(UDPNetworkClient, one, DATAGRAMS)
    with pair() as (one, _):
        seen.calls(UnixStreamClient, one, LINES)
    for sock in socket.socketpair():
        seen.calls(TCPNetworkClient, sock, LINES)
    for sock in socket.socketpair(type=socket.SOCK_DGRAM):
        seen.calls(UnixDatagramClient, sock, DATAGRAMS)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))
        seen.calls(UDPNetworkEndpoint.from_socket, sock, DATAGRAMS)
    seen.check(test_sockets)


def test_addresses() -> None:
    """An address to which nothing can be sent.

    "ValueError: path cannot be an empty string: it names no server"

    "ValueError: paths must not contain interior null bytes"

    ValueError: "Nothing can be sent to port 0 (RFC 768)"

    ValueError: "A socket on ... cannot send to ..."

    ValueError: "The server does not listen on an address of the family of ..."

    ValueError: "Unsupported address family ..."

    TypeError: "Cannot convert ... to a UnixSocketAddress"

    "The address is not one to which this object can send or connect. An IPv4 socket cannot send to
    an IPv6 address, nor the other way round."
    """
    seen = Seen()
    seen.calls(UnixStreamClient, "", LINES)
    seen.calls(UnixStreamClient, "a\0b", LINES)
    seen.calls(UnixSocketAddress.from_raw, ("127.0.0.1", 0))
    seen.calls(new_socket_address, ("x", 1), socket.AF_UNIX)
    for host, other in ("127.0.0.1", "::1"), ("::1", "127.0.0.1"):
        with UDPNetworkEndpoint[str, str](DATAGRAMS, local_address=(host, 0)) as endpoint:
            seen.calls(endpoint.send_packet_to, "hello", (other, 9))
            seen.calls(endpoint.send_packet_to, "hello", (host, 0))

    async def main() -> None:
        async with AsyncUDPNetworkServer("127.0.0.1", 0, DATAGRAMS, DatagramEcho()) as server:
            with seen.raised():
                server.client_for(("::1", 9))

    anyio.run(main)
    seen.check(test_addresses)
