"""The asyncio backend."""

from __future__ import annotations

__all__ = ["AsyncIOBackend"]

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, TypeVar, TypeVarTuple

from easynetwork.backends.abc import AsyncBackend, SessionObserver, SessionTasks, StreamTransport
from easynetwork.backends.asyncio.datagram import AsyncIODatagramEndpoint
from easynetwork.backends.asyncio.stream import AsyncIOStreamTransport
from easynetwork.backends.asyncio.tasks import AsyncIOSessionTasks
from easynetwork.backends.datagram import DatagramEndpoint

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class AsyncIOBackend(AsyncBackend):
    """asyncio, with any event loop that implements its interface (uvloop, for example)."""

    __slots__ = ()

    name: ClassVar[str] = "asyncio"

    def bootstrap(
        self,
        coro_func: Callable[[*_Ts], Coroutine[Any, Any, _T]],
        *args: *_Ts,
        runner_options: Mapping[str, Any] | None = None,
    ) -> _T:
        with asyncio.Runner(**(runner_options or {})) as runner:
            return runner.run(coro_func(*args))

    async def wrap_stream_socket(
        self, sock: socket.socket, feed: Callable[[bytes], bool], max_recv_size: int
    ) -> StreamTransport:
        return AsyncIOStreamTransport(sock, feed, max_recv_size)

    async def wrap_datagram_socket(self, sock: socket.socket) -> DatagramEndpoint:
        return AsyncIODatagramEndpoint(sock)

    def create_session_tasks(self, observer: SessionObserver) -> SessionTasks:
        return AsyncIOSessionTasks(observer)
