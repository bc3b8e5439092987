"""The fixtures that multiply the conformance tests: loops x protocols x transports.

`serve` runs a server for a handler, `new_server` makes one. With them a test runs on every event
loop of ``anyio_backend`` and with both stream protocols, and then over TLS, over a Unix stream and
in memory, there in virtual time; `differences` lists what does not.
Where addresses matter, `each_family` on top of that runs it for IPv4 and IPv6. Whatever is logged
as a warning or an error and is not what the test asks for with ``log.problems()`` fails it.

The transports know nothing of protocols, and little of loops: TLS, IPv6, Unix sockets and memory
are tried with one class of protocols, on plain asyncio and on trio, unless ``CONFORMANCE`` is
``all`` in the environment.
TLS is version 1.3 on asyncio, and version 1.2 on trio.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import re
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from easynetwork._tuning import LINGER_TIME, STOP_TIMEOUT
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers._stream.session import _CLOSE_TIMEOUT_AT_STOP
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.testing import virtual_time
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.servers import MemoryTCPServer
from tests.conformance.differences import (
    DIFFERENCES,
    REAL_TIME,
    REPETITIONS,
    VIRTUAL_TIME,
    keys_of,
)
from tests.conformance.peers import Peer
from tests.conformance.support import NewServer, Records, Serve, Server, serving
from tests.tls_peers import client_context, server_context
from tests.trio_readiness import watch_all

FOLDER = Path(__file__).parent
# In the identifiers of tests: what only runs on the other loops, and with the first protocol class.
OTHER_TRANSPORT = re.compile(r"\b(tls|ipv6|unix|memory)\b")
WITHOUT_FAMILY = re.compile(r"\b(unix|memory)\b.*\bipv6\b|\bipv6\b.*\b(unix|memory)\b")
IN_MEMORY = re.compile(r"\[.*\bmemory\b")
IN_REAL_MEMORY = re.compile(r"\[(asyncio-eager|uvloop)\b.*\bmemory\b")
NOT_OVER_TCP = re.compile(r"\[.*\b(tls|unix|memory)\b")
OTHER_LOOP = re.compile(r"\b(asyncio-eager|uvloop)\b")
OTHER_PROTOCOL = re.compile(r"\bbuffer\b")


def is_repetition(item: pytest.Item) -> bool:
    """Whether a test differs from others in nothing that matters, see above."""
    _, _, parameters = item.name.partition("[")
    return is_here(item.path) and bool(
        is_listed(item, NOT_OVER_TCP, REPETITIONS)
        or (
            OTHER_TRANSPORT.search(parameters)
            and (OTHER_LOOP.search(parameters) or OTHER_PROTOCOL.search(parameters))
        )
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave repetitions out, unless all tests are asked for."""
    if os.environ.get("CONFORMANCE") != "all":
        items[:] = [item for item in items if not is_repetition(item)]
    # Neither a Unix socket nor one in memory has an address family that could be another one.
    items[:] = [item for item in items if not WITHOUT_FAMILY.search(item.name)]
    items[:] = [item for item in items if not is_listed(item, IN_MEMORY, DIFFERENCES)]
    items[:] = [item for item in items if not is_listed(item, IN_REAL_MEMORY, VIRTUAL_TIME)]
    for item in items:
        if is_listed(item, IN_MEMORY) and not is_listed(item, IN_MEMORY, REAL_TIME):
            run_in_virtual_time(item)


def run_in_virtual_time(item: Any) -> None:
    """Have nobody wait for the time limits of a test, on the two loops whose clock can jump."""
    for name in "asyncio", "trio":
        if item.callspec.params["anyio_backend"] == (name, {}):
            item.callspec.params["anyio_backend"] = name, virtual_time(name)


@functools.cache
def is_here(path: Path) -> bool:
    """Whether a file is in this folder: asked of all tests of a run, and paths are slow."""
    return FOLDER in path.parents


def is_listed(
    item: pytest.Item, transports: re.Pattern[str], table: dict[str, str] | None = None
) -> bool:
    """Whether a test would run over one of some transports, and is in a table, if there is one."""
    if not transports.search(item.name) or not is_here(item.path):
        return False
    path = item.path.relative_to(FOLDER).as_posix()
    return table is None or not table.keys().isdisjoint(keys_of(path, item.name))


