"""Test what the page about TCP servers says of TLS, in memory.

The rest of the page is in `test_howto_tcp_servers`, which explains the quotations, and in
`test_howto_tcp_servers_ssl`, which runs the examples over real sockets.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.tcp_servers import background_server_ssl, ssl_explanation
from easynetwork.addresses import TLSAttribute
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.servers.statistics import CloseReason
from easynetwork.testing import serve
from tests.docs.howto_support import DOCS, check_quotations
from tests.docs.virtual_support import LINES, Client, ending, virtual
from tests.times import PATIENCE
from tests.tls_peers import authority, client_context, new_client_context, new_server_context

PAGE = "howto/tcp_servers.rst"
FOLDER = DOCS / "_include/examples/howto/tcp_servers"


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Echo(AsyncStreamRequestHandler[str, str]):
    """Answers, and notes why connections end."""

    def __init__(self) -> None:
        self.reasons: list[CloseReason | None] = []

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))

    async def on_disconnection(self, client: Client) -> None:
        self.reasons.append(client.close_reason)


async def ask(client: AsyncTCPNetworkClient[str, str], request: str = "hello") -> str:
    await client.send_packet(request)
    return await client.recv_packet()


async def works(served: Any, context: ssl.SSLContext, name: str = "localhost") -> bool:
    """Whether a client can connect, and gets its answer."""
    try:
        client = await served.connect(ssl=context, server_hostname=name)
        return await ask(client) == "hello"
    except (ssl.SSLError, ConnectionError):
        return False


# Encrypting connections with SSL/TLS


@virtual
async def test_same_handler() -> None:
    """One handler and one protocol object serve with and without TLS.

    "To encrypt the connections, pass an ssl.SSLContext with a certificate to the server, and pass a
    context that trusts this certificate to each client. The handler and the protocol object do not
    change"
    """
    handler = Echo()
    async with serve(handler, LINES) as served:
        assert await ask(await served.connect()) == "hello"
    async with serve(handler, LINES, ssl=new_server_context()) as served:
        assert await works(served, client_context())
        assert not await works(served, ssl.create_default_context())
    async with serve(handler, LINES, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as served:
        assert not await works(served, client_context())


@virtual
async def test_authority_of_one_run() -> None:
    """Each run makes another authority, and its client trusts no other one.

    "You do not need a certificate to run this program."

    "creates a certificate authority that exists for one run only. The client trusts only this
    authority, and still verifies the server's certificate."
    """
    server, client = background_server_ssl.make_contexts()
    _, other_client = background_server_ssl.make_contexts()
    assert client.verify_mode is ssl.CERT_REQUIRED
    async with serve(Echo(), LINES, ssl=server) as served:
        assert await works(served, client)
        assert not await works(served, other_client)
        assert not await works(served, client, "example.com")
    async with serve(Echo(), LINES, ssl=new_server_context()) as served:
        assert not await works(served, client)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@virtual
async def test_openssl(tmp_path: Path) -> None:
    """The command of the page makes two files, which are enough for both ends.

    "To try a server and a client in separate programs, create a certificate with OpenSSL. The name
    in subjectAltName must be the host that the client connects to"

    "The server loads both files with load_cert_chain("

    "The client trusts the certificate itself"

    "ssl.create_default_context(cafile="
    """
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    [command] = re.findall(r"^   \$ (openssl .*\\\n.*)$", page, re.MULTILINE)
    arguments = shlex.split(command.replace("rsa:2048", "rsa:1024").replace("\\\n", ""))
    subprocess.run(  # noqa: ASYNC221
        arguments, cwd=tmp_path, capture_output=True, check=True, timeout=PATIENCE
    )
    assert sorted(os.listdir(tmp_path)) == ["cert.pem", "key.pem"]
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    for context in server, client:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # a short key, which takes less time to make
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serve(Echo(), LINES, ssl=server) as served:
        assert await works(served, client)
        assert not await works(served, client, "example.com")
        assert not await works(served, ssl.create_default_context())


def test_functions() -> None:
    """The module of the examples can be imported, as it is.

    "This function, like the other examples below, is in ssl_explanation.py, with all imports"
    """
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    shown = re.findall(r"ssl_explanation.py\n +:pyobject: (\w+)", page)
    assert shown[0] == "context_from_files"
    assert len(shown) > 5
    assert set(shown) <= vars(ssl_explanation).keys()


@virtual
async def test_attributes() -> None:
    """The handler sends what the attributes say.

    "The attributes of TLSAttribute describe the TLS connection. Read them as shown in"
    """

    class Describing(Echo):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            version = client.extra(TLSAttribute.tls_version)
            name, protocol, bits = client.extra(TLSAttribute.cipher)
            await client.send_packet(f"{version} {name} {protocol} {bits}")

    async with serve(Describing(), LINES, ssl=new_server_context()) as served:
        client = await served.connect(ssl=client_context(), server_hostname="localhost")
        description = await ask(client)
        assert re.fullmatch(r"TLSv1\.3 TLS_AES_\w+ TLSv1\.3 \d+", description)


# Configuring the SSL context


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Have a context support one version alone, though it is deprecated."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.skipif(not (ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1), reason="OpenSSL has no old versions")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@virtual
async def test_old_versions(version: ssl.TLSVersion) -> None:
    """A default context rejects both; one that is made for it accepts them.

    "Minimum version. TLS 1.0 and 1.1 are deprecated (8996), and this context rejects them. Do not
    enable TLS 1.0: its connections break after a few packets."
    """
    default = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("localhost").configure_cert(default)
    async with serve(Echo(), LINES, ssl=default) as served:
        assert not await works(served, only(new_client_context(), version))
    async with serve(Echo(), LINES, ssl=only(new_server_context(), version)) as served:
        context = only(new_client_context(), version)
        client = await served.connect(ssl=context, server_hostname="localhost")
        count = 0
        try:
            while count < 100:
                assert await ask(client) == "hello"
                count += 1
        except ConnectionError:
            pass
        assert (count == 100) is (version is ssl.TLSVersion.TLSv1_1)
        assert count > 3


def test_default_context() -> None:
    """Its algorithms are all of a kind that is still considered to be good.

    "ssl.create_default_context() is a good choice: it accepts TLS 1.2 and newer, and disables
    algorithms that are known to be weak."

    "Three settings are sometimes worth changing."
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.maximum_version == ssl.TLSVersion.MAXIMUM_SUPPORTED
    for cipher in context.get_ciphers():
        assert not re.search("RC4|DES|MD5|NULL|EXP|anon", cipher["name"])
        assert cipher["strength_bits"] >= 128
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    section = page.partition("Configuring the SSL context\n")[2].partition("^^^^^\n\nWith TLS")[0]
    assert len(re.findall(r"^\*\*[A-Z][a-z ]+\.\*\*", section, re.MULTILINE)) == 3


