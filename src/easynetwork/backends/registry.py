"""Find the backend that a constructor's argument stands for."""

from __future__ import annotations

__all__ = ["BuiltinAsyncBackendLiteral", "ensure_backend", "new_builtin_backend"]

import asyncio
from typing import Literal, TypeAlias, get_args

import anyio.lowlevel

from easynetwork._extras import requiring
from easynetwork.backends.abc import AsyncBackend
from easynetwork.backends.asyncio.backend import AsyncIOBackend

BuiltinAsyncBackendLiteral: TypeAlias = Literal["asyncio", "trio"]


def new_builtin_backend(name: str) -> AsyncBackend:
    """Return the backend of that name.

    Args:
        name: `"asyncio"` or `"trio"`.

    Raises:
        NotImplementedError: There is no backend of that name.
        ModuleNotFoundError: `"trio"` was asked for and is not installed.
    """
    match name:
        case "asyncio":
            return AsyncIOBackend()
        case "trio":
            with requiring("trio", "trio>=0.32"):
                from easynetwork.backends.trio.backend import TrioBackend  # optional dependency
            return TrioBackend()
        case _:
            known = ", ".join(map(repr, get_args(BuiltinAsyncBackendLiteral)))
            raise NotImplementedError(f"{name!r} is not a known backend; there are {known}")


def ensure_backend(backend: object) -> AsyncBackend:
    """Return the backend that the argument of a constructor stands for.

    Args:
        backend: An `AsyncBackend`, the name of one, or None for the framework that is running here.

    Raises:
        anyio.NoEventLoopError: None was given and no event loop is running in this thread.
        NotImplementedError: There is no backend of that name.
        TypeError: Anything else was given.
    """
    match backend:
        case AsyncBackend():
            return backend
        case str():
            return new_builtin_backend(backend)
        case None:
            token = anyio.lowlevel.current_token().native_token
            return new_builtin_backend(
                "asyncio" if isinstance(token, asyncio.AbstractEventLoop) else "trio"
            )
        case _:
            raise TypeError(
                "Expected either a string literal or a backend instance, "
                f"got {type(backend).__name__}"
            )
