from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import ssl
from pathlib import Path

from mail_auth import Users
from mail_handler import MailRequestHandler
from mail_protocol import COMMANDS, Reply
from mail_queue import MailQueue
from mail_session import Settings

from easynetwork.servers import AsyncTCPNetworkServer, Limits, run

# A client is silent while it collects its next message: the handler has its own timeout for that.
LIMITS = dataclasses.replace(Limits.public(), max_clients=1000, max_clients_per_host=20)


def new_server(options: argparse.Namespace) -> AsyncTCPNetworkServer[str, Reply]:
    users = tls = None
    if options.users is not None:
        users = Users(json.loads(options.users.read_text()))
    if options.certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate, options.key)
    settings = Settings(
        hostname=options.hostname, domains=frozenset(options.domain), tls=tls, users=users
    )
    handler = MailRequestHandler(settings, MailQueue(options.queue))
    return AsyncTCPNetworkServer(options.host, options.port, COMMANDS, handler, limits=LIMITS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Receive mail, and store it in a folder.")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", default=2525, type=int)
    parser.add_argument("--hostname", default="localhost", help="what the server calls itself")
    parser.add_argument("--domain", nargs="+", default=["example.com"])
    parser.add_argument("--queue", default=Path("queue"), type=Path, help="a folder")
    parser.add_argument("--certificate", type=Path, help="a PEM file; offers STARTTLS")
    parser.add_argument("--key", type=Path, help="the key, if it is in another file")
    parser.add_argument("--users", type=Path, help="a file of mail_auth.py; offers AUTH")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()

    logging.basicConfig(level=logging.INFO)
    run(lambda: new_server(options), backend=options.backend, grace=30)


if __name__ == "__main__":
    main()
