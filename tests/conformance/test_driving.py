"""What goes wrong with a packet is raised at the `yield` that asked for one."""

from __future__ import annotations

from typing import Any

import pytest

from easynetwork.exceptions import (
    ProtocolCrashedError,
)
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from tests.conformance.support import Echo, Recorder, Records, Serve, serving

pytestmark = pytest.mark.anyio


async def test_overlong_packet(serve: Serve) -> None:
    """A packet beyond the serializer's limit is such an error too."""
    async with serve(Echo(), limit=100) as service:
        peer = await service.connect()
        assert (await peer.ask("x" * 1000)).startswith("StreamProtocolParseError: ")


async def test_hidden_command(serve: Serve) -> None:
    """No part of a line that is too long reaches the handler, and the next line does."""

    class Handler(Echo):
        def describe(self, exc: Exception) -> str:
            return type(exc).__name__

    async with serve(Handler(), limit=100) as service:
        peer = await service.connect()
        peer.send_bytes(b"x" * 110)
        assert await peer.receive() == "StreamProtocolParseError"
        peer.send_bytes(b"SHUTDOWN now\nhello\n")
        assert await peer.receive() == "hello"


class Endless(StringLineSerializer):
    """Its parser uses up nothing, so that it would be run for ever."""

    def incremental_deserialize(self) -> Any:
        data = yield
        return "packet", data

    def buffered_incremental_deserialize(self, buffer: bytearray, /) -> Any:
        size = yield 0
        return "packet", memoryview(buffer)[:size]


@pytest.mark.parametrize("survives", [True, False])
async def test_endless_parser(protocol_class: Any, log: Records, survives: bool) -> None:
    """It is a bug of the program, said once; the server goes on, whatever the handler does."""

    class Handler(Echo):
        def describe(self, exc: Exception) -> str:
            if not survives:
                raise exc
            return f"{type(exc).__name__}: {exc}"

    protocol = protocol_class(Endless())
    async with serving(AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Handler())) as service:
        peer = await service.connect()
        peer.send("hello")
        if survives:
            source = "chunks" if protocol_class is StreamProtocol else "buffer"
            answer = await peer.receive()
            assert answer.startswith(
                f"ProtocolCrashedError: protocol.build_packet_from_{source}() returned a packet "
            )
            peer.send("more")
            peer.send_eof()
            assert await peer.rest() == ("", "EOF")
            assert log.problems() == []
        else:
            assert await peer.rest() == ("", "reset")
            [(level, _, exc)] = log.problems()
            assert level == "ERROR"
            assert isinstance(exc, ProtocolCrashedError)


async def test_size_of_chunks(serve: Serve) -> None:
    """`max_recv_size` limits what is read at once, not what a packet may be."""
    async with serve(Recorder(), max_recv_size=3) as service:
        peer = await service.connect()
        assert await peer.ask("a long request", "b") == "a long request"
        assert await peer.receive() == "b"


@pytest.mark.parametrize(("option", "expected"), [(None, 65536), (1000, 1000)])
async def test_size_hint(log: Records, option: int | None, expected: int) -> None:
    """A buffered serializer is told that size as a hint; it is 64 KiB by default."""
    hints = []

    class Protocol(BufferedStreamProtocol[str, str, bytearray]):
        def create_buffer(self, sizehint: int) -> bytearray:
            hints.append(sizehint)
            return super().create_buffer(sizehint)

    protocol = Protocol(StringLineSerializer())
    server = AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Recorder(), max_recv_size=option)
    async with serving(server) as service:
        assert await (await service.connect()).ask("hello") == "hello"
    assert set(hints) == {expected}
