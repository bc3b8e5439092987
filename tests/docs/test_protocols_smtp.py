"""Test the statements, the examples and the transcripts of the page about SMTP.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. What takes long (crashes, abuse, each cut of a stream) is in `test_protocols_smtp_abuse`.
"""

from __future__ import annotations

import ast
import base64
import collections
import contextlib
import dataclasses
import difflib
import errno
import inspect
import json
import logging
import os
import re
import runpy
import shutil
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from sybil import Document

from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import run as server_run
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.testing import check_serializer, serve, virtual_time
from tests.conftest import BACKENDS, HAS_TRIO
from tests.docs.howto_support import DOCS, check_quotations, complaints, table
from tests.docs.smtp_support import (
    ENVELOPE,
    FOLDER,
    LOGIN,
    Client,
    codes,
    example,
    mail_auth,
    mail_content,
    mail_handler,
    mail_protocol,
    mail_queue,
    mail_server,
    mail_session,
    read_to_the_end,
    running,
    send_and_read,
    serving_in_memory,
)
from tests.docs.sybil_parsers import code_blocks, is_console
from tests.interop.support import needs
from tests.times import PATIENCE
from tests.tls_peers import authority, client_context, server_context

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="the queue needs folders that can be synced"),
]

PAGE = "protocols/smtp.rst"
END = b"Subject: a test\r\n\r\nHello.\r\n.\r\n"
LINES: Any = StreamProtocol(StringLineSerializer("CRLF"))
EVERY_BACKEND = pytest.mark.parametrize(
    "backend",
    ["asyncio", pytest.param("trio", marks=pytest.mark.skipif(not HAS_TRIO, reason="no trio"))],
)


