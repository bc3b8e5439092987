"""A conversation that goes on over TLS: `client.start_tls()`."""

from __future__ import annotations

import math
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import SocketAncillary, TLSAttribute
from easynetwork.exceptions import (
    BusyResourceError,
    ClientClosedError,
    TypedAttributeLookupError,
    UnsupportedOperation,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.servers._stream.watch import Watch
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import RecvAncillaryDataParams, RecvParams
from tests.conformance.changes_support import (
    RAW,
    Client,
    Number,
    Scripted,
    TLSPeer,
    drain,
    lines,
    record,
    send_byte_by_byte,
)
from tests.conformance.peers import BasePeer
from tests.conformance.support import (
    Narrow,
    Recorder,
    Records,
    Requests,
    Serve,
    Service,
    one_protocol,
)
from tests.decoding import GeneratorBufferedProtocol, GeneratorStreamProtocol
from tests.times import MS
from tests.tls_peers import (
    NEWEST,
    authority,
    client_context,
    new_client_context,
    new_server_context,
    server_context,
)

pytestmark = [pytest.mark.anyio, one_protocol]

NUMBERS = StreamProtocol(Number())
HELLO = b"\x16\x03\x01\2\0\1\0\1\xfc\x03\x03" + bytes(50)  # a tenth of one


@pytest.fixture(params=["tcp", "unix", "memory"])
def transport(request: pytest.FixtureRequest) -> str:
    """Return what packets travel over at first."""
    return str(request.param)


class Upgrading(Recorder):
    """Knows the command "STARTTLS"; echoes all others, as many as come."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.error: BaseException | None = None

    async def handle(self, client: Client) -> Requests:
        request = yield
        self.note(request)
        if request == "STARTTLS":
            await client.send_packet("go ahead")
            with self.noting_errors():
                await self.start_tls(client)
            self.note("TLS")
        else:
            await client.send_packet(request)

    async def start_tls(self, client: Client) -> None:
        await client.start_tls(server_context(), **self.options)


class Meanwhile(Upgrading):
    """Calls a function while the handshake waits for the client, in a task of its own."""

    def __init__(self, meanwhile: Callable[[Client], Awaitable[object]], **options: Any) -> None:
        super().__init__(**options)
        self._meanwhile = meanwhile

    async def start_tls(self, client: Any) -> None:
        client.start_soon(self._run, client)
        await super().start_tls(client)

    async def _run(self, client: Any) -> None:
        while client.transport.make_room(math.inf):
            await anyio.lowlevel.checkpoint()
        self.note("begun")
        with self.noting_errors():
            await self._meanwhile(client)
        self.note("meanwhile")


async def upgraded(service: Service, context: ssl.SSLContext | None = None) -> TLSPeer:
    """Return a new peer, after the handshake."""
    peer = await service.connect()
    assert await peer.ask("STARTTLS") == "go ahead"
    tls = TLSPeer(peer, context)
    await tls.start()
    return tls


def only_fault(log: Records) -> str:
    """Return the only line of warnings, and forget it."""
    [(level, message, exc)] = log.problems()
    assert (level, exc) == ("WARNING", None)
    return message


# -- In order ----------------------------------------------------------------------------------


async def test_conversation(serve: Serve, log: Records) -> None:
    """Packets go both ways, encrypted, and the end is as in any conversation over TLS."""
    handler = Upgrading()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("in clear text") == "in clear text"
        peer.close()
        tls = await upgraded(service)
        assert await tls.ask("one", "two", "three") == "one"
        assert await tls.receive_lines(2) == ["two", "three"]
        large = "x" * 100_000
        await tls.send_much(f"{large}\n".encode())
        assert await tls.receive() == large
        tls.send_eof()
        assert await tls.rest() == ("", "EOF")
        await handler.noted("on_disconnection", times=2)
    assert not [line for line in log.messages(0) if "TLS" in line]


async def test_attributes(serve: Serve) -> None:
    """What is known of TLS is known from then on, beside all that was known before."""

    class Handler(Upgrading):
        async def start_tls(self, client: Client) -> None:
            before = {key: client.extra(key, None) for key in client.extra_attributes}
            with pytest.raises(TypedAttributeLookupError):
                client.extra(TLSAttribute.tls_version)
            await super().start_tls(client)
            after = {key: client.extra(key, None) for key in client.extra_attributes}
            assert after[TLSAttribute.sslcontext] is server_context()
            assert after[TLSAttribute.tls_version] == "TLSv1.3"
            assert after[TLSAttribute.standard_compatible] is True
            assert client.extra(TLSAttribute.peercert, "nobody's") == "nobody's"
            assert client.extra(TLSAttribute.cipher)
            assert before.keys() <= after.keys()

        async def on_disconnection(self, client: Client) -> None:
            assert client.extra(TLSAttribute.tls_version) == "TLSv1.3"
            self.note("on_disconnection")

    handler = Handler()
    async with serve(handler) as service:
        tls = await upgraded(service)
        assert await tls.ask("hello") == "hello"
        tls.close()
        await handler.noted("on_disconnection")


@pytest.mark.parametrize("newer", [False, True], ids=["1.2", "1.3"])
async def test_client_certificate(serve: Serve, newer: bool) -> None:
    """A client may have to have a certificate."""
    context = new_server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(context)

    class Handler(Upgrading):
        async def start_tls(self, client: Client) -> None:
            await client.start_tls(context)
            assert client.extra(TLSAttribute.peercert)["subjectAltName"] == (("email", "a@b.cz"),)

    presenting = new_client_context()
    presenting.maximum_version = NEWEST if newer else ssl.TLSVersion.TLSv1_2
    authority().issue_cert("a@b.cz").configure_cert(presenting)
    async with serve(Handler()) as service:
        tls = await upgraded(service, presenting)
        assert await tls.ask("hello") == "hello"


# -- A ClientHello that comes early ------------------------------------------------------------

Send: TypeAlias = Callable[[BasePeer, bytes], Awaitable[None]]


async def send_at_once(peer: BasePeer, data: bytes) -> None:
    peer.send_bytes(data)


async def send_in_pieces(peer: BasePeer, data: bytes) -> None:
    # A Unix socket that is not read holds 278 pieces, of whatever size (measured).
    await send_byte_by_byte(peer, data, 16)


@pytest.mark.parametrize("send", [send_at_once, send_in_pieces])
@pytest.mark.parametrize("when", ["with the command", "before the reply", "after the reply"])
async def test_early_hello(serve: Serve, when: str, send: Send) -> None:
    """Whenever it comes, and in how many pieces, it is the beginning of the handshake."""
    handler = Upgrading()
    sent = anyio.Event()
    if when == "before the reply":

        async def wait_and_start(client: Client) -> None:
            await sent.wait()
            await Upgrading.start_tls(handler, client)

        handler.start_tls = wait_and_start
    async with serve(handler) as service:
        peer = await service.connect()
        tls = TLSPeer(peer)
        if when == "with the command":
            await send(peer, b"one\ntwo\nSTARTTLS\n" + tls.hello())
        else:
            peer.send("one", "two", "STARTTLS")
            if when == "after the reply":
                assert await peer.receive_lines(3) == ["one", "two", "go ahead"]
            await send(peer, tls.hello())
            sent.set()
        if when != "after the reply":
            assert await peer.receive_lines(3) == ["one", "two", "go ahead"]
        await tls.start()
        assert await tls.ask("hello") == "hello"
    assert handler.notes[1:] == ["one", "two", "STARTTLS", "TLS", "hello", "on_disconnection"]


PROTOCOLS: dict[str, tuple[Any, bytes]] = {
    "raw": (RAW, b""),
    "numbers": (NUMBERS, b"\0\0\0\1"),
    "generator": (GeneratorStreamProtocol(lines("CRLF")), b"\r\n"),
    "buffer": (GeneratorBufferedProtocol(lines("CR")), b"\r"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_early_hello_and_protocols(serve: Serve, protocol: str) -> None:
    """Whatever the protocol at that moment: none of it is parsed, also if it looks like packets."""
    before, first = PROTOCOLS[protocol]

    async def script(client: Client) -> None:
        assert await client.recv_packet() == "go"
        client.set_protocol(before)
        if first:
            await client.recv_packet()
        await client.start_tls(server_context())
        client.set_protocol(NUMBERS)
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        tls = TLSPeer(peer)
        peer.send_bytes(b"go\n" + first + tls.hello())
        await tls.start()
        tls.send_bytes(b"\0\0\0\n")
        assert await tls.receive() == "\0\0\0"


async def test_end_of_an_overlong_packet(serve: Serve) -> None:
    """What belongs to an error that was raised is not part of the handshake."""
    handler = Upgrading()
    async with serve(handler, limit=50) as service:

        async def handle(client: Client) -> Requests:
            try:
                yield
            except Exception as exc:
                await client.send_packet(type(exc).__name__)
            await client.start_tls(server_context())
            await client.send_packet((yield))

        handler.handle = handle
        peer = await service.connect()
        assert await peer.ask("x" * 100) == "StreamProtocolParseError"
        await TLSPeer(peer).start()

        peer = await service.connect()
        peer.send_bytes(b"x" * 100)
        assert await peer.receive() == "StreamProtocolParseError"
        tls = TLSPeer(peer)
        await send_byte_by_byte(peer, b"xx\n" + tls.hello())
        await tls.start()
        assert await tls.ask("hello") == "hello"


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_first_packets_come_with_the_handshake(serve: Serve, size: int) -> None:
    """Packets that come together with the client's last message are received, however cut."""
    handler = Upgrading()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        tls = TLSPeer(peer)
        peer.send_bytes(tls.hello())
        sent: list[bytes] = []
        vars(peer)["send_bytes"] = sent.append
        await tls.start()
        tls.send("one", "two")
        del peer.send_bytes
        data = b"".join(sent)
        for start in range(0, len(data), size):
            peer.send_bytes(data[start : start + size])
            await anyio.lowlevel.checkpoint()
        assert await tls.receive_lines(2) == ["one", "two"]


async def test_watched(serve: Serve) -> None:
    """A client that is watched for its end can start TLS, and is watched after it."""

    class Handler(Upgrading):
        async def greet(self, client: Client) -> None:
            client.start_soon(self.watch, client)
            await super().greet(client)

        async def watch(self, client: Client) -> None:
            await client.wait_disconnected()
            self.note("left")

    handler = Handler()
    async with serve(handler) as service:
        for count, is_early in enumerate([False, True], 1):
            peer = await service.connect()
            tls = TLSPeer(peer)
            peer.send_bytes(b"STARTTLS\n" + (tls.hello() if is_early else b""))
            assert await peer.receive() == "go ahead"
            await tls.start()
            assert await tls.ask("hello") == "hello"
            assert handler.notes.count("left") == count - 1
            tls.send_eof()
            await handler.noted("left", times=count)
            assert await tls.rest() == ("", "EOF")


# -- Injected plaintext ------------------------------------------------------------------------

INJECTED = {
    "a command": b"RSET\r\n",
    "a letter": b"x",
    "an end of line": b"\n",
    "a record of plaintext": record(23, b"RSET\n"),
    "a broken handshake": record(22, b"RSET\n"),
}


async def check_injection(
    serve: Serve, log: Records, attack: Callable[[BasePeer, TLSPeer], Awaitable[None]]
) -> None:
    handler = Upgrading()
    async with serve(handler) as service:
        peer = await service.connect()
        await attack(peer, TLSPeer(peer))
        await handler.noted("SSLError")
        await drain(peer)
        await handler.noted("on_disconnection")
    message = only_fault(log)
    assert message.startswith(f"Error in client task (during TLS handshake) of {peer.name}: SSL")
    assert message.isprintable()
    assert handler.notes == ["on_connection", "STARTTLS", "SSLError", "on_disconnection"]


@pytest.mark.parametrize("injected", INJECTED)
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "byte by byte"])
async def test_injected_with_the_command(
    serve: Serve, log: Records, injected: str, is_cut: bool
) -> None:
    """Plaintext after the command is never parsed: it makes the handshake fail."""

    async def attack(peer: BasePeer, tls: TLSPeer) -> None:
        data = b"STARTTLS\n" + INJECTED[injected] + tls.hello()
        if is_cut:
            with suppress(ConnectionError):  # the server does not wait for all of it
                await send_byte_by_byte(peer, data)
        else:
            peer.send_bytes(data)

    await check_injection(serve, log, attack)


