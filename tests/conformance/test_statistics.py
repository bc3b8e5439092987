"""What a server counts agrees with what its peers and its log know, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from typing import Any, ClassVar

import anyio
import pytest

from easynetwork.addresses import IPv4SocketAddress
from easynetwork.servers.handlers import INETClientAttribute
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason, StreamStatistics
from tests.conformance.peers import BasePeer, Peer
from tests.conformance.support import (
    Client,
    Recorder,
    Records,
    Requests,
    Serve,
    Service,
    on_ip,
    one_protocol,
)
from tests.times import MS, SOON
from tests.tls_peers import server_context

pytestmark = [pytest.mark.anyio, one_protocol]

RESET = CloseReason.PEER_RESET

only_tcp = pytest.mark.parametrize("transport", ["tcp"])


def statistics_of(service: Service) -> StreamStatistics:
    """Return what a server has counted, and check that all connections are accounted for."""
    found = service.server.get_statistics()
    assert found.accepted == found.clients + sum(found.closed.values())
    return found


async def wait_for(service: Service, **closed: int) -> StreamStatistics:
    """Wait until no client is left, and check how often a connection has ended for which reason."""
    expected = Counter({CloseReason[name]: count for name, count in closed.items()})
    found = await wait_empty(service, expected.total())
    assert Counter(found.closed) == expected
    return found


async def wait_empty(service: Service, count: int) -> StreamStatistics:
    """Wait until that many connections have ended, and none is left."""
    while (found := statistics_of(service)).clients or found.accepted < count:
        await anyio.sleep(SOON / 10)  # nobody announces it
    return found


# -- connections that never had a session


@only_tcp
async def test_reset_before_it_is_accepted(serve: Serve) -> None:
    """A connection that was reset while it waited is accepted, and over."""
    async with serve(Recorder()) as service:
        for _ in range(3):
            (await service.connect()).reset()
        await wait_for(service, PEER_RESET=3)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_cancelled_before_it_begins(serve: Serve) -> None:
    """Tasks may be cancelled, by other code, before they have run: their connections are reset."""

    def new_task(loop: Any, coroutine: Any, **options: Any) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if coroutine.__qualname__ in ("StreamSession.run", "StreamService._serve"):
            task.cancel()
        return task

    handler = Recorder()
    loop = asyncio.get_running_loop()
    async with serve(handler) as service:
        loop.set_task_factory(new_task)
        peer = await connect_anyhow(service)
        await wait_for(service, ABORTED=1)
        loop.set_task_factory(None)
        with contextlib.suppress(OSError, EOFError):
            await peer.receive()
        assert await (await service.connect()).ask("hello") == "hello"
    assert len(handler.clients) == 1


async def connect_anyhow(service: Service) -> Any:
    """Return a peer without waiting for its handshake."""
    with anyio.move_on_after(0):
        await service.connect()
    return service.peers[-1]


@only_tcp
async def test_task_cannot_be_started(
    serve: Serve, log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a connection cannot have a task, it is closed and counted, in any case."""
    async with serve(Recorder()) as service:
        server: Any = service.server
        tasks = server._run.sessions

        def start(*args: Any, **options: Any) -> None:
            raise MemoryError

        cls = type(tasks)
        with contextlib.suppress(MemoryError, BaseExceptionGroup):
            incoming = Incomplete()
            with monkeypatch.context() as patched:
                patched.setattr(cls, "start", start)
                await server._service._admit(tasks, incoming)
        assert incoming.is_aborted
        await wait_for(service, STOPPED=1)


class Incomplete:
    """A connection, as far as it is needed before it has a task."""

    address = IPv4SocketAddress("192.0.2.1", 1)
    attributes: ClassVar[dict[Any, Any]] = {}

    def __init__(self) -> None:
        self.transport = self
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


# -- what is an error of a handler


