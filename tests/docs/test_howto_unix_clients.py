"""Test the statements and the examples of the page about Unix clients.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests call the functions of the
page, against the servers of the page about Unix servers where these have what is needed.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.unix_clients import (
    asynchronous,
    blocking,
    simple_client_asyncio,
    simple_client_blocking,
    simple_client_trio,
)
from docs._include.examples.howto.unix_servers import datagram_server, stream_server, syslog_server
from docs._include.examples.howto.unix_servers.request_handler_explanation import (
    FileRequestHandler,
    LogRequestHandler,
)
from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.clients.async_unix_datagram import AsyncUnixDatagramClient
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.exceptions import StreamProtocolParseError, UnsupportedOperation
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.servers.handlers import UNIXClientAttribute
from tests.docs.client_support import call, close, is_blocking, open_client, program, variants
from tests.docs.howto_support import check_quotations, in_thread, until
from tests.docs.unix_support import (
    DATAGRAM,
    NOBODY,
    STREAM,
    as_nobody,
    needs,
    needs_root,
    new_server,
    serving,
    short_folder,
)
from tests.times import PATIENCE, SOON
from tests.tls_peers import new_client_context, new_server_context

pytestmark = pytest.mark.anyio

each_variant = variants(blocking, asynchronous)

both_kinds = pytest.mark.parametrize(
    ("anyio_backend", "examples"),
    [(("asyncio", {}), blocking), (("asyncio", {}), asynchronous)],
    ids=["blocking", "asyncio"],
)

Greeter = stream_server.GreetingRequestHandler
DatagramGreeter = datagram_server.GreetingRequestHandler


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/unix_clients.rst", globals())


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def path(folder: Path) -> str:
    return str(folder / "greeting.sock")


@contextlib.contextmanager
def peer_at(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    """Bind a plain socket; one for streams listens."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(path)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield sock


@contextlib.asynccontextmanager
async def stream_pair(examples: Any, path: str) -> AsyncIterator[tuple[Any, socket.socket]]:
    """Connect a client to a plain socket."""
    with peer_at(path) as listener:
        async with open_client(examples.Client, path, STREAM) as client:
            with listener.accept()[0] as sock:
                sock.settimeout(PATIENCE)
                yield client, sock


async def receive(client: Any, **options: Any) -> Any:
    """Call a client's ``recv_packet()``, in the way of its kind."""
    with anyio.fail_after(PATIENCE):
        return await call(client.recv_packet, **options)


def open_for_appending(file: Path) -> Any:
    return file.open("ab")


def write(file: Path, text: str) -> None:
    file.write_text(text)


def text_of(file: Path) -> str:
    return file.read_text()


def exists(path: str) -> bool:
    return os.path.exists(path)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Introduction


