from __future__ import annotations

from collections.abc import AsyncGenerator

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, run
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
LIMIT = 1024
IDLE_TIME = 300.0


class Chat(AsyncStreamRequestHandler[str, str]):
    def __init__(self) -> None:
        self.room: ClientGroup[str] = ClientGroup()

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        self.room.add(client)
        await client.send_packet(f"{len(self.room)} in the room")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float, str]:
        line = yield IDLE_TIME

        count = self.room.broadcast(line, exclude=[client])
        await client.send_packet(f"sent to {count}")


def new_server() -> AsyncTCPNetworkServer[str, str]:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8", limit=LIMIT))
    return AsyncTCPNetworkServer(*ADDRESS, protocol, Chat())


def main() -> None:
    run(new_server)


if __name__ == "__main__":
    main()
