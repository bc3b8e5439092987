"""Test the statements and the examples about TLS on the page about TCP servers.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import logging
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from docs._include.examples.howto.tcp_servers import ssl_explanation as examples
from easynetwork.addresses import TLSAttribute
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import TypedAttributeLookupError, UnsupportedOperation
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.statistics import CloseReason
from tests.docs.howto_support import DOCS, Watched, check_quotations, connected, serving
from tests.times import PATIENCE
from tests.tls_peers import (
    TLSSocket,
    authority,
    client_context,
    new_client_context,
    server_context,
)

pytestmark = pytest.mark.anyio

FOLDER = DOCS / "_include/examples/howto/tcp_servers"

Client = AsyncStreamClient[str]


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        request = yield
        await client.send_packet(request)
        if request == "bye":
            await client.aclose()


class WatchedEcho(Watched, Echo):
    pass


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the files that the examples load, and make their folder the current one."""
    monkeypatch.chdir(tmp_path)
    certificate = authority().issue_cert("localhost", "example.com")
    certificate.cert_chain_pems[0].write_to_path("fullchain.pem")
    certificate.private_key_pem.write_to_path("privkey.pem")
    authority().cert_pem.write_to_path("employees-ca.pem")
    employee = authority().issue_cert("zoe@example.com")
    employee.private_key_and_cert_chain_pem.write_to_path("employee.pem")
    return tmp_path


@contextlib.asynccontextmanager
async def asking(
    server: Any, context: ssl.SSLContext | bool | None = None, **options: Any
) -> AsyncIterator[AsyncTCPNetworkClient[str, str]]:
    """Connect a client of the library to a server."""
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    address = ("localhost", server.get_addresses()[0].port)
    async with AsyncTCPNetworkClient[str, str](
        address, protocol, ssl=client_context() if context is None else context, **options
    ) as client:
        yield client


async def answer(client: AsyncTCPNetworkClient[str, str], request: str) -> str:
    await client.send_packet(request)
    return await client.recv_packet()


def complaints(log: pytest.LogCaptureFixture) -> list[str]:
    """Return what the library logged as a warning or worse."""
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/tcp_servers.rst", globals())


# Encrypting connections with SSL/TLS


def test_background_server() -> None:
    """The server and the clients of the program communicate over TLS.

    "The output is the same as without TLS"
    """
    done = subprocess.run(
        [sys.executable, "background_server_ssl.py"],
        cwd=FOLDER,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=True,
    )
    answers = re.findall(r"^From server: (.*)$", done.stdout, re.MULTILINE)
    assert [ast.literal_eval(text)["request"]["message"] for text in answers] == [
        f"Hello world {number}" for number in (1, 2, 3)
    ]
    assert done.stderr == ""


