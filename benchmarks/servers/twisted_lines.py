"""Twisted: ``LineReceiver`` on the default reactor.

Usage: twisted_lines.py LIMIT
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver


class Echo(LineReceiver):
    """One connection."""

    delimiter = b"\n"
    MAX_LENGTH = int(sys.argv[1])
    transport: Any

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        self.transport.setTcpNoDelay(True)  # as asyncio and trio do unasked

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - likewise
        text = line.decode("ascii")
        self.sendLine(text.encode("ascii"))


if __name__ == "__main__":
    reactor: Any = installed_reactor  # a module that stands for whichever reactor was chosen
    port = reactor.listenTCP(0, Factory.forProtocol(Echo), backlog=128, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()
