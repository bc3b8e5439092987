from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import run
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


def new_server() -> AsyncUnixDatagramServer[str, str]:
    return AsyncUnixDatagramServer(
        "log.sock",
        DatagramProtocol(StringLineSerializer(encoding="utf-8")),
        SyslogRequestHandler(),
        unnamed_addresses_behavior="handle",
    )


if __name__ == "__main__":
    run(new_server)
