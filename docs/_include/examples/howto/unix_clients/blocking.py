"""Blocking example functions for the page about Unix clients. Each one shows one feature."""

from __future__ import annotations

import os
import socket
import ssl
from typing import BinaryIO, TypeAlias

from easynetwork.addresses import SocketAncillary
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer

protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
datagram_protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

Client: TypeAlias = UnixStreamClient[str, str]
DatagramClient: TypeAlias = UnixDatagramClient[str, str]


def make_client(path: str) -> Client:
    return UnixStreamClient(
        path,
        protocol,
        connect_timeout=5.0,  # seconds
    )


def greet_by_name(name: str) -> str:
    with UnixStreamClient(f"\0{name}", protocol) as client:
        client.send_packet("Zoë")
        return client.recv_packet()


def greet_over(sock: socket.socket) -> str:
    with UnixStreamClient(sock, protocol) as client:
        client.send_packet("Zoë")
        return client.recv_packet()


def greet_in_private(path: str, context: ssl.SSLContext) -> str:
    with UnixStreamClient(
        path,
        protocol,
        ssl=context,
        server_hostname="localhost",
    ) as client:
        client.send_packet("Zoë")
        return client.recv_packet()


def status(path: str, patience: float = 5.0) -> str:
    try:
        with UnixStreamClient(path, protocol, connect_timeout=patience):
            return "up"
    except FileNotFoundError:
        return "there is no such path"
    except ConnectionRefusedError:
        return "no server listens"
    except PermissionError:
        return "you may not connect"
    except TimeoutError:
        return "the server is too busy"
    except OSError as exc:
        return f"out of reach: {exc}"


def greet_as_user(path: str, uid: int) -> str:
    with UnixStreamClient(path, protocol) as client:
        if client.get_peer_credentials().uid != uid:
            raise PermissionError(f"{path} belongs to a server of another user")
        client.send_packet("Zoë")
        return client.recv_packet()


def make_datagram_client(path: str, local_path: str) -> DatagramClient:
    return UnixDatagramClient(path, datagram_protocol, local_path=local_path)


def log_warning(text: str, path: str = "/dev/log") -> None:
    with UnixDatagramClient(path, datagram_protocol) as client:
        client.send_packet(f"<12>example: {text}", timeout=1.0)


def rotate(path: str, new_file: BinaryIO) -> str:
    ancillary = SocketAncillary()
    ancillary.add_fds([new_file.fileno()])
    with UnixStreamClient(path, protocol) as client:
        client.send_packet("rotate", ancillary_data=ancillary)
        return client.recv_packet()


def read_received_file(path: str) -> bytes:
    with UnixStreamClient(path, protocol) as client:
        client.send_packet("send me the file")
        ancillary = SocketAncillary()
        try:
            client.recv_packet(timeout=5.0, ancillary_data=ancillary)
            [fd] = ancillary.iter_fds()
            return os.pread(fd, 65536, 0)
        finally:
            for fd in ancillary.iter_fds():
                os.close(fd)
