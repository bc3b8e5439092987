"""Datagrams on loops without `add_reader`; see the test of the same for streams."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
import os
import socket

from easynetwork.backends import datagram_endpoint
from easynetwork.backends.asyncio.datagram import AsyncIODatagramEndpoint
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler

PROTOCOL = DatagramProtocol(StringLineSerializer())


class Loop(asyncio.SelectorEventLoop):
    add_reader = asyncio.AbstractEventLoop.add_reader
    remove_reader = asyncio.AbstractEventLoop.remove_reader
    add_writer = asyncio.AbstractEventLoop.add_writer
    remove_writer = asyncio.AbstractEventLoop.remove_writer


class Echo(AsyncDatagramRequestHandler):
    async def handle(self, client):
        packet = yield
        if packet == "wait":
            packet += yield
        await client.send_packet(packet)


async def main():
    async with AsyncUDPNetworkServer("127.0.0.1", 0, PROTOCOL, Echo()) as server:
        for _ in range(2):
            is_up = asyncio.Event()
            serving = asyncio.create_task(server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            await CONVERSATION(server.get_addresses()[0])
            await server.shutdown()
            await serving


def connected(address):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(address)
    return AsyncIODatagramEndpoint(sock)


async def short(address):
    endpoint = connected(address)
    for number in range(3):
        assert endpoint.send(str(number).encode())
        assert await endpoint.receive() == str(number).encode()
    endpoint.send(b"wait")
    await asyncio.sleep(0.01)
    endpoint.send(b"ed")
    assert await endpoint.receive() == b"waited"
    endpoint.close()


async def many(address):
    await asyncio.gather(*(short(address) for _ in range(20)))


def unix_pair():
    # Unlike UDP on the loopback interface, it can be full.
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.setblocking(False)
    return AsyncIODatagramEndpoint(one), other


async def deadline(address):
    endpoint = connected(address)
    try:
        await endpoint.receive(asyncio.get_running_loop().time() + 0.01)
    except TimeoutError:
        endpoint.close()


async def closed(address):
    # Closed while tasks wait, in either direction.
    endpoint, other = unix_pair()
    with other:
        while endpoint.send(b"x"):
            pass
        tasks = [asyncio.create_task(endpoint.receive()), asyncio.create_task(endpoint.writable())]
        await asyncio.sleep(0.01)
        endpoint.close()
        received, _ = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(received, OSError)


async def congested(address):
    endpoint, other = unix_pair()
    with other:
        count = 0
        while endpoint.send(b"x"):
            count += 1
        waiting = [asyncio.create_task(endpoint.writable()) for _ in range(3)]
        receiving = asyncio.create_task(endpoint.receive())
        await asyncio.sleep(0.01)
        for _ in range(count):
            other.recv(1)
        await asyncio.gather(*waiting)
        other.send(b"y")
        assert await receiving == b"y"
        endpoint.close()


with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main())
print("done", flush=True)
os._exit(0)  # anyio's thread has nothing to clean up
"""


@pytest.mark.parametrize("conversation", ["short", "many", "deadline", "closed", "congested"])
def test_conversation(conversation: str) -> None:
    """Servers and endpoints work on such a loop, and leave nothing unclosed."""
    program = PROGRAM.replace("CONVERSATION", conversation)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (process.stdout, process.returncode) == ("done\n", 0), process.stderr