class Scopes(Recorder):
    """Leaves a scope open where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def leave_open(self, where: str) -> None:
        if where == self.where:
            anyio.CancelScope().__enter__()

    async def greet(self, client: Client) -> None:
        self.leave_open("on_connection")

    async def handle(self, client: Client) -> Requests:
        request = yield
        self.leave_open("handle")
        await client.send_packet(request)

    async def on_disconnection(self, client: Client) -> None:
        self.leave_open("on_disconnection")


@pytest.mark.parametrize("where", ["on_connection", "handle", "on_disconnection"])
async def test_scope_left_open(serve: Serve, log: Records, where: str) -> None:
    """A handler that leaves a scope open has made an error, wherever that is."""
    async with serve(Scopes(where)) as service:
        peer = await service.connect()
        peer.send("hello")
        with contextlib.suppress(ConnectionError, EOFError):
            await peer.receive()
        peer.close()
        await log.logged("Exception occurred")
        assert (await wait_empty(service, 1)).handler_errors == 1
        assert len(log.problems()) == 1


class Thief(Recorder):
    """Closes the descriptor of its connection, whose owner it is not."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        os.close(client.extra(INETClientAttribute.socket).fileno())
        await client.send_packet(request)


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
async def test_lost_descriptor(serve: Serve, log: Records) -> None:
    """A descriptor that was closed by other code is an error, and why the connection ended."""
    async with serve(Thief()) as service:
        peer = await service.connect()
        peer.send("hello")
        await log.logged("Exception occurred")
        found = await wait_for(service, HANDLER_ERROR=1)
        assert found.handler_errors == 1
        assert len(log.problems()) == 1


