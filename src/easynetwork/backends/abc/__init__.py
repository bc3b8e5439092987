"""What the library asks of an event loop: the contracts that every backend keeps.

* `AsyncBackend`: a name, a way to run a program, factories, and one-line doors to anyio.
* `Listener`: where a server's connections come from. It hands over each of them as an `Incoming`.
* `StreamTransport`: one connection. `DatagramEndpoint`: one datagram socket.
* `SessionTasks`: owns the tasks in which a server's clients are served; `SessionObserver` is told
  about their failures.

Exceptions and guarantees are stated here, once; implementations do not repeat them.
"""

from __future__ import annotations

from easynetwork.backends.abc.backend import AsyncBackend
from easynetwork.backends.abc.datagram import Batch, DatagramEndpoint
from easynetwork.backends.abc.stream import (
    Incoming,
    Listener,
    StreamTransport,
    broken_connection,
    discard,
)
from easynetwork.backends.abc.tasks import Cancellable, SessionObserver, SessionTasks

__all__ = [
    "AsyncBackend",
    "Batch",
    "Cancellable",
    "DatagramEndpoint",
    "Incoming",
    "Listener",
    "SessionObserver",
    "SessionTasks",
    "StreamTransport",
    "broken_connection",
    "discard",
]
