"""Example handlers for the page about Unix servers. Each one shows one feature."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator
from typing import BinaryIO, TypeAlias

from easynetwork.addresses import SocketAncillary
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    RecvAncillaryDataParams,
    RecvParams,
    UNIXClientAttribute,
)

Client: TypeAlias = AsyncStreamClient[str]
DatagramClient: TypeAlias = AsyncDatagramClient[str]


class ClientExtraAttributesRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        yield

        server_name = client.extra(UNIXClientAttribute.local_name)
        client_name = client.extra(UNIXClientAttribute.peer_name)
        credentials = client.extra(UNIXClientAttribute.peer_credentials)
        await client.send_packet(
            f"This is {server_name}. You are {client_name}, user {credentials.uid}."
        )


class OwnUserRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def on_connection(self, client: Client) -> None:
        credentials = client.extra(UNIXClientAttribute.peer_credentials)
        if credentials.uid != os.geteuid():
            await client.send_packet("You are another user.")
            await client.aclose()

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        name = yield
        await client.send_packet(f"Hello, {name}!")


class LogRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Writes the lines that it receives to a file. A log rotator replaces the file."""

    def __init__(self, log_file: int) -> None:
        self.log_file = log_file  # a descriptor

    async def handle(self, client: Client) -> AsyncGenerator[RecvParams | None, str]:
        ancillary = SocketAncillary()
        params = RecvAncillaryDataParams(data_received=ancillary.update_from_raw)
        try:
            try:
                request = yield RecvParams(recv_with_ancillary=params)
            except EOFError:
                # The rest of the request has not arrived yet. The descriptors have.
                request = yield None

            if request == "rotate":
                response = self.rotate(*ancillary.iter_fds())
            else:
                os.write(self.log_file, f"{request}\n".encode())
                response = "written"
        finally:
            for fd in ancillary.iter_fds():
                os.close(fd)
        await client.send_packet(response)

    def rotate(self, *received: int) -> str:
        match received:
            case [fd] if stat.S_ISREG(os.fstat(fd).st_mode):
                # The old file is closed, and its descriptor now means the new one.
                os.dup2(fd, self.log_file, inheritable=False)
                return "rotated"
        return "expected a regular file"


class FileRequestHandler(AsyncStreamRequestHandler[str, str]):
    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        yield
        ancillary = SocketAncillary()
        ancillary.add_fds([self.file.fileno()])
        await client.send_packet_with_ancillary("Here it is.", ancillary.as_raw())


class FileSizeRequestHandler(AsyncDatagramRequestHandler[str, str]):
    async def handle(self, client: DatagramClient) -> AsyncGenerator[RecvParams, str]:
        ancillary = SocketAncillary()
        params = RecvAncillaryDataParams(data_received=ancillary.update_from_raw)
        try:
            yield RecvParams(recv_with_ancillary=params)
            sizes = [os.fstat(fd).st_size for fd in ancillary.iter_fds()]
        finally:
            for fd in ancillary.iter_fds():
                os.close(fd)
        await client.send_packet(f"Sizes: {sizes}")
