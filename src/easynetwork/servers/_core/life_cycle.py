"""The life of an asynchronous server, the same for everything that can be served.

    new -> listening -> serving -> listening ... -> closed

A `Run` lives as long as one `serve_forever()`; its phases are listed there. After it has drained,
the server is as new: its sockets are closed, and the next `serve_forever()` opens them again, if it
has bound them itself.

There are two scopes. The outer one covers the whole run, so that a server can be stopped while it
starts. The inner one covers the sessions and the listeners. After the last session, the outer scope
is cancelled and the exit stack of `service_init()` is unwound: tasks that a user started there stop
too.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import warnings
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from easynetwork._arguments import validated_delay
from easynetwork._tuning import STOP_TIMEOUT
from easynetwork._typevars import _T_Address, _T_Handler, _T_Protocol
from easynetwork.addresses import SocketAttribute, SocketProxy
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import SessionTasks
from easynetwork.exceptions import BusyResourceError, ServerAlreadyRunning, ServerClosedError
from easynetwork.servers._core.drain import Drain
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._core.run import Phase, Run
from easynetwork.servers.abc import AbstractAsyncNetworkServer, SupportsEventSet
from easynetwork.servers.handlers import BaseRequestHandler
from easynetwork.sockets.adopting import Adoption
from easynetwork.sockets.binding import SocketSource
from easynetwork.sockets.closing import close_on_error


class Listening(Protocol):
    """What a server listens on: a `Listener`, or a datagram socket."""

    @property
    def local_address(self) -> Any:
        """Where it listens."""

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What is known of it."""

    def close(self) -> None:
        """Stop listening."""

    def is_closing(self) -> bool:
        """Whether it was closed."""


_T_Listening = TypeVar("_T_Listening", bound=Listening)