@pytest.fixture(params=[BACKENDS[0], BACKENDS[-1]])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Return asyncio and trio; other loops are no other example."""
    return request.param


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.fixture
def queue(tmp_path: Path) -> Any:
    return mail_queue.MailQueue(tmp_path / "queue")


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def content_of(queue: Any) -> bytes:
    """Return the content of the only message, without the line that the server adds."""
    [path] = queue.messages()
    _, content = mail_queue.read_mail(path)
    return bytes(re.sub(rb"\AReceived: .*\r\n\t.*\r\n", b"", content))


def settings(**options: Any) -> Any:
    return mail_session.Settings(**options)


def with_users() -> Any:
    name, password = LOGIN
    users = mail_auth.Users({name: mail_auth.hash_password(password)})
    return settings(tls=server_context(), users=users)


# The page as its reader has it


def test_of_the_page() -> None:
    """The page's own tests pass, on both frameworks, and are as many as the page shows.

    "The network in memory of easynetwork.testing makes situations that are rare on a real network"

    "VERBS is a dictionary, so you can add the command in a file of your own"

    "The fixtures for the certificates are in conftest.py, which is that of"

    "Put test_mail.py, conftest.py and"

    "into the folder of the modules, and run the tests."
    """
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", "-pno:xdist", "-pno:asyncio"],
        cwd=FOLDER,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # not beside the examples
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=5 * PATIENCE,
        check=False,
    )
    counts = [
        int(count)
        for typed, shown in console_commands()
        if typed.startswith("python -m pytest")
        for count in re.findall(r"^(\d+) passed in", shown, re.MULTILINE)
    ]
    assert len(counts) == 2
    assert re.search(rf"^{sum(counts)} passed in", run.stdout, re.MULTILINE), run.stdout
    for name in "conftest.py", "pytest.ini":
        same = (DOCS / "_include/examples/howto/testing" / name).read_text(encoding="utf-8")
        assert (FOLDER / name).read_text(encoding="utf-8") == same


def test_size_of_the_handler() -> None:
    """The module is small.

    "Each part is a module, and can be replaced"
    """
    lines = (FOLDER / "mail_handler.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


def console_commands() -> Iterator[tuple[str, str]]:
    """Yield the commands that the page shows, each with what it prints."""
    document = Document((DOCS / PAGE).read_text(encoding="utf-8"), PAGE)
    for region in code_blocks(document):
        if is_console(region):
            _, *commands = re.split(r"^\$ ", "\n" + region.lexemes["source"], flags=re.MULTILINE)
            for command in commands:
                typed, _, printed = command.partition("\n")
                yield typed, printed


@pytest.mark.in_turn
@needs("swaks")
@needs("curl")
@needs("openssl")
@EVERY_BACKEND
def test_transcripts(backend: str, tmp_path: Path) -> None:
    """A reader who types what the page says sees what it shows.

    "In another terminal, send a message with swaks, which shows what both sides say."

    "With TLS, a login and pipelining, the client sends three commands before it reads the replies"

    "curl can send mail as well. It prints nothing if the server has accepted the message"

    "All messages are in the queue"

    "Without a message to send, curl sends HELP, or the command that you pass"

    "Without the login, the server refuses this recipient"

    "With OpenSSL, you can type commands yourself over TLS. The first line is the end of the
    response to OpenSSL's own EHLO"
    """
    played = []
    with contextlib.ExitStack() as stack:
        for file in FOLDER.glob("*.py"):
            shutil.copy(file, tmp_path)
        for typed, shown in console_commands():
            if typed.startswith("python -m pytest"):
                continue  # see test_of_the_page
            if typed.startswith("python mail_server"):
                _, name, *options = typed.split()
                program = stack.enter_context(
                    running(tmp_path, f"--backend={backend}", *options, name=name)
                )
                # It may listen on other addresses, too.
                expected = shown.replace("2525", str(program.port)).splitlines()
                assert set(expected) <= set(program.log().splitlines())
                for file in tmp_path.glob("send_mail.py"):
                    text = file.read_text(encoding="utf-8")
                    file.write_text(text.replace("2525", str(program.port)), encoding="utf-8")
                continue
            if "localhost:2525" in typed:
                typed = typed.replace("2525", str(program.port))
                shown = shown.replace("2525", str(program.port))
            printed = play(typed, tmp_path)
            if "TLS not available" in printed:
                pytest.skip("swaks has no TLS: Net::SSLeay is not installed")
            difference = difflib.unified_diff(
                general(shown), general(printed), "the page", "the program", lineterm=""
            )
            assert not [*difference], "\n".join([f"$ {typed}", *difference, printed])
            played.append(typed.split()[0])
        assert (played.count("swaks"), played.count("curl")) == (4, 3)
        contents = [content for _, content in program.queued()]
        assert len(contents) == 4
        assert contents[2].endswith(b"\r\n\r\nHello.\r\n.\r\nThe line above is a dot.\r\n")
        assert b" with ESMTP id " in contents[0]
        assert all(b" with ESMTPSA id " in content for content in contents[1:])


def play(command: str, folder: Path) -> str:
    """Type a command; return what is printed."""
    done = subprocess.run(
        f'python() {{ "{sys.executable}" "$@"; }}\n{command}',
        shell=True,
        cwd=folder,
        # getpass asks the terminal if there is one.
        start_new_session=True,
        input=LOGIN[1] + "\n" if "mail_auth.py" in command else "",
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    if command.startswith("openssl req") or "mail_auth.py" in command:
        return ""  # dots, and a prompt
    return done.stderr + done.stdout


def general(text: str) -> list[str]:
    """Return lines without what differs from run to run, or from machine to machine."""
    for pattern, wildcard in (
        (r"\b[0-9a-f]{16}-[0-9a-f]{8}\b", "ID"),
        (r"TLS started with cipher \S+", "TLS started with cipher NAME"),
        (r"\d+ lines sent", "N lines sent"),
        (r"\d+ bytes", "N bytes"),
        (r"TLS peer (\S+)", "TLS peer NAME"),
    ):
        text = re.sub(pattern, wildcard, text)
    return text.strip("\n").splitlines()


def test_codes_with_effects() -> None:
    """The handler acts on the codes of the table; a handler that learns another needs a row.

    "With all other codes, the handler only sends the reply."
    """
    rows = table(PAGE, "Code", "What the handler does")
    documented = {int(code) for row in rows for code in re.findall(r"\d+", row[0])}
    source = (FOLDER / "mail_handler.py").read_text(encoding="utf-8")
    tests = re.findall(r"reply\.code (?:==|in|>=) (\(.*?\)|\d+)", source)
    assert documented == {int(code) for test in tests for code in re.findall(r"\d+", test)}


# Commands and replies


def test_session() -> None:
    """Each command has its replies.

    "knows which command is allowed when, and what the reply is."

    "A sender that announces its size is refused before it sends the content."

    "A client without a login can send mail to your domains only."
    """
    session = mail_session.Session(settings(max_recipients=2), is_encrypted=False)
    for line, start in (
        ("NOOP", "250 2.0.0"),
        ("noop whatever", "250 2.0.0"),
        ("", "500 5.5.1"),
        ("TURN", "500 5.5.1"),
        ("MAIL FROM:<ada@example.org>", "503 5.5.1"),
        ("EHLO", "501 5.5.4"),
        ("EHLO a b", "501 5.5.4"),
        ("EHLO evil\x00", "501 5.5.4"),
        ("HELO client", "250 localhost"),
        ("EHLO [127.0.0.1]", "250 localhost\nPIPELINING\nSIZE 10000000\n8BITMIME\nENH"),
        ("RCPT TO:<bob@example.com>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("MAIL", "501 5.1.7"),
        ("MAIL FROM:ada@example.org", "501 5.1.7"),
        ("MAIL FROM:<ada>", "501 5.1.7"),
        ("MAIL FROM:<a@b@c>", "501 5.1.7"),
        ("MAIL FROM:<a b@c>", "501 5.1.7"),
        ("MAIL TO:<ada@example.org>", "501 5.1.7"),
        (f"MAIL FROM:<{'a' * 65}@example.org>", "501 5.1.7"),
        ("MAIL FROM:<ada@example.org> SIZE=10000001", "552 5.3.4"),
        ("MAIL FROM:<ada@example.org> SIZE=" + "9" * 30, "555 5.5.4"),
        ("MAIL FROM:<ada@example.org> SIZE=x", "555 5.5.4"),
        ("MAIL FROM:<ada@example.org> SMTPUTF8", "555 5.5.4"),
        ("mail from: <ada@example.org> SIZE=10000000 BODY=8BITMIME AUTH=<>", "250 2.1.0"),
        ("MAIL FROM:<ada@example.org>", "503 5.5.1"),
        ("DATA", "554 5.5.1"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<bob@example.com> NOTIFY=NEVER", "555 5.5.4"),
        ("RCPT TO:<bob@example.net>", "550 5.7.1"),
        ("RCPT TO:<@a.example,@b.example:bob@EXAMPLE.com>", "250 2.1.5"),
        ("RCPT TO:<Postmaster>", "250 2.1.5"),
        ('RCPT TO:<"b o b"@example.com>', "452 4.5.3"),
        ("DATA now", "501 5.5.4"),
        ("VRFY bob", "252 2.1.5"),
        ("RSET now", "501 5.5.4"),
        ("RSET", "250 2.0.0"),
        ("DATA", "503 5.5.1"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("EHLO again", "250 localhost"),
        ("MAIL FROM:<> BODY=7BIT", "250 2.1.0"),
        ('RCPT TO:<"b o b"@example.com>', "250 2.1.5"),
        ("DATA", "354 "),
        ("STARTTLS", "503 5.5.1"),
        ("AUTH PLAIN", "538 5.7.11"),
        ("QUIT now", "501 5.5.4"),
        ("QUIT", "221 2.0.0"),
    ):
        reply = session.reply_to(*mail_session.split_command(line))
        assert f"{reply.code} {reply.text}".startswith(start), line


@pytest.mark.parametrize(
    ("greeting", "is_encrypted", "has_user", "protocol"),
    [
        ("HELO", False, False, "SMTP"),
        ("HELO", True, False, "SMTP"),
        ("HELO", True, True, "SMTP"),
        ("EHLO", False, False, "ESMTP"),
        ("EHLO", True, False, "ESMTPS"),
        ("EHLO", True, True, "ESMTPSA"),
    ],
)
def test_trace(greeting: str, is_encrypted: bool, has_user: bool, protocol: str) -> None:
    """The header names a protocol that RFC 3848 knows.

    "SMTP after HELO, and ESMTP after EHLO, with an S for TLS and an A for a login"

    "Session.trace() returns the header line Received. It names the protocol as 3848 says"
    """
    session = mail_session.Session(settings(), is_encrypted=is_encrypted)
    assert session.reply_to(greeting, "client").code == 250
    session.user = "ada" if has_user else None
    assert session.trace("127.0.0.1", "1").startswith("Received: from client ")
    assert f" with {protocol} id 1; " in session.trace("127.0.0.1", "1")


async def test_replies(queue: Any) -> None:
    """Replies are lines, and a command cannot make one more.

    "A reply of several lines has a hyphen after each code but the last one"

    "So nothing in a command can begin a new line in a reply or in the log."

    "The connection can continue after that."
    """
    async with serving_in_memory(queue) as served:
        replies = await send_and_read(
            served,
            b"EHLO client\r\nNOOP\nQUIT\r\nNOOP\rQUIT\r\n\xff\r\nVRFY \0\r\n"
            + b"x" * 20_000
            # It waits for more than a separator, so all of this is one line.
            + b"\nNOOP\r\nNOOP\r\nQUIT\r\nNOOP\r\n",
        )
    assert replies.startswith(
        b"220 localhost ESMTP ready\r\n250-localhost\r\n250-PIPELINING\r\n250-SIZE 10000000\r\n"
    )
    assert codes(replies) == [220, 250, 500, 500, 500, 500, 500, 250, 221]


async def test_errors(queue: Any) -> None:
    """A client that talks nonsense has to leave.

    "A client that has sent ten invalid commands is disconnected after the next one."
    """
    async with serving_in_memory(queue) as served:
        replies = await send_and_read(served, b"GET / HTTP/1.1\r\n" * 100)
    assert codes(replies) == [220, *[500] * 10, 421]
    assert replies.endswith(b"421 4.7.0 Too many errors, closing the connection\r\n")


async def test_commands_without_a_mail(queue: Any) -> None:
    """A client cannot keep the server busy for nothing.

    "So is a client that sends 500 commands without sending a message"
    """
    mail = ENVELOPE.partition(b"\r\n")[2] + END
    commands = b"NOOP\r\n" * 6 + mail
    async with serving_in_memory(queue, settings(max_commands=10)) as served:
        replies = await send_and_read(served, b"EHLO client\r\n" + commands * 3 + b"NOOP\r\n" * 20)
    assert codes(replies) == [220, 250, *[*[250] * 8, 354, 250] * 3, *[250] * 10, 421]
    assert replies.endswith(b"421 4.7.0 Too many commands, closing the connection\r\n")
    assert len(queue.messages()) == 3


# The content


def test_content_serializer() -> None:
    """The format of the content can be sent and received, however it is cut.

    "If a line of the message begins with a dot, the client adds another one (dot-stuffing)."
    """
    lines = [b"a", b"", b".", b"..", b".a", b"x" * 100, b"\0\xff", None]
    check_serializer(
        mail_content.ContentSerializer(limit=200), lines, malformed=[b"a\nb\r\n", b"\r\r\n"]
    )
    serialize = mail_content.ContentSerializer().serialize
    assert [serialize(line) for line in (b".", b".a", None)] == [b"..", b"..a", b"."]


async def test_pipelining(queue: Any) -> None:
    """Everything may be sent at once, and what follows the content is a command.

    "A client that sends commands directly after the content, in one piece, loses none of them."

    "Only CRLF ends a line"
    """
    data = b"..dot\r\n\0 \xff\r\n ." + b"\r\n.\r\n"
    async with serving_in_memory(queue) as served:
        replies = await send_and_read(served, ENVELOPE + data + b"NOOP\r\nQUIT\r\n")
    assert codes(replies) == [220, 250, 250, 250, 354, 250, 250, 221]
    assert content_of(queue) == b".dot\r\n\0 \xff\r\n .\r\n"


async def test_empty_mail(queue: Any) -> None:
    """The end of a message may come at once.

    "After the reply 354, the client sends the lines of the message, and a line with a dot as its
    end."
    """
    async with serving_in_memory(queue) as served:
        replies = await send_and_read(served, ENVELOPE + b".\r\nQUIT\r\n")
    assert codes(replies) == [220, 250, 250, 250, 354, 250, 221]
    assert content_of(queue) == b""


async def test_size(queue: Any) -> None:
    """A message that is too large is read, but not stored.

    "When a message becomes too large, the server writes nothing more, but reads on to the end of
    the message: that is where the client expects the reply."
    """
    most = b"x" * 498 + b"\r\n" + b"y" * 498 + b"\r\n"
    async with serving_in_memory(queue, settings(max_size=1000)) as served:
        large = ENVELOPE + most + b"\r\n.\r\n"
        fitting = ENVELOPE + most + b".\r\n"
        replies = await send_and_read(served, large + fitting + b"QUIT\r\n")
    mail = [250, 250, 250, 354]
    assert codes(replies) == [220, *mail, 552, *mail, 250, 221]
    assert content_of(queue) == most


async def test_long_line(queue: Any) -> None:
    """A line that never ends costs no memory, and its message is refused.

    "A message arrives line by line and is written to the disk line by line, so even a large one
    needs little memory."
    """
    async with serving_in_memory(queue) as served:
        data = ENVELOPE + b"x" * 1_000_000 + b"\r\n.\r\nQUIT\r\n"
        replies = await send_and_read(served, data)
    assert codes(replies) == [220, 250, 250, 250, 354, 554, 221]
    assert queue.messages() == []


def test_slow_content(queue: Any) -> None:
    """A message has to arrive in time, even if each line does.

    "All problems in receive_content() are noted and reported at the end of the message, or they end
    the connection."
    """

    async def main() -> None:
        handler = mail_handler.MailRequestHandler(settings(), queue)
        async with mail_handler_serving(handler) as served:
            connection = await served.connect(raw=True)
            await connection.send(ENVELOPE)
            with anyio.move_on_after(599):
                while True:
                    await connection.send(b"Hello\r\n")
                    await anyio.sleep(10)
            replies = await read_to_the_end(connection)
            assert codes(replies) == [220, 250, 250, 250, 354, 421]
            assert list(queue.incomplete.iterdir()) == queue.messages() == []

    anyio.run(main, backend_options=virtual_time())


def mail_handler_serving(handler: Any) -> Any:
    return serve(handler, mail_protocol.COMMANDS)


# The queue


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="/proc tells what is synced")
async def test_order_of_the_commit(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is on the disk before the client knows.

    "So the message must be on the disk before that, even if the machine loses power a moment later"

    "commit() does four things, in this order"

    "It writes what is left in the memory of the process."

    "os.fsync() writes the file to the disk."

    "Renaming the file moves it from the folder tmp to the folder new."

    "os.fsync() writes the name of the file to the disk."
    """
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noting_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append(f"fsync {path.relative_to(queue.complete.parent).parts[0]}")
        if path.is_file():
            assert path.read_bytes().endswith(b"Hello.\r\n")
        fsync(descriptor)

    def noting_rename(path: Path, target: Path) -> Path:
        steps.append(f"rename to {target.parent.name}")
        return rename(path, target)

    class Handler(mail_handler.MailRequestHandler):
        async def answer(self, *args: Any) -> Any:
            reply = await super().answer(*args)
            steps.append(str(reply.code))
            return reply

    async with mail_handler_serving(Handler(settings(), queue)) as served:
        monkeypatch.setattr(os, "fsync", noting_fsync)
        monkeypatch.setattr(Path, "rename", noting_rename)
        await send_and_read(served, ENVELOPE + END + b"QUIT\r\n")
        monkeypatch.undo()
    assert steps == ["250"] * 3 + ["fsync tmp", "rename to new", "fsync new", "250", "221"]


