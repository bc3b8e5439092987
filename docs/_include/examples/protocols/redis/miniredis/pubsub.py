"""Publish and subscribe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamClient

from .commands import check_names, command, compile_pattern
from .resp import Replies, Reply

HIGH_WATER: Final = 1024 * 1024


@dataclass
class Topic:
    """A channel or a pattern, and the clients that have subscribed to it."""

    group: ClientGroup[Reply]
    pattern: re.Pattern[bytes] | None
    size: int = 0


class PubSub:
    """The subscribers of all channels and patterns.

    Args:
        high_water: A subscriber for which more bytes wait than that is disconnected.
    """

    def __init__(self, high_water: int = HIGH_WATER) -> None:
        self.high_water = high_water
        self.topics: dict[str, dict[bytes, Topic]] = {"subscribe": {}, "psubscribe": {}}

    def join(self, client: AsyncStreamClient[Reply], kind: str, name: bytes) -> None:
        topics = self.topics[kind]
        if name not in topics:
            pattern = compile_pattern(name) if kind == "psubscribe" else None
            group: ClientGroup[Reply] = ClientGroup(slow="abort", high_water=self.high_water)
            topics[name] = Topic(group, pattern)
        topics[name].group.add(client)
        topics[name].size += 1

    def leave(self, client: AsyncStreamClient[Reply], kind: str, name: bytes) -> None:
        topic = self.topics[kind][name]
        topic.group.discard(client)
        topic.size -= 1
        if topic.size == 0:  # clients choose the names: keep none that is not in use
            del self.topics[kind][name]

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message to the subscribers of a channel; return how many get it."""
        count = 0
        if topic := self.topics["subscribe"].get(channel):
            count += topic.group.broadcast([b"message", channel, message])
        for name, topic in self.topics["psubscribe"].items():
            if topic.pattern is not None and topic.pattern.match(channel):
                count += topic.group.broadcast([b"pmessage", name, channel, message])
        return count


class Subscriptions:
    """Those of one client."""

    def __init__(self, client: AsyncStreamClient[Reply], pubsub: PubSub) -> None:
        self.client = client
        self.pubsub = pubsub
        self.names: dict[str, set[bytes]] = {"subscribe": set(), "psubscribe": set()}
        self.count = 0

    def close(self) -> None:
        for kind in self.names:
            self.leave(kind, ())

    @command("PING", "subscriptions")
    def ping(self, message: bytes | None = None) -> Reply:
        if self.count:
            return [b"pong", message or b""]
        return "PONG" if message is None else message

    @command("PUBLISH", "subscriptions")
    def publish(self, channel: bytes, message: bytes) -> Reply:
        return self.pubsub.publish(channel, message)

    @command("SUBSCRIBE", "subscriptions")
    def subscribe(self, name: bytes, *names: bytes) -> Replies:
        return self.join("subscribe", (name, *names))

    @command("PSUBSCRIBE", "subscriptions")
    def psubscribe(self, name: bytes, *names: bytes) -> Replies:
        for each in (name, *names):
            compile_pattern(each)  # or raises an error
        return self.join("psubscribe", (name, *names))

    @command("UNSUBSCRIBE", "subscriptions")
    def unsubscribe(self, *names: bytes) -> Replies:
        return self.leave("subscribe", names)

    @command("PUNSUBSCRIBE", "subscriptions")
    def punsubscribe(self, *names: bytes) -> Replies:
        return self.leave("psubscribe", names)

    def join(self, kind: str, names: tuple[bytes, ...]) -> Replies:
        check_names(self.names[kind].union(names))
        replies = Replies()
        for name in names:
            if name not in self.names[kind]:
                self.pubsub.join(self.client, kind, name)
                self.names[kind].add(name)
                self.count += 1
            replies.append([kind.encode(), name, self.count])
        return replies

    def leave(self, kind: str, names: tuple[bytes, ...]) -> Replies:
        replies = Replies()
        for name in names or sorted(self.names[kind]):
            if name in self.names[kind]:
                self.names[kind].remove(name)
                self.count -= 1
                self.pubsub.leave(self.client, kind, name)
            replies.append([kind.replace("sub", "unsub").encode(), name, self.count])
        if not replies:
            replies.append([kind.replace("sub", "unsub").encode(), None, self.count])
        return replies