@each_variant
async def test_program(examples: Any, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The complete program prints the greeting.

    "It sends a name to the server of unix_servers, and prints the greeting"

    "The program prints Hello, Zoë!."
    """
    variant = program(
        simple_client_blocking, simple_client_asyncio, simple_client_trio, examples=examples
    )
    async with serving(new_server(path, Greeter())):
        await call(variant.main, path)
        assert capsys.readouterr().out == "Hello, Zoë!\n"


def test_windows() -> None:
    """The modules cannot be imported there.

    "None of this is available on Windows."
    """
    for name in "async_unix_stream", "async_unix_datagram", "unix_stream", "unix_datagram":
        code = (
            "import sys, easynetwork.clients.async_udp, easynetwork.clients.udp\n"
            f"sys.platform = 'win32'; import easynetwork.clients.{name}"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
        )
        assert "ImportError: UNIX sockets are not supported on win32." in done.stderr


def test_aliases() -> None:
    """The functions of the page have two types of clients.

    "All functions of a module share two protocol objects, and there are aliases for clients that
    send and receive text"
    """
    for module, stream_class, datagram_class in (
        (blocking, UnixStreamClient, UnixDatagramClient),
        (asynchronous, AsyncUnixStreamClient, AsyncUnixDatagramClient),
    ):
        assert module.Client == stream_class[str, str]
        assert module.DatagramClient == datagram_class[str, str]
        assert isinstance(module.protocol, StreamProtocol)
        assert isinstance(module.datagram_protocol, DatagramProtocol)


# Connecting


@each_variant
async def test_make_client(examples: Any, path: str) -> None:
    """The client connects to a path.

    "A client needs the path of the server and a protocol object"

    "get_peer_name() returns the address of the server, and get_local_name() returns the name of the
    client."

    "Both are UnixSocketAddress objects."

    "The client of a stream server has no name."

    "A Unix socket connects programs on the same machine. Its address is usually a path."
    """
    async with serving(new_server(path, Greeter())):
        client = await call(examples.make_client, path)
        assert client.get_peer_name() == UnixSocketAddress.from_pathname(path)
        assert client.get_local_name().is_unnamed()
        await call(client.send_packet, "Zoë")
        assert await receive(client) == "Hello, Zoë!"
        await close(client)


@each_variant
async def test_kinds_of_paths(examples: Any, folder: Path, path: str) -> None:
    """A path can be text, bytes or an object.

    "The path is text, bytes, or an object such as pathlib.Path, with at most 107 bytes."
    """
    async with serving(new_server(path, Greeter())):
        for target in path, os.fsencode(path), folder / "greeting.sock":
            async with open_client(examples.Client, target, STREAM) as client:
                assert str(client.get_peer_name()) == path
    with pytest.raises(OSError, match=r"AF_UNIX path too long \(at most 107 bytes\)") as caught:
        async with open_client(examples.Client, "x" * 108, STREAM):
            pass
    assert caught.value.errno == errno.ENAMETOOLONG


@each_variant
async def test_backlog(examples: Any, path: str) -> None:
    """The client waits while the backlog is full.

    "A connection is made at once, unless the server has so many new connections to accept that its
    backlog is full. Then the client tries again until there is room."

    "TimeoutError The backlog of the server was full until the timeout."

    "To limit this time, put wait_connected(), or the whole async with, into a timeout."
    """
    with peer_at(path) as listener, contextlib.ExitStack() as stack:
        listener.listen(0)
        others = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(path)
                others += 1
        assert await call(examples.status, path, SOON) == "the server is too busy"

        def accept() -> None:
            for _ in range(others + 1):
                listener.accept()[0].close()

        thread = threading.Timer(SOON, accept)
        thread.start()
        client = await call(examples.make_client, path)
        await in_thread(thread.join)
        await close(client)


@each_variant
async def test_abstract_name(examples: Any) -> None:
    """A client can connect to an abstract name.

    "On Linux, text that begins with a null character is an abstract name."

    "This is how to connect to @greeting, if name is greeting"
    """
    name = f"greeting-{os.getpid()}"
    async with serving(new_server(f"\0{name}", Greeter())):
        assert await call(examples.greet_by_name, name) == "Hello, Zoë!"


@each_variant
async def test_take_over(examples: Any, path: str) -> None:
    """A client accepts a connected socket, and closes it.

    "Instead of a path, you can pass a connected socket (sock), for example one of the two that
    socket.socketpair() returns."

    "The client takes over the socket and closes it"
    """
    async with serving(new_server(path, Greeter())):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        assert await call(examples.greet_over, sock) == "Hello, Zoë!"
        assert sock.fileno() == -1
    one, other = socket.socketpair()
    with other:
        other.sendall("Hello, Zoë!\n".encode())
        assert await call(examples.greet_over, one) == "Hello, Zoë!"
    assert one.fileno() == -1


# Handling connection errors


@each_variant
async def test_status(examples: Any, path: str) -> None:
    """The class of the error tells why the client cannot connect.

    "There is no such path: Connect call failed greeting.sock: No such file or directory."

    "No server listens:"

    "Connect call failed greeting.sock:"

    "Connection refused."

    "The path was left behind by a server that has been killed, or it is not a socket. For an
    abstract name, this is the only error: nothing has this name."

    "For example, the path is too long (errno.ENAMETOOLONG), or it belongs to a datagram server
    (errno.EPROTOTYPE)."

    "The server has not been started, or has removed its path at its end."
    """

    async def check(target: str, status: str, reason: str) -> OSError:
        assert await call(examples.status, target) == status
        with pytest.raises(OSError, match="Connect call failed") as caught:
            await call(examples.make_client, target)
        where = target.replace("\0", "@")
        assert caught.value.strerror == f"Connect call failed {where}: {reason}"
        return caught.value

    await check(path, "there is no such path", "No such file or directory")
    async with serving(new_server(path, Greeter())):
        assert await call(examples.status, path) == "up"
    await check(path, "there is no such path", "No such file or directory")
    with peer_at(path):
        pass
    await check(path, "no server listens", "Connection refused")
    os.unlink(path)
    write(Path(path), "not a socket")
    await check(path, "no server listens", "Connection refused")
    os.unlink(path)
    await check(f"\0greeting-{os.getpid()}", "no server listens", "Connection refused")
    reason = "Protocol wrong type for socket"
    with peer_at(path, socket.SOCK_DGRAM):
        text = f"out of reach: [Errno {errno.EPROTOTYPE}] Connect call failed {path}: {reason}"
        error = await check(path, text, reason)
        assert error.errno == errno.EPROTOTYPE


@needs_root
@each_variant
async def test_no_permission(examples: Any, folder: Path, path: str) -> None:
    """A client needs permission to write to the path, and to enter its folder.

    "You may not write to the path, or enter its folder: Connect call failed greeting.sock:"

    "Permission denied."
    """
    async with serving(new_server(path, Greeter(), mode=0o600)):
        for folder_mode in 0o755, 0o700:
            os.chmod(folder, folder_mode)
            with as_nobody():
                assert await call(examples.status, path) == "you may not connect"
        os.chmod(folder, 0o755)
        with as_nobody(), pytest.raises(PermissionError) as caught:
            await call(examples.make_client, path)
        assert caught.value.strerror == f"Connect call failed {path}: Permission denied"


# Knowing the server


@each_variant
async def test_credentials(examples: Any, path: str) -> None:
    """A client learns which user the server belongs to.

    "On Linux, get_peer_credentials() returns the process, the user and the group that the server
    had when it began to listen."

    "Clients for datagrams have no get_peer_credentials()."

    "With it, a client can make sure that the path, or an abstract name, belongs to the server of
    the right user"
    """
    async with serving(new_server(path, Greeter())):
        async with open_client(examples.Client, path, STREAM) as client:
            expected = (os.getpid(), os.geteuid(), os.getegid())
            assert client.get_peer_credentials() == expected
        assert await call(examples.greet_as_user, path, os.geteuid()) == "Hello, Zoë!"
        with pytest.raises(PermissionError, match="belongs to a server of another user"):
            await call(examples.greet_as_user, path, NOBODY + 1)
    assert not hasattr(AsyncUnixDatagramClient, "get_peer_credentials")
    assert not hasattr(UnixDatagramClient, "get_peer_credentials")


# Encrypting the connection


@each_variant
async def test_tls(examples: Any, path: str) -> None:
    """TLS needs the name of a host, and carries no descriptors.

    "A path is no host name, so server_hostname is required. It is the name in the server's
    certificate"

    "Without it, ValueError is raised."

    "Open files cannot be passed over TLS."
    """
    context = new_client_context()
    async with serving(new_server(path, Greeter(), ssl=new_server_context())):
        assert await call(examples.greet_in_private, path, context) == "Hello, Zoë!"
        with pytest.raises(ValueError, match="You must set server_hostname"):
            await call(examples.Client, path, STREAM, ssl=context)
        async with open_client(
            examples.Client, path, STREAM, ssl=context, server_hostname="localhost"
        ) as client:
            with pytest.raises(UnsupportedOperation):
                await call(client.send_packet, "Zoë", ancillary_data=SocketAncillary())
            with pytest.raises(UnsupportedOperation):
                await receive(client, ancillary_data=SocketAncillary())


@both_kinds
async def test_no_tls(examples: Any, path: str) -> None:
    """A client without TLS gets no response from a server with TLS.

    "If the server uses TLS, the client must use it, too."
    """
    async with serving(new_server(path, Greeter(), ssl=new_server_context())):
        async with open_client(examples.Client, path, STREAM) as client:
            await call(client.send_packet, "Zoë")
            with pytest.raises((ConnectionError, StreamProtocolParseError)):
                await receive(client)


# Exchanging datagrams


@each_variant
async def test_datagrams(examples: Any, path: str) -> None:
    """A client gets a response without an argument, on Linux.

    "On Linux, the client gets an abstract name that the system chooses, so there is nothing to do."

    "Clients for datagrams are connected, like those for UDP: they send to one path, and receive
    from this path only."
    """
    async with serving(new_server(path, DatagramGreeter())):
        async with open_client(examples.DatagramClient, path, DATAGRAM) as client:
            name = client.get_local_name()
            assert name.as_abstract_name()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
                with pytest.raises(PermissionError):
                    stranger.sendto(b"psst", name.as_raw())
            await call(client.send_packet, "Zoë")
            assert await receive(client) == "Hello, Zoë!"


@each_variant
async def test_local_path(examples: Any, path: str) -> None:
    """A client creates its path, and removes it.

    "A server can only respond to a client that has a name."

    "The client creates this path, and removes it when it is closed. If there is already a file,
    OSError with the errno EADDRINUSE is raised. Clients do not replace stale paths"

    "On other systems, or if the server wants to know the client by its path, pass local_path"

    "Clients do not replace stale paths: choose a path that no other process uses, for example with
    the process ID in it, in a folder of your own."
    """
    clients: list[str] = []

    class Handler(DatagramGreeter):
        def handle(self, client: Any) -> Any:
            clients.append(str(client.extra(UNIXClientAttribute.peer_name)))
            return super().handle(client)

    own = f"{path}.{os.getpid()}"
    async with serving(new_server(path, Handler())):
        client = await call(examples.make_datagram_client, path, own)
        assert str(client.get_local_name()) == own
        await call(client.send_packet, "Zoë")
        assert await receive(client) == "Hello, Zoë!"
        assert clients == [own]
        assert exists(own)
        await close(client)
        assert not exists(own)
        with peer_at(own):
            pass
        with pytest.raises(OSError, match="Address already in use") as caught:
            await call(examples.make_datagram_client, path, own)
        assert caught.value.errno == errno.EADDRINUSE
        assert exists(own)


@each_variant
async def test_local_path_of_a_stream(examples: Any, path: str) -> None:
    """A client for streams can have a name, too.

    "It seldom needs one, but the argument local_path can give it one"
    """
    async with serving(new_server(path, Greeter())):
        own = f"{path}.me"
        async with open_client(examples.Client, path, STREAM, local_path=own) as client:
            assert str(client.get_local_name()) == own
        assert not exists(own)


@each_variant
async def test_sending_waits(examples: Any, path: str) -> None:
    """Sending waits while the server does not read, and nothing is lost.

    "No datagram is lost."

    "While the server does not read, send_packet() waits."
    """
    received: list[bytes] = []
    count = 500
    with peer_at(path, socket.SOCK_DGRAM) as server:
        async with open_client(examples.DatagramClient, path, DATAGRAM) as client:
            sent: list[int] = []

            async def send() -> None:
                for number in range(count):
                    await call(client.send_packet, str(number))
                    sent.append(number)

            async with anyio.create_task_group() as task_group:
                task_group.start_soon(send)
                await until(lambda: bool(sent))
                await anyio.sleep(SOON)
                assert len(sent) < count
                for _ in range(count):
                    received.append(await in_thread(lambda: server.recv(100)))
    assert received == [str(number).encode() for number in range(count)]


@each_variant
async def test_datagram_errors(examples: Any, path: str) -> None:
    """There must be a server when the client connects, and when it sends.

    "The path must exist when the client connects, and a server must use it."

    "If the server is closed later, send_packet() raises ConnectionRefusedError once, and then
    OSError with the errno ENOTCONN. A server that is started again has a new socket: create a new
    client."

    "The errors are those described above."
    """
    with pytest.raises(FileNotFoundError):
        async with open_client(examples.DatagramClient, path, DATAGRAM):
            pass
    with peer_at(path, socket.SOCK_DGRAM) as server:
        async with open_client(examples.DatagramClient, path, DATAGRAM) as client:
            server.close()
            os.unlink(path)
            with peer_at(path, socket.SOCK_DGRAM):
                with pytest.raises(ConnectionRefusedError):
                    await call(client.send_packet, "hello")
                for _ in range(2):
                    with pytest.raises(OSError, match="not connected") as caught:
                        await call(client.send_packet, "hello")
                    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(ConnectionRefusedError):
        async with open_client(examples.DatagramClient, path, DATAGRAM):
            pass


@each_variant
async def test_log_warning(examples: Any, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message is what a server of this format expects.

    "A message begins with its priority: <12> is a warning of a user's program."

    "On most Linux systems, the system log receives datagrams at /dev/log."
    """
    assert inspect.signature(examples.log_warning).parameters["path"].default == "/dev/log"
    async with serving(new_server(path, syslog_server.SyslogRequestHandler())) as server:
        await call(examples.log_warning, "The disk is full.", path)
        await until(lambda: server.get_statistics().received == 1)
        await until(lambda: server.get_statistics().peers == 0)
    assert capsys.readouterr().out == "warning: 'example: The disk is full.'\n"


@each_variant
async def test_log_that_is_not_read(examples: Any, path: str) -> None:
    """The function waits for a log that is busy, but not for one that hangs.

    "No response is expected, so send_packet() is enough. If the log does not read for a second, and
    its queue is full, the function raises TimeoutError."
    """
    with peer_at(path, socket.SOCK_DGRAM) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            other.connect(path)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.send(b"<12>other: hello")
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await call(examples.log_warning, "hello", path)
        assert time.monotonic() - start > 0.9
        assert server.recv(1000) == b"<12>other: hello"
        await call(examples.log_warning, "hello", path)


@needs("logger")
@each_variant
async def test_like_logger(examples: Any, path: str) -> None:
    """The program sends a message of the same form.

    "So this function does what the program logger does"
    """
    with peer_at(path, socket.SOCK_DGRAM) as server:
        await call(examples.log_warning, "hello", path)
        own = server.recv(1000)
        command = ["logger", "--socket", path, "-t", "example", "-p", "user.warning", "hello"]
        await in_thread(lambda: subprocess.run(command, check=True, timeout=PATIENCE))
        other = server.recv(1000).rstrip(b"\0\n")
    assert own[:4] == other[:4] == b"<12>"
    assert own.endswith(b"example: hello")
    assert other.endswith(b"example: hello")


# Passing open files


@each_variant
async def test_rotate(examples: Any, folder: Path, path: str) -> None:
    """The server writes to the file that the client passes.

    "With a SocketAncillary, it passes an open file to the server, which then writes to this file"

    "This function is the log rotator for the handler in unix_servers."
    """
    log_file = folder / "service.log"
    fd = os.open(log_file, os.O_WRONLY | os.O_CREAT)
    async with serving(new_server(path, LogRequestHandler(fd))):
        with open_for_appending(folder / "new.log") as new_file:
            assert await call(examples.rotate, path, new_file) == "rotated"
        async with open_client(examples.Client, path, STREAM) as client:
            await call(client.send_packet, "one")
            assert await receive(client) == "written"
    os.close(fd)
    assert text_of(log_file) == ""
    assert text_of(folder / "new.log") == "one\n"


@each_variant
async def test_closed_after_sending(examples: Any, path: str) -> None:
    """The client can close its file when the call has returned, with streams and datagrams.

    "When send_packet() returns, the operating system has its own reference to the open file, so you
    can close the file."

    "A client for streams or for datagrams can pass file descriptors beside a packet"
    """
    for kind, client_class, protocol in (
        (socket.SOCK_STREAM, examples.Client, STREAM),
        (socket.SOCK_DGRAM, examples.DatagramClient, DATAGRAM),
    ):
        with peer_at(path, kind) as server:
            async with open_client(client_class, path, protocol) as client:
                reader, writer = os.pipe()
                ancillary = SocketAncillary()
                ancillary.add_fds([writer])
                await call(client.send_packet, "hello", ancillary_data=ancillary)
                os.close(writer)
                with server.accept()[0] if kind == socket.SOCK_STREAM else server.dup() as sock:
                    data, [fd], _, _ = socket.recv_fds(sock, 100, 1)
                assert data.rstrip() == b"hello"
                os.write(fd, b"it works")
                os.close(fd)
                assert os.read(reader, 100) == b"it works"
                os.close(reader)
        os.unlink(path)


@each_variant
async def test_cannot_be_sent(examples: Any, path: str) -> None:
    """A closed descriptor and a packet that is too long are errors; the client goes on.

    "If a descriptor is not open, OSError with the errno EBADF is raised. If the packet is too long
    to be sent at once, the errno is EMSGSIZE. In both cases nothing is sent, and you can still use
    the client."
    """
    async with stream_pair(examples, path) as (client, sock):
        closed = SocketAncillary()
        closed.add_fds([987])
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            await call(client.send_packet, "hello", ancillary_data=closed)
        assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match="too long to be sent") as caught:
            await call(client.send_packet, "x" * 1_000_000, ancillary_data=SocketAncillary())
        assert caught.value.errno == errno.EMSGSIZE
        await call(client.send_packet, "still here")
        assert sock.recv(1000) == b"still here\n"


