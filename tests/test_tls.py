from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, strategies as st

from easynetwork.tls import (
    MAX_EMPTY_RECORDS,
    MAX_HANDSHAKE_BYTES,
    MAX_REPLIES,
    RECORD_SIZE,
    TLSSession,
)
from tests.tls_forger import (
    ALERT,
    APPLICATION_DATA,
    CLOSE_NOTIFY,
    HANDSHAKE,
    HELLO_REQUEST,
    Forger12,
    Forger13,
)
from tests.tls_peers import NEWEST, VERSIONS, client_context, new_client_context, server_context
from tests.tools import byte_by_byte, whole

each_version = pytest.mark.parametrize("version", VERSIONS)
BOTH = st.sampled_from(VERSIONS)
# How long ciphertext is differs from run to run; so that hypothesis can repeat what it did, it
# chooses the sizes of the pieces.
SIZES = st.lists(st.integers(1, 2000) | st.integers(1, 30), min_size=1, max_size=10)
Cut = Callable[[bytes], Iterable[bytes]]


class Ends(NamedTuple):
    """The two ends of a connection, and what the server sent first."""

    client: TLSSession
    server: TLSSession
    server_hello: bytes = b""


def new_ends(version: ssl.TLSVersion = NEWEST, keys: Path | None = None) -> Ends:
    """Return two ends that have not talked to each other."""
    context = client_context(version)
    if keys is not None:
        context = new_client_context()
        context.maximum_version = version
        context.keylog_filename = str(keys)
    return Ends(
        TLSSession(context, server_hostname="localhost"),
        TLSSession(server_context(version), server_side=True),
    )


def connect(ends: Ends, cut: Cut = whole) -> Ends:
    """Do the handshake, and let everything that belongs to it arrive."""
    sender, receiver = ends.client, ends.server
    server_hello = b""
    while not (sender.is_established and receiver.is_established and not sender.has_output):
        if not sender.is_established:
            sender.handshake()
        output = sender.take_output()
        if sender is ends.server:
            server_hello = server_hello or output
        for piece in cut(output):
            assert receiver.receive(piece) == b""
            if not receiver.is_established:
                receiver.handshake()
        sender, receiver = receiver, sender
    for end in ends.client, ends.server:
        assert end.receive(b"") == b""
    return ends._replace(server_hello=server_hello)


def in_pieces(sizes: list[int]) -> Cut:
    """Return what cuts data in pieces of these sizes, again and again."""

    def cut(data: bytes) -> Iterator[bytes]:
        start = 0
        for size in itertools.cycle(sizes):
            if start >= len(data):
                break
            yield data[start : start + size]
            start += size

    return cut


def receive(end: TLSSession, pieces: Iterable[bytes]) -> bytes:
    """Return the plaintext of what arrives in pieces."""
    return b"".join(map(end.receive, pieces))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return where the secrets of a connection can be written to."""
    return tmp_path / "keys"


# -- The handshake -----------------------------------------------------------------------------


@each_version
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_handshake(version: ssl.TLSVersion, cut: Cut) -> None:
    """However it arrives, both ends agree on a version and on whom the client talks to."""
    client, server, _ = connect(new_ends(version), cut)

    assert client.is_established
    assert server.is_established
    assert client.object.version() == server.object.version() == version.name.replace("_", ".")
    assert client.object.getpeercert()


@given(BOTH, SIZES)
def test_handshake_in_any_pieces(version: ssl.TLSVersion, sizes: list[int]) -> None:
    """The same for any pieces; data can be exchanged then."""
    client, server, _ = connect(new_ends(version), in_pieces(sizes))

    assert server.receive(client.send(b"hello")) == b"hello"
    assert client.receive(server.send(b"hello")) == b"hello"


def test_nothing_before_the_handshake() -> None:
    """Whatever arrives before the handshake is complete, no plaintext comes of it."""
    client, server, _ = new_ends()
    client.handshake()

    assert server.receive(client.take_output()) == b""
    assert server.receive(b"\x17\x03\x03\0\5hello") == b""
    with pytest.raises(ssl.SSLError):
        while not server.handshake():
            pass
    assert not server.is_established


@each_version
def test_data_with_the_end_of_the_handshake(version: ssl.TLSVersion) -> None:
    """What comes together with the handshake's last message is there when it is complete."""
    client, server, _ = new_ends(version)
    sender, receiver = client, server
    while not sender.handshake():
        receiver.receive(sender.take_output())
        sender, receiver = receiver, sender

    together = sender.take_output() + sender.send(b"hello")
    assert receiver.receive(together[:-3]) == b""
    assert receiver.receive(together[-3:]) == b""
    assert receiver.handshake()
    assert receiver.receive(b"") == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(100),
        b"\x16\x03\x01\0\0" * 100,
        b"\0" * 100,
        b"hello\n",
    ],
)
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_no_handshake(data: bytes, cut: Cut) -> None:
    """What is not TLS is found out as soon as it is."""
    _, server, _ = new_ends()
    with pytest.raises(ssl.SSLError) as info:
        for piece in cut(data):
            server.receive(piece)
            server.handshake()
    assert not isinstance(info.value, ssl.SSLWantReadError)


