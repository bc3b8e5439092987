from __future__ import annotations

import contextlib
import ipaddress
import os
from typing import Any

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import StreamPacketHandler, TCPServer


class EchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back one packet."""

    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

    def handle(self) -> None:
        self.send_packet(self.recv_packet())


class AdminRequestHandler(EchoRequestHandler):
    """Sends back one packet, to the administrator."""

    def handle(self) -> None:
        self.send_packet(f"Administrator: {self.recv_packet()}")


class SelectiveServer(TCPServer):
    """Refuses the clients of one network."""

    refused_network: Any = ipaddress.ip_network("192.0.2.0/24")

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return ipaddress.ip_address(client_address[0]) not in self.refused_network


class ProcessServer(TCPServer):
    """Handles each connection in a process of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.children: set[int] = set()
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        child = os.fork()
        if child:  # This is the server, which goes on.
            self.children.add(child)
            self.close_request(request)
            return

        status = 1
        try:
            self.finish_request(request, client_address)
            status = 0
        except Exception:
            self.handle_error(request, client_address)
        finally:
            try:
                self.shutdown_request(request)
            finally:
                os._exit(status)

    def service_actions(self) -> None:
        self.collect_children(os.WNOHANG)

    def server_close(self) -> None:
        super().server_close()
        self.collect_children(0)

    def collect_children(self, options: int) -> None:
        for child in list(self.children):
            pid, _ = os.waitpid(child, options)
            self.children.discard(pid)


class AdminServer(TCPServer):
    """Handles the clients of one network with another class."""

    admin_network: Any = ipaddress.ip_network("127.0.0.0/8")

    def finish_request(self, request: Any, client_address: Any) -> None:
        if ipaddress.ip_address(client_address[0]) in self.admin_network:
            AdminRequestHandler(request, client_address, self)
        else:
            super().finish_request(request, client_address)


class ErrorCountingServer(TCPServer):
    """Counts the exceptions of its handlers."""

    errors = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        super().handle_error(request, client_address)
        self.errors += 1


def main(server_class: type[TCPServer]) -> None:
    with server_class(("localhost", 9000), EchoRequestHandler) as server:
        server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(AdminServer)  # or another server class of this file
