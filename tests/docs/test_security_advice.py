"""Show what happens to a program that does, or does not, what the page about security advises.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. The rest of the page is in `test_security`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import os
import pickle
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.addresses import TLSAttribute
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import (
    DeserializeError,
    PacketConversionError,
    StreamProtocolParseError,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    CBORSerializer,
    JSONSerializer,
    MessagePackSerializer,
    PickleSerializer,
    StringLineSerializer,
)
from easynetwork.servers import Limits
from easynetwork.servers.handlers import (
    AsyncDatagramRequestHandler,
    AsyncStreamRequestHandler,
    INETClientAttribute,
    UNIXClientAttribute,
)
from easynetwork.servers.statistics import CloseReason
from easynetwork.testing import MemoryNetwork, serve
from tests.docs.howto_support import check_quotations, table
from tests.docs.unix_support import (
    connected as unix_connected,
    new_server,
    serving as unix_serving,
    short_folder,
)
from tests.docs.virtual_support import LINES, Client, ending, virtual
from tests.tls_peers import authority, client_context, server_context

PAGE = "security.rst"
HOUR = 3600.0

Requests = AsyncGenerator[float | None, str]


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Echo(AsyncStreamRequestHandler[str, str]):
    """Answers, and notes why connections end."""

    def __init__(self) -> None:
        self.reasons: list[CloseReason | None] = []

    async def handle(self, client: Client) -> Requests:
        request = yield None
        if request == "flood":
            await client.send_packet("x" * 4_000_000)
        await client.send_packet(request)

    async def on_disconnection(self, client: Client) -> None:
        self.reasons.append(client.close_reason)


# What you can rely on


@virtual
async def test_deadlines() -> None:
    """A client that does nothing more has to leave, wherever it has come to.

    "each wait for a client has a deadline or, as with idle_timeout, a setting for one."
    """
    for tls in False, True:
        options: dict[str, Any] = {"ssl": server_context()} if tls else {}
        async with serve(Echo(), LINES, limits=Limits.public(), **options) as served:
            for data in b"", b"hel", b"hello\n", b"hello\nhel", b"flood\n":
                raw = await served.connect(raw=True)
                await raw.send(data)
            if tls:
                client = await served.connect(ssl=client_context(), server_hostname="localhost")
                await client.send_packet("hello")
            assert served.server.get_statistics().clients >= 3
            await anyio.sleep(HOUR)
            assert served.server.get_statistics().clients == 0
    async with serve(Echo(), LINES) as served:
        for data in b"hel", b"flood\n":
            raw = await served.connect(raw=True)
            await raw.send(data)
        await anyio.sleep(HOUR)
        assert served.server.get_statistics().clients == 0


@pytest.mark.parametrize("log_client_connection", [True, False])
@virtual
async def test_lines_of_connections(
    log_client_connection: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred clients come at the same moment, and send what is not text.

    "Lines that clients can cause are limited per second, and the rest is counted. The lines for
    connecting and disconnecting are not, unless you turn them off"
    """
    caplog.set_level(logging.INFO, "easynetwork")
    protocol: Any = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    options: dict[str, Any] = {"log_client_connection": log_client_connection}
    async with serve(Echo(), protocol, **options) as served:
        for _ in range(100):
            raw = await served.connect(raw=True)
            await raw.send(b"\xff\n")
        await anyio.wait_all_tasks_blocked()
        suppressed = served.server.get_statistics().suppressed_log_lines
    lines = Counter(record.levelname for record in caplog.records if "198.51" in record.message)
    assert lines["INFO"] == (200 if log_client_connection else 0)
    assert 3 <= lines["WARNING"] == 100 - suppressed < 50  # a slow machine takes seconds


# What a connection costs, and attacks


@virtual
async def test_lower_limits() -> None:
    """Both numbers bound what is held.

    "If your machine has less, lower max_clients and limit."

    "Set the limit of the serializer to the size of your largest request."

    "Set max_clients to what your machine can serve, if each client costs as much as it can."
    """

    class Handler(Echo):
        async def handle(self, client: Client) -> Requests:
            try:
                await client.send_packet((yield None))
            except StreamProtocolParseError:
                await client.send_packet("too long")

    protocol: Any = StreamProtocol(StringLineSerializer(limit=1000))
    async with serve(Handler(), protocol, limits=Limits(max_clients=2)) as served:
        for request, response in ("x" * 1000, "x" * 1000), ("x" * 1002, "too long"):
            raw = await served.connect(raw=True)
            await raw.send(request.encode())
            await raw.send(b"\n")
            assert await raw.receive() == f"{response}\n".encode()
        assert await ending(await served.connect(raw=True)) == "reset"


