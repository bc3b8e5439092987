"""Blocking example functions for the page about UDP clients. Each one shows one feature."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import time
from typing import TypeAlias

from easynetwork.addresses import SocketAddress
from easynetwork.clients import UDPNetworkClient, UDPNetworkEndpoint
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
        family=socket.AF_INET,  # only IPv4 addresses
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


request_numbers = itertools.count()


def ask(
    client: Client,
    request: str,
    attempts: int = 3,
    patience: float = 1.0,
) -> str:
    number = str(next(request_numbers))
    for _ in range(attempts):
        client.send_packet(f"{number} {request}")
        for response in client.iter_received_packets(timeout=patience):
            response_number, _, text = response.partition(" ")
            if response_number == number:
                return text
    raise TimeoutError(f"no answer in {attempts} attempts")


def ask_despite_restart(
    client: Client,
    request: str,
    attempts: int = 10,
    patience: float = 1.0,
) -> str:
    number = str(next(request_numbers))
    for _ in range(attempts):
        deadline = time.monotonic() + patience
        with contextlib.suppress(ConnectionRefusedError):
            client.send_packet(f"{number} {request}")
        while (remaining := deadline - time.monotonic()) > 0:
            with contextlib.suppress(ConnectionRefusedError, TimeoutError):
                response = client.recv_packet(timeout=remaining)
                response_number, _, text = response.partition(" ")
                if response_number == number:
                    return text
    raise TimeoutError(f"no answer in {attempts} attempts")


def receive_text(client: Client) -> str:
    while True:
        try:
            return client.recv_packet(timeout=30.0)
        except DatagramProtocolParseError as exc:
            print(f"Skipped a datagram that is not text: {exc.error}")


def send(client: Client, packet: str) -> str:
    try:
        client.send_packet(packet)
    except ConnectionRefusedError:
        return "no program listens at that port, now or earlier"
    except OSError as exc:
        if exc.errno == errno.EMSGSIZE:
            return "too long"
        return f"not sent: {exc}"
    return "sent"


def ask_all(
    addresses: set[SocketAddress],
    request: str,
    patience: float = 1.0,
) -> dict[SocketAddress, str]:
    responses: dict[SocketAddress, str] = {}
    with UDPNetworkEndpoint(protocol) as endpoint:
        for address in addresses:
            endpoint.send_packet_to(request, address)
        while responses.keys() != addresses:
            response, sender = endpoint.recv_packet_from(timeout=patience)
            if sender in addresses:
                responses[sender] = response
    return responses


def make_room_for_bursts(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
