"""`DatagramLimits`: checked at construction, by itself and by the servers that take it."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer, DatagramLimits, StandaloneUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler
from easynetwork.servers.limits import Limits
from easynetwork.servers.standalone_unix_datagram import StandaloneUnixDatagramServer
from tests.servers.standalone_support import UDP, each_loop, loop_options, serving

FIELDS = [field.name for field in dataclasses.fields(DatagramLimits)]


class Echo(AsyncDatagramRequestHandler[str, str]):
    """Echoes, and waits for more."""

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        while True:
            await client.send_packet((yield))


def test_defaults() -> None:
    """They are those of the documentation; single ones can be replaced."""
    limits = DatagramLimits()
    assert dataclasses.astuple(limits) == (1000, None, 64, 256 * 1024)
    assert dataclasses.replace(limits, max_waiting=5) == DatagramLimits(max_waiting=5)
    assert not hasattr(limits, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.max_peers = 5  # type: ignore[misc] # that is the point
    with pytest.raises(TypeError):
        DatagramLimits(5)  # type: ignore[call-arg] # that is the point


@pytest.mark.parametrize("name", FIELDS)
def test_values(name: str) -> None:
    """Each is a strictly positive integer; one of them may be None."""
    limits: Callable[..., DatagramLimits] = DatagramLimits
    assert getattr(limits(**{name: 1}), name) == 1
    for wrong in 0, -1:
        with pytest.raises(ValueError, match=f"^{name} must be strictly positive, got {wrong}$"):
            limits(**{name: wrong})
    wrong_types: list[object] = [1.5, "5", True, float("inf"), "auto"]
    for value in wrong_types if name == "max_peers_per_host" else [*wrong_types, None]:
        with pytest.raises(TypeError, match=f"^{name} must be an integer"):
            limits(**{name: value})


def servers(**options: Any) -> list[Callable[[], Any]]:
    """Return what makes a server of each class, with certain options."""
    protocol: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())
    arguments: Any = protocol, Echo(), "asyncio"
    unix = StandaloneUnixDatagramServer  # it makes an asynchronous one, to check the arguments
    return [
        lambda: AsyncUDPNetworkServer("127.0.0.1", 0, *arguments, **options),
        lambda: StandaloneUDPNetworkServer("127.0.0.1", 0, *arguments, **options),
        lambda: unix("/tmp/never-bound", *arguments, **options),
    ]


@pytest.mark.parametrize("wrong", [5, "none", DatagramLimits, Limits(), {"max_peers": 5}])
def test_servers(wrong: object) -> None:
    """A server takes these limits, and no others."""
    for new_server in servers(limits=wrong):
        with pytest.raises(TypeError, match=r"^Expected a DatagramLimits object, got "):
            new_server()
    for limits in None, DatagramLimits(max_peers=5):
        for new_server in servers(limits=limits):
            new_server()


def test_adopted_socket() -> None:
    """`from_sockets()` takes them, too."""
    protocol: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        arguments: Any = [sock], protocol, Echo(), "asyncio"
        with pytest.raises(TypeError, match=r"^Expected a DatagramLimits object, got 5$"):
            AsyncUDPNetworkServer.from_sockets(*arguments, limits=5)


@each_loop
def test_standalone(loop: str) -> None:
    """A standalone server has them, and its statistics count what they do."""
    options: Any = {"limits": DatagramLimits(max_peers=2), **loop_options(loop)}
    protocol: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())
    server = StandaloneUDPNetworkServer("127.0.0.1", 0, protocol, Echo(), **options)
    with server, serving(server), contextlib.ExitStack() as stack:
        for number in range(4):
            peer = stack.enter_context(UDP.connected(server))
            peer.send(str(number))
            assert peer.receive() == str(number)  # after that, its handler waits at once
        statistics = server.get_statistics()
        assert (statistics.peers, statistics.evicted) == (2, 2)
