"""Loops without `add_reader`, such as the one that is the default on Windows.

Each conversation has a process of its own, because anyio keeps the thread that selects for it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
import logging
import os
import selectors
import socket

if LIMITED:  # as on Windows, where the limit of select() is half of this system's
    selectors.DefaultSelector = selectors.SelectSelector

import easynetwork.backends.asyncio.readiness

from easynetwork.backends.asyncio.stream import AsyncIOStreamTransport
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamRequestHandler

PROTOCOL = StreamProtocol(StringLineSerializer(limit=10_000_000))


class Loop(asyncio.SelectorEventLoop):
    add_reader = asyncio.AbstractEventLoop.add_reader
    remove_reader = asyncio.AbstractEventLoop.remove_reader
    add_writer = asyncio.AbstractEventLoop.add_writer
    remove_writer = asyncio.AbstractEventLoop.remove_writer


class Echo(AsyncStreamRequestHandler):
    async def handle(self, client):
        packet = yield
        await client.send_packet(packet)


async def main():
    async with AsyncTCPNetworkServer("127.0.0.1", 0, PROTOCOL, Echo()) as server:
        is_up = asyncio.Event()
        serving = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await CONVERSATION(server.get_addresses()[0])
        await server.shutdown()
        await serving


async def short(address):
    async with AsyncTCPNetworkClient(address, PROTOCOL) as client:
        for _ in range(3):
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"


async def large(address):
    # More than fits into the kernel's buffers, both ways: reading pauses, writing waits.
    async with AsyncTCPNetworkClient(address, PROTOCOL) as client:
        sending = asyncio.create_task(client.send_packet("x" * 9_000_000))
        assert len(await client.recv_packet()) == 9_000_000
        await sending


async def many(address):
    await asyncio.gather(*(short(address) for _ in range(20)))


async def unread(address):
    # The client closes while the server sends: it reads to the end.
    async with AsyncTCPNetworkClient(address, PROTOCOL) as client:
        for number in range(1000):
            await client.send_packet(str(number))
        assert await client.recv_packet() == "0"


async def at_once(address):
    # Closed before the task that waits for it has begun.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with other:
        one.setblocking(False)
        other.settimeout(5)
        await AsyncIOStreamTransport(one, bool, 1000).aclose()
        assert await asyncio.to_thread(other.recv, 1) == b""


async def crowd(address):
    # More clients than select() can take, were they let in: a third of these are turned away.
    streams = [await asyncio.open_connection(address.host, address.port) for _ in range(360)]
    served = 0
    for reader, writer in streams:
        writer.write(b"hello\\n")
    for reader, writer in streams:
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
        except ConnectionError:
            line = b""
        assert line in (b"hello\\n", b"")
        served += bool(line)
    assert served == 240, served
    for _, writer in streams[:50]:
        writer.close()
    for _ in range(500):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(b"again\\n")
            if await reader.readline() == b"again\\n":
                break
        except ConnectionError:
            pass
        finally:
            writer.close()
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("not served again")
    for _, writer in streams:
        writer.close()
    [message] = messages
    assert "at most 240 sockets" in message


class Records(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING and record.name.startswith("easynetwork"):
            messages.append(record.getMessage())


messages = []
logging.getLogger().addHandler(Records())
# A selector of its own: the limit of select() is to be met by the thread alone.
with asyncio.Runner(loop_factory=lambda: Loop(selectors.PollSelector())) as runner:
    runner.run(main())
print("done", flush=True)
os._exit(0)  # anyio's thread has nothing to clean up
"""


@pytest.mark.parametrize("conversation", ["short", "large", "many", "unread", "at_once"])
def test_conversation(conversation: str) -> None:
    """Servers and clients work on such a loop, and leave nothing unclosed."""
    run(conversation)


def test_crowd() -> None:
    """Where there is only select(2), sockets beyond its limit are refused; one line says so."""
    run("crowd", is_limited=True)


def run(conversation: str, *, is_limited: bool = False) -> None:
    program = PROGRAM.replace("CONVERSATION", conversation).replace("LIMITED", str(is_limited))
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (process.stdout, process.returncode) == ("done\n", 0), process.stderr
