"""Sends back, reversed, the packets of one connection, as Twisted understands them.

Usage: twisted_peer.py RECEIVER, with the name of a class in ``twisted.protocols.basic``. Prints the
port, and ends with the connection.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.protocol import Factory
from twisted.protocols import basic

reactor: Any = installed_reactor
Receiver: Any = getattr(basic, sys.argv[1])


class Reverse(Receiver):
    """One connection."""

    def stringReceived(self, string: bytes) -> None:  # noqa: N802 - Twisted's name
        self.sendString(string[::-1])

    def connectionLost(self, reason: Any) -> None:  # noqa: N802 - likewise
        reactor.stop()


if __name__ == "__main__":
    port = reactor.listenTCP(0, Factory.forProtocol(Reverse), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()