@each_variant
async def test_read_received_file(examples: Any, folder: Path, path: str) -> None:
    """The client reads the file that the server passes, and leaves no descriptor open.

    "Pass a SocketAncillary to recv_packet(). What arrives with the packet is added to it"

    "The descriptors belong to you: close each of them with os.close(), also if recv_packet() raises
    an error."
    """
    write(folder / "file", "content")
    fd = os.open(folder / "file", os.O_RDONLY)
    with os.fdopen(fd, "rb") as file:
        async with serving(new_server(path, FileRequestHandler(file))):
            assert await call(examples.read_received_file, path) == b"content"
            # The server has opened its descriptor in reserve by now (/dev/null).
            before = open_descriptors()
            assert await call(examples.read_received_file, path) == b"content"
            await until(lambda: open_descriptors() <= before)


@each_variant
async def test_not_requested(examples: Any, path: str) -> None:
    """Descriptors that are not requested are closed.

    "recv_packet() without ancillary_data closes the descriptors that arrive."

    "So does iter_received_packets()."
    """
    async with stream_pair(examples, path) as (client, sock):
        before = open_descriptors()
        socket.send_fds(sock, [b"one\n"], [0] * 10)
        assert await receive(client) == "one"
        socket.send_fds(sock, [b"two\n"], [0] * 10)
        if is_blocking(client):
            packets = await in_thread(lambda: list(client.iter_received_packets(timeout=SOON)))
        else:
            packets = [packet async for packet in client.iter_received_packets(timeout=SOON)]
        assert packets == ["two"]
        assert open_descriptors() == before


