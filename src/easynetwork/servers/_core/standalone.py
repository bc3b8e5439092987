"""Run an asynchronous server in a thread with its own event loop.

A `StandaloneRun` lives as long as one `serve_forever()`. Other threads reach the asynchronous
server through it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeAlias

from easynetwork._arguments import validated_delay, validated_runner_options
from easynetwork._forks import call_after_fork
from easynetwork._typevars import _T, _T_Address, _T_Handler, _T_Protocol, _T_Request, _T_Response
from easynetwork.addresses import SocketProxy
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.exceptions import ServerAlreadyRunning, ServerClosedError
from easynetwork.protocol import AnyStreamProtocolType, DatagramProtocol
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._core.standalone_run import StandaloneRun
from easynetwork.servers.abc import AbstractNetworkServer, SupportsEventSet
from easynetwork.servers.blocking import AnyDatagramRequestHandler, AnyStreamRequestHandler
from easynetwork.sockets.adopting import AdoptedSockets, Adoption


class BaseStandaloneNetworkServer(
    AbstractNetworkServer, Generic[_T_Address, _T_Handler, _T_Protocol]
):
    """Everything but what is served.

    Args:
        new_server: Makes an asynchronous server that runs on a backend.
        backend: The backend, or its name; asyncio by default.
        runner_options: Keyword arguments of the function that runs the event loop.
    """

    __slots__ = (
        *("_adopted", "_backend", "_is_closed", "_lock"),
        *("_new_server", "_run", "_runner_options"),
    )

    _adoption: ClassVar[Adoption]

    def __init__(
        self,
        new_server: Callable[[AsyncBackend], BaseAsyncNetworkServer[Any, Any, Any, Any]],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
        runner_options: Mapping[str, Any] | None,
    ) -> None:
        self._backend = ensure_backend("asyncio" if backend is None else backend)
        self._runner_options = validated_runner_options(runner_options)
        self._new_server = new_server
        new_server(self._backend)  # refuses bad arguments now, not when it is time to serve
        self._adopted: AdoptedSockets | None = None
        self._is_closed = False
        self._run: StandaloneRun | None = None
        self._lock = threading.RLock()  # not a mere lock: a signal's handler may come here, too
        call_after_fork(self, BaseStandaloneNetworkServer._forget_threads)

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

        Each run serves on duplicates, and closes these at its end. What arrives between two runs
        waits for the next.

        Args:
            sockets: Sockets of the server's kind: those of connections listen; those of datagrams
                are bound and not connected. At least one, and none twice.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all clients.
            backend: The backend, or its name; by default, asyncio.
            **options: Keyword arguments of the constructor, except those about binding:
                `reuse_port`, `mode`, `unlink_stale` and `backlog`.

        Raises:
            TypeError: An argument is of the wrong type, or is about binding sockets.
            ValueError: An argument, or a socket, cannot be used. The caller keeps the sockets after
                any error, and they are unchanged.
            NotImplementedError: The backend is not known.
            ModuleNotFoundError: The backend is not installed.
        """
        server = cls._adoption.new_server(cls, options, protocol, request_handler, backend)
        server._adopted = cls._adoption.adopt(sockets)
        return server

    def _forget_threads(self) -> None:
        self._lock = threading.RLock()
        run, self._run = self._run, None
        if run is not None:
            run.abandon()

    # -- state

    def is_serving(self) -> bool:
        """Whether new clients are being accepted.

        While the server starts, this waits until it listens.
        """
        return self._ask(False, lambda server: server.is_serving())

    def is_draining(self) -> bool:
        return self._ask(False, lambda server: server.is_draining())

    def _ask(self, otherwise: _T, question: Callable[[Any], _T]) -> _T:
        """Call a function with the asynchronous server, in its thread; if it runs."""
        run = self._run
        return otherwise if run is None else run.call(lambda: question(run.server))

    def get_addresses(self) -> tuple[_T_Address, ...]:
        """Return the addresses that the server listens on; none if it does not run.

        While the server starts, this waits until it listens.
        """
        return self._ask((), lambda server: server.get_addresses())

    def get_sockets(self) -> tuple[SocketProxy, ...]:
        """Return the listening sockets, to look at; none if the server does not run.

        Their methods may be called by any thread: the event loop's thread does what they are asked
        for. While the server starts, this waits until it listens.
        """
        run = self._run
        if run is None:
            return ()
        sockets = run.call(run.server.get_sockets)
        return tuple(SocketProxy(sock, runner=run.call) for sock in sockets)

    # -- transitions

    def serve_forever(
        self,
        *,
        is_up_event: SupportsEventSet | None = None,
        runner_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Run an event loop in this thread, accept and serve clients, until told to stop.

        Opens the listening sockets, and closes them at the end: with port 0, each run has another
        port. Returns after `shutdown()`, or when the last client has left after `server_close()`.
        After a `shutdown()`, this may be called again.

        Args:
            is_up_event: Set, in this thread, when clients are being accepted.
            runner_options: Added to the options that the constructor got; the same keys replace
                them.

        Raises:
            ServerClosedError: The server is closed.
            ServerAlreadyRunning: Another thread is serving already.
            OSError: An address cannot be bound, or a name cannot be resolved.
            ExceptionGroup: Several of them: an `OSError` for each.
            KeyboardInterrupt: Control-C was pressed, and the server has stopped as by `shutdown()`.
        """
        options = {**self._runner_options, **validated_runner_options(runner_options)}
        server = self._new_server(self._backend)
        if self._adopted is not None:
            server._source = self._adopted.new_copies()
        run = StandaloneRun(server, is_up_event)
        with self._lock:
            if self._run is not None:
                raise ServerAlreadyRunning("Server is already running")
            if self._is_closed:
                raise ServerClosedError("Closed server")
            self._run = run
        try:
            self._backend.bootstrap(run.main, runner_options=options)
        except asyncio.CancelledError:
            pass  # the main task was cancelled; trio.run() raises no cancellation
        except KeyboardInterrupt as exc:
            raise exc from None  # where the server waited at that moment is of no interest
        except BaseExceptionGroup as group:
            interrupts, others = group.split(KeyboardInterrupt)
            if interrupts is None:
                raise
            raise KeyboardInterrupt from others
        finally:
            with self._lock:
                self._run = None
            run.finish()

    def shutdown(self, timeout: float | None = None, *, grace: float = 0.0) -> None:
        """Stop `serve_forever()` and wait until it is over. Does nothing if it does not run.

        The tasks of all clients are cancelled. With a grace, the server drains before: see
        `AbstractAsyncNetworkServer.shutdown()`. May be called by several threads at once.

        One second after the cancellation this returns in any case. If something still runs then,
        the log gets one ERROR that names it, and `serve_forever()` returns when that has ended. But
        a handler that blocks the thread of the event loop, without awaiting anything, cannot be
        cancelled, and this waits until it awaits: give a `timeout`.

        Args:
            timeout: The most seconds to wait; None for no limit. The server stops all the same.
                With 0 this only asks it to, and may be called in any thread: by a request handler
                or the handler of a signal, too.
            grace: Seconds that clients have to come to an end.

        Raises:
            ValueError: `grace` is negative or not a number.
            RuntimeError: Called in the thread that runs `serve_forever()`, which would wait for
                itself.
        """
        validated_delay(grace)
        run = self._run
        if run is not None:
            if timeout is None or timeout > 0:
                run.check_thread("shutdown")
            run.stop(grace)
            run.stopped.wait(timeout)

    def server_close(self) -> None:
        """Close the server for good, and the listening sockets. May be called several times.

        Clients that are connected are served until they leave; then `serve_forever()` returns. If
        the server is just starting, this waits until it is up.

        Raises:
            RuntimeError: Called in the thread that runs `serve_forever()`, which would wait for
                itself. There, use the asynchronous server, which `service_init()` gets.
        """
        run = self._run
        if run is not None:
            run.check_thread("server_close")
        with self._lock:
            self._is_closed = True
            run = self._run
        try:
            if run is not None:
                run.close()
        finally:
            if self._adopted is not None:
                self._adopted.close()


StandaloneStreamBase: TypeAlias = BaseStandaloneNetworkServer[
    _T_Address,
    AnyStreamRequestHandler[_T_Request, _T_Response],
    AnyStreamProtocolType[_T_Response, _T_Request],
]
StandaloneDatagramBase: TypeAlias = BaseStandaloneNetworkServer[
    _T_Address,
    AnyDatagramRequestHandler[_T_Request, _T_Response],
    DatagramProtocol[_T_Response, _T_Request],
]
