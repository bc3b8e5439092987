from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import anyio

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, run
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class JobRequestHandler(AsyncStreamRequestHandler[str, str]):
    seconds = 2.0

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        job = yield
        await anyio.sleep(self.seconds)
        await client.send_packet(f"{job} is done")


class ClockRequestHandler(AsyncStreamRequestHandler[str, str]):
    interval = 1.0

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield
        while not client.is_draining():
            await client.send_packet("tick")
            await anyio.sleep(self.interval)
        await client.send_packet("connect again")
        await client.aclose()


def new_job_server() -> AsyncTCPNetworkServer[str, str]:
    protocol = StreamProtocol(StringLineSerializer())
    return AsyncTCPNetworkServer("localhost", 9000, protocol, JobRequestHandler())


def new_clock_server() -> AsyncTCPNetworkServer[str, str]:
    protocol = StreamProtocol(StringLineSerializer())
    return AsyncTCPNetworkServer("localhost", 9001, protocol, ClockRequestHandler())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    run(new_job_server, new_clock_server, grace=10)