@pytest.mark.parametrize("transport", ["memory"])
@pytest.mark.parametrize("size", range(1, 16))
async def test_injected_for_each_split(serve: Serve, log: Records, size: int) -> None:
    """So it is wherever the stream is cut, and whenever the second half comes."""

    async def attack(peer: BasePeer, tls: TLSPeer) -> None:
        data = b"STARTTLS\nRSET\n" + tls.hello()
        peer.send_bytes(data[:size])
        for _ in range(size):
            await anyio.lowlevel.checkpoint()
        peer.send_bytes(data[size:])

    await check_injection(serve, log, attack)


async def test_injected_after_the_reply(serve: Serve, log: Records) -> None:
    """Also if the client has the answer."""

    async def attack(peer: BasePeer, tls: TLSPeer) -> None:
        assert await peer.ask("STARTTLS") == "go ahead"
        peer.send_bytes(b"RSET\n")
        peer.send_bytes(tls.hello())

    await check_injection(serve, log, attack)


@pytest.mark.parametrize("is_early", [False, True], ids=["after the hello", "after the handshake"])
async def test_injected_into_the_handshake(serve: Serve, log: Records, is_early: bool) -> None:
    """Later it is as with any connection over TLS: one line, and nothing is parsed."""
    handler = Upgrading()
    async with serve(handler) as service:
        if is_early:
            peer: BasePeer = (await upgraded(service)).plain
            peer.send_bytes(b"RSET\n" * 10)
            expected = f"TLS connection of {peer.name} broke: SSLError: "
        else:
            peer = await service.connect()
            peer.send_bytes(b"STARTTLS\n" + TLSPeer(peer).hello() + b"RSET\n" * 10)
            expected = f"Error in client task (during TLS handshake) of {peer.name}: SSLError: "
        await handler.noted("on_disconnection")
        await drain(peer)
    assert only_fault(log).startswith(expected)
    assert "RSET" not in handler.notes


