"""Test the statements and the example about supervisors on the page about TCP servers.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. The tests are the supervisor.
"""

from __future__ import annotations

import configparser
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    AsyncUDPNetworkServer,
    StandaloneTCPNetworkServer,
    StandaloneUDPNetworkServer,
)
from easynetwork.servers.handlers import (
    AsyncDatagramRequestHandler,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.sockets import notify_systemd
from tests.adopting import ask, new_bound_socket
from tests.docs.howto_support import DOCS, check_quotations
from tests.docs.unix_support import as_nobody, needs_root
from tests.supervisor import Service
from tests.times import PATIENCE

PAGE = "howto/tcp_servers.rst"
PROGRAM = DOCS / "_include/examples/howto/tcp_servers/supervised_server.py"
PROTOCOL: Any = StreamProtocol(StringLineSerializer())


class Echo(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Answers with the client's host."""

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        yield
        await client.send_packet(client.extra(INETClientAttribute.remote_address).host)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """Return a listening socket."""
    with new_bound_socket(socket.SOCK_STREAM) as sock:
        yield sock


def start(sock: socket.socket) -> Service:
    """Start the example."""
    return Service([sock], program=PROGRAM, LISTEN_FDNAMES="greeting", is_silent=False)


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def test_restart(sock: socket.socket) -> None:
    """The example serves, ends, and is replaced, while its supervisor keeps the socket.

    "A supervisor such as systemd can bind the port, and pass the listening socket to your program
    (socket activation)."

    "The supervisor keeps the socket while your program restarts. Clients that connect meanwhile
    wait in the backlog, and the next process serves them."

    "No connection is refused."

    "The supervisor can start your program when the first client connects."

    "inherited_sockets() returns the sockets by name, and AsyncTCPNetworkServer.from_sockets()
    serves on them"

    "notify_systemd() tells the supervisor that the server is ready, and later that it stops."
    """
    address = sock.getsockname()
    for _ in range(2):
        with socket.create_connection(address, PATIENCE) as early:
            early.sendall("Zoë\n".encode())
            with start(sock) as service:
                assert early.recv(100).decode() == "Hello, Zoë!\n"
                assert ask(socket.SOCK_STREAM, address, "you") == "Hello, you!"
                early.close()
                service.terminate()
                assert service.notification() == "STOPPING=1"


def test_stop(sock: socket.socket) -> None:
    """The example serves no new clients, ends though a client stays, and the next one goes on.

    "To stop the service, systemd sends SIGTERM. run() then lets the clients finish, for at most 20
    seconds"

    "New clients wait until the next process serves them."
    """
    address = sock.getsockname()
    with start(sock) as service, socket.create_connection(address, PATIENCE) as client:
        client.sendall("Zoë\n".encode())
        assert client.recv(100).decode() == "Hello, Zoë!\n"
        service.terminate()
        assert client.recv(100) == b""
        assert service.notification() == "STOPPING=1"
    with socket.create_connection(address, PATIENCE) as early, start(sock):
        early.sendall("Chloé\n".encode())
        assert early.recv(100).decode() == "Hello, Chloé!\n"
    assert "grace=20" in PROGRAM.read_text()


@needs_root
def test_privileged_port() -> None:
    """The socket is bound by root, and served by a user who may not be allowed to bind it.

    "A port below 1024 does not require your program to run with privileges."
    """

    async def main() -> None:
        server = AsyncTCPNetworkServer.from_sockets([sock], PROTOCOL, Echo())
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            answer = await anyio.to_thread.run_sync(ask, socket.SOCK_STREAM, address, "hello")
            assert answer == "127.0.0.1"
            await server.shutdown()

    sock = new_privileged_socket()
    address = sock.getsockname()
    assert address[1] < 1024
    with as_nobody():
        anyio.run(main)


def new_privileged_socket() -> socket.socket:
    """Return a listening socket at a port that only root may bind, by default."""
    for port in range(1023, 512, -1):
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
    raise LookupError("no port below 1024 is free")


def test_without_supervisor() -> None:
    """Without a supervisor the example says what is missing.

    "Without a supervisor that expects these messages, it does nothing."

    "inherited_sockets() returns nothing if the environment variable LISTEN_PID names another
    process"
    """
    assert not notify_systemd("READY=1")
    environment = os.environ | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Let a supervisor start this program, and pass it a socket named 'greeting'.\n"
    )


def test_units() -> None:
    """The unit files fit the program and each other.

    "Two unit files describe the socket and the service to systemd. FileDescriptorName is the name
    of the socket in the result of inherited_sockets()"

    "With TimeoutStopSec=30, systemd would kill the program after 30 seconds."
    """
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    units: dict[str, configparser.ConfigParser] = {}
    for name, unit in re.findall(
        r"code-block:: ini\n +:caption: \S*/(\S+)\n\n((?: {3}.*\n|\n)+)", text
    ):
        units[name] = configparser.ConfigParser()
        units[name].read_string(re.sub(r"^ {3}", "", unit, flags=re.MULTILINE))
    assert [*units] == ["greeting.socket", "greeting.service"]
    passed, service = units.values()
    assert f'inherited["{passed["Socket"]["FileDescriptorName"]}"]' in PROGRAM.read_text()
    assert service["Unit"]["Requires"] == "greeting.socket"
    assert service["Service"]["ExecStart"].endswith(PROGRAM.name)
    seconds = service["Service"]["TimeoutStopSec"]
    assert f"systemd would kill the program after {seconds} seconds" in text
    assert f"ListenStream={passed['Socket']['ListenStream']}``" in text


@pytest.mark.anyio
async def test_ownership(sock: socket.socket) -> None:
    """A server closes its own descriptors.

    "The sockets belong to the server"

    "server_close() closes them, even if the server has never been activated. Other processes keep
    their copies."

    "The sockets become non-blocking, for every process that shares them, and child processes do not
    inherit them."
    """
    own = sock.dup()
    own.set_inheritable(True)
    assert os.get_blocking(sock.fileno())
    server = AsyncTCPNetworkServer.from_sockets([own], PROTOCOL, Echo())
    assert not os.get_blocking(sock.fileno())
    assert not own.get_inheritable()
    await server.server_close()
    assert own.fileno() == -1
    with socket.create_connection(sock.getsockname(), PATIENCE):
        pass


def test_refusals(sock: socket.socket) -> None:
    """A socket or an option that makes no sense is an error.

    "A socket that the server cannot use raises ValueError, for example one that does not listen.
    The options backlog and reuse_port raise TypeError"
    """
    with socket.socket() as new, pytest.raises(ValueError, match="does not listen"):
        AsyncTCPNetworkServer.from_sockets([new], PROTOCOL, Echo(), "asyncio")
    options: dict[str, Any]
    for options in {"backlog": 5}, {"reuse_port": True}:
        with pytest.raises(TypeError, match="does not take"):
            AsyncTCPNetworkServer.from_sockets([sock], PROTOCOL, Echo(), "asyncio", **options)


@pytest.mark.anyio
async def test_both_families() -> None:
    """One socket of systemd takes clients of both families.

    "listens on one IPv6 socket that also accepts IPv4. The address of an IPv4 client then looks
    like ::ffff:192.0.2.1."
    """
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        port = sock.getsockname()[1]
        server = AsyncTCPNetworkServer.from_sockets([sock], PROTOCOL, Echo())
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            for host, seen in ("127.0.0.1", "::ffff:127.0.0.1"), ("::1", "::1"):
                answer = await anyio.to_thread.run_sync(
                    ask, socket.SOCK_STREAM, (host, port), "hello"
                )
                assert answer == seen
            await server.shutdown()


@pytest.mark.parametrize("server_class", [StandaloneTCPNetworkServer, StandaloneUDPNetworkServer])
def test_other_servers(server_class: Any) -> None:
    """The other servers have the method, too.

    "AsyncUDPNetworkServer, StandaloneTCPNetworkServer and StandaloneUDPNetworkServer have the same
    method. A standalone server that runs several times serves on the same sockets each time."
    """
    is_tcp = server_class is StandaloneTCPNetworkServer
    kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
    protocol = PROTOCOL if is_tcp else DatagramProtocol(StringLineSerializer())
    assert callable(AsyncUDPNetworkServer.from_sockets)
    sock = new_bound_socket(kind)
    address = sock.getsockname()
    with server_class.from_sockets([sock], protocol, Echo()) as server:
        for _ in range(2):
            thread = NetworkServerThread(server)
            thread.start()
            assert server.get_addresses() == (address,)
            assert ask(kind, address, "hello") == "127.0.0.1"
            thread.join(PATIENCE)