class BaseAsyncNetworkServer(
    AbstractAsyncNetworkServer, Generic[_T_Listening, _T_Address, _T_Handler, _T_Protocol]
):
    """Everything but what a listening socket is, and what happens on it.

    A subclass that serves on sockets has `_adoption`, sets `_source`, and says in `_new_listener()`
    what listens on one.
    """

    __slots__ = (
        *("_activation", "_backend", "_handler", "_is_closed"),
        *("_listeners", "_log", "_run", "_source", "logger"),
    )

    logger: logging.Logger
    """Where the server writes what happens to it and to its clients."""

    _adoption: ClassVar[Adoption]

    def __init__(
        self, backend: AsyncBackend, handler: BaseRequestHandler, logger: logging.Logger
    ) -> None:
        self.logger = logger
        self._log = ServerLog(logger)
        self._backend = backend
        self._handler = handler
        self._source = SocketSource()
        self._listeners: tuple[_T_Listening, ...] = ()
        self._activation: anyio.Lock | None = None
        self._is_closed = False
        self._run: Run | None = None

    @classmethod
    def from_sockets(
        cls,
        sockets: Iterable[socket.socket],
        protocol: _T_Protocol,
        request_handler: _T_Handler,
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        **options: Any,
    ) -> Self:
        """Return a server on sockets that other code has bound.

        For example, on those that `easynetwork.sockets.inherited_sockets()` returns. Clients that
        have connected before, and datagrams that have arrived, wait in the kernel.

        The sockets become non-blocking and non-inheritable, and belong to the server:
        `server_close()` closes them, also if the server was never activated. It only closes its own
        descriptors: other processes that have these sockets keep them. The paths of Unix sockets
        are not removed.

        Args:
            sockets: Sockets of the server's kind: those of connections listen; those of datagrams
                are bound and not connected. At least one, and none twice.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all clients.
            backend: The backend, or its name; by default, the framework that is running.
            **options: Keyword arguments of the constructor, except those about binding:
                `reuse_port`, `mode`, `unlink_stale` and `backlog`.

        Raises:
            TypeError: An argument is of the wrong type, or is about binding sockets.
            ValueError: An argument, or a socket, cannot be used. The caller keeps the sockets after
                any error, and they are unchanged.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        server = cls._adoption.new_server(cls, options, protocol, request_handler, backend)
        server._source = cls._adoption.adopt(sockets)
        return server

    def __del__(self) -> None:
        if getattr(self, "_listeners", ()):
            message = f"unclosed server {self!r} (and cannot be closed synchronously)"
            for listener in self._listeners:
                with contextlib.suppress(OSError):  # other code has closed the descriptor
                    listener.close()
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        addresses = ", ".join(map(str, self.get_addresses())) or "no address"
        return f"<{type(self).__name__} on {addresses} at {id(self):#x}>"

    # -- what a subclass adds

    async def _open_listeners(self) -> Sequence[_T_Listening]:
        """Open and return what the server listens on."""
        sockets = await self._source.open()
        with close_on_error(*sockets):
            return [self._new_listener(sock) for sock in sockets]

    @abstractmethod
    def _new_listener(self, sock: socket.socket) -> _T_Listening:
        """Return what listens on a socket."""

    @abstractmethod
    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        """Start what receives from the listeners, until they are closed or it is cancelled.

        Args:
            receivers: Where to start what feeds the sessions.
            sessions: Where to start these.
        """

    def _end_serving(self) -> None:
        """Take note that the last session is over, and none will follow for now."""

    @abstractmethod
    def _begin_draining(self, drain: Drain) -> None:
        """Tell the clients that the server drains. `drain.changed()` is to be called for each end.

        The other methods for that are those of `Drainable`.
        """

    @abstractmethod
    async def _stop_taking(self, tasks: SessionTasks) -> None:
        """See `Drainable`."""

    @abstractmethod
    def _count_clients(self) -> int:
        """See `Drainable`."""

    def _end_silent(self) -> float:
        return math.inf

    # -- state

    def backend(self) -> AsyncBackend:
        return self._backend

    def is_listening(self) -> bool:
        return bool(self._listeners)

    def is_serving(self) -> bool:
        run = self._run
        return run is not None and run.phase is Phase.SERVING

    def is_draining(self) -> bool:
        return self._run is not None and self._run.drain is not None

    def get_addresses(self) -> tuple[_T_Address, ...]:
        """Return the addresses that the server listens on; none if it is new or closed."""
        return tuple(
            listener.local_address
            for listener in self._listeners
            if not listener.is_closing()  # as it is in the child of a process that serves
        )

    def get_sockets(self) -> tuple[SocketProxy, ...]:
        """Return the listening sockets, to look at; none if the server is new or closed."""
        key = SocketAttribute.socket
        return tuple(listener.extra_attributes[key]() for listener in self._listeners)

    # -- transitions

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except BaseException:
            if not self._listeners:  # then no __aexit__() closes what the source has open
                self._source.close()
            raise

    async def server_activate(self) -> None:
        self._check_open("Closed server")
        if self._listeners:
            return
        if self._activation is None:
            self._activation = anyio.Lock()
        async with self._activation:
            await anyio.lowlevel.checkpoint()
            if self._listeners:
                return
            self._check_open("Server has been closed")
            listeners = await self._open_listeners()
            if self._is_closed:
                for listener in listeners:
                    listener.close()
            self._check_open("Server has been closed")
            self._listeners = tuple(listeners)

    def _check_open(self, message: str) -> None:
        if self._is_closed:
            raise ServerClosedError(message)

    async def serve_forever(self, *, is_up_event: SupportsEventSet | None = None) -> None:
        if self._run is not None:
            raise ServerAlreadyRunning("Server is already running")
        self._check_open("Closed server")
        run = self._run = Run(self._log)
        try:
            with run.scope:
                await self.server_activate()
                await self._serve(run, is_up_event)
        finally:
            self._run = None
            run.finished.set()

    async def _serve(self, run: Run, is_up_event: SupportsEventSet | None) -> None:
        try:
            async with contextlib.AsyncExitStack() as exit_stack:
                await self._handler.service_init(exit_stack, weakref.proxy(self))
                await anyio.lowlevel.checkpoint()  # was it told to stop meanwhile?
                try:
                    await self._serve_clients(run, is_up_event)
                finally:
                    self._stop(run)
                    self._end_serving()
                    if run.drain is not None:
                        self._close_listeners()
                    run.scope.cancel()
        finally:
            self._log.flush()
            self._log.log(logging.INFO, "Server stopped")

    async def _serve_clients(self, run: Run, is_up_event: SupportsEventSet | None) -> None:
        with run.sessions_scope:
            async with self._backend.create_session_tasks(run) as sessions:
                run.sessions = sessions
                async with anyio.create_task_group() as receivers:
                    self._start_serving(receivers, sessions)
                    run.phase = Phase.SERVING
                    addresses = ", ".join(map(str, self.get_addresses()))
                    self._log.log(logging.INFO, "Start serving at %s", addresses)
                    if is_up_event is not None:
                        is_up_event.set()

    def _stop(self, run: Run) -> None:
        if run.phase is not Phase.STOPPING:
            run.phase = Phase.STOPPING
            self._log.log(logging.INFO, "Server loop break, waiting for remaining tasks...")
        run.stopping.set()
        run.sessions_scope.cancel()

    def _stop_sessions(self) -> None:
        """Cancel the tasks of all clients, if there may be any."""
        run = self._run
        if run is not None and run.phase is not Phase.STARTING:
            self._stop(run)

    async def shutdown(self, *, grace: float = 0.0) -> None:
        await self._shut_down(grace)

    async def _shut_down(self, grace: float = 0.0) -> bool:
        """Do what `shutdown()` does; return whether nothing runs any more."""
        validated_delay(grace)
        run = self._run
        if run is None:
            return True
        if run.phase is Phase.STARTING:
            run.scope.cancel()
        elif run.sessions is None or run.phase is Phase.STOPPING or not grace:
            self._stop(run)
        else:
            await self._drain_until_stop(run, run.sessions, grace)
        with anyio.move_on_after(STOP_TIMEOUT):
            await run.finished.wait()
        if not run.finished.is_set():
            run.give_up()
        return not run.is_stuck

    async def _drain_until_stop(self, run: Run, sessions: SessionTasks, grace: float) -> None:
        """Drain the server, and wait until it stops."""
        drain = run.drain
        if drain is None:
            drain = Drain(self, self._log, grace, partial(self._stop, run))
        else:
            drain.shorten(grace)
        with drain.calling(is_client=sessions.is_current()):
            if run.drain is None:
                run.phase, run.drain = Phase.DRAINING, drain
                self._begin_draining(drain)
                sessions.start(drain.run, sessions, name=f"drain of {self!r}")
            await run.stopping.wait()

    async def server_close(self) -> None:
        run = self._run
        if run is not None and run.phase is Phase.STARTING:
            raise BusyResourceError("Cannot close server during serve_forever() setup.")
        self._is_closed = True
        if run is not None and run.phase is Phase.SERVING:
            run.phase = Phase.FINISHING
        self._close_listeners()
        self._source.close()
        await anyio.lowlevel.checkpoint()

    def _close_listeners(self) -> None:
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            listener.close()
