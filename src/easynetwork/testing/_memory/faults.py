"""What may go wrong on the way: the faults of a memory network, decided by a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability, from 0 to 1")
        least, most = self.delays
        if not 0 <= least <= most < math.inf:
            raise ValueError("latency must be seconds, or a pair of the least and the most")
        for name in "reset_after", "truncate_after":
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative")
        sizes = [self.chunks] if isinstance(self.chunks, int) else self.chunks
        if sizes is not None and (not sizes or min(sizes) < 1):
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
