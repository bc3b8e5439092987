"""What a server with TLS does besides what every server does: handshakes, certificates, ends."""

from __future__ import annotations

import contextlib
import datetime
import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trustme

from easynetwork.addresses import TLSAttribute
from easynetwork.exceptions import TypedAttributeLookupError
from tests.conformance.peers import Peer, new_peer
from tests.conformance.support import (
    Client,
    Recorder,
    Records,
    Requests,
    Serve,
    Service,
    one_protocol,
)
from tests.times import SOON
from tests.tls_peers import (
    VERSIONS,
    authority,
    client_context,
    new_client_context,
    new_server_context,
    server_context,
)

pytestmark = [
    pytest.mark.anyio,
    one_protocol,
    pytest.mark.parametrize("transport", ["tls"]),
]


each_version = pytest.mark.parametrize("version", VERSIONS)


@contextlib.contextmanager
def plain(service: Service) -> Any:
    """Return a socket that is connected to a server, and knows nothing of TLS."""
    address = service.server.get_addresses()[0]
    with socket.create_connection(address.for_connection(), timeout=5) as sock:
        yield sock


async def received(sock: Any) -> bytes:
    """Return what a socket receives up to the end, however that comes."""
    data = bytearray()
    with contextlib.suppress(OSError):
        while chunk := await anyio.to_thread.run_sync(sock.recv, 1 << 16):
            data += chunk
    return bytes(data)


# -- Certificates ------------------------------------------------------------------------------


@each_version
async def test_attributes(serve: Serve, version: ssl.TLSVersion, monkeypatch: Any) -> None:
    """A handler can ask for everything about the connection, to the very end."""
    monkeypatch.setattr(Peer, "tls", client_context(version))
    found: dict[str, Any] = {}

    class Handler(Recorder):
        async def on_disconnection(self, client: Client) -> None:
            found["context"] = client.extra(TLSAttribute.sslcontext)
            found["version"] = client.extra(TLSAttribute.tls_version)
            found["cipher"] = client.extra(TLSAttribute.cipher)
            found["standard"] = client.extra(TLSAttribute.standard_compatible)
            found["peercert"] = client.extra(TLSAttribute.peercert, "nobody's")
            with pytest.raises(TypedAttributeLookupError):
                client.extra(TLSAttribute.compression)
            self.note("on_disconnection")

    handler, context = Handler(), server_context(version)
    async with serve(handler, ssl=context) as service:
        peer = await service.connect()
        await peer.ask("hello")
        cipher = peer.socket.object.cipher()
        peer.close()
        await handler.noted("on_disconnection")
    assert found == {
        "context": context,
        "version": version.name.replace("_", "."),
        "cipher": cipher,
        "standard": True,
        "peercert": "nobody's",
    }


def mutual() -> ssl.SSLContext:
    """Return a server's context that asks for a certificate of our authority."""
    context = new_server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(context)
    return context


