from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler

SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


class SyslogRequestHandler(AsyncDatagramRequestHandler[str, str]):
    """Prints what programs send to /dev/log: "<13>Jan 31 12:00:00 program: text"."""

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        message: str = yield
        # The number is 8 * facility + severity (RFC 3164, section 4.1.1).
        if found := re.fullmatch(r"<(\d{1,3})>(.*?)[\n\0]*", message, re.DOTALL):
            print(f"{SEVERITIES[int(found[1]) % 8]}: {found[2]!r}")


async def main() -> None:
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

    async with AsyncUnixDatagramServer(
        "log.sock",
        protocol,
        SyslogRequestHandler(),
        unnamed_addresses_behavior="handle",
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    # Control-C is the normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
