from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import string
from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError
from easynetwork.serializers import Base64EncoderSerializer, JSONSerializer, NetstringSerializer
from easynetwork.serializers.abc import SeparatorFraming
from tests.tools import check_every_cut, parse_one

RAW = NetstringSerializer()  # One-shot, its packets are the bytes themselves.
KEY = Base64EncoderSerializer.generate_key()
INVALID = (IncrementalDeserializeError, "Error when deserializing data: Invalid token")

Alphabet = Literal["standard", "urlsafe"]


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = Base64EncoderSerializer(RAW, separator=b"|", limit=100, debug=True)

    assert serializer.framing() == SeparatorFraming(b"|", 100)
    assert serializer.separator == b"|"
    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert Base64EncoderSerializer(RAW).framing() == SeparatorFraming(b"\r\n", 65536)
    assert not hasattr(serializer, "__dict__")


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"serializer": None}, TypeError, "Expected a serializer instance, got None"),
        ({"alphabet": "greek"}, TypeError, "Invalid alphabet argument"),
        ({"checksum": 1}, TypeError, "Invalid checksum argument"),
        ({"checksum": None}, TypeError, "Invalid checksum argument"),
        *(
            (
                {"checksum": key},
                ValueError,
                "signing key must be 32 url-safe base64-encoded bytes.",
            )
            for key in ("", b"", "secret", "é", KEY[:-4], KEY + b"AAAA")
        ),
        ({"separator": b""}, ValueError, "Empty separator"),
        ({"limit": 0}, ValueError, "limit must be a positive integer"),
    ],
)
def test_wrong_options(options: Any, error_type: type[Exception], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(error_type) as caught:
        Base64EncoderSerializer(**{"serializer": RAW, **options})
    assert str(caught.value) == message


def test_generate_key() -> None:
    """A key is 32 bytes, random ones."""
    assert len(base64.urlsafe_b64decode(KEY)) == 32
    assert Base64EncoderSerializer.generate_key() != KEY


@given(st.binary())
def test_alphabets(packet: bytes) -> None:
    """The text is that of the base64 module."""
    for alphabet, encode in (
        ("urlsafe", base64.urlsafe_b64encode),
        ("standard", base64.standard_b64encode),
    ):
        serializer: Any = Base64EncoderSerializer(RAW, alphabet=alphabet)  # type: ignore[arg-type]  # It is one of them.
        assert serializer.serialize(packet) == encode(packet)
        assert serializer.deserialize(encode(packet)) == packet


@given(st.binary())
def test_checksums(packet: bytes) -> None:
    """What is behind a packet is its SHA-256, or its HMAC with the key."""
    secret = base64.urlsafe_b64decode(KEY)
    for checksum, digest in (
        (True, hashlib.sha256(packet).digest()),
        (KEY, hmac.new(secret, packet, "sha256").digest()),
        (KEY.decode(), hmac.new(secret, packet, "sha256").digest()),
    ):
        serializer = Base64EncoderSerializer(RAW, checksum=checksum)
        data = base64.urlsafe_b64encode(packet + digest)
        assert serializer.serialize(packet) == data
        assert serializer.deserialize(data) == packet


@pytest.mark.parametrize("checksum", [True, KEY], ids=["digest", "signature"])
def test_wrong_checksum(checksum: bool | bytes) -> None:
    """A packet that is not as it was sent is refused, whichever of its bits is another one."""
    serializer = Base64EncoderSerializer(RAW, checksum=checksum, debug=True)
    decoded = base64.urlsafe_b64decode(serializer.serialize(b"hi"))
    for position in range(len(decoded)):
        changed = bytearray(decoded)
        changed[position] ^= 1
        data = base64.urlsafe_b64encode(changed)
        with pytest.raises(DeserializeError, match="^Invalid token$") as caught:
            serializer.deserialize(data)
        assert caught.value.error_info == {"data": data}
    for data in b"", b"aGk=", base64.urlsafe_b64encode(bytes(31)):
        with pytest.raises(DeserializeError, match="^Invalid token$"):
            serializer.deserialize(data)


@given(
    st.binary(max_size=10), st.sampled_from(["urlsafe", "standard"]), st.sampled_from([False, KEY])
)
def test_one_spelling(packet: bytes, alphabet: Alphabet, checksum: bool | bytes) -> None:
    """What stands for a packet is what is sent for it, to the last bit."""
    serializer = Base64EncoderSerializer(RAW, alphabet=alphabet, checksum=checksum)
    data = serializer.serialize(packet)
    text = data.rstrip(b"=")
    for other in string.ascii_letters + string.digits + "+/-_":
        spelling = text[:-1] + other.encode() + data[len(text) :]
        if spelling != data:
            with contextlib.suppress(DeserializeError):
                assert serializer.deserialize(spelling) != packet


def test_other_key() -> None:
    """Who has another key, or none, cannot sign."""
    serializer = Base64EncoderSerializer(RAW, checksum=KEY)
    for checksum in Base64EncoderSerializer.generate_key(), True, False:
        other = Base64EncoderSerializer(RAW, checksum=checksum)
        with pytest.raises(DeserializeError, match="^Invalid token$"):
            serializer.deserialize(other.serialize(b"hi"))


@pytest.mark.parametrize(
    ("alphabet", "data"),
    [
        *(
            ("urlsafe", data)
            for data in (b"a", b"aGk", b"aG k=", b"aGk=aGk=", b"aGk=\n", b"=", b"*")
        ),
        ("urlsafe", b"++//"),
        ("standard", b"--__"),
        ("standard", b"\xff\xff\xff\xff"),
    ],
)
def test_not_base64(alphabet: Alphabet, data: bytes) -> None:
    """Only what an encoder would write is read."""
    with pytest.raises(DeserializeError, match="^Invalid token$") as caught:
        Base64EncoderSerializer(RAW, alphabet=alphabet).deserialize(data)
    assert caught.value.error_info is None
    with pytest.raises(DeserializeError) as caught:
        Base64EncoderSerializer(RAW, alphabet=alphabet, debug=True).deserialize(data)
    assert caught.value.error_info == {"data": data}


def test_inner_error() -> None:
    """What the serializer inside refuses is refused for its reason."""
    serializer = Base64EncoderSerializer(JSONSerializer(debug=True))
    data = base64.urlsafe_b64encode(b"}")
    with pytest.raises(DeserializeError, match="^JSON decode error: ") as caught:
        serializer.deserialize(data)
    assert caught.value.error_info["document"] == "}"
    with pytest.raises(
        IncrementalDeserializeError, match="^Error when deserializing data: JSON decode error: "
    ) as incremental:
        parse_one(serializer.incremental_deserialize(), data + b"\r\nrest")
    assert incremental.value.remaining_data == b"rest"
    assert incremental.value.error_info["document"] == "}"


def test_stream() -> None:
    """Each packet is a line, and a bad one hurts nobody."""
    check_every_cut(
        Base64EncoderSerializer(RAW).incremental_deserialize,
        b"aGk=\r\n*\r\n\r\naGk=\r\n",
        [b"hi", INVALID, b"", b"hi"],
        trailing=b"aG",
    )


def test_separator_in_text() -> None:
    """A separator that is also a letter is noticed when it does harm; white space never is one."""
    serializer = Base64EncoderSerializer(RAW, separator=b"Gk")
    with pytest.raises(ValueError, match="separator found in serialized packet"):
        list(serializer.incremental_serialize(b"hi"))
    assert list(serializer.incremental_serialize(b"a")) == [b"YQ==Gk"]
    assert list(Base64EncoderSerializer(RAW).incremental_serialize(b"hi")) == [b"aGk=\r\n"]


def test_cause_of_a_bad_key() -> None:
    """What base64 has against a key is not kept back."""
    with pytest.raises(ValueError, match="^signing key must be") as caught:
        Base64EncoderSerializer(RAW, checksum="*")
    assert isinstance(caught.value.__cause__, binascii.Error)
