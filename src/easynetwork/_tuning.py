"""Limits and timeouts shared by all backends, servers and clients."""

from __future__ import annotations

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

LOOK_SHARE: Final = 1 / 4
"""How late a server may notice that a client has taken something, as a share of `send_timeout`."""

SEND_BUDGET_BYTES: Final = 256 * 1024
"""Bytes that may be sent over one connection before the event loop gets a turn.

If the peer reads as fast as a task writes, `send_packet()` never has to wait. Without this limit,
that task would monopolise the event loop.
"""

SEND_BUDGET_PER_PACKET: Final = 256
"""What a packet costs besides its bytes, in bytes of that budget: a thousand packets of one byte, a
few milliseconds' worth, use it up as well."""

SEND_BUDGET_DATAGRAMS: Final = 256
"""Datagrams that may be sent to one peer before the event loop gets a turn.

The kernel takes them as fast as they are made, so no task would ever have to wait.
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
