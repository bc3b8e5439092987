from __future__ import annotations

import email.utils
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from mail_auth import Users
from mail_protocol import GO_AHEAD, TOO_LARGE, TOO_MANY_COMMANDS, Reply

NAME = re.compile(r"[\w.:\[\]-]{1,255}", re.ASCII)
PATH = re.compile(
    r"""
    <(?:@[^<>:]{1,255}:)?                           # a route, which is ignored
    (
        (?:[^\s<>@"\\]{1,64} | "[^"\\]{1,62}")      # user or "any user"
        @([A-Za-z0-9.-]{1,255})
        | (?i:postmaster)                           # is known to every server
    )>
    (?:[ ](.*))?                                    # parameters
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    hostname: str = "localhost"
    domains: frozenset[str] = frozenset({"example.com"})  # those whose mail is accepted
    max_size: int = 10_000_000  # bytes of a message
    max_recipients: int = 100  # of a message
    max_errors: int = 10  # invalid commands of a connection
    max_commands: int = 500  # before a message; one with 100 recipients takes 103
    command_timeout: float = 300.0  # seconds until the next command
    content_timeout: float = 600.0  # seconds for a whole message
    tls: ssl.SSLContext | None = None
    users: Users | None = None


@dataclass
class Envelope:
    sender: str
    recipients: list[str] = field(default_factory=list)


class Session:
    """What the server knows about one client. It receives and sends nothing itself."""

    def __init__(self, settings: Settings, *, is_encrypted: bool) -> None:
        self.settings = settings
        self.is_encrypted = is_encrypted
        self.name = ""  # of the client, as it says
        self.is_extended = False  # whether it said so with EHLO
        self.user: str | None = None
        self.envelope: Envelope | None = None
        self.commands = 0  # since the last message

    def reply_to(self, verb: str, argument: str) -> Reply:
        """Return the reply to a command, or the first one if a dialogue follows."""
        self.commands += 1
        if self.commands > self.settings.max_commands:
            return TOO_MANY_COMMANDS
        method = VERBS.get(verb)
        if method is None:
            return Reply(500, "5.5.1 Command not recognized")
        return method(self, argument)

    # Greetings

    def ehlo(self, argument: str) -> Reply:
        if not NAME.fullmatch(argument):
            return Reply(501, "5.5.4 Syntax: EHLO hostname")
        self.name, self.is_extended, self.envelope = argument, True, None
        features = [
            self.settings.hostname,
            "PIPELINING",
            f"SIZE {self.settings.max_size}",
            "8BITMIME",
            "ENHANCEDSTATUSCODES",
        ]
        if self.can_start_tls():
            features.append("STARTTLS")
        if self.can_log_in():
            features.append("AUTH PLAIN LOGIN")
        return Reply(250, "\n".join(features))

    def helo(self, argument: str) -> Reply:
        if not NAME.fullmatch(argument):
            return Reply(501, "5.5.4 Syntax: HELO hostname")
        self.name, self.is_extended, self.envelope = argument, False, None
        return Reply(250, self.settings.hostname)

    # A message: MAIL, then RCPT for each recipient, then DATA

    def mail(self, argument: str) -> Reply:
        if not self.name:
            return Reply(503, "5.5.1 Send EHLO first")
        if self.envelope is not None:
            return Reply(503, "5.5.1 A message has begun already")
        sender, _, parameters = parse_path("FROM", argument)
        if sender is None:
            return Reply(501, "5.1.7 Syntax: MAIL FROM:<address>")
        for parameter in parameters:
            keyword, _, value = parameter.upper().partition("=")
            if keyword == "SIZE" and re.fullmatch(r"[0-9]{1,20}", value):
                if int(value) > self.settings.max_size:
                    return TOO_LARGE
            elif parameter.upper() not in ("BODY=7BIT", "BODY=8BITMIME") and keyword != "AUTH":
                return Reply(555, "5.5.4 Parameter not recognized")
        self.envelope = Envelope(sender)
        return Reply(250, "2.1.0 Sender accepted")

    def rcpt(self, argument: str) -> Reply:
        if self.envelope is None:
            return Reply(503, "5.5.1 Send MAIL first")
        recipient, domain, parameters = parse_path("TO", argument)
        if not recipient:
            return Reply(501, "5.1.3 Syntax: RCPT TO:<address>")
        if parameters:
            return Reply(555, "5.5.4 Parameter not recognized")
        if domain and domain not in self.settings.domains and self.user is None:
            return Reply(550, "5.7.1 This server does not relay mail for strangers")
        if len(self.envelope.recipients) >= self.settings.max_recipients:
            return Reply(452, "4.5.3 Too many recipients")
        self.envelope.recipients.append(recipient)
        return Reply(250, "2.1.5 Recipient accepted")

    def data(self, argument: str) -> Reply:
        if argument:
            return Reply(501, "5.5.4 Syntax: DATA")
        if self.envelope is None:
            return Reply(503, "5.5.1 Send MAIL first")
        if not self.envelope.recipients:
            return Reply(554, "5.5.1 No valid recipients")
        self.commands = 0
        return GO_AHEAD

    def trace(self, host: str, mail_id: str) -> str:
        """Return the header line that each server adds to a message (RFC 5321, 4.4; RFC 3848)."""
        protocol = "SMTP"  # with HELO, even over TLS: there is no SMTPS
        if self.is_extended:
            protocol = "ESMTP" + "S" * self.is_encrypted + "A" * (self.user is not None)
        address = f"IPv6:{host}" if ":" in host else host
        date = email.utils.formatdate(localtime=True)
        return (
            f"Received: from {self.name} ([{address}])\r\n"
            f"\tby {self.settings.hostname} with {protocol} id {mail_id}; {date}"
        )

    def rset(self, argument: str) -> Reply:
        if argument:
            return Reply(501, "5.5.4 Syntax: RSET")
        self.envelope = None
        return Reply(250, "2.0.0 Reset")

    # Encryption and login

    def can_start_tls(self) -> bool:
        return self.settings.tls is not None and not self.is_encrypted

    def can_log_in(self) -> bool:
        return self.settings.users is not None and self.is_encrypted

    def starttls(self, argument: str) -> Reply:
        if argument:
            return Reply(501, "5.5.4 Syntax: STARTTLS")
        if not self.can_start_tls():
            return Reply(503, "5.5.1 TLS is not available now")
        return Reply(220, "2.0.0 Ready to start TLS")

    def auth(self, argument: str) -> Reply:
        if not self.is_encrypted:
            return Reply(538, "5.7.11 Encryption is required for a login")
        if not self.can_log_in():
            return Reply(502, "5.5.1 There are no logins here")
        if not self.is_extended or self.user is not None or self.envelope is not None:
            return Reply(503, "5.5.1 Not now")
        if argument.upper().partition(" ")[0] not in ("PLAIN", "LOGIN"):
            return Reply(504, "5.5.4 Use PLAIN or LOGIN")
        return Reply(334, "")

    # The others

    def noop(self, argument: str) -> Reply:
        return Reply(250, "2.0.0 OK")

    def vrfy(self, argument: str) -> Reply:
        return Reply(252, "2.1.5 Send a message to find out")

    def quit(self, argument: str) -> Reply:
        if argument:
            return Reply(501, "5.5.4 Syntax: QUIT")
        return Reply(221, "2.0.0 Bye")


VERBS: dict[str, Callable[[Session, str], Reply]] = {
    "EHLO": Session.ehlo,
    "HELO": Session.helo,
    "MAIL": Session.mail,
    "RCPT": Session.rcpt,
    "DATA": Session.data,
    "RSET": Session.rset,
    "STARTTLS": Session.starttls,
    "AUTH": Session.auth,
    "NOOP": Session.noop,
    "VRFY": Session.vrfy,
    "QUIT": Session.quit,
}


def split_command(line: str) -> tuple[str, str]:
    """Return the verb of a command in capital letters, and what follows it."""
    verb, _, argument = line.partition(" ")
    return verb.upper(), argument.strip()


def parse_path(keyword: str, argument: str) -> tuple[str | None, str, list[str]]:
    """Return the address in "FROM:<address> parameters", its domain, and the parameters.

    The address is None if the argument is malformed, and "" if it is empty, as in a bounce.
    """
    before, _, path = argument.partition(":")
    path = path.lstrip()
    if before.upper() != keyword:
        return None, "", []
    if path == "<>" or path.startswith("<> "):
        return "", "", path.split()[1:]
    if not (match := PATH.fullmatch(path)):
        return None, "", []
    address, domain, parameters = match.groups(default="")
    return address, domain.lower(), parameters.split()
