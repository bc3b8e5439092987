from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredQueue, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

ADDRESS = ("127.0.0.1", 9000)


class Client(LineOnlyReceiver):
    delimiter = b"\n"
    transport: Any

    def __init__(self) -> None:
        self.lines: DeferredQueue[str | None] = DeferredQueue()

    def lineReceived(self, line: bytes) -> None:
        self.lines.put(line.decode())

    def connectionLost(self, reason: Any = None) -> None:
        self.lines.put(None)

    def send(self, line: str) -> None:
        self.sendLine(line.encode())

    async def receive(self) -> str:
        line = await self.lines.get()
        if line is None:
            raise ConnectionError("The server has closed the connection")
        return line


async def chat(reactor: Any) -> None:
    endpoint = TCP4ClientEndpoint(reactor, *ADDRESS)
    ada = await connectProtocol(endpoint, Client())
    try:
        print("Ada:", await ada.receive())
        grace = await connectProtocol(endpoint, Client())
        try:
            print("Grace:", await grace.receive())
            ada.send("Good morning!")
            print("Ada:", await ada.receive())
            print("Grace:", await grace.receive())
        finally:
            grace.transport.loseConnection()
    finally:
        ada.transport.loseConnection()


def main() -> None:
    react(lambda reactor: ensureDeferred(chat(reactor)))


if __name__ == "__main__":
    main()
