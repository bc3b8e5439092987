"""What may go wrong on the way: the faults of a memory network, decided by a seed."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_NO_CUT = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to bytes and datagrams on their way in one direction.

    All choices are made by the seed of the network, the number of the connection and the direction:
    the same program gets the same faults, however its tasks take turns.

    Attributes:
        chunks: How the bytes of a connection are cut: at most so many arrive at a time. A list of
            numbers says so for one chunk after the other, and the rest is not cut; a `range` of
            numbers is one to choose from. None does not cut.
        latency: Seconds from sending to arrival, or a pair of the least and the most. Bytes stay in
            order; datagrams do if it is one number.
        reset_after: The connection is reset after so many bytes in this direction.
        truncate_after: The stream ends after so many bytes, as if the sender had closed it there,
            and the rest is lost.
        loss: The probability that a datagram is lost, from 0 to 1.
        duplicate: The probability that a datagram arrives twice.
        reorder: The probability that a datagram is overtaken by the next one of the same sender,
            or comes a tenth of a second late if there is none.

    Raises:
        ValueError: A number cannot be used.
    """

    chunks: int | Sequence[int] | None = None
    latency: float | tuple[float, float] = 0.0
    reset_after: int | None = None
    truncate_after: int | None = None
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        for name in "loss", "duplicate", "reorder":
            if not _is_between(0, getattr(self, name), 1):
                raise ValueError(f"{name} must be a probability, from 0 to 1")
        delays: Any = self.delays
        if len(delays) != 2 or not _is_between(0, *delays, sys.float_info.max):
            raise ValueError("latency must be seconds, or a pair of the least and the most")
        for name in "reset_after", "truncate_after":
            size = getattr(self, name)
            if size is not None and not (isinstance(size, int) and size >= 0):
                raise ValueError(f"{name} must be a number of bytes, not negative")
        if self.chunks is not None:
            sizes = self.chunks if isinstance(self.chunks, Sequence) else [self.chunks]
            ends = [*sizes[:1], *sizes[-1:]] if isinstance(sizes, range) else sizes
            if not ends or not all(isinstance(size, int) and size > 0 for size in ends):
                raise ValueError("chunks must be strictly positive numbers of bytes")

    @property
    def delays(self) -> tuple[float, float]:
        """The least and the most latency, in seconds."""
        return self.latency if isinstance(self.latency, tuple) else (self.latency, self.latency)

    def cuts(self, choices: random.Random) -> Iterator[int]:
        """Yield the length of one chunk after the other, in bytes."""
        chunks = self.chunks
        while isinstance(chunks, range):
            yield choices.choice(chunks)
        while isinstance(chunks, int):
            yield chunks
        yield from chunks or ()
        while True:
            yield _NO_CUT


def _is_between(*numbers: object) -> bool:
    """Whether these are numbers, each of them at least as large as the one before."""
    try:
        return all(one <= other for one, other in pairwise(numbers))  # type: ignore[operator]
    except TypeError:
        return False