@each_variant
async def test_packet_in_parts(examples: Any, path: str) -> None:
    """A part of a packet is an error; its descriptors have been received.

    "A stream client reads the socket once. If the packet has not arrived completely, EOFError is
    raised, and the next recv_packet() returns the packet. The descriptors have already been
    received."
    """
    async with stream_pair(examples, path) as (client, sock):
        socket.send_fds(sock, [b"hel"], [0])
        ancillary = SocketAncillary()
        with pytest.raises(EOFError):
            await receive(client, ancillary_data=ancillary)
        [fd] = ancillary.iter_fds()
        os.close(fd)
        sock.sendall(b"lo\n")
        assert await receive(client) == "hello"


@each_variant
async def test_packet_that_is_here(examples: Any, path: str) -> None:
    """A packet that has been received has no ancillary data any more.

    "If a packet has already been received, it is returned without ancillary data."

    "If several packets arrive together, the server can get the descriptors of the second one
    together with the first one."

    "Send one such packet at a time, and wait for the response."
    """
    async with stream_pair(examples, path) as (client, sock):
        sock.sendall(b"one\n")
        socket.send_fds(sock, [b"two\n"], [0])
        ancillary = SocketAncillary()
        assert await receive(client, ancillary_data=ancillary) == "one"
        [fd] = ancillary.iter_fds()
        os.close(fd)
        ancillary.clear()
        assert await receive(client, ancillary_data=ancillary) == "two"
        assert [*ancillary.iter_fds()] == []


