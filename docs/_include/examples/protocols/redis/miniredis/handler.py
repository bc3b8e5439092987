"""The request handler: receives commands, sends replies."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final

import anyio

from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

from .commands import COMMANDS, Entry
from .connection import Connection
from .pubsub import PubSub, Subscriptions
from .resp import Command, Error, Replies, Reply
from .store import Store
from .transactions import Transaction

NOT_QUEUED: Final = {b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"QUIT"}
SUBSCRIPTION: Final = {b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE"}
WHILE_SUBSCRIBED: Final = SUBSCRIPTION | {b"PING", b"QUIT"}


class RedisRequestHandler(AsyncStreamRequestHandler[Command, Reply]):
    def __init__(self, store: Store | None = None, pubsub: PubSub | None = None) -> None:
        self.store = Store() if store is None else store
        self.pubsub = PubSub() if pubsub is None else pubsub
        self.numbers = itertools.count(1)

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
        self.server = server
        tasks = await exit_stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(self.remove_expired)

    async def remove_expired(self) -> None:
        while True:
            await anyio.sleep(1)
            self.store.remove_expired()

    async def handle(self, client: AsyncStreamClient[Reply]) -> AsyncGenerator[None, Command]:
        session = Session(self, client)
        try:
            while not session.connection.has_quit:
                words = yield
                reply = session.answer(words)
                if type(reply) is not Replies:
                    await client.send_packet(reply)
                    continue
                for each in reply:
                    await client.send_packet(each)
        except StreamProtocolParseError as exc:
            await client.send_packet(Error(f"ERR Protocol error: {exc.error}"))
        finally:
            session.close()
        await client.aclose()


class Session:
    """What the server knows of one client."""

    def __init__(self, handler: RedisRequestHandler, client: AsyncStreamClient[Reply]) -> None:
        self.store = handler.store
        self.transaction = Transaction(handler.store)
        self.subscriptions = Subscriptions(client, handler.pubsub)
        self.connection = Connection(handler.server, next(handler.numbers))

    def close(self) -> None:
        self.transaction.close()
        self.subscriptions.close()

    def answer(self, words: Command) -> Reply:
        """Return the reply to a command, or several."""
        if not words:  # an empty line
            return Replies()
        name = words[0].upper()
        entry = COMMANDS.get(name)
        try:
            if entry is None:
                raise Error(f"ERR unknown command '{words[0][:128].decode('latin-1')}'")
            if not entry.fewest <= len(words) <= entry.most:
                text = name.decode().lower()
                raise Error(f"ERR wrong number of arguments for '{text}' command")
            if self.subscriptions.count and name not in WHILE_SUBSCRIBED:
                raise Error("ERR only PING, QUIT and commands for subscriptions are allowed now")
            if self.transaction.is_open and name not in NOT_QUEUED:
                if name in SUBSCRIPTION:
                    raise Error("ERR subscriptions are not allowed in transactions")
                return self.transaction.enqueue(partial(self.call, entry, words), words)
        except Error as error:
            self.transaction.is_invalid = self.transaction.is_open
            return error
        return self.call(entry, words)

    def call(self, entry: Entry, words: Command) -> Reply:
        try:
            return entry.function(getattr(self, entry.attribute), *words[1:])
        except Error as error:
            return error