async def test_injected_and_no_more(serve: Serve, log: Records) -> None:
    """Less than the beginning of a record tells nothing: it only takes too long."""
    handler = Upgrading(ssl_handshake_timeout=10 * MS)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"STARTTLS\nQ\n")
        await handler.noted("TimeoutError")
        assert (await peer.rest())[1] == "reset"
        await handler.noted("on_disconnection")
    await log.logged("left during the TLS handshake: TimeoutError", minimum=0)
    assert "Q" not in handler.notes


async def test_error_that_is_caught(serve: Serve, log: Records) -> None:
    """A handler may catch the error; the client is closed all the same, and delivers nothing."""
    errors: list[Exception] = []

    async def script(client: Client) -> None:
        await client.recv_packet()
        with pytest.raises(ssl.SSLError):
            await client.start_tls(server_context())
        assert client.is_closing()
        assert client.extra(TLSAttribute.tls_version, None) is None
        assert not client.try_send_packet("anyone?")
        for operation in (
            lambda: client.send_packet("anyone?"),
            lambda: client.recv_packet(),
            lambda: client.start_tls(server_context()),
        ):
            with pytest.raises(ClientClosedError):
                await operation()
        with pytest.raises(ClientClosedError):
            client.set_protocol(NUMBERS)
        await client.wait_disconnected()
        errors.append(RuntimeError("all of these"))

    handler = Scripted(script)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("STARTTLS", "QUIT", "QUIT")
        await peer.rest()
        await handler.noted("on_disconnection")
    assert errors
    only_fault(log)
    assert handler.notes == ["on_connection", "on_disconnection"]


