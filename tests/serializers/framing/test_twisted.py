"""What Twisted sends and receives, over a connection."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from tests.serializers.framing.lengths import Prefixed

PROGRAM = Path(__file__).with_name("twisted_peer.py")
TIMEOUT = 30.0  # Seconds, for an interpreter to start or end on a busy machine.


# The class of Twisted, what it calls the length in front of a packet, and the longest packet.
FORMATS: list[tuple[str, Any, int]] = [
    ("Int8StringReceiver", "u8", 255),
    ("Int16StringReceiver", "u16", 65535),
    ("Int32StringReceiver", "u32", 90_000),
    ("NetstringReceiver", "netstring", 90_000),
]


@contextmanager
def twisted_peers(*receivers: str) -> Iterator[list[int]]:
    """Run the program while a block runs; yield its ports."""
    command = [sys.executable, str(PROGRAM), *receivers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], TIMEOUT)[0], "it does not start"
            yield [int(port) for port in process.stdout.readline().split()]
            process.stdin.close()
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


def test_twisted() -> None:
    """Packets of all sizes come back from a program that has nothing of ours in it."""
    with twisted_peers(*(receiver for receiver, _, _ in FORMATS)) as ports:
        for port, (receiver, length, longest) in zip(ports, FORMATS, strict=True):
            for make in StreamProtocol, BufferedStreamProtocol:
                check_format(make(Prefixed(length, limit=90_000)), port, receiver, longest)


def check_format(protocol: Any, port: int, receiver: str, longest: int) -> None:
    """Check that packets of all sizes come back from a port."""
    packets = [bytes(range(size % 256)) + b"x" * (size - size % 256) for size in range(0, 256, 5)]
    packets += [b"1:," * (longest // 3), bytes(longest)]

    with TCPNetworkClient(("127.0.0.1", port), protocol) as client:
        for packet in packets:
            client.send_packet(packet)
        found = [client.recv_packet(timeout=TIMEOUT) for _ in packets]

    assert found == [packet[::-1] for packet in packets], (receiver, protocol)
