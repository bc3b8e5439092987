"""What TLS adds to the contract of `StreamTransport`, which test_stream.py and others are about."""

from __future__ import annotations

import dataclasses
import errno
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import TLSAttribute
from easynetwork.backends import StreamTransport, ensure_backend
from easynetwork.backends.tls_transport import TLSStreamTransport, start_tls
from easynetwork.exceptions import TypedAttributeLookupError, UnsupportedOperation
from easynetwork.tls import MAX_REPLIES
from tests.backends.pairs import (
    MAX_RECV_SIZE,
    Pair,
    connected_sockets,
    do_handshake,
    open_pair,
    tls_options,
    without_garbage_collection,
)
from tests.times import SOON
from tests.tls_forger import APPLICATION_DATA, Forger13
from tests.tls_peers import (
    TLSSocket,
    client_context,
    new_client_context,
    new_server_context,
    server_context,
)

pytestmark = pytest.mark.anyio

BOTH_MODES = {"standard": True, "lenient": False}


@pytest.fixture(params=BOTH_MODES)
def is_standard(request: pytest.FixtureRequest) -> bool:
    """Return whether the connection has to end with closing alerts."""
    return BOTH_MODES[request.param]


@pytest.fixture
async def pair(is_standard: bool, anyio_backend: object) -> AsyncIterator[Pair]:
    async with open_pair(tls_options(is_standard=is_standard)) as pair:
        yield pair


def tls_of(pair: Pair) -> TLSStreamTransport:
    assert isinstance(pair.transport, TLSStreamTransport)
    return pair.transport


# -- The peer ends the connection --------------------------------------------------------------


async def test_clean_end(pair: Pair) -> None:
    """A closing alert is the end of the stream, again and again; answers can still be sent."""
    pair.peer.send(b"request\n")
    pair.peer.shutdown(socket.SHUT_WR)

    for _ in range(3):
        with pytest.raises(EOFError):
            await pair.receive_to_end()

    assert pair.fed == b"request\n"
    assert not tls_of(pair).is_truncated
    assert not pair.transport.is_closing()
    pair.transport.write(b"answer")
    assert await pair.peer_receives(6) == b"answer"


async def test_truncation(pair: Pair, is_standard: bool) -> None:
    """A connection that ends without one is known to be cut off, and an error if that matters."""
    pair.peer.send(b"request\n")
    pair.peer.raw.shutdown(socket.SHUT_WR)

    for _ in range(3):
        with pytest.raises(ConnectionAbortedError if is_standard else EOFError) as info:
            await pair.receive_to_end()

    assert isinstance(info.value.__cause__, ssl.SSLEOFError) == is_standard
    assert pair.fed == b"request\n"
    assert tls_of(pair).is_truncated == is_standard
    pair.transport.write(b"answer")
    assert await pair.peer_receives(6) == b"answer"


async def test_truncated_record(pair: Pair, is_standard: bool) -> None:
    """Half a record is as good as none."""
    pair.peer.raw.send(b"\x17\x03\x03\1\0half")
    pair.peer.raw.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionAbortedError if is_standard else EOFError):
        await pair.receive_to_end()
    assert tls_of(pair).is_truncated == is_standard


async def test_broken_record(pair: Pair) -> None:
    """Against the rules of TLS: the connection is broken for all, and the peer is told why."""
    pair.peer.send(b"good\n")
    pair.peer.raw.send(b"\x17\x03\x03\0\x20" + bytes(32))

    for _ in range(3):
        with pytest.raises(ConnectionAbortedError) as info:
            await pair.receive_to_end()
    assert info.value.__cause__ is tls_of(pair).error
    assert isinstance(tls_of(pair).error, ssl.SSLError)
    assert pair.fed == b"good\n"
    assert not tls_of(pair).is_truncated
    assert pair.transport.is_closing()
    with pytest.raises(ConnectionAbortedError):
        pair.transport.write(b"answer")
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        await pair.peer_receives()


async def test_end_wakes_up(pair: Pair) -> None:
    """Whoever waits when the closing alert comes, learns it."""
    async with anyio.create_task_group() as tasks:

        @tasks.start_soon
        async def receive() -> None:
            with pytest.raises(EOFError):
                await pair.receive_to_end()

        await anyio.wait_all_tasks_blocked()
        pair.peer.shutdown(socket.SHUT_WR)


