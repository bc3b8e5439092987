"""Test the statements and the examples of the page about STARTTLS.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.starttls import mail_client, mail_server
from easynetwork.addresses import TLSAttribute
from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.exceptions import BusyResourceError, ClientClosedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import (
    DOCS,
    Peer,
    Watched,
    check_quotations,
    complaints,
    connected,
    in_thread,
    serving,
    until,
)
from tests.docs.virtual_support import virtual
from tests.times import PATIENCE
from tests.tls_peers import TLSSocket, authority, client_context, server_context

pytestmark = pytest.mark.anyio

Client = AsyncStreamClient[str]

PAGE = "howto/starttls.rst"
FOLDER = DOCS / "_include/examples/howto/starttls"
PROTOCOL = StreamProtocol[str, str](StringLineSerializer("CRLF"))
INJECTED = b"STARTTLS\r\nNOOP\r\n"


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Mail(Watched, mail_server.MailRequestHandler):
    """Notes the outcome of each handshake."""

    def __init__(self) -> None:
        super().__init__(server_context())
        self.errors: list[BaseException] = []
        self.commands: list[str] = []

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        generator = super().handle(client)
        await anext(generator)
        async with contextlib.aclosing(generator):
            line = yield
            self.commands.append(line)
            try:
                await generator.asend(line)
            except StopAsyncIteration:
                pass
            except BaseException as exc:
                self.errors.append(exc)
                raise


@contextlib.asynccontextmanager
async def mailing(handler: Any, **options: Any) -> AsyncIterator[Any]:
    async with serving(handler, PROTOCOL, **options) as server:
        yield server


async def responses(peer: Peer, count: int) -> list[str]:
    return [(await peer.receive()).removesuffix("\r") for _ in range(count)]


async def encrypt(peer: Peer) -> TLSSocket:
    """Do the handshake after STARTTLS."""
    tls = TLSSocket(peer.socket, client_context())
    await in_thread(tls.do_handshake)
    return tls


async def ask(tls: TLSSocket, command: bytes) -> bytes:
    await in_thread(lambda: tls.sendall(command + b"\r\n"))
    return bytes(await in_thread(lambda: tls.recv(4096)))


# The server


async def test_server() -> None:
    """The example refuses commands before STARTTLS, and obeys afterwards.

    "Before STARTTLS, it accepts only EHLO and QUIT"

    "It returns when the connection is encrypted. handle() then continues with the same client: all
    packets that you send and receive from now on are encrypted. TLSAttribute describes the
    encryption, and tls_version tells whether there is one"
    """
    handler = Mail()
    async with mailing(handler) as server, connected(server) as peer:
        await peer.send_bytes(b"EHLO localhost\r\nNOOP\r\n")
        assert await responses(peer, 5) == [
            "220 localhost ready",
            "250-localhost",
            "250-STARTTLS",
            "250 HELP",
            "530 Must issue a STARTTLS command first",
        ]
        await peer.send_bytes(b"starttls\r\n")
        assert await responses(peer, 1) == ["220 Ready to start TLS"]
        tls = await encrypt(peer)
        features = await ask(tls, b"EHLO localhost")
        while not features.endswith(b"250 HELP\r\n"):
            features += await in_thread(lambda: tls.recv(4096))
        assert features == b"250-localhost\r\n250 HELP\r\n"
        assert await ask(tls, b"NOOP") == b"250 OK\r\n"
        assert await ask(tls, b"STARTTLS") == b"502 Command not implemented\r\n"
        assert handler.clients[0].extra(TLSAttribute.tls_version) == "TLSv1.3"
        assert await ask(tls, b"QUIT") == b"221 Bye\r\n"
    assert len(handler.clients) == 1
    assert not handler.errors


def test_smtp() -> None:
    """The client of the standard library understands the server.

    "This server implements the beginning of SMTP (3207)."
    """

    def visit(port: int) -> list[int]:
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            codes = [client.noop()[0], client.starttls(context=client_context())[0]]
            return [*codes, client.noop()[0], client.quit()[0]]

    async def main() -> None:
        async with mailing(Mail()) as server:
            port = server.get_addresses()[0].port
            assert await in_thread(lambda: visit(port)) == [530, 220, 250, 221]

    anyio.run(main)


def test_learned_before() -> None:
    """What a handler remembers from the time before the encryption is still there after it.

    "Do not use anything that you learned from the client before start_tls(), such as its name: an
    attacker may have sent it."
    """

    class Trusting(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            name = yield
            await client.start_tls(server_context())
            yield
            await client.send_packet(name)

    async def main() -> None:
        async with serve(Trusting(), PROTOCOL) as served:
            client = await served.connect()
            await client.send_packet("attacker.example.com")
            await client.start_tls(client_context(), server_hostname="localhost")
            await client.send_packet("NOOP")
            assert await client.recv_packet() == "attacker.example.com"

    anyio.run(main, backend_options=virtual_time())


def test_encrypted_from_the_beginning() -> None:
    """A server that encrypts at once never takes clear text for anything.

    "That is simpler, and nothing can go wrong before the encryption begins."
    """

    async def main() -> None:
        handler = Mail()
        async with serve(handler, PROTOCOL, ssl=server_context()) as served:
            attacker = await served.connect(raw=True)
            await attacker.send(INJECTED)
            with contextlib.suppress(ConnectionResetError):
                assert b"220" not in await attacker.receive()
            await anyio.sleep(1)
            assert not handler.calls
            client = await served.connect(ssl=client_context(), server_hostname="localhost")
            assert await client.recv_packet() == "220 localhost ready"
            assert handler.calls

    anyio.run(main, backend_options=virtual_time())


async def test_sent_before() -> None:
    """What was sent before the handshake arrives before it.

    "client.start_tls() sends what was sent before, in clear text, then waits for the handshake."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            assert client.try_send_packet("x" * 10_000_000)
            await client.start_tls(server_context())
            await client.send_packet("encrypted")
            yield

    async with mailing(Handler()) as server, connected(server) as peer:
        await peer.send_bytes(b"go\r\n")
        assert len((await responses(peer, 1))[0]) == 10_000_000
        tls = await encrypt(peer)
        assert await in_thread(lambda: tls.recv(4096)) == b"encrypted\r\n"


