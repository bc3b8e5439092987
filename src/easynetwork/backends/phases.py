"""The phases of a connection's sending half.

It goes down this list, and may leave phases out:

    phase      begins with        write()  pending data  when that is sent        descriptor
    OPEN       the connection     yes      is sent       -                        open
    ENDING     send_eof()         yes      is sent       SHUT_WR (FIN)            open
    CLOSING    aclose()           yes (1)  is sent       -                        open
    FLUSHING   the last turn()    no       is sent       close, after lingering   open
    CLOSED     everything sent    no       none          -                        closed
    BROKEN     error, abort()     no       is lost       -                        until aclose()

    (1) by tasks that waited for their turn, and then by the `farewell` of `aclose()`
"""

from __future__ import annotations

import enum


class Phase(enum.IntEnum):
    """The phases of the sending half; see above."""

    OPEN = enum.auto()
    ENDING = enum.auto()
    CLOSING = enum.auto()
    FLUSHING = enum.auto()
    CLOSED = enum.auto()
    BROKEN = enum.auto()
