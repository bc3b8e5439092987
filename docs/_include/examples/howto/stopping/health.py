from __future__ import annotations

import signal
from collections.abc import AsyncGenerator

import anyio
from jobs import new_job_server

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.abc import AbstractAsyncNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class HealthRequestHandler(AsyncStreamRequestHandler[str, str]):
    def __init__(self, server: AbstractAsyncNetworkServer) -> None:
        self.server = server

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield
        await client.send_packet("healthy" if self.server.is_serving() else "draining")


def new_health_server(server: AbstractAsyncNetworkServer) -> AsyncTCPNetworkServer[str, str]:
    protocol = StreamProtocol(StringLineSerializer())
    return AsyncTCPNetworkServer("localhost", 9002, protocol, HealthRequestHandler(server))


async def main() -> None:
    async with (
        new_job_server() as jobs,
        new_health_server(jobs) as health,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(jobs.serve_forever)
        tasks.start_soon(health.serve_forever)

        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await anext(signals)
            await jobs.shutdown(grace=10)
            await health.shutdown()


if __name__ == "__main__":
    anyio.run(main)
