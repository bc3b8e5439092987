"""Blocking clients over TLS: what decrypts to nothing is no packet."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork.clients import TCPNetworkClient
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import RawSerializer, StringLineSerializer
from tests.times import MS, PATIENCE
from tests.tls_peers import client_context, new_server_context


@contextlib.contextmanager
def peer(data: bytes) -> Iterator[tuple[str, int]]:
    """Serve one connection: send bytes over TLS, each record in two pieces, and end the stream."""

    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            inner, outer = socket.socketpair()
            with inner, outer:
                tls = threading.Thread(target=send, args=(inner, data))
                tls.start()
                relay(outer, sock)
                tls.join(PATIENCE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()
        thread.join(PATIENCE)


def send(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError), new_server_context().wrap_socket(sock, True) as tls:
        tls.sendall(data)
        tls.unwrap()


def relay(server: socket.socket, client: socket.socket) -> None:
    """Pass everything on, what the server says in small pieces."""

    def to_server() -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(4096):
                server.sendall(data)

    thread = threading.Thread(target=to_server)
    thread.start()
    with contextlib.suppress(OSError):
        while data := server.recv(500):
            client.sendall(data)
            threading.Event().wait(MS)
        client.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


@pytest.mark.parametrize("starts_later", [False, True])
@pytest.mark.parametrize("make", [StreamProtocol, BufferedStreamProtocol])
@pytest.mark.parametrize(
    "serializer", [RawSerializer(), StringLineSerializer("any")], ids=["raw", "lines"]
)
def test_no_packet(serializer: Any, make: Any, starts_later: bool) -> None:
    """Neither the end of the handshake nor a part of a record is one."""
    options = {} if starts_later else {"ssl": client_context(), "server_hostname": "localhost"}
    with peer(b"x" * 3000 + b"\n") as address:
        client: Any = TCPNetworkClient(address, make(serializer), **options)  # type: ignore[arg-type]
        with client:
            if starts_later:
                client.start_tls(client_context(), server_hostname="localhost")
            received = []
            with pytest.raises(EndOfStreamError):
                while True:
                    received.append(client.recv_packet(timeout=PATIENCE))
    assert all(received)
    assert len(received[0]) == 3000 + isinstance(received[0], bytes)
