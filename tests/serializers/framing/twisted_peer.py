"""Sends back, reversed, the packets of each connection, as Twisted understands them.

Usage: twisted_peer.py RECEIVER..., with names of classes in ``twisted.protocols.basic``. Prints the
port of each, and ends with standard input.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.stdio import StandardIO
from twisted.protocols import basic

reactor: Any = installed_reactor


class UntilTheEnd(Protocol):
    """Standard input, on which nothing is said."""

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802 - Twisted's name
        reactor.stop()


def listen(receiver: Any) -> int:
    """Listen for connections of a class, and return the port."""

    class Reverse(receiver):
        def stringReceived(self, string: bytes) -> None:  # noqa: N802 - likewise
            self.sendString(string[::-1])

    port = reactor.listenTCP(0, Factory.forProtocol(Reverse), interface="127.0.0.1")
    return int(port.getHost().port)


if __name__ == "__main__":
    print(*(listen(getattr(basic, name)) for name in sys.argv[1:]), flush=True)
    StandardIO(UntilTheEnd())
    reactor.run()
