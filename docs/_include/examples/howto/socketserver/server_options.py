from __future__ import annotations

from typing import Any

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import ForkingTCPServer, TCPServer, ThreadingTCPServer


def server_with_protocol(address: Any, handler_class: Any) -> TCPServer:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    return TCPServer(address, handler_class, protocol=protocol)


def server_with_bounds(address: Any, handler_class: Any) -> ThreadingTCPServer:
    return ThreadingTCPServer(address, handler_class, max_threads=50, close_timeout=5.0)


class ForkingServer(ForkingTCPServer):
    max_children = 8


def server_with_bounded_processes(address: Any, handler_class: Any) -> ForkingServer:
    return ForkingServer(address, handler_class, close_timeout=5.0)
