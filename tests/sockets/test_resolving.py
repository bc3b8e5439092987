from __future__ import annotations

import socket
import threading

import pytest

from easynetwork.sockets.resolving import interleave, resolve, resolve_blocking
from tests.sockets.names import IPV4, IPV6, STREAM

on_each_backend = pytest.mark.anyio


@on_each_backend
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_numeric_host(host: str) -> None:
    """A numeric host is resolved on the spot, without any thread."""
    before = set(threading.enumerate())
    ((*_, address),) = await resolve(host, 80, STREAM)
    assert address[:2] == (host, 80)
    assert set(threading.enumerate()) <= before


@on_each_backend
async def test_name() -> None:
    """A name is resolved to addresses of the given kind, each of them once."""
    infos = await resolve("localhost", 80, STREAM)
    assert {info[1] for info in infos} == {STREAM}
    assert len(infos) == len(set(infos)) > 0


@on_each_backend
async def test_no_host() -> None:
    """Without a host, one binds to all interfaces, and connects to the loopback interface."""
    passive = await resolve(None, 80, STREAM, passive=True)
    active = await resolve(None, 80, STREAM)
    assert {info[4][0] for info in passive} <= {"0.0.0.0", "::"}
    assert {info[4][0] for info in active} <= {"127.0.0.1", "::1"}


@on_each_backend
@pytest.mark.parametrize("host", ["nowhere.invalid", "", "a..b", "é..b", "x" * 64 + ".invalid"])
async def test_unknown_host(host: str) -> None:
    """The error of a name that cannot be resolved shows the name, also of what is not even one."""
    with pytest.raises(socket.gaierror) as info:
        await resolve(host, 80, STREAM)
    assert f"cannot resolve {host!r}: " in str(info.value)
    with pytest.raises(socket.gaierror) as info:
        resolve_blocking(host, 80, STREAM)
    assert f"cannot resolve {host!r}: " in str(info.value)


@on_each_backend
async def test_name_without_addresses(known_names: dict[str, list[str]]) -> None:
    """A resolver that knows the name and no address of it is no better."""
    known_names["empty.example"] = []
    with pytest.raises(OSError, match=r"^getaddrinfo\('empty.example'\) returned empty list$"):
        await resolve("empty.example", 80, STREAM)
    with pytest.raises(OSError, match=r"^getaddrinfo\('empty.example'\) returned empty list$"):
        resolve_blocking("empty.example", 80, STREAM)


def test_interleave() -> None:
    """Families take turns, IPv6 first; within a family, the resolver's order is kept."""
    v4 = [(*IPV4, (f"127.0.0.{number}", 80)) for number in range(3)]
    v6 = [(*IPV6, (f"::{number}", 80, 0, 0)) for number in range(2)]
    assert interleave([*v4, *v6]) == [v6[0], v4[0], v6[1], v4[1], v4[2]]
    assert interleave(v4) == v4
