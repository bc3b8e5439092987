from __future__ import annotations

import asyncio
from typing import Any

ADDRESS = ("127.0.0.1", 9000)


class Client(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self.rest = b""
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.lines.put_nowait(line.decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lines.put_nowait(None)

    def send(self, line: str) -> None:
        self.transport.write(line.encode() + b"\n")

    async def receive(self) -> str:
        line = await self.lines.get()
        if line is None:
            raise ConnectionError("The server has closed the connection")
        return line


async def chat() -> None:
    loop = asyncio.get_running_loop()
    _, ada = await loop.create_connection(Client, *ADDRESS)
    try:
        print("Ada:", await ada.receive())
        _, grace = await loop.create_connection(Client, *ADDRESS)
        try:
            print("Grace:", await grace.receive())
            ada.send("Good morning!")
            print("Ada:", await ada.receive())
            print("Grace:", await grace.receive())
        finally:
            grace.transport.close()
    finally:
        ada.transport.close()


def main() -> None:
    asyncio.run(chat())


if __name__ == "__main__":
    main()
