"""The client object: identity, attributes, sending."""

from __future__ import annotations

import errno
import gc
import socket
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import SocketProxy
from easynetwork.backends import new_builtin_backend
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers.handlers import INETClientAttribute
from tests.conformance.datagrams.support import Client, Recorder, Requests, Serve, on_ip, serving

pytestmark = pytest.mark.anyio


# -- identity


async def test_equality(serve: Serve) -> None:
    """Two of them are equal if, and only if, their socket and their address are."""
    handler = Recorder()
    async with serve(handler, host=["127.0.0.1", "127.0.0.2"]) as service:
        one, other = service.connect(), service.connect()
        for peer in (one, one, other):
            await peer.ask("hello")
        one.socket.connect(service.server.get_addresses()[1])
        await one.ask("hello")
        first, second, third, fourth = handler.clients
        assert first == second
        assert hash(first) == hash(second)
        assert first != third
        assert first != fourth  # the same peer, another socket of the server
        assert first != first.extra(INETClientAttribute.remote_address)
        assert first.__eq__("client") is NotImplemented
        assert len({first, second, third, fourth}) == 3


async def test_one_object_while_it_is_held(serve: Serve) -> None:
    """There is one object for a peer as long as somebody holds it."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            known.setdefault(client, client)
            await client.send_packet(f"{(yield)} {known[client] is client}")

    known: dict[Client, Client] = {}
    async with serve(Handler()) as service:
        peers = [service.connect() for _ in range(3)]
        for _ in range(3):
            for peer in peers:
                assert await peer.ask("hello") == "hello True"
        await service.statistics(peers=0)
        await service.server.shutdown()
        # Between two runs of the server it is the same peer.
        before = list(known)
        assert all(client.is_closing() for client in before)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.server.serve_forever)
            for peer in peers:
                assert await peer.ask("again") == "again True"
            assert not any(client.is_closing() for client in before)
            await service.server.shutdown()


async def test_memory(serve: Serve) -> None:
    """A client can be referred to weakly, and goes when nobody holds it and its generator ends."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            known.add(client)
            while (yield) != "end":
                await client.send_packet(str(len(known)))
            del client
            self.note("end")

    known: weakref.WeakSet[Client] = weakref.WeakSet()
    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        for _ in range(3):
            assert await peer.ask("hello") == "1"
        gc.collect()
        assert len(known) == 1
        assert not hasattr(next(iter(known)), "__dict__")
        peer.send("end")
        await service.statistics(peers=0)
        gc.collect()
        assert len(known) == 0


# -- attributes


async def test_socket(serve: Serve) -> None:
    """The socket is the server's, to look at and for its options."""
    handler = Recorder()
    async with serve(handler) as service:
        await service.connect().ask("hello")
        proxy = handler.clients[0].extra(INETClientAttribute.socket)
        assert isinstance(proxy, SocketProxy)
        assert proxy.fileno() == service.server.get_sockets()[0].fileno()
        assert proxy.type == socket.SOCK_DGRAM


# -- sending


@on_ip
async def test_answer_too_long(serve: Serve, host: str) -> None:
    """An answer that no datagram can hold is an error that names both lengths."""
    limit = 65_527 if ":" in host else 65_507

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            try:
                await client.send_packet("x" * (limit + 1))
            except OSError as exc:
                await client.send_packet(f"{errno.errorcode[exc.errno or 0]}: {exc.strerror}")

    async with serve(Handler()) as service:
        assert await service.connect().ask("hello") == (
            f"EMSGSIZE: datagram of {limit + 1} bytes is too long: at most {limit} bytes fit"
        )


@on_ip
async def test_dead_peer(serve: Serve) -> None:
    """A peer that is gone when it is answered disturbs nobody, and nobody hears of it."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            self.note(request)
            if request == "wait":
                await self.released.wait()
            for _ in range(10):
                await client.send_packet(request)
            self.note("answered")

    handler = Handler()
    async with serve(handler) as service:
        dead, other = service.connect(), service.connect()
        dead.send("wait")
        await handler.noted("wait")
        dead.close()
        handler.released.set()
        await handler.noted("answered")
        for _ in range(10):
            other.send("hello")
            assert [await other.receive() for _ in range(10)] == ["hello"] * 10


IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h


@on_ip
async def test_dead_peer_that_is_reported(serve: Serve, host: str) -> None:
    """Where the kernel does report it, neither the next answer is lost nor a datagram."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "call":
                for victim in self.clients:
                    await victim.send_packet("hello?")
            else:
                self.clients.append(client)
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler) as service:
        level, option = (
            (socket.IPPROTO_IPV6, IPV6_RECVERR) if ":" in host else (socket.IPPROTO_IP, IP_RECVERR)
        )
        service.server.get_sockets()[0].setsockopt(level, option, 1)
        for _ in range(5):
            dead = service.connect()
            await dead.ask("hello")
            dead.close()
        other = service.connect()
        for _ in range(5):
            assert await other.ask("call") == "call"


