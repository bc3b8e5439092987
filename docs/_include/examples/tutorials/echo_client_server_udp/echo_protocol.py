from __future__ import annotations

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import JSONSerializer

host, port = "localhost", 9000
protocol = DatagramProtocol(JSONSerializer())

if __name__ == "__main__":
    for message in ("Hello", "How are you?"):
        print(protocol.make_datagram({"message": message}))
