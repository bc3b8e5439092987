"""How a handler's generator is driven, whatever its packets travel in.

The session that owns a generator takes every step of it in its own task. What the steps of all
sessions have in common is here: what a yielded value means, how an exception is thrown in, and how
the generator is closed.

Only the first step is written out in each session, to spare each request a call. It runs with the
event loop's `firstiter` hook off (`sys.set_asyncgen_hooks`). The loop need not track the generator,
because the session closes it, and the hook costs more than the rest of the start.

A KeyboardInterrupt may come between two steps, and leave the generator open. When it becomes
garbage, the loop may have ended, and its hook for that would fail. So streams `abandon()` it, and
datagrams turn that hook off as well, which costs a fortieth of a request on a stream (measured).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import anyio

from easynetwork._arguments import validated_delay
from easynetwork.addresses._ancillary import RawAncillary
from easynetwork.servers.handlers import RecvAncillaryDataParams, RecvParams, Yielded

Hook: TypeAlias = Callable[[AsyncGenerator[Any, Any]], None] | None
Hooks: TypeAlias = tuple[Hook, Hook]
"""What an event loop has called when an asynchronous generator is first iterated, and when one is
garbage (`sys.set_asyncgen_hooks`)."""


def not_a_generator(result: object) -> TypeError:
    """Return the error of a `handle()` that has returned something else."""
    if inspect.iscoroutine(result):
        result.close()  # otherwise, Python warns that it was never awaited
        return TypeError(
            "handle() must be an asynchronous generator function, but it has no yield: "
            "`request = yield` waits for a request"
        )
    return TypeError(
        f"handle() must be an asynchronous generator function, but it returned {result!r}"
    )


def timeout_of(yielded: Yielded) -> float | None:
    """Return the seconds that a handler asks to wait; None for ever.

    Raises:
        TypeError: The handler yielded something that is no timeout.
        ValueError: It is no number of seconds.
    """
    timeout = yielded.timeout if isinstance(yielded, RecvParams) else yielded
    if isinstance(yielded, RecvParams):
        ancillary: object = yielded.recv_with_ancillary
        if not isinstance(ancillary, RecvAncillaryDataParams | None):
            raise TypeError(f"Expected a RecvAncillaryDataParams object, got {ancillary!r}")
    try:
        validated_delay(timeout)
    except TypeError as exc:
        exc.add_note(
            f"handle() yielded {yielded!r}: a handler yields None, a number of seconds or "
            "RecvParams to wait for a request. To answer, call client.send_packet()"
        )
        raise
    return timeout


def deliver_ancillary(params: RecvAncillaryDataParams, ancillary: RawAncillary) -> None:
    """Hand ancillary data over to a handler.

    Raises:
        RuntimeError: The handler's function failed (the cause).
    """
    try:
        params.data_received(ancillary)
    except Exception as exc:
        raise RuntimeError("RecvAncillaryDataParams.data_received() crashed") from exc


class Session(Protocol):
    """The owner of a generator.

    Attributes:
        thrown: The exception that was raised at the last `yield`, if another one, or it, has left
            the generator there.
    """

    thrown: BaseException | None

    def is_cancelled(self) -> bool:
        """Whether the current task is to end, and not just a scope that its handler has opened."""


async def throw_in(
    generator: AsyncGenerator[Yielded, Any], exc: BaseException, session: Session
) -> Yielded:
    """Raise an exception at a generator's `yield`, and return what it yields next.

    Args:
        generator: The generator.
        exc: The exception.
        session: Takes note of `exc` if an exception leaves the generator.

    Raises:
        StopAsyncIteration: The generator has returned.
        BaseException: What left it.
    """
    try:
        yielded = await generator.athrow(exc)
        if (
            not isinstance(exc, Exception)
            and session.is_cancelled()
            and anyio.current_effective_deadline() == -math.inf  # the handler shields nothing
        ):
            # The handler caught its cancellation and goes on as if nothing had happened. There is
            # nothing for it to wait for any more.
            await close(generator)
            raise exc
        return yielded
    except StopAsyncIteration:
        raise
    except BaseException:
        session.thrown = exc
        raise
    finally:
        del exc  # its traceback refers to this frame, and to what the peer sent


async def close(generator: AsyncGenerator[Yielded, Any]) -> None:
    """Raise GeneratorExit at a generator's `yield`.

    Raises:
        RuntimeError: The generator has yielded again.
        BaseException: What left it.
    """
    try:
        await generator.aclose()
    except RuntimeError as exc:
        if generator.ag_frame is not None:  # type: ignore[attr-defined]  # it has not ended
            exc.add_note(
                "handle() must not yield again after GeneratorExit: there will be no more requests"
            )
        raise


def abandon(generator: AsyncGenerator[Yielded, Any] | None) -> None:
    """Close a generator that a KeyboardInterrupt has left open, as far as it does not wait."""
    if generator is not None:
        with suppress(Exception, GeneratorExit):
            generator.aclose().send(None)
