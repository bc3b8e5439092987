"""What Twisted sends and receives, over a connection."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from tests.serializers.framing.lengths import Prefixed

PROGRAM = Path(__file__).with_name("twisted_peer.py")
TIMEOUT = 30.0  # Seconds, for an interpreter to start or end on a busy machine.


@contextmanager
def twisted_peer(receiver: str) -> Iterator[int]:
    """Run the program for one connection; yield its port."""
    command = [sys.executable, str(PROGRAM), receiver]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], TIMEOUT)[0], "it does not start"
            yield int(process.stdout.readline())
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("make", [StreamProtocol, BufferedStreamProtocol])
@pytest.mark.parametrize(
    ("receiver", "length", "longest"),
    [
        ("Int8StringReceiver", "u8", 255),
        ("Int16StringReceiver", "u16", 65535),
        ("Int32StringReceiver", "u32", 90_000),
        ("NetstringReceiver", "netstring", 90_000),
    ],
)
def test_twisted(make: Any, receiver: str, length: Any, longest: int) -> None:
    """Packets of all sizes come back from a program that has nothing of ours in it."""
    protocol = make(Prefixed(length, limit=90_000))
    packets = [bytes(range(size % 256)) + b"x" * (size - size % 256) for size in range(0, 256, 5)]
    packets += [b"1:," * (longest // 3), bytes(longest)]

    with (
        twisted_peer(receiver) as port,
        TCPNetworkClient(("127.0.0.1", port), protocol) as client,
    ):
        for packet in packets:
            client.send_packet(packet)
        found = [client.recv_packet(timeout=TIMEOUT) for _ in packets]

    assert found == [packet[::-1] for packet in packets]
