"""Test the statements and the examples of the page about Unix servers.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests use the handlers and the
programs of the page.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import inspect
import logging
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import anyio.lowlevel
import pytest

from docs._include.examples.howto.unix_servers import (
    datagram_server,
    datagram_server_standalone,
    request_handler_explanation as examples,
    server_explanation,
    stream_server,
    stream_server_standalone,
    syslog_server,
)
from easynetwork._tuning import CLOSE_TIMEOUT
from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.exceptions import TypedAttributeLookupError
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    AsyncUDPNetworkServer,
    StandaloneTCPNetworkServer,
    StandaloneUDPNetworkServer,
)
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    RecvAncillaryDataParams,
    RecvParams,
    UNIXClientAttribute,
)
from easynetwork.servers.standalone_unix_datagram import StandaloneUnixDatagramServer
from easynetwork.servers.standalone_unix_stream import StandaloneUnixStreamServer
from tests.docs.howto_support import (
    DOCS,
    Peer,
    Watched,
    check_quotations,
    complaints,
    in_thread,
    until,
)
from tests.docs.unix_support import (
    DATAGRAM,
    NOBODY,
    STREAM,
    as_nobody,
    connected,
    datagram_socket,
    example,
    needs,
    needs_root,
    new_server,
    run,
    serving,
    short_folder,
)
from tests.times import PATIENCE, SOON
from tests.tls_peers import new_client_context, new_server_context

pytestmark = pytest.mark.anyio

PAGE = (DOCS / "howto/unix_servers.rst").read_text(encoding="utf-8")
FOLDER = DOCS / "_include/examples/howto/unix_servers"
SERVERS = (
    AsyncUnixStreamServer,
    AsyncUnixDatagramServer,
    StandaloneUnixStreamServer,
    StandaloneUnixDatagramServer,
)

once = pytest.mark.parametrize("anyio_backend", ["asyncio"])

Greeter = stream_server.GreetingRequestHandler
DatagramGreeter = datagram_server.GreetingRequestHandler


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/unix_servers.rst", globals())


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def path(folder: Path) -> str:
    return str(folder / "greeting.sock")


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def commands(start: str) -> list[list[str]]:
    """Return the commands of the page that begin with a word."""
    found = re.findall(rf"^ +\$ ({start} .*)$", PAGE, re.MULTILINE)
    assert found
    return [shlex.split(command) for command in found]


def write(file: str | Path, text: str) -> None:
    Path(file).write_text(text)


def text_of(file: str | Path) -> str:
    return Path(file).read_text()


def open_for_reading(file: Path) -> BinaryIO:
    return file.open("rb")


def open_for_appending(file: Path) -> BinaryIO:
    return file.open("ab")


def exists(path: str) -> bool:
    return os.path.exists(path)


def is_dropped(server: Any) -> bool:
    return bool(server.get_statistics().dropped_by_name)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def stale(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Leave a socket behind, as a killed process does."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(path)


# Introduction


def test_four_servers() -> None:
    """Each server has what its counterpart for IP has, but its address and its options.

    "There are two kinds of Unix sockets, and two servers. AsyncUnixStreamServer serves connections,
    like AsyncTCPNetworkServer. AsyncUnixDatagramServer receives datagrams, like
    AsyncUDPNetworkServer. For programs that are not asynchronous, there are
    StandaloneUnixStreamServer and StandaloneUnixDatagramServer."

    "So everything on the pages tcp_servers and udp_servers applies here, too."
    """
    counterparts = (
        AsyncTCPNetworkServer,
        AsyncUDPNetworkServer,
        StandaloneTCPNetworkServer,
        StandaloneUDPNetworkServer,
    )
    only_ip = {"host", "port", "reuse_port"}
    for server_class, counterpart in zip(SERVERS, counterparts, strict=True):
        methods = {name for name in dir(counterpart) if not name.startswith("_")}
        assert methods - {"client_for"} <= {*dir(server_class)}
        arguments = {*inspect.signature(counterpart).parameters}
        assert arguments - only_ip <= {*inspect.signature(server_class).parameters}


@once
async def test_two_kinds(path: str) -> None:
    """One kind of server has sockets for connections, the other for datagrams.

    "There are two kinds of Unix sockets, and two servers."
    """
    handlers: Any = {socket.SOCK_STREAM: Greeter(), socket.SOCK_DGRAM: DatagramGreeter()}
    for kind, handler in handlers.items():
        async with new_server(path, handler) as server:
            [sock] = server.get_sockets()
            assert (sock.family, sock.type) == (socket.AF_UNIX, kind)


# Server object


@pytest.mark.parametrize("name", ["stream_server", "stream_server_standalone"])
def test_stream_programs(folder: Path, name: str) -> None:
    """Both programs respond, log what the page shows, and remove their file at the end.

    "This program receives a name and sends back a greeting."

    "The server creates the file greeting.sock when it opens its socket, and removes the file when
    it closes the socket."

    "Most clients have no name. So on Linux, the log shows the process, the user and the group of
    each client."

    "A Unix socket connects programs on the same machine. Its address is usually a path: the socket
    appears as a file."

    "Press Control-C in both terminals. The log looks like this"
    """
    with example(FOLDER / f"{name}.py", folder, "greeting.sock") as program:
        assert program.stdout is not None
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(folder / "greeting.sock"))
            assert sock.getsockname() == ""
            assert (folder / "greeting.sock").is_socket()
            sock.sendall("Zoë\n".encode())
            assert sock.recv(100).decode() == "Hello, Zoë!\n"
        lines = [program.stdout.readline() for _ in range(3)]
        program.send_signal(signal.SIGINT)
        lines += program.communicate(timeout=PATIENCE)[0].splitlines(keepends=True)
        assert program.returncode == 0
    shown = re.findall(r"^ +(INFO:.*)$", PAGE, re.MULTILINE)
    credentials = f"pid {os.getpid()}, uid {os.geteuid()}, gid {os.getegid()}"
    expected = [line.replace("pid 4242, uid 1000, gid 1000", credentials) for line in shown]
    assert [line.strip() for line in lines] == expected
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["datagram_server", "datagram_server_standalone"])
def test_datagram_programs(folder: Path, name: str) -> None:
    """Both programs respond to a client with a name.

    "This is the same server for datagrams, an AsyncUnixDatagramServer or a
    StandaloneUnixDatagramServer"

    "A client needs a name of its own to receive responses."
    """
    with example(FOLDER / f"{name}.py", folder, "greeting.sock") as program:
        with datagram_socket(folder / "greeting.sock") as sock:
            sock.send("Zoë".encode())
            assert sock.recv(100).decode() == "Hello, Zoë!"
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=PATIENCE)
        assert program.returncode == 0
    assert os.listdir(folder) == []


def test_same_handlers() -> None:
    """The handlers of the four programs differ in nothing but their base classes.

    "Request handlers and protocol objects are the same as for TCP and UDP."

    "Only the class of the server, which has a module of its own, and its first argument, path,
    differ from TCP"
    """
    tcp = (DOCS / "_include/examples/howto/tcp_servers/standalone/server.py").read_text("utf-8")
    text = (FOLDER / "stream_server_standalone.py").read_text("utf-8")
    text = text.replace("standalone_unix_stream import", "import")
    assert text.splitlines()[9:] != tcp.splitlines()[9:]
    assert (
        text[text.index("class ") : text.index("def main")]
        == (tcp[tcp.index("class ") : tcp.index("def main")])
    )
    for module in stream_server_standalone, datagram_server_standalone:
        assert module.GreetingRequestHandler.__doc__ == Greeter.__doc__


def test_windows() -> None:
    """The modules cannot be imported there.

    "None of this is available on Windows: importing one of these modules there raises ImportError."
    """
    for name in "async_unix_stream", "async_unix_datagram":
        code = (
            "import sys, easynetwork.servers.async_udp, easynetwork.servers.async_tcp\n"
            f"sys.platform = 'win32'; import easynetwork.servers.{name}"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
        )
        assert "ImportError: UNIX sockets are not supported on win32." in done.stderr


@needs("nc")
def test_nc(folder: Path) -> None:
    """The commands with nc of the page get a greeting.

    "Talk to the server with nc or socat, in the same folder"

    "nc chooses one by itself; socat needs the bind option"
    """
    stream, datagram = commands("nc")
    for name, command in ("stream", stream), ("datagram", datagram):
        with example(FOLDER / f"{name}_server.py", folder, "greeting.sock"):
            assert greeting_of(command, folder) == "Hello, Zoë!"
        os.unlink(folder / "greeting.sock")


@needs("socat")
def test_socat(folder: Path) -> None:
    """The commands with socat of the page get a greeting.

    "Talk to the server with nc or socat, in the same folder"

    "nc chooses one by itself; socat needs the bind option"
    """
    stream, datagram = commands("socat")
    for name, command in ("stream", stream), ("datagram", datagram):
        with example(FOLDER / f"{name}_server.py", folder, "greeting.sock"):
            assert greeting_of(command, folder) == "Hello, Zoë!"
        os.unlink(folder / "greeting.sock")


def greeting_of(command: list[str], folder: Path) -> str:
    """Type a name to a program, wait for what it prints, and stop it."""
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write("Zoë\n".encode())
        program.stdin.flush()
        greeting = program.stdout.read(len("Hello, Zoë!".encode()))
        program.kill()
        return greeting.decode()


@needs("curl")
def test_curl(folder: Path) -> None:
    """The command of the page prints what the page shows.

    "Many programs show their status to curl over a Unix socket."

    "The requests are lines of text that end with CRLF, so a StringLineSerializer and a small
    handler are enough. The handler repeats its yield until it receives the empty line at the end of
    the headers"
    """
    [command] = commands("curl")
    with example(FOLDER / "status_server.py", folder, "status.sock"):
        assert run([*command, "-sS"], folder).strip() in PAGE


# Choosing an address


async def test_path(folder: Path) -> None:
    """A path can be an object, text or bytes.

    "The path is text, bytes, or an object such as pathlib.Path"

    "server.get_addresses() returns one UnixSocketAddress. Its text form, str(address), is the
    path."
    """
    path = folder / "greeting.sock"
    for server in (
        server_explanation.server_with_path(folder, Greeter()),
        new_server(str(path), Greeter()),
        new_server(os.fsencode(path), Greeter()),
    ):
        async with serving(server):
            [address] = server.get_addresses()
            assert isinstance(address, UnixSocketAddress)
            assert str(address) == str(path)
            with connected(path) as peer:
                assert await peer.ask("Zoë") == "Hello, Zoë!"


async def test_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is looked up once.

    "A relative path is looked up in the folder that is current when the server is activated."

    "The server removes its file when it closes its socket."

    "Use an absolute path for a service."
    """
    monkeypatch.chdir(folder)
    async with new_server("greeting.sock", Greeter()):
        monkeypatch.chdir("/")
        assert os.listdir(folder) == ["greeting.sock"]
    assert os.listdir(folder) == []


