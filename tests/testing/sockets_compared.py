"""Real sockets on the loopback interface and sockets in memory, side by side."""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from typing import Any, Final

from easynetwork.testing._memory.datagrams import MemoryDatagramSocket
from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.sockets import BaseMemorySocket
from easynetwork.testing._memory.streams import MemorySocket, new_pair
from tests.times import PATIENCE

ADDRESSES: Final = ("198.51.100.1", 1), ("192.0.2.1", 2)


def real_pair(**options: int) -> tuple[socket.socket, socket.socket]:
    """Return two non-blocking TCP sockets that are connected.

    Args:
        **options: Options of the level SOL_SOCKET that both get.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    for sock in left, right:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_options(sock, options)
    return left, right


def memory_pair(
    faults: Faults | None = None, seed: int = 0, **options: int
) -> tuple[MemorySocket, MemorySocket]:
    """Return two sockets in memory that are connected; what the first one sends has faults."""
    choices = random.Random(seed), random.Random(seed + 1)
    pair = new_pair(ADDRESSES, (faults or Faults(), Faults()), choices)
    for sock in pair:
        set_options(sock, options)
    return pair


def set_options(sock: Any, options: dict[str, int]) -> None:
    for name, value in options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)


def real_datagrams() -> dict[str, Any]:
    """Return a server's socket and those of two clients."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    sockets = {"server": server}
    for name in "ab":
        sockets[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets[name].connect(server.getsockname())
    for sock in sockets.values():
        sock.setblocking(False)
    return sockets


def memory_datagrams() -> dict[str, Any]:
    """Return the same in memory."""
    network = MemoryNetwork()
    server = network.bind()
    return {"server": server, **{name: network.bind(server.getsockname()) for name in "ab"}}


def outcome(sock: Any, name: str, *arguments: Any) -> Any:
    """Return what a method of a socket returns, or the name of its error."""
    try:
        return getattr(sock, name)(*arguments)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def state(sock: Any) -> tuple[bool, bool]:
    """Return whether there is something to receive, and whether an error is pending."""
    if sock.fileno() < 0:
        return False, False
    if isinstance(sock, MemoryDatagramSocket):
        return bool(sock._queue), bool(sock._error)
    if isinstance(sock, BaseMemorySocket):
        return sock.is_readable(), bool(sock._error)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    [events] = [events for _, events in poll.poll(0)] or [0]
    return bool(events & select.POLLIN), bool(events & select.POLLERR)


class Compared:
    """Does the same with real sockets and with others, and checks that the same comes of it.

    Args:
        real: Real sockets, by their names.
        memory: Those in memory.
    """

    def __init__(self, real: dict[str, Any], memory: dict[str, Any]) -> None:
        self.real, self.memory = real, memory
        # Addresses are other ones, so their owners stand for them.
        self._owners = [
            {sock.getsockname(): name for name, sock in sockets.items()}
            for sockets in (real, memory)
        ]

    def do(self, name: str, method: str, *arguments: Any) -> Any:
        """Call a method of a socket; return what it returns, or the name of its error.

        Args:
            name: The name of the socket. One among the arguments stands for its address.
            method: The name of the method.
            *arguments: Its arguments.
        """
        results = []
        for sockets, owners in zip((self.real, self.memory), self._owners, strict=True):
            addresses = {owner: address for address, owner in owners.items()}
            exact = [addresses.get(each, each) for each in arguments]
            result = outcome(sockets[name], method, *exact)
            if isinstance(result, tuple):
                known = owners.get(result)
                result = known or tuple(owners.get(each, each) for each in result)
            results.append(result)
        assert results[0] == results[1], "the kernel, and memory"
        self.wait_until_equal()
        return results[0]

    def wait_until_equal(self) -> None:
        """Wait until the kernel has delivered what memory delivers at once."""
        deadline = time.monotonic() + PATIENCE / 5
        for name, real in self.real.items():
            while (expected := state(real)) != (found := state(self.memory[name])):
                assert time.monotonic() < deadline, f"{name}: {expected} in the kernel, {found}"
                time.sleep(0.0005)

    def close(self) -> None:
        for sock in (*self.real.values(), *self.memory.values()):
            sock.close()
