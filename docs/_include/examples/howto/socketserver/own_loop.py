from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import StreamPacketHandler, TCPServer

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class EchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back one packet."""

    protocol = PROTOCOL

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            packet = self.recv_packet(timeout=1.0)
            self.send_packet(packet, timeout=1.0)


class EchoServer(TCPServer):
    """A server for event loops: handle_request() does not wait for clients."""

    timeout = 0


def run(server: EchoServer, control: socket.socket) -> None:
    """Serve until "stop" arrives at the other socket."""
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is server:
                    server.handle_request()
                elif (message := control.recv(100)) == b"stop":
                    print("Server stopped")
                    return
                else:
                    print(f"Message: {message.decode()}")


def visit(server_address: Any, control_address: Any) -> None:
    """Use both sockets."""
    with TCPNetworkClient(server_address, PROTOCOL) as client:
        client.send_packet("Hello, world")
        print(f"Received: {client.recv_packet()}")

    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"good night", control_address)
        sock.sendto(b"stop", control_address)


def main() -> None:
    with EchoServer(("127.0.0.1", 0), EchoRequestHandler) as server:
        with socket.socket(type=socket.SOCK_DGRAM) as control:
            control.bind(("127.0.0.1", 0))
            addresses = server.server_address, control.getsockname()
            visitor = threading.Thread(target=visit, args=addresses)
            visitor.start()
            run(server, control)
            visitor.join()


if __name__ == "__main__":
    main()