async def test_abstract_name(folder: Path) -> None:
    """An abstract name is not in the file system.

    "On Linux, text that begins with a null character is an abstract name. It is not in the file
    system, and it disappears together with the socket"

    "An abstract name is shown with an @, for example @greeting if name is greeting."

    "With an empty path, Linux chooses an abstract name, which server.get_addresses() returns."
    """
    name = f"greeting-{os.getpid()}"
    async with serving(server_explanation.server_with_abstract_name(name, Greeter())) as server:
        assert str(server.get_addresses()[0]) == f"@{name}"
        with connected(f"\0{name}") as peer:
            assert await peer.ask("Zoë") == "Hello, Zoë!"
    with pytest.raises(ConnectionRefusedError), connected(f"\0{name}"):
        pass
    async with serving(new_server("", Greeter())) as server:
        [address] = server.get_addresses()
        with connected(address.as_raw().decode()) as peer:
            assert await peer.ask("Zoë") == "Hello, Zoë!"


@needs("socat")
async def test_socat_abstract(folder: Path) -> None:
    """Socat connects to an abstract name.

    "With socat, connect to it with ABSTRACT-CONNECT:greeting."
    """
    name = f"greeting-{os.getpid()}"
    async with serving(server_explanation.server_with_abstract_name(name, Greeter())):
        command = ["socat", "-", f"ABSTRACT-CONNECT:{name}"]
        assert await in_thread(lambda: greeting_of(command, folder)) == "Hello, Zoë!"


