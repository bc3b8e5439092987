"""How a handler's generator is driven, whatever its packets travel in.

The session that owns a generator takes every step of it in its own task. What the steps of all
sessions have in common is here: how the first one is taken, what a yielded value means, how an
exception is thrown in, and who is told of one that leaves.
"""

from __future__ import annotations

__all__ = ["Hook", "own_error", "report_error", "start", "throw_in", "timeout_of"]

import logging
import math
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

import anyio

from easynetwork.backends._checks import check_delay
from easynetwork.exceptions import BaseProtocolParseError, ClientClosedError
from easynetwork.servers.handlers import RecvParams, Yielded
from easynetwork.servers.reports import PeerFaultLog, printable, split_errors

Hook: TypeAlias = Callable[[AsyncGenerator[Any, Any]], None] | None
"""Whom Python tells of an asynchronous generator that begins (`sys.set_asyncgen_hooks`)."""


def start(generator: AsyncGenerator[Yielded, Any], firstiter: Hook) -> Awaitable[Yielded]:
    """Return what runs a new generator up to its first `yield`.

    The event loop need not remember this generator: its session closes it, whatever happens. To
    tell the loop of it costs more than all the rest of starting it.

    Args:
        generator: The generator.
        firstiter: The event loop's hook, which is not called.
    """
    step = generator.asend
    sys.set_asyncgen_hooks(None)
    try:
        return step(None)
    finally:
        sys.set_asyncgen_hooks(firstiter)


def timeout_of(yielded: Yielded) -> float | None:
    """Return the seconds that a handler asks to wait; None for ever.

    Raises:
        TypeError: The handler did not yield a number.
        ValueError: It is no number of seconds.
    """
    timeout = yielded.timeout if isinstance(yielded, RecvParams) else yielded
    check_delay(timeout)
    return timeout


async def throw_in(generator: AsyncGenerator[Yielded, Any], exc: BaseException) -> Yielded:
    """Raise an exception at a generator's `yield`, and return what it yields next.

    Raises:
        StopAsyncIteration: The generator has returned.
        BaseException: What left it.
    """
    try:
        yielded = await generator.athrow(exc)
        if not isinstance(exc, Exception) and anyio.current_effective_deadline() == -math.inf:
            # The handler caught its cancellation and goes on as if nothing had happened. There is
            # nothing for it to wait for any more.
            await generator.aclose()
            raise exc
        return yielded
    finally:
        del exc  # its traceback refers to this frame, and to what the peer sent


def own_error(exc: BaseException) -> BaseException:
    """Return an exception that left a handler as its session sees it.

    A handler may let out a cancellation that nobody meant for its task: it awaited another task,
    which was cancelled. That is its mistake, and must not look as if the server was stopping.
    """
    is_cancelled = anyio.current_effective_deadline() == -math.inf
    if is_cancelled or not isinstance(exc, anyio.get_cancelled_exc_class()):
        return exc
    error = RuntimeError("The handler let out a cancellation that was not its own")
    error.__cause__ = exc
    return error


def report_error(
    error: Exception,
    let_out: BaseException | None,
    is_excused: Callable[[BaseException], bool],
    address: object,
    logger: logging.Logger,
    peer_faults: PeerFaultLog,
) -> None:
    """Log what left a handler, at the level of whose fault it is.

    Args:
        error: What left it.
        let_out: What was raised at the `yield` that it came from.
        is_excused: Whether an exception is what becomes of a client that is gone.
        address: The client's address.
        logger: Where to log.
        peer_faults: Where to log what is the peer's fault.
    """
    if isinstance(let_out, BaseProtocolParseError):
        fault, rest = split_errors(error, lambda exc: exc is let_out)
        if fault is not None:
            peer_faults.warning("%s sent invalid data: %s", address, printable(let_out.error))
        if rest is None:
            return
        error = rest
    misuse, _ = split_errors(error, lambda exc: isinstance(exc, ClientClosedError))
    if misuse is not None and split_errors(misuse, is_excused)[1] is None:
        logger.warning(
            "There have been attempts to do operation on closed client %s", address, exc_info=misuse
        )
    if (crash := split_errors(error, is_excused)[1]) is not None:
        logger.error(
            "Exception occurred during processing of request from %s", address, exc_info=crash
        )
