"""Where there are no Unix sockets, everything else works."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.in_turn

UNIX_MODULES = [
    f"easynetwork.{module}"
    for module in (
        "clients.async_unix_datagram",
        "clients.async_unix_stream",
        "clients.unix_datagram",
        "clients.unix_stream",
        "servers.async_unix_datagram",
        "servers.async_unix_stream",
        "servers.standalone_unix_datagram",
        "servers.standalone_unix_stream",
    )
]

# What is there before the platform is another one: the event loops, and other things of Python's,
# are those of this system, which has Unix sockets for them.
TOOLS = """
import asyncio, functools, importlib.util, pickle, selectors, socket, ssl, subprocess, sys
import anyio, anyio.abc, anyio.from_thread, anyio.lowlevel, anyio.to_thread
import anyio._backends._asyncio
if importlib.util.find_spec("trio"):
    import trio, anyio._backends._trio
before = sys.platform
socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
"""

PLATFORMS = {
    "without": """
del socket.AF_UNIX
""",
    "win32": """
for name in ("AF_UNIX", "CMSG_SPACE", "CMSG_LEN", "SCM_RIGHTS", "SCM_CREDENTIALS", "SO_PEERCRED",
             "MSG_CMSG_CLOEXEC", "MSG_ERRQUEUE", "SO_REUSEPORT", "send_fds", "recv_fds"):
    if hasattr(socket, name):
        delattr(socket, name)
sys.modules["fcntl"] = sys.modules["termios"] = None
sys.platform = "win32"
""",
}

IMPORTING = """
import importlib
for name in {modules}:
    for _ in range(2):
        try:
            importlib.import_module(name)
        except ImportError as exc:
            assert str(exc) == f"UNIX sockets are not supported on {{sys.platform}}.", exc
        else:
            raise AssertionError(name)
"""

EVERYTHING_ELSE = """
import importlib, pkgutil
import easynetwork
unix = {modules}
optional = ("trio", "uvloop", "cbor2", "msgpack")
found = 0
for module in pkgutil.walk_packages(easynetwork.__path__, "easynetwork."):
    name = module.name
    if name in unix or name.rpartition(".")[2].strip("_").startswith("unix") and (
        "addresses" not in name
    ):
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        assert exc.name in optional, (name, exc)
    found += 1
assert found > 80, found
from easynetwork.addresses import *
from easynetwork.clients import *
from easynetwork.servers import *
from easynetwork.sockets import *
address = UnixSocketAddress.from_pathname("/run/server")
assert UnixSocketAddress.from_raw(address.as_raw()) == address
from easynetwork.sockets.closing import get_unacknowledged_size
with socket.socket() as sock:
    assert get_unacknowledged_size(sock) == 0
"""

TALKING = """
import anyio
from functools import partial
from easynetwork.clients import (
    AsyncTCPNetworkClient, AsyncUDPNetworkClient, TCPNetworkClient, UDPNetworkClient,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import (
    AsyncTCPNetworkServer, AsyncUDPNetworkServer, StandaloneTCPNetworkServer,
    StandaloneUDPNetworkServer,
)
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.servers.threads_helper import NetworkServerThread

class Echo(AsyncStreamRequestHandler, AsyncDatagramRequestHandler):
    async def handle(self, client):
        request = yield
        await client.send_packet(request)

def ask(client):
    with client:
        client.send_packet("hello", timeout=10)
        assert client.recv_packet(timeout=10) == "hello"

stream, datagram = (kind(StringLineSerializer()) for kind in (StreamProtocol, DatagramProtocol))
kinds = [
    (AsyncTCPNetworkServer, AsyncTCPNetworkClient, TCPNetworkClient, stream),
    (AsyncUDPNetworkServer, AsyncUDPNetworkClient, UDPNetworkClient, datagram),
]

async def main():
    with anyio.fail_after(20):
        for server_class, async_client, client, protocol in kinds:
            async with server_class("127.0.0.1", 0, protocol, Echo()) as server:
                async with anyio.create_task_group() as tasks:
                    is_up = anyio.Event()
                    tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
                    await is_up.wait()
                    address = tuple(server.get_addresses()[0])
                    async with async_client(address, protocol) as asynchronous:
                        await asynchronous.send_packet("hello")
                        assert await asynchronous.recv_packet() == "hello"
                    await anyio.to_thread.run_sync(ask, client(address, protocol))
                    await server.shutdown()

anyio.run(main, backend="{backend}")
for server_class, client, protocol in [
    (StandaloneTCPNetworkServer, TCPNetworkClient, stream),
    (StandaloneUDPNetworkServer, UDPNetworkClient, datagram),
]:
    server = server_class("127.0.0.1", 0, protocol, Echo(), "{backend}")
    thread = NetworkServerThread(server)
    thread.start()
    ask(client(tuple(server.get_addresses()[0]), protocol))
    thread.join()
    server.server_close()
"""

each_platform = pytest.mark.parametrize("platform", PLATFORMS)


def run(platform: str, program: str) -> None:
    """Run a program on a platform without Unix sockets."""
    end = "\nsys.platform = before  # for the end of the process"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", TOOLS + PLATFORMS[platform] + program + end]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@each_platform
def test_unix_modules(platform: str) -> None:
    """To import a module for Unix sockets is an error that names the platform, each time."""
    run(platform, IMPORTING.format(modules=UNIX_MODULES))


@each_platform
def test_everything_else(platform: str) -> None:
    """All other modules can be imported, and the packages have all that they say."""
    run(platform, EVERYTHING_ELSE.format(modules=UNIX_MODULES))


@each_platform
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tcp_and_udp(platform: str, backend: str) -> None:
    """Servers and clients over TCP and UDP work."""
    run(platform, TALKING.replace("{backend}", backend))
