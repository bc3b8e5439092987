"""A handler that waits for ancillary data is the client's one receiver, as at any `yield`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from easynetwork.backends.stream_transport import SocketStreamTransport
from easynetwork.exceptions import BusyResourceError, EndOfStreamError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.framing.framers import MAX_BATCH
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import RecvAncillaryDataParams, RecvParams
from tests.conformance.support import Client, Recorder, Records, Requests, serving
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio


class Receiver(Recorder):
    """Asks for ancillary data, even if that is refused the first time."""

    async def handle(self, client: Client) -> Requests:
        params = RecvParams(recv_with_ancillary=RecvAncillaryDataParams(lambda _: None))
        self.note("handle")
        try:
            request = yield params
        except BusyResourceError:
            self.note("busy")
            await self.released.wait()
            request = yield params
        await client.send_packet(request)


def new_server(path: str, handler: Any) -> AsyncUnixStreamServer[str, str]:
    protocol = StreamProtocol[str, str](StringLineSerializer())
    return AsyncUnixStreamServer(path, protocol, handler, ancillary_bufsize=1_000)


async def test_helper_while_the_generator_waits(unix_path: str, log: Records) -> None:
    """Another task is refused, and so is a change of protocol; the generator gets the packet."""
    handler = Receiver()
    async with serving(new_server(unix_path, handler)) as service:
        peer = await service.connect()
        await handler.noted("handle")
        await anyio.wait_all_tasks_blocked()
        [client] = handler.clients
        with pytest.raises(BusyResourceError):
            await client.recv_packet(timeout=0)
        with pytest.raises(BusyResourceError):
            client.set_protocol(StreamProtocol(StringLineSerializer("CRLF")))
        assert await peer.ask("hello") == "hello"


async def test_generator_while_a_task_waits(unix_path: str, log: Records) -> None:
    """And the other way round."""

    class Handler(Receiver):
        async def greet(self, client: Client) -> None:
            client.start_soon(self.ask, client)
            await anyio.wait_all_tasks_blocked()

        async def ask(self, client: Client) -> None:
            self.note(await client.recv_packet())
            self.released.set()

    handler = Handler()
    async with serving(new_server(unix_path, handler)) as service:
        peer = await service.connect()
        await handler.noted("busy")
        peer.send("for the task", "for the generator")
        assert await peer.receive() == "for the generator"
    assert "for the task" in handler.notes


async def test_task_that_comes_first(
    unix_path: str, log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that begins to receive while the generator lets others run is the one that does."""

    class Handler(Receiver):
        async def greet(self, client: Client) -> None:
            client.start_soon(self.ask, client)

        async def handle(self, client: Client) -> Requests:
            yield
            for _ in range(MAX_BATCH - 1):
                await client.recv_packet()
            params = RecvParams(recv_with_ancillary=RecvAncillaryDataParams(lambda _: None))
            with pytest.raises(BusyResourceError):
                yield params
            await anyio.sleep_forever()

        async def ask(self, client: Client) -> None:
            await self.released.wait()
            while True:
                self.note(await client.recv_packet())

    async def give_way(transport: SocketStreamTransport) -> None:
        handler.released.set()
        await anyio.wait_all_tasks_blocked()

    handler = Handler()
    monkeypatch.setattr(SocketStreamTransport, "give_way", give_way)
    async with serving(new_server(unix_path, handler)) as service:
        peer = await service.connect()
        peer.send_bytes(b"\n" * MAX_BATCH + b"next\n")
        await handler.noted("next")
        peer.send("last")
        await handler.noted("last")


async def test_drained_while_a_task_waits(
    unix_path: str, log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused generator does not make the task's packet a next request, which may not come."""
    silence = 10 * SOON
    monkeypatch.setattr("easynetwork.servers._stream.drain.SILENCE", silence)

    class Handler(Receiver):
        async def handle(self, client: Client) -> Requests:
            try:
                yield RecvParams(recv_with_ancillary=RecvAncillaryDataParams(lambda _: None))
            except BusyResourceError:
                self.note("busy")
                await anyio.sleep_forever()
            client.start_soon(self.ask, client)
            await anyio.wait_all_tasks_blocked()

        async def ask(self, client: Client) -> None:
            with pytest.raises(EndOfStreamError):
                await client.recv_packet()
            await client.aclose()

    handler = Handler()
    async with serving(new_server(unix_path, handler)) as service:
        peer = await service.connect()
        peer.send("hello")
        await handler.noted("busy")
        begin = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: service.server.shutdown(grace=PATIENCE))
            await peer.rest()
            assert anyio.current_time() - begin >= silence
            tasks.cancel_scope.cancel()


async def test_wait_disconnected(unix_path: str, log: Records) -> None:
    """A task may wait for the end meanwhile; the generator gets its packet first."""
    handler = Receiver()
    returned: list[str] = []

    async def wait(client: Client) -> None:
        await client.wait_disconnected()
        returned.append("returned")

    async with serving(new_server(unix_path, handler)) as service:
        async with anyio.create_task_group() as tasks:
            peer = await service.connect()
            await handler.noted("handle")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(wait, handler.clients[0])
            await anyio.wait_all_tasks_blocked()
            assert await peer.ask("hello") == "hello"
            peer.close()
    assert returned == ["returned"]
    [(level, _, exc)] = log.problems()  # the next `yield` for ancillary data
    assert (level, str(exc)) == ("ERROR", "This transport does not have ancillary data support.")
