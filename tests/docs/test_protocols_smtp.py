"""Test the statements, the examples and the transcripts of the page about SMTP.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. What takes long (crashes, abuse, each cut of a stream) is in `test_protocols_smtp_abuse`.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import difflib
import email.utils
import errno
import logging
import os
import re
import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import pytest
from sybil import Document

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.testing import check_serializer, serve, virtual_time
from tests.conftest import BACKENDS, HAS_TRIO
from tests.docs.howto_support import DOCS, check_quotations, complaints, table
from tests.docs.smtp_support import (
    ENVELOPE,
    FOLDER,
    LOGIN,
    Client,
    codes,
    mail_auth,
    mail_content,
    mail_handler,
    mail_protocol,
    mail_queue,
    mail_session,
    read_to_the_end,
    running,
    send_and_read,
    serving_in_memory,
)
from tests.docs.sybil_parsers import code_blocks, is_console
from tests.docs.virtual_support import virtual
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
        ("MAIL FROM:<> COLOR=RED", "555 5.5.4"),
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

    "It names the protocol as 3848 says"
    """
    session = mail_session.Session(settings(), is_encrypted=is_encrypted)
    assert session.reply_to(greeting, "client").code == 250
    session.user = "ada" if has_user else None
    assert session.trace("127.0.0.1", "1").startswith("Received: from client ")
    assert f" with {protocol} id 1; " in session.trace("127.0.0.1", "1")


@pytest.mark.parametrize(("greeting", "code"), [("", 503), ("HELO", 503), ("EHLO", 334)])
def test_login_after_greeting(greeting: str, code: int) -> None:
    """The client has to know that there is this extension.

    "A client can log in only after EHLO, because HELO has no extensions."
    """
    session = mail_session.Session(with_users(), is_encrypted=True)
    if greeting:
        assert session.reply_to(greeting, "client").code == 250
    assert session.reply_to("AUTH", "PLAIN").code == code


def test_date_of_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of the mail sees when it was where the server is.

    "Session.trace() returns the header line Received, whose date has the time zone of the server"
    """
    session = mail_session.Session(settings(), is_encrypted=False)
    for zone, offset in ("XST-5", 5), ("UTC0", 0):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            date = email.utils.parsedate_to_datetime(session.trace("::1", "1").partition("; ")[2])
        finally:
            monkeypatch.delenv("TZ")
            time.tzset()
        assert date.utcoffset() == datetime.timedelta(hours=offset)
        assert abs(date.timestamp() - time.time()) < PATIENCE


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

    "When a message becomes larger than max_size, the server writes nothing more, but reads on to
    the end of the message: that is where the client expects the reply."
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


@virtual
async def test_silent_between_commands(queue: Any) -> None:
    """Each command has its own five minutes.

    "A client that sends no command for five minutes gets the reply 421, and is disconnected."
    """
    handler = mail_handler.MailRequestHandler(settings(), queue)
    async with mail_handler_serving(handler) as served:
        connection = await served.connect(raw=True)
        for line in b"EHLO client\r\n", b"NOOP\r\n":
            await anyio.sleep(299)
            await connection.send(line)
        begin = anyio.current_time()
        assert codes(await read_to_the_end(connection)) == [220, 250, 250, 421]
        assert anyio.current_time() - begin == pytest.approx(300)


def test_slow_content(queue: Any) -> None:
    """A message has to arrive in time, even if each line does.

    "All problems in receive_content() are noted as its problem and reported at the end of the
    message, or they end the connection."
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

    "After start_tls(), the client begins again: the session that new_session() returns has neither
    a name nor a message"

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
            program.wait_for("Draining for at most 30 seconds, clients left: 1")
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
