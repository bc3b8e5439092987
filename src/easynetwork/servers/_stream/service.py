"""The way of a connection from its listener to the end of its session.

    Listener -> admission -> TLS -> session: serve() -> conclude()

The service is the same for every listener: what differs between TCP, Unix sockets and a network in
memory is behind `Listener` and `StreamTransport`.

A handler that leaves a cancel scope open may be cancelled at any time. A client is therefore served
in a scope of its own, and its session concluded in a new task if that scope cannot be left in
order.
"""

from __future__ import annotations

__all__ = ["StreamService"]

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeAlias

import anyio
import anyio.abc

from easynetwork.backends.abc import Incoming, Listener, SessionTasks
from easynetwork.decoder import StreamDecoder
from easynetwork.servers._core.verdict import interrupts, scope_error
from easynetwork.servers._stream.client import ServedClient
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.session import End, StreamSession

_Step: TypeAlias = Callable[[Incoming], Awaitable[Incoming | None]]
"""Makes a connection ready; returns None if it has closed the connection."""


class StreamService:
    """Serves the connections of any number of listeners."""

    __slots__ = ("_options", "_steps")

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        # In this order, in the client's task. A step that fails closes the connection.
        self._steps: list[_Step] = []
        if options.tls is not None:
            self._steps.append(options.tls.accept)

    def start(
        self,
        listeners: Iterable[Listener],
        receivers: anyio.abc.TaskGroup,
        tasks: SessionTasks,
    ) -> None:
        """Start serving, until the listeners are closed.

        Args:
            listeners: Where the connections come from.
            receivers: Where to start a task for each listener.
            tasks: Where to start a task for each client.
        """
        for listener in listeners:
            receivers.start_soon(listener.accept_forever, partial(self._admit, tasks))

    async def _admit(self, tasks: SessionTasks, incoming: Incoming) -> None:
        decoder = self._options.new_decoder()
        incoming.transport.feed = decoder.feed  # before the loop can receive anything
        name = f"client {incoming.address}"
        tasks.start(self._serve, tasks, incoming, decoder, name=name)

    async def _serve(self, tasks: SessionTasks, incoming: Incoming, decoder: StreamDecoder) -> None:
        """Serve one client in the current task, which is one of `tasks`."""
        session: StreamSession | None = None
        end: End | None = None
        try:
            with tasks.scope():
                ready = await self._make_ready(incoming)
                if ready is None:
                    return
                session = StreamSession(
                    self._options, tasks, ServedClient(self._options, ready, decoder)
                )
                end = await session.serve()
        except RuntimeError as exc:
            if session is None or end is None:
                raise
            is_known = isinstance(end, Exception) or (
                isinstance(end, BaseException) and interrupts(end)
            )
            end = end if is_known else scope_error(exc)
            name = anyio.get_current_task().name
            tasks.start(session.conclude, end, name=name)
        else:
            await session.conclude(end)
        finally:
            del end  # an exception's traceback may refer to this frame

    async def _make_ready(self, incoming: Incoming) -> Incoming | None:
        for step in self._steps:
            ready = await step(incoming)
            if ready is None:
                return None
            incoming = ready
        return incoming
