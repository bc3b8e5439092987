from __future__ import annotations

from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer


def main(path: str) -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

    with UnixStreamClient(path, protocol, connect_timeout=5.0) as client:
        client.send_packet("Zoë")
        print(client.recv_packet(timeout=5.0))


if __name__ == "__main__":
    main("greeting.sock")
