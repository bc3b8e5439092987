from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import anyio

from easynetwork.addresses import SocketAddress
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
    RecvParams,
)


class ClockHandler(AsyncStreamRequestHandler[str, str]):
    async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
        group = await exit_stack.enter_async_context(server.backend().create_task_group())
        group.start_soon(self.count)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[RecvParams, str]:
        request = yield RecvParams(timeout=30)
        address: SocketAddress = client.extra(INETClientAttribute.remote_address)
        with client.backend().move_on_after(5) as scope:
            await client.send_packet(await self.answer(request, address.host))
        if scope.cancelled_caught:
            await client.send_packet("too late")

    # The work

    def __init__(self) -> None:
        self.seconds = 0

    async def count(self) -> None:
        while True:
            await anyio.sleep(1)
            self.seconds += 1

    async def answer(self, request: str, host: str) -> str:
        await anyio.sleep(float(request))
        return f"{host} asked after {self.seconds} seconds"
