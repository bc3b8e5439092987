from __future__ import annotations

from easynetwork.clients import UDPNetworkClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer


def main(host: str, port: int) -> None:
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

    with UDPNetworkClient((host, port), protocol) as client:
        client.send_packet("Zoë")
        print(client.recv_packet(timeout=5.0))


if __name__ == "__main__":
    main("localhost", 9000)
