from __future__ import annotations

import pytest
from mail_protocol import Reply
from mail_server_with_help import SYNTAX
from mail_session import VERBS, Session, Settings, split_command


@pytest.fixture
def session() -> Session:
    return Session(Settings(), is_encrypted=False)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("HELP RCPT", Reply(214, "2.0.0 Syntax: RCPT TO:<address>")),
        ("help  noop ", Reply(214, "2.0.0 Syntax: NOOP")),
        ("HELP Turn", Reply(504, "5.5.4 There is no command Turn")),
    ],
)
def test_help(session: Session, line: str, reply: Reply) -> None:
    assert session.reply_to(*split_command(line)) == reply


def test_help_without_argument(session: Session) -> None:
    reply = session.reply_to("HELP", "")
    assert reply.code == 214
    assert SYNTAX.keys() <= VERBS.keys() <= set(reply.text.split())


def test_long_argument(session: Session) -> None:
    assert len(session.reply_to("HELP", "x" * 10_000).text) < 500


def test_features(session: Session) -> None:
    features = session.reply_to("EHLO", "client.example.org").text.split("\n")[1:]
    assert {"HELP", "LIMITS RCPTMAX=100"} <= set(features)
    assert session.reply_to("EHLO", "").code == 501
