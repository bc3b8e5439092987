"""STARTTLS with programs that others wrote: mail clients at our server, our clients at another."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.addresses import TLSAttribute
from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from tests.interop.support import needs, run, serving_on_a_port
from tests.times import PATIENCE
from tests.tls_peers import client_context, new_server_context, server_context

pytestmark = pytest.mark.anyio

LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer("CRLF"))
TEXT = "From: a@example.com\r\nTo: b@example.com\r\nSubject: a test\r\n\r\nHello.\r\n"


# -- Our server --------------------------------------------------------------------------------


class Mail(AsyncStreamRequestHandler[str, str]):
    """Knows as much of SMTP (RFC 5321, RFC 3207) as it takes to receive a mail over TLS.

    Attributes:
        requests: What was asked, with the version of TLS that it came with, None in clear text.
        text: The last mail.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.text = ""

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        await client.send_packet("220 localhost ESMTP")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request = yield
        version = client.extra(TLSAttribute.tls_version, None)
        verb = request.partition(" ")[0].upper()
        self.requests.append((verb, version))
        match verb:
            case "EHLO" if version is None:
                await client.send_packet("250-localhost\r\n250 STARTTLS")
            case "EHLO" | "MAIL" | "RCPT":
                await client.send_packet("250 OK")
            case "STARTTLS":
                await client.send_packet("220 go ahead")
                await client.start_tls(server_context())
            case "DATA":
                await client.send_packet("354 end with a dot")
                self.text = ""
                while (line := await client.recv_packet()) != ".":
                    self.text += f"{line}\n"
                await client.send_packet("250 OK")
            case "QUIT":
                await client.send_packet("221 bye")
                await client.aclose()
            case _:
                await client.send_packet("502 not implemented")

    def check(self, *, has_mail: bool = True) -> None:
        """Check that all that matters came over TLS."""
        before = [verb for verb, version in self.requests if version is None]
        after = [verb for verb, version in self.requests if version is not None]
        assert before == ["EHLO", "STARTTLS"]
        assert {version for _, version in self.requests} == {None, "TLSv1.3"}
        assert after[-1] == "QUIT"
        if has_mail:
            assert after[:4] == ["EHLO", "MAIL", "RCPT", "DATA"]
            assert "Subject: a test" in self.text


def serving(handler: Mail) -> AbstractAsyncContextManager[int]:
    return serving_on_a_port(handler, LINES)


@pytest.fixture(autouse=True)
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test whose peer is blamed for something."""
    yield
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_smtplib() -> None:
    """The standard library's client sends a mail."""

    def send(port: int) -> None:
        with smtplib.SMTP("localhost", port, timeout=PATIENCE) as client:
            client.starttls(context=client_context())
            assert client.sendmail("a@example.com", ["b@example.com"], TEXT) == {}

    handler = Mail()
    async with serving(handler) as port:
        await anyio.to_thread.run_sync(send, port)
    handler.check()


@needs("openssl")
async def test_s_client(authority_file: str) -> None:
    """`openssl s_client` knows STARTTLS, and believes who the server is."""
    handler = Mail()
    async with serving(handler) as port:
        result = await run(
            *("openssl", "s_client", "-starttls", "smtp", "-quiet", "-verify_return_error"),
            *("-crlf", "-connect", f"127.0.0.1:{port}", "-servername", "localhost"),
            *("-verify_hostname", "localhost", "-CAfile", authority_file),
            text="NOOP\nQUIT\n",
        )
    assert result.stdout.splitlines()[-2:] == ["502 not implemented", "221 bye"]
    assert result.returncode == 0
    handler.check(has_mail=False)


@needs("swaks")
async def test_swaks(authority_file: str) -> None:
    """`swaks` sends a mail, if its Perl has TLS."""
    handler = Mail()
    async with serving(handler) as port:
        result = await run(
            *("swaks", "--tls", "--tls-ca-path", authority_file, "--server", "127.0.0.1"),
            *("--port", str(port), "--ehlo", "localhost", "--from", "a@example.com"),
            *("--to", "b@example.com", "--header", "Subject: a test", "--body", "Hello."),
        )
    if "TLS not available" in result.stdout + result.stderr:
        pytest.skip("swaks has no TLS: Net::SSLeay is not installed")
    assert "=== TLS started" in result.stdout, result.stdout + result.stderr
    assert result.returncode == 0
    handler.check()


@needs("curl")
async def test_curl(authority_file: str, tmp_path: Path) -> None:
    """`curl` sends a mail, and refuses to do so without TLS."""
    if " smtp" not in (await run("curl", "--version")).stdout:
        pytest.skip("curl has no SMTP")
    mail = tmp_path / "mail"
    mail.write_bytes(TEXT.encode())
    handler = Mail()
    async with serving(handler) as port:
        result = await run(
            *("curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", authority_file),
            *("--noproxy", "*", "--resolve", f"localhost:{port}:127.0.0.1"),
            *(f"smtp://localhost:{port}/here", "--mail-from", "a@example.com"),
            *("--mail-rcpt", "b@example.com", "--upload-file", str(mail)),
        )
    assert result.stderr == ""
    assert result.returncode == 0
    handler.check()


# -- Our clients -------------------------------------------------------------------------------


def serve_one(listener: socket.socket) -> None:
    """Serve one client that starts TLS, with the standard library alone."""
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b"220 localhost ESMTP\r\n")
        assert sock.recv(100) == b"STARTTLS\r\n"
        sock.sendall(b"220 go ahead\r\n")
        with new_server_context().wrap_socket(
            sock, server_side=True, suppress_ragged_eofs=False
        ) as tls:
            tls.sendall(b"250 welcome\r\n")
            file: Any = tls.makefile("rwb")
            with file:
                for line in file:
                    file.write(b"250 " + line)
                    file.flush()


@pytest.fixture
def port() -> Iterator[int]:
    """Return the port of a server of the standard library; it must have found nothing wrong."""
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            serve_one(listener)
        except BaseException as exc:
            errors.append(exc)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
    assert errors == []


async def test_async_client(port: int) -> None:
    """The asynchronous client starts TLS."""
    with anyio.fail_after(PATIENCE):
        async with AsyncTCPNetworkClient[str, str](("localhost", port), LINES) as client:
            assert await client.recv_packet() == "220 localhost ESMTP"
            await client.send_packet("STARTTLS")
            assert await client.recv_packet() == "220 go ahead"
            await client.start_tls(client_context())
            assert await client.recv_packet() == "250 welcome"
            for word in "hello", "x" * 50_000:
                await client.send_packet(word)
                assert await client.recv_packet() == f"250 {word}"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_blocking_client(port: int, version: ssl.TLSVersion) -> None:
    """So does the blocking one."""
    with TCPNetworkClient[str, str](("localhost", port), LINES) as client:
        assert client.recv_packet(timeout=PATIENCE) == "220 localhost ESMTP"
        client.send_packet("STARTTLS")
        assert client.recv_packet(timeout=PATIENCE) == "220 go ahead"
        client.start_tls(client_context(version))
        assert client.recv_packet(timeout=PATIENCE) == "250 welcome"
        for word in "hello", "x" * 50_000:
            client.send_packet(word, timeout=PATIENCE)
            assert client.recv_packet(timeout=PATIENCE) == f"250 {word}"
