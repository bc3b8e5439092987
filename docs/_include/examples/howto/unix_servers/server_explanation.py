"""Example servers for the page about Unix servers. Each one shows one argument."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeAlias

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncStreamRequestHandler

protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

Handler: TypeAlias = AsyncStreamRequestHandler[str, str]
Server: TypeAlias = AsyncUnixStreamServer[str, str]


def server_with_path(folder: Path, handler: Handler) -> Server:
    return AsyncUnixStreamServer(folder / "greeting.sock", protocol, handler)


def server_with_abstract_name(name: str, handler: Handler) -> Server:
    return AsyncUnixStreamServer(f"\0{name}", protocol, handler)


def server_for_group(path: str, handler: Handler) -> Server:
    return AsyncUnixStreamServer(path, protocol, handler, mode=0o660)


def server_after_crash(path: str, handler: Handler) -> Server:
    return AsyncUnixStreamServer(path, protocol, handler, unlink_stale=True)


def server_with_tls(path: str, handler: Handler, context: ssl.SSLContext) -> Server:
    return AsyncUnixStreamServer(path, protocol, handler, ssl=context)