# -- Senders -----------------------------------------------------------------------------------


async def test_sent_before(serve: Serve) -> None:
    """What was sent before leaves first, in clear text: also answers that were only gathered."""

    async def script(client: Client) -> None:
        for _ in range(3):
            await client.recv_packet()
            await client.send_packet("an answer")
        assert client.try_send_packet("go ahead")
        await client.start_tls(server_context())
        await client.send_packet("encrypted")

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        tls = TLSPeer(peer)
        peer.send_bytes(b"one\ntwo\nthree\n" + tls.hello())
        assert await peer.receive_lines(4) == ["an answer"] * 3 + ["go ahead"]
        await tls.start()
        assert await tls.receive() == "encrypted"


@pytest.mark.parametrize("transport", ["tcp", "memory"])
async def test_sent_while_the_watch_lets_go(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gathered at the last moment before it begins leaves in clear text, too."""
    hold = Watch.hold

    async def hold_and_send(watch: Watch) -> None:
        await hold(watch)
        await watch._client.send_packet("at the last moment")

    monkeypatch.setattr(Watch, "hold", hold_and_send)

    class Handler(Upgrading):
        async def greet(self, client: Client) -> None:
            client.start_soon(client.wait_disconnected)

        async def start_tls(self, client: Any) -> None:
            while client.watch is None or not client.decoder.at_hand:
                await anyio.lowlevel.checkpoint()
            await super().start_tls(client)

    async with serve(Handler()) as service:
        peer = await service.connect()
        while b"\n" not in (hello := (tls := TLSPeer(peer)).hello()):  # a packet, at first sight
            pass
        peer.send_bytes(b"STARTTLS\n" + hello)
        assert await peer.receive_lines(2) == ["go ahead", "at the last moment"]
        await tls.start()
        assert await tls.ask("hello") == "hello"


class Crowded(Narrow, Upgrading):
    """Starts TLS while more waits to be sent than the kernel takes, and tasks for their turn."""

    async def handle(self, client: Client) -> Requests:
        yield
        while client.try_send_packet("x" * 50_000):
            pass
        client.start_soon(self.send, client, "before")
        await self.noted("before")
        client.start_soon(self.start, client)
        await self.noted("start")
        client.start_soon(self.send, client, "after")
        await self.released.wait()
        client.start_soon(self.send, client, "at last")
        await self.noted("at last sent")
        await client.aclose()

    async def send(self, client: Client, packet: str) -> None:
        self.note(packet)
        await client.send_packet(packet)
        self.note(f"{packet} sent")

    async def start(self, client: Client) -> None:
        self.note("start")
        await client.start_tls(server_context(), **self.options)
        self.released.set()


async def test_senders_that_wait(serve: Serve) -> None:
    """Tasks that waited for their turn before send in clear text, those that came later do not."""
    handler = Crowded()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        tls = TLSPeer(peer)
        peer.send_bytes(b"go\n" + tls.hello())
        await handler.noted("after")
        while set(line := await peer.receive()) == {"x"}:
            pass
        assert line == "before"
        await tls.start()
        assert await tls.receive_lines(2) == ["after", "at last"]
        assert await tls.rest() == ("", "EOF")


async def test_client_that_does_not_read(serve: Serve, log: Records) -> None:
    """Time that passes before its turn counts, too. Nothing received is delivered any more."""

    class Handler(Crowded):
        async def start(self, client: Client) -> None:
            self.note("start")
            with pytest.raises(TimeoutError):
                await client.start_tls(server_context(), ssl_handshake_timeout=10 * MS)
            with pytest.raises(ClientClosedError):
                await client.recv_packet()
            self.note("refused")

        async def send(self, client: Client, packet: str) -> None:
            with pytest.raises(ConnectionError):
                await super().send(client, packet)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go", "QUIT")
        await handler.noted("refused")


async def test_failure_and_generator(serve: Serve) -> None:
    """Nor at the next `yield` of a handler that has caught the error."""

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            self.note((yield))
            while client.try_send_packet("x" * 50_000):
                pass
            with pytest.raises(TimeoutError):
                await client.start_tls(server_context(), ssl_handshake_timeout=10 * MS)
            self.note((yield))

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go", "QUIT")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "go", "on_disconnection"]


# -- What others do meanwhile ------------------------------------------------------------------


async def test_sending_meanwhile(serve: Serve) -> None:
    """`send_packet()` waits for the end of the handshake, `try_send_packet()` does not send."""
    group: ClientGroup[str] = ClientGroup()

    async def meanwhile(client: Client) -> None:
        group.add(client)
        assert not client.try_send_packet("not sent")
        assert group.broadcast("not sent either") == 0
        assert group.skipped == 1
        await client.send_packet("sent")

    handler = Meanwhile(meanwhile)
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        await handler.noted("begun")
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert "meanwhile" not in handler.notes
        tls = TLSPeer(peer)
        await tls.start()
        assert await tls.receive() == "sent"
        assert group.broadcast("to all") == 1
        assert await tls.receive() == "to all"


async def test_receiving_meanwhile(serve: Serve) -> None:
    """Receiving is busy, and so is all that changes the conversation."""

    async def meanwhile(client: Client) -> None:
        for operation in client.recv_packet, lambda: client.start_tls(server_context()):
            with pytest.raises(BusyResourceError):
                await operation()
        with pytest.raises(BusyResourceError):
            client.set_protocol(NUMBERS)
        assert not client.is_closing()

    handler = Meanwhile(meanwhile)
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        await handler.noted("meanwhile")
        tls = TLSPeer(peer)
        await tls.start()
        assert await tls.ask("hello") == "hello"


async def test_yield_meanwhile(serve: Serve, log: Records) -> None:
    """A `yield` while another task does the handshake is busy as well."""

    class Handler(Meanwhile):
        async def start_tls(self, client: Client) -> None:
            client.start_soon(Upgrading.start_tls, self, client)
            await self._run(client)

    async def nothing(client: Client) -> None:
        pass

    handler = Handler(nothing)
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        await handler.noted("on_disconnection")
        await peer.rest()
    [(_, _, exc)] = log.problems()
    assert type(exc) is BusyResourceError


async def test_busy(serve: Serve) -> None:
    """It cannot begin while a task waits for a packet; nothing has changed then."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            client.start_soon(self.try_to_start, client)
            packet = yield
            await client.send_packet(packet)

        async def try_to_start(self, client: Any) -> None:
            while not client.is_receiving:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(BusyResourceError):
                await client.start_tls(server_context())
            self.note("busy")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("busy")
        assert await peer.ask("hello") == "hello"


@pytest.mark.parametrize("how", ["aclose", "abort"])
async def test_closing_meanwhile(serve: Serve, log: Records, how: str) -> None:
    """Closing the client ends the handshake, at once."""

    async def close(client: Client) -> None:
        if how == "aclose":
            await client.aclose()
        else:
            client.abort()

    handler = Meanwhile(close)
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        assert (await peer.rest())[1] == ("EOF" if how == "aclose" else "reset")
        await handler.noted("on_disconnection")
    assert "ClientClosedError" in handler.notes
    [(level, message, exc)] = log.problems()
    assert (level, type(exc)) == ("WARNING", ClientClosedError)
    assert message == f"There have been attempts to do operation on closed client {peer.name}"


async def test_cancelled(serve: Serve, log: Records) -> None:
    """A handshake that was cancelled cannot go on: the connection is reset."""

    class Handler(Upgrading):
        async def start_tls(self, client: Client) -> None:
            with anyio.move_on_after(10 * MS) as scope:
                await super().start_tls(client)
            assert scope.cancelled_caught
            assert client.is_closing()
            with pytest.raises(ClientClosedError):
                await client.send_packet("anyone?")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        assert await peer.rest() == ("", "reset")
        await handler.noted("on_disconnection")


async def test_cancelled_by_the_watch(serve: Serve) -> None:
    """Also if it was cancelled while the task that watches the client had to let go of it."""

    class Handler(Upgrading):
        async def greet(self, client: Client) -> None:
            client.start_soon(client.wait_disconnected)

        async def start_tls(self, client: Client) -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await super().start_tls(client)
            assert client.is_closing()
            await client.wait_disconnected()
            self.note("left")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("STARTTLS")
        await handler.noted("left")
        assert (await peer.rest())[1] == "reset"


async def test_stopping(serve: Serve, log: Records) -> None:
    """A server that stops does not wait for handshakes."""
    handler = Upgrading()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        await service.server.shutdown()
        await peer.rest()
    assert handler.notes == ["on_connection", "STARTTLS", "cancelled", "on_disconnection"]


@pytest.mark.parametrize("data", [b"", HELLO], ids=["silent", "half a hello"])
@pytest.mark.parametrize("how", ["leave", "reset", "wait"])
async def test_nobodys_fault(serve: Serve, log: Records, how: str, data: bytes) -> None:
    """A client that leaves or that is silent is worth a line for debugging, if that."""
    handler = Upgrading(ssl_handshake_timeout=math.inf if how != "wait" else 10 * MS)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"STARTTLS\n" + data)
        assert await peer.receive() == "go ahead"
        if how == "leave":
            peer.send_eof()
        elif how == "reset":
            peer.reset()
        if how != "reset":
            assert (await peer.rest())[0] == ""
        await log.logged("left during the TLS handshake", minimum=0)
        await handler.noted("on_disconnection")
    error = "TimeoutError" if how == "wait" else "ConnectionAbortedError"
    assert handler.notes[2] in (error, "ConnectionResetError")
    await log.logged(f"{peer.name} left during the TLS handshake: {handler.notes[2]}", minimum=0)
    assert f"{peer.name} disconnected (the TLS handshake failed)" in log.messages()
    told = [line for line in log.messages(0) if "TLS" in line and "disconnected" not in line]
    assert len(told) == 1