async def test_files(
    files: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """A server needs only a certificate from an authority; its clients need none.

    "For your own service, get a certificate from an authority that your clients trust. It consists
    of two files, the certificate chain (fullchain.pem) and the private key (privkey.pem)."

    "Your clients then pass ssl=True, which trusts the authorities that their operating system
    trusts."
    """
    monkeypatch.setenv("SSL_CERT_FILE", "employees-ca.pem")
    async with serving(WatchedEcho(), ssl=examples.context_from_files()) as server:
        async with asking(server, True) as client:
            assert await answer(client, "hello") == "hello"
    assert complaints(log) == []


async def test_unknown_server() -> None:
    """A client does not connect to a server whose certificate is not trusted or has another name.

    "If the server's certificate is not trusted or does not match the requested host, connecting
    raises ssl.SSLCertVerificationError."
    """
    async with serving(WatchedEcho(), ssl=server_context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with asking(server, True):
                pass
        with pytest.raises(ssl.SSLCertVerificationError):
            async with asking(server, server_hostname="example.net"):
                pass


async def test_handshake() -> None:
    """The handshake runs before on_connection(), separately for each client.

    "A TLS connection begins with a handshake, which runs in the client's task, before
    on_connection(). No client waits for the handshake of another client."

    "A client that has not completed the handshake within 60 seconds is disconnected. Use the
    argument ssl_handshake_timeout to change this limit."
    """
    handler = WatchedEcho()
    async with serving(handler, ssl=server_context(), ssl_handshake_timeout=0.1) as server:
        async with connected(server) as silent, asking(server) as client:
            assert await answer(client, "hello") == "hello"
            assert handler.calls.count("on_connection") == 1
            begin = time.monotonic()
            assert await silent.ending() == "connection reset"
            assert time.monotonic() - begin < PATIENCE
            assert await answer(client, "still here") == "still here"


async def test_failed_handshake(log: pytest.LogCaptureFixture) -> None:
    """A failed handshake is one line in the log.

    "If a client's handshake fails, your handler is not called for this client. The server logs one
    warning line without a traceback, which begins with Error in client task (during TLS
    handshake)."

    "If the client disconnects during the handshake, or sends nothing until the limit is reached,
    the server logs this at level DEBUG only."
    """
    handler = WatchedEcho()
    async with serving(handler, ssl=server_context(), ssl_handshake_timeout=0.1) as server:
        async with connected(server):
            pass
        async with connected(server) as silent:
            await silent.ending()
        async with connected(server) as peer:
            await peer.send("hello")
            await peer.ending()
    assert handler.calls == []
    [line] = complaints(log)
    assert line.startswith("Error in client task (during TLS handshake)")
    assert [record for record in log.records if record.exc_info] == []
    mentioned = [record for record in log.records if "left during" in record.getMessage()]
    assert [record.levelno for record in mentioned] == [logging.DEBUG] * 2


async def test_attributes() -> None:
    """A connection without TLS has no TLS attributes.

    "A connection without TLS does not have them: client.extra(TLSAttribute.tls_version) raises
    TypedAttributeLookupError, and client.extra(TLSAttribute.tls_version, None) returns None."
    """
    handler = WatchedEcho()
    async with serving(handler) as server, connected(server) as peer:
        await peer.ask("hello")
        [client] = handler.clients
        with pytest.raises(TypedAttributeLookupError):
            client.extra(TLSAttribute.tls_version)
        assert client.extra(TLSAttribute.tls_version, None) is None


# Requiring client certificates


async def test_client_certificate(files: Path) -> None:
    """The handler reads the client's certificate.

    "A client can also authenticate itself with a certificate"

    "Load the certificate of the authority that signs your clients' certificates, and require a
    certificate from each client"

    "The client loads its certificate, employee.pem, into its own context with load_cert_chain()"
    """
    context = examples.context_that_asks_for_certificates()
    mine = examples.client_context_with_certificate()
    authority().configure_trust(mine)
    async with serving(examples.EmployeeRequestHandler(), ssl=context) as server:
        async with asking(server, mine) as client:
            assert await answer(client, "where?") == "zoe@example.com asked: where?"


async def test_certificate_without_address(files: Path) -> None:
    """A certificate can contain no mail address, but other names.

    "So the handler can rely on the certificate, which it reads from TLSAttribute.peercert:"
    """
    mine = new_client_context()
    authority().issue_cert("zoe.example.com").configure_cert(mine)
    context = examples.context_that_asks_for_certificates()
    async with serving(examples.EmployeeRequestHandler(), ssl=context) as server:
        async with asking(server, mine) as client:
            assert await answer(client, "where?") == "unknown asked: where?"


def certificate_of(kind: str) -> trustme.LeafCert | None:
    """Return a certificate that the server rejects, or None."""
    match kind:
        case "expired":
            long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
            return authority().issue_cert("zoe@example.com", not_after=long_ago)
        case "signed by somebody else":
            return trustme.CA().issue_cert("zoe@example.com")
    return None


@pytest.mark.parametrize("kind", ["none", "expired", "signed by somebody else"])
async def test_bad_client_certificate(files: Path, kind: str) -> None:
    """The server rejects an invalid client certificate; the client gets the error when it receives.

    "The server rejects a client that has no certificate, an expired one or one that another
    authority has signed"

    "With TLS 1.3, the client completes the handshake before the server has verified the client's
    certificate. A rejected client can therefore connect, and gets the error when it receives:
    ConnectionAbortedError is raised, and its __cause__ is the ssl.SSLError."
    """
    mine = new_client_context()
    if (certificate := certificate_of(kind)) is not None:
        certificate.configure_cert(mine)

    class Handler(Watched, examples.EmployeeRequestHandler):
        pass

    handler = Handler()
    context = examples.context_that_asks_for_certificates()
    async with serving(handler, ssl=context) as server:
        async with asking(server, mine) as client:
            with pytest.raises(ConnectionAbortedError) as info:
                await client.recv_packet()
            assert isinstance(info.value.__cause__, ssl.SSLError)
    assert handler.calls == []


# Configuring the SSL context


def limited_to(version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return a client context that supports no newer version of TLS."""
    context = new_client_context()
    context.maximum_version = version
    return context


async def test_versions(files: Path) -> None:
    """A default context accepts TLS 1.2 and nothing older; the example rejects TLS 1.2.

    "it accepts TLS 1.2 and newer"

    "If you know that all your clients support TLS 1.3, disable TLS 1.2"
    """
    old = limited_to(ssl.TLSVersion.TLSv1_2)
    assert examples.context_from_files().minimum_version >= ssl.TLSVersion.TLSv1_2
    async with serving(WatchedEcho(), ssl=examples.context_from_files()) as server:
        async with asking(server, old) as client:
            assert await answer(client, "hello") == "hello"
    async with serving(WatchedEcho(), ssl=examples.context_for_recent_clients()) as server:
        async with asking(server) as client:
            assert await answer(client, "hello") == "hello"
        with pytest.raises(ssl.SSLError):
            async with asking(server, old):
                pass


@pytest.mark.parametrize(
    ("known", "chosen"),
    [
        (["chat/1", "chat/2"], "chat/2"),
        (["chat/1"], "chat/1"),
        (["chat/1", "chat/3"], "chat/1"),
        ([], "chat/1"),
    ],
)
async def test_alpn(files: Path, known: list[str], chosen: str) -> None:
    """Client and server agree on a protocol, and the handler reads its name.

    "A client can offer a list of protocols. The server selects the first protocol of its own list
    that the client also offers (ALPN)."

    "So you can introduce a new version of a protocol on the same port. Pass the server's list to
    set_alpn_protocols():"

    "The handler reads the selected protocol from TLSAttribute.alpn_protocol. The second argument is
    the default for clients that do not offer any"
    """
    mine = new_client_context()
    if known:
        mine.set_alpn_protocols(known)
    context = examples.context_with_alpn()
    async with serving(examples.VersionRequestHandler(), ssl=context) as server:
        async with asking(server, mine) as client:
            assert await answer(client, "hello") == f"{chosen}: hello"


async def test_names() -> None:
    """The server has a certificate for each of its names, and rejects other names.

    "A client sends the name of the host that it wants to connect to, so one server can have several
    names (SNI). The sni_callback of the context selects another context, or rejects the client"
    """
    contexts = []
    for name in "example.com", "example.org":
        contexts.append(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        authority().issue_cert(name).configure_cert(contexts[-1])
    handler = WatchedEcho()
    async with serving(handler, ssl=examples.context_for_two_names(*contexts)) as server:
        for name, context in zip(["example.com", "example.org"], contexts, strict=True):
            async with asking(server, server_hostname=name) as client:
                assert await answer(client, "hello") == "hello"
                assert handler.clients[-1].extra(TLSAttribute.sslcontext) is context
        with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
            async with asking(server, server_hostname="example.net"):
                pass


# Closing a TLS connection


async def ask(tls: TLSSocket, line: str) -> str:
    """Send a line and return the response, without the library."""

    def ask() -> str:
        tls.do_handshake()
        tls.sendall(f"{line}\n".encode())
        return tls.recv(1000).decode().strip()

    return await anyio.to_thread.run_sync(ask)


@pytest.mark.parametrize("is_standard", [True, False])
async def test_server_says_goodbye(is_standard: bool) -> None:
    """A server sends a closing alert, unless this is disabled.

    "The alert tells the other side that no data is missing."

    "Servers and clients send it automatically when a connection is closed normally."

    "With ssl_standard_compatible=False, a server or client does not expect it, and does not send
    it."
    """
    context = server_context()
    options: dict[str, Any] = {"ssl": context, "ssl_standard_compatible": is_standard}
    async with serving(WatchedEcho(), **options) as server, connected(server) as plain:
        tls = TLSSocket(plain.socket, client_context())
        assert await ask(tls, "bye") == "bye"
        if is_standard:
            assert await anyio.to_thread.run_sync(tls.recv, 1000) == b""
        else:
            with pytest.raises(ssl.SSLEOFError):
                await anyio.to_thread.run_sync(tls.recv, 1000)


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_client_leaves(says_goodbye: bool, log: pytest.LogCaptureFixture) -> None:
    """A connection without a closing alert ends as usual.

    "If a client disconnects without a closing alert, the connection ends as usual, with the reason
    CloseReason.TRUNCATED. The server logs at level DEBUG that the end of the received data may be
    missing."
    """
    handler = WatchedEcho()
    async with serving(handler, ssl=server_context()) as server:
        async with connected(server) as plain:
            tls = TLSSocket(plain.socket, client_context())
            assert await ask(tls, "hello") == "hello"
            if says_goodbye:
                tls.shutdown(socket.SHUT_WR)
        await handler.gone.wait()
    assert handler.calls[-1] == "on_disconnection"
    assert complaints(log) == []
    mentioned = [r for r in log.records if "the end of what it sent is missing" in r.getMessage()]
    assert [record.levelno for record in mentioned] == [logging.DEBUG] * (not says_goodbye)
    assert (CloseReason.TRUNCATED.value in log.text) == (not says_goodbye)


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_server_leaves(says_goodbye: bool) -> None:
    """A client of the library detects whether its server sent a closing alert.

    "If a server disconnects without a closing alert, the client's recv_packet() raises
    ConnectionAbortedError, as at every end of a connection, and its __cause__ is ssl.SSLEOFError."

    "TLS cannot close only one direction of a connection"

    "send_eof() raises UnsupportedOperation."
    """
    options: dict[str, Any] = {"ssl": server_context(), "ssl_standard_compatible": says_goodbye}
    async with serving(WatchedEcho(), **options) as server, asking(server) as client:
        with pytest.raises(UnsupportedOperation):
            await client.send_eof()
        assert await answer(client, "bye") == "bye"
        with pytest.raises(ConnectionAbortedError) as info:
            await client.recv_packet()
        assert isinstance(info.value.__cause__, ssl.SSLEOFError) != says_goodbye


async def test_shutdown_timeout() -> None:
    """The server waits only for a limited time for a client that does not read.

    "When it closes a connection, the server waits until the operating system has taken the
    remaining data, for at most ssl_shutdown_timeout: 30 seconds by default."
    """

    class Handler(WatchedEcho):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            with anyio.move_on_after(0.1):
                while True:
                    await client.send_packet("x" * 100_000)
            begin = time.monotonic()
            await client.aclose()
            self.calls.append("closed in time" if time.monotonic() - begin < 5 else "too late")

    handler = Handler()
    options: dict[str, Any] = {"ssl": server_context(), "ssl_shutdown_timeout": 0.1}
    async with serving(handler, **options) as server, connected(server) as plain:
        await ask(TLSSocket(plain.socket, client_context()), "go on")
        await handler.gone.wait()
    assert "closed in time" in handler.calls
