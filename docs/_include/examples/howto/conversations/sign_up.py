from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class SignUpRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Asks a new member some questions."""

    patience = 60.0  # seconds, for each answer

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        command: str = yield

        if command != "sign up":
            await client.send_packet(f"Unknown command: {command}")
            return

        try:
            name = await self.ask(client, "What is your name?")
            year = await self.ask_number(client, "In which year were you born?")
        except TimeoutError:
            await client.send_packet("Too late. Please start again.")
            await client.aclose()
        else:
            await client.send_packet(f"Welcome, {name}, born in {year}!")

    async def ask(self, client: AsyncStreamClient[str], question: str) -> str:
        """Ask until the client sends a line of text."""
        while True:
            await client.send_packet(question)
            try:
                answer: str = await client.recv_packet(timeout=self.patience)
            except StreamProtocolParseError:
                await client.send_packet("That is not UTF-8.")
            else:
                return answer

    async def ask_number(self, client: AsyncStreamClient[str], question: str) -> int:
        """Ask until the client sends a number."""
        while True:
            answer = await self.ask(client, question)
            if answer.isdecimal() and len(answer) < 10:
                return int(answer)
            await client.send_packet("That is not a number.")


async def sign_up(*answers: str) -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client:
        for line in ["sign up", *answers]:
            print(f"> {line}")
            await client.send_packet(line)
            print(await client.recv_packet())


async def main() -> None:
    handler = SignUpRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await sign_up("Ada", "1815")
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
