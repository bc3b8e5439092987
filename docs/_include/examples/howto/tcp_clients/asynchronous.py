"""Asynchronous example functions for the page about TCP clients. Each one shows one feature."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterable, Iterable
from typing import TypeAlias

import trio

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer

protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

Client: TypeAlias = AsyncTCPNetworkClient[str, str]


async def make_client(host: str, port: int) -> Client:
    client = AsyncTCPNetworkClient(
        (host, port),
        protocol,
        local_address=("127.0.0.1", 0),  # any free port of this interface
        happy_eyeballs_delay=0.1,  # seconds before the client tries the next address
    )
    with client.backend().timeout(5.0):
        await client.wait_connected()
    return client


async def greet_over(sock: socket.socket) -> str:
    async with AsyncTCPNetworkClient(sock, protocol) as client:
        await client.send_packet("Zoë")
        return await client.recv_packet()


async def greet_in_private(host: str, port: int) -> str:
    async with AsyncTCPNetworkClient((host, port), protocol, ssl=True) as client:
        await client.send_packet("Zoë")
        return await client.recv_packet()


async def greet_with_authority(host: str, port: int, authority: str = "authority.pem") -> str:
    context = ssl.create_default_context(cafile=authority)
    async with AsyncTCPNetworkClient((host, port), protocol, ssl=context) as client:
        await client.send_packet("Zoë")
        return await client.recv_packet()


async def status(host: str, port: int, patience: float = 5.0) -> str:
    client = AsyncTCPNetworkClient((host, port), protocol)
    try:
        with client.backend().timeout(patience):
            await client.wait_connected()
            return "up"
    except ConnectionRefusedError:
        return "no program listens at that port"
    except socket.gaierror:
        return "there is no such host"
    except TimeoutError:
        return "no answer"
    except OSError as exc:
        return f"out of reach: {exc}"
    finally:
        await client.aclose()


async def connect_patiently(
    host: str,
    port: int,
    delays: Iterable[float] = (0.5, 1.0, 2.0, 4.0),
) -> Client:
    client = AsyncTCPNetworkClient((host, port), protocol)
    for delay in delays:
        try:
            await client.wait_connected()
            return client
        except OSError as exc:
            print(f"{exc}. Next attempt in {delay} seconds")
            await client.backend().sleep(delay)
    await client.wait_connected()
    return client


async def follow_news(
    host: str,
    port: int,
    first_delay: float = 0.5,
    longest_delay: float = 30.0,
) -> None:
    delay = first_delay
    while True:
        async with contextlib.aclosing(AsyncTCPNetworkClient((host, port), protocol)) as client:
            try:
                with client.backend().timeout(5.0):
                    await client.wait_connected()
            except OSError as exc:
                print(f"Not connected: {exc}")
            else:
                async for news in client.iter_received_packets(timeout=None):
                    print(news)
                    delay = first_delay
                print("Disconnected")

        pause = delay * random.uniform(0.5, 1.0)
        print(f"Next attempt in {pause:.2f} seconds")
        await client.backend().sleep(pause)
        delay = min(2 * delay, longest_delay)


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


async def print_backlog(client: Client, patience: float = 1.0) -> None:
    await client.send_packet("backlog")
    async for line in client.iter_received_packets(timeout=patience):
        print(line)


async def receive_text(client: Client) -> str:
    while True:
        try:
            return await client.recv_packet()
        except StreamProtocolParseError as exc:
            print(f"Skipped a line that is not text: {exc.error}")


async def count_lines(client: Client, lines: Iterable[str]) -> int:
    for line in lines:
        await client.send_packet(line)
    await client.send_eof()
    return int(await client.recv_packet())


async def print_news(client: Client) -> None:
    async for news in client.iter_received_packets(timeout=None):
        print(news)


async def chat(client: Client, messages: AsyncIterable[str]) -> None:
    async with client.backend().create_task_group() as task_group:
        task_group.start_soon(print_news, client)
        try:
            async for message in messages:
                await client.send_packet(message)
        finally:
            await client.aclose()  # also ends the loop in print_news()


async def probe_when_idle(client: Client) -> None:
    await client.wait_connected()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
