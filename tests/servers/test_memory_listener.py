"""The joint between listeners and sessions: a server whose connections are no sockets."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.abc
import pytest

from easynetwork.addresses import SocketAddress
from easynetwork.backends import ensure_backend
from easynetwork.backends.abc import SessionTasks
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.service import StreamService
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from tests.memory import MemoryListener, MemoryTransport

pytestmark = pytest.mark.anyio

LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer())


class MemoryServer(BaseAsyncNetworkServer[MemoryListener, SocketAddress, Any, Any]):
    """Arguments, a listener and the service: all that a stream server is."""

    def __init__(self, handler: AsyncStreamRequestHandler[str, str]) -> None:
        super().__init__(ensure_backend(None), handler, logging.getLogger("tests.memory"))
        self.listener = MemoryListener()
        self._service = StreamService(
            StreamOptions(
                backend=self.backend(),
                handler=handler,
                new_decoder=new_decoder_factory(LINES, 1000),
                encode=packet_encoder(LINES),
                log=self._log,
                connection_log_level=logging.INFO,
                tls=None,
                ancillary_bufsize=None,
            )
        )

    async def _open_listeners(self) -> list[MemoryListener]:
        return [self.listener]

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        self._service.start(self._listeners, receivers, sessions)


class Echo(AsyncStreamRequestHandler[str, str]):
    def __init__(self) -> None:
        self.left: list[str] = []

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request = yield
        if request == "crash":
            raise ValueError(request)
        await client.send_packet(request)

    async def on_disconnection(self, client: AsyncStreamClient[str]) -> None:
        self.left.append(repr(client))


async def answer(transport: MemoryTransport, request: bytes) -> bytes:
    """Write a request, and return what arrives in the next turns of the loop."""
    received = bytearray()

    def feed(data: bytes) -> bool:
        received.extend(data)
        return True

    transport.feed = feed
    transport.write(request)
    await anyio.wait_all_tasks_blocked()
    return bytes(received)


async def test_echo(caplog: pytest.LogCaptureFixture) -> None:
    """Sessions, hooks, log and shutdown work without any socket."""
    caplog.set_level(logging.INFO)
    handler = Echo()
    server = MemoryServer(handler)
    up: Any = anyio.Event()
    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: server.serve_forever(is_up_event=up))
        await up.wait()
        one, other, crashing = (server.listener.connect() for _ in range(3))
        await anyio.wait_all_tasks_blocked()
        assert await answer(one, b"he") == b""
        assert await answer(one, b"llo\nyou\n") == b"hello\nyou\n"
        assert await answer(other, b"there\n") == b"there\n"

        assert await answer(crashing, b"crash\n") == b""
        with pytest.raises(EOFError):
            await crashing.receive()
        await one.send_eof()
        await anyio.wait_all_tasks_blocked()
        assert one.peer.is_closing()
        assert len(handler.left) == 2

        assert [str(address) for address in server.get_addresses()] == ["('memory', 1)"]
        await server.shutdown()
    assert other.peer.is_closing()
    assert len(handler.left) == 3
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    message = "Exception occurred during processing of request from ('memory', 4)"
    assert record.getMessage() == message
