"""Bugs that were made on purpose: the tools find each of them, and say enough to repair it.

Each test runs a program with a bug, and then the repaired program. Finding a bug takes less than a
second, though some of the timeouts are minutes.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import Any

import anyio
import pytest

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import IncrementalDeserializeError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.testing import MemoryNetwork, converse, serve, virtual_time
from tests.conftest import HAS_TRIO

LINES: Any = StreamProtocol(StringLineSerializer())

Client = AsyncTCPNetworkClient[str, str]

each_backend = pytest.mark.parametrize(
    "backend",
    [
        "asyncio",
        pytest.param("trio", marks=pytest.mark.skipif(not HAS_TRIO, reason="not installed")),
    ],
)


def run(backend: str, main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a test in virtual time, without the fixtures: their time limit would be virtual."""
    return anyio.run(main, *args, backend=backend, backend_options=virtual_time(backend))


@contextlib.contextmanager
def found(error: type[Exception]) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Check that the block raises an error, in less than a second."""
    start = time.perf_counter()
    with pytest.raises(error) as caught:
        yield caught
    assert time.perf_counter() - start < 1


# -- a client that forgets to half-close


class Counter(AsyncStreamRequestHandler[str, str]):
    """Counts the packets of a stream, and sends their number when it ends."""

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        count = 0
        try:
            while True:
                yield
                count += 1
        finally:
            await client.send_packet(f"{count}")


async def count_and_wait(client: Client) -> int:
    await client.send_packet("one")
    await client.send_packet("two")
    return int(await client.recv_packet())


async def count_with_timeout(client: Client) -> int:
    with client.backend().timeout(300.0):
        return await count_and_wait(client)


async def count(client: Client) -> int:
    await client.send_packet("one")
    await client.send_packet("two")
    await client.send_eof()
    return int(await client.recv_packet())


async def counted(count: Callable[[Client], Awaitable[int]]) -> None:
    async with serve(Counter(), LINES) as served:
        assert await count(await served.connect()) == 2


@each_backend
def test_forgotten_half_close(backend: str) -> None:
    """If there is no timeout at all, the error names both ends, and the line of the client."""
    with found(RuntimeError) as caught:
        run(backend, counted, count_and_wait)
    line = count_and_wait.__code__.co_firstlineno + 3
    message = str(caught.value)
    assert message.startswith("Nothing can happen any more: every task waits")
    assert f", in count_and_wait ({__file__}:{line})" in message
    assert "\n  client ('198.51.100.1', " in message  # the server's task: it waits for the client
    run(backend, counted, count)


@each_backend
def test_forgotten_half_close_with_timeout(backend: str) -> None:
    """If the client has a timeout of minutes, this ends the test, and the traceback names it."""
    with found(TimeoutError) as caught:
        run(backend, counted, count_with_timeout)
    assert "count_with_timeout" in [entry.name for entry in caught.traceback]
    run(backend, counted, count)


@each_backend
def test_handler_that_waits_for_the_end(backend: str) -> None:
    """A conversation shows what was sent before, which is not the end of the stream."""

    async def talk(ends: bool) -> None:
        async with converse(Counter(), LINES) as conversation:
            await conversation.send("one", "two")
            if ends:
                await conversation.send_eof()
            await conversation.expect("2")

    with found(AssertionError) as caught:
        run(backend, talk, False)
    assert str(caught.value).splitlines() == [
        "expected '2', but nothing came within 1.0 seconds",
        "The conversation:",
        "    sent      'one'",
        "    sent      'two'",
        "The network: MemoryNetwork(seed=0)",
    ]
    run(backend, talk, True)


# -- a serializer that loses the second part of a packet


class Lossy(AbstractIncrementalPacketSerializer[str, str]):
    """Takes each chunk for a whole line, as it is as long as packets are short."""

    def incremental_serialize(self, packet: str) -> Generator[bytes]:
        yield f"{packet}\n".encode()

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[str, bytes]]:
        line, _, rest = (yield).partition(b"\n")
        return self._decoded(line, rest), rest

    def _decoded(self, line: bytes, rest: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as exc:
            raise IncrementalDeserializeError(str(exc), rest) from exc


class Repaired(Lossy):
    """Waits for the end of the line."""

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[str, bytes]]:
        data = b""
        while b"\n" not in data:
            data += yield
        line, _, rest = data.partition(b"\n")
        return self._decoded(line, rest), rest


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        await client.send_packet(f"you said {(yield)}")


@each_backend
@pytest.mark.parametrize("chunks", [1, range(1, 6)])
def test_lost_second_half(backend: str, chunks: Any) -> None:
    """It is not found on a network that cuts nothing, but on one that does."""

    async def talk(serializer: Lossy, network: MemoryNetwork) -> None:
        protocol: Any = StreamProtocol(serializer)
        async with converse(Echo(), protocol, network=network) as conversation:
            await conversation.send("hello")
            await conversation.expect("you said hello")

    run(backend, talk, Lossy(), MemoryNetwork())
    for seed in range(10):
        with found(AssertionError) as caught:
            run(backend, talk, Lossy(), MemoryNetwork(seed=seed, chunks=chunks))
        first, *_, last = str(caught.value).splitlines()
        assert first.startswith("expected 'you said hello', but got 'y")
        assert last == f"The network: MemoryNetwork(seed={seed}, chunks={chunks})"
        run(backend, talk, Repaired(), MemoryNetwork(seed=seed, chunks=chunks))


# -- a client that takes the response to an earlier request for the one to its own

PATIENCE = 12.0
NAMES = [f"name {number}" for number in range(20)]


async def lookup(client: Client, name: str) -> str:
    await client.send_packet(name)
    with client.backend().timeout(PATIENCE):
        return await client.recv_packet()


async def matching_lookup(client: Client, name: str) -> str:
    await client.send_packet(name)
    with client.backend().timeout(PATIENCE):
        while not (response := await client.recv_packet()).endswith(name):
            pass
        return response


async def look_up_all(
    lookup: Callable[[Client, str], Awaitable[str]], network: MemoryNetwork
) -> None:
    """Check that each call returns its own response, if it returns one."""
    async with serve(Echo(), LINES, network=network) as served:
        client = await served.connect()
        for name in NAMES:
            with contextlib.suppress(TimeoutError):
                assert await lookup(client, name) == f"you said {name}"


@each_backend
def test_response_to_an_earlier_request(backend: str) -> None:
    """It is found with a latency, which makes some calls time out.

    The message shows both requests, and the note how to see it again.
    """
    run(backend, look_up_all, lookup, MemoryNetwork())
    slow = MemoryNetwork(seed=1, latency=(0.0, 10.0))
    with found(AssertionError) as caught:
        run(backend, look_up_all, lookup, slow)
    given, expected = re.findall(r"'you said name (\d+)'", str(caught.value))[:2]
    assert int(given) == int(expected) - 1
    assert caught.value.__notes__ == ["The network: MemoryNetwork(seed=1, latency=(0.0, 10.0))"]
    for seed in range(10):
        network = MemoryNetwork(seed=seed, latency=(0.0, 10.0))
        run(backend, look_up_all, matching_lookup, network)
