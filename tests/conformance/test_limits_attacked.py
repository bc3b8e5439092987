"""Limits that a client tries to get around, and clients that no limit is meant for.

In memory, in virtual time, as in `test_limits.py`, unless a test is about a socket or TLS.
"""

from __future__ import annotations

import dataclasses
import gc
import ssl
import time
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import RecvAncillaryDataParams, RecvParams
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason
from tests.conformance.peers import BasePeer
from tests.conformance.support import Client, Records, Requests, Serve
from tests.conformance.test_limits import LATE, NONE, Flooding, Noted, drip, end_of
from tests.decoding import GeneratorStreamProtocol
from tests.times import MS
from tests.tls_peers import client_context, server_context

pytestmark = [pytest.mark.anyio, pytest.mark.in_turn]

PLACES = "transport", "protocol_class"
in_memory = pytest.mark.parametrize(PLACES, [("memory", StreamProtocol)], ids=["memory"])
each_decoder = pytest.mark.parametrize(
    PLACES,
    [("memory", StreamProtocol), ("memory", GeneratorStreamProtocol)],
    ids=["memory-frames", "memory-generators"],
)
on_tcp = pytest.mark.parametrize(PLACES, [("tcp", StreamProtocol)], ids=["tcp"])
on_unix = pytest.mark.parametrize(PLACES, [("unix", StreamProtocol)], ids=["unix"])


def only(**limits: Any) -> Limits:
    """Return limits of which there are no others."""
    return dataclasses.replace(NONE, **limits)


