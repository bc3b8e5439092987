"""Example request handlers for the page about TCP servers. Each one shows one feature.

The requests and responses have only a text. In your program, they are the packets that your
protocol object decodes and encodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar

import trio

from easynetwork.addresses import SocketAddress
from easynetwork.backends import AsyncBackend
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)


@dataclass(frozen=True)
class Request:
    text: str = ""


@dataclass(frozen=True)
class Response:
    text: str = ""


class BadRequest(Response): ...


class InternalError(Response): ...


class TimedOut(Response): ...


class MinimumRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        await client.send_packet(Response(request.text))


class ConnectionCloseRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        await client.send_packet(Response(request.text))

        # Close the connection after one request and one response.
        await client.aclose()


class ConnectionCloseWithContextRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        async with contextlib.aclosing(client):
            request: Request = yield

            await client.send_packet(Response(request.text))


class ConnectionCloseBeforeYieldRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    def __init__(self, banned_hosts: frozenset[str] = frozenset()) -> None:
        self.banned_hosts = banned_hosts

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        host = client.extra(INETClientAttribute.remote_address).host
        if host in self.banned_hosts:
            return

        request: Request = yield

        await client.send_packet(Response(request.text))


class ErrorHandlingInRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        try:
            request: Request = yield
        except StreamProtocolParseError:
            # This data is not a valid request. The next request may be valid.
            await client.send_packet(BadRequest())
        except Exception:
            # This exception is unexpected, so print its traceback.
            traceback.print_exc()
            await client.send_packet(InternalError())
        else:
            await client.send_packet(Response(request.text))


class MultipleYieldInRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        if request.text != "order":
            await client.send_packet(Response("Say 'order' when you are ready"))
            return

        await client.send_packet(Response("What would you like?"))
        choice: Request = yield

        await client.send_packet(Response(f"One {choice.text}, coming up"))


class ClientLoopInRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        count = 0

        async with contextlib.aclosing(client):
            while not client.is_closing():
                request: Request = yield

                count += 1
                await client.send_packet(Response(f"Request {count}: {request.text}"))

                if request.text == "quit":
                    await client.aclose()


class TimeoutYieldedRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[float, Request]:
        try:
            request: Request = yield self.patience
        except TimeoutError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(request.text))


class IdleLimitRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[float, Request]:
        request: Request = yield self.patience

        await client.send_packet(Response(request.text))


class TimeoutContextRequestHandlerAsyncIO(AsyncStreamRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        try:
            async with asyncio.timeout(self.patience):
                request: Request = yield
        except TimeoutError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(request.text))


class TimeoutContextRequestHandlerTrio(AsyncStreamRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        try:
            with trio.fail_after(self.patience):
                request: Request = yield
        except trio.TooSlowError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(request.text))


class TimeoutContextRequestHandlerWithClientBackend(AsyncStreamRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        try:
            with client.backend().timeout(self.patience):
                request: Request = yield
        except TimeoutError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(request.text))


class ClientExtraAttributesRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        remote = client.extra(INETClientAttribute.remote_address)

        request: Request = yield

        caller = f"{remote.host}:{remote.port}"
        await client.send_packet(Response(f"{caller} said {request.text}"))


class ClientConnectionHooksRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    def __init__(self) -> None:
        self.connected: set[AsyncStreamClient[Response]] = set()

    async def on_connection(self, client: AsyncStreamClient[Response]) -> None:
        await client.send_packet(Response("Welcome!"))
        self.connected.add(client)
        print(f"{client!r} is connected")

    async def on_disconnection(self, client: AsyncStreamClient[Response]) -> None:
        self.connected.discard(client)
        print(f"{client!r} is disconnected")

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        await client.send_packet(Response(request.text))


class ClientConnectionAsyncGenRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    def __init__(self) -> None:
        self.names: dict[AsyncStreamClient[Response], str] = {}

    async def on_connection(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        await client.send_packet(Response("Who are you?"))
        introduction: Request = yield

        self.names[client] = introduction.text

    async def on_disconnection(self, client: AsyncStreamClient[Response]) -> None:
        del self.names[client]

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        await client.send_packet(Response(f"{self.names[client]} said {request.text}"))


class CountingRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    request_count = 0

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        self.request_count += 1
        await client.send_packet(Response(request.text))


class ServiceInitializationHookRequestHandlerAsyncIO(CountingRequestHandler):
    report_interval = 60.0  # seconds

    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncTCPNetworkServer[Request, Response],
    ) -> None:
        exit_stack.callback(print, "Service stopped")

        task_group = await exit_stack.enter_async_context(asyncio.TaskGroup())
        task_group.create_task(self.report())

    async def report(self) -> None:
        while True:
            print(f"Requests so far: {self.request_count}")
            await asyncio.sleep(self.report_interval)


class ServiceInitializationHookRequestHandlerTrio(CountingRequestHandler):
    report_interval = 60.0  # seconds

    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncTCPNetworkServer[Request, Response],
    ) -> None:
        exit_stack.callback(print, "Service stopped")

        nursery = await exit_stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(self.report)

    async def report(self) -> None:
        while True:
            print(f"Requests so far: {self.request_count}")
            await trio.sleep(self.report_interval)


class ServiceInitializationHookRequestHandlerWithServerBackend(CountingRequestHandler):
    report_interval = 60.0  # seconds

    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncTCPNetworkServer[Request, Response],
    ) -> None:
        exit_stack.callback(print, "Service stopped")

        backend = server.backend()
        task_group = await exit_stack.enter_async_context(backend.create_task_group())
        task_group.start_soon(self.report, backend)

    async def report(self, backend: AsyncBackend) -> None:
        while True:
            print(f"Requests so far: {self.request_count}")
            await backend.sleep(self.report_interval)


class ClientContextRequestHandler(AsyncStreamRequestHandler[Request, Response]):
    peer: ClassVar[ContextVar[SocketAddress]] = ContextVar("peer")

    async def on_connection(self, client: AsyncStreamClient[Response]) -> None:
        self.peer.set(client.extra(INETClientAttribute.remote_address))

    async def handle(
        self,
        client: AsyncStreamClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        await client.send_packet(Response(self.signed(request.text)))

    def signed(self, text: str) -> str:
        # There is no client argument: the context variable holds the address.
        peer = self.peer.get()
        return f"{text}, {peer.host}:{peer.port}"