# The client


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
async def test_clients(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both clients encrypt the connection, and stop if the server does not offer that.

    "A client asks whether the server offers STARTTLS, and continues only if it does"

    "you can encrypt a connection that begins in clear text, as a server and as a client"

    "Never continue in clear text."

    "Without the checks in lines 9 and 14, an attacker between client and server could remove the
    server's offer, and read everything."
    """

    async def check() -> None:
        if kind == "asyncio":
            await mail_client.check_async(client_context())
        else:
            await in_thread(lambda: mail_client.check_blocking(client_context()))

    class WithoutOffer(Mail):
        offered = False

        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            line = yield
            self.commands.append(line)
            if line == "STARTTLS":
                await client.send_packet("454 TLS not available")
            else:
                await client.send_packet("250-STARTTLS" if self.offered else "250-SIZE")
                await client.send_packet("250 HELP")

    async def check_with(handler: Mail, error: str | None = None) -> None:
        async with mailing(handler, host="localhost") as server:
            address = ("localhost", server.get_addresses()[0].port)
            monkeypatch.setattr(mail_client, "ADDRESS", address)
            if error is None:
                await check()
            else:
                with pytest.raises(ConnectionError, match=error):
                    await check()

    await check_with(Mail())
    assert capsys.readouterr().out.splitlines() == [
        "220 localhost ready",
        "The connection is encrypted",
        "250 OK",
    ]
    handler = WithoutOffer()
    await check_with(handler, "does not offer STARTTLS")
    handler.offered = True
    await check_with(handler, "refuses STARTTLS: 454")
    assert "NOOP" not in handler.commands


async def test_hostname() -> None:
    """The certificate has to match.

    "The certificate must be valid for the host that the client has connected to. For another name,
    pass server_hostname."
    """
    async with mailing(Mail()) as server:
        address = ("127.0.0.1", server.get_addresses()[0].port)
        for name, is_right in ("localhost", True), ("example.com", False), (None, True):
            async with AsyncTCPNetworkClient[str, str](address, PROTOCOL) as client:
                assert await client.recv_packet() == "220 localhost ready"
                await client.send_packet("STARTTLS")
                assert await client.recv_packet() == "220 Ready to start TLS"
                if is_right:
                    await client.start_tls(client_context(), server_hostname=name)
                else:
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await client.start_tls(client_context(), server_hostname=name)


def test_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a context, a client trusts the authorities in OpenSSL's usual file, and no other.

    "To trust the authorities that your operating system trusts, call start_tls() without
    a context."
    """

    async def main() -> None:
        async with mailing(OneHandshake()) as server:
            address = ("127.0.0.1", server.get_addresses()[0].port)
            async with AsyncTCPNetworkClient[str, str](address, PROTOCOL) as client:
                await client.send_packet("STARTTLS")
                with expected:
                    await client.start_tls(server_hostname="localhost")
                    assert await client.recv_packet() == "still encrypted"

    expected: Any = pytest.raises(ssl.SSLCertVerificationError)
    anyio.run(main)
    file = ssl.get_default_verify_paths().openssl_cafile_env
    authority().cert_pem.write_to_path(str(tmp_path / "authorities.pem"))
    monkeypatch.setenv(file, str(tmp_path / "authorities.pem"))
    expected = contextlib.nullcontext()
    anyio.run(main)


# What is refused, and why


async def test_injection(log: pytest.LogCaptureFixture) -> None:
    """A command that arrives with STARTTLS is never obeyed.

    "An attacker who can write into the connection may append a command to STARTTLS."

    "In easynetwork, bytes that were received and not yet delivered when you call start_tls() are
    the beginning of the handshake. They are never parsed as packets. Clear text is not a handshake,
    so the handshake fails with an ssl.SSLError"

    "If the handshake fails, start_tls() raises an exception and the connection is closed. You do
    not have to catch it: if it leaves handle(), nothing more is logged."

    "If a client injects clear text, or does not trust the certificate, the server logs one warning
    without a traceback"
    """
    handler = Mail()
    async with mailing(handler) as server, connected(server) as peer:
        await peer.send_bytes(INJECTED)
        assert await responses(peer, 2) == ["220 localhost ready", "220 Ready to start TLS"]
        await handler.gone.wait()
        with contextlib.suppress(ConnectionResetError):
            assert b"250" not in await peer.receive_bytes(4096)
    assert handler.commands == ["STARTTLS"]
    assert isinstance(handler.errors[0], ssl.SSLError)
    [record] = complaints(log)
    assert record.levelno == logging.WARNING
    assert not record.exc_info
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    [shown] = re.findall(r"^ +WARNING:(.*)$", text, re.MULTILINE)
    assert general(f"{record.name}:{record.getMessage()}") == general(shown)


@virtual
@pytest.mark.parametrize(("size", "error"), [(4, TimeoutError), (5, ssl.SSLError)])
async def test_short_injection(size: int, error: type[Exception]) -> None:
    """A record of TLS has a header of five bytes, for which the handshake waits.

    "Fewer than five bytes do not show that they are no handshake: if nothing follows them, it ends
    with a TimeoutError."
    """
    handler = Mail()
    async with serve(handler, PROTOCOL) as served:
        peer = await served.connect(raw=True)
        await peer.send(b"STARTTLS\r\n" + b"NOOP\n"[:size])
        await handler.gone.wait()
    assert [type(exc) for exc in handler.errors] == [error]


def general(line: str) -> str:
    """Return a line of the log without the port, and without a line number of Python's own."""
    return re.sub(r"\d{3,5}", "N", line.replace("127.0.0.1", "ADDRESS"))


def test_log_is_limited(log: pytest.LogCaptureFixture) -> None:
    """Many clients that inject clear text cause a few lines.

    "A client cannot fill the log"
    """

    async def main() -> None:
        handler = Mail()
        async with serve(handler, PROTOCOL) as served:
            for _ in range(50):
                peer = await served.connect(raw=True)
                await peer.send(INJECTED)
                with contextlib.suppress(ConnectionResetError):
                    while await peer.receive():
                        pass
            assert len(handler.errors) == 50

    anyio.run(main, backend_options=virtual_time())
    warnings = [record for record in complaints(log) if "TLS handshake" in record.getMessage()]
    assert 1 <= len(warnings) <= 15


async def test_early_handshake() -> None:
    """A client need not wait for the response.

    "A client whose handshake arrives together with its STARTTLS is served."
    """
    async with mailing(Mail()) as server, connected(server) as peer:
        outgoing = ssl.MemoryBIO()
        tls = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await peer.send_bytes(b"STARTTLS\r\n" + outgoing.read())
        assert await responses(peer, 2) == ["220 localhost ready", "220 Ready to start TLS"]
        assert (await peer.receive_bytes(1)) == b"\x16"  # a record of the handshake


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
async def test_injection_into_a_client(kind: str) -> None:
    """A client does not take injected text for a response, and is closed.

    "so the handshake fails with an ssl.SSLError, on servers and clients alike"

    "easynetwork does its part: if the handshake fails, the client is closed."

    "There is no way back to clear text: if the handshake fails, the connection is closed."
    """

    class Injecting(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            await client.send_packet("220 Ready to start TLS\r\n250 Injected")
            yield

    async with mailing(Injecting()) as server:
        address = ("127.0.0.1", server.get_addresses()[0].port)
        if kind == "asyncio":
            async with AsyncTCPNetworkClient[str, str](address, PROTOCOL) as client:
                await client.send_packet("STARTTLS")
                await client.recv_packet()
                with pytest.raises(ssl.SSLError):
                    await client.start_tls(client_context())
                for operation in client.recv_packet(), client.send_packet("NOOP"):
                    with pytest.raises(ClientClosedError):
                        await operation
        else:

            def check() -> None:
                with TCPNetworkClient[str, str](address, PROTOCOL) as client:
                    client.send_packet("STARTTLS")
                    client.recv_packet(timeout=PATIENCE)
                    with pytest.raises(ssl.SSLError):
                        client.start_tls(client_context())
                    with pytest.raises(ClientClosedError):
                        client.recv_packet(timeout=0)
                    with pytest.raises(ClientClosedError):
                        client.send_packet("NOOP")

            await in_thread(check)


async def test_distrust(log: pytest.LogCaptureFixture) -> None:
    """A client that does not trust the certificate causes one warning.

    "If a client injects clear text, or does not trust the certificate, the server logs one warning
    without a traceback"
    """
    handler = Mail()
    async with mailing(handler) as server:
        address = ("127.0.0.1", server.get_addresses()[0].port)
        async with AsyncTCPNetworkClient[str, str](address, PROTOCOL) as client:
            await client.recv_packet()
            await client.send_packet("STARTTLS")
            await client.recv_packet()
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.start_tls(True, server_hostname="localhost")
        await handler.gone.wait()
    [record] = complaints(log)
    assert record.getMessage().startswith("Error in client task (during TLS handshake)")
    assert not record.exc_info


class OneHandshake(AsyncStreamRequestHandler[str, str]):
    """Starts TLS with other options, and notes the error."""

    options: dict[str, Any]
    error: BaseException | None = None

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.is_done = anyio.Event()

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        yield
        try:
            await client.start_tls(server_context(), **self.options)
        except BaseException as exc:
            self.error = exc
            raise
        finally:
            self.is_done.set()
        with pytest.raises(RuntimeError):
            await client.start_tls(server_context())
        await client.send_packet("still encrypted")
        yield


async def test_twice() -> None:
    """A second handshake is refused.

    "It raises RuntimeError, and the connection remains as it is."
    """
    async with mailing(OneHandshake()) as server, connected(server) as peer:
        await peer.send_bytes(b"STARTTLS\r\n")
        tls = await encrypt(peer)
        assert await in_thread(lambda: tls.recv(4096)) == b"still encrypted\r\n"


@pytest.mark.parametrize("ending", ["too slow", "gone"])
async def test_no_handshake(ending: str, log: pytest.LogCaptureFixture) -> None:
    """A client that does not complete the handshake is disconnected.

    "After 60 seconds, start_tls() raises TimeoutError, and the connection is closed. Pass
    ssl_handshake_timeout to change this limit."

    "If the client disconnects during the handshake, or does not complete it in time, the server
    logs this at level DEBUG only."
    """
    assert "60 by default" in str(AsyncStreamClient.start_tls.__doc__)
    handler = OneHandshake(ssl_handshake_timeout=0.01 if ending == "too slow" else 60)
    async with mailing(handler) as server, connected(server) as peer:
        await peer.send_bytes(b"STARTTLS\r\n")
        if ending == "too slow":
            assert await peer.ending() == "connection reset"
        else:
            peer.close()
        await handler.is_done.wait()
    expected = TimeoutError if ending == "too slow" else ConnectionError
    assert isinstance(handler.error, expected)
    assert not complaints(log)
    assert "left during the TLS handshake" in log.text


async def test_meanwhile() -> None:
    """Other tasks wait to send, and cannot receive.

    "While the handshake is in progress, send_packet() waits in other tasks and then sends
    encrypted, and receiving raises BusyResourceError."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        events: list[str]

        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            client.start_soon(self.intrude, client)
            self.events = []
            await client.start_tls(server_context())
            self.events.append("encrypted")
            yield

        async def intrude(self, client: Client) -> None:
            with pytest.raises(BusyResourceError):
                await client.recv_packet()
            self.is_busy = True
            await client.send_packet("from a task")
            self.events.append("sent")

    handler = Handler()
    async with mailing(handler) as server, connected(server) as peer:
        await peer.send_bytes(b"STARTTLS\r\n")
        await until(lambda: hasattr(handler, "is_busy"))
        tls = await encrypt(peer)
        assert await in_thread(lambda: tls.recv(4096)) == b"from a task\r\n"
    assert set(handler.events) == {"encrypted", "sent"}


# Trying it with OpenSSL


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_programs(tmp_path: Path) -> None:
    """OpenSSL's client and the clients of the page talk to the server, as a reader would try it.

    "In another terminal, connect to the server. OpenSSL knows STARTTLS of SMTP and of several other
    protocols. Then type NOOP and QUIT"

    "The line 250 HELP is the end of the response to OpenSSL's own EHLO. With -quiet, OpenSSL sends
    every line that you type. Without it, OpenSSL shows the certificate, and a line that begins with
    Q ends the program."

    "mail_client.py runs both clients of this page"
    """
    certificate = authority().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    authority().cert_pem.write_to_path(str(tmp_path / "cert.pem"), append=True)
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    shown = re.findall(r"^   \$ (.*)\n((?:   (?!\$).*\n)*)", text, re.MULTILINE)
    outputs = {command: output.replace("\n   ", "\n").strip() for command, output in shown}
    openssl = next(command for command in outputs if command.startswith("openssl s_client"))

    server = subprocess.Popen(
        [sys.executable, str(FOLDER / "mail_server.py")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert "Start serving" in line, line + server.communicate()[1]
            assert (
                run([sys.executable, str(FOLDER / "mail_client.py")], tmp_path)
                == (outputs["python mail_client.py"])
            )
            expected = outputs[openssl].splitlines()
            typed = [line for line in expected if line.isupper() and " " not in line]
            printed = run(openssl.split(), tmp_path, "".join(f"{line}\n" for line in typed))
            assert [line for line in printed.splitlines() if line.startswith("2")] == [
                line for line in expected if line.startswith("2")
            ]
            assert typed == ["NOOP", "QUIT"]
            talkative = openssl.replace(" -quiet", "").split()
            printed = run(talkative, tmp_path, "QUIT\n")
            assert "BEGIN CERTIFICATE" in printed
            assert "250 HELP\n" in printed
            assert "221 Bye" not in printed
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    protocols = subprocess.run(
        ["openssl", "s_client", "-starttls", "unknown"],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert {"smtp", "imap", "ldap"} <= set(protocols.stderr.split())


def run(command: list[str], folder: Path, typed: str = "") -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()
