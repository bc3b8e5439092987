"""What tests with programs that others wrote share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from tests.times import PATIENCE


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@asynccontextmanager
async def serving(server: Any) -> AsyncIterator[None]:
    """Serve while the block runs."""
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            yield
            await server.shutdown()


@asynccontextmanager
async def serving_on_a_port(
    handler: AsyncStreamRequestHandler[str, str], protocol: StreamProtocol[str, str], **options: Any
) -> AsyncIterator[int]:
    """Serve over TCP while the block runs; return the port."""
    server = AsyncTCPNetworkServer[str, str]("127.0.0.1", 0, protocol, handler, **options)
    async with serving(server):
        yield server.get_addresses()[0].port


async def run(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    return await anyio.to_thread.run_sync(run)
