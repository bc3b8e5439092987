"""The servers of a round, and the past that each is given before it is measured.

The past is a few clients that have left. It matters: asyncio reads 256 KiB at a time; glibc maps
memory for each such buffer and gives most of it back (``mmap``, ``mremap``, ``munmap``: three
system calls a read), until a buffer of that size is freed whole, as happens when a client leaves.
From then on it keeps them, for the rest of the process's life, and a request costs less than half.
Without a past, the ratios would depend on the order of the scenarios.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .certificates import certificate
from .contenders import Contender
from .links import WrongAnswerError, open_links
from .process import ServerError, ServerProcess
from .settings import Settings

__all__ = ["LINE_LIMIT", "Host"]

# Bytes. The longest line that servers accept, unless a scenario needs longer ones; a usual default.
LINE_LIMIT = 64 * 1024
# Clients that have left before anything is measured.
PAST_CLIENTS = 3


class Host:
    """The servers of one round: started when first asked for, ended together."""

    __slots__ = ("_servers", "_stack", "settings")

    def __init__(self, settings: Settings, stack: contextlib.ExitStack) -> None:
        self.settings = settings
        self._stack = stack
        self._servers: dict[tuple[str, int], ServerProcess] = {}

    @contextlib.contextmanager
    def server(self, contender: Contender, limit: int = LINE_LIMIT) -> Iterator[ServerProcess]:
        """Lend the round's server of a contender.

        Raises:
            ServerError: It did not start, or something went wrong with it inside the block.
        """
        key = (contender.name, limit)
        if key not in self._servers:
            server = self._stack.enter_context(self._start(contender, limit))
            self._servers[key] = server
            _give_a_past(contender, server)
        with _blamed(self._servers[key]) as server:
            yield server

    @contextlib.contextmanager
    def fresh(self, contender: Contender, *, past: bool = True) -> Iterator[ServerProcess]:
        """Start a server for the block alone; raises as `server` does."""
        with self._start(contender, LINE_LIMIT) as server, _blamed(server):
            if past:
                _give_a_past(contender, server)
            yield server

    def _start(self, contender: Contender, limit: int) -> ServerProcess:
        arguments = [str(limit), *contender.arguments]
        if contender.family == "tls":
            arguments.append(certificate())
        return ServerProcess(contender.program, arguments, core=self.settings.server_core)


def _give_a_past(contender: Contender, server: ServerProcess) -> None:
    with _blamed(server), open_links(contender.family, server.port, PAST_CLIENTS, size=64):
        pass


@contextlib.contextmanager
def _blamed(server: ServerProcess) -> Iterator[ServerProcess]:
    """Add the server's name, and the end of its standard error, to an error."""
    try:
        yield server
    except (OSError, WrongAnswerError) as exc:
        raise ServerError(f"{server.name}: {exc}; {server.last_words()}") from exc
