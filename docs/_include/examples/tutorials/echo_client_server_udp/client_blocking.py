from __future__ import annotations

import sys

from echo_protocol import host, port, protocol

from easynetwork.clients import UDPNetworkClient


def main(messages: list[str]) -> None:
    with UDPNetworkClient((host, port), protocol) as client:
        for message in messages:
            client.send_packet({"message": message})
            response = client.recv_packet(timeout=5)
            print("From server:", response)


if __name__ == "__main__":
    main(sys.argv[1:])
