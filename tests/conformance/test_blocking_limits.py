"""Blocking handlers and limits: what they can change, see, and tell the end of a client by."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import pytest

from easynetwork.servers.blocking import BlockingStreamRequestHandler
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import ClientStatistics
from tests.conformance.blocking_support import Client, Notes
from tests.conformance.support import Serve, one_protocol
from tests.times import MS

pytestmark = [pytest.mark.anyio, one_protocol]


class Told(Notes, BlockingStreamRequestHandler[str, str]):
    """Does what its client asks for, and notes why the client has left."""

    def __init__(self) -> None:
        Notes.__init__(self)
        BlockingStreamRequestHandler.__init__(self)
        self.found: list[Any] = []

    def handle(self, client: Client) -> None:
        assert client.close_reason is None
        assert not client.is_draining()
        for request in client.packets():
            match request:
                case "statistics":
                    self.found.append(client.get_statistics())
                case "patience":
                    client.set_limits(idle_timeout=None)
                case "nonsense":
                    for timeouts in {"max_clients": 5}, {"idle_timeout": 0}:
                        with self.noting_errors(), contextlib.suppress(TypeError, ValueError):
                            client.set_limits(**timeouts)
                case "close":
                    client.close()
                    continue
                case "return":
                    return
                case "wait":
                    self.note("waiting")
                    self.wait()
                    self.found.append(client.is_draining())
            client.send_packet(request)

    def on_disconnection(self, client: Client) -> None:
        self.note(str(client.close_reason and client.close_reason.name))


async def test_statistics(serve: Serve) -> None:
    """A handler sees what has happened on its connection, as an asynchronous one does."""
    handler = Told()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        assert await peer.ask("statistics") == "statistics"
        [found] = handler.found
        assert isinstance(found, ClientStatistics)
        assert (found.packets_received, found.packets_sent) == (2, 1)
        assert (found.bytes_received, found.bytes_sent) == (17, 6)
        [client] = service.server.get_clients()
        assert client.get_statistics().packets_sent == 2


@pytest.mark.in_turn
async def test_limits(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may be more patient with a client than the server is; others still leave."""
    monkeypatch.setattr("easynetwork.servers._stream.timeouts._LOOKS_PER_SECOND", 20)
    handler = Told()
    async with serve(handler, limits=Limits(idle_timeout=200 * MS)) as service:
        patient, other = await service.connect(), await service.connect()
        assert await patient.ask("patience") == "patience"
        assert await other.ask("hello") == "hello"
        await handler.noted("IDLE_TIMEOUT")
        assert await other.rest() == ("", "EOF")
        assert await patient.ask("hello") == "hello"
        assert await patient.ask("nonsense") == "nonsense"
    assert handler.notes[0] == "IDLE_TIMEOUT"


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("requests", "end", "reason"),
    [
        ([], "close", "PEER_CLOSED"),
        ([], "reset", "PEER_RESET"),
        (["half"], "close", "TRUNCATED"),
        (["close\n"], "wait", "CLOSED"),
        (["return\n"], "wait", "None"),
        ([], "stop", "STOPPED"),
        ([], "drain", "DRAINED"),
    ],
)
async def test_close_reason(
    serve: Serve, transport: str, requests: list[str], end: str, reason: str
) -> None:
    """`on_disconnection()` can tell why the connection ended, unless `handle()` did end it."""
    handler = Told()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        for request in requests:
            peer.send_bytes(request.encode())
        match end:
            case "close":
                peer.close()
            case "reset":
                peer.reset()
            case "stop":
                await service.server.shutdown()
            case "drain":
                await service.server.shutdown(grace=5)
        if end == "reset" and transport == "unix":  # an end like others
            reason = "PEER_CLOSED"
        await handler.noted(reason)


@pytest.mark.in_turn
async def test_draining(serve: Serve) -> None:
    """A handler at work can see that the server drains."""
    handler = Told()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("wait")
        await handler.noted("waiting")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: service.server.shutdown(grace=5))
            while not service.server.is_draining():
                await anyio.sleep(MS)  # nobody announces it
            handler.released.set()
            assert await peer.receive() == "wait"
    assert handler.found == [True]