@pytest.mark.parametrize("how", ["leave", "reset"])
async def test_watched_client_leaves_meanwhile(serve: Serve, how: str) -> None:
    """A task that waits for the client's end learns of it."""

    async def meanwhile(client: Client) -> None:
        await client.wait_disconnected()

    class Handler(Meanwhile):
        async def start_tls(self, client: Client) -> None:
            with pytest.raises(ConnectionError):
                await super().start_tls(client)
            await self.noted("meanwhile")

    handler = Handler(meanwhile)
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        await handler.noted("begun")
        if how == "leave":
            peer.send_eof()
        else:
            peer.reset()
        await handler.noted("meanwhile")


async def test_refused_by_the_client(serve: Serve, log: Records) -> None:
    """A client that does not trust the server says so, and is the one to blame in the log."""
    handler = Upgrading()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("STARTTLS") == "go ahead"
        with pytest.raises(ssl.SSLCertVerificationError):
            await TLSPeer(peer, ssl.create_default_context()).start()
        tls = TLSPeer(peer)
        await handler.noted("on_disconnection")
        tls.close()
    assert "alert unknown ca" in only_fault(log).replace("_", " ").lower()
    assert handler.notes[2:] == ["SSLError", "on_disconnection"]


# -- The end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_standard", [True, False])
@pytest.mark.parametrize("what", ["nothing", "half a packet", "half a record"])
async def test_truncation(serve: Serve, log: Records, is_standard: bool, what: str) -> None:
    """A client that leaves without a closing alert is counted, as on a server with TLS."""
    handler = Upgrading(ssl_standard_compatible=is_standard)
    async with serve(handler) as service:
        tls = await upgraded(service)
        assert await tls.ask("hello") == "hello"
        if what == "half a packet":
            tls.send_bytes(b"half")
        elif what == "half a record":
            tls.plain.send_bytes(b"\x17\3\3\1\0half")
        tls.plain.send_eof()
        await handler.noted("on_disconnection")
        if is_standard:
            await log.logged("without TLS's closing alert, as 1 clients so far", minimum=0)
    told = [line for line in log.messages(0) if "left without TLS's closing alert" in line]
    assert len(told) == is_standard