@needs_root
async def test_permissions(folder: Path, path: str) -> None:
    """The mode decides which users can connect.

    "To connect, or to send a datagram, a client needs permission to write to the file, and to enter
    its folder. The mode argument sets the permissions of the file."

    "An abstract name has no permissions. Any program on the machine can connect to it"

    "The permissions of the file decide which users can connect."
    """

    def connects(address: str) -> bool:
        try:
            with as_nobody(), connected(address):
                return True
        except PermissionError:
            return False

    os.chmod(folder, 0o755)
    for mode, expected in (0o660, False), (0o662, True), (0o644, False):
        async with serving(new_server(path, Greeter(), mode=mode)):
            assert connects(path) is expected
            os.chmod(folder, 0o700)
            assert not connects(path)
            os.chmod(folder, 0o755)
    name = f"\0greeting-{os.getpid()}"
    async with serving(new_server(name, Greeter())):
        assert connects(name)


async def test_mode(path: str) -> None:
    """The file has the mode, whatever the umask says; without a mode, the umask decides.

    "This server can be used by its owner and its group"

    "Without mode, the umask of the process decides: with the common umask 022, only the owner can
    connect."
    """

    def mode() -> int:
        return stat.S_IMODE(os.stat(path).st_mode)

    before = os.umask(0o022)
    try:
        async with server_explanation.server_for_group(path, Greeter()):
            assert mode() == 0o660
        async with new_server(path, Greeter()):
            assert mode() == 0o755  # only the owner can write
    finally:
        os.umask(before)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems ignore the socket's own mode")
