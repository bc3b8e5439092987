"""What the tests of the pages about clients share: both variants of everything, their other end.

The examples of such a page are in two modules that have the same functions: one that blocks, and
one of coroutines. A test that is marked with `variants` gets each module once for each way to run
it, and calls what is in it with `call`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import os
import socket
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sniffio

from tests.conftest import BACKENDS
from tests.docs.howto_support import Peer, in_thread, until
from tests.times import PATIENCE


def variants(blocking: ModuleType, asynchronous: ModuleType) -> pytest.MarkDecorator:
    """Run a test with a page's blocking examples, in threads, and with the others on each loop."""
    params = [pytest.param(("asyncio", {}), blocking, id="blocking")]
    for param in BACKENDS:
        assert isinstance(param, type(params[0]))
        params.append(pytest.param(*param.values, asynchronous, id=param.id, marks=param.marks))
    return pytest.mark.parametrize(("anyio_backend", "examples"), params)


def is_blocking(client: Any) -> bool:
    """Return whether a client, or a class of clients, is of the blocking kind."""
    return not hasattr(client, "wait_connected")


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Await a coroutine function, or call a blocking one in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    return await anyio.to_thread.run_sync(functools.partial(function, *args, **kwargs))


async def receive(client: Any, timeout: float = PATIENCE) -> Any:
    """Call a client's ``recv_packet()`` with a limit, in the way of its kind."""
    if is_blocking(client):
        return await in_thread(lambda: client.recv_packet(timeout=timeout))
    with anyio.fail_after(timeout):
        return await client.recv_packet()


async def packets(client: Any, **kwargs: Any) -> list[Any]:
    """Return what a client's ``iter_received_packets()`` yields."""
    if is_blocking(client):
        return await in_thread(lambda: list(client.iter_received_packets(**kwargs)))
    return [packet async for packet in client.iter_received_packets(**kwargs)]


async def close(client: Any) -> None:
    await call(client.close if is_blocking(client) else client.aclose)


@contextlib.asynccontextmanager
async def open_client(client_class: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    """Make a client and connect it; close it at the end of the block."""
    if is_blocking(client_class):
        client = await in_thread(lambda: client_class(*args, **kwargs))
    else:
        client = client_class(*args, **kwargs)
        await client.wait_connected()
    with anyio.fail_after(PATIENCE):
        try:
            yield client
        finally:
            await close(client)


@contextlib.asynccontextmanager
async def pair(
    client_class: Any, protocol: Any, *, room: int | None = None
) -> AsyncIterator[tuple[Any, Peer]]:
    """Connect a TCP client to a peer; at the end of the block, close the peer, then the client.

    Args:
        client_class: The client's class.
        protocol: The protocol object.
        room: How much memory the peer's socket gets for what it has received, in bytes.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if room is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        async with open_client(client_class, listener.getsockname(), protocol) as client:
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE)
            peer = Peer(sock)
            with contextlib.closing(peer):  # first, so that nobody waits for it in vain
                yield client, peer


async def warns_when_forgotten(
    client_class: Any, protocol: Any, address: Any, drop_connection: Callable[[], object]
) -> bool:
    """Connect a client, forget it; return whether there was a ResourceWarning of it.

    Args:
        client_class: The client's class.
        protocol: The protocol object.
        address: Where to connect to.
        drop_connection: Called then, to have an event loop forget the connection, too.
    """
    messages: list[str] = []

    def is_closed() -> bool:
        gc.collect()
        messages.extend(str(warning.message) for warning in caught)
        caught.clear()  # a warning holds on to what it warns of
        try:
            os.fstat(descriptor)
        except OSError:
            return True
        return False

    with warnings.catch_warnings(record=True, action="always") as caught:
        client = client_class(address, protocol)
        if not is_blocking(client):
            await client.wait_connected()
        descriptor = client.socket.fileno()
        await anyio.wait_all_tasks_blocked()  # nobody remembers how it connected
        del client
        is_closed()
        drop_connection()
        await until(is_closed)
    return messages[0].startswith("unclosed client")


@contextlib.contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """Yield an address where nobody answers: the listening socket's backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


@contextlib.contextmanager
def deaf(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    """Yield a socket with a port at which nobody listens, unless the test lets the socket do so."""
    with socket.socket(type=kind) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def program(blocking: ModuleType, asyncio: ModuleType, trio: ModuleType, examples: Any) -> Any:
    """Return the variant of a program that goes with the examples and the framework of the test."""
    if is_blocking(examples.Client):
        return blocking
    return {"asyncio": asyncio, "trio": trio}[sniffio.current_async_library()]