def test_other_attacks() -> None:
    """What is on the one page is not on the other.

    "Another page has the table of attacks with connections, slow clients and datagrams."
    """
    attacks = [row[0] for row in table("howto/limits.rst", "Attack", "By default")]
    for word in "connections", "Slow loris", "never reads", "Datagrams":
        assert any(word in attack for attack in attacks), word


@pytest.mark.parametrize(
    "serializer_class", [JSONSerializer, MessagePackSerializer, CBORSerializer]
)
def test_depth(serializer_class: Any) -> None:
    """The last level that is allowed, and one more.

    "A parse error, if there are more than max_depth levels."
    """
    for depth in 1, 5, 128:
        packet: Any = 1
        for _ in range(depth):
            packet = [packet]
        serializer = serializer_class(max_depth=depth)
        writer = serializer_class(max_depth=1000)
        assert serializer.deserialize(writer.serialize(packet)) == packet
        with pytest.raises(DeserializeError):
            serializer.deserialize(writer.serialize([packet]))


# What is up to you


@virtual
async def test_address_is_no_proof() -> None:
    """Another client comes later, and has the same address.

    "An address is not a proof of identity."
    """
    seen: list[Any] = []

    class Handler(Echo):
        async def on_connection(self, client: Client) -> None:
            seen.append(client.extra(INETClientAttribute.remote_address))

    async with serve(Handler(), LINES) as served:
        for _ in range(2):
            raw = await served.connect(raw=True, local_address=("192.0.2.7", 50_000))
            await anyio.wait_all_tasks_blocked()
            raw.close()
            await anyio.wait_all_tasks_blocked()
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_proofs_of_identity() -> None:
    """The handler reads the name in a certificate, and the user at the other end of a Unix socket.

    "Check a password, or use client certificates (howto/tcp_servers) or the credentials of a Unix
    socket (howto/unix_servers)."
    """

    class Asking(Echo):
        async def handle(self, client: Any) -> Requests:
            yield None
            certificate = client.extra(TLSAttribute.peercert, None)
            if certificate is None:
                answer = str(client.extra(UNIXClientAttribute.peer_credentials).uid)
            else:
                answer = dict(certificate["subjectAltName"])["email"]
            await client.send_packet(answer)

    async def main() -> None:
        demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority().issue_cert("localhost").configure_cert(demanding)
        authority().configure_trust(demanding)
        demanding.verify_mode = ssl.CERT_REQUIRED
        context = ssl.create_default_context()
        authority().configure_trust(context)
        authority().issue_cert("zoe@example.com").configure_cert(context)
        async with serve(Asking(), LINES, ssl=demanding) as served:
            client = await served.connect(ssl=context, server_hostname="localhost")
            await client.send_packet("who am I?")
            assert await client.recv_packet() == "zoe@example.com"
        with short_folder() as folder:
            async with unix_serving(new_server(folder / "s", Asking())):
                with unix_connected(folder / "s") as peer:
                    assert await peer.ask("who am I?") == str(os.geteuid())

    anyio.run(main)


@virtual
async def test_strangers() -> None:
    """A client has ten seconds until it has logged in, and an hour after that.

    "Give strangers narrow limits until they have logged in"
    """

    class Login(Echo):
        async def handle(self, client: Client) -> Requests:
            if (yield None) == "password":
                client.set_limits(idle_timeout=HOUR)
            await client.send_packet("ok")

    handler = Login()
    async with serve(handler, LINES, limits=Limits(idle_timeout=10)) as served:
        user, stranger = await served.connect(), await served.connect()
        await user.send_packet("password")
        await stranger.send_packet("guess")
        await anyio.sleep(60)
        assert handler.reasons == [CloseReason.IDLE_TIMEOUT]
        assert await user.recv_packet() == "ok"
        await user.send_packet("hello")
        assert await user.recv_packet() == "ok"


