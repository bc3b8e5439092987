"""Functions that show one thing each, for the how-to page about UDP clients: those that block."""

from __future__ import annotations

import errno
import itertools
import socket
from typing import TypeAlias

from easynetwork.clients import UDPNetworkClient
from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer

protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

Client: TypeAlias = UDPNetworkClient[str, str]


def make_client(host: str, port: int) -> Client:
    return UDPNetworkClient(
        (host, port),
        protocol,
        local_address=("127.0.0.1", 0),  # any free port of this interface
        family=socket.AF_INET,  # only addresses of IPv4
    )


def greet_over(sock: socket.socket) -> str:
    with UDPNetworkClient(sock, protocol) as client:
        client.send_packet("Zoë")
        return client.recv_packet(timeout=5.0)


def wait_for_news(client: Client, patience: float = 30.0) -> str:
    try:
        return client.recv_packet(timeout=patience)
    except TimeoutError:
        return "no news"


question_numbers = itertools.count(1)


def ask(
    client: Client,
    question: str,
    attempts: int = 3,
    patience: float = 1.0,
) -> str:
    number = str(next(question_numbers))
    for _ in range(attempts):
        client.send_packet(f"{number} {question}")
        for answer in client.iter_received_packets(timeout=patience):
            answered, _, text = answer.partition(" ")
            if answered == number:
                return text
    raise TimeoutError(f"no answer in {attempts} attempts")


def receive_text(client: Client) -> str:
    while True:
        try:
            return client.recv_packet(timeout=30.0)
        except DatagramProtocolParseError as exc:
            print(f"Skipped what is not text: {exc.error}")


def send(client: Client, packet: str) -> str:
    try:
        client.send_packet(packet)
    except ConnectionRefusedError:
        return "nobody listens at that port, or nobody did before"
    except OSError as exc:
        if exc.errno == errno.EMSGSIZE:
            return "too long"
        return f"not sent: {exc}"
    return "sent"


def make_room_for_bursts(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
