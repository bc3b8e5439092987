"""Compare the sizes of the same packet in several formats."""

from __future__ import annotations

from typing import Any, NamedTuple

from easynetwork.serializers import (
    Base64EncoderSerializer,
    CBORSerializer,
    JSONSerializer,
    MessagePackSerializer,
    NamedTupleStructSerializer,
    PickleSerializer,
)
from easynetwork.serializers.abc import AbstractPacketSerializer


class Reading(NamedTuple):
    sensor: str
    number: int
    celsius: float


FORMATS: dict[str, AbstractPacketSerializer[Any, Any]] = {
    "JSON": JSONSerializer(),
    "MessagePack": MessagePackSerializer(),
    "MessagePack in base64": Base64EncoderSerializer(MessagePackSerializer()),
    "CBOR": CBORSerializer(),
    "pickle": PickleSerializer(),
}
STRUCTURE = NamedTupleStructSerializer(Reading, {"sensor": "8s", "number": "I", "celsius": "f"})


def main() -> None:
    reading = Reading("kitchen", 7, 21.5)
    one = reading._asdict()
    many = [{**one, "number": number} for number in range(100)]
    print(f"{'':21} {'one':>5} {'a hundred':>9}")
    for name, serializer in FORMATS.items():
        sizes = [len(serializer.serialize(packet)) for packet in (one, many)]
        print(f"{name:21} {sizes[0]:5} {sizes[1]:9}")
    size = len(STRUCTURE.serialize(reading))
    print(f"{'structure':21} {size:5} {100 * size:9}")


if __name__ == "__main__":
    main()