@pytest.mark.parametrize("is_standard", [None, True, False])
async def test_closing(serve: Serve, is_standard: bool | None) -> None:
    """The server ends the connection with a closing alert, if it is to be standard compatible."""

    class Handler(Upgrading):
        async def start_tls(self, client: Client) -> None:
            await super().start_tls(client)
            assert client.extra(TLSAttribute.standard_compatible) is (is_standard is not False)
            await client.send_packet("bye")
            await client.aclose()

    async with serve(Handler(ssl_standard_compatible=is_standard)) as service:
        tls = await upgraded(service)
        if is_standard is False:
            assert await tls.receive() == "bye"
            with pytest.raises((ssl.SSLEOFError, ConnectionError)):
                await tls.receive()
        else:
            assert await tls.rest() == ("bye\n", "EOF")


async def test_shutdown_timeout(serve: Serve, log: Records) -> None:
    """A client that does not read has so long, at the end."""

    class Handler(Narrow, Upgrading):
        async def start_tls(self, client: Client) -> None:
            await super().start_tls(client)
            while client.try_send_packet("x" * 50_000):
                pass
            await client.aclose()
            self.note("closed")

    handler = Handler(ssl_shutdown_timeout=10 * MS)
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        assert await peer.ask("STARTTLS") == "go ahead"
        await TLSPeer(peer).start()
        await handler.noted("closed")


