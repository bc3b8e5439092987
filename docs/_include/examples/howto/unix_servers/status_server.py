from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import run
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class StatusRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Responds to an HTTP request with the status of the program."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float, str]:
        async with contextlib.aclosing(client):
            request = yield 5.0
            while (yield 5.0) != "":
                pass  # the headers, which end with an empty line

            await client.send_packet("HTTP/1.0 200 OK")
            await client.send_packet("Content-Type: text/plain")
            await client.send_packet("")
            await client.send_packet(f"Everything is fine. ({request})")


def new_server() -> AsyncUnixStreamServer[str, str]:
    protocol = StreamProtocol(StringLineSerializer("CRLF"))
    return AsyncUnixStreamServer("status.sock", protocol, StatusRequestHandler())


if __name__ == "__main__":
    run(new_server)
