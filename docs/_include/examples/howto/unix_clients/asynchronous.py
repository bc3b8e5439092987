"""Asynchronous example functions for the page about Unix clients. Each one shows one feature."""

from __future__ import annotations

import os
import socket
import ssl
from typing import BinaryIO, TypeAlias

from easynetwork.addresses import SocketAncillary
from easynetwork.clients.async_unix_datagram import AsyncUnixDatagramClient
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer

protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
datagram_protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

Client: TypeAlias = AsyncUnixStreamClient[str, str]
DatagramClient: TypeAlias = AsyncUnixDatagramClient[str, str]


async def make_client(path: str) -> Client:
    client = AsyncUnixStreamClient(path, protocol)
    with client.backend().timeout(5.0):
        await client.wait_connected()
    return client


async def greet_by_name(name: str) -> str:
    async with AsyncUnixStreamClient(f"\0{name}", protocol) as client:
        await client.send_packet("Zoë")
        return await client.recv_packet()


async def greet_over(sock: socket.socket) -> str:
    async with AsyncUnixStreamClient(sock, protocol) as client:
        await client.send_packet("Zoë")
        return await client.recv_packet()


async def greet_in_private(path: str, context: ssl.SSLContext) -> str:
    async with AsyncUnixStreamClient(
        path,
        protocol,
        ssl=context,
        server_hostname="localhost",
    ) as client:
        await client.send_packet("Zoë")
        return await client.recv_packet()


async def status(path: str, patience: float = 5.0) -> str:
    client = AsyncUnixStreamClient(path, protocol)
    try:
        with client.backend().timeout(patience):
            await client.wait_connected()
            return "up"
    except FileNotFoundError:
        return "there is no such path"
    except ConnectionRefusedError:
        return "no server listens"
    except PermissionError:
        return "you may not connect"
    except TimeoutError:
        return "the server is too busy"
    except OSError as exc:
        return f"out of reach: {exc}"
    finally:
        await client.aclose()


async def greet_as_user(path: str, uid: int) -> str:
    async with AsyncUnixStreamClient(path, protocol) as client:
        if client.get_peer_credentials().uid != uid:
            raise PermissionError(f"{path} belongs to a server of another user")
        await client.send_packet("Zoë")
        return await client.recv_packet()


async def make_datagram_client(path: str, local_path: str) -> DatagramClient:
    client = AsyncUnixDatagramClient(path, datagram_protocol, local_path=local_path)
    await client.wait_connected()
    return client


async def log_warning(text: str, path: str = "/dev/log") -> None:
    async with AsyncUnixDatagramClient(path, datagram_protocol) as client:
        with client.backend().timeout(1.0):
            await client.send_packet(f"<12>example: {text}")


async def rotate(path: str, new_file: BinaryIO) -> str:
    ancillary = SocketAncillary()
    ancillary.add_fds([new_file.fileno()])
    async with AsyncUnixStreamClient(path, protocol) as client:
        await client.send_packet("rotate", ancillary_data=ancillary)
        return await client.recv_packet()


async def read_received_file(path: str) -> bytes:
    async with AsyncUnixStreamClient(path, protocol) as client:
        await client.send_packet("send me the file")
        ancillary = SocketAncillary()
        try:
            with client.backend().timeout(5.0):
                await client.recv_packet(ancillary_data=ancillary)
            [fd] = ancillary.iter_fds()
            return os.pread(fd, 65536, 0)
        finally:
            for fd in ancillary.iter_fds():
                os.close(fd)
