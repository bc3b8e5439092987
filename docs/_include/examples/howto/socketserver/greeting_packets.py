from __future__ import annotations

import contextlib

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import StreamPacketHandler, ThreadingTCPServer


class GreetingRequestHandler(StreamPacketHandler[str, str]):
    """Responds to names with greetings."""

    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

    def handle(self) -> None:
        for name in self.packets():
            self.send_packet(f"Hello, {name}!")


def main() -> None:
    address = ("localhost", 9000)
    with ThreadingTCPServer(address, GreetingRequestHandler, close_timeout=1.0) as server:
        server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