def presenting(certificate: trustme.LeafCert | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the context of a client with this certificate."""
    context = new_client_context()
    context.maximum_version = version
    if certificate is not None:
        certificate.configure_cert(context)
    return context


@each_version
async def test_client_certificate(serve: Serve, version: ssl.TLSVersion, monkeypatch: Any) -> None:
    """A client that has to have a certificate is known to the handler by its name."""
    certificate = authority().issue_cert("client@example.com")
    monkeypatch.setattr(Peer, "tls", presenting(certificate, version))

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            found = client.extra(TLSAttribute.peercert)
            await client.send_packet(str(found["subjectAltName"]))

    async with serve(Handler(), ssl=mutual()) as service:
        peer = await service.connect()
        assert await peer.ask("who am I?") == "(('email', 'client@example.com'),)"


YESTERDAY = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
REFUSED: dict[str, Callable[[], trustme.LeafCert | None]] = {
    "none": lambda: None,
    "a stranger's": lambda: trustme.CA().issue_cert("client@example.com"),
    "expired": lambda: authority().issue_cert("client@example.com", not_after=YESTERDAY),
}


@each_version
@pytest.mark.parametrize("certificate", REFUSED)
async def test_refused_certificate(
    serve: Serve, log: Records, version: ssl.TLSVersion, certificate: str, monkeypatch: Any
) -> None:
    """A client without a good one never reaches the handler; the log names it, on one line."""
    monkeypatch.setattr(Peer, "tls", presenting(REFUSED[certificate](), version))
    handler = Recorder()
    async with serve(handler, ssl=mutual()) as service:
        peer = new_peer(service.server)
        service.peers.append(peer)
        peer.send("let me in")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await peer.receive()
        peer.close()
        await log.logged("Error in client task (during TLS handshake)")
    [(level, message, exc)] = log.problems()
    assert (level, exc) == ("WARNING", None)
    assert peer.name in message
    assert "\n" not in message
    assert handler.notes == []


# -- Handshakes that fail ----------------------------------------------------------------------


WITHOUT_TLS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a line": b"hello\n",
    "a short hello": b"\x16\x03\x01\0\5\1\0\0\1\0",
    "data in a record": b"\x17\x03\x03\0\6hello\n",
    "control characters": b"\x1b[2J\r" * 100,
}


@pytest.mark.parametrize("data", WITHOUT_TLS)
async def test_peer_without_tls(serve: Serve, log: Records, data: str) -> None:
    """What does not begin with a handshake is turned away, with one line, unseen by the handler."""
    handler = Recorder()
    async with serve(handler) as service:
        with plain(service) as sock:
            sock.sendall(WITHOUT_TLS[data])
            sock.shutdown(socket.SHUT_WR)
            assert b"hello" not in await received(sock)
            name = str(sock.getsockname())
        await log.logged("Error in client task (during TLS handshake)")
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        peer.close()
        await handler.noted("on_disconnection")
    [(level, message, exc)] = log.problems()
    assert (level, exc) == ("WARNING", None)
    assert name in message
    assert message.isprintable()
    assert handler.notes.count("on_connection") == 1


HELLO = b"\x16\x03\x01\2\0\1\0\1\xfc\x03\x03" + bytes(50)  # a tenth of one


@pytest.mark.parametrize("how", ["leave", "reset", "wait"])
@pytest.mark.parametrize("data", [b"", HELLO], ids=["silent", "half a hello"])
async def test_nobodys_fault(serve: Serve, log: Records, how: str, data: bytes) -> None:
    """Who leaves before the end of the handshake, or never comes there, is no news."""
    handler = Recorder()
    async with serve(handler, ssl_handshake_timeout=SOON) as service:
        with plain(service) as sock:
            sock.sendall(data)
            if how == "leave":
                sock.shutdown(socket.SHUT_WR)
            elif how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
            else:
                assert await received(sock) == b""
        await log.logged("left", minimum=logging.DEBUG)
    assert log.problems() == []
    assert handler.notes == []


async def test_flood(serve: Serve, log: Records) -> None:
    """However many handshakes fail, the log gets three lines a second; the rest is counted."""
    async with serve(Recorder()) as service:
        begin = int(time.monotonic())
        for _ in range(50):
            with plain(service) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                await received(sock)
        seconds = int(time.monotonic()) - begin + 1
    lines = [message for _, message, _ in log.problems()]
    logged = [line for line in lines if "during TLS handshake" in line]
    counts = [int(line.split()[0]) for line in lines if "were not logged" in line]
    assert len(logged) <= 3 * seconds
    assert len(logged) + sum(counts) == 50


async def test_others_meanwhile(serve: Serve) -> None:
    """A handshake that does not go on keeps nobody waiting."""
    async with serve(Recorder()) as service:
        with contextlib.ExitStack() as stack:
            for number in range(50):
                stack.enter_context(plain(service)).sendall(HELLO if number % 2 else b"")
            begin = time.monotonic()
            peer = await service.connect()
            assert await peer.ask("hello") == "hello"
            assert time.monotonic() - begin < 1


async def test_stopping_meanwhile(serve: Serve, log: Records) -> None:
    """Nor does it keep the server from stopping."""
    handler = Recorder()
    async with serve(handler) as service:
        with plain(service) as sock:
            sock.sendall(HELLO)
            while not any("client" in str(task.name) for task in anyio.get_running_tasks()):
                await anyio.lowlevel.checkpoint()
            begin = time.monotonic()
            await service.server.shutdown()
            assert time.monotonic() - begin < 1
            assert await received(sock) == b""
    assert handler.notes == []


# -- The end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_standard", [True, False])
@pytest.mark.parametrize("what", ["nothing", "half a packet", "half a record"])
async def test_truncation(serve: Serve, log: Records, is_standard: bool, what: str) -> None:
    """A client that leaves without a closing alert has left; only who looks for it is told."""
    handler = Recorder()
    async with serve(handler, ssl_standard_compatible=is_standard) as service:
        for number in (1, 2):
            peer = await service.connect()
            assert await peer.ask("hello") == "hello"
            if what == "half a packet":
                peer.send_bytes(b"half")
            elif what == "half a record":
                peer.socket.raw.sendall(b"\x17\3\3\1\0half")
            peer.socket.raw.shutdown(socket.SHUT_WR)
            await handler.noted("on_disconnection", times=number)
        assert handler.notes[-2:] == ["GeneratorExit", "on_disconnection"]
        if is_standard:
            await log.logged("as 2 clients so far", minimum=logging.DEBUG)
    told = [
        line for line in log.messages(logging.DEBUG) if "left without TLS's closing alert" in line
    ]
    assert len(told) == 2 * is_standard


async def test_clean_end(serve: Serve, log: Records) -> None:
    """A client that says goodbye is not mentioned."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.close()
        await handler.noted("on_disconnection")
    assert "closing alert" not in "".join(log.messages(logging.DEBUG))


async def test_broken_record(serve: Serve, log: Records) -> None:
    """A peer that breaks the rules later is cut off, and that is one line in the log."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        peer.socket.raw.sendall(b"\x17\x03\x03\0\x20" + bytes(32))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await peer.receive()
        await log.logged("TLS connection of")
    [(level, message, exc)] = log.problems()
    assert (level, exc) == ("WARNING", None)
    assert message.startswith(f"TLS connection of {peer.name} broke: SSLError: ")
    assert handler.notes[-2:] == ["GeneratorExit", "on_disconnection"]


async def test_half_closed(serve: Serve) -> None:
    """A client that has said goodbye still gets its answers, and then ours."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await self.released.wait()
            await client.send_packet(request * 1000)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("hello")
        peer.send_eof()
        handler.released.set()
        assert await peer.rest() == ("hello" * 1000 + "\n", "EOF")


async def test_without_goodbye(serve: Serve) -> None:
    """A server that need not say goodbye does not."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await client.send_packet(request)
            await client.aclose()

    async with serve(Handler(), ssl_standard_compatible=False) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        with pytest.raises(ssl.SSLEOFError):
            await peer.receive()