@pytest.mark.parametrize("step", ["open", "write", "commit"])
async def test_full_disk(
    queue: Any, step: str, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """A message that cannot be stored is not accepted, and the connection goes on.

    "If the disk is full, the server replies with 451, and clients try again later."
    """

    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class FullFile:
        close = staticmethod(lambda: fail())
        write = staticmethod(fail)

    class FullMail(mail_queue.NewMail):
        file: Any

        def __init__(self, queue: Any) -> None:
            super().__init__(queue)
            self.lines = 0

        def write(self, line: bytes) -> None:
            self.lines += 1
            if self.lines == 4:
                self.file.close()
                self.file = FullFile()
            super().write(line)

    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(Path, "open", fail)
        elif step == "write":
            patch.setattr(mail_queue, "NewMail", FullMail)
        else:
            patch.setattr(os, "fsync", fail)
        async with serving_in_memory(queue) as served:
            connection = await served.connect(raw=True)
            await connection.send(ENVELOPE)
            replies = b""
            while len(codes(replies)) < 5:
                replies += await connection.receive()
            if step != "open":
                await connection.send(END)
            await connection.send(b"NOOP\r\nQUIT\r\n")
            replies += await read_to_the_end(connection)
    middle = [451] if step == "open" else [354, 451]
    assert codes(replies) == [220, 250, 250, 250, *middle, 250, 221]
    assert list(queue.incomplete.iterdir()) == queue.messages() == []
    [record] = [record for record in log.records if record.name == "mail"]
    assert "No space left on device" in record.getMessage()


def test_leftovers(tmp_path: Path) -> None:
    """Mails that a crash has interrupted are removed, but not those of another server.

    "Only files older than an hour are deleted there, when the server starts."

    "Programs that run side by side, for a restart, can use the same queue."
    """
    queue = mail_queue.MailQueue(tmp_path)
    old, new = queue.incomplete / "old.mail", queue.incomplete / "new.mail"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    mail_queue.MailQueue(tmp_path)
    assert list(queue.incomplete.iterdir()) == [new]


# Encryption and logins


async def test_state_after_start_tls(queue: Any) -> None:
    """What was said in clear text is forgotten, and what is injected is never parsed.

    "After the handshake, the client begins again: the new session has neither a name nor a message"

    "Clear text after STARTTLS makes the handshake fail"
    """
    async with serving_in_memory(queue, with_users()) as served:
        client = await served.connect(protocol=LINES)
        for line in *ENVELOPE.decode().splitlines()[:3], "STARTTLS":
            await client.send_packet(line)
        while not (await client.recv_packet()).startswith("220 2.0.0"):
            pass
        await client.start_tls(client_context(), server_hostname="localhost")
        for line, code in ("DATA", "503"), ("RCPT TO:<b@example.com>", "503"), ("STARTTLS", "503"):
            await client.send_packet(line)
            assert (await client.recv_packet()).startswith(code), line
        await client.send_packet("MAIL FROM:<ada@example.org>")
        assert await client.recv_packet() == "503 5.5.1 Send EHLO first"

        connection = await served.connect(raw=True)
        await connection.send(b"EHLO client\r\nSTARTTLS\r\n" + ENVELOPE + END)
        replies = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await connection.receive():
                replies += data
        assert codes(replies.partition(b"220 2.0.0")[0]) == [220, 250]
        assert b"354" not in replies
        assert b"503" not in replies
    assert queue.messages() == []


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.in_turn
async def test_auth(queue: Any, log: pytest.LogCaptureFixture) -> None:
    """All ways to log in, and not to.

    "Names and passwords are in Base64"

    "Each wrong password is a line, too."

    "after 334, the client sends a password, after 354 a message, and after 220 a TLS handshake."

    "Hashing is slow by design, so it runs in a thread, and in no more than two at the same time"

    "For port 465, pass ssl to the server: the handler notices that the connection is encrypted."
    """
    name, password = (encoded(text) for text in LOGIN)
    plain = encoded("\0".join(["", *LOGIN]))
    async with serving_in_memory(queue, with_users(), ssl=server_context()) as served:

        async def ask(*lines: str) -> str:
            client = await served.connect(
                protocol=LINES, ssl=client_context(), server_hostname="localhost"
            )
            await client.recv_packet()
            await client.send_packet("EHLO client")
            while (await client.recv_packet())[3] == "-":
                pass
            for line in lines:
                await client.send_packet(line)
                reply: str = await client.recv_packet()
            if reply.startswith("235"):
                await client.send_packet("AUTH PLAIN")
                assert (await client.recv_packet()).startswith("503")
                await client.send_packet("MAIL FROM:<>")
                await client.recv_packet()
                await client.send_packet("RCPT TO:<bob@elsewhere.example>")
                assert (await client.recv_packet()).startswith("250")
            await client.send_packet("NOOP")
            assert (await client.recv_packet()).startswith("250")
            await client.aclose()
            return reply

        for dialogue, reply in (
            ([f"AUTH PLAIN {plain}"], "235 2.7.0"),
            (["auth plain " + encoded("ada\0ada\0lovelace")], "235 2.7.0"),
            (["AUTH PLAIN " + encoded("bob\0ada\0lovelace")], "501 5.5.2"),
            (["AUTH PLAIN", plain], "235 2.7.0"),
            (["AUTH LOGIN", name, password], "235 2.7.0"),
            ([f"AUTH LOGIN {name}", password], "235 2.7.0"),
            (["AUTH LOGIN", name, name], "535 5.7.8"),
            (["AUTH LOGIN", password, password], "535 5.7.8"),
            (["AUTH LOGIN", "*"], "501 5.7.0"),
            (["AUTH PLAIN", "*"], "501 5.7.0"),
            (["AUTH PLAIN ="], "501 5.5.2"),
            (["AUTH PLAIN !"], "501 5.5.2"),
            (["AUTH PLAIN /w=="], "501 5.5.2"),
            ([f"AUTH PLAIN {encoded('x' * 9000)}"], "501 5.5.2"),
            (["AUTH PLAIN", "\x01"], "500 5.5.2"),
            (["AUTH CRAM-MD5"], "504 5.5.4"),
            (["AUTH"], "504 5.5.4"),
        ):
            assert (await ask(*dialogue)).startswith(reply), dialogue
    wrong = [text for text in log.messages if "Wrong password" in text]
    assert [text.split()[2] for text in wrong] == ["'ada'", "'lovelace'"]


def test_no_users() -> None:
    """There are no logins without users, nor in clear text.

    "STARTTLS is offered only before the encryption, and AUTH only after it."
    """
    for options, is_encrypted, features in (
        ({}, False, set()),
        ({}, True, set()),
        ({"tls": server_context()}, False, {"STARTTLS"}),
        ({"tls": server_context()}, True, set()),
    ):
        session = mail_session.Session(settings(**options), is_encrypted=is_encrypted)
        offered = set(session.ehlo("client").text.split("\n"))
        assert {name for name in offered if name in ("STARTTLS", "AUTH PLAIN LOGIN")} == features
        assert session.reply_to("AUTH", "PLAIN").code == (502 if is_encrypted else 538)
    encrypted = mail_session.Session(with_users(), is_encrypted=True)
    assert "AUTH PLAIN LOGIN" in encrypted.ehlo("client").text
    encrypted.helo("client")
    assert encrypted.reply_to("AUTH", "PLAIN").code == 503


# Draining


@pytest.mark.in_turn
async def test_drain(queue: Any, log: pytest.LogCaptureFixture) -> None:
    """Each client is told, and a message that is being sent is received.

    "Each client that is between two commands gets the reply 421 after a second, and is
    disconnected."

    "A client that sends MAIL gets 421, and sends the message to another server, or later."
    """
    async with serving_in_memory(queue) as served:
        idle, busy, gone = [await served.connect(raw=True) for _ in range(3)]
        await busy.send(ENVELOPE + b"Hello\r\n")
        replies = b""
        while len(codes(replies)) < 5:
            replies += await busy.receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: served.server.shutdown(grace=PATIENCE / 2))
            while not served.server.is_draining():
                await anyio.lowlevel.checkpoint()
            gone.close()
            await busy.send(b".\r\nRSET\r\n" + ENVELOPE)
            assert codes(await read_to_the_end(busy)) == [250, 250, 250, 421]
            assert codes(await read_to_the_end(idle)) == [220, 421]
    assert content_of(queue) == b"Hello\r\n"
    assert not complaints(log)