@each_variant
async def test_too_many(examples: Any, path: str) -> None:
    """Ancillary data that does not fit is an error; only a datagram is lost with it.

    "If the ancillary data is longer than ancillary_bufsize, or your process cannot have more open
    files, OSError with the errno EMSGSIZE is raised, and the descriptors are closed. With
    datagrams, the packet is lost."
    """
    options = {"ancillary_bufsize": socket.CMSG_SPACE(8)}
    async with stream_pair(examples, path) as (client, sock):
        before = open_descriptors()
        socket.send_fds(sock, [b"hello\n"], [0] * 20)
        ancillary = SocketAncillary()
        with pytest.raises(OSError, match="ancillary data was cut off") as caught:
            await receive(client, ancillary_data=ancillary, **options)
        assert caught.value.errno == errno.EMSGSIZE
        assert [*ancillary.iter_fds()] == []
        assert await receive(client) == "hello"
        assert open_descriptors() == before
    os.unlink(path)
    with peer_at(path, socket.SOCK_DGRAM) as server:
        async with open_client(examples.DatagramClient, path, DATAGRAM) as client:
            server.connect(client.get_local_name().as_raw())
            socket.send_fds(server, [b"lost"], [0] * 20)
            server.send(b"next")
            with pytest.raises(OSError, match="ancillary data was cut off"):
                await receive(client, ancillary_data=ancillary, **options)
            assert await receive(client) == "next"


