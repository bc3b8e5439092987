from __future__ import annotations

from mail_protocol import Reply
from mail_server import main
from mail_session import VERBS, Session

SYNTAX = {
    "EHLO": "EHLO hostname",
    "MAIL": "MAIL FROM:<address> [SIZE=bytes]",
    "RCPT": "RCPT TO:<address>",
    "HELP": "HELP [verb]",
}

ehlo = VERBS["EHLO"]


def help_command(session: Session, argument: str) -> Reply:
    verb = argument.upper()
    if not verb:
        return Reply(214, "2.0.0 Commands:\n2.0.0 " + " ".join(VERBS))
    if verb not in VERBS:
        # The argument may be much longer than a reply.
        return Reply(504, f"5.5.4 There is no command {argument[:50]}")
    return Reply(214, f"2.0.0 Syntax: {SYNTAX.get(verb, verb)}")


def ehlo_with_help(session: Session, argument: str) -> Reply:
    reply = ehlo(session, argument)
    if reply.code != 250:
        return reply
    limits = f"LIMITS RCPTMAX={session.settings.max_recipients}"  # RFC 9422
    return Reply(250, f"{reply.text}\nHELP\n{limits}")


VERBS["HELP"] = help_command
VERBS["EHLO"] = ehlo_with_help

if __name__ == "__main__":
    main()
