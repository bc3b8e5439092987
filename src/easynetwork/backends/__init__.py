"""Event loops: the contracts, their two implementations, and what these share.

`abc` is the contract. `asyncio` and `trio` implement it, twins with the same file and method names.
The modules on this level hold the bodies that both share.
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
