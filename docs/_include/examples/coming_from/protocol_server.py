from __future__ import annotations

import asyncio
import contextlib
from typing import Any

ADDRESS = ("127.0.0.1", 9000)
LIMIT = 1024
IDLE_TIME = 300.0


class Chat(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, room: set[Chat]) -> None:
        self.room = room
        self.rest = b""
        self.is_slow = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.room.add(self)
        self.restart_timer()
        self.send(f"{len(self.room)} in the room")

    def restart_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(IDLE_TIME, self.transport.close)

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        try:
            for line in lines:
                self.line_received(line)
            if len(self.rest) > LIMIT:
                raise ValueError("the line is too long")
        except ValueError as exc:
            print("Invalid data:", exc)
            self.transport.close()

    def line_received(self, line: bytes) -> None:
        if len(line) > LIMIT:
            raise ValueError("the line is too long")
        text = line.decode()
        self.timer.cancel()
        self.restart_timer()
        count = self.broadcast(text)
        self.send(f"sent to {count}")

    def send(self, line: str) -> None:
        self.transport.write(line.encode() + b"\n")

    def broadcast(self, line: str) -> int:
        others = [
            member
            for member in self.room
            if member is not self and not member.is_slow and not member.transport.is_closing()
        ]
        for member in others:
            member.send(line)
        return len(others)

    def pause_writing(self) -> None:
        self.is_slow = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_slow = False
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.discard(self)
        self.timer.cancel()


async def serve() -> None:
    room: set[Chat] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Chat(room), *ADDRESS)
    async with server:
        await server.serve_forever()


def main() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
