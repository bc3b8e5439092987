"""Connections that do nothing cost little memory and no time."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from tests.robustness.peers import connect, receive_exactly
from tests.robustness.process import ServerProcess
from tests.times import SOON

pytestmark = pytest.mark.in_turn

CONNECTIONS = 1000

# Bytes. Up to 5,900 on asyncio, 6,100 on uvloop and on trio (CPython 3.13).
LIMIT = 8 * 1024


# What idle connections have sent before: a request, the largest there may be, and what is none.
LAST_WORDS = {
    "small": b"echo x\n",
    "large": b"echo " + b"x" * 60_000 + b"\n",
    "bad": b"\xff" * 60_000 + b"\necho x\n",
}


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("last_words", LAST_WORDS)
@pytest.mark.cost
def test_idle_connections(loop: str, last_words: str) -> None:
    """An idle connection that has been served occupies at most 8 KiB, and does not work."""
    count = CONNECTIONS if last_words == "small" else CONNECTIONS // 4
    with ServerProcess(loop, "--survives") as server:
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(use(server, last_words))
            before = server.memory()
            for _ in range(count):
                stack.enter_context(use(server, last_words))
            assert (server.memory() - before) / count <= LIMIT
            assert is_at_rest(server)


# The bytes that a connection occupies, beside what has arrived of a packet, as long as it lasts: on
# CPython 3.13, 5,500 on asyncio and 5,900 on trio; 24,200 with TLS. And how much room is needed for
# that: 60,000 bytes occupy 61,000; those that come through TLS, in pieces, 82,000.
STATES = {"tcp": (8 * 1024, 1.03), "tls": (32 * 1024, 1.5)}


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("rest", [0, 1_000, 60_000], ids=["idle", "1 kB", "60 kB"])
@pytest.mark.cost
def test_states(loop: str, transport: list[str], rest: int) -> None:
    """A connection costs little, and half a packet what has arrived of it."""
    limit, factor = STATES["tls" if "--tls" in transport else "tcp"]
    count = 250
    with ServerProcess(loop, *transport) as server:
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(use(server, "small"))
            before = server.memory()
            for _ in range(count):
                stack.enter_context(use(server, "small")).sendall(b"x" * rest)
            use(server, "small").close()  # the server has read what came before
            assert (server.memory() - before) / count <= limit + factor * rest


def is_at_rest(server: ServerProcess) -> bool:
    """Whether the server does not work for a while.

    The first period may have work that was left to do; a second one has not.
    """
    for _ in range(2):
        work = server.processor_time()
        time.sleep(6 * SOON)
        if server.processor_time() - work < 0.01:
            return True
    return False


def use(server: ServerProcess, last_words: str) -> socket.socket:
    """Return a connection that has been served."""
    sock = connect(server)
    sock.sendall(LAST_WORDS[last_words])
    receive_exactly(sock, 60_001 if last_words == "large" else 2)
    return sock
