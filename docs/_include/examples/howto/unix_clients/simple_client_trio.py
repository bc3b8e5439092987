from __future__ import annotations

import trio

from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer


async def main(path: str) -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

    with trio.fail_after(5.0):
        async with AsyncUnixStreamClient(path, protocol) as client:
            await client.send_packet("Zoë")
            print(await client.recv_packet())


if __name__ == "__main__":
    trio.run(main, "greeting.sock")
