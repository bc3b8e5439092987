from __future__ import annotations

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer

host, port = "localhost", 9000
protocol = StreamProtocol(JSONSerializer())

if __name__ == "__main__":
    for message in ("Hello", "How are you?"):
        print(*protocol.generate_chunks({"message": message}))