@on_ip
async def test_sending_gives_turns(serve: Serve) -> None:
    """A handler that sends without end does not keep the event loop to itself."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            if (yield) == "flood":
                while not self.released.is_set():
                    await client.send_packet("x")
                self.note("over")
            await client.send_packet("done")

    handler = Handler()
    async with serve(handler) as service:
        peer, other = service.connect(), service.connect()
        peer.send("flood")
        assert await other.ask("hello") == "done"
        handler.released.set()
        await handler.noted("over")


@on_ip
async def test_clients_do_not_share_turns(serve: Serve) -> None:
    """Many clients with a few answers each do not make each other's handlers wait."""
    at_once = most_at_once = 0

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            nonlocal at_once, most_at_once
            yield
            at_once += 1
            most_at_once = max(most_at_once, at_once)
            for _ in range(10):
                await client.send_packet("answer")
            at_once -= 1

    async with serve(Handler()) as service:
        for peer in [service.connect() for _ in range(100)]:
            peer.send("hello")
        await service.statistics(received=100, peers=0)
    assert most_at_once == 1


async def test_full_buffer(serve: Serve, anyio_backend_name: Any) -> None:
    """If the kernel has no room for an answer, `send_packet()` waits, and others are served."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            self.note("sending")
            await client.send_packet(request)

    class Narrow:
        """An endpoint without room for as long as the test wants."""

        def __init__(self, endpoint: Any) -> None:
            self.endpoint = endpoint
            self.waiting = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.endpoint, name)

        def send(self, data: bytes, address: Any, ancillary: Any = None) -> bool:
            return handler.released.is_set() and self.endpoint.send(data, address, ancillary)

        async def writable(self) -> None:
            self.waiting += 1
            await handler.released.wait()
            await self.endpoint.writable()

    narrow: Any = None

    def wrap(sock: socket.socket, calls: Any = None) -> Any:
        nonlocal narrow
        narrow = Narrow(wrap_datagram_socket(sock, calls))
        return narrow

    backend: Any = new_builtin_backend(anyio_backend_name)
    wrap_datagram_socket = backend.wrap_datagram_socket
    narrowing = type("Narrowing", (type(backend),), {"wrap_datagram_socket": staticmethod(wrap)})
    handler = Handler()
    async with serve(handler, backend=narrowing()) as service:
        peers = [service.connect() for _ in range(3)]
        for peer in peers:
            peer.send("hello")
        await handler.noted("sending", times=3)
        await service.statistics(peers=3)
        assert narrow.waiting == 3
        handler.released.set()
        for peer in peers:
            assert await peer.receive() == "hello"


# -- closing


async def test_closing(serve: Serve) -> None:
    """A client is closed when the server does not serve, and cannot be sent to then."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            exit_stack.push_async_callback(self.try_to_send, "unwound")
            for client in self.clients:
                await self.try_to_send(f"init {client.is_closing()}")

        async def try_to_send(self, moment: str) -> None:
            for client in self.clients:
                assert client.is_closing()
                with pytest.raises(ClientClosedError, match="^Closed client$"):
                    await client.send_packet("too late")
                self.note(moment)

    handler = Handler()
    async with serve(handler) as service:
        await service.connect().ask("hello")
        [client] = handler.clients
        assert not client.is_closing()
        await service.server.shutdown()
        assert handler.notes[-1] == "unwound"
        await handler.try_to_send("listening")
        async with serving(service.server):
            assert handler.notes[-1] == "init True"
            assert not client.is_closing()
            await service.server.server_close()
            await handler.try_to_send("closed")


async def test_send_while_stopping(serve: Serve) -> None:
    """A handler that is cancelled may still say goodbye."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("waiting")
            try:
                yield
            finally:
                assert not client.is_closing()
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                    await client.send_packet("bye")

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        assert await peer.receive() == "bye"