async def test_protocol_after_it(serve: Serve) -> None:
    """Any change is possible after it, except to TLS."""

    async def script(client: Client) -> None:
        await client.recv_packet()
        await client.start_tls(server_context())
        with pytest.raises(RuntimeError, match="uses TLS already"):
            await client.start_tls(server_context())
        client.set_protocol(NUMBERS)
        assert await client.recv_packet() == 1
        client.set_protocol(RAW)
        await client.send_packet(await client.recv_packet())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        tls = TLSPeer(peer)
        peer.send_bytes(b"STARTTLS\n" + tls.hello())
        await tls.start()
        tls.send_bytes(b"\0\0\0\1raw\n")
        assert await tls.receive() == "raw"


# -- Arguments ---------------------------------------------------------------------------------

WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception]]] = {
    "True": (True, {}, TypeError),
    "None": (None, {}, TypeError),
    "a client's": (client_context(), {}, ValueError),
    "negative": (server_context(), {"ssl_handshake_timeout": -1}, ValueError),
    "nan": (server_context(), {"ssl_handshake_timeout": math.nan}, ValueError),
    "negative end": (server_context(), {"ssl_shutdown_timeout": -1}, ValueError),
    "unknown": (server_context(), {"server_hostname": "localhost"}, TypeError),
}


async def test_wrong_arguments(serve: Serve) -> None:
    """Nothing has changed after them."""

    class Handler(Upgrading):
        async def start_tls(self, client: Client) -> None:
            for context, options, error in WRONG.values():
                with pytest.raises(error):
                    await client.start_tls(context, **options)
            assert not client.is_closing()
            await super().start_tls(client)

    async with serve(Handler()) as service:
        tls = await upgraded(service)
        assert await tls.ask("hello") == "hello"


