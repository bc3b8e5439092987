"""Control-C between two steps of a session: its generator is closed without a word."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import AsyncGenerator
from types import FrameType
from typing import Any

import anyio
import pytest

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers._datagram.session import DatagramSession
from easynetwork.servers._stream.session import StreamSession
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.testing import serve
from tests.clients.threads_support import InThread
from tests.conftest import HAS_TRIO

LINES = StringLineSerializer()


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


class DatagramEcho(AsyncDatagramRequestHandler[str, str]):
    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


async def ask(handler: Any, protocol: Any) -> None:
    async with serve(handler, protocol) as served:
        client = await served.connect()
        for _ in range(2):
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"


SERVICES = {
    "stream": (StreamSession._converse, Echo, StreamProtocol(LINES)),
    "datagram": (DatagramSession.converse, DatagramEcho, DatagramProtocol(LINES)),
}


@pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed")
@pytest.mark.parametrize("name", SERVICES)
def test_interrupted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes, nobody complains about a generator when the event loop has ended.

    trio does, if its hook is called after the end. asyncio's says nothing.
    """
    function, new_handler, protocol = SERVICES[name]
    complaints: list[Any] = []
    lines = left = 0  # until it comes

    def complain(unraisable: Any) -> None:
        if unraisable.exc_type is not RuntimeWarning:  # of a step that had no time to begin
            complaints.append(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", complain)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return trace_lines if frame.f_code is function.__code__ else None

    def trace_lines(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if not left:
                raise KeyboardInterrupt
        return trace_lines

    def run() -> None:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with contextlib.suppress(KeyboardInterrupt, BaseExceptionGroup):
                anyio.run(ask, new_handler(), protocol, backend="trio")
        finally:
            sys.settrace(before)

    while True:
        lines += 1
        left = lines
        InThread(run).result()  # of its own, because trace functions disturb it: test_start_tls
        gc.collect()
        assert complaints == [], lines
        if left > 0:
            break
    assert lines > 10
