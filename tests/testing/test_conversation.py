"""Handlers that are driven packet by packet, and what is said when one does something else."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.testing import Conversation, MemoryNetwork, converse

pytestmark = pytest.mark.anyio

LINES: Any = StreamProtocol(StringLineSerializer())
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


class Shouter(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Sends back each packet in capital letters, as far as it is not told to do otherwise."""

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        request = yield
        match request:
            case "crash":
                raise ValueError("a bug")
            case "bye":
                await client.aclose()
            case "hush":
                pass
            case _:
                await client.send_packet(request.upper())


async def test_conversation() -> None:
    """What is sent and what is expected, until the end."""
    async with converse(Shouter(), LINES) as conversation:
        await conversation.send("one", "two")
        await conversation.expect("ONE", "TWO")
        await conversation.send("three")
        assert await conversation.receive() == "THREE"
        await conversation.send("hush")
        await conversation.expect_nothing(timeout=0.01)
        await conversation.send("bye")
        await conversation.expect_end(reason="closed")


@pytest.mark.parametrize("protocol", [LINES, DATAGRAMS], ids=["stream", "datagrams"])
async def test_no_time(protocol: Any) -> None:
    """With a timeout of 0, what has arrived is found, and nothing else is waited for."""
    async with converse(Shouter(), protocol) as conversation:
        await conversation.expect_nothing(timeout=0)
        await conversation.send("one", "two")
        await anyio.wait_all_tasks_blocked()
        await conversation.expect("ONE", timeout=0)
        with pytest.raises(AssertionError, match="expected nothing, but got 'TWO'"):
            await conversation.expect_nothing(timeout=0)


async def test_datagrams() -> None:
    async with converse(Shouter(), DATAGRAMS) as conversation:
        await conversation.send("one")
        await conversation.expect("ONE")


async def test_expected_crash() -> None:
    """A crash that resets the connection can be what is expected."""
    async with converse(Shouter(), LINES) as conversation:
        await conversation.send("crash")
        await conversation.expect_end(reason="reset")


async def test_half_close() -> None:
    """What was sent before the end of the stream is answered, and the message mentions the end."""
    with pytest.raises(AssertionError, match="\n    sent      the end of the stream\n    rec"):
        async with converse(Shouter(), LINES) as conversation:
            await conversation.send("one")
            await conversation.send_eof()
            await conversation.expect("ONE")
            await conversation.expect("TWO")


async def wrong_packet(conversation: Conversation[str, str]) -> None:
    await conversation.send("one")
    await conversation.expect("TWO")


async def nothing_comes(conversation: Conversation[str, str]) -> None:
    await conversation.send("hush")
    await conversation.expect("HUSH", timeout=0.01)


async def something_comes(conversation: Conversation[str, str]) -> None:
    await conversation.send("one")
    await conversation.expect_nothing()


async def end_instead_of_packet(conversation: Conversation[str, str]) -> None:
    await conversation.send("bye")
    await conversation.receive()


async def end_instead_of_nothing(conversation: Conversation[str, str]) -> None:
    await conversation.send("bye")
    await conversation.expect_nothing()


async def packet_instead_of_end(conversation: Conversation[str, str]) -> None:
    await conversation.send("one")
    await conversation.expect_end()


async def no_end(conversation: Conversation[str, str]) -> None:
    await conversation.expect_end(timeout=0.01)


async def other_end(conversation: Conversation[str, str]) -> None:
    await conversation.send("crash")
    await conversation.expect_end(reason="closed")


async def unexpected_crash(conversation: Conversation[str, str]) -> None:
    await conversation.send("crash")
    await anyio.wait_all_tasks_blocked()


async def sends_too_late(conversation: Conversation[str, str]) -> None:
    await conversation.send("bye")
    await anyio.wait_all_tasks_blocked()
    await conversation.send("one", "two")


CRASH = r"    ERROR Exception occurred .*: ValueError\('a bug'\)"