@virtual
async def test_login_in_time() -> None:
    """The login has a timeout of its own.

    "Add a timeout for the login, for example yield 10."
    """

    class Login(Echo):
        async def on_connection(self, client: Client) -> Requests:
            yield 10

    async with serve(Login(), LINES) as served:
        raw = await served.connect(raw=True)
        start = anyio.current_time()
        assert await ending(raw) == "end"
        assert anyio.current_time() - start == pytest.approx(10)
        raw = await served.connect(raw=True)
        await raw.send(b"password\n")
        await anyio.sleep(HOUR)
        await raw.send(b"hello\n")
        assert await raw.receive() == b"hello\n"


@virtual
async def test_clear_text() -> None:
    """A server without TLS understands what was not encrypted; one with TLS does not.

    "Without ssl, everything is sent in clear text."

    "Pass ssl, with a context of ssl.create_default_context()."
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("localhost").configure_cert(context)
    for tls in None, context:
        async with serve(Echo(), LINES, ssl=tls) as served:
            raw = await served.connect(raw=True)
            await raw.send(b"secret\n")
            received = b""
            with anyio.move_on_after(1):
                with contextlib.suppress(ConnectionResetError):
                    received = await raw.receive()
            assert (received == b"secret\n") is (tls is None)
            if tls is not None:
                client = await served.connect(ssl=client_context(), server_hostname="localhost")
                await client.send_packet("secret")
                assert await client.recv_packet() == "secret"


@dataclasses.dataclass
class Order:
    number: int


class OrderConverter(AbstractPacketConverterComposite[Any, Order, Any, Any]):
    """Accepts from one to a hundred pieces."""

    def create_from_dto_packet(self, packet: Any) -> Order:
        match packet:
            case {"number": int(number)} if 1 <= number <= 100:
                return Order(number)
        raise PacketConversionError("not an order")

    def convert_to_dto_packet(self, obj: Any) -> Any:
        return obj


@virtual
async def test_meaning() -> None:
    """An order of no pieces is valid JSON, and so is one of a text.

    "A serializer checks the form, not the meaning. Check types, ranges and lengths in a converter,
    so that wrong values are errors of the client, not bugs of your handler."
    """

    class Shop(Echo):
        async def handle(self, client: Any) -> AsyncGenerator[None, Any]:
            order = yield
            number = order["number"] if isinstance(order, dict) else order.number
            await client.send_packet([1] * (100 // number))

    serializer = JSONSerializer()
    protocols: list[tuple[Any, Any]] = [
        (StreamProtocol(serializer), CloseReason.HANDLER_ERROR),
        (StreamProtocol(serializer, OrderConverter()), CloseReason.INVALID_DATA),
    ]
    for protocol, reason in protocols:
        handler: Any = Shop()
        async with serve(handler, protocol) as served:
            for data in b'{"number": 0}', b'{"number": "five"}', b"{}":
                raw = await served.connect(raw=True)
                await raw.send(data + b"\n")
                await ending(raw)
            await anyio.wait_all_tasks_blocked()
            assert handler.reasons == [reason] * 3
            raw = await served.connect(raw=True)
            await raw.send(b'{"number": 50}\n')
            assert await raw.receive() == b"[1,1]\n"


class Program:
    """A packet that makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_pickle(tmp_path: Path) -> None:
    """The file is made by the receiver.

    "A PickleSerializer runs code of the sender."
    """
    file = tmp_path / "file"
    data = pickle.dumps(Program(file))
    assert not file.exists()
    PickleSerializer().deserialize(data)
    assert file.exists()


@virtual
async def test_errors_for_errors() -> None:
    """Two servers answer what is not valid with what is not valid; one datagram is enough.

    "do not answer errors with errors: two servers that do so never stop."
    """
    count = 0
    enough = anyio.Event()

    class Impolite(AsyncDatagramRequestHandler[Any, Any]):
        async def handle(self, client: Any) -> AsyncGenerator[None, Any]:
            nonlocal count
            request = yield
            count += 1
            if count == 1000:
                enough.set()
            elif not enough.is_set():
                await client.send_packet(f"error: {request!r} is no request"[:50])

    network, protocol = MemoryNetwork(), DatagramProtocol(StringLineSerializer())
    async with (
        serve(Impolite(), protocol, network=network) as one,
        serve(Impolite(), protocol, network=network) as other,
    ):
        await one.server.client_for(other.address).send_packet("hello")
        await enough.wait()
    assert count == 1000