def test_four_clients() -> None:
    """Each kind of client exists twice.

    "There are four clients"

    "UnixStreamClient is blocking, and AsyncUnixStreamClient is asynchronous. Both have a
    connection, like the clients of tcp_clients."

    "UnixDatagramClient is blocking, and AsyncUnixDatagramClient is asynchronous. Both exchange
    datagrams, like the clients of udp_clients."
    """
    streams = UnixStreamClient, AsyncUnixStreamClient
    datagrams = UnixDatagramClient, AsyncUnixDatagramClient
    for blocking_class, async_class in streams, datagrams:
        assert is_blocking(blocking_class)
        assert not inspect.iscoroutinefunction(blocking_class.recv_packet)
        assert not is_blocking(async_class)
        assert inspect.iscoroutinefunction(async_class.recv_packet)
    for kind, accepted, refused in (
        (socket.SOCK_STREAM, streams, datagrams),
        (socket.SOCK_DGRAM, datagrams, streams),
    ):
        for client_class in accepted:
            check_kind(kind, client_class, is_accepted=True)
        for client_class in refused:
            check_kind(kind, client_class, is_accepted=False)


def check_kind(kind: socket.SocketKind, client_class: Any, *, is_accepted: bool) -> None:
    """Check whether a class of clients takes sockets of a kind."""
    protocol = STREAM if "Stream" in client_class.__name__ else DATAGRAM
    backend = [] if is_blocking(client_class) else ["asyncio"]
    one, other = socket.socketpair(type=kind)
    with one, other:
        one.bind("")
        if is_accepted:
            client = client_class(one, protocol, *backend)
            if is_blocking(client):
                client.close()
        else:
            with pytest.raises(ValueError, match="SOCK_"):
                client_class(one, protocol, *backend)


def test_datagram_socket_without_name() -> None:
    """A client for datagrams does not take one of a pair.

    "A datagram socket must have a name, or ValueError is raised."
    """
    cases: Any = {UnixDatagramClient: [], AsyncUnixDatagramClient: ["asyncio"]}
    for client_class, backend in cases.items():
        one, other = socket.socketpair(type=socket.SOCK_DGRAM)
        with one, other, pytest.raises(ValueError, match="requires the socket to be named"):
            client_class(one, DATAGRAM, *backend)