@virtual
async def test_name_that_is_not_ascii(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client's first message has such a name.

    "If a client requests a name that is not ASCII, Python rejects the client and prints an error
    without using logging. Install a sys.unraisablehook() to suppress it."
    """
    caplog.set_level(logging.ERROR)
    caught: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: caught.append(args.exc_type))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="example.com")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    assert hello.count(b"example.com") == 1
    contexts = [new_server_context(), new_server_context()]
    context = ssl_explanation.context_for_two_names(*contexts)
    handler = Echo()
    async with serve(handler, LINES, ssl=context) as served:
        for name in b"ex\xe4mple.com", b"example.com":
            raw = await served.connect(raw=True)
            await raw.send(hello.replace(b"example.com", name))
            if name == b"example.com":
                assert (await raw.receive())[:1] == b"\x16"  # an answer
            else:
                assert (await raw.receive())[:1] == b"\x15"  # an alert
                await ending(raw)
        assert served.server.get_statistics().tls_failures == 1
    assert caught == [UnicodeDecodeError]
    assert not caplog.records


@virtual
async def test_client_that_verifies_nothing() -> None:
    """It takes any server for the one that it wants, and what it sends is encrypted for that.

    "Never set verify_mode of a client's context to ssl.CERT_NONE. The connection would be
    encrypted, but the client would not know which server it is connected to."
    """
    server, _ = background_server_ssl.make_contexts()
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    async with serve(Echo(), LINES, ssl=server) as served:
        assert await works(served, careless, "example.com")
        assert served.server.get_statistics().tls_handshakes == 1
        assert not await works(served, client_context(), "example.com")


# Closing a TLS connection


@pytest.mark.parametrize("sends_alert", [True, False])
@virtual
async def test_closing_alert(sends_alert: bool) -> None:
    """A client of the library sends it, unless it is told not to.

    "With TLS, each side sends a closing alert (close_notify) before it closes the connection. The
    alert tells the other side that no data is missing."
    """
    handler = Echo()
    async with serve(handler, LINES, ssl=new_server_context()) as served:
        client = await served.connect(
            ssl=client_context(), server_hostname="localhost", ssl_standard_compatible=sends_alert
        )
        assert await ask(client) == "hello"
        await client.aclose()
        await anyio.wait_all_tasks_blocked()
    assert handler.reasons == [CloseReason.PEER_CLOSED if sends_alert else CloseReason.TRUNCATED]
