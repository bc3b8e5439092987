"""What goes wrong with a packet is raised at the `yield` that asked for one."""

from __future__ import annotations

from typing import Any

import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import (
    DeserializeError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from tests.conformance.support import Echo, Recorder, Records, Serve, serving

pytestmark = pytest.mark.anyio


class Trap(AbstractPacketConverterComposite[str, str, str, str]):
    """A converter with a bug, which a certain packet finds."""

    def create_from_dto_packet(self, packet: str) -> str:
        return packet if packet != "trap" else str(1 / 0)

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


async def test_parse_error(serve: Serve) -> None:
    """Data that is no packet is an error at its place in the stream; the next yield goes on."""

    class Handler(Echo):
        def describe(self, exc: Exception) -> str:
            assert isinstance(exc, StreamProtocolParseError)
            assert isinstance(exc.error, DeserializeError)
            assert isinstance(exc.error.__cause__, UnicodeDecodeError)
            return "bad"

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send_bytes(b"one\n\xff\ntwo\n\xff\n\xff\nthree\nfo")
        answers = [await peer.receive() for _ in range(6)]
        assert answers == ["one", "bad", "two", "bad", "bad", "three"]
        peer.send_bytes(b"ur\n")
        assert await peer.receive() == "four"


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


async def test_protocol_crash(serve: Serve, protocol_class: Any) -> None:
    """A bug of the protocol object has a type and a cause, and can be survived."""

    class Handler(Echo):
        def describe(self, exc: Exception) -> str:
            return f"{super().describe(exc)}, {type(exc.__cause__).__name__}"

    source = "chunks" if protocol_class is StreamProtocol else "buffer"
    async with serve(Handler(), Trap()) as service:
        peer = await service.connect()
        assert await peer.ask("trap", "one") == (
            f"ProtocolCrashedError: protocol.build_packet_from_{source}() crashed, "
            "ZeroDivisionError"
        )
        assert await peer.receive() == "one"


async def test_protocol_crash_let_out(serve: Serve, log: Records) -> None:
    """If the handler lets it out, that is a crash: it is a bug of the program."""
    async with serve(Recorder(), Trap()) as service:
        peer = await service.connect()
        peer.send("trap")
        assert await peer.rest() == ("", "reset")
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert isinstance(exc, RuntimeError)
        assert isinstance(exc.__cause__, ZeroDivisionError)


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
