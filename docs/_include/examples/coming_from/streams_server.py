from __future__ import annotations

import asyncio
import contextlib

ADDRESS = ("127.0.0.1", 9000)
LIMIT = 1024
IDLE_TIME = 300.0
HIGH_WATER = 64 * 1024


class Chat:
    def __init__(self) -> None:
        self.room: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.room.add(writer)
        try:
            await self.send(writer, f"{len(self.room)} in the room")
            while True:
                line = await self.receive(reader)
                count = self.broadcast(line, exclude=writer)
                await self.send(writer, f"sent to {count}")
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        except (asyncio.LimitOverrunError, UnicodeDecodeError) as exc:
            print("Invalid data:", exc)
        finally:
            self.room.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def receive(self, reader: asyncio.StreamReader) -> str:
        async with asyncio.timeout(IDLE_TIME):
            data = await reader.readuntil(b"\n")
        return data.removesuffix(b"\n").decode()

    async def send(self, writer: asyncio.StreamWriter, line: str) -> None:
        writer.write(line.encode() + b"\n")
        await writer.drain()

    def broadcast(self, line: str, exclude: asyncio.StreamWriter) -> int:
        data = line.encode() + b"\n"
        others = [
            writer
            for writer in self.room
            if writer is not exclude
            and not writer.is_closing()
            and writer.transport.get_write_buffer_size() <= HIGH_WATER
        ]
        for writer in others:
            writer.write(data)
        return len(others)


async def serve() -> None:
    server = await asyncio.start_server(Chat().serve, *ADDRESS, limit=LIMIT)
    async with server:
        await server.serve_forever()


def main() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
