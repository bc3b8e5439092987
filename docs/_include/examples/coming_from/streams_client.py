from __future__ import annotations

import asyncio

ADDRESS = ("127.0.0.1", 9000)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, line: str) -> None:
        self.writer.write(line.encode() + b"\n")
        await self.writer.drain()

    async def receive(self) -> str:
        data = await self.reader.readline()
        if not data.endswith(b"\n"):
            raise ConnectionError("The server has closed the connection")
        return data.removesuffix(b"\n").decode()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def chat() -> None:
    ada = Client(*await asyncio.open_connection(*ADDRESS))
    try:
        print("Ada:", await ada.receive())
        grace = Client(*await asyncio.open_connection(*ADDRESS))
        try:
            print("Grace:", await grace.receive())
            await ada.send("Good morning!")
            print("Ada:", await ada.receive())
            print("Grace:", await grace.receive())
        finally:
            await grace.close()
    finally:
        await ada.close()


def main() -> None:
    asyncio.run(chat())


if __name__ == "__main__":
    main()
