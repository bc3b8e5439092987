from __future__ import annotations

from easynetwork.serializers import JSONSerializer

serializer = JSONSerializer()

if __name__ == "__main__":
    data = serializer.serialize({"message": "Hello"})
    print("As bytes:", data)
    print("And back:", serializer.deserialize(data))
