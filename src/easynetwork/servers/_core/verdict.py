"""Judge an exception that has left the code serving one client: which side is at fault?

This is the boundary of one client. Whatever leaves its handler (an exception, a group of them, with
GeneratorExit or cancellations in it) ends that client only, and is reported once. Only a
KeyboardInterrupt passes.

    the server's own cancellation, the closing of the generator    expected: no report
    a parse error that was raised where it asked for a packet      the peer: one WARNING line
    the timeout with which it asked for a packet                   no fault: one DEBUG line
    ClientClosedError of this client                               the handler: a WARNING
    any other ConnectionError of this client                       no fault: no report
    anything else                                                  the handler: an ERROR
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from easynetwork.exceptions import BaseProtocolParseError, ClientClosedError
from easynetwork.servers._core.fault_log import ServerLog, printable


@dataclass(frozen=True, slots=True)
class Verdict:
    """The parts of an exception, by the side that is at fault.

    Attributes:
        crash: A bug of the handler.
        misuse: Operations on a client that the handler had closed.
        excused: These, and the ConnectionErrors of operations on a client that has left.
        fault: Invalid data of the peer.
        timeout: Whether the peer was silent for too long.
    """

    crash: Exception | None = None
    misuse: Exception | None = None
    excused: Exception | None = None
    fault: BaseProtocolParseError | None = None
    timeout: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether the handler was ended by an exception, and the client may still be there."""
        return self.crash is not None or self.fault is not None or self.timeout

    def report(self, address: object, log: ServerLog) -> None:
        """Log what there is to log.

        Args:
            address: The client's address.
            log: Where to log.
        """
        if self.fault is not None:
            log.fault("%s sent invalid data: %s", address, printable(self.fault.error))
        if self.timeout:
            log.log(logging.DEBUG, "%s sent nothing for too long", address)
        if self.misuse is not None:
            message = "There have been attempts to do operation on closed client %s"
            log.error(message, address, exc=self.misuse, level=logging.WARNING)
        if self.crash is not None:
            message = "Exception occurred during processing of request from %s"
            log.handler_errors += 1
            log.error(message, address, exc=self.crash)


NOTHING: Final = Verdict()
"""There is nothing to report."""


def judge(
    exc: BaseException,
    *,
    is_thrown: Callable[[BaseException], bool],
    is_excused: Callable[[BaseException], bool],
    is_stopping: bool,
    is_leaving: bool = False,
) -> Verdict:
    """Divide an exception into parts, by the side that is at fault.

    Args:
        exc: What left the handler.
        is_thrown: Whether an exception was raised where the handler has asked for a packet.
        is_excused: Whether an exception is due to a client that is gone.
        is_stopping: Whether the server stops, so that cancellations are expected.
        is_leaving: Whether the generator was being closed, so that GeneratorExit is expected.
    """
    expected: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
    if is_leaving:
        expected += (GeneratorExit,)
    if is_stopping:
        expected += (anyio.get_cancelled_exc_class(),)
    try:
        return _divide(exc, is_thrown, is_excused, expected)
    except Exception as error:  # of a handler's exception class, or it is nested too deeply
        return Verdict(crash=error.with_traceback(None))


def _divide(
    exc: BaseException,
    is_thrown: Callable[[BaseException], bool],
    is_excused: Callable[[BaseException], bool],
    expected: tuple[type[BaseException], ...],
) -> Verdict:
    rest = without(exc, lambda leaf: isinstance(leaf, expected))
    if rest is None:
        return NOTHING
    if not isinstance(rest, Exception):
        return Verdict(crash=as_exception(rest))
    thrown: list[BaseProtocolParseError | TimeoutError] = []

    def take_thrown(leaf: BaseException) -> bool:
        if isinstance(leaf, BaseProtocolParseError | TimeoutError) and is_thrown(leaf):
            thrown.append(leaf)
            return True
        return False

    rest = without(rest, take_thrown)
    fault = next((leaf for leaf in thrown if isinstance(leaf, BaseProtocolParseError)), None)
    is_timeout = any(isinstance(leaf, TimeoutError) for leaf in thrown)
    crash = without(rest, is_excused)
    excused = without(rest, lambda leaf: not is_excused(leaf))
    misuse = without(excused, lambda leaf: not isinstance(leaf, ClientClosedError))
    return Verdict(_exception(crash), _exception(misuse), _exception(excused), fault, is_timeout)


def interrupts(exc: object) -> bool:
    """Whether an exception is meant for the whole program."""
    # A loop: a group may be nested deeply, or of a class that cannot be split.
    pending = [exc]
    while pending:
        item = pending.pop()
        if isinstance(item, KeyboardInterrupt):
            return True
        if isinstance(item, BaseExceptionGroup):
            pending += item.exceptions
    return False


def without(
    exc: BaseException | None, drop: Callable[[BaseException], bool]
) -> BaseException | None:
    """Return an exception without the members of groups that are to be dropped.

    Returns:
        The very exception if nothing was dropped, None if nothing is left.
    """
    if isinstance(exc, BaseExceptionGroup):
        dropped, rest = exc.split(
            lambda leaf: not isinstance(leaf, BaseExceptionGroup) and drop(leaf)
        )
        return exc if dropped is None else rest
    return None if exc is None or drop(exc) else exc


def _exception(exc: BaseException | None) -> Exception | None:
    assert exc is None or isinstance(exc, Exception)  # what is not has become one
    return exc


def as_exception(exc: BaseException) -> Exception:
    """Return an Exception that says what is wrong with one that is not, its cause."""
    if without(exc, lambda leaf: isinstance(leaf, SystemExit)) is not exc:
        message = (
            "The handler raised SystemExit. That ends this client, not the program: catch it "
            "where it is raised (argparse raises it for wrong arguments)"
        )
    elif without(exc, lambda leaf: isinstance(leaf, anyio.get_cancelled_exc_class())) is not exc:
        message = "The handler let out a cancellation that was not its own"
    else:
        message = f"The handler raised {type(exc).__name__}, which is not an Exception"
    error = RuntimeError(message)
    error.__cause__ = exc
    return error


def scope_error(exc: RuntimeError) -> RuntimeError:
    """Return the error of a handler that has left a cancel scope open."""
    error = RuntimeError(
        "The handler left a cancel scope open. Leave it in the generator that has entered it, and "
        "close the generators that you do not exhaust (contextlib.aclosing)"
    )
    error.__cause__ = exc
    return error