@pytest.mark.usefixtures("unlimited_log")
async def test_errors(serve: Serve, log: Records) -> None:
    """Errors of all parts of a handler are counted, each once."""

    class Failing(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            raise LookupError

        async def on_disconnection(self, client: Client) -> None:
            raise ValueError

    async with serve(Failing()) as service:
        for _ in range(3):
            (await service.connect()).send("hello")
        found = await wait_for(service, HANDLER_ERROR=3)
        assert found.handler_errors == 6
        assert len(log.problems()) == 6


# -- packets and bytes


class Pipelined(Recorder):
    """Answers requests until one tells it to stop, in one of several ways."""

    async def handle(self, client: Client) -> Requests:
        while True:
            request = yield
            if request == "abort":
                client.abort()
                return
            await client.send_packet(request)


async def test_sent_in_a_signal_handler(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler sends counts, also if another packet is being sent at that moment."""

    class Handler(Recorder):
        async def handle(self, client: Any) -> Requests:
            yield
            transport = type(client.transport)
            write, signals = transport.write, iter(range(2))

            def interrupted(self: Any, data: bytes) -> Any:
                if data == b"packet\n" and next(signals, None) is not None:
                    signal.raise_signal(signal.SIGINT)
                return write(self, data)

            monkeypatch.setattr(transport, "write", interrupted)
            before = signal.signal(signal.SIGINT, lambda *_: client.try_send_packet("signal"))
            try:
                await client.send_packet("packet")
                client.try_send_packet("packet")
            finally:
                signal.signal(signal.SIGINT, before)
            found = client.get_statistics()
            self.note(f"{found.packets_sent} packets, {found.bytes_sent} bytes")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go on")
        assert await peer.receive_lines(4) == ["signal", "packet"] * 2
        await handler.noted("4 packets, 28 bytes")


@on_ip
async def test_gathered_and_aborted(serve: Serve) -> None:
    """Packets that were sent, and are lost by `abort()`, count with their bytes."""
    async with serve(Pipelined()) as service:
        peer = await service.connect()
        peer.send("one", "two", "abort", "four")
        found = await wait_for(service, ABORTED=1)
        assert (found.packets_received, found.packets_sent) == (3, 2)
        assert (found.bytes_received, found.bytes_sent) == (len("one two abort four "), 8)


@on_ip
async def test_gathered_and_broken(serve: Serve) -> None:
    """So do packets that are sent when the connection has broken."""

    class Handler(Pipelined):
        async def handle(self, client: Client) -> Requests:
            size = 0
            with contextlib.suppress(ConnectionError):
                while True:
                    request = yield
                    size += len(request)
                    await client.send_packet(request)
                    if request == "break":
                        self.note("broken")
                        await self.released.wait()
                    self.sizes.append(size)

        sizes: list[int]

    handler = Handler()
    handler.sizes = []
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("break", *["x" * 40_000] * 3)
        await handler.noted("broken")
        peer.reset()
        handler.released.set()
        found = await wait_empty(service, 1)
        packets, whole = found.packets_sent, found.bytes_sent
        assert whole == len("break\n") + (packets - 1) * 40_001


@pytest.mark.in_turn
@pytest.mark.parametrize("transport", ["tcp", "memory"])
async def test_early_client_hello(serve: Serve, log: Records) -> None:
    """Bytes of a handshake are no bytes of packets, whenever they arrive."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            self.note(request)
            with contextlib.suppress(OSError):
                await client.start_tls(server_context())

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"STARTTLS\n" + b"\x16\x03\x01\x00\x05no way")
        found = await wait_for(service, TLS_FAILED=1)
        assert (found.packets_received, found.bytes_received) == (1, len("STARTTLS\n"))
        assert (found.tls_handshakes, found.tls_failures) == (0, 1)
        assert len(log.problems()) == 1


# -- a storm of everything


class Stormy(Recorder):
    """Does to its clients what they ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[Client] = set()

    async def handle(self, client: Client) -> Requests:
        if client in self.refused:
            return
        request = yield
        match request:
            case "crash":
                raise LookupError(request)
            case "scope":
                anyio.CancelScope().__enter__()
            case "abort":
                client.abort()
            case "close":
                await client.aclose()
            case "refuse":
                self.refused.add(client)
            case "idle":
                client.set_limits(idle_timeout=200 * MS)
            case "task":
                client.start_soon(self.fail)
            case "flood":
                client.set_limits(send_timeout=200 * MS)
                await client.send_packet("x" * 20_000_000)
            case _:
                await client.send_packet(request)

    async def fail(self) -> None:
        raise LookupError("task")

    async def on_disconnection(self, client: Client) -> None:
        self.refused.discard(client)
        if client.close_reason is CloseReason.TRUNCATED:
            raise LookupError("on_disconnection")


class Account:
    """What the peers of a storm know.

    Attributes:
        reasons: How often a connection should end for which reason.
        packets_received: Those that the server should have got, errors in their place included.
        packets_sent: Those that peers have got.
        bytes_received: The bytes of both, and of packets that were never complete.
        bytes_sent: The bytes that peers have got.
        errors: How often the handler has failed.
        invalid: Lines that were no packets.
    """

    def __init__(self) -> None:
        self.reasons: Counter[CloseReason] = Counter()
        self.packets_received = self.packets_sent = 0
        self.bytes_received = self.bytes_sent = 0
        self.errors = self.invalid = 0

    def send(self, peer: BasePeer, data: bytes) -> None:
        self.packets_received += data.count(b"\n")
        self.bytes_received += len(data)
        peer.send_bytes(data)

    async def ask(self, peer: BasePeer, *lines: str) -> None:
        """Have lines echoed."""
        data = "".join(f"{line}\n" for line in lines).encode()
        self.send(peer, data)
        assert await peer.receive_lines(len(lines)) == list(lines)
        self.packets_sent += len(lines)
        self.bytes_sent += len(data)


async def misbehave(service: Service, account: Account, kind: str, reason: CloseReason) -> None:
    """Connect, be answered, and end in one of many ways."""
    account.reasons[reason] += 1
    peer = await service.connect(receive_buffer=4096 if kind == "flood" else None)
    await account.ask(peer, "one", "two", "three")
    await account.ask(peer, "four")
    match kind:
        case "leave":
            peer.close()
        case "cut off":
            getattr(peer, "_raw", peer.socket).close()
            account.errors += reason is CloseReason.TRUNCATED
        case "reset":
            peer.reset()
        case "half-close":
            peer.send_eof()
        case "truncated":
            account.send(peer, b"five, hal")
            account.errors += 1
            peer.close()
        case "slow":
            account.send(peer, b"five, sl")
        case "garbage":
            account.send(peer, b"\xff\n")
            account.invalid += 1
        case _:
            account.send(peer, f"{kind}\n".encode())
            account.errors += kind in ("crash", "scope", "task")
            account.packets_sent += kind == "flood"
            account.bytes_sent += 20_000_001 if kind == "flood" else 0
            if kind == "scope":  # found when the conversation is over
                peer.close()
    if kind not in ("leave", "cut off", "reset", "truncated", "scope", "flood"):
        with contextlib.suppress(OSError, EOFError):
            await peer.rest()


STORM = {
    "leave": CloseReason.PEER_CLOSED,
    "cut off": CloseReason.PEER_CLOSED,
    "reset": CloseReason.PEER_RESET,
    "half-close": CloseReason.PEER_CLOSED,
    "truncated": CloseReason.TRUNCATED,
    "slow": CloseReason.PACKET_TIMEOUT,
    "garbage": CloseReason.INVALID_DATA,
    "crash": CloseReason.HANDLER_ERROR,
    "scope": CloseReason.HANDLER_ERROR,
    "task": CloseReason.HANDLER_ERROR,
    "abort": CloseReason.ABORTED,
    "close": CloseReason.CLOSED,
    "refuse": CloseReason.REFUSED,
    "idle": CloseReason.IDLE_TIMEOUT,
    "flood": CloseReason.SEND_TIMEOUT,
}


def new_plain_peer(service: Service) -> BasePeer:
    """Return a peer that does not speak TLS."""
    peer = Peer(service.server.get_addresses()[0])
    peer.socket = peer._raw
    service.peers.append(peer)
    return peer


@pytest.mark.in_turn
@pytest.mark.usefixtures("unlimited_log")
async def test_storm(
    serve: Serve, log: Records, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever many peers do at the same time, all is counted, and nothing twice."""
    monkeypatch.setattr("easynetwork.servers._stream.timeouts._LOOKS_PER_SECOND", 20)
    account = Account()
    limits = Limits(packet_timeout=200 * MS, max_clients=70)
    async with serve(Stormy(), limits=limits) as service:
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                for kind, reason in STORM.items():
                    for _ in range(3):
                        if kind == "reset" and transport == "unix":  # an end like others
                            reason = CloseReason.PEER_CLOSED
                        if kind == "cut off" and transport == "tls":  # no closing alert
                            reason = CloseReason.TRUNCATED
                        tasks.start_soon(misbehave, service, account, kind, reason)
            await wait_empty(service, account.reasons.total())
        live = [await service.connect() for _ in range(70)]
        for peer in live:
            await account.ask(peer, "hello")
        for _ in range(5):
            account.reasons[CloseReason.FULL] += 1
            await connect_anyhow(service)
        while service.server.get_statistics().accepted < account.reasons.total() + len(live):
            await anyio.sleep(SOON / 10)
        live.pop().reset()
        account.reasons[CloseReason.PEER_CLOSED if transport == "unix" else RESET] += 1
        while statistics_of(service).clients > len(live):
            await anyio.sleep(SOON / 10)
        if transport == "tls":
            peer = new_plain_peer(service)
            peer.send_bytes(b"no TLS at all, " * 10)
            account.reasons[CloseReason.TLS_FAILED] += 1
            while len(live) < statistics_of(service).clients or (
                service.server.get_statistics().tls_failures < 1
            ):
                await anyio.sleep(SOON / 10)
        assert statistics_of(service).clients == len(live)
        await service.server.shutdown()
        account.reasons[CloseReason.STOPPED] += len(live)
        found = statistics_of(service)
    assert log.problems()
    assert Counter(found.closed) == account.reasons
    assert found.clients == 0
    assert found.handler_errors == account.errors
    assert found.invalid_packets == account.invalid
    assert (found.packets_received, found.packets_sent) == (
        account.packets_received,
        account.packets_sent,
    )
    assert (found.bytes_received, found.bytes_sent) == (account.bytes_received, account.bytes_sent)
    assert found.tls_failures == account.reasons[CloseReason.TLS_FAILED]
    assert found.suppressed_log_lines == 0
