from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

words: set[str] = set()


class OldPort(LineOnlyReceiver):
    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        words.add(line.decode())
        self.sendLine(f"{len(words)} words".encode())


class NewPort(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        words.add((yield))
        await client.send_packet(f"{len(words)} words")


def main() -> None:
    loop = asyncio.new_event_loop()
    asyncioreactor.install(loop)
    from twisted.internet import reactor as installed_reactor

    reactor: Any = installed_reactor
    reactor.listenTCP(9000, Factory.forProtocol(OldPort), interface="127.0.0.1")

    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    new = AsyncTCPNetworkServer("127.0.0.1", 9001, protocol, NewPort(), backend="asyncio")
    serving = loop.create_task(new.serve_forever())

    def stop() -> Deferred[Any]:
        serving.cancel()
        return Deferred.fromFuture(loop.create_task(new.server_close()))

    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()
    loop.close()


if __name__ == "__main__":
    main()
