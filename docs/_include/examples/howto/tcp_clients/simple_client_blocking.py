from __future__ import annotations

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer


def main(host: str, port: int) -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

    with TCPNetworkClient((host, port), protocol, connect_timeout=5.0) as client:
        client.send_packet("Zoë")
        print(client.recv_packet(timeout=5.0))


if __name__ == "__main__":
    main("localhost", 9000)
