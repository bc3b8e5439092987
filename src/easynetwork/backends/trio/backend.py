"""The trio backend."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar

import trio

from easynetwork._typevars import _T, _Ts
from easynetwork.backends.abc import (
    AsyncBackend,
    DatagramEndpoint,
    SessionObserver,
    SessionTasks,
    StreamTransport,
)
from easynetwork.backends.trio.datagram import TrioDatagramEndpoint
from easynetwork.backends.trio.stream import TrioStreamTransport
from easynetwork.backends.trio.tasks import TrioSessionTasks
from easynetwork.sockets.closing import construct_or_close
from easynetwork.sockets.datagrams import DatagramCalls


class TrioBackend(AsyncBackend):
    """trio."""

    __slots__ = ()

    name: ClassVar[str] = "trio"

    def bootstrap(
        self,
        coro_func: Callable[[*_Ts], Coroutine[Any, Any, _T]],
        *args: *_Ts,
        runner_options: Mapping[str, Any] | None = None,
    ) -> _T:
        return trio.run(coro_func, *args, **(runner_options or {}))

    def wrap_stream_socket(
        self, sock: socket.socket, feed: Callable[[bytes], int], max_recv_size: int
    ) -> StreamTransport:
        return construct_or_close(TrioStreamTransport, sock, feed, max_recv_size)

    def wrap_datagram_socket(
        self, sock: socket.socket, calls: DatagramCalls | None = None
    ) -> DatagramEndpoint:
        return construct_or_close(TrioDatagramEndpoint, sock, calls)

    def create_session_tasks(self, observer: SessionObserver) -> SessionTasks:
        return TrioSessionTasks(observer)