@pytest.fixture(autouse=True)
def watched_on_trio(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every other version of Python, have trio watch the connections as if they were many."""
    if "trio" in request.node.nodeid and sys.version_info.minor % 2 == 0:
        watch_all(monkeypatch)


@pytest.fixture(params=[StreamProtocol, BufferedStreamProtocol], ids=["chunks", "buffer"])
def protocol_class(request: pytest.FixtureRequest) -> Any:
    """Return the class of the protocol object that the server speaks."""
    return request.param


@pytest.fixture
def tls_version(anyio_backend_name: str) -> ssl.TLSVersion:
    """Return the version that peers and servers speak: each of the loops tries another one."""
    return ssl.TLSVersion.TLSv1_2 if anyio_backend_name == "trio" else ssl.TLSVersion.TLSv1_3


@pytest.fixture(params=["tcp", "tls", "unix", "memory"])
def transport(request: pytest.FixtureRequest) -> str:
    """Return what packets travel over: TCP, TLS over TCP, a Unix stream, or memory."""
    return str(request.param)


@pytest.fixture
def tls(
    transport: str, tls_version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext | None:
    """Return what the server does TLS with, if it does; peers do it too."""
    if transport != "tls":
        return None
    monkeypatch.setattr(Peer, "tls", client_context(tls_version))
    return server_context(tls_version)


@pytest.fixture
def host() -> str:
    """Return the address that the server listens on."""
    return "127.0.0.1"


@pytest.fixture
def log() -> Iterator[Records]:
    """Return what is logged while the test runs; no warning may be left that it did not expect."""
    records = Records()
    library = logging.getLogger("easynetwork")
    level = library.level
    library.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(records)
    yield records
    logging.getLogger().removeHandler(records)
    library.setLevel(level)
    assert records.problems() == []


@pytest.fixture
def memory() -> MemoryNetwork:
    """Return a network in memory, without faults."""
    return MemoryNetwork()


@pytest.fixture
def new_server(
    protocol_class: Any,
    transport: str,
    tls: ssl.SSLContext | None,
    host: str,
    log: Records,
    memory: MemoryNetwork,
    request: pytest.FixtureRequest,
) -> NewServer:
    """Return a function that makes a server for a handler; it listens nowhere yet."""
    unix_path = request.getfixturevalue("unix_path") if transport == "unix" else ""

    def make(
        handler: AsyncStreamRequestHandler[str, str],
        converter: AbstractPacketConverterComposite[str, str, str, str] | None = None,
        limit: int = 1 << 20,
        **options: Any,
    ) -> Server:
        protocol = protocol_class(StringLineSerializer(limit=limit), converter)
        if transport == "unix" and "host" not in options:
            unix_server: Any = AsyncUnixStreamServer(unix_path, protocol, handler, **options)
            return unix_server  # type: ignore[no-any-return]
        if transport == "memory":
            return MemoryTCPServer(memory, protocol, handler, **options)
        where = options.pop("host", host)
        options.setdefault("ssl", tls)
        return AsyncTCPNetworkServer(where, 0, protocol, handler, **options)

    return make


@pytest.fixture
def serve(new_server: NewServer) -> Serve:
    """Return a function that serves a handler while a block runs."""
    return lambda *args, **options: serving(new_server(*args, **options))


@pytest.fixture
def stop_timeout(monkeypatch: pytest.MonkeyPatch) -> float:
    """Give what does not stop a fifth of the time that it has to, and return that in seconds."""
    seconds = STOP_TIMEOUT / 5
    for module in (
        *("backends.asyncio.tasks", "servers._core.life_cycle"),
        *("servers._core.run", "servers._core.threads"),
    ):
        monkeypatch.setattr(f"easynetwork.{module}.STOP_TIMEOUT", seconds)
    return seconds


@pytest.fixture
def linger_time(monkeypatch: pytest.MonkeyPatch) -> float:
    """Have closed connections linger for a fifth of the time, and return that in seconds."""
    seconds = LINGER_TIME / 5
    monkeypatch.setattr("easynetwork.backends.stream_transport.LINGER_TIME", seconds)
    return seconds


@pytest.fixture
def close_timeout_at_stop(monkeypatch: pytest.MonkeyPatch) -> float:
    """Have a server that stops wait for its peers for a fifth of the time, and return that."""
    seconds = _CLOSE_TIMEOUT_AT_STOP / 5
    monkeypatch.setattr("easynetwork.servers._stream.session._CLOSE_TIMEOUT_AT_STOP", seconds)
    return seconds


@pytest.fixture
def unlimited_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server report as many problems in a second as there are."""
    monkeypatch.setattr("easynetwork.servers._core.fault_log._LINES_PER_SECOND", 1_000)


@pytest.fixture
def silent_loops() -> Iterator[None]:
    """Leave out what asyncio and trio log of generators that they find unclosed."""
    loggers = [logging.getLogger(name) for name in ("asyncio", "trio")]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
    with contextlib.suppress(BaseException):
        gc.collect()
