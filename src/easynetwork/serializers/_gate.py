"""Avoid re-running a parser that restarts from the beginning on every chunk."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")


def send_when_complete(
    parser: Generator[None, bytes, T],
    new_detector: Callable[[], Callable[[bytes], bool]],
    limit: int,
) -> Generator[None, bytes, T]:
    """Run `parser` on a packet, holding back chunks until they may complete it.

    The first chunk is not held back: most packets come in one. From then on each byte is looked at
    once, by the detector.

    Args:
        parser: A generator that is sent chunks and returns a packet.
        new_detector: Makes what is called with each chunk, the first one included, and returns
            whether the packet may be complete; it is the parser that decides. Once it returned
            True, it does so again.
        limit: How many bytes are held back at most; more are the parser's business.
    """
    next(parser)
    try:
        chunk = yield
        parser.send(chunk)
        may_end = new_detector()
        complete = may_end(chunk)
        size = len(chunk)
        while True:
            held = bytearray()
            while not held or not (complete or size > limit):
                chunk = yield
                complete = may_end(chunk)
                size += len(chunk)
                held += chunk
            parser.send(bytes(held))
    except StopIteration as stop:
        result: T = stop.value
        return result
