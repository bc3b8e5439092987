"""The asyncio backend."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar

from easynetwork._typevars import _T, _Ts
from easynetwork.backends.abc import (
    AsyncBackend,
    DatagramEndpoint,
    SessionObserver,
    SessionTasks,
    StreamTransport,
)
from easynetwork.backends.asyncio import shields
from easynetwork.backends.asyncio.datagram import AsyncIODatagramEndpoint
from easynetwork.backends.asyncio.stream import AsyncIOStreamTransport
from easynetwork.backends.asyncio.tasks import AsyncIOSessionTasks
from easynetwork.sockets.closing import construct_or_close
from easynetwork.sockets.datagrams import DatagramCalls


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

    def wrap_stream_socket(
        self, sock: socket.socket, feed: Callable[[bytes], int], max_recv_size: int
    ) -> StreamTransport:
        return construct_or_close(AsyncIOStreamTransport, sock, feed, max_recv_size)

    def wrap_datagram_socket(
        self, sock: socket.socket, calls: DatagramCalls | None = None
    ) -> DatagramEndpoint:
        return construct_or_close(AsyncIODatagramEndpoint, sock, calls)

    def create_session_tasks(self, observer: SessionObserver) -> SessionTasks:
        return AsyncIOSessionTasks(observer)

    # -- shields

    async def cancel_shielded_coro_yield(self) -> None:
        await shields.yield_once()

    async def ignore_cancellation(self, coroutine: Awaitable[_T]) -> _T:
        return await shields.finish(coroutine)

    async def run_in_thread(
        self, func: Callable[[*_Ts], _T], *args: *_Ts, abandon_on_cancel: bool = False
    ) -> _T:
        if abandon_on_cancel:
            return await super().run_in_thread(func, *args, abandon_on_cancel=True)
        return await shields.finish_in_thread(partial(func, *args))
