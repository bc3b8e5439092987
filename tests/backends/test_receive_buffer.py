from __future__ import annotations

import anyio.lowlevel
import pytest

from easynetwork.backends.receive_buffer import receive_view


@pytest.mark.anyio
async def test_one_buffer() -> None:
    """All connections of a loop receive into the same memory, as much of it as each wants."""
    small, large, medium, again = (receive_view(size) for size in (10, 1000, 100, 1000))
    assert [view.nbytes for view in (small, large, medium, again)] == [10, 1000, 100, 1000]
    assert not large.readonly

    medium[:5] = b"hello"

    assert large[:5] == again[:5] == b"hello"
    await anyio.lowlevel.checkpoint()
    assert receive_view(5) == b"hello"


def test_one_buffer_per_loop() -> None:
    """Two loops, which may run at the same time, do not share it."""

    async def view() -> memoryview:
        return receive_view(10)

    one, other = anyio.run(view), anyio.run(view)
    one[:] = b"x" * 10
    assert other != one
