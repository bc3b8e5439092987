"""Cuts, delays and ends of connections that hypothesis makes up, in memory and in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from hypothesis import example, given, strategies as st

from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.testing import Faults, MemoryNetwork, serve
from tests.testing.test_virtual_time import each_runner

packets = st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=30))
chunks = st.none() | st.integers(1, 40) | st.lists(st.integers(1, 40), min_size=1, max_size=20)
latency = st.floats(0, 100)
faults = st.builds(Faults, chunks=chunks, latency=latency)
each_protocol = pytest.mark.parametrize("protocol_class", [StreamProtocol, BufferedStreamProtocol])


class Echo(AsyncStreamRequestHandler[str, str]):
    """Sends back each packet, and notes what it got and who has left."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.clients = 0

    async def on_connection(self, client: Any) -> None:
        self.clients += 1

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        request = yield
        self.received.append(request)
        await client.send_packet(request)

    async def on_disconnection(self, client: Any) -> None:
        self.clients -= 1


@each_runner
@each_protocol
@given(packets=packets, to_server=faults, to_client=faults, seed=st.integers(0, 9))
def test_cuts(
    run: Any, protocol_class: Any, packets: list[str], to_server: Any, to_client: Any, seed: int
) -> None:
    """However bytes are cut and delayed, the same packets come in the same order."""

    async def main() -> None:
        handler = Echo()
        protocol = protocol_class(StringLineSerializer())
        async with serve(handler, protocol, network=MemoryNetwork(seed=seed)) as served:
            client = await served.connect(to_server=to_server, to_client=to_client)
            for packet in packets:
                await client.send_packet(packet)
            assert [await client.recv_packet() for _ in packets] == packets
        assert handler.received == packets

    run(main)


@each_runner
@given(
    packets=packets,
    chunks=chunks,
    latency=latency,
    size=st.integers(0, 200),
    is_upstream=st.booleans(),
)
@example(packets=[""], chunks=None, latency=0.0, size=0, is_upstream=True)
def test_resets(
    run: Any, packets: list[str], chunks: Any, latency: float, size: int, is_upstream: bool
) -> None:
    """A connection that is reset anywhere has delivered the packets before, and ends everywhere."""

    async def main() -> None:
        handler = Echo()
        cut = Faults(chunks=chunks, latency=latency, reset_after=size)
        async with serve(handler, StreamProtocol(StringLineSerializer())) as served:
            up, down = (cut, Faults()) if is_upstream else (Faults(), cut)
            client = await served.connect(to_server=up, to_client=down)
            answers = []
            try:
                for packet in packets:
                    await client.send_packet(packet)
                    answers.append(await client.recv_packet())
            except ConnectionAbortedError:
                assert len("\n".join([*packets, ""])) >= size
                await anyio.sleep(1000)
                assert not handler.clients  # it may have been reset before it was accepted
            else:
                await client.aclose()
            assert answers == packets[: len(answers)]
            ends = itertools.accumulate(len(packet) + 1 for packet in packets)
            assert len(answers) <= sum(end <= size for end in ends)

    run(main)
