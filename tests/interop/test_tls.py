"""TLS with peers that others wrote: OpenSSL's programs, curl, asyncio; in both roles."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from tests.interop.support import needs, run, serving_on_a_port
from tests.times import PATIENCE
from tests.tls_peers import authority, client_context, new_server_context

pytestmark = pytest.mark.anyio

VERSIONS = {"tls1_2": ssl.TLSVersion.TLSv1_2, "tls1_3": ssl.TLSVersion.TLSv1_3}
each_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def certificate_file(tmp_path: Path) -> str:
    """Return a file with a server's certificate and its key."""
    path = tmp_path / "certificate.pem"
    certificate = authority().issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


class Echo(AsyncStreamRequestHandler[str, str]):
    """Sends lines back, up to "bye"."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request = yield
        await client.send_packet(request)
        if request == "bye":
            await client.aclose()


class Page(AsyncStreamRequestHandler[str, str]):
    """Answers any line with a page, and reads on until an empty line."""

    content = "<p>All that there is to know.</p>\r\n" * 200

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        while (yield):
            pass
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.content)}\r\nConnection: close\r\n"
        await client.send_packet(f"{head}\r\n{self.content}")
        await client.aclose()


def serving(
    handler: AsyncStreamRequestHandler[str, str], **options: Any
) -> AbstractAsyncContextManager[int]:
    """Serve over TLS; the options are the serializer's."""
    protocol = StreamProtocol(StringLineSerializer(**options))
    return serving_on_a_port(handler, protocol, ssl=new_server_context())


# -- Our server --------------------------------------------------------------------------------


@needs("openssl")
@each_version
async def test_s_client(authority_file: str, version: str, caplog: Any) -> None:
    """`openssl s_client` talks to the server, and believes who it is."""
    async with serving(Echo()) as port:
        result = await run(
            *("openssl", "s_client", "-quiet", "-verify_return_error", f"-{version}"),
            *("-connect", f"127.0.0.1:{port}", "-servername", "localhost"),
            *("-CAfile", authority_file),
            text="hello\nhow are you?\nbye\n",
        )
    assert result.stdout == "hello\nhow are you?\nbye\n"
    assert result.returncode == 0
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@needs("openssl")
async def test_key_update(authority_file: str) -> None:
    """It may change its keys, and make the server change them too."""

    def talk() -> None:
        command = ["openssl", "s_client", "-tls1_3", "-connect", f"127.0.0.1:{port}"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            for line, answer in (
                (b"hello\n", b"hello\n"),
                (b"K\n", b"KEYUPDATE\n"),  # a command, and what it says then
                (b"how are you?\n", b"how are you?\n"),
                (b"bye\n", b"bye\n"),
            ):
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(line)
                process.stdin.flush()
                while process.stdout.readline() != answer:
                    assert process.poll() is None

    async with serving(Echo()) as port:
        await anyio.to_thread.run_sync(talk)


@needs("curl")
@each_version
async def test_curl(authority_file: str, version: str) -> None:
    """`curl` gets a page, and its end."""
    number = version.removeprefix("tls").replace("_", ".")
    async with serving(Page(), newline="CRLF") as port:
        result = await run(
            *("curl", "--silent", "--show-error", "--cacert", authority_file, "--noproxy", "*"),
            *(f"--tlsv{number}", "--tls-max", number, "--http1.1"),
            *(f"https://localhost:{port}/", "--resolve", f"localhost:{port}:127.0.0.1"),
        )
    assert result.stderr == ""
    assert result.stdout == Page.content.replace("\r\n", "\n")  # as text files are read
    assert result.returncode == 0


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_asyncio_client() -> None:
    """Asyncio's streams talk to the server, and get everything up to a clean end."""
    async with serving(Echo()) as port:
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=client_context(), family=2
        )
        writer.write(b"x" * 50_000 + b"\nbye\n")
        assert await reader.read(-1) == b"x" * 50_000 + b"\nbye\n"
        writer.close()
        await writer.wait_closed()


# -- Our clients -------------------------------------------------------------------------------


@contextmanager
def s_server(certificate_file: str, version: str) -> Iterator[int]:
    """Run `openssl s_server`, which sends back lines in reverse; return its port."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-rev", f"-{version}"]
    command += ["-cert", certificate_file, "-key", certificate_file]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.match(rb"ACCEPT .*:(\d+)", line):
                    yield int(found[1])
                    break
        finally:
            process.kill()


@needs("openssl")
@each_version
async def test_s_server(certificate_file: str, version: str) -> None:
    """The asynchronous client talks to `openssl s_server`."""
    protocol = StreamProtocol(StringLineSerializer())
    with s_server(certificate_file, version) as port, anyio.fail_after(PATIENCE):
        async with AsyncTCPNetworkClient[str, str](
            ("127.0.0.1", port), protocol, ssl=client_context()
        ) as client:
            for word in "stressed", "x" * 10_000:
                await client.send_packet(word)
                assert await client.recv_packet() == word[::-1]


@needs("openssl")
@each_version
def test_s_server_and_a_thread(certificate_file: str, version: str) -> None:
    """So does the blocking one."""
    protocol = StreamProtocol(StringLineSerializer())
    with s_server(certificate_file, version) as port:
        with TCPNetworkClient[str, str](
            ("127.0.0.1", port), protocol, ssl=client_context()
        ) as client:
            for word in "stressed", "x" * 10_000:
                client.send_packet(word, timeout=PATIENCE)
                assert client.recv_packet(timeout=PATIENCE) == word[::-1]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_asyncio_server() -> None:
    """Both clients talk to a server of asyncio's."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()

    protocol = StreamProtocol(StringLineSerializer())

    def ask(address: tuple[str, int]) -> None:
        with TCPNetworkClient[str, str](address, protocol, ssl=client_context()) as client:
            for word in "stressed", "x" * 10_000:
                client.send_packet(word, timeout=PATIENCE)
                assert client.recv_packet(timeout=PATIENCE) == word

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=new_server_context())
    async with server:
        address = server.sockets[0].getsockname()
        async with AsyncTCPNetworkClient[str, str](
            address, protocol, ssl=client_context()
        ) as client:
            for word in "stressed", "x" * 10_000:
                await client.send_packet(word)
                assert await client.recv_packet() == word
        await anyio.to_thread.run_sync(ask, address)
