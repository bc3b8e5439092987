"""How much, and how long: what holds for the connections of every event loop."""

from __future__ import annotations

__all__ = [
    "CLOSE_TIMEOUT",
    "DATAGRAMS_SHARE",
    "FAIR_SHARE",
    "HIGH_WATER",
    "LINGER_SIZE",
    "LINGER_TIME",
    "PACKET_COST",
    "STOP_TIMEOUT",
]

from typing import Final

HIGH_WATER: Final = 64 * 1024
"""Bytes that may wait for one connection, each way, before their producer has to.

The default of asyncio's transports (`asyncio.WriteTransport.set_write_buffer_limits`), used on all
loops, and for what was received and not yet asked for.
"""

CLOSE_TIMEOUT: Final = 30.0
"""Seconds that a peer has to take what was sent before its connection was closed.

The default of asyncio for TLS (`ssl_shutdown_timeout`).
"""

FAIR_SHARE: Final = 256 * 1024
"""Bytes that may be sent over one connection before the event loop gets a turn.

A peer that reads as fast as somebody writes never makes them wait; without this they would hold the
loop for as long as they have something to say.
"""

PACKET_COST: Final = 256
"""What a packet costs besides its bytes, in bytes of that share: a thousand packets of one byte,
a few milliseconds' worth, are a turn's share as well."""

DATAGRAMS_SHARE: Final = 256
"""Datagrams that may be sent to one peer before the event loop gets a turn.

The kernel takes them as fast as they are made, so that nobody would ever have to wait.
"""

STOP_TIMEOUT: Final = 1.0
"""Seconds that the tasks of a server's clients have to end when they are cancelled."""

LINGER_TIME: Final = 1.0
"""Seconds that a closed connection goes on reading, see `StreamTransport.aclose`.

Time for a few round trips on any network. (nginx: `lingering_timeout`, 5 seconds.)
"""

LINGER_SIZE: Final = 16 * 1024 * 1024
"""Bytes that a closed connection reads meanwhile: more than a peer has on its way (the largest send
buffer on Linux has 4 MiB by default, tcp(7)), so one that goes on after that does not read."""