# -- The transport does ------------------------------------------------------------------------


async def test_closing_alert(pair: Pair, is_standard: bool) -> None:
    """The peer gets a closing alert, unless nobody cares for it; it need not answer."""
    pair.transport.write(b"answer")
    await pair.transport.aclose()
    if is_standard:
        assert await pair.peer_receives() == b"answer"
    else:
        assert await pair.peer_receives(6) == b"answer"
        with pytest.raises(ssl.SSLEOFError):
            await pair.peer_receives()


async def test_closing_alert_after_that_of_the_peer(pair: Pair, is_standard: bool) -> None:
    """The same when the peer was first."""
    pair.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        await pair.receive_to_end()
    await test_closing_alert(pair, is_standard)


async def test_shutdown_timeout(anyio_backend: object) -> None:
    """A peer that does not take what waits for it is not waited for any longer than that."""
    async with open_pair(tls_options(shutdown_timeout=SOON)) as pair:
        written = pair.congest()
        await pair.transport.aclose()
        assert pair.sock.fileno() == -1
        got = bytearray()
        with pytest.raises(ConnectionResetError):
            while True:
                with suppress(BlockingIOError):
                    got += pair.peer.recv(1 << 16)
        assert len(got) < written


async def test_send_eof(pair: Pair) -> None:
    """TLS has no such thing; nothing has happened."""
    with pytest.raises(UnsupportedOperation, match="SSL/TLS API does not support sending EOF."):
        await pair.transport.send_eof()
    pair.transport.write(b"answer")
    assert await pair.peer_receives(6) == b"answer"


# -- Floods ------------------------------------------------------------------------------------


@pytest.fixture
async def forged(tmp_path: Path, anyio_backend: object) -> AsyncIterator[tuple[Pair, Forger13]]:
    """Return a connection, and who can make what the peer would not send."""
    context = new_client_context()
    context.keylog_filename = str(tmp_path / "keys")
    async with open_pair(tls_options(), context) as pair:
        yield pair, Forger13(tmp_path / "keys")
    context.keylog_filename = None  # type: ignore[assignment]  # typeshed does not know: closes it


async def test_reply(forged: tuple[Pair, Forger13]) -> None:
    """What TLS has to answer is sent at once, in its order."""
    pair, forger = forged
    pair.peer.raw.send(forger.key_update() + forger.record(APPLICATION_DATA, b"a\n"))
    await pair.transport.receive()
    assert pair.fed == b"a\n"
    assert pair.peer.raw.recv(1, socket.MSG_PEEK)
    pair.transport.write(b"answer")
    assert await pair.peer_receives(6) == b"answer"


async def test_reply_while_congested(forged: tuple[Pair, Forger13]) -> None:
    """It has to wait for a peer that does not read; it leaves with what is sent next."""
    pair, forger = forged
    written = pair.congest()
    pair.peer.raw.send(forger.key_update() + forger.record(APPLICATION_DATA, b"a\n"))
    await pair.transport.receive()

    assert len(await pair.peer_receives(written)) == written
    await pair.transport.drain()
    pair.transport.write(b"answer")
    assert await pair.peer_receives(6) == b"answer"


async def test_peer_that_only_wants_replies(forged: tuple[Pair, Forger13]) -> None:
    """A peer that makes TLS answer, and does not read, is not served for long."""
    pair, forger = forged
    pair.congest()
    questions = 0
    with pytest.raises(ConnectionAbortedError) as info:
        while True:
            await pair.peer_sends_raw(forger.key_update())
            for _ in range(20):
                await pair.peer_sends_raw(forger.record(APPLICATION_DATA, b"\n"))
            questions += 1
            await pair.transport.receive()
    assert "asked for more answers of TLS itself" in str(info.value.__cause__)
    assert questions < MAX_REPLIES / 20


