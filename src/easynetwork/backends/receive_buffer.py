"""One receive buffer for all connections of an event loop.

A chunk is copied out of it before the loop reads again, so an idle connection owns no buffer, and a
read does not allocate the most that could arrive (asyncio's own streams allocate 256 KiB for each).
"""

from __future__ import annotations

from typing import Final

from anyio.lowlevel import RunVar

_NOTHING: Final = memoryview(b"")

_view: Final = RunVar[memoryview]("_view")


def receive_view(size: int) -> memoryview:
    """Return a writable view of `size` bytes, lent to each connection for one read at a time.

    The same object for all connections, unless they differ in size: a view is 300 bytes itself.
    """
    view = _view.get(_NOTHING)
    if len(view) < size:
        view = memoryview(bytearray(size))
        _view.set(view)
    return view if len(view) == size else view[:size]
