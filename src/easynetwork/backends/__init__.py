"""The loop: what the library asks of an asynchronous framework, and who answers.

`abc` is the contract. `asyncio` and `trio` hold the two implementations, twins with the same file
and method names; `sockets` opens and connects sockets on either of them.
"""

from __future__ import annotations

__all__ = [
    "AsyncBackend",
    "BuiltinAsyncBackendLiteral",
    "StreamTransport",
    "ensure_backend",
    "new_builtin_backend",
]

from easynetwork.backends.abc import AsyncBackend, StreamTransport
from easynetwork.backends.registry import (
    BuiltinAsyncBackendLiteral,
    ensure_backend,
    new_builtin_backend,
)