async def test_close_in_the_middle_of_a_record(forged: tuple[Pair, Forger13]) -> None:
    """A peer that is still sending gets every byte of the answer and the end, and no reset."""
    pair, forger = forged
    answer = b"x" * 500_000
    record = forger.record(APPLICATION_DATA, b"x" * 9000)
    pair.peer.raw.send(record[:4000])
    with anyio.move_on_after(SOON):
        await pair.transport.receive()
    pair.transport.write(answer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.transport.aclose)
        await anyio.wait_all_tasks_blocked()
        pair.peer.raw.send(record[4000:])
        assert await pair.peer_receives() == answer
        pair.peer.close()


async def test_flood_of_key_updates(forged: tuple[Pair, Forger13]) -> None:
    """Nor is one that sends nothing else."""
    pair, forger = forged
    await pair.peer_sends_raw(b"".join(forger.key_update() for _ in range(1000)))
    with pytest.raises(ConnectionAbortedError):
        await pair.receive_to_end()
    assert pair.fed == b""


# -- The handshake -----------------------------------------------------------------------------


class Attempt:
    """A handshake that may fail.

    Attributes:
        inner: The connection.
        peer: The other end, which speaks no TLS by itself.
    """

    def __init__(self, inner: StreamTransport, peer: socket.socket) -> None:
        self.inner = inner
        self.peer = peer

    async def start(self, **options: Any) -> TLSStreamTransport:
        """Do the handshake."""
        return await start_tls(self.inner, tls_options(**options))


@pytest.fixture
async def attempt(anyio_backend: object) -> AsyncIterator[Attempt]:
    sock, peer = connected_sockets()
    with peer:
        inner = ensure_backend(None).wrap_stream_socket(sock, fail, MAX_RECV_SIZE)
        yield Attempt(inner, peer)
        assert sock.fileno() == -1
        await inner.aclose()


def fail(data: bytes) -> bool:
    raise AssertionError("this is not for the application")


HALF_A_HELLO = b"\x16\x03\x01\2\0\1\0\1\xfc\x03\x03" + bytes(100)


@pytest.mark.parametrize("data", [b"", HALF_A_HELLO[:3], HALF_A_HELLO])
async def test_handshake_timeout(attempt: Attempt, data: bytes) -> None:
    """Who does not come to the end of the handshake has to leave."""
    attempt.peer.send(data)
    with pytest.raises(TimeoutError, match=f"The TLS handshake took longer than {SOON:g} seconds"):
        await attempt.start(handshake_timeout=SOON)
    with pytest.raises(ConnectionResetError):
        attempt.peer.recv(100)


async def test_slow_handshake(attempt: Attempt) -> None:
    """It does not help to send a byte now and then."""
    hello = iter(HALF_A_HELLO)

    async def drip() -> None:
        with suppress(ConnectionError):
            for byte in hello:
                attempt.peer.send(bytes([byte]))
                await anyio.sleep(SOON / 10)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drip)
        with pytest.raises(TimeoutError):
            await attempt.start(handshake_timeout=SOON)
        tasks.cancel_scope.cancel()
    assert next(hello, None) is not None


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"hello\n", bytes(1000)])
async def test_peer_without_tls(attempt: Attempt, data: bytes) -> None:
    """Who speaks something else is turned away, in good order; nobody sees what that was."""
    attempt.peer.send(data)
    attempt.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ssl.SSLError):
        await attempt.start()
    assert len(attempt.peer.recv(100)) in (0, 7)  # an alert, if anything
    assert attempt.peer.recv(100) == b""


@pytest.mark.parametrize("data", [b"", HALF_A_HELLO, b"\x15\x03\x03\0\2\1\0"])
async def test_peer_that_leaves(attempt: Attempt, data: bytes) -> None:
    """So is, whatever it has sent, who leaves before the end of the handshake."""
    attempt.peer.send(data)
    attempt.peer.shutdown(socket.SHUT_WR)
    with pytest.raises((ConnectionAbortedError, ssl.SSLError)):
        await attempt.start()


async def test_peer_that_resets(attempt: Attempt) -> None:
    """Or breaks the connection."""
    attempt.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    attempt.peer.close()
    with pytest.raises(ConnectionResetError):
        await attempt.start()


