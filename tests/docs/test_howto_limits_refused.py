"""Test what the page about limits says of clients that are refused, with clients of the library.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. Each client is refused several times, because a reset may arrive sooner or later.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.clients import TCPNetworkClient
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason
from tests.docs.howto_support import Echo, check_quotations, in_thread, table, until
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

pytestmark = pytest.mark.anyio

PAGE = "howto/limits.rst"
LINES: Any = StreamProtocol(StringLineSerializer())
ATTEMPTS = 5
FULL, REFUSED = CloseReason.FULL, CloseReason.REFUSED

each_reason = pytest.mark.parametrize("reason", [FULL, REFUSED])
unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


class Refusing(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        return
        yield


@contextlib.asynccontextmanager
async def refusing(reason: CloseReason, path: Path | None = None, **options: Any) -> Any:
    """Run a server that refuses clients for a reason; yield it and its address."""
    handler: Any = Refusing()
    if reason is FULL:
        handler, options["limits"] = Echo(), Limits(max_clients=1)
    server: Any
    if path is None:
        server = AsyncTCPNetworkServer("127.0.0.1", 0, LINES, handler, **options)
    else:
        from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer

        server = AsyncUnixStreamServer(path, LINES, handler, **options)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as task_group:
            is_up = anyio.Event()
            task_group.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            address = server.get_addresses()[0][:2] if path is None else path
            async with occupied(server, address, path) if reason is FULL else nothing():
                yield server, address
            await server.shutdown()


@contextlib.asynccontextmanager
async def occupied(server: Any, address: Any, path: Path | None) -> AsyncIterator[None]:
    """Occupy the only place of a server."""
    family = socket.AF_INET if path is None else socket.AF_UNIX
    with socket.socket(family) as sock:
        sock.connect(address if path is None else str(path))
        await until(lambda: server.get_statistics().clients == 1)
        yield


@contextlib.asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


def attempt(new_client: Any, *, send: bool) -> tuple[str, type[BaseException]]:
    """Return which call of a client fails, and with what."""
    call = "connect"
    with pytest.raises(ConnectionError) as caught, new_client() as client:
        call = "first call"
        if send:
            client.send_packet("hello")
        client.recv_packet(timeout=PATIENCE)
    assert not any(reason.value in str(caught.value) for reason in (FULL, REFUSED))
    return call, caught.type


async def attempts(new_client: Any, send: tuple[bool, ...] = (False, True)) -> Any:
    """Return which calls fail, and with what."""
    return {
        await in_thread(lambda s=s: attempt(new_client, send=s))  # type: ignore[misc]
        for s in send * ATTEMPTS
    }


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


@each_reason
async def test_tcp(reason: CloseReason) -> None:
    """A client is reset while it connects, or later.

    "TCP. The reset may arrive at once: then connecting raises ConnectionResetError. Otherwise, the
    first call that sends or receives raises ConnectionAbortedError. It is never an
    EndOfStreamError."

    "All of them are subclasses of ConnectionError, and none of them tells why the client was
    refused. To try again later, catch ConnectionError around the connecting and the first request."
    """
    async with refusing(reason) as (server, address):
        found = await attempts(lambda: TCPNetworkClient(address, LINES))
        assert server.get_statistics().closed[reason] == 2 * ATTEMPTS
    reset = {("connect", ConnectionResetError), ("first call", ConnectionAbortedError)}
    assert found <= reset
    assert in_table("TCP", reason) == "reset"


@each_reason
async def test_tls(reason: CloseReason) -> None:
    """A client is reset before the handshake, or after it.

    "Which of its calls fails depends on the transport"

    "TLS. A server that is full does not begin the handshake, so connecting always fails. A client
    that handle() refuses has connected, and its first call fails."
    """
    async with refusing(reason, ssl=server_context()) as (_, address):
        options: dict[str, Any] = {"ssl": client_context(), "server_hostname": "localhost"}
        found = await attempts(lambda: TCPNetworkClient(address, LINES, **options))
    if reason is FULL:
        assert found <= {
            ("connect", ConnectionResetError),
            ("connect", ConnectionAbortedError),
        }
        assert in_table("TCP with TLS", reason) == "reset before the handshake"
    else:
        assert found == {("first call", ConnectionAbortedError)}
        assert in_table("TCP with TLS", reason) == "reset after the handshake"


@unix
@each_reason
@pytest.mark.skipif(sys.platform != "linux", reason="what is unread resets only there")
async def test_unix(reason: CloseReason, tmp_path: Path) -> None:
    """A client gets the end of the stream, if it has not sent what is then unread.

    "Unix sockets have no reset. Receiving raises EndOfStreamError. A client that has sent something
    gets a ConnectionAbortedError, because the server has not read it."
    """
    from easynetwork.clients.unix_stream import UnixStreamClient

    async with refusing(reason, tmp_path / "s") as (_, path):
        silent = await attempts(lambda: UnixStreamClient(path, LINES), (False,))
        talking = await attempts(lambda: UnixStreamClient(path, LINES), (True,))
    assert silent == {("first call", EndOfStreamError)}
    assert talking == {("first call", ConnectionAbortedError)}
    assert in_table("Unix stream", reason) == "end of the stream"


async def test_accepted_before() -> None:
    """The operating system accepts a client whose server does not even run.

    "The operating system accepts a connection before the server sees it, so a client that is
    refused has often connected already."
    """
    async with AsyncTCPNetworkServer("127.0.0.1", 0, LINES, Echo()) as server:
        with socket.create_connection(server.get_addresses()[0][:2], timeout=PATIENCE):
            assert server.get_statistics().clients == 0


def in_table(transport: str, reason: CloseReason) -> str:
    """Return what the table says of a transport."""
    [cells] = [
        row[1:] for row in table(PAGE, "Transport", "The server is full") if row[0] == transport
    ]
    return cells[0] if reason is FULL else cells[1]