@virtual
async def test_rates_and_data() -> None:
    """One handler keeps everything, the other one counts.

    "If a request is expensive, count the requests of each client in your handler, and close a
    client that sends too many."

    "A list or a dictionary that grows with each request is not bounded by easynetwork."
    """

    class Keeping(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.requests: list[str] = []

        async def handle(self, client: Client) -> Requests:
            self.requests.append((yield None))

    class Counting(Keeping):
        async def handle(self, client: Client) -> Requests:
            for _ in range(10):
                self.requests.append((yield None))
            await client.aclose()

    for handler, number in (Keeping(), 10_000), (Counting(), 10):
        async with serve(handler, LINES, limits=Limits.public()) as served:
            raw = await served.connect(raw=True)
            await raw.send(b"x\n" * 10_000)
            await anyio.sleep(1)
            assert len(handler.requests) == number


@virtual
async def test_time_in_the_handler() -> None:
    """A request takes a day, though all other limits are narrow.

    "There is no limit for the time in which your handler works."
    """

    class Slow(Echo):
        async def handle(self, client: Client) -> Requests:
            request = yield None
            await anyio.sleep(24 * HOUR)
            await client.send_packet(request)

    async with serve(Slow(), LINES, limits=Limits.public()) as served:
        client = await served.connect()
        await client.send_packet("hello")
        assert await client.recv_packet() == "hello"


def test_computing() -> None:
    """Another client asks meanwhile.

    "A handler that computes for long stops the event loop, and with it all clients: use
    client.backend().run_in_thread()."
    """

    class Computing(Echo):
        async def handle(self, client: Client) -> Requests:
            request = yield None
            if request == "stop the loop":
                time.sleep(0.02)  # noqa: ASYNC251 - that is the mistake
            elif request == "use a thread":
                await client.backend().run_in_thread(free.wait, 10)
            await client.send_packet(request)
            answered.append(request)

    async def main(request: str) -> None:
        async with serve(Computing(), LINES) as served:
            one, other = await served.connect(), await served.connect()
            await one.send_packet(request)
            await other.send_packet("hello")
            assert await other.recv_packet() == "hello"
            free.set()
            assert await one.recv_packet() == request

    for request, expected in (
        ("stop the loop", ["stop the loop", "hello"]),
        ("use a thread", ["hello", "use a thread"]),
    ):
        answered: list[str] = []
        free = threading.Event()
        anyio.run(main, request)
        assert answered == expected


def test_production() -> None:
    """It is off by default, and what it shows is a client's.

    "With debug=True, the errors of a serializer contain what was received. Leave it off in
    production."
    """
    assert inspect.signature(JSONSerializer).parameters["debug"].default is False
    infos = []
    for debug in False, True:
        with pytest.raises(DeserializeError) as caught:
            JSONSerializer(debug=debug).deserialize(b"password")
        infos.append(caught.value.error_info)
    assert infos[0] is None
    assert "password" in str(infos[1])


def test_two_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the default, two servers may take more descriptors than there are.

    "Each server has limits of its own. The sum of all max_clients in a process should be less than
    its limit of descriptors."
    """
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    allowed = Limits().in_force().max_clients
    assert isinstance(allowed, int)
    assert allowed < 1000 < 2 * allowed


# Checklist for a public port


@virtual
async def test_proxy() -> None:
    """All clients in memory have one address, as those of a proxy.

    "Behind a proxy, replace max_clients_per_host by None."
    """
    proxied = dataclasses.replace(Limits.public(), max_clients_per_host=None)
    for limits, served_clients in (Limits.public(), 100), (proxied, 101):
        async with serve(Echo(), LINES, limits=limits) as served:
            for _ in range(101):
                await served.connect(raw=True)
            await anyio.wait_all_tasks_blocked()
            assert served.server.get_statistics().clients == served_clients


@virtual
async def test_statistics() -> None:
    """They say which limits clients have reached.

    "Watch server.get_statistics()"
    """
    async with serve(Echo(), LINES, limits=Limits.public()) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"hel")
        await anyio.sleep(60)
        statistics = served.server.get_statistics()
        assert statistics.closed == {CloseReason.FIRST_PACKET_TIMEOUT: 1}
        assert statistics.bytes_received == 3
