"""Blocking example functions for the page about TCP clients. Each one shows one feature."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import TypeAlias

from easynetwork.clients import TCPNetworkClient
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer

protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

Client: TypeAlias = TCPNetworkClient[str, str]


def make_client(host: str, port: int) -> Client:
    return TCPNetworkClient(
        (host, port),
        protocol,
        connect_timeout=5.0,  # seconds, for each address of the host
        local_address=("127.0.0.1", 0),  # any free port of this interface
    )


def greet_over(sock: socket.socket) -> str:
    with TCPNetworkClient(sock, protocol) as client:
        client.send_packet("Zoë")
        return client.recv_packet()


def greet_in_private(host: str, port: int) -> str:
    with TCPNetworkClient((host, port), protocol, ssl=True) as client:
        client.send_packet("Zoë")
        return client.recv_packet()


def greet_with_authority(host: str, port: int, authority: str = "authority.pem") -> str:
    context = ssl.create_default_context(cafile=authority)
    with TCPNetworkClient((host, port), protocol, ssl=context) as client:
        client.send_packet("Zoë")
        return client.recv_packet()


def status(host: str, port: int, patience: float = 5.0) -> str:
    try:
        with TCPNetworkClient((host, port), protocol, connect_timeout=patience):
            return "up"
    except ConnectionRefusedError:
        return "no program listens at that port"
    except socket.gaierror:
        return "there is no such host"
    except TimeoutError:
        return "no answer"
    except OSError as exc:
        return f"out of reach: {exc}"


def connect_patiently(
    host: str,
    port: int,
    delays: Iterable[float] = (0.5, 1.0, 2.0, 4.0),
) -> Client:
    for delay in delays:
        try:
            return TCPNetworkClient((host, port), protocol)
        except OSError as exc:
            print(f"{exc}. Next attempt in {delay} seconds")
            time.sleep(delay)
    return TCPNetworkClient((host, port), protocol)


def follow_news(
    host: str,
    port: int,
    first_delay: float = 0.5,
    longest_delay: float = 30.0,
) -> None:
    delay = first_delay
    while True:
        try:
            client = TCPNetworkClient((host, port), protocol, connect_timeout=5.0)
        except OSError as exc:
            print(f"Not connected: {exc}")
        else:
            with client:
                for news in client.iter_received_packets(timeout=None):
                    print(news)
                    delay = first_delay
            print("Disconnected")

        pause = delay * random.uniform(0.5, 1.0)
        print(f"Next attempt in {pause:.2f} seconds")
        time.sleep(pause)
        delay = min(2 * delay, longest_delay)


def wait_for_news(client: Client, patience: float = 30.0) -> str:
    try:
        return client.recv_packet(timeout=patience)
    except TimeoutError:
        return "no news"


def print_backlog(client: Client, patience: float = 1.0) -> None:
    client.send_packet("backlog")
    for line in client.iter_received_packets(timeout=patience):
        print(line)


def receive_text(client: Client) -> str:
    while True:
        try:
            return client.recv_packet()
        except StreamProtocolParseError as exc:
            print(f"Skipped a line that is not text: {exc.error}")


def count_lines(client: Client, lines: Iterable[str]) -> int:
    for line in lines:
        client.send_packet(line)
    client.send_eof()
    return int(client.recv_packet())


def print_news(client: Client) -> None:
    for news in client.iter_received_packets(timeout=None):
        print(news)


def chat(client: Client, messages: Iterable[str]) -> None:
    receiver = threading.Thread(target=print_news, args=(client,))
    receiver.start()
    try:
        for message in messages:
            client.send_packet(message)
    finally:
        client.close()  # also ends the loop in print_news()
        receiver.join()


def probe_when_idle(client: Client) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
