"""Asynchronous example functions for the page about UDP clients. Each one shows one feature."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
from typing import TypeAlias

import trio

from easynetwork.addresses import SocketAddress
from easynetwork.clients import AsyncUDPNetworkClient, AsyncUDPNetworkEndpoint
from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer

protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

Client: TypeAlias = AsyncUDPNetworkClient[str, str]


async def make_client(host: str, port: int) -> Client:
    client = AsyncUDPNetworkClient(
        (host, port),
        protocol,
        local_address=("127.0.0.1", 0),  # any free port of this interface
        family=socket.AF_INET,  # only IPv4 addresses
    )
    await client.wait_connected()
    return client


async def greet_over(sock: socket.socket) -> str:
    async with AsyncUDPNetworkClient(sock, protocol) as client:
        await client.send_packet("Zoë")
        with client.backend().timeout(5.0):
            return await client.recv_packet()


async def wait_for_news_asyncio(client: Client, patience: float = 30.0) -> str:
    try:
        async with asyncio.timeout(patience):
            return await client.recv_packet()
    except TimeoutError:
        return "no news"


async def wait_for_news_trio(client: Client, patience: float = 30.0) -> str:
    try:
        with trio.fail_after(patience):
            return await client.recv_packet()
    except trio.TooSlowError:
        return "no news"


async def wait_for_news(client: Client, patience: float = 30.0) -> str:
    try:
        with client.backend().timeout(patience):
            return await client.recv_packet()
    except TimeoutError:
        return "no news"


request_numbers = itertools.count()


async def ask(
    client: Client,
    request: str,
    attempts: int = 3,
    patience: float = 1.0,
) -> str:
    number = str(next(request_numbers))
    for _ in range(attempts):
        await client.send_packet(f"{number} {request}")
        async for response in client.iter_received_packets(timeout=patience):
            response_number, _, text = response.partition(" ")
            if response_number == number:
                return text
    raise TimeoutError(f"no answer in {attempts} attempts")


async def ask_despite_restart(
    client: Client,
    request: str,
    attempts: int = 10,
    patience: float = 1.0,
) -> str:
    number = str(next(request_numbers))
    for _ in range(attempts):
        with contextlib.suppress(TimeoutError), client.backend().timeout(patience):
            with contextlib.suppress(ConnectionRefusedError):
                await client.send_packet(f"{number} {request}")
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    response = await client.recv_packet()
                    response_number, _, text = response.partition(" ")
                    if response_number == number:
                        return text
    raise TimeoutError(f"no answer in {attempts} attempts")


async def receive_text(client: Client) -> str:
    with client.backend().timeout(30.0):
        while True:
            try:
                return await client.recv_packet()
            except DatagramProtocolParseError as exc:
                print(f"Skipped a datagram that is not text: {exc.error}")


async def send(client: Client, packet: str) -> str:
    try:
        await client.send_packet(packet)
    except ConnectionRefusedError:
        return "no program listens at that port, now or earlier"
    except OSError as exc:
        if exc.errno == errno.EMSGSIZE:
            return "too long"
        return f"not sent: {exc}"
    return "sent"


async def ask_all(
    addresses: set[SocketAddress],
    request: str,
    patience: float = 1.0,
) -> dict[SocketAddress, str]:
    responses: dict[SocketAddress, str] = {}
    async with AsyncUDPNetworkEndpoint(protocol) as endpoint:
        for address in addresses:
            await endpoint.send_packet_to(request, address)
        while responses.keys() != addresses:
            with endpoint.backend().timeout(patience):
                response, sender = await endpoint.recv_packet_from()
            if sender in addresses:
                responses[sender] = response
    return responses


async def make_room_for_bursts(client: Client) -> None:
    await client.wait_connected()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