async def closed_after(peer: BasePeer, begin: float, seconds: float) -> None:
    """See the server close a connection when the time is up, not earlier and not much later."""
    with anyio.fail_after(10 * seconds):
        assert seconds <= await end_of(peer) - begin <= seconds + LATE


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have looks be due every 50 milliseconds: less time to wait where it is real."""
    monkeypatch.setattr("easynetwork.servers._stream.timeouts._LOOKS_PER_SECOND", 20)


# -- a packet in part


@each_decoder
@pytest.mark.parametrize("is_dripping", [False, True], ids=["silent", "dripping"])
async def test_rest_of_an_oversized_frame(serve: Serve, is_dripping: bool) -> None:
    """The rest of a frame that is dropped has its time, like the rest of a packet."""
    handler = Noted()
    async with serve(handler, limit=100, limits=only(packet_timeout=3)) as service:
        peer = await service.connect()
        begin = anyio.current_time()
        peer.send_bytes(b"x" * 200 + b"\n" + b"y" * 200 + b"\r")
        assert "StreamProtocolParseError" in await peer.receive()
        assert "StreamProtocolParseError" in await peer.receive()
        async with anyio.create_task_group() as tasks:
            if is_dripping:
                tasks.start_soon(drip, peer)
            await closed_after(peer, begin, 3)
            tasks.cancel_scope.cancel()
        await handler.noted("PACKET_TIMEOUT")


@each_decoder
async def test_packet_after_an_oversized_frame(serve: Serve) -> None:
    """Its time begins with its own first byte, not with that of the frame before it."""
    handler = Noted()
    async with serve(handler, limit=100, limits=only(packet_timeout=1)) as service:
        peer = await service.connect()
        peer.send_bytes(b"x" * 200)
        assert "StreamProtocolParseError" in await peer.receive()
        peer.send_bytes(b"x\n")
        await anyio.sleep(0.8)
        peer.send_bytes(b"he")
        await anyio.sleep(0.8)
        assert await peer.ask("llo") == "hello"
        peer.send_bytes(b"x" * 200)
        assert "StreamProtocolParseError" in await peer.receive()
        peer.send_bytes(b"x\n")
        await anyio.sleep(3)
        begin = anyio.current_time()
        peer.send_bytes(b"h")
        await closed_after(peer, begin, 1)


@in_memory
async def test_line_that_ends_with_cr(serve: Serve) -> None:
    """Nothing has to follow a CR, though an LF may: the client is idle."""

    class Handler(Noted):
        async def greet(self, client: Client) -> None:
            client.set_protocol(StreamProtocol(StringLineSerializer("any", limit=100)))
            await client.send_packet("hello")

    async with serve(Handler(), limits=only(packet_timeout=1)) as service:
        peer = await service.connect()
        assert await peer.receive() == "hello\r"
        peer.send_bytes(b"one\r")
        assert await peer.receive() == "one\r"
        await anyio.sleep(2)
        peer.send_bytes(b"\n" + b"x" * 200)
        assert "StreamProtocolParseError" in await peer.receive()
        peer.send_bytes(b"x\r")
        await anyio.sleep(2)
        peer.send_bytes(b"two\r")
        assert await peer.receive() == "two\r"
        begin = anyio.current_time()
        peer.send_bytes(b"\nth")
        await closed_after(peer, begin, 1)


@in_memory
async def test_limit_for_a_packet_that_has_begun(serve: Serve) -> None:
    """A handler that grants less time means the packet that is on its way, too."""
    handler = Noted()
    async with serve(handler, limits=only(packet_timeout=6)) as service:
        peer = await service.connect()
        peer.send_bytes(b"he")
        begin = anyio.current_time()
        await handler.noted("on_connection")
        await anyio.sleep(1)
        handler.clients[0].set_limits(packet_timeout=2)
        await closed_after(peer, begin, 2)
        peer = await service.connect()
        peer.send_bytes(b"he")
        await handler.noted("on_connection", 2)
        await anyio.sleep(1)
        handler.clients[1].set_limits(packet_timeout=None)
        await anyio.sleep(6)
        assert await peer.ask("llo") == "hello"


class Talk:
    """A TLS client whose records the test sends as it likes."""

    def __init__(self, peer: Any) -> None:
        self._socket = peer.socket
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = client_context().wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost"
        )

    async def handshake(self) -> None:
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                self._incoming.write(await anyio.to_thread.run_sync(self._socket.recv, 1 << 16))
            else:
                self._socket.sendall(self._outgoing.read())
                return

    def record(self, data: bytes) -> bytes:
        self.object.write(data)
        return self._outgoing.read()


@on_tcp
async def test_part_of_a_tls_record(serve: Serve) -> None:
    """It is a packet in part, also if it has come together with a whole one."""
    handler = Noted()
    limits = only(packet_timeout=300 * MS)
    async with serve(handler, limits=limits, ssl=server_context()) as service:
        peer = await service.connect()
        talk = Talk(peer)
        await talk.handshake()
        peer.socket.sendall(talk.record(b"hello\n") + talk.record(b"x" * 1000)[:100])
        await handler.noted("PACKET_TIMEOUT")


@pytest.mark.in_turn
@on_tcp
@pytest.mark.parametrize("pause", [0, 1], ids=["at once", "later"])
async def test_packet_in_part_after_start_tls(serve: Serve, pause: float) -> None:
    """The first packet after the handshake has the time that any packet has."""

    class Handler(Noted):
        async def handle(self, client: Client) -> Requests:
            assert (yield) == "STARTTLS"
            await client.send_packet("go")
            await anyio.sleep(50 * MS)  # the first message of the handshake arrives in clear text
            await client.start_tls(server_context())
            while True:
                await client.send_packet((yield))

    handler = Handler()
    async with serve(handler, limits=only(packet_timeout=500 * MS)) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go"
        talk = Talk(peer)
        await talk.handshake()
        await anyio.sleep(pause)
        peer.socket.sendall(talk.record(b"hel"))
        await handler.noted("PACKET_TIMEOUT")


@on_tcp
async def test_failed_start_tls_is_a_failed_handshake(serve: Serve, log: Records) -> None:
    """The reason of the end says so, and it is counted."""

    class Handler(Noted):
        async def handle(self, client: Client) -> Requests:
            yield
            await client.send_packet("go")
            await client.start_tls(server_context())

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go"
        peer.send("GET / HTTP/1.1")
        await handler.noted("TLS_FAILED")
        with anyio.fail_after(5000 * MS):
            while service.server.get_statistics().clients:
                await anyio.sleep(MS)
        found = service.server.get_statistics()
        assert (found.closed, found.tls_failures) == ({CloseReason.TLS_FAILED: 1}, 1)
    log.problems()


# -- clients that receive


@in_memory
@pytest.mark.parametrize("way", ["broadcast", "try_send_packet"])
async def test_client_that_only_receives(serve: Serve, way: str) -> None:
    """However it is sent: it is not idle, and the packets are counted."""
    group = ClientGroup[str]()

    class Handler(Noted):
        async def greet(self, client: Client) -> None:
            group.add(client)
            await super().greet(client)

    handler = Handler()
    async with serve(handler, limits=only(idle_timeout=2)) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        for _ in range(5):
            await anyio.sleep(1)
            if way == "broadcast":
                group.broadcast("news")
            else:
                handler.clients[0].try_send_packet("news")
            assert await peer.receive() == "news"
        found = service.server.get_statistics()
        assert (found.packets_sent, found.bytes_sent) == (5, 25)
        assert await end_of(peer)
        await handler.noted("IDLE_TIMEOUT")


@in_memory
async def test_slow_reader_is_not_idle(serve: Serve) -> None:
    """What the handler has sent is on its way for longer than the client may be idle."""

    class Handler(Flooding):
        async def handle(self, client: Client) -> Requests:
            yield
            await client.send_packet("x" * 60_000)

    handler = Handler()
    async with serve(handler, limits=only(idle_timeout=1)) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("more")
        await anyio.sleep(5)
        assert handler.notes == ["on_connection"]
        assert len(await peer.receive()) == 60_000
        await end_of(peer)
        await handler.noted("IDLE_TIMEOUT")


@in_memory
async def test_limit_of_reading_holds_after_another_one(serve: Serve, log: Records) -> None:
    """A handler that still sends to a client which has met a limit does not wait for ever."""

    class Handler(Flooding):
        async def handle(self, client: Client) -> Requests:
            client.start_soon(self.flood, client)
            try:
                yield
            finally:
                self.note("limit")
                with anyio.CancelScope(shield=True):
                    await client.send_packet("sorry")

        async def flood(self, client: Client) -> None:
            await client.send_packet("x" * 4_000_000)

    handler = Handler()
    limits = only(send_timeout=5, packet_timeout=3)
    async with serve(handler, limits=limits) as service:
        peer = await service.connect()
        begin = anyio.current_time()
        peer.send_bytes(b"half")
        await handler.noted("limit")
        await handler.noted("PACKET_TIMEOUT")
        assert anyio.current_time() - begin <= 5 + LATE


# -- time that is not the client's


@in_memory
async def test_client_that_waits_to_be_greeted(serve: Serve) -> None:
    """Where the server speaks first, the client cannot send before."""

    class Handler(Noted):
        async def greet(self, client: Client) -> None:
            await anyio.sleep(4)
            await client.send_packet("220 hello")

    async with serve(Handler(), limits=only(first_packet_timeout=3)) as service:
        peer = await service.connect()
        assert await peer.receive() == "220 hello"
        await anyio.sleep(2)
        assert await peer.ask("EHLO") == "EHLO"


@pytest.mark.in_turn
@pytest.mark.parametrize(
    PLACES,
    [("tcp", StreamProtocol), ("tls", StreamProtocol), ("unix", StreamProtocol)],
    ids=["tcp", "tls", "unix"],
)
@pytest.mark.parametrize("limit", ["first_packet_timeout", "packet_timeout", "idle_timeout"])
async def test_server_that_was_busy(serve: Serve, limit: str) -> None:
    """What has come in time counts, though the loop had no time to look."""
    handler = Noted()
    async with serve(handler, limits=only(**{limit: 1_500 * MS})) as service:
        peers = [await service.connect() for _ in range(4)]
        await handler.noted("on_connection", 4)
        if limit == "packet_timeout":
            for peer in peers:
                peer.send_bytes(b"he")
            await anyio.sleep(50 * MS)
        for peer in peers:
            peer.send_bytes(b"llo\n")
        time.sleep(1_800 * MS)  # noqa: ASYNC251 - nothing runs meanwhile
        for peer in peers:
            assert (await peer.receive()).endswith("llo")
        assert service.server.get_statistics().closed == {}


@on_tcp
async def test_server_that_is_busy_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same if it is busy once more, after its timer was due and before it reads."""
    checkpoint = anyio.lowlevel.checkpoint
    is_busy = False

    async def be_busy_once() -> None:
        nonlocal is_busy
        if not is_busy:
            is_busy = True
            service.peers[0].send("hello")
            time.sleep(800 * MS)  # noqa: ASYNC251 - nothing runs meanwhile
        else:
            await checkpoint()

    async with serve(Noted(), limits=only(first_packet_timeout=400 * MS)) as service:
        monkeypatch.setattr("anyio.lowlevel.checkpoint", be_busy_once)
        peer = await service.connect()
        assert await peer.receive() == "hello"
        assert is_busy


