"""A network of the test's own: only the loopback interface, with the addresses that it wants."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from tests.times import PATIENCE, SOON

LINK = (
    "link add link0 type veth peer name link1",
    "link set link0 addrgenmode none up",
    "link set link1 addrgenmode none up",
    "addr add fe80::1/64 dev link0 nodad",
)
"""What makes an interface with an address that is only valid on its link: see `own_network`."""


@contextlib.contextmanager
def own_network(*commands: str) -> Iterator[None]:
    """Let the current thread make its sockets in a network namespace of its own (Linux).

    Skips the test where that takes rights that it does not have, or a newer Python. The test must
    not start threads: they would stay in that network, and trio's wait for more work afterwards.

    Args:
        commands: What `ip` does there first, for example "addr add 192.0.2.1 dev lo".
    """
    with contextlib.ExitStack() as stack:
        if sys.platform != "linux" or sys.version_info < (3, 12):
            pytest.skip("network namespaces need Linux and Python 3.12")
        before = stack.enter_context(open("/proc/thread-self/ns/net", "rb"))
        try:
            os.unshare(os.CLONE_NEWNET)
        except OSError as exc:
            pytest.skip(f"there is no network of its own for this test: {exc}")
        stack.callback(os.setns, before.fileno(), os.CLONE_NEWNET)
        try:
            ip("link set lo up")
            for command in commands:
                ip(command)
        except (OSError, subprocess.CalledProcessError) as exc:
            pytest.skip(f"`ip` cannot set up a network: {exc}")
        yield


def ip(command: str) -> None:
    """Run a command of the program `ip`."""
    subprocess.run(["ip", *command.split()], check=True)


def wait_for_address(address: tuple[str, int, int, int]) -> None:
    """Wait until an IPv6 address can be used, which is later than `ip` has added it.

    When the kernel takes note that the link is up, maybe a second later, it makes its routes anew,
    and what is on its way then is lost.
    """
    host, _, *scope = address
    wait_until_up(socket.if_indextoname(scope[-1]))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with (
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock,
            contextlib.suppress(OSError),
        ):
            sock.settimeout(SOON)
            sock.bind((host, 0, *scope))
            sock.connect(sock.getsockname())
            sock.send(b"hello")
            sock.recv(100)
            return


def wait_until_up(link: str) -> None:
    """Wait until the kernel has taken note that a link is up."""
    deadline = time.monotonic() + PATIENCE
    show = ["ip", "link", "show", "dev", link]
    while time.monotonic() < deadline:
        if b"state UP" in subprocess.run(show, check=True, capture_output=True).stdout:
            return
        time.sleep(SOON / 10)


async def received_by(sock: socket.socket) -> tuple[bytes, tuple[Any, ...]]:
    """Return the next datagram of a socket and its sender, without a thread that waits."""
    await anyio.wait_readable(sock)
    data, sender = sock.recvfrom(100)
    return data, sender