async def test_cancelled_handshake(attempt: Attempt) -> None:
    """A handshake that is given up resets the connection."""
    with anyio.move_on_after(SOON) as scope:
        await attempt.start()
    assert scope.cancelled_caught
    with pytest.raises(ConnectionResetError):
        attempt.peer.recv(100)


async def test_no_session(attempt: Attempt) -> None:
    """If OpenSSL cannot even begin, the connection ends."""

    class Broken(ssl.SSLObject):
        @classmethod
        def _create(cls, *args: Any, **options: Any) -> Any:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "out of memory")

    context = new_server_context()
    context.sslobject_class = Broken
    with pytest.raises(ssl.SSLError, match="out of memory"):
        await start_tls(attempt.inner, dataclasses.replace(tls_options(), context=context))
    assert attempt.peer.recv(100) == b""


async def test_unknown_authority(attempt: Attempt) -> None:
    """A client that does not trust the certificate says so: both ends know why it failed."""
    peer = TLSSocket(attempt.peer, ssl.create_default_context())
    errors = []

    async def shake(handshake: Callable[[], Any]) -> None:
        try:
            await handshake()
        except ssl.SSLError as exc:
            errors.append(exc.reason)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shake, lambda: do_handshake(peer))
        tasks.start_soon(shake, attempt.start)
    assert errors == ["CERTIFICATE_VERIFY_FAILED", "TLSV1_ALERT_UNKNOWN_CA"]


async def test_data_with_the_handshake(anyio_backend: object) -> None:
    """What the client sends at once is fed when the handshake is done."""
    sock, raw = connected_sockets()
    fed = bytearray()

    def feed(data: bytes) -> bool:
        fed.extend(data)
        return True

    with raw:
        peer = TLSSocket(raw, client_context())
        peer.sendall(b"hello\n")  # kept until the handshake is complete, then sent with its end
        inner = ensure_backend(None).wrap_stream_socket(sock, feed, MAX_RECV_SIZE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(do_handshake, peer)
            transport = await start_tls(inner, tls_options())
        if not fed:
            await transport.receive()
        assert fed == b"hello\n"
        await transport.aclose()


# -- Memory ------------------------------------------------------------------------------------


ENDS: dict[str, Callable[[TLSSocket], object]] = {
    "clean": lambda peer: peer.shutdown(socket.SHUT_WR),
    "truncated": lambda peer: peer.raw.shutdown(socket.SHUT_WR),
    "broken": lambda peer: peer.raw.send(b"\x17\x03\x03\0\x20" + bytes(32)),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", ["aclose", "abort"])
async def test_no_garbage(anyio_backend: object, end: str, method: str) -> None:
    """A connection's memory, much of which only OpenSSL knows of, is free when it is over."""
    with without_garbage_collection():
        async with open_pair(tls_options()) as pair:
            ENDS[end](pair.peer)
            with suppress(EOFError, ConnectionError):
                await pair.receive_to_end()
            known = weakref.ref(tls_of(pair)._session)
            if method == "abort":
                pair.transport.abort()
            await pair.transport.aclose()
            pair.transport.feed = fail  # not that of the pair
        del pair
        await anyio.lowlevel.checkpoint()
        assert known() is None


# -- The rest ----------------------------------------------------------------------------------


async def test_attributes(pair: Pair, is_standard: bool) -> None:
    """All that is known of the connection can be asked for, also when it is closed."""
    await pair.transport.aclose()
    attributes = pair.transport.extra_attributes
    assert attributes[TLSAttribute.sslcontext]() is server_context()
    assert attributes[TLSAttribute.tls_version]() == "TLSv1.3"
    assert attributes[TLSAttribute.cipher]() == pair.peer.object.cipher()
    assert attributes[TLSAttribute.standard_compatible]() is is_standard
    for unknown in TLSAttribute.peercert, TLSAttribute.compression, TLSAttribute.alpn_protocol:
        with pytest.raises(TypedAttributeLookupError, match="value not available"):
            attributes[unknown]()


async def test_errors_have_numbers(pair: Pair) -> None:
    """As those of any transport have."""
    pair.transport.abort()
    with pytest.raises(ConnectionAbortedError) as info:
        pair.transport.write(b"x")
    assert info.value.errno == errno.ECONNABORTED
