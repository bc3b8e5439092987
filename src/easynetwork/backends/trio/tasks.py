"""Tasks of clients, on trio."""

from __future__ import annotations

__all__ = ["TrioSessionTasks"]

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVarTuple

import trio

from easynetwork.backends.abc import SessionTasks

_Ts = TypeVarTuple("_Ts")


class TrioSessionTasks(SessionTasks):
    """A nursery, but for its exception groups that say no more than that it was cancelled."""

    __slots__ = ("_manager", "_nursery")

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    def start(
        self,
        coro_func: Callable[[*_Ts], Coroutine[Any, Any, None]],
        *args: *_Ts,
        name: str | None = None,
    ) -> None:
        self._nursery.start_soon(coro_func, *args, name=name)

    async def __aenter__(self) -> TrioSessionTasks:
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._manager.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            if group.split(trio.Cancelled)[1] is None:
                await trio.lowlevel.checkpoint_if_cancelled()  # raises one, as outside of nurseries
            raise
