"""What the base classes of clients do themselves."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import anyio
import pytest

from easynetwork.backends import AsyncBackend, ensure_backend
from easynetwork.clients import _iterators
from easynetwork.clients.abc import AbstractAsyncNetworkClient, AbstractNetworkClient
from easynetwork.exceptions import (
    ClientClosedError,
    IncrementalDeserializeError,
    StreamProtocolParseError,
)


class Script:
    """A clock, and what happens one after the other: seconds that pass, a packet, an error."""

    def __init__(self, *events: object) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self._events = iter(events)

    def next_packet(self, left: float) -> Any:
        """Return or raise what comes next."""
        self.waits.append(left)
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            if isinstance(event, str):
                return event
            assert isinstance(event, float)
            self.now += event
        raise TimeoutError


class Client(AbstractNetworkClient[Any, Any]):
    """Receives what a script says."""

    __slots__ = ("_is_closed", "script")

    def __init__(self, script: Script) -> None:
        self.script = script
        self._is_closed = False

    def recv_packet(self, *, timeout: float | None = None) -> Any:
        assert timeout is not None
        return self.script.next_packet(timeout)

    def send_packet(self, packet: Any, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True

    def fileno(self) -> int:
        return -1


class AsyncClient(AbstractAsyncNetworkClient[Any, Any]):
    """Receives what a script says."""

    __slots__ = ("_state", "script")

    def __init__(self, script: Script) -> None:
        self.script = script
        self._state = "new"

    async def _receive(self, deadline: float) -> Any:
        return self.script.next_packet(deadline - self.script.now)

    async def recv_packet(self) -> Any:
        return await self._receive(math.inf)

    async def send_packet(self, packet: Any) -> None:
        raise NotImplementedError

    def is_connected(self) -> bool:
        return self._state != "new"

    async def wait_connected(self) -> None:
        self._state = "connected"

    def is_closing(self) -> bool:
        return self._state == "closed"

    async def aclose(self) -> None:
        self._state = "closed"

    def backend(self) -> AsyncBackend:
        return ensure_backend("asyncio")


# What came out of an iterator, packets and errors, until it said twice that it was over.
Receive: TypeAlias = Callable[..., list[Any]]


def receive_sync(script: Script, *, between: float = 0.0, **options: Any) -> list[Any]:
    iterator = Client(script).iter_received_packets(**options)
    outcomes: list[Any] = []
    while True:
        try:
            outcomes.append(next(iterator))
        except StopIteration:
            assert next(iterator, "over") == "over"
            return outcomes
        except Exception as exc:
            outcomes.append(exc)
        script.now += between


def receive_async(script: Script, *, between: float = 0.0, **options: Any) -> list[Any]:
    async def receive() -> list[Any]:
        iterator = AsyncClient(script).iter_received_packets(**options)
        outcomes: list[Any] = []
        while True:
            try:
                outcomes.append(await anext(iterator))
            except StopAsyncIteration:
                assert await anext(iterator, "over") == "over"
                return outcomes
            except Exception as exc:
                outcomes.append(exc)
            script.now += between

    return anyio.run(receive)


@pytest.fixture(params=[receive_sync, receive_async])
def receive(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Receive:
    """Return what receives from a script, in the script's time."""
    function: Receive = request.param

    def receive(script: Script, **options: Any) -> list[Any]:
        monkeypatch.setattr(_iterators, "time", SimpleNamespace(monotonic=lambda: script.now))
        monkeypatch.setattr(_iterators, "anyio", SimpleNamespace(current_time=lambda: script.now))
        return function(script, **options)

    return receive


def test_by_default_nothing_is_waited_for(receive: Receive) -> None:
    """Without a time-out, the iterator takes what has already been received."""
    script = Script("a", "b")
    assert receive(script) == ["a", "b"]
    assert script.waits == [0, 0, 0]


def test_time_is_shared(receive: Receive) -> None:
    """The seconds that one packet took are not there for the next."""
    script = Script(1.0, "a", 0.5, "b", "c")
    assert receive(script, timeout=3) == ["a", "b", "c"]
    assert script.waits == [3, 2, 1.5, 1.5]


def test_time_between_packets_does_not_count(receive: Receive) -> None:
    """What the caller does with a packet costs none of the time."""
    script = Script(1.0, "a", "b")
    assert receive(script, timeout=3, between=50.0) == ["a", "b"]
    assert script.waits == [3, 2, 2]


def test_when_time_is_up_what_is_there_is_taken(receive: Receive) -> None:
    """A packet that took all the time leaves those that arrived with it."""
    script = Script(5.0, "a", "b")
    assert receive(script, timeout=3) == ["a", "b"]
    assert script.waits == [3, 0, 0]


def test_no_limit(receive: Receive) -> None:
    """None waits for ever, and so for each packet."""
    script = Script(1000.0, "a", 1000.0, "b", ConnectionAbortedError())
    assert receive(script, timeout=None) == ["a", "b"]
    assert script.waits == [math.inf] * 3


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionAbortedError(), ClientClosedError(), OSError(5, "I/O")]
)
def test_any_os_error_is_the_end(receive: Receive, error: OSError) -> None:
    """Time over, connection over, client closed, whatever: the loop ends, for good."""
    script = Script("a", error, "b")
    assert receive(script, timeout=3) == ["a"]


@pytest.mark.parametrize(
    "error",
    [
        StreamProtocolParseError(b"", IncrementalDeserializeError("bad", b"")),
        RuntimeError("protocol.build_packet_from_chunks() crashed"),
    ],
)
def test_other_errors_are_raised(receive: Receive, error: Exception) -> None:
    """What is wrong with a packet is raised, and the iterator goes on behind it."""
    script = Script("a", 1.0, error, "b")
    assert receive(script, timeout=3) == ["a", error, "b"]
    assert script.waits == [3, 3, 2, 2]


def test_time_starts_with_the_first_packet() -> None:
    """Nothing happens until the iterator is asked."""
    script = Script("a")
    packets = Client(script).iter_received_packets(timeout=3)
    script.now += 1000
    assert script.waits == []
    assert next(packets) == "a"
    assert script.waits == [3]


def test_negative_time() -> None:
    """A negative time-out is an error for blocking clients, no time for asynchronous ones."""
    with pytest.raises(ValueError, match=r"^Invalid delay: negative value$"):
        Client(Script("a")).iter_received_packets(timeout=-1)
    assert receive_async(Script("a"), timeout=-1) == []
    assert receive_async(Script("a"), timeout=-math.inf) == []


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_not_a_number(cls: type[Client | AsyncClient]) -> None:
    """A time-out that is not a number is an error for both, at once."""
    with pytest.raises(ValueError, match=r"^Invalid delay: NaN \(not a number\)$"):
        cls(Script()).iter_received_packets(timeout=math.nan)


def test_with_closes() -> None:
    """`with` gives the client and closes it."""
    with Client(Script()) as client:
        assert not client.is_closed()
    assert client.is_closed()


def test_async_with_connects_and_closes() -> None:
    """`async with` connects, gives the client and closes it."""

    async def use() -> None:
        async with AsyncClient(Script()) as client:
            assert (client.is_connected(), client.is_closing()) == (True, False)
        assert client.is_closing()

    anyio.run(use)


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_slots(cls: type[Client | AsyncClient]) -> None:
    """A subclass with slots has no `__dict__`, and can be weakly referenced."""
    client = cls(Script())
    assert not hasattr(client, "__dict__")
    assert weakref.ref(client)() is client
