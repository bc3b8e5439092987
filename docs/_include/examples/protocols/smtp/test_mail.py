from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import anyio
import pytest
from mail_auth import Users, hash_password
from mail_handler import MailRequestHandler
from mail_protocol import COMMANDS
from mail_queue import MailQueue, read_mail
from mail_session import Settings

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import RawSerializer, StringLineSerializer
from easynetwork.testing import MemoryNetwork, serve

pytestmark = pytest.mark.anyio

LINES = StreamProtocol(StringLineSerializer("CRLF"))
ENVELOPE = ["EHLO client.example.org", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.com>"]


@pytest.fixture
def queue(tmp_path: Path) -> MailQueue:
    return MailQueue(tmp_path)


class Client:
    """Sends lines and receives replies."""

    def __init__(self, client: AsyncTCPNetworkClient[Any, Any]) -> None:
        self.client = client

    async def reply(self) -> str:
        lines = [await self.client.recv_packet()]
        while lines[-1][3:4] == "-":
            lines.append(await self.client.recv_packet())
        return "\n".join(lines)

    async def ask(self, *lines: str) -> str:
        for line in lines:
            await self.client.send_packet(line)
        replies = [await self.reply() for _ in lines]
        return replies[-1]


async def test_mail(queue: MailQueue) -> None:
    async with serve(MailRequestHandler(Settings(), queue), COMMANDS) as served:
        client = Client(await served.connect(protocol=LINES))
        assert await client.reply() == "220 localhost ESMTP ready"
        assert (await client.ask(*ENVELOPE, "DATA")).startswith("354 ")
        for line in "Subject: a test", "", "..a line that begins with a dot":
            await client.client.send_packet(line)
        assert (await client.ask(".")).startswith("250 2.0.0 Queued as ")
        assert await client.ask("QUIT") == "221 2.0.0 Bye"

    [path] = queue.messages()
    envelope, content = read_mail(path)
    assert envelope == {"sender": "ada@example.org", "recipients": ["bob@example.com"]}
    assert content.endswith(b"\r\nSubject: a test\r\n\r\n.a line that begins with a dot\r\n")


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r\n.\n", b"\n.\n", b"\r.\r", b"\r\n.\r", b"\n.\r"])
async def test_smuggled_end(queue: MailQueue, end: bytes) -> None:
    smuggled = b"MAIL FROM:<eve@example.org>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nHello\r\n.\r\n"
    network = MemoryNetwork(chunks=1)
    async with serve(MailRequestHandler(Settings(), queue), COMMANDS, network=network) as served:
        client = Client(await served.connect(protocol=LINES))
        await client.reply()
        await client.ask(*ENVELOPE, "DATA")
        client.client.set_protocol(StreamProtocol(RawSerializer()))
        await client.client.send_packet(b"Hello" + end + smuggled)
        client.client.set_protocol(LINES)
        assert (await client.reply()).startswith("554 5.6.0 ")
        assert await client.ask("QUIT") == "221 2.0.0 Bye"

    assert queue.messages() == []


async def test_disconnection_inside_a_mail(queue: MailQueue) -> None:
    async with serve(MailRequestHandler(Settings(), queue), COMMANDS) as served:
        client = Client(await served.connect(protocol=LINES))
        await client.reply()
        await client.ask(*ENVELOPE, "DATA")
        await client.client.send_packet("Subject: a test")
        await client.client.aclose()

    assert queue.messages() == []
    assert list(queue.incomplete.iterdir()) == []


async def test_login(
    queue: MailQueue, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    users = Users({"ada": hash_password("lovelace")})
    settings = Settings(tls=server_context, users=users)
    right, wrong = (
        base64.b64encode(f"\0ada\0{password}".encode()).decode()
        for password in ["lovelace", "byron"]
    )
    async with serve(MailRequestHandler(settings, queue), COMMANDS) as served:
        client = Client(await served.connect(protocol=LINES))
        await client.reply()
        assert "AUTH" not in await client.ask("EHLO client.example.org")
        assert (await client.ask(f"AUTH PLAIN {right}")).startswith("538 ")

        assert (await client.ask("STARTTLS")).startswith("220 ")
        await client.client.start_tls(client_context, server_hostname="localhost")
        assert (await client.ask("MAIL FROM:<ada@example.org>")).startswith("503 ")
        assert "AUTH PLAIN LOGIN" in await client.ask("EHLO client.example.org")
        assert (await client.ask(f"AUTH PLAIN {wrong}")).startswith("535 ")
        assert (await client.ask(f"AUTH PLAIN {right}")).startswith("235 ")


@pytest.mark.virtual_time
async def test_silent_client(queue: MailQueue) -> None:
    async with serve(MailRequestHandler(Settings(), queue), COMMANDS) as served:
        client = Client(await served.connect(protocol=LINES))
        await client.reply()
        start = anyio.current_time()
        assert (await client.reply()).startswith("421 4.4.2 ")
        assert anyio.current_time() - start == pytest.approx(300)


@pytest.mark.virtual_time
async def test_drain(queue: MailQueue) -> None:
    async with serve(MailRequestHandler(Settings(), queue), COMMANDS) as served:
        client = Client(await served.connect(protocol=LINES))
        await client.reply()
        await served.server.shutdown(grace=30)
        assert (await client.reply()).startswith("421 4.3.2 ")