@once
async def test_mode_at_first(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file exists before its mode can be changed, and has fewer permissions then.

    "On Linux, the file never has more permissions than this, not even for a moment."
    """
    at_first: list[int] = []

    def watched_chmod(path: str, mode: int) -> None:
        at_first.append(stat.S_IMODE(os.stat(path).st_mode))
        chmod(path, mode)

    chmod = os.chmod
    monkeypatch.setattr(os, "chmod", watched_chmod)
    for umask, expected in (0, 0o660), (0o022, 0o640):
        before = os.umask(umask)
        try:
            async with server_explanation.server_for_group(path, Greeter()):
                assert at_first.pop() == expected
        finally:
            os.umask(before)


@needs_root
async def test_group(folder: Path, path: str) -> None:
    """The folder decides which group the file has.

    "The file belongs to the user and the group of the process. To give it another group, create a
    folder for it with this group and with the set-group-ID bit (chmod g+s)."
    """
    async with new_server(path, Greeter()):
        found = os.stat(path)
        assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
    os.chown(folder, -1, NOBODY)
    os.chmod(folder, 0o2770)
    async with server_explanation.server_for_group(path, Greeter()):
        assert os.stat(path).st_gid == NOBODY


async def test_stale(folder: Path, path: str) -> None:
    """A stale socket is replaced on request, and only then.

    "No server listens on the file, and still the next server cannot bind the path: async with
    raises an OSError that ends with Address already in use. With unlink_stale=True, the server
    replaces such a file"

    "The lock file stays when the server is closed."
    """
    stale(path)
    with pytest.raises(OSError, match="Address already in use$"):
        async with new_server(path, Greeter()):
            pass
    async with serving(server_explanation.server_after_crash(path, Greeter())):
        with connected(path) as peer:
            assert await peer.ask("Zoë") == "Hello, Zoë!"
        assert sorted(os.listdir(folder)) == ["greeting.sock", "greeting.sock.lock"]
    assert os.listdir(folder) == ["greeting.sock.lock"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_process(folder: Path, number: signal.Signals) -> None:
    """A killed process leaves its file.

    "But if the process is killed, the file stays. SIGTERM kills it, too, if your program does not
    handle this signal."
    """
    with example(FOLDER / "stream_server.py", folder, "greeting.sock") as program:
        program.send_signal(number)
        program.wait()
        assert (folder / "greeting.sock").is_socket()


async def test_starting_together(path: str) -> None:
    """One of several servers gets a stale path.

    "So if several servers start at the same time, one of them gets the path."

    "The server replaces only a socket on which no server listens. If another server listens, or if
    the file is not a socket, the server leaves it alone and raises the error."
    """
    stale(path)
    servers = [new_server(path, Greeter(), unlink_stale=True) for _ in range(5)]
    errors = []

    async def start(server: Any) -> None:
        try:
            await server.server_activate()
        except OSError as exc:
            errors.append(exc.errno)

    async with anyio.create_task_group() as task_group:
        for server in servers:
            task_group.start_soon(start, server)
    assert errors == [errno.EADDRINUSE] * 4
    for server in servers:
        await server.server_close()


@once
async def test_lock(path: str) -> None:
    """A server waits for the lock of its path.

    "While it looks at the path, the server holds a lock on a second file, which has the same name
    with .lock at the end."
    """
    stale(path)
    server = new_server(path, Greeter(), unlink_stale=True)
    with open_for_appending(Path(f"{path}.lock")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(server.server_activate)
            await anyio.sleep(SOON)
            addresses = server.get_addresses()
            fcntl.flock(file, fcntl.LOCK_UN)
    async with server:
        assert server.get_addresses()
    assert addresses == ()


@pytest.mark.parametrize("server_class", SERVERS)
def test_abstract_names_are_never_stale(server_class: Any) -> None:
    """The option is refused where it has no meaning.

    "Abstract names are never stale. With them, unlink_stale raises ValueError."
    """
    is_stream = "Stream" in server_class.__name__
    handler: Any = Greeter() if is_stream else DatagramGreeter()
    with pytest.raises(ValueError, match="unlink_stale is only meaningful with a path"):
        server_class(
            "\0x", STREAM if is_stream else DATAGRAM, handler, "asyncio", unlink_stale=True
        )


# Handling errors


def described(path: str, reason: str) -> str:
    """Return the text of an error, which must be on the page, with a path in place of its own."""
    texts = re.findall(r"^``(error while attempting to bind .*)``$", PAGE, re.MULTILINE)
    start = "error while attempting to bind on address"
    shown = re.escape(reason.replace(path, "greeting.sock"))
    assert [text for text in texts if re.fullmatch(rf"{start} \S+: {shown}", text)]
    return f"{start} {path}: {reason}"


@pytest.mark.parametrize("kind", ["stream", "datagram"])
async def test_errors(folder: Path, path: str, kind: str) -> None:
    """The errors have the texts and the classes that the page names.

    "The text contains the path and the reason. The class of the error, or its errno, tells you the
    reason, too"

    "FileNotFoundError: the folder does not exist. The server does not create it."

    "If the server cannot bind its address, async with raises an OSError."

    "error while attempting to bind on address /run/greeting/greeting.sock"

    "error while attempting to bind on address greeting.sock"

    "errno.EADDRINUSE: there is already a file. It can be the socket of a running server, a stale
    socket, or any other file."

    "Address already in use: a server uses it The same with unlink_stale=True: the socket is not
    stale."

    "Address already in use: it is not a socket The same with unlink_stale=True: there is an
    ordinary file, a folder or a symbolic link."

    "AF_UNIX path too long (at most 107 bytes) errno.ENAMETOOLONG: use a shorter path."
    """
    handler: Any = Greeter() if kind == "stream" else DatagramGreeter()

    async def error_of(path: str, **options: Any) -> OSError:
        with pytest.raises(OSError, match="error while attempting to bind") as caught:
            async with new_server(path, handler, **options):
                pass
        return caught.value

    missing = str(folder / "greeting" / "greeting.sock")
    error = await error_of(missing)
    assert isinstance(error, FileNotFoundError)
    assert error.strerror == described(missing, "No such file or directory")

    long = str(folder / ("x" * 108))
    error = await error_of(long)
    assert error.errno == errno.ENAMETOOLONG
    assert error.strerror == described(long, "AF_UNIX path too long (at most 107 bytes)")

    in_use = "Address already in use"
    for make in (
        lambda: os.mkdir(path),
        lambda: os.symlink(folder, path),
    ):
        make()
        error = await error_of(path, unlink_stale=True)
        reason = f"{in_use}: it is not a socket"
        assert (error.errno, error.strerror) == (errno.EADDRINUSE, described(path, reason))
        os.rename(path, f"{path}.{id(make)}")
    stale(path)
    error = await error_of(path)
    assert (error.errno, error.strerror) == (errno.EADDRINUSE, described(path, in_use))
    os.unlink(path)
    write(path, "precious")
    for options, reason in ({}, in_use), ({"unlink_stale": True}, f"{in_use}: it is not a socket"):
        error = await error_of(path, **options)
        assert (error.errno, error.strerror) == (errno.EADDRINUSE, described(path, reason))
    assert text_of(path) == "precious"
    os.unlink(path)

    async with new_server(path, handler):
        for options, reason in (
            ({}, in_use),
            ({"unlink_stale": True}, f"{in_use}: a server uses it"),
        ):
            error = await error_of(path, **options)
            assert (error.errno, error.strerror) == (errno.EADDRINUSE, described(path, reason))


async def test_longest_path(folder: Path) -> None:
    """A path of 107 bytes is not too long.

    "The folder must exist, and a path can have at most 107 bytes."
    """
    path = f"{folder}/".ljust(107, "x")
    async with new_server(path, Greeter()):
        assert exists(path)


@needs_root
@pytest.mark.parametrize("unlink_stale", [False, True])
async def test_no_permission(folder: Path, path: str, unlink_stale: bool) -> None:
    """A folder in which the user cannot create files is an error.

    "PermissionError: you cannot create files in this folder."

    "The server needs permission to create files in the folder."

    "The reason can also be that another user, for example root, has run the server before."

    "error while attempting to bind on address /run/greeting.sock"

    "Permission denied: greeting.sock.lock The same with unlink_stale=True."

    "If nobody uses that user's lock file any longer, delete it."
    """
    reason = f"Permission denied: {path}.lock" if unlink_stale else "Permission denied"
    for mode in (0o755, 0o777) if unlink_stale else (0o755,):
        os.chmod(folder, mode)
        server = new_server(path, Greeter(), unlink_stale=unlink_stale)
        with as_nobody(), pytest.raises(PermissionError) as caught:
            await server.server_activate()
        assert caught.value.strerror == described(path, reason)
        async with new_server(path, Greeter(), unlink_stale=unlink_stale):
            pass
    if unlink_stale:
        os.unlink(f"{path}.lock")
        with as_nobody():
            await server.server_activate()
            await server.server_close()


@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_standalone_error(folder: Path, kind: str) -> None:
    """A standalone server raises the same error.

    "With a standalone server, serve_forever() raises it."
    """
    (folder / "greeting.sock").write_text("")
    command = [sys.executable, str(FOLDER / f"{kind}_server_standalone.py")]
    error = run(command, folder).splitlines()[-1]
    text = described("greeting.sock", "Address already in use")
    assert error == f"OSError: [Errno 98] {text}"


@needs("ss")
async def test_ss(path: str) -> None:
    """The command of the page shows the process.

    "To show the process that listens, run ss -lxp | grep greeting.sock."
    """
    stale(path)
    async with new_server(path, Greeter(), unlink_stale=True):
        output = await in_thread(lambda: run(["ss", "-lxp"], Path("/")))
        [line] = [line for line in output.splitlines() if path in line]
        assert f"pid={os.getpid()}," in line


# Knowing the client


async def test_metadata(path: str) -> None:
    """A handler can read the names and the credentials.

    "local_name is the address of the server. peer_name is the name of the client: most clients of a
    stream server have none, and their name is shown as <unnamed>."

    "The attributes of UNIXClientAttribute describe the client"

    "A client chooses its name, so the name proves nothing."
    """
    async with serving(new_server(path, examples.ClientExtraAttributesRequestHandler())):
        with connected(path) as peer:
            assert await peer.ask("hello") == (
                f"This is {path}. You are <unnamed>, user {os.geteuid()}."
            )
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"{path}.me")
            sock.connect(path)
            sock.sendall(b"hello\n")
            answer = await in_thread(lambda: sock.recv(1000))
            assert f"You are {path}.me, user" in answer.decode()


async def test_credentials(path: str) -> None:
    """Credentials are those of the process that connected; datagrams have none.

    "peer_credentials has a pid, a uid and a gid: the process, the user and the group of the client
    when it connected."

    "For datagrams and on other systems, client.extra() raises TypedAttributeLookupError."

    "The operating system tells the server which process and which user are at the other end."

    "They are available for connections on Linux."
    """
    found: list[Any] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            found.append(client.extra(UNIXClientAttribute.peer_credentials))
            await client.send_packet((yield))

    class DatagramHandler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            with pytest.raises(TypedAttributeLookupError):
                client.extra(UNIXClientAttribute.peer_credentials)
            await client.send_packet((yield))

    async with serving(new_server(path, Handler())):
        with connected(path) as peer:
            assert await peer.ask("hello") == "hello"
    assert found[0] == (os.getpid(), os.geteuid(), os.getegid())
    assert found[0]._fields == ("pid", "uid", "gid")
    async with serving(new_server(path, DatagramHandler())):
        with datagram_socket(path) as sock:
            sock.send(b"hello")
            assert await in_thread(lambda: sock.recv(100)) == b"hello"


class Credentials(AsyncStreamRequestHandler[str, str]):
    """Sends the numbers of the client's process and user."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield
        credentials = client.extra(UNIXClientAttribute.peer_credentials)
        await client.send_packet(f"{credentials.pid} {credentials.uid}")


@needs_root
@once
async def test_credentials_of_another_user(folder: Path, path: str) -> None:
    """They are those of the user that has connected.

    "The operating system provides them, so a client cannot forge them."
    """
    os.chmod(folder, 0o755)
    async with serving(new_server(path, Credentials(), mode=0o666)):
        with as_nobody():
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
        with contextlib.closing(Peer(sock)) as peer:
            assert await peer.ask("who am I?") == f"{os.getpid()} {NOBODY}"


@once
async def test_process_of_credentials(path: str) -> None:
    """The process that has connected is not always the one that sends.

    "Use uid and gid for decisions, but not pid. A process can end, or pass its connection to
    another process"
    """
    code = (
        "import socket, sys\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.connect(sys.argv[1])\n"
        "parent = socket.socket(fileno=int(sys.argv[2]))\n"
        "socket.send_fds(parent, [b'x'], [connection.fileno()])\n"
    )
    async with serving(new_server(path, Credentials())):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-S", "-E", "-c", code, path, str(theirs.fileno())]
            with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:  # noqa: ASYNC220
                assert await in_thread(process.wait) == 0
            _, [fd], _, _ = socket.recv_fds(ours, 1, 1)
        sock = socket.socket(fileno=fd)
        sock.settimeout(PATIENCE)
        with contextlib.closing(Peer(sock)) as peer:
            assert await peer.ask("who am I?") == f"{process.pid} {os.geteuid()}"


class WatchedOwnUser(Watched, examples.OwnUserRequestHandler):
    pass


async def test_own_user(
    path: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of another user are disconnected before they are served.

    "This handler disconnects all other users, root included"

    "After aclose(), handle() is not called for this client."
    """
    handler = WatchedOwnUser()
    async with serving(new_server(path, handler)):
        with connected(path) as peer:
            assert await peer.ask("Zoë") == "Hello, Zoë!"
        await handler.gone.wait()
        handler.calls.clear()
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        with connected(path) as peer:
            assert await peer.receive() == "You are another user."
            assert await peer.ending() == "end of the stream"
        await until(lambda: "on_disconnection" in handler.calls)
    assert "handle" not in handler.calls
    assert not complaints(log)


async def test_no_credentials(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not tell, no client is served.

    "If the system does not provide credentials, extra() raises an error, and the connection is
    closed: no client is served by mistake."
    """
    monkeypatch.delattr(socket, "SO_PEERCRED")
    handler = WatchedOwnUser()
    async with serving(new_server(path, handler)):
        with connected(path) as peer:
            assert (await peer.ending()).startswith(("end of the stream", "connection reset"))
    assert "handle" not in handler.calls


# Encrypting connections with SSL/TLS


async def test_tls(path: str) -> None:
    """A client that names the host of the certificate is served.

    "So the client must name the host of the certificate with server_hostname"

    "A path is no host name."

    "pass a context as ssl, as for TCP"
    """
    server = server_explanation.server_with_tls(path, Greeter(), new_server_context())
    async with serving(server):
        context = new_client_context()
        async with AsyncUnixStreamClient(
            path, STREAM, ssl=context, server_hostname="localhost"
        ) as client:
            await client.send_packet("Zoë")
            assert await client.recv_packet() == "Hello, Zoë!"
        with pytest.raises(ValueError, match="You must set server_hostname"):
            AsyncUnixStreamClient(path, STREAM, ssl=context)


async def test_no_descriptors_over_tls(path: str, log: pytest.LogCaptureFixture) -> None:
    """A request for descriptors is an error there.

    "Open files cannot be passed over TLS."
    """
    handler = examples.LogRequestHandler(-1)
    async with serving(new_server(path, handler, ssl=new_server_context())):
        async with AsyncUnixStreamClient(
            path, STREAM, ssl=new_client_context(), server_hostname="localhost"
        ) as client:
            with pytest.raises(ConnectionAbortedError):
                await client.recv_packet()
    assert "UnsupportedOperation" in log.text


# Passing open files


@pytest.fixture
def log_file(folder: Path) -> Path:
    return folder / "service.log"


@contextlib.asynccontextmanager
async def logging_to(log_file: Path, path: str) -> AsyncIterator[int]:
    """Serve a handler that writes to a file; yield the descriptor."""
    fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        async with serving(new_server(path, examples.LogRequestHandler(fd))):
            yield fd
    finally:
        os.close(fd)


async def send_descriptors(sock: socket.socket, data: bytes, *fds: int) -> None:
    await in_thread(lambda: socket.send_fds(sock, [data], list(fds)))


async def test_rotate(path: str, log_file: Path) -> None:
    """The handler writes to the file that it has received, which no child inherits.

    "This handler writes the lines that it receives to a log file. A log rotator, which may run as
    another user, renames the old file, opens a new one, and passes its descriptor together with the
    request rotate"

    "Child processes do not inherit them."
    """
    async with logging_to(log_file, path) as descriptor:
        with connected(path) as peer:
            assert await peer.ask("one") == "written"
            before = open_descriptors()
            os.rename(log_file, f"{log_file}.old")
            with open_for_appending(log_file) as new_file:
                await send_descriptors(peer.socket, b"rotate\n", new_file.fileno())
            assert await peer.receive() == "rotated"
            assert open_descriptors() == before
            assert await peer.ask("two") == "written"
        assert not os.get_inheritable(descriptor)
    assert text_of(f"{log_file}.old") == "one\n"
    assert text_of(log_file) == "two\n"


async def test_packet_in_parts(path: str, log_file: Path) -> None:
    """The descriptors arrive with the first part.

    "If a packet arrives in several parts, EOFError is raised at the yield after the first part,
    because the server reads only once. The descriptors have already been received: they travel with
    the first byte. The next yield returns the packet."
    """
    async with logging_to(log_file, path):
        with connected(path) as peer:
            with open_for_appending(log_file) as new_file:
                await send_descriptors(peer.socket, b"rot", new_file.fileno())
            await anyio.sleep(SOON)
            await peer.send_bytes(b"ate\n")
            assert await peer.receive() == "rotated"


async def test_what_is_no_file(path: str, log_file: Path, log: pytest.LogCaptureFixture) -> None:
    """A pipe, several files and no file are refused, and their descriptors are closed.

    "Writing to a pipe that no process reads would block the whole server, so rotate() accepts only
    regular files."

    "The descriptors that you receive belong to you: close each of them with os.close(), also if
    something fails. The finally clause does this."

    "A client can pass any descriptor."
    """
    async with logging_to(log_file, path):
        with connected(path) as peer:
            assert await peer.ask("one") == "written"
            before = open_descriptors()
            reader, writer = os.pipe()
            with open_for_appending(log_file) as file:
                for fds in [writer], [file.fileno()] * 2, []:
                    await send_descriptors(peer.socket, b"rotate\n", *fds)
                    assert await peer.receive() == "expected a regular file"
            os.close(reader)
            os.close(writer)
            assert open_descriptors() == before
    assert not complaints(log)


async def test_not_requested(path: str) -> None:
    """Descriptors that a handler does not request are closed.

    "A bare yield closes the descriptors that arrive with its packet. So a client cannot fill your
    process with descriptors that your handler does not request."

    "A packet can have up to 253 descriptors on Linux."
    """
    async with serving(new_server(path, Greeter())):
        with connected(path) as peer:
            assert await peer.ask("Zoë") == "Hello, Zoë!"
            before = open_descriptors()
            for _ in range(10):
                await send_descriptors(peer.socket, "Zoë\n".encode(), *[0] * 253)
                assert await peer.receive() == "Hello, Zoë!"
            assert open_descriptors() == before
            with pytest.raises(OSError, match="Invalid argument"):
                await send_descriptors(peer.socket, b"x", *[0] * 254)


async def test_too_many(path: str, log_file: Path, log: pytest.LogCaptureFixture) -> None:
    """Ancillary data that does not fit is an error, and the packet is not lost.

    "If the ancillary data does not fit into ancillary_bufsize, or your process cannot have more
    open files, OSError with the errno EMSGSIZE is raised at the yield. The packet itself is not
    lost: the next yield returns it."
    """
    errors: list[int | None] = []

    class Handler(examples.LogRequestHandler):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[Any, str]:
            async with contextlib.aclosing(super().handle(client)) as generator:
                try:
                    request = yield await anext(generator)
                except OSError as exc:
                    errors.append(exc.errno)
                    request = yield None
                await client.send_packet(request)

    server = new_server(path, Handler(-1), ancillary_bufsize=socket.CMSG_SPACE(8))
    async with serving(server):
        with connected(path) as peer:
            await send_descriptors(peer.socket, b"rotate\n", *[0] * 20)
            assert await peer.receive() == "rotate"
    assert errors == [errno.EMSGSIZE]


async def test_packets_together(path: str) -> None:
    """The first of several packets gets the descriptors of all.

    "Several packets can arrive together. Then their descriptors are delivered with the first of
    these packets."

    "To receive ancillary data, yield RecvParams."

    "Here, SocketAncillary.update_from_raw() collects the descriptors."

    "A client that passes descriptors should wait for the response before it sends its next packet,
    and before that for all earlier responses."
    """
    counts: list[tuple[str, int]] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[Any, str]:
            ancillary = SocketAncillary()
            params = RecvAncillaryDataParams(ancillary.update_from_raw)
            request = yield RecvParams(recv_with_ancillary=params)
            fds = [*ancillary.iter_fds()]
            counts.append((request, len(fds)))
            for fd in fds:
                os.close(fd)
            await client.send_packet(request)

        async def on_connection(self, client: AsyncStreamClient[str]) -> None:
            await in_thread(lambda: sent.wait(PATIENCE))

    sent = threading.Event()
    async with serving(new_server(path, Handler())):
        with connected(path) as peer:
            peer.socket.sendall(b"one\n")
            socket.send_fds(peer.socket, [b"two\n"], [0])
            sent.set()
            assert [await peer.receive() for _ in range(2)] == ["one", "two"]
    assert counts == [("one", 1), ("two", 0)]


@once
async def test_order_of_receiving(path: str) -> None:
    """The ancillary data is there first; and no packet is an error, if there is a timeout.

    "The server calls data_received before the yield returns."

    "RecvParams also has a timeout."
    """
    calls: list[str] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[Any, str]:
            ancillary = SocketAncillary()

            def received(raw: Any) -> None:
                calls.append("data_received")
                ancillary.update_from_raw(raw)

            yield RecvParams(recv_with_ancillary=RecvAncillaryDataParams(received))
            calls.append("yield")
            for fd in ancillary.iter_fds():
                os.close(fd)
            with pytest.raises(TimeoutError):
                yield RecvParams(timeout=0.01)
            await client.send_packet("too late")

    async with serving(new_server(path, Handler())):
        with connected(path) as peer:
            await send_descriptors(peer.socket, b"hello\n", 0)
            assert await peer.receive() == "too late"
    assert calls == ["data_received", "yield"]


@once
async def test_any_descriptor(path: str) -> None:
    """Sockets and pipes can be passed like files.

    "Over a Unix socket, a program can pass file descriptors: open files, sockets, pipes."

    "With datagrams, this method works in the same way."
    """

    class Handler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            ancillary = SocketAncillary()
            ancillary.add_fds(fds)
            await client.send_packet_with_ancillary(request, ancillary.as_raw())
            with pytest.raises(OSError, match="too long to be sent"):
                await client.send_packet_with_ancillary("x" * 1_000_000, ancillary.as_raw())

    fds = os.pipe()
    received: list[int] = []
    try:
        async with serving(new_server(path, Handler())):
            with datagram_socket(path) as sock:
                sock.send(b"please")
                data, received, _, _ = await in_thread(lambda: socket.recv_fds(sock, 100, 2))
                assert data == b"please"
                os.write(received[1], b"through the pipe")
                assert os.read(fds[0], 100) == b"through the pipe"
    finally:
        for fd in [*fds, *received]:
            os.close(fd)


async def test_sending(path: str, log_file: Path) -> None:
    """A client gets a descriptor, and the packet.

    "sends a packet with descriptors"

    "Programs can pass open files to each other."

    "client.send_packet_with_ancillary() sends a packet with descriptors"

    "Over a Unix socket, a program can pass file descriptors: open files, sockets, pipes. The
    receiver gets a descriptor of its own for the same open file, even if it could not open this
    file itself. Descriptors travel beside a packet, as ancillary data."
    """
    write(log_file, "content")
    with open_for_reading(log_file) as file:
        async with serving(new_server(path, examples.FileRequestHandler(file))):
            with connected(path) as peer:
                await peer.send("please")
                data, [fd], _, _ = await in_thread(lambda: socket.recv_fds(peer.socket, 100, 1))
                assert data == b"Here it is.\n"
                assert fd != file.fileno()
                os.lseek(fd, 3, os.SEEK_SET)
                assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 3
                os.unlink(log_file)
                assert os.pread(fd, 100, 0) == b"content"
                os.close(fd)


async def test_sending_too_much(path: str) -> None:
    """A packet that is too long is refused, and the client can be used.

    "When it returns, the operating system has its own references to the open files, so you can
    close your descriptors. The packet must fit into the send buffer of the socket: a longer one
    raises OSError with the errno EMSGSIZE. Nothing is sent then, and you can still use the client."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            with pytest.raises(OSError, match="too long to be sent") as caught:
                await client.send_packet_with_ancillary("x" * 1_000_000, [])
            await client.send_packet(str(caught.value.errno))

    async with serving(new_server(path, Handler())):
        with connected(path) as peer:
            assert await peer.ask("please") == str(errno.EMSGSIZE)


async def test_datagram_descriptors(path: str, log_file: Path) -> None:
    """A handler of datagrams gets them if the server was told to receive them.

    "A datagram server receives ancillary data only if you pass receive_ancillary_data=True"

    "A datagram arrives whole, so EOFError is never raised, and descriptors are always delivered
    with their own datagram."
    """
    write(log_file, "content")
    server = new_server(path, examples.FileSizeRequestHandler(), receive_ancillary_data=True)
    async with serving(server):
        with datagram_socket(path) as sock, open_for_reading(log_file) as file:
            before = open_descriptors()
            for count in 1, 2, 0:
                socket.send_fds(sock, [b"how long?"], [file.fileno()] * count)
            for count in 1, 2, 0:
                answer = await in_thread(lambda: sock.recv(100))
                assert answer.decode() == f"Sizes: {[7] * count}"
            assert open_descriptors() == before


async def test_datagrams_without_the_option(path: str, log: pytest.LogCaptureFixture) -> None:
    """Without the option, the request of the handler is an error.

    "A datagram server receives ancillary data only if you pass receive_ancillary_data=True"
    """
    async with serving(new_server(path, examples.FileSizeRequestHandler())):
        with datagram_socket(path) as sock:
            sock.send(b"how long?")
            await until(lambda: "UnsupportedOperation" in log.text)


async def test_waiting_descriptors(path: str) -> None:
    """Of the descriptors that wait, those beyond a limit are closed.

    "At most 256 descriptors wait with the datagrams of a server. Descriptors beyond that are
    closed, and OSError is raised at the yield that requests them."
    """
    go_on = anyio.Event()

    class Handler(examples.FileSizeRequestHandler):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[Any, str]:
            await go_on.wait()
            async with contextlib.aclosing(super().handle(client)) as generator:
                try:
                    request = yield await anext(generator)
                    await generator.asend(request)
                except OSError as exc:
                    await client.send_packet(f"error {exc.errno}")
                    yield
                except StopAsyncIteration:
                    pass

    server = new_server(path, Handler(), receive_ancillary_data=True)
    async with serving(server):
        with datagram_socket(path) as sock:
            for _ in range(2):
                socket.send_fds(sock, [b"x"], [0] * 200)
            await until(lambda: server.get_statistics().received == 2)
            go_on.set()
            first = await in_thread(lambda: sock.recv(10_000))
            assert first.startswith(b"Sizes: [")
            second = await in_thread(lambda: sock.recv(10_000))
            assert second.decode() == f"error {errno.EMSGSIZE}"


# Serving datagrams


async def test_senders_wait(path: str) -> None:
    """While the server does not read, a sender has to wait.

    "Unlike UDP, a Unix socket does not lose, duplicate or reorder datagrams. When the server is
    busy, the operating system makes the senders wait."
    """
    async with new_server(path, DatagramGreeter()):
        with datagram_socket(path) as sock:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                for _ in range(100_000):
                    sock.send(b"x")


async def test_limits(path: str) -> None:
    """The limits of a UDP server apply.

    "The limits of a UDP server still apply: if more than 64 datagrams of one client wait for your
    handler, the server drops the others and counts them"
    """
    go_on = anyio.Event()

    class Handler(DatagramGreeter):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[Any, str]:
            await go_on.wait()
            yield

    server = new_server(path, Handler())
    async with serving(server):
        with datagram_socket(path) as sock:
            await in_thread(lambda: [sock.send(b"x") for _ in range(100)])
            await until(lambda: server.get_statistics().received == 100)
            assert server.get_statistics().dropped_by_count == 100 - 1 - 64
        go_on.set()


async def test_size(path: str) -> None:
    """A datagram can be longer than one of UDP.

    "A datagram can be longer than with UDP: its size is limited by the sender's send buffer"
    """
    async with serving(new_server(path, DatagramGreeter())):
        with datagram_socket(path) as sock:
            limit = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            size = min(150_000, limit - 1000)
            assert size > 65_507
            await in_thread(lambda: sock.send(b"x" * size))
            assert len(await in_thread(lambda: sock.recv(1 << 20))) == size + len("Hello, !")
            with pytest.raises(OSError, match="too long"):
                sock.send(b"x" * (limit + 1))


async def test_unnamed(path: str, log: pytest.LogCaptureFixture) -> None:
    """What happens to datagrams of a client without a name depends on an argument.

    "By default, the server drops datagrams from such clients, and counts them in the
    dropped_by_name field of its statistics."

    "The argument unnamed_addresses_behavior changes this: with "warn", the server also logs a
    warning; with "handle", it handles the datagrams."
    """
    for behavior in None, "warn":
        server = new_server(path, DatagramGreeter(), unnamed_addresses_behavior=behavior)
        async with serving(server):
            with datagram_socket(path, None) as sock:
                sock.send(b"x")
            await until(functools.partial(is_dropped, server))
        assert len(complaints(log)) == (behavior is not None)
    server = new_server(path, DatagramGreeter(), unnamed_addresses_behavior="handle")
    async with serving(server):
        with datagram_socket(path, None) as sock:
            sock.send(b"x")
        await until(lambda: "unnamed" in complaints(log)[-1].getMessage())


async def test_unnamed_handled(path: str) -> None:
    """A response to a client without a name is an error.

    "Sending a response raises OSError with the errno EINVAL and the text Cannot send a datagram to
    an unnamed address."

    "A client that has not bound its socket has no name, and the server cannot respond to it."
    """
    errors: list[OSError] = []

    class Handler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            try:
                await client.send_packet(request)
            except OSError as exc:
                errors.append(exc)

    server = new_server(path, Handler(), unnamed_addresses_behavior="handle")
    async with serving(server):
        with datagram_socket(path, None) as sock:
            sock.send(b"x")
        await until(lambda: bool(errors))
    assert errors[0].errno == errno.EINVAL
    assert errors[0].strerror == "Cannot send a datagram to an unnamed address."


@needs("logger")
def test_logger(folder: Path) -> None:
    """The program prints what the command of the page sends.

    "Start the program, and send it a message with logger, in the same folder"

    "The program prints the severity, one of SEVERITIES, and the message"

    "This program receives such datagrams on a socket of its own"
    """
    [command] = commands("logger")
    [shown] = re.findall(r"^ +(warning: '.*')$", PAGE, re.MULTILINE)
    with example(FOLDER / "syslog_server.py", folder, "log.sock") as program:
        assert program.stdout is not None
        assert run(command, folder) == ""
        line = program.stdout.readline().strip()
    date = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    assert re.sub(date, "DATE", line) == re.sub(date, "DATE", shown)


async def test_syslog_messages(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The program understands what the C library sends, and ignores everything else.

    "For example, programs that write to the system's log send datagrams to /dev/log, and expect no
    response."

    "Each datagram of a client without a name is handled on its own, as if it came from another
    client."
    """
    server = new_server(
        path, syslog_server.SyslogRequestHandler(), unnamed_addresses_behavior="handle"
    )
    async with serving(server):
        with datagram_socket(path, None) as sock:
            for message in b"<13>Jan 31 12:00:00 me: hello\0", b"junk", b"<191>x\n", b"<9999>x":
                sock.send(message)
        await until(lambda: server.get_statistics().received == 4)
        await until(lambda: server.get_statistics().peers == 0)
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "debug: 'x'",
        "notice: 'Jan 31 12:00:00 me: hello'",
    ]


async def test_slow_client(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read delays responses to others.

    "While the buffer is full, send_packet() waits, for whichever client, for at most 30 seconds.
    After that, it raises TimeoutError."

    "So one client that does not read can delay the responses to all others."

    "When a client does not read its responses, the operating system keeps them. They count against
    the send buffer of the server's socket, which all clients share."
    """
    assert CLOSE_TIMEOUT == 30
    monkeypatch.setattr("easynetwork.servers._datagram.client.CLOSE_TIMEOUT", 4 * SOON)
    errors: list[str] = []

    class Handler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            try:
                for _ in range(100_000 if request == "many" else 1):
                    await client.send_packet("x" * 1000)
            except TimeoutError:
                errors.append(request)

    async with serving(new_server(path, Handler())):
        with datagram_socket(path) as slow, datagram_socket(path) as other:
            slow.send(b"many")
            await until(lambda: errors == ["many"])
            other.send(b"one")
            await until(lambda: errors == ["many", "one"])


@once
async def test_slow_client_of_stream_server(path: str) -> None:
    """There, a client that does not read only delays its own responses.

    "If clients can send many requests without reading, use a stream server: there, each connection
    has its own buffer."
    """
    is_full = anyio.Event()

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            if request == "many":
                with anyio.move_on_after(SOON):
                    while True:
                        await client.send_packet("x" * 10_000)
                is_full.set()
                await anyio.sleep_forever()
            await client.send_packet(request)

    async with serving(new_server(path, Handler())):
        with connected(path) as slow, connected(path) as other:
            await slow.send("many")
            await is_full.wait()
            assert await other.ask("one") == "one"


@once
async def test_client_that_has_left_let_out(path: str, log: pytest.LogCaptureFixture) -> None:
    """The error of a client that has left is no problem.

    "You need not catch it: if it leaves handle(), nothing is logged."
    """
    ended, closed = anyio.Event(), anyio.Event()

    class Handler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            try:
                request = yield
                await closed.wait()
                await client.send_packet(request)
            finally:
                ended.set()

    async with serving(new_server(path, Handler())) as server:
        log.clear()
        with datagram_socket(path) as sock:
            sock.send(b"x")
            await until(lambda: server.get_statistics().received == 1)
        closed.set()
        await ended.wait()
        await until(lambda: server.get_statistics().peers == 0)
        assert log.messages == []


async def test_client_that_has_left(path: str) -> None:
    """A response to a closed socket is an error.

    "If the client has closed its socket, send_packet() raises ConnectionRefusedError."
    """
    errors: list[Exception] = []
    closed = anyio.Event()

    class Handler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            await closed.wait()
            try:
                await client.send_packet(request)
            except ConnectionRefusedError as exc:
                errors.append(exc)

    async with serving(new_server(path, Handler())):
        with datagram_socket(path) as sock:
            sock.send(b"x")
            await anyio.lowlevel.checkpoint()
        closed.set()
        await until(lambda: bool(errors))


# Serving on sockets from a supervisor


async def test_from_sockets(path: str) -> None:
    """Servers serve on bound sockets, and do not remove the paths of these.

    "All four servers have from_sockets()"

    "The server does not remove the path of such a socket."
    """
    assert all(hasattr(server_class, "from_sockets") for server_class in SERVERS)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    server = AsyncUnixStreamServer.from_sockets([sock], STREAM, Greeter())
    async with serving(server):
        with connected(path) as peer:
            assert await peer.ask("Zoë") == "Hello, Zoë!"
    assert exists(path)