@pytest.mark.in_turn
async def test_silent_inside_a_mail(queue: Any, log: pytest.LogCaptureFixture) -> None:
    """A client that stops in the middle of a message does not keep the server.

    "A client that is sending a message has 30 seconds to finish it."
    """
    async with serving_in_memory(queue) as served:
        client = await served.connect(raw=True)
        await client.send(ENVELOPE + b"Hello\r\n")
        await anyio.wait_all_tasks_blocked()
        await served.server.shutdown(grace=PATIENCE / 2)
        assert codes(await read_to_the_end(client)) == [220, 250, 250, 250, 354]
    assert list(queue.incomplete.iterdir()) == queue.messages() == []
    assert not complaints(log)


@pytest.mark.parametrize("how", ["close", "reset", "send_eof"])
async def test_disconnection(queue: Any, how: str, log: pytest.LogCaptureFixture) -> None:
    """A client that leaves inside a message leaves nothing behind.

    "a client that disconnects inside a message"
    """
    async with serving_in_memory(queue) as served:
        for data in b"NOOP\r\n", ENVELOPE[:50], ENVELOPE + b"Hello\r\n", ENVELOPE + b"Hel":
            client = await served.connect(raw=True)
            await client.send(data)
            await anyio.wait_all_tasks_blocked()
            getattr(client, how)()
            await anyio.wait_all_tasks_blocked()
    assert list(queue.incomplete.iterdir()) == queue.messages() == []
    assert not complaints(log)


# Clients of the standard library, and the program


def mail(lines: int) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "ada@example.org", "bob@example.com"
    message["Subject"] = "A test"
    message.set_content("".join(f"{'.' * (number % 3)}{number:070}\n" for number in range(lines)))
    return message


def new_options(folder: Path, backend: str) -> list[str]:
    """Write a certificate and a file of users; return the options of the program."""
    certificate = authority().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "cert.pem"))
    name, password = LOGIN
    users = f'{{"{name}": "{mail_auth.hash_password(password)}"}}'
    (folder / "users.json").write_text(users, encoding="utf-8")
    return ["--certificate=cert.pem", "--users=users.json", f"--backend={backend}"]