async def test_default_timeouts(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 seconds for the handshake; for the end, those of the server's limits."""
    used: list[Any] = []

    class Handler(Upgrading):
        async def start_tls(self, client: Any) -> None:
            await super().start_tls(client)
            used.append(client.transport)

    async with serve(Handler()) as service:
        tls = await upgraded(service)
        await tls.ask("hello")
    assert (used[0]._options.handshake_timeout, used[0].close_timeout) == (60, 30)


@pytest.mark.parametrize("make", [GeneratorStreamProtocol, GeneratorBufferedProtocol])
async def test_half_a_packet_of_a_generator(serve: Serve, make: Any) -> None:
    """Half a packet that a generator has got cannot be handed over: nothing changes."""

    async def script(client: Any) -> None:
        client.set_protocol(make(lines()))
        while not len(client.decoder):
            with pytest.raises(TimeoutError):
                await client.recv_packet(timeout=MS)
        with pytest.raises(RuntimeError, match="the beginning of the next packet"):
            await client.start_tls(server_context())
        assert not client.is_closing()
        await client.send_packet("go on")
        await client.send_packet(await client.recv_packet())
        await client.start_tls(server_context())

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        peer.send_bytes(b"hel")
        assert await peer.receive() == "go on"
        assert await peer.ask("lo") == "hello"
        await TLSPeer(peer).start()


async def test_closed(serve: Serve) -> None:
    """A client that was closed here cannot start anything."""

    async def script(client: Client) -> None:
        await client.aclose()
        with pytest.raises(ClientClosedError):
            await client.start_tls(server_context())
        handler.note("refused")

    handler = Scripted(script)
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("refused")


async def test_client_that_has_left(serve: Serve, log: Records) -> None:
    """A client that has left before it began has left during the handshake."""

    class Handler(Upgrading):
        async def start_tls(self, client: Client) -> None:
            await self.released.wait()
            await super().start_tls(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("STARTTLS")
        await handler.noted("STARTTLS")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
    assert handler.notes[2] in ("ConnectionAbortedError", "ConnectionResetError")


# -- Where it is not possible, or too late -----------------------------------------------------


@pytest.mark.parametrize("transport", ["tls"])
async def test_tls_from_the_beginning(serve: Serve) -> None:
    """A connection that uses TLS already goes on as it is."""

    async def script(client: Client) -> None:
        with pytest.raises(RuntimeError, match="uses TLS already"):
            await client.start_tls(server_context())
        assert not client.is_closing()

    async with serve(Scripted(script)) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"


@pytest.mark.parametrize("transport", ["unix"])
async def test_waiting_for_ancillary_data(serve: Serve) -> None:
    """A `yield` that waits for descriptors is busy as any other, and not disturbed."""

    class Handler(Recorder):
        async def handle(self, client: Any) -> Requests:
            client.start_soon(self.try_to_change, client)
            ancillary = SocketAncillary()
            packet = yield RecvParams(
                recv_with_ancillary=RecvAncillaryDataParams(ancillary.update_from_raw)
            )
            self.note(f"{len(list(ancillary.iter_fds()))} descriptors")
            for descriptor in ancillary.iter_fds():
                os.close(descriptor)
            await client.send_packet(packet)
            await client.aclose()

        async def try_to_change(self, client: Any) -> None:
            while not client.is_receiving:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(BusyResourceError):
                client.set_protocol(NUMBERS)
            for operation in client.recv_packet, lambda: client.start_tls(server_context()):
                with pytest.raises(BusyResourceError):
                    await operation()
            client.start_soon(client.wait_disconnected)
            self.note("busy")

    handler = Handler()
    async with serve(handler, ancillary_bufsize=1024) as service:
        peer = await service.connect()
        await handler.noted("busy")
        socket.send_fds(peer.socket, [b"hello\n"], [0, 1])
        assert await peer.receive() == "hello"
    assert "2 descriptors" in handler.notes


@pytest.mark.parametrize("transport", ["unix"])
async def test_ancillary_data(serve: Serve) -> None:
    """Descriptors go with clear text only: also those that wait for their turn do not any more."""

    class Handler(Crowded):
        async def send(self, client: Client, packet: str) -> None:
            self.note(packet)
            if packet != "before":
                with pytest.raises(UnsupportedOperation):
                    await client.send_packet_with_ancillary(packet, [])
            else:
                await client.send_packet_with_ancillary(packet, [])
            self.note(f"{packet} sent")

        async def start(self, client: Client) -> None:
            await super().start(client)
            with pytest.raises(UnsupportedOperation):
                await client.send_packet_with_ancillary("after", [])

    handler = Handler()
    async with serve(handler, ancillary_bufsize=1024) as service:
        peer = await service.connect(receive_buffer=4096)
        tls = TLSPeer(peer)
        peer.send_bytes(b"go\n" + tls.hello())
        await handler.noted("after")
        while set(line := await peer.receive()) == {"x"}:
            pass
        assert line == "before"
        await tls.start()
        await handler.noted("after sent")
