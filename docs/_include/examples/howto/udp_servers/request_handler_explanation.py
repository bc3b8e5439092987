"""Example request handlers for the page about UDP servers. Each one shows one feature.

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
from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
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


class MinimumRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        await client.send_packet(Response(request.text))


class SkipDatagramRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    def __init__(self, allowed_hosts: frozenset[str] = frozenset()) -> None:
        self.allowed_hosts = allowed_hosts

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        host = client.extra(INETClientAttribute.remote_address).host
        if host not in self.allowed_hosts:
            # This datagram is not decoded, and gets no response.
            return

        request: Request = yield

        await client.send_packet(Response(request.text))


class ErrorHandlingInRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        try:
            request: Request = yield
        except DatagramProtocolParseError:
            # This datagram is not a valid request. Later datagrams are unaffected.
            await client.send_packet(BadRequest())
        except Exception:
            # This exception is unexpected, so print its traceback.
            traceback.print_exc()
            await client.send_packet(InternalError())
        else:
            await client.send_packet(Response(request.text))


class RequestsOnlyHandler(AsyncDatagramRequestHandler[Request, Response]):
    values: ClassVar[dict[str, str]] = {"colour": "blue"}

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        try:
            request: Request = yield
        except DatagramProtocolParseError:
            # It may be a response from another server.
            return

        command, _, name = request.text.partition(" ")
        if command != "get":
            # It may be a response from another server, too.
            return

        if name in self.values:
            await client.send_packet(Response(f"value {self.values[name]}"))
        else:
            await client.send_packet(Response(f"error unknown name {name}"))


class MultipleYieldInRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        if request.text != "order":
            await client.send_packet(Response("Say 'order' when you are ready"))
            return

        await client.send_packet(Response("What would you like?"))
        choice: Request = yield

        await client.send_packet(Response(f"One {choice.text}, coming up"))


class TimeoutYieldedRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[float | None, Request]:
        # The first yield never waits: its datagram has already arrived.
        customer: Request = yield None

        await client.send_packet(Response("What would you like?"))
        try:
            choice: Request = yield self.patience
        except TimeoutError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(f"{choice.text} for {customer.text}"))


class TimeoutContextRequestHandlerAsyncIO(AsyncDatagramRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        # The first yield never waits: its datagram has already arrived.
        customer: Request = yield

        await client.send_packet(Response("What would you like?"))
        try:
            async with asyncio.timeout(self.patience):
                choice: Request = yield
        except TimeoutError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(f"{choice.text} for {customer.text}"))


class TimeoutContextRequestHandlerTrio(AsyncDatagramRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        # The first yield never waits: its datagram has already arrived.
        customer: Request = yield

        await client.send_packet(Response("What would you like?"))
        try:
            with trio.fail_after(self.patience):
                choice: Request = yield
        except trio.TooSlowError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(f"{choice.text} for {customer.text}"))


class TimeoutContextRequestHandlerWithClientBackend(AsyncDatagramRequestHandler[Request, Response]):
    patience = 30.0  # seconds

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        # The first yield never waits: its datagram has already arrived.
        customer: Request = yield

        await client.send_packet(Response("What would you like?"))
        try:
            with client.backend().timeout(self.patience):
                choice: Request = yield
        except TimeoutError:
            await client.send_packet(TimedOut())
        else:
            await client.send_packet(Response(f"{choice.text} for {customer.text}"))


class ClientExtraAttributesRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        remote = client.extra(INETClientAttribute.remote_address)

        request: Request = yield

        sender = f"{remote.host}:{remote.port}"
        await client.send_packet(Response(f"{sender} said {request.text}"))


class CountingRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    request_count = 0

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        request: Request = yield

        self.request_count += 1
        await client.send_packet(Response(request.text))


class ServiceInitializationHookRequestHandlerAsyncIO(CountingRequestHandler):
    report_interval = 60.0  # seconds

    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncUDPNetworkServer[Request, Response],
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
        server: AsyncUDPNetworkServer[Request, Response],
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
        server: AsyncUDPNetworkServer[Request, Response],
    ) -> None:
        exit_stack.callback(print, "Service stopped")

        backend = server.backend()
        task_group = await exit_stack.enter_async_context(backend.create_task_group())
        task_group.start_soon(self.report, backend)

    async def report(self, backend: AsyncBackend) -> None:
        while True:
            print(f"Requests so far: {self.request_count}")
            await backend.sleep(self.report_interval)


class StatisticsRequestHandler(CountingRequestHandler):
    report_interval = 60.0  # seconds

    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncUDPNetworkServer[Request, Response],
    ) -> None:
        backend = server.backend()
        task_group = await exit_stack.enter_async_context(backend.create_task_group())
        task_group.start_soon(self.report, server)

    async def report(self, server: AsyncUDPNetworkServer[Request, Response]) -> None:
        while True:
            statistics = server.get_statistics()
            print(f"{statistics.dropped} of {statistics.received} datagrams were dropped")
            await server.backend().sleep(self.report_interval)


class ClientContextRequestHandler(AsyncDatagramRequestHandler[Request, Response]):
    peer: ClassVar[ContextVar[SocketAddress]] = ContextVar("peer")

    async def handle(
        self,
        client: AsyncDatagramClient[Response],
    ) -> AsyncGenerator[None, Request]:
        self.peer.set(client.extra(INETClientAttribute.remote_address))

        request: Request = yield

        await client.send_packet(Response(self.signed(request.text)))

    def signed(self, text: str) -> str:
        # There is no client argument: the context variable holds the address.
        peer = self.peer.get()
        return f"{text}, {peer.host}:{peer.port}"


async def announce(
    server: AsyncUDPNetworkServer[Request, Response], addresses: list[tuple[str, int]]
) -> None:
    for address in addresses:
        client = server.client_for(address)
        await client.send_packet(Response("I am here"))