# -- Unix sockets


class Receiver(Noted):
    """Asks for ancillary data, and answers with some."""

    async def handle(self, client: Client) -> Requests:
        params = RecvParams(recv_with_ancillary=RecvAncillaryDataParams(lambda _: None))
        while True:
            request = yield params
            await client.send_packet_with_ancillary(request, [])


@on_unix
@pytest.mark.parametrize("limit", ["first_packet_timeout", "idle_timeout"])
async def test_receivers_of_ancillary_data(serve: Serve, limit: str) -> None:
    """They wait for packets like others."""
    handler = Receiver()
    limits = only(**{limit: 300 * MS})
    async with serve(handler, limits=limits, ancillary_bufsize=1000) as service:
        peer = await service.connect()
        if limit == "idle_timeout":
            assert await peer.ask("hello") == "hello"
            found = service.server.get_statistics()
            assert (found.packets_sent, found.bytes_sent) == (1, 6)
        await handler.noted(limit.upper())


@on_unix
async def test_reader_of_ancillary_data_that_does_not_read(serve: Serve) -> None:
    """It is reset, as if what waits for it were bytes alone."""

    class Handler(Receiver):
        async def handle(self, client: Client) -> Requests:
            yield
            while True:
                await client.send_packet_with_ancillary("x" * 10_000, [])

    handler = Handler()
    limits = only(send_timeout=300 * MS)
    async with serve(handler, limits=limits, ancillary_bufsize=1000) as service:
        peer = await service.connect()
        peer.send("more")
        await handler.noted("SEND_TIMEOUT")


# -- nothing is kept


@in_memory
async def test_client_that_is_gone_is_forgotten(serve: Serve) -> None:
    """Nothing that looks at clients keeps one that it has looked at."""

    class Handler(Noted):
        def on_connection(self, client: Client) -> Any:
            return self.greet(client)

    handler = Handler()
    async with serve(handler, limits=only(idle_timeout=2)) as service:
        second = await service.connect()
        await handler.noted("on_connection")
        [client] = service.server.get_clients()
        client.set_limits(idle_timeout=1000)
        first = await service.connect()
        await handler.noted("on_connection", 2)
        await anyio.sleep(1.6)  # both were looked at
        [client] = set(service.server.get_clients()) - {client}
        reference = weakref.ref(client)
        del client
        first.close()
        await handler.noted("PEER_CLOSED")
        await anyio.sleep(0.1)
        gc.collect()
        assert reference() is None
        assert await second.ask("hello") == "hello"
