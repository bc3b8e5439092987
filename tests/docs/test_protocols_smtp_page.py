"""Test what the page about SMTP says of its modules, of commands of one's own and of limits.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. The rest is in `test_protocols_smtp` and `test_protocols_smtp_abuse`.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import inspect
import json
import logging
import os
import re
import runpy
import smtplib
import socket
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.servers import run as server_run
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.testing import serve
from tests.docs.howto_support import check_quotations, table
from tests.docs.smtp_support import (
    ENVELOPE,
    FOLDER,
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
    send_and_read,
    serving_in_memory,
)
from tests.docs.test_protocols_smtp import (
    END,
    LINES,
    PAGE,
    encoded,
    mail_handler_serving,
    settings,
)
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="the queue needs folders that can be synced"
)


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

    "So a request is a line of text, and a response is a Reply. A converter makes lines of its code
    and its text"

    "Only CRLF ends a line, and for other control characters the converter raises a
    PacketConversionError."

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
    without a message, five minutes for a command and ten minutes for a whole message."
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
    assert [options.command_timeout, options.content_timeout] == [5 * 60, 10 * 60]


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

    "handle() runs for the whole connection, with a yield for each command, so the session is a
    local variable."

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


def test_hash_of_a_file() -> None:
    """A file of users stays valid: it does not contain how its passwords were hashed.

    "The server stores hashes of the passwords only."
    """
    stored = (
        "00112233445566778899aabbccddeeff$"
        "1fe39387016dabffea5dc945ae0ebe7b9926716e082d95d16e5a48c52eb9eba1"
        "0eb84c1087986d78274da1e8a50f525e3f6dc961353ef3c80d96ef1238136962"
    )
    users = mail_auth.Users({"ada": stored})
    assert users.check("ada", "lovelace")
    assert not users.check("ada", "Lovelace")


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

    "A function needs no network, so its test only calls session.reply_to()"
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
    assert smtplib.SMTP_PORT == 25
    with contextlib.suppress(OSError):  # a small system has no list of services
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