def test_hello_without_end() -> None:
    """A peer that begins with its first message, and goes on and on, is turned away."""
    _, server, _ = new_ends()
    message = b"\1\1\xff\0\3\3" + bytes(0x1FEFE)
    sent = 0
    with pytest.raises(ssl.SSLError, match="still not a step of the handshake"):
        for start in range(0, len(message), RECORD_SIZE):
            record = b"\x16\3\1\x40\0" + message[start : start + RECORD_SIZE]
            sent += len(record)
            server.receive(record)
            assert not server.handshake()
    assert MAX_HANDSHAKE_BYTES < sent < MAX_HANDSHAKE_BYTES + 2 * RECORD_SIZE


def test_failed_handshake() -> None:
    """The end that does not want to go on says why; the other one gets to know."""
    client = TLSSession(ssl.create_default_context(), server_hostname="localhost")
    server = TLSSession(server_context(), server_side=True)
    client.handshake()
    server.receive(client.take_output())
    server.handshake()

    client.receive(server.take_output())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.handshake()
    server.receive(client.take_output())
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        server.handshake()


# -- Data --------------------------------------------------------------------------------------


@each_version
@pytest.mark.parametrize("size", [0, 1, 64, RECORD_SIZE, RECORD_SIZE + 1, 10 * RECORD_SIZE + 3])
def test_data(version: ssl.TLSVersion, size: int) -> None:
    """What goes in at one end comes out at the other, in as few records as possible."""
    for sender, receiver in (ends := connect(new_ends(version)))[:2], ends[1::-1]:
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        ciphertext = sender.send(data)
        assert receiver.receive(ciphertext) == data
        assert len(ciphertext) - size <= 32 * -(-size // RECORD_SIZE)


@given(BOTH, SIZES, st.lists(st.binary() | st.integers(0, 40_000).map(bytes), max_size=8))
def test_data_in_any_pieces(
    version: ssl.TLSVersion, sizes: list[int], messages: list[bytes]
) -> None:
    """However many records arrive, and however cut: nothing is lost, doubled or mixed up."""
    client, server, _ = connect(new_ends(version))
    ciphertext = b"".join(map(client.send, messages))
    assert receive(server, in_pieces(sizes)(ciphertext)) == b"".join(messages)


@each_version
def test_many_small_records(version: ssl.TLSVersion) -> None:
    """A chunk full of small records is decrypted at once."""
    client, server, _ = connect(new_ends(version))
    lines = [b"line %d\n" % number for number in range(2000)]
    assert server.receive(b"".join(map(client.send, lines))) == b"".join(lines)


def test_byte_by_byte() -> None:
    """A record comes out with its last byte."""
    client, server, _ = connect(new_ends())
    pieces = byte_by_byte(client.send(b"hello"))
    assert [server.receive(piece) for piece in pieces] == [b""] * (len(pieces) - 1) + [b"hello"]


def test_both_ways_at_once() -> None:
    """What is on its way in one direction does not matter in the other."""
    client, server, _ = connect(new_ends())
    first, *rest = byte_by_byte(client.send(b"a question"))
    server.receive(first)
    assert client.receive(server.send(b"an answer")) == b"an answer"
    assert receive(server, rest) == b"a question"


# -- The end -----------------------------------------------------------------------------------


@each_version
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_close(version: ssl.TLSVersion, cut: Cut) -> None:
    """An end that closes says so; that is the end of the stream, and a clean one."""
    client, server, _ = connect(new_ends(version))
    last_words = client.send(b"bye") + client.close()

    assert receive(server, cut(last_words)) == b"bye"
    assert server.is_over
    assert server.error is None
    assert server.end_error() is None


@each_version
def test_half_closed(version: ssl.TLSVersion) -> None:
    """The other end may go on, and close in its turn."""
    client, server, _ = connect(new_ends(version))
    server.receive(client.close())

    assert client.receive(server.send(b"answer") + server.close()) == b"answer"
    assert client.is_over
    assert client.end_error() is None


def test_nothing_behind_the_end(keys: Path) -> None:
    """What comes behind the closing alert is not decrypted, be it in the same chunk or later."""
    _, server, _ = connect(new_ends(keys=keys))
    forger = Forger13(keys)
    chunk = [
        forger.record(APPLICATION_DATA, b"one"),
        forger.record(ALERT, CLOSE_NOTIFY),
        forger.record(APPLICATION_DATA, b"two"),
    ]
    assert server.receive(b"".join(chunk)) == b"one"
    assert server.receive(forger.record(APPLICATION_DATA, b"three")) == b""
    assert server.is_over
    assert server.error is None


@each_version
@pytest.mark.parametrize("what", ["nothing", "a packet", "half a record"])
def test_truncation(version: ssl.TLSVersion, what: str) -> None:
    """Without a closing alert, nobody knows whether there was more."""
    client, server, _ = connect(new_ends(version))
    record = client.send(b"hello")
    server.receive({"nothing": b"", "a packet": record, "half a record": record[:-1]}[what])

    assert not server.is_over
    error = server.end_error()
    assert isinstance(error, ssl.SSLEOFError)
    assert "data may be missing" in str(error)


def test_close_before_the_handshake() -> None:
    """There is nothing to close."""
    client, _, _ = new_ends()
    assert client.close() == b""


def test_close_twice() -> None:
    """Once is enough."""
    client, server, _ = connect(new_ends())
    server.receive(client.close())
    assert client.close() == b""


# -- What breaks it ----------------------------------------------------------------------------


@each_version
def test_damaged_record(version: ssl.TLSVersion) -> None:
    """What was changed on its way is not believed; what came before is. Both ends know then."""
    client, server, _ = connect(new_ends(version))
    good, bad = client.send(b"good"), bytearray(client.send(b"bad"))
    bad[-1] ^= 1

    assert server.receive(good + bad) == b"good"
    assert server.is_over
    assert isinstance(server.error, ssl.SSLError)
    assert server.end_error() is server.error
    with pytest.raises(ssl.SSLError):
        server.send(b"answer")
    assert server.receive(client.send(b"more")) == b""

    assert server.has_output
    client.receive(server.take_output())
    assert "BAD_RECORD_MAC" in str(client.error)


@pytest.mark.parametrize(
    "data", [b"hello\n", b"\x17\x03\x03\xff\xff", b"\x17\x03\x03\0\3abc", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_garbage(data: bytes) -> None:
    """What is no record is found out without waiting for the rest of it."""
    _, server, _ = connect(new_ends())
    server.receive(data)
    assert server.error is not None


def test_repeated_record() -> None:
    """Nor does it help to send again what the peer has sent."""
    client, server, _ = connect(new_ends())
    record = client.send(b"transfer")
    assert server.receive(record) == b"transfer"
    assert server.receive(record) == b""
    assert server.error is not None


# -- Floods ------------------------------------------------------------------------------------


def test_key_updates(keys: Path) -> None:
    """A few are all right; they are answered, and the answer to each is sent."""
    client, server, _ = connect(new_ends(keys=keys))
    forger = Forger13(keys)
    updates = b"".join(forger.key_update() for _ in range(MAX_EMPTY_RECORDS))

    assert server.receive(updates) == b""
    assert server.error is None
    assert server.has_output
    assert server.receive(forger.record(APPLICATION_DATA, b"hello")) == b"hello"
    assert client.receive(server.take_output() + server.send(b"hello")) == b"hello"
    assert not server.has_output


def test_key_updates_now_and_then(keys: Path) -> None:
    """However many there are in the life of a connection."""
    _, server, _ = connect(new_ends(keys=keys))
    forger = Forger13(keys)
    for _ in range(2 * MAX_EMPTY_RECORDS):
        assert server.receive(forger.key_update()) == b""
        for _ in range(20):
            assert server.receive(forger.record(APPLICATION_DATA, b"x")) == b"x"
        server.take_output()
    assert server.error is None


@pytest.mark.parametrize("mixed_with", [0, 1, 8])
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_flood_of_key_updates(keys: Path, mixed_with: int, cut: Cut) -> None:
    """Then it is enough, whether there is data in between or not; the replies are few."""
    _, server, _ = connect(new_ends(keys=keys))
    forger = Forger13(keys)
    flood = []
    for _ in range(1000):
        flood += [forger.record(APPLICATION_DATA, b"x") for _ in range(mixed_with)]
        flood.append(forger.key_update())

    receive(server, cut(b"".join(flood)))

    assert "keeps TLS itself busy" in str(server.error)
    assert len(server.take_output()) <= MAX_REPLIES


def test_replies_that_nobody_sends(keys: Path) -> None:
    """If the owner cannot send the replies, because the peer does not read, they are bounded."""
    _, server, _ = connect(new_ends(keys=keys))
    forger = Forger13(keys)
    while server.error is None:
        server.receive(forger.key_update())
        for _ in range(20):
            server.receive(forger.record(APPLICATION_DATA, b"x"))
    assert MAX_REPLIES < len(server.take_output()) < MAX_REPLIES + 200


def test_flood_of_renegotiations(keys: Path) -> None:
    """The same for attempts of a client to do the handshake again."""
    ends = connect(new_ends(ssl.TLSVersion.TLSv1_2, keys))
    forger = Forger12(keys, ends.server_hello)
    server = ends.server
    assert server.receive(forger.record(APPLICATION_DATA, b"hello")) == b"hello"

    for _ in range(2 * MAX_EMPTY_RECORDS):
        server.receive(forger.renegotiation())

    assert server.error is not None
    assert len(server.take_output()) <= MAX_REPLIES


def test_empty_records(keys: Path) -> None:
    """The same for records with nothing in them."""
    _, server, _ = connect(new_ends(keys=keys))
    forger = Forger13(keys)
    assert server.receive(forger.record(APPLICATION_DATA, b"")) == b""
    assert server.error is None
    for _ in range(2 * MAX_EMPTY_RECORDS):
        server.receive(forger.record(APPLICATION_DATA, b""))
    assert server.error is not None


def test_server_that_wants_to_renegotiate(keys: Path) -> None:
    """A client cannot send while the server waits for a new handshake, and says so."""
    ends = connect(new_ends(ssl.TLSVersion.TLSv1_2, keys))
    forger = Forger12(keys, ends.server_hello, "SERVER")
    client = ends.client
    assert client.receive(forger.record(HANDSHAKE, HELLO_REQUEST)) == b""
    with pytest.raises(ssl.SSLError):
        client.send(b"hello")
    assert client.is_over


def test_tickets() -> None:
    """A server's tickets, more than any sends, are no flood."""
    context: Any = server_context()
    tickets, context.num_tickets = context.num_tickets, 20
    try:
        client, server, _ = connect(new_ends())
    finally:
        context.num_tickets = tickets
    assert client.receive(server.send(b"hello")) == b"hello"
    assert client.error is None
