"""The way of a connection from its listener to the end of its session.

    Listener -> admission -> TLS -> session

The service is the same for every listener: `Listener` and `StreamTransport` hide whether a
connection is a socket at all. Admission sets the feed function and starts the client's task.

The steps between admission and session run in that task. Nothing is fed before the first
`receive()`: a step that reads (a header of a proxy) replaces the feed function meanwhile, and TLS
needs a connection on which nothing has been received.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeAlias

import anyio.abc

from easynetwork.backends.abc import Cancellable, Incoming, Listener, SessionTasks
from easynetwork.decoder import StreamDecoder
from easynetwork.servers._stream.client import ServedClient
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.session import StreamSession
from easynetwork.servers._stream.tls import accept_tls
from easynetwork.servers.statistics import CloseReason

_Step: TypeAlias = Callable[[Incoming], Awaitable[Incoming | None]]
"""Makes a connection ready; returns None if it has closed the connection."""


class StreamService:
    """Serves the connections of any number of listeners."""

    __slots__ = ("_handshakes", "_options", "_steps")

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._handshakes: set[Cancellable] = set()
        # In this order, in the client's task. A step that fails closes the connection.
        self._steps: list[_Step] = []
        if options.tls is not None:
            self._steps.append(partial(accept_tls, options.tls, options.tls_log))

    def start(
        self, listeners: Iterable[Listener], receivers: anyio.abc.TaskGroup, tasks: SessionTasks
    ) -> None:
        """Start serving, until the listeners are closed.

        Args:
            listeners: Where the connections come from.
            receivers: Where to start a task for each listener.
            tasks: Where to start a task for each client.
        """
        for listener in listeners:
            receivers.start_soon(listener.accept_forever, partial(self._admit, tasks))

    async def stop(self, listeners: Iterable[Listener], tasks: SessionTasks) -> None:
        """Accept what waits, close the listeners, and drop the connections that are not ready.

        Their clients have sent no request yet.
        """
        for listener in listeners:
            await listener.accept_waiting(partial(self._admit, tasks))
            listener.close()
        for handshake in list(self._handshakes):
            handshake.cancel()

    async def _admit(self, tasks: SessionTasks, incoming: Incoming) -> None:
        if not self._options.census.admit(incoming.address):
            self._options.log.limit("%s is refused: %s", incoming.address, CloseReason.FULL.value)
            incoming.transport.abort()
            await incoming.transport.aclose()
            return
        try:
            self._start(tasks, incoming)
        except Exception:  # none of a handler's: its session is counted where it ends
            self._drop(incoming, CloseReason.STOPPED)
            raise

    def _start(self, tasks: SessionTasks, incoming: Incoming) -> None:
        """Start the task of a connection that may stay."""
        incoming.transport.close_timeout = self._options.limits.seconds_to_close
        decoder = self._options.codec.new_decoder()
        incoming.transport.feed = decoder.feed
        name, otherwise = f"client {incoming.address}", partial(self._drop_early, tasks, incoming)
        if self._steps:
            tasks.start(self._serve, tasks, incoming, decoder, name=name, otherwise=otherwise)
        else:  # one coroutine less for each packet to pass
            session = self._new_session(tasks, incoming, decoder)
            tasks.start(session.run, name=name, otherwise=otherwise)

    def _drop_early(self, tasks: SessionTasks, incoming: Incoming) -> None:
        """End a connection whose task was cancelled before it began."""
        if tasks.is_cancelled():
            self._drop(incoming, CloseReason.STOPPED)
        else:
            message = "%s is closed: its task was cancelled before it began"
            self._options.log.limit(message, incoming.address)
            self._drop(incoming, CloseReason.ABORTED)

    def _drop(self, incoming: Incoming, reason: CloseReason) -> None:
        self._options.census.leave(incoming.address, reason)
        incoming.transport.abort()

    async def _serve(self, tasks: SessionTasks, incoming: Incoming, decoder: StreamDecoder) -> None:
        ready: Incoming | None = None
        try:
            with tasks.scope() as scope:
                self._handshakes.add(scope)
                if self._options.census.drain is not None:
                    scope.cancel()
                ready = await self._make_ready(incoming)
        finally:
            self._handshakes.discard(scope)
            if ready is None:
                self._options.census.leave(incoming.address, self._why_unready(tasks))
        if ready is not None:
            await self._new_session(tasks, ready, decoder).run()

    def _why_unready(self, tasks: SessionTasks) -> CloseReason:
        if tasks.is_cancelled():
            return CloseReason.STOPPED
        is_draining = self._options.census.drain is not None
        return CloseReason.DRAINED if is_draining else CloseReason.TLS_FAILED

    def _new_session(
        self, tasks: SessionTasks, incoming: Incoming, decoder: StreamDecoder
    ) -> StreamSession:
        client = ServedClient(self._options, tasks, incoming, decoder)
        return StreamSession(self._options, tasks, client)

    async def _make_ready(self, incoming: Incoming) -> Incoming | None:
        for step in self._steps:
            ready = await step(incoming)
            if ready is None:
                return None
            incoming = ready
        return incoming
