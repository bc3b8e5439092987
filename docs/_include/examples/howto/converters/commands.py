from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any, TypeAlias

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.converter import AbstractPacketConverter, StapledPacketConverter
from easynetwork.exceptions import PacketConversionError, StreamProtocolParseError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


@dataclasses.dataclass(frozen=True)
class Login:
    name: str


@dataclasses.dataclass(frozen=True)
class Say:
    text: str


Command: TypeAlias = Login | Say


@dataclasses.dataclass(frozen=True)
class Reply:
    ok: bool
    text: str


class CommandConverter(AbstractPacketConverter[Command, Any]):
    def convert_to_dto_packet(self, obj: Command) -> Any:
        return {"type": type(obj).__name__.lower(), **dataclasses.asdict(obj)}

    def create_from_dto_packet(self, packet: Any) -> Command:
        match packet:
            case {"type": "login", "name": str(name)}:
                return Login(name)
            case {"type": "say", "text": str(text)}:
                return Say(text)
            case {"type": "login" | "say" as name}:
                raise PacketConversionError(f"{name!r} without what it needs")
            case _:
                raise PacketConversionError("Not a command")


class ReplyConverter(AbstractPacketConverter[Reply, Any]):
    def convert_to_dto_packet(self, obj: Reply) -> Any:
        return dataclasses.asdict(obj)

    def create_from_dto_packet(self, packet: Any) -> Reply:
        match packet:
            case {"ok": bool(ok), "text": str(text)}:
                return Reply(ok, text)
            case _:
                raise PacketConversionError("Not a reply")


class ServerProtocol(StreamProtocol[Reply, Command]):
    def __init__(self) -> None:
        converter = StapledPacketConverter(ReplyConverter(), CommandConverter())
        super().__init__(JSONSerializer(), converter)


class ClientProtocol(StreamProtocol[Command, Reply]):
    def __init__(self) -> None:
        converter = StapledPacketConverter(CommandConverter(), ReplyConverter())
        super().__init__(JSONSerializer(), converter)


class CommandHandler(AsyncStreamRequestHandler[Command, Reply]):
    async def handle(
        self,
        client: AsyncStreamClient[Reply],
    ) -> AsyncGenerator[None, Command]:
        try:
            command = yield
        except StreamProtocolParseError as exc:
            await client.send_packet(Reply(False, str(exc.error)))
            return
        match command:
            case Login(name):
                await client.send_packet(Reply(True, f"Welcome, {name}"))
            case Say(text):
                await client.send_packet(Reply(True, f"You said {text!r}"))


async def main() -> None:
    # Port 0: the operating system chooses a free port.
    protocol, handler = ServerProtocol(), CommandHandler()
    async with AsyncTCPNetworkServer("localhost", 0, protocol, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        host, port = server.get_addresses()[0][:2]

        async with AsyncTCPNetworkClient((host, port), ClientProtocol()) as client:
            for command in Login("Zoe"), Say("hello"):
                await client.send_packet(command)
                print(await client.recv_packet())

        async with AsyncTCPNetworkClient(
            (host, port), StreamProtocol(JSONSerializer())
        ) as plain_client:
            for packet in {"type": "say"}, ["hello"]:
                await plain_client.send_packet(packet)
                print(await plain_client.recv_packet())

        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