@pytest.mark.parametrize(
    ("talk", "lines"),
    [
        (wrong_packet, ["expected 'TWO', but got 'ONE'", "    sent      'one'"]),
        (nothing_comes, ["expected 'HUSH', but nothing came within 0.01 seconds"]),
        (something_comes, ["expected nothing, but got 'ONE'", "    received  'ONE'"]),
        (end_instead_of_packet, ["expected a packet, but the server has closed the connection"]),
        (end_instead_of_nothing, ["expected nothing, but the server has closed the connection"]),
        (packet_instead_of_end, ["expected the end of the connection, but got 'ONE'"]),
        (no_end, ["expected the end of the connection, but nothing came within 0.01 seconds"]),
        (other_end, ["expected the server to close the connection, but it has reset it", CRASH]),
        (unexpected_crash, ["the server has logged an error", CRASH]),
        (sends_too_late, ["could not send '(one|two)': .*", "    sent      'bye'"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_message(talk: Any, lines: list[str]) -> None:
    """The message says what was expected, what came, what was said before, and by what network."""
    network = MemoryNetwork(seed=7, chunks=2)
    with pytest.raises(AssertionError) as caught:
        async with converse(Shouter(), LINES, network=network) as conversation:
            await talk(conversation)
    message = str(caught.value).splitlines()
    assert re.fullmatch(lines[0], message[0])
    assert all(any(re.fullmatch(line, found) for found in message) for line in lines)
    assert message[-1] == "The network: MemoryNetwork(seed=7, chunks=2)"
    assert not hasattr(caught.value, "__notes__")  # which would say it again
    has_crashed = "crash" in str(message)
    assert isinstance(caught.value.__cause__, ValueError if has_crashed else type(None))


@pytest.mark.parametrize("turn_off", [logging.disable, logging.getLogger("easynetwork").setLevel])
async def test_crash_is_not_logged(turn_off: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A crash is noticed, and not shown, where the program has turned its log off."""
    turn_off(logging.CRITICAL)
    try:
        with pytest.raises(AssertionError, match="the server has logged an error"):
            async with converse(Shouter(), LINES) as conversation:
                await unexpected_crash(conversation)
    finally:
        turn_off(logging.NOTSET)
    assert not caplog.records


async def test_no_packet() -> None:
    """What the server sends may be no packet at all for the client."""

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            await client.send_packet((yield))

    protocol: Any = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    with pytest.raises(
        AssertionError, match="expected 'x', but got something that is not a packet"
    ):
        async with converse(Handler(), protocol) as conversation:
            client: Any = conversation.client
            client._decoder.feed(b"\xff\n")
            await conversation.expect("x")


async def test_long_conversation() -> None:
    """Only the last lines are shown, and only the beginning of a long packet."""
    with pytest.raises(AssertionError) as caught:
        async with converse(Shouter(), LINES) as conversation:
            for _ in range(15):
                await conversation.send("x")
                await conversation.expect("X")
            await conversation.send("y" * 1000)
            await conversation.expect("z")
    message = str(caught.value)
    assert "(12 lines before)" in message
    assert f"but got '{'Y' * 199}… (1002 characters)" in message


async def test_odd_packets() -> None:
    """A packet whose repr() fails is shown all the same."""

    class Odd(str):
        __slots__ = ()

        def __repr__(self) -> str:
            raise LookupError

    with pytest.raises(AssertionError, match="expected <Odd whose repr.. raises LookupError>"):
        async with converse(Shouter(), LINES) as conversation:
            await conversation.send(Odd("one"))
            await conversation.expect(Odd("two"))


async def test_what_a_conversation_cannot_do() -> None:
    """TLS, and the end of what has none."""
    with pytest.raises(TypeError, match="without TLS"):
        async with converse(Shouter(), LINES, ssl=object()):
            pass
    async with converse(Shouter(), DATAGRAMS) as conversation:
        with pytest.raises(TypeError, match="no connection"):
            await conversation.expect_end()
