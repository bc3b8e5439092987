from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import pytest

from easynetwork.exceptions import DeserializeError
from easynetwork.serializers import PickleSerializer, pickle as module
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.serializers.pickle import PicklerConfig, UnpicklerConfig


class Numbers(pickle.Unpickler):
    """Knows no class at all."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is forbidden")


def test_warning() -> None:
    """Nobody can read about pickles without reading first what it means to accept one."""
    for documented in module, PickleSerializer:
        first_line = (documented.__doc__ or "").splitlines()[0]
        assert first_line.startswith("To accept a pickle is to run the program that is in it")


def test_one_shot() -> None:
    """Where a pickle ends is known only to who has run it: it is not looked for in a stream."""
    assert not isinstance(PickleSerializer(), AbstractIncrementalPacketSerializer)


def test_properties() -> None:
    """A serializer shows its options."""
    assert PickleSerializer(debug=True).debug is True
    assert PickleSerializer().debug is False
    assert not hasattr(PickleSerializer(), "__dict__")


def test_default_configuration() -> None:
    """Pickles are written in Python's default protocol; names are not those of Python 2."""
    assert PicklerConfig() == PicklerConfig(protocol=pickle.DEFAULT_PROTOCOL, fix_imports=False)
    assert UnpicklerConfig() == UnpicklerConfig(
        fix_imports=False, encoding="utf-8", errors="strict"
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("optimize", [False, True])
def test_round_trip(protocol: int, optimize: bool) -> None:
    """The bytes are pickle's, the packets are those that were sent."""
    serializer = PickleSerializer(PicklerConfig(protocol=protocol), pickler_optimize=optimize)
    packet = {"a": [1, 2.5, {"b", "c"}, "text"], "b": object}
    data = serializer.serialize(packet)

    assert pickle.loads(data) == serializer.deserialize(data) == packet
    plain = pickle.dumps(packet, protocol, fix_imports=False)
    assert data == (pickletools.optimize(plain) if optimize else plain)


def test_unpickler_configuration() -> None:
    """Pickles of Python 2 can be read."""
    data = b"c__builtin__\nxrange\n."
    config = UnpicklerConfig(fix_imports=True)

    assert PickleSerializer(unpickler_config=config).deserialize(data) is range
    assert PickleSerializer(unpickler_config=UnpicklerConfig(encoding="latin-1")).deserialize(
        b"U\x01\xe9."
    ) == ("é")


def test_classes() -> None:
    """Other classes can do the work; they are given all options by name."""
    calls = []

    def new(cls: Any) -> Any:
        def call(file: io.BytesIO, **options: Any) -> Any:
            calls.append(options)
            return cls(file, **options)

        return call

    serializer = PickleSerializer(
        pickler_cls=new(pickle.Pickler), unpickler_cls=new(pickle.Unpickler)
    )
    assert serializer.deserialize(serializer.serialize([1])) == [1]
    assert calls == [
        {"protocol": pickle.DEFAULT_PROTOCOL, "fix_imports": False, "buffer_callback": None},
        {"fix_imports": False, "encoding": "utf-8", "errors": "strict", "buffers": None},
    ]


def test_restricted_classes() -> None:
    """An unpickler that knows fewer classes refuses the others with an ordinary error."""
    serializer = PickleSerializer(unpickler_cls=Numbers)

    assert serializer.deserialize(pickle.dumps([1])) == [1]
    with pytest.raises(DeserializeError, match=r"^builtins\.print is forbidden$"):
        serializer.deserialize(pickle.dumps(print))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Ran out of input"),
        (b"\x80\x04K\x01", None),
        (b"\x80\xff.", "unsupported pickle protocol: 255"),
        (b"cno.such\nthing\n.", "No module named 'no'"),
        (b"garbage", None),
        (b"(((((", None),
        # Just short of what 32 bits can count, where the message is another one.
        (b"X\xff\xff\xff\x7e", "pickle data was truncated"),
    ],
)
def test_error(data: bytes, message: str | None) -> None:
    """Whatever goes wrong in a pickle is an ordinary error."""
    serializer = PickleSerializer(debug=True)
    with pytest.raises(DeserializeError) as caught:
        serializer.deserialize(data)
    assert message is None or str(caught.value) == message
    assert str(caught.value)
    assert caught.value.error_info == {"data": data}
    assert caught.value.__cause__ is not None
    with pytest.raises(DeserializeError) as caught:
        PickleSerializer().deserialize(data)
    assert caught.value.error_info is None


def test_error_without_message() -> None:
    """An exception that says nothing is an invalid token."""

    class Silent(pickle.Unpickler):
        def load(self) -> Any:
            raise KeyError

    with pytest.raises(DeserializeError, match=r"^Invalid token$"):
        PickleSerializer(unpickler_cls=Silent).deserialize(b"")


def test_extra_data() -> None:
    """A datagram is one pickle and nothing behind it."""
    with pytest.raises(DeserializeError, match=r"^Extra data caught$") as caught:
        PickleSerializer(debug=True).deserialize(pickle.dumps(1) + b"x")
    assert caught.value.error_info == {"packet": 1, "extra": b"x"}
    with pytest.raises(DeserializeError) as caught:
        PickleSerializer().deserialize(pickle.dumps(1) + b"x")
    assert caught.value.error_info is None


def test_serialize_error() -> None:
    """What cannot be pickled is the sender's error, unchanged."""
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        PickleSerializer().serialize(lambda: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pickler_config": UnpicklerConfig()},
            "Invalid pickler config: expected PicklerConfig, got UnpicklerConfig",
        ),
        (
            {"unpickler_config": 1},
            "Invalid unpickler config: expected UnpicklerConfig, got int",
        ),
    ],
)
def test_wrong_configuration(options: Any, message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(TypeError, match=f"^{message}$"):
        PickleSerializer(**options)
