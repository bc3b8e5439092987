from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin

ADDRESS = ("127.0.0.1", 9000)
LIMIT = 1024
IDLE_TIME = 300.0


class Chat(LineReceiver, TimeoutMixin):
    delimiter = b"\n"
    transport: Any

    def __init__(self, room: set[Chat]) -> None:
        self.room = room
        self.MAX_LENGTH = LIMIT

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.room.add(self)
        self.setTimeout(IDLE_TIME)
        self.send(f"{len(self.room)} in the room")

    def lineReceived(self, line: bytes) -> None:
        try:
            text = line.decode()
        except UnicodeDecodeError as exc:
            print("Invalid data:", exc)
            self.transport.loseConnection()
            return
        self.resetTimeout()
        count = self.broadcast(text)
        self.send(f"sent to {count}")

    def send(self, line: str) -> None:
        self.sendLine(line.encode())

    def broadcast(self, line: str) -> int:
        others = [member for member in self.room if member is not self and not member.paused]
        for member in others:
            member.send(line)
        return len(others)

    def connectionLost(self, reason: Any = None) -> None:
        self.room.discard(self)
        self.setTimeout(None)


class ChatFactory(Factory):
    def __init__(self) -> None:
        self.room: set[Chat] = set()

    def buildProtocol(self, addr: Any) -> Chat:
        return Chat(self.room)


async def serve(reactor: Any) -> None:
    host, port = ADDRESS
    endpoint = TCP4ServerEndpoint(reactor, port, interface=host)
    await endpoint.listen(ChatFactory())
    await Deferred()  # until Control-C


def main() -> None:
    react(lambda reactor: ensureDeferred(serve(reactor)))


if __name__ == "__main__":
    main()
