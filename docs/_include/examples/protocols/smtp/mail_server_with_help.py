from __future__ import annotations

from mail_protocol import Reply
from mail_server import main
from mail_session import VERBS, Session


def help_command(session: Session, argument: str) -> Reply:
    return Reply(214, "2.0.0 Commands: " + " ".join(VERBS))


VERBS["HELP"] = help_command

if __name__ == "__main__":
    main()