@pytest.mark.in_turn
@EVERY_BACKEND
def test_smtplib(backend: str, tmp_path: Path) -> None:
    """The client of the standard library, with and without TLS, and a message of some megabytes.

    "Python has an SMTP client in smtplib"
    """
    small, large = mail(3), mail(40_000)
    with running(tmp_path, *new_options(tmp_path, backend)) as program:
        with smtplib.SMTP("localhost", program.port, timeout=PATIENCE) as client:
            client.send_message(small)
            code, text = client.mail("ada@example.org", ["SIZE=10000001"])
            assert (code, text) == (552, b"5.3.4 The message is too large")
        with smtplib.SMTP("localhost", program.port, timeout=PATIENCE) as client:
            client.starttls(context=client_context())
            client.login(*LOGIN)
            client.send_message(large)
            assert client.verify("bob")[0] == 252
            assert client.rset()[0] == 250
        with smtplib.SMTP("localhost", program.port, timeout=PATIENCE) as client:
            client.starttls(context=client_context())
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("ada", "byron")
        received = [content for _, content in program.queued()]
    assert [body(content) for content in received] == [
        message.get_content().replace("\n", "\r\n").encode() for message in (small, large)
    ]
    assert len(received[1]) > 2_800_000


def body(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


@pytest.mark.in_turn
@EVERY_BACKEND
def test_program_stops(backend: str, tmp_path: Path) -> None:
    """SIGTERM lets a client finish its message.

    "When the program is stopped, it closes its port."

    "run() serves until the process gets SIGTERM or Control-C."
    """
    with running(tmp_path, f"--backend={backend}") as program:
        with Client(program.port) as client:
            assert client.ask(ENVELOPE, 5).startswith("354")
            program.process.terminate()
            program.wait_for("Draining for at most 30 seconds, 1 clients are left")
            with pytest.raises(ConnectionRefusedError):
                while True:  # what the backlog holds is accepted before the port is closed
                    Client(program.port).close()
            assert client.ask(END).startswith("250 2.0.0 Queued")
            assert client.reply().startswith("421 4.3.2")
            assert client.reply() == ""
        program.wait_for_end()
    assert len(program.queued()) == 1


def test_clear_text_only(tmp_path: Path) -> None:
    """Without a certificate and users, the program offers neither TLS nor logins.

    "Each accepted message is one line with its identifier, sender and address."
    """
    with running(tmp_path) as program, Client(program.port) as client:
        client.reply()
        offered = client.ask(b"EHLO client\r\n")
        assert "STARTTLS" not in offered
        assert "AUTH" not in offered
        assert client.ask(ENVELOPE, 4).startswith("354")
        assert client.ask(END).startswith("250 2.0.0 Queued as ")
        line = program.wait_for("INFO:mail:.*")[0]
    assert re.fullmatch(r"INFO:mail:[0-9a-f-]+: from <ada@example\.org> at 127\.0\.0\.1", line)


# What the page says about the modules

once = pytest.mark.parametrize("anyio_backend", ["asyncio"])

MODULES = ("protocol", "session", "queue", "content", "auth", "handler", "server")


def imports(name: str) -> set[str]:
    """Return the first parts of the names of the modules that a file of the page imports."""
    found = set()
    for node in ast.walk(ast.parse((FOLDER / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


async def read_replies(connection: Any, count: int) -> bytes:
    """Return bytes that contain so many replies."""
    replies = b""
    while len(codes(replies)) < count:
        data = await connection.receive()
        assert data, replies
        replies += data
    return replies


@contextlib.asynccontextmanager
async def talking(queue: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
    """Serve in memory; yield a coroutine function that sends lines and returns the replies."""
    async with serving_in_memory(queue, *args, **options) as served:
        connection = await served.connect(raw=True)
        await connection.receive()

        async def ask(*lines: str) -> str:
            await connection.send("".join(f"{line}\r\n" for line in lines).encode())
            return (await read_replies(connection, len(lines))).decode()

        yield ask


def test_modules() -> None:
    """The tables list the files, and only those of the first one are the server.

    "is the request handler. It connects the other modules with the network."

    "These files are not part of the server"

    "turns bytes into commands, and replies into bytes."

    "receives the content of a message."

    "The handler connects these parts"

    "Most commands need no network: their reply depends on what was said before. A Session keeps
    that, one for each client, and contains a method for each verb"

    "The table of verbs follows the class"
    """
    server = {name for name, _ in table(PAGE, "Module", "What it does")}
    others = {name for cell, _ in table(PAGE, "File", "What it does") for name in cell.split(", ")}
    assert server | others == {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert server == {f"mail_{name}.py" for name in MODULES}
    needed = {"mail_server.py"}
    for _ in MODULES:
        needed |= {f"{name}.py" for file in needed for name in imports(file) if "mail_" in name}
    assert needed == server
    connected = {f"{name}.py" for name in imports("mail_handler.py") if "mail_" in name}
    assert connected == server - {"mail_server.py", "mail_handler.py"}
    assert "easynetwork" not in imports("mail_session.py") | imports("mail_queue.py")
    for name, method in mail_session.VERBS.items():
        assert getattr(mail_session.Session, name.lower()) is method
    names = [
        node.name if isinstance(node, ast.ClassDef) else ast.unparse(node).partition(":")[0]
        for node in ast.parse((FOLDER / "mail_session.py").read_text(encoding="utf-8")).body
    ]
    assert names[names.index("Session") + 1] == "VERBS"
    assert callable(mail_content.receive_content)
    with pytest.raises(StopIteration) as stopped:
        parser = mail_protocol.COMMANDS.build_packet_from_chunks()
        next(parser)
        parser.send(b"NOOP\r\nrest")
    assert stopped.value.value == ("NOOP", b"rest")
    reply = mail_protocol.Reply(250, "a\nb")
    assert b"".join(mail_protocol.COMMANDS.generate_chunks(reply)) == b"250-a\r\n250 b\r\n"


@pytest.mark.anyio
@once
async def test_whole_server(queue: Any) -> None:
    """A message goes to a folder, and nothing else happens to it.

    "After reading this page, you can write a server that receives mail over SMTP (5321) and stores
    it on disk."

    "Mail programs and mail servers send mail to this server. It stores each message in a folder,
    from which another program takes it."

    "It does not deliver mail to other servers, and does not look for spam."

    "The server does not check who the sender is (SPF, DKIM, DMARC), does not slow down senders of
    spam, and does not deliver mail."
    """
    spam = b"From: bank@bank.example\r\nSubject: Win $1,000,000 now\r\n\r\nClick here.\r\n"
    envelope = ENVELOPE.replace(b"ada@example.org", b"anybody@nowhere.invalid")
    count = 5
    async with serving_in_memory(queue) as served:
        replies = await send_and_read(served, (envelope + spam + b".\r\n") * count + b"QUIT\r\n")
    assert codes(replies) == [220, *[250, 250, 250, 354, 250] * count, 221]
    messages = queue.messages()
    assert len(messages) == count
    for path in messages:
        _, content = mail_queue.read_mail(path)
        assert content.endswith(spam)
        path.unlink()
    assert queue.messages() == list(queue.incomplete.iterdir()) == []
    for name in MODULES:
        assert not imports(f"mail_{name}.py") & {"smtplib", "socket", "dns"}


# Commands and replies, in memory


@pytest.mark.anyio
@once
async def test_lines() -> None:
    """A command is a line with CRLF, and nothing else.

    "A client sends commands, which are lines that end with CRLF. The server answers each of them
    with a reply: a code of three digits and a text."

    "So a request is a line of text, and a response is a Reply. A converter makes the lines"

    "Only CRLF ends a line, and other control characters are an error."

    "A longer line than the limit, a character that is not ASCII or a control character raises
    StreamProtocolParseError where the handler waits for the command."
    """
    received: list[Any] = []

    class Handler(AsyncStreamRequestHandler[str, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, str]:
            try:
                received.append((yield))
            except StreamProtocolParseError as exc:
                received.append(type(exc))
            await client.send_packet(mail_protocol.Reply(250, "OK"))

    error = StreamProtocolParseError
    longest = b"x" * 12_288
    async with serve(Handler(), mail_protocol.COMMANDS) as served:
        connection = await served.connect(raw=True)
        for data, expected in (
            (b"NOOP\r\n", "NOOP"),
            (b"A\nB\r\n", error),
            (b"A\rB\r\n", error),
            (b"A\tB\r\n", error),
            (b"A\x7f\r\n", error),
            ("é\r\n".encode(), error),
            (longest + b"\r\n", longest.decode()),
            (longest + b"xx\r\n", error),
        ):
            await connection.send(data)
            assert await connection.receive() == b"250 OK\r\n"
            assert received.pop() == expected, data
    assert isinstance(mail_protocol.CommandConverter().create_from_dto_packet("NOOP"), str)
    reply = mail_protocol.Reply(250, "a\nb")
    assert mail_protocol.CommandConverter().convert_to_dto_packet(reply) == "250-a\r\n250 b"


def test_settings_and_greeting() -> None:
    """What EHLO says depends on the settings, and on the connection.

    "The settings are the same for all clients"

    "The first line of the reply to EHLO contains the name of the server. Each line after it names a
    feature of the server. Two features depend on the connection"

    "STARTTLS (3207), and AUTH with PLAIN and LOGIN over TLS (4954)."

    "Further limits are in Settings: bytes and recipients of a message, invalid commands, commands
    without a message, the time for a command and for a whole message."
    """
    users = mail_auth.Users({})
    options = settings(hostname="mx.example.com", tls=server_context(), users=users)
    handler = mail_handler.MailRequestHandler(options, None)
    client: Any = SimpleNamespace(extra=lambda attribute, default: None)
    sessions = [handler.new_session(client) for _ in range(2)]
    assert sessions[0] is not sessions[1]
    assert sessions[0].settings is sessions[1].settings is options
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.hostname = "other"
    offered = []
    for is_encrypted in False, True:
        session = mail_session.Session(options, is_encrypted=is_encrypted)
        name, *features = session.ehlo("client").text.split("\n")
        assert name == "mx.example.com"
        offered.append(features)
    assert offered[0] == [*offered[1][:-1], "STARTTLS"]
    assert offered[1][-1] == "AUTH PLAIN LOGIN"
    numbers = [
        field.name for field in dataclasses.fields(options) if field.type in ("int", "float")
    ]
    assert numbers == [
        *("max_size", "max_recipients", "max_errors", "max_commands"),
        *("command_timeout", "content_timeout"),
    ]


@pytest.mark.anyio
@once
async def test_three_commands(queue: Any) -> None:
    """A message has one sender, and at most so many recipients.

    "Three commands make a message. MAIL names the sender, RCPT names a recipient, and DATA
    announces the content"

    "A reply that begins with 4 asks the client to try again later. If a message has too many
    recipients, the client sends it to those that the server has accepted, and once more to the
    others."

    "A client may send MAIL, RCPT and DATA at once: the server parses each command when the handler
    asks for it, and joins the replies to what has arrived together."
    """
    async with serving_in_memory(queue, settings(max_recipients=2)) as served:
        connection = await served.connect(raw=True)
        await connection.receive()
        left = ["a", "b", "c"]
        while left:
            commands = [f"RCPT TO:<{name}@example.com>" for name in left]
            lines = ["EHLO client", "MAIL FROM:<ada@example.org>", *commands, "DATA"]
            await connection.send("".join(f"{line}\r\n" for line in lines).encode())
            replies = codes(await connection.receive())
            assert replies == [250, 250, *[250, 250, 452][: len(left)], 354]
            await connection.send(END)
            assert codes(await connection.receive()) == [250]
            left = [
                name for name, code in zip(left, replies[2:-1], strict=True) if 400 <= code < 500
            ]
    envelopes = [mail_queue.read_mail(path)[0] for path in queue.messages()]
    assert [envelope["sender"] for envelope in envelopes] == ["ada@example.org"] * 2
    assert [envelope["recipients"] for envelope in envelopes] == [
        ["a@example.com", "b@example.com"],
        ["c@example.com"],
    ]


# The handler and the queue, in memory


@pytest.mark.anyio
@once
async def test_format_of_the_content(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One generator receives both formats.

    "This is another format, so it has a serializer of its own"

    "handle() runs for the whole connection, so the session is a local variable."

    "client.set_protocol() changes the format for the content, and back."
    """
    assert mail_content.CONTENT is not mail_protocol.COMMANDS
    calls: list[Any] = []

    class Handler(mail_handler.MailRequestHandler):
        def handle(self, client: Any) -> Any:
            calls.append("handle")
            return super().handle(client)

        async def receive_mail(self, client: Any, session: Any) -> Any:
            def set_protocol(protocol: Any) -> None:
                calls.append(protocol)
                client.set_protocol(protocol)

            noting = SimpleNamespace(
                **{name: getattr(client, name) for name in ("extra", "send_packet", "recv_packet")},
                set_protocol=set_protocol,
            )
            return await super().receive_mail(noting, session)

    async with mail_handler_serving(Handler(settings(), queue)) as served:
        connection = await served.connect(raw=True)
        await connection.send((ENVELOPE + b"..\r\n.\r\n..\r\n") * 2 + b"QUIT\r\n")
        replies = await read_to_the_end(connection)
    assert codes(replies) == [220, *[250, 250, 250, 354, 250, 500] * 2, 221]
    assert calls == ["handle", *[mail_content.CONTENT, mail_protocol.COMMANDS] * 2]


@pytest.mark.anyio
@once
async def test_commit_in_a_thread(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk holds up one client.

    "Writing to the disk takes milliseconds or more. So the handler calls commit() in a thread, and
    serves other clients meanwhile. Writing a line of the message needs no thread: it only copies
    the line to memory, that of the process or of the kernel."

    "Do not look into tmp."
    """
    blocked, threads = threading.Event(), []

    def fsync(descriptor: int) -> None:
        threads.append(threading.get_ident())
        assert blocked.wait(PATIENCE)

    async with serving_in_memory(queue) as served:
        slow, other = [await served.connect(raw=True) for _ in range(2)]
        await other.receive()
        monkeypatch.setattr(os, "fsync", fsync)
        await slow.send(ENVELOPE + b"x" * 60_000 + b"\r\n" + b"y" * 60_000 + b"\r\n")
        await read_replies(slow, 5)
        await anyio.wait_all_tasks_blocked()
        assert threads == queue.messages() == []
        [incomplete] = queue.incomplete.iterdir()
        assert incomplete.stat().st_size < 120_000
        await slow.send(b".\r\n")
        await other.send(b"NOOP\r\n")
        assert codes(await other.receive()) == [250]
        assert not blocked.is_set()
        blocked.set()
        assert codes(await slow.receive()) == [250]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


@pytest.mark.anyio
@once
async def test_space_on_the_disk(queue: Any) -> None:
    """A message that is not complete does not grow above the limit.

    "Together, all clients can fill about max_clients times max_size bytes of the disk with messages
    that are not complete."
    """
    line = b"x" * 9_998 + b"\r\n"
    async with serving_in_memory(queue, settings(max_size=100_000)) as served:
        connections = [await served.connect(raw=True) for _ in range(2)]
        for connection in connections:
            await connection.send(ENVELOPE + line * 50)
            await read_replies(connection, 5)
        await anyio.wait_all_tasks_blocked()
        sizes = [path.stat().st_size for path in queue.incomplete.iterdir()]
        assert len(sizes) == 2
        assert all(0 < size <= 100_000 + 1000 for size in sizes)
        for connection in connections:
            await connection.send(b".\r\n")
            assert codes(await connection.receive()) == [552]
    assert queue.messages() == []


# Passwords, in memory


class NoHashes(mail_auth.Users):
    """Users whose passwords are not hashed, which takes time."""

    def __init__(self) -> None:
        self.checked: list[tuple[str, str]] = []

    def check(self, name: str, password: str) -> bool:
        self.checked.append((name, password))
        return password == "lovelace"


@contextlib.asynccontextmanager
async def encrypted(queue: Any, users: Any) -> AsyncIterator[Any]:
    """Serve over TLS; yield a coroutine function that sends a line and returns the reply."""
    options = settings(tls=server_context(), users=users)
    async with serving_in_memory(queue, options, ssl=server_context()) as served:
        client = await served.connect(
            protocol=LINES, ssl=client_context(), server_hostname="localhost"
        )
        await client.recv_packet()

        async def ask(line: str) -> str:
            await client.send_packet(line)
            while (reply := await client.recv_packet())[3] == "-":
                pass
            return str(reply)

        await ask("EHLO client")
        yield ask


@pytest.mark.anyio
@once
async def test_dialogue(queue: Any) -> None:
    """The server asks, in Base64.

    "AUTH begins a small dialogue. Names and passwords are in Base64"

    "receives a password instead of sending the reply."
    """
    users = NoHashes()
    async with encrypted(queue, users) as ask:
        assert await ask("AUTH LOGIN") == f"334 {encoded('Username:')}"
        assert await ask(encoded("ada")) == f"334 {encoded('Password:')}"
        assert (await ask(encoded("lovelace"))).startswith("235 ")
    assert users.checked == [("ada", "lovelace")]


@pytest.mark.anyio
@once
async def test_wrong_passwords(queue: Any, log: pytest.LogCaptureFixture) -> None:
    """The eleventh wrong password ends the connection.

    "A client can send ten wrong passwords. After the next one it is disconnected, and can connect
    again."

    "counts an error: after ten of them, the next one ends the connection."

    "Each wrong password is a line, too. The log contains personal data"

    "Count the attempts for each address or name, for example in log_in(), and refuse further ones
    for some time."
    """
    wrong = f"AUTH PLAIN {encoded(chr(0).join(['', 'ada', 'byron']))}"
    for _ in range(2):
        async with encrypted(queue, NoHashes()) as ask:
            for _ in range(10):
                assert (await ask(wrong)).startswith("535 ")
            assert (await ask(wrong)).startswith("421 4.7.0 ")
            with pytest.raises(ConnectionError):
                await ask("NOOP")
    lines = [message for message in log.messages if "Wrong password: 'ada'" in message]
    assert len(lines) == 22
    assert all("198.51.100." in line for line in lines)
    attempts: collections.Counter[str] = collections.Counter()
    handler_class: Any = mail_handler.MailRequestHandler

    class Counting(handler_class):
        async def log_in(self, client: Any, session: Any, argument: str) -> Any:
            host = client.extra(INETClientAttribute.remote_address).host
            attempts[host] += 1
            if attempts[host] > 3:
                return mail_protocol.Reply(454, "4.7.0 Later")
            return await super().log_in(client, session, argument)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mail_handler, "MailRequestHandler", Counting)
        for expected in ["535"] * 3, ["454"] * 3:
            async with encrypted(queue, NoHashes()) as ask:
                assert [(await ask(wrong))[:3] for _ in range(3)] == expected


def test_file_of_users(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Only hashes are kept.

    "The server stores hashes of the passwords only."

    "mail_auth.py asks for the password in the terminal, and writes only its hash to the file."
    """
    monkeypatch.setattr("getpass.getpass", lambda prompt: {"ada: ": "lovelace"}[prompt])
    monkeypatch.setattr(sys, "argv", ["mail_auth.py", "ada"])
    runpy.run_path(str(FOLDER / "mail_auth.py"), run_name="__main__")
    written = capsys.readouterr().out
    assert "lovelace" not in written
    users = mail_auth.Users(json.loads(written))
    assert users.check("ada", "lovelace")
    assert "lovelace" not in repr(vars(users))


# Commands of one's own


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let a test add commands, which are gone afterwards."""
    own = dict(mail_session.VERBS)
    monkeypatch.setattr(mail_session, "VERBS", own)
    return own


def test_command_of_the_page(verbs: dict[str, Any]) -> None:
    """The example adds a command and changes another one.

    "is the program with one more command"

    "This one adds HELP, and two lines to the reply to EHLO"

    "ehlo_with_help() calls the function that was in the dictionary before, and adds the features to
    its reply. A feature is one keyword, which may have values."

    "Stop the server, and start this program instead"
    """
    before = dict(verbs)
    calls: list[str] = []

    def ehlo(session: Any, argument: str) -> Any:
        calls.append(argument)
        return before["EHLO"](session, argument)

    verbs["EHLO"] = ehlo
    names = runpy.run_path(str(FOLDER / "mail_server_with_help.py"))
    assert names["main"] is example("mail_server").main
    assert verbs.keys() - before.keys() == {"HELP"}
    session = mail_session.Session(settings(), is_encrypted=False)
    old = before["EHLO"](session, "client").text.split("\n")
    new = session.reply_to("EHLO", "client").text.split("\n")
    assert calls == ["client"]
    assert new == [*old, "HELP", "LIMITS RCPTMAX=100"]
    assert all(re.fullmatch(r"[A-Z0-9]+( [A-Z0-9=]+)*", feature) for feature in new[1:])
    assert session.reply_to("HELP", "").code == 214


@pytest.mark.anyio
@once
async def test_rules_for_commands(queue: Any, verbs: dict[str, Any]) -> None:
    """A function gets a session and an argument, and returns a reply.

    "A command without a dialogue is a function of the session and the argument, which returns
    a Reply."

    "The key in VERBS is in capital letters: clients may write the verb as they like. The argument
    is the rest of the line, as the client has written it, without the spaces around it. It is empty
    if there is none."

    "A line break in the text of a Reply begins a new line of the reply. The converter writes the
    code in front of each line. The enhanced code, such as 2.0.0, is part of the text: write it in
    each line (2034)."

    "Keep what belongs to the client in attributes of the session."

    "A function needs no network, so its test needs none either"
    """
    got: list[str] = []

    def note(session: Any, argument: str) -> Any:
        got.append(argument)
        session.count = getattr(session, "count", 0) + 1
        return mail_protocol.Reply(250, f"2.0.0 a\n2.0.0 {session.count}")

    verbs["NOTE"] = note
    verbs["small"] = note
    async with talking(queue) as ask:
        for line in "NOTE", "note", "nOtE  Ada  and  Bob  ":
            assert (await ask(line)).startswith("250-2.0.0 a\r\n250 2.0.0 ")
        assert got == ["", "", "Ada  and  Bob"]
        assert (await ask("NOTE")).endswith("250 2.0.0 4\r\n")
        assert (await ask("small")).startswith("500 ")
    async with talking(queue) as ask:
        assert (await ask("NOTE")).endswith("250 2.0.0 1\r\n")
    assert note(SimpleNamespace(), "").code == 250


def test_replies_in_general(verbs: dict[str, Any]) -> None:
    """All replies of the page have an enhanced code, but those to a greeting.

    "The replies to EHLO and HELO have none."

    "A line of a reply has at most 512 bytes (5321#section-4.5.3.1.5), but an argument can have
    12,000. Shorten what you repeat from the argument"

    "also accept them in Session.mail() or Session.rcpt() in mail_session.py: these methods refuse
    unknown parameters with 555."
    """
    longest = "x" * 12_000
    runpy.run_path(str(FOLDER / "mail_server_with_help.py"))
    session = mail_session.Session(settings(), is_encrypted=False)
    for verb in verbs:
        for argument in "", "client", longest:
            session.commands = 0
            reply = session.reply_to(verb, argument)
            sent = b"".join(mail_protocol.COMMANDS.generate_chunks(reply))
            assert all(len(line) + 2 <= 512 for line in sent.split(b"\r\n"))
            is_greeting = verb in ("EHLO", "HELO") and reply.code == 250
            for line in reply.text.split("\n"):
                assert bool(re.match(r"[245]\.\d\.\d+ ", line)) == (not is_greeting), line
    session = mail_session.Session(settings(), is_encrypted=False)
    session.reply_to("EHLO", "client")
    assert session.reply_to("MAIL", "FROM:<a@example.org> NEW=1").code == 555
    assert session.reply_to("MAIL", "FROM:<a@example.org>").code == 250
    assert session.reply_to("RCPT", "TO:<b@example.com> NEW=1").code == 555
    parser = mail_protocol.COMMANDS.build_packet_from_chunks()
    next(parser)
    with pytest.raises(StopIteration):
        parser.send(f"HELP {longest}\r\n".encode())


@pytest.mark.anyio
@once
async def test_effects_of_codes(queue: Any, verbs: dict[str, Any]) -> None:
    """Some codes end the connection, others are only sent.

    "The handler acts on some codes"

    "Return 220, 334 and 354 only for the purpose in the table, and only when the client may do it,
    as the methods of the session check. With all other codes, the handler only sends the reply."
    """
    verbs["CODE"] = lambda session, argument: mail_protocol.Reply(int(argument), "2.0.0 x")
    async with serving_in_memory(queue) as served:
        for last in "221", "421":
            lines = [f"CODE {code}" for code in (200, 235, 252, 299, 355, 400, 450, 499, last)]
            data = "".join(f"{line}\r\n" for line in lines).encode()
            replies = await send_and_read(served, data + b"NOOP\r\n")
            assert codes(replies) == [220, *(int(line.split()[1]) for line in lines)]
        for code in 500, 599:
            replies = await send_and_read(served, f"CODE {code}\r\n".encode() * 12)
            assert codes(replies) == [220, *[code] * 10, 421]
    session = mail_session.Session(settings(), is_encrypted=False)
    for verb, argument in ("STARTTLS", ""), ("AUTH", "PLAIN"), ("DATA", ""):
        assert session.reply_to(verb, argument).code > 500


@pytest.mark.anyio
@once
async def test_command_with_a_dialogue(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler's method has the client.

    "A command with a dialogue, which receives more than its own line, needs the client. Add it
    to MailRequestHandler.answer() in mail_handler.py, and receive with client.recv_packet() in a
    function of its own, as receive_credentials() does."
    """

    async def receive_names(client: Any) -> Any:
        await client.send_packet(mail_protocol.Reply(250, "2.0.0 First name?"))
        first = await client.recv_packet()
        await client.send_packet(mail_protocol.Reply(250, "2.0.0 Last name?"))
        return mail_protocol.Reply(250, f"2.0.0 {first} {await client.recv_packet()}")

    handler_class: Any = mail_handler.MailRequestHandler

    class Handler(handler_class):
        async def answer(self, client: Any, session: Any, line: str) -> Any:
            if line == "NAME":
                return await receive_names(client)
            return await super().answer(client, session, line)

    monkeypatch.setattr(mail_handler, "MailRequestHandler", Handler)
    assert "await client.recv_packet(" in inspect.getsource(mail_auth.receive_credentials)
    async with talking(queue) as ask:
        assert await ask("NAME") == "250 2.0.0 First name?\r\n"
        assert await ask("Ada") == "250 2.0.0 Last name?\r\n"
        assert await ask("Lovelace", "NOOP") == "250 2.0.0 Ada Lovelace\r\n250 2.0.0 OK\r\n"


# Before it meets the internet, in memory


def test_ports(verbs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who may send what.

    "Port 25 is for other servers, which have no password. It accepts mail for your own domains
    (--domain) from everybody, and nothing else."

    "Port 587 is for your users: there, refuse MAIL if session.user is None."

    "A user can send mail with any sender address. To change that, compare session.user with the
    sender in Session.mail()."

    "Run each of them as a server of its own"
    """
    assert socket.getservbyname("smtp") == 25
    assert socket.getservbyname("submission") == 587
    made: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(mail_server, "run", lambda *new, **options: made.append(new[0]()))
        patch.setattr(mail_server, "AsyncTCPNetworkServer", lambda *args, **options: args[3])
        options = ["--queue", str(tmp_path), "--domain", "one.example", "two.example"]
        patch.setattr(sys, "argv", ["mail_server.py", *options])
        mail_server.main()
    [handler] = made
    assert handler.settings.domains == {"one.example", "two.example"}
    kinds = [each.kind for each in inspect.signature(server_run).parameters.values()]
    assert inspect.Parameter.VAR_POSITIONAL in kinds

    def outcome(user: str | None, sender: str, recipient: str) -> list[int]:
        session = mail_session.Session(handler.settings, is_encrypted=True)
        session.user = user
        commands = ("EHLO", "x"), ("MAIL", f"FROM:<{sender}>"), ("RCPT", f"TO:<{recipient}>")
        return [session.reply_to(*each).code for each in commands][1:]

    stranger = "eve@anywhere.example"
    for domain, code in ("one.example", 250), ("TWO.example", 250), ("example.com", 550):
        assert outcome(None, stranger, f"bob@{domain}") == [250, code]
    assert outcome("ada", stranger, "bob@example.com") == [250, 250]
    mail = verbs["MAIL"]

    def mail_of_users(session: Any, argument: str) -> Any:
        if session.user is None:
            return mail_protocol.Reply(530, "5.7.0 Log in first")
        reply = mail(session, argument)
        if session.envelope is not None and session.envelope.sender != session.user:
            session.envelope = None
            return mail_protocol.Reply(550, "5.7.1 This is not your address")
        return reply

    verbs["MAIL"] = mail_of_users
    user = "ada@one.example"
    assert outcome(None, user, "bob@one.example") == [530, 503]
    assert outcome(user, stranger, "bob@example.com") == [550, 503]
    assert outcome(user, user, "bob@example.com") == [250, 250]


@pytest.mark.parametrize("is_logged", [None, False])
@pytest.mark.anyio
@once
async def test_log_of_connections(
    queue: Any, log: pytest.LogCaptureFixture, is_logged: bool | None
) -> None:
    """An option of the server.

    "With log_client_connection=False, the server does not log each client that connects."
    """
    log.set_level(logging.INFO)
    async with serving_in_memory(queue, log_client_connection=is_logged) as served:
        await send_and_read(served, b"QUIT\r\n")
    about = [message for message in log.messages if "198.51.100." in message]
    assert bool(about) == (is_logged is None)
