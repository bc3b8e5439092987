from __future__ import annotations

import contextlib
from typing import Any

from easynetwork.exceptions import DatagramProtocolParseError, StreamProtocolParseError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.socketserver import (
    DatagramPacketHandler,
    StreamPacketHandler,
    TCPServer,
    UDPServer,
)


class CountingRequestHandler(StreamPacketHandler[Any, Any]):
    """Sends back each packet, with its number."""

    protocol = StreamProtocol(JSONSerializer())

    def setup(self) -> None:
        super().setup()
        self.count = 0

    def handle(self) -> None:
        for packet in self.packets():
            self.count += 1
            self.send_packet({"number": self.count, "request": packet})

    def finish(self) -> None:
        print(f"{self.count} requests of {self.client_address[0]}")
        super().finish()


class PatientRequestHandler(StreamPacketHandler[Any, Any]):
    """Sends back each packet, and goes on after what is not a packet."""

    protocol = StreamProtocol(JSONSerializer())
    idle_timeout = 60.0

    def handle(self) -> None:
        while True:
            try:
                packet = self.recv_packet(timeout=self.idle_timeout)
            except StreamProtocolParseError:
                self.send_packet({"error": "invalid JSON"})
            except (ConnectionError, TimeoutError):
                return
            else:
                self.send_packet(packet)


class EchoDatagramHandler(DatagramPacketHandler[Any, Any]):
    """Sends back a datagram."""

    protocol = DatagramProtocol(JSONSerializer())

    def handle(self) -> None:
        self.send_packet(self.packet)

    def handle_invalid(self, exc: DatagramProtocolParseError) -> None:
        self.send_packet({"error": "invalid JSON"})


def main(server_class: type[TCPServer | UDPServer], handler_class: Any) -> None:
    with server_class(("localhost", 9000), handler_class) as server:
        server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(TCPServer, CountingRequestHandler)  # or main(UDPServer, EchoDatagramHandler)
