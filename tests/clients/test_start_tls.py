"""Clients that go on over TLS: `start_tls()`, of all kinds of clients.

The other end is the test's thread, with the standard library.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeAlias

import anyio
import pytest

from easynetwork.addresses import SocketAncillary
from easynetwork.exceptions import (
    BusyResourceError,
    ClientClosedError,
    EndOfStreamError,
    UnsupportedOperation,
)
from easynetwork.protocol import StreamProtocol
from tests.clients.changes_support import (
    LF,
    Async,
    Kind,
    read_all,
    read_exactly,
    receiving,
    wait_until,
)
from tests.clients.threads_support import InThread
from tests.conformance.changes_support import RAW, Number, lines
from tests.conftest import BACKENDS
from tests.decoding import GeneratorStreamProtocol
from tests.times import MS, PATIENCE, SOON
from tests.tls_peers import (
    VERSIONS,
    TLSSocket,
    authority,
    client_context,
    new_client_context,
    server_context,
)

NUMBERS: StreamProtocol[Any, Any] = StreamProtocol(Number())
Opened: TypeAlias = tuple[Any, socket.socket]
LOOPS: list[Any] = [pytest.param(None, id="blocking"), *BACKENDS]


@pytest.fixture(params=["tcp", "unix"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LOOPS)
def kind(request: pytest.FixtureRequest, family: str) -> Kind:
    """Return a kind of client."""
    return Kind(family, request.param)


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for the other end, which is this thread."""
    for module in "backends.stream_transport", "clients._waiting":
        monkeypatch.setattr(f"easynetwork.{module}.LINGER_TIME", SOON)


@pytest.fixture
def opened(kind: Kind) -> Iterator[Opened]:
    """Yield a client and its other end."""
    with kind.open() as client_and_peer:
        yield client_and_peer


only_tcp = pytest.mark.parametrize("family", ["tcp"])
blocking = pytest.mark.parametrize("kind", LOOPS[:1], indirect=True)
asynchronous = pytest.mark.parametrize("kind", BACKENDS, indirect=True)


def accept_tls(peer: socket.socket, context: ssl.SSLContext | None = None) -> TLSSocket:
    """Do the server's part of the handshake."""
    tls = TLSSocket(peer, context or server_context(), None)
    tls.do_handshake()
    return tls


def starting(client: Any, *args: Any, **options: Any) -> InThread:
    """Return a thread in which a client does its part."""
    return InThread(
        client.start_tls,
        *(args or [client_context()]),
        **{"server_hostname": "localhost"} | options,
    )


def upgraded(client: Any, peer: socket.socket, **options: Any) -> TLSSocket:
    """Have both do the handshake."""
    thread = starting(client, **options)
    tls = accept_tls(peer)
    thread.result()
    return tls


def check_closed(client: Any) -> None:
    """Check that a client does not go on in clear text, nor in any other way."""
    assert client.is_closed()
    with pytest.raises(ClientClosedError):
        client.send("a secret")
    with pytest.raises(ClientClosedError):
        client.receive()
    with pytest.raises(ClientClosedError):
        client.start_tls(client_context(), server_hostname="localhost")


# -- In order ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_conversation(opened: Opened, version: ssl.TLSVersion) -> None:
    """Packets go both ways, first in clear text, then encrypted, up to a clean end."""
    client, peer = opened
    client.send("STARTTLS")
    assert read_exactly(peer, 9) == b"STARTTLS\n"
    peer.sendall(b"go ahead\n")
    assert client.receive() == "go ahead"
    thread = starting(client)
    tls = accept_tls(peer, server_context(version))
    thread.result()
    large = "x" * 100_000
    for packet in "hello", "", large:
        client.send(packet)
        assert read_exactly(tls, len(packet) + 1) == f"{packet}\n".encode()  # type: ignore[arg-type]
    tls.sendall(b"one\ntwo\n")
    assert [client.receive(), client.receive()] == ["one", "two"]
    client.set_protocol(NUMBERS)
    tls.sendall(b"\0\0\0\1raw")
    assert client.receive() == 1
    client.set_protocol(RAW)
    assert client.receive() == b"raw"
    client.close()
    assert tls.recv(10) == b""  # the closing alert; without it, this raises SSLEOFError


def test_packets_that_come_with_the_handshake(opened: Opened) -> None:
    """What the server says at once after its last message is received."""
    client, peer = opened
    thread = starting(client)
    tls = TLSSocket(peer, server_context(), None)
    tls.sendall(b"one\ntwo\n")  # kept until the handshake is complete
    tls.do_handshake()
    thread.result()
    assert [client.receive(), client.receive()] == ["one", "two"]


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("is_standard", [None, False])
def test_end(opened: Opened, is_clean: bool, is_standard: bool | None) -> None:
    """An end without a closing alert may be one that somebody has cut off."""
    client, peer = opened
    tls = upgraded(client, peer, ssl_standard_compatible=is_standard)
    if is_clean:
        tls.shutdown(socket.SHUT_WR)
    tls.raw.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionAbortedError) as caught:
        client.receive()
    assert isinstance(caught.value, EndOfStreamError) is (is_clean or is_standard is False)
    client.close()
    if is_standard is False:
        with pytest.raises(ssl.SSLEOFError):
            tls.recv(1)
    else:
        assert tls.recv(1) == b""


def test_no_end_of_stream(opened: Opened) -> None:
    """TLS has no half-close, as if it had been there from the beginning."""
    client, peer = opened
    tls = upgraded(client, peer)
    with pytest.raises(UnsupportedOperation):
        client.send_eof()
    client.send("hello")
    assert read_exactly(tls, 6) == b"hello\n"  # type: ignore[arg-type]


# -- Whose certificate -------------------------------------------------------------------------


@only_tcp
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_default_server_hostname(kind: Kind, host: str) -> None:
    """It is the host that was asked for."""
    with kind.open(host) as (client, peer):
        thread = InThread(client.start_tls, client_context())
        accept_tls(peer)
        thread.result()


@pytest.mark.parametrize("family", ["unix"])
def test_unknown_host(opened: Opened) -> None:
    """Without a host, it is not known whose certificate to expect: nothing has changed then."""
    client, peer = opened
    with pytest.raises(ValueError, match="You must set server_hostname"):
        client.start_tls(client_context())
    client.send("in clear text")
    assert read_exactly(peer, 14) == b"in clear text\n"


def test_any_host(opened: Opened) -> None:
    """For a context that checks no name, it may be that of any host."""
    client, peer = opened
    context = new_client_context()
    context.check_hostname = False
    thread = starting(client, context, server_hostname="")
    accept_tls(peer)
    thread.result()


UNTRUSTED: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "another host's": lambda: (client_context(), {"server_hostname": "example.com"}),
    "another authority's": lambda: (ssl.create_default_context(), {}),
    "a private authority's": lambda: (True, {}),
}


@pytest.mark.parametrize("what", UNTRUSTED)
def test_untrusted_certificate(opened: Opened, what: str) -> None:
    """A server that cannot prove to be the host is left at once."""
    client, peer = opened
    context, options = UNTRUSTED[what]()
    thread = starting(client, context, **options)
    with pytest.raises(ssl.SSLError):  # of TLS 1.3: the alert comes later
        accept_tls(peer).recv(1)
    with pytest.raises(ssl.SSLCertVerificationError):
        thread.result()
    check_closed(client)
    assert read_all(peer) == b""


def test_certificate_of_the_client(opened: Opened) -> None:
    """A server may ask for one."""
    client, peer = opened
    context = new_client_context()
    authority().issue_cert("a@b.cz").configure_cert(context)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(server)
    authority().issue_cert("localhost").configure_cert(server)
    thread = starting(client, context)
    tls = accept_tls(peer, server)
    thread.result()
    assert tls.object.getpeercert()


# -- Servers that do not do TLS, and injected plaintext ----------------------------------------


@pytest.mark.parametrize("when", ["before", "with the reply", "instead of the handshake"])
@pytest.mark.parametrize("injected", [b"250 done\n", b"x", b"\n", b"\x17\3\3\0\x05done\n"])
def test_injected(opened: Opened, when: str, injected: bytes) -> None:
    """Plaintext is never parsed: the handshake fails, and the client is closed."""
    client, peer = opened
    protocol_data = injected + b"\n" * 10
    if when == "before":
        peer.sendall(b"go ahead\n" + protocol_data)
        assert client.receive() == "go ahead"
        thread = starting(client)
    elif when == "with the reply":
        for value in b"go ahead\n" + protocol_data:
            peer.sendall(bytes([value]))
        assert client.receive() == "go ahead"
        thread = starting(client)
    else:
        peer.sendall(b"go ahead\n")
        assert client.receive() == "go ahead"
        thread = starting(client)
        wait_until(lambda: peer.recv(1, socket.MSG_PEEK))
        peer.sendall(protocol_data)
    with pytest.raises(ssl.SSLError):
        thread.result()
    check_closed(client)
    assert b"secret" not in read_all(peer)


@only_tcp
@pytest.mark.parametrize("size", range(1, 15))
def test_injected_for_each_split(opened: Opened, size: int) -> None:
    """So it is however the stream is cut."""
    client, peer = opened
    data = b"go ahead\nRSET\n"
    peer.sendall(data[:size])
    if size < 9:
        peer.sendall(data[size:])
        assert client.receive() == "go ahead"
        thread = starting(client)
    else:
        assert client.receive() == "go ahead"
        thread = starting(client)
        peer.sendall(data[size:])
    thread_error = InThread(accept_tls, peer)
    with pytest.raises(ssl.SSLError):
        thread.result()
    check_closed(client)
    with contextlib.suppress(OSError):
        thread_error.result()


@pytest.mark.parametrize("how", ["silent", "half a record"])
def test_server_that_never_answers(opened: Opened, how: str) -> None:
    """Then it takes too long."""
    client, peer = opened
    if how != "silent":
        peer.sendall(b"\x16\3\3")
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"took longer than .* seconds"):
        client.start_tls(
            client_context(), server_hostname="localhost", ssl_handshake_timeout=20 * MS
        )
    assert time.monotonic() - begin < PATIENCE / 2
    check_closed(client)
    assert b"secret" not in read_all(peer)


@pytest.mark.parametrize("how", ["leave", "reset"])
def test_server_that_leaves(opened: Opened, how: str) -> None:
    """A connection that ends during the handshake has ended."""
    client, peer = opened
    thread = starting(client)
    wait_until(lambda: peer.recv(1, socket.MSG_PEEK))
    if how == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
    else:
        peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError) as caught:
        thread.result()
    assert not isinstance(caught.value, ClientClosedError)
    check_closed(client)


# -- Arguments, and when it is possible --------------------------------------------------------

WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception]]] = {
    "False": (False, {}, TypeError),
    "None": (None, {}, TypeError),
    "a server's": (server_context(), {}, ValueError),
    "negative": (client_context(), {"ssl_handshake_timeout": -1}, ValueError),
    "nan": (client_context(), {"ssl_handshake_timeout": math.nan}, ValueError),
    "negative end": (client_context(), {"ssl_shutdown_timeout": -1}, ValueError),
}


def test_wrong_arguments(opened: Opened) -> None:
    """Nothing has changed after them."""
    client, peer = opened
    for context, options, error in WRONG.values():
        with pytest.raises(error):
            client.start_tls(context, server_hostname="localhost", **options)
    client.send("in clear text")
    assert read_exactly(peer, 14) == b"in clear text\n"
    upgraded(client, peer)


def test_twice(opened: Opened) -> None:
    """A connection that uses TLS goes on as it is."""
    client, peer = opened
    tls = upgraded(client, peer)
    with pytest.raises(RuntimeError, match="uses TLS already"):
        client.start_tls(client_context(), server_hostname="localhost")
    client.send("hello")
    assert read_exactly(tls, 6) == b"hello\n"  # type: ignore[arg-type]


@only_tcp
def test_tls_from_the_beginning(kind: Kind) -> None:
    """Nor can TLS begin inside of TLS."""
    opening = contextlib.ExitStack()
    with socket.create_server(("127.0.0.1", 0)) as listener, opening:
        accepted = InThread(lambda: accept_tls(listener.accept()[0]))
        connect = kind._new_client(opening)
        client = connect(("localhost", listener.getsockname()[1]), LF, ssl=client_context())
        opening.callback(client.close)
        tls = accepted.result()
        opening.callback(tls.raw.close)
        with pytest.raises(RuntimeError, match="uses TLS already"):
            client.start_tls(client_context(), server_hostname="localhost")
        tls.sendall(b"hello\n")
        assert client.receive() == "hello"


def test_after_the_end(opened: Opened) -> None:
    """A client that has said that nothing follows cannot begin a handshake."""
    client, peer = opened
    client.send_eof()
    with pytest.raises(RuntimeError, match=r"send_eof\(\) has been called"):
        client.start_tls(client_context(), server_hostname="localhost")
    peer.sendall(b"hello\n")
    assert client.receive() == "hello"


def test_half_a_packet_of_a_generator(opened: Opened) -> None:
    """Half a packet that a generator has got cannot be handed over: nothing has changed."""
    client, peer = opened
    client.set_protocol(GeneratorStreamProtocol(lines()))
    peer.sendall(b"hel")
    while not len(client.client._decoder):
        with pytest.raises(TimeoutError):
            client.receive(timeout=5 * MS)
    with pytest.raises(RuntimeError, match="the beginning of the next packet"):
        client.start_tls(client_context(), server_hostname="localhost")
    peer.sendall(b"lo\n")
    assert client.receive() == "hello"
    upgraded(client, peer)


def test_busy(opened: Opened) -> None:
    """Not while another task or thread waits for a packet."""
    client, peer = opened
    thread = receiving(client)
    with pytest.raises(BusyResourceError):
        client.start_tls(client_context(), server_hostname="localhost")
    peer.sendall(b"hello\n")
    assert thread.result() == "hello"
    upgraded(client, peer)


def test_closed(opened: Opened) -> None:
    """Not after the end."""
    client, _ = opened
    client.close()
    check_closed(client)


# -- What others do meanwhile ------------------------------------------------------------------


def in_handshake(client: Any, peer: socket.socket, **options: Any) -> InThread:
    """Return a thread that has sent its first message, and waits for the server's."""
    thread = starting(client, **options)
    wait_until(lambda: peer.recv(1, socket.MSG_PEEK))
    if not isinstance(client, Async):
        thread.waits_in("select")
    return thread


def test_others_wait_meanwhile(opened: Opened) -> None:
    """Packets are sent and received after it."""
    client, peer = opened
    thread = in_handshake(client, peer)
    receiver, sender = InThread(client.receive), InThread(client.send, "hello")
    with pytest.raises(BusyResourceError):
        client.set_protocol(NUMBERS)
    with pytest.raises(BusyResourceError):
        client.start_tls(client_context(), server_hostname="localhost")
    tls = accept_tls(peer)
    thread.result()
    assert read_exactly(tls, 6) == b"hello\n"  # type: ignore[arg-type]
    tls.sendall(b"welcome\n")
    assert receiver.result() == "welcome"
    sender.result()


def test_others_wait_in_vain(opened: Opened) -> None:
    """If it fails, they get an error, and nothing has left in clear text."""
    client, peer = opened
    thread = in_handshake(client, peer)
    receiver, sender = InThread(client.receive), InThread(client.send, "a secret")
    wait_until(lambda: receiver._thread.is_alive() and sender._thread.is_alive())
    peer.sendall(b"550 no TLS today\n")
    for each, error in (thread, ssl.SSLError), (receiver, ClientClosedError):
        with pytest.raises(error):
            each.result()
    with pytest.raises(ConnectionError):
        sender.result()
    check_closed(client)
    assert b"secret" not in read_all(peer)


def test_closing_meanwhile(opened: Opened) -> None:
    """Closing ends it, at once: nothing is lost that was of use."""
    client, peer = opened
    thread = in_handshake(client, peer)
    begin = time.monotonic()
    client.close()
    assert time.monotonic() - begin < PATIENCE / 2
    with pytest.raises(ClientClosedError):
        thread.result()
    check_closed(client)
    read_all(peer)


@asynchronous
def test_cancelled(kind: Kind) -> None:
    """A handshake that was cancelled closes the client."""
    with kind.open() as (client, peer):

        async def start() -> bool:
            with anyio.move_on_after(20 * MS) as scope:
                await client.client.start_tls(client_context(), server_hostname="localhost")
            return scope.cancelled_caught

        assert client.portal.call(start)
        check_closed(client)
        assert b"secret" not in read_all(peer)


@asynchronous
def test_failure_before_its_turn(kind: Kind) -> None:
    """While earlier packets do not leave, it can fail, too; nothing is parsed after that."""
    with kind.open() as (client, peer):
        client.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.sendall(b"go ahead\ninjected\n")
        assert client.receive() == "go ahead"
        sender = InThread(client.send, "x" * 10_000_000)
        wait_until(lambda: client.client._transport.congested)
        thread = starting(client, ssl_handshake_timeout=50 * MS)
        wait_until(lambda: client.is_receiving() or not thread._thread.is_alive())
        receiver = InThread(client.receive)
        with pytest.raises(TimeoutError):
            thread.result()
        with pytest.raises(ClientClosedError):
            receiver.result()
        with pytest.raises(ConnectionError):
            sender.result()
        check_closed(client)


@asynchronous
def test_end_of_stream_before_its_turn(kind: Kind) -> None:
    """It is too late for a half-close as soon as TLS is asked for."""
    with kind.open() as (client, peer):
        client.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport = client.client._transport
        large = "x" * 700_000
        sender = InThread(client.send, large)
        wait_until(lambda: transport.congested)
        thread = starting(client)
        wait_until(lambda: transport._queued)
        with pytest.raises(UnsupportedOperation):
            client.send_eof()
        read_exactly(peer, len(large) + 1)
        tls = accept_tls(peer)
        thread.result()
        sender.result()
        client.send("hello")
        assert read_exactly(tls, 6) == b"hello\n"  # type: ignore[arg-type]


@asynchronous
@pytest.mark.parametrize("family", ["unix"])
def test_ancillary_data(kind: Kind) -> None:
    """Descriptors go with clear text only: not after TLS has begun, even if asked for before."""
    with kind.open() as (client, peer):
        empty = SocketAncillary()

        def send() -> None:
            client._call(lambda: client.client.send_packet("a secret", ancillary_data=empty))

        def receive() -> None:
            client._call(lambda: client.client.recv_packet(ancillary_data=empty))

        transport = client.client._transport
        large = "x" * 700_000
        sender = InThread(client.send, large)
        wait_until(lambda: transport.congested)
        thread = starting(client)
        wait_until(lambda: transport._queued == 1)
        early = [InThread(send)]
        wait_until(lambda: transport._queued == 2)
        early.append(InThread(receive))
        read_exactly(peer, len(large) + 1)
        tls = accept_tls(peer)
        thread.result()
        sender.result()
        tls.sendall(b"hello\n")
        for operation in early[0].result, early[1].result, send, receive:
            with pytest.raises(UnsupportedOperation):
                operation()
        assert client.receive() == "hello"
        client.send("bye")
        assert read_exactly(tls, 4) == b"bye\n"  # type: ignore[arg-type]


@blocking
def test_busy_sender(kind: Kind) -> None:
    """Not while a packet of another thread has not left yet."""
    with kind.open() as (client, peer):
        client.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        large = "x" * 700_000
        sender = InThread(client.send, large).waits_in("select")
        with pytest.raises(BusyResourceError):
            client.start_tls(client_context(), server_hostname="localhost")
        read_exactly(peer, len(large) + 1)
        sender.result()
        upgraded(client, peer)


@blocking
def test_closing_before_it_can_begin(kind: Kind, hurry: None) -> None:
    """Also while the server does not read, so that the first message does not leave."""
    with kind.open() as (client, _):
        client.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket(fileno=os.dup(client.client.fileno())) as sock:
            sock.setblocking(False)
            is_full = False
            while not is_full:
                try:
                    sock.send(b"\n" * 1000)
                except BlockingIOError:
                    is_full = not select.select([], [sock], [], 0.1)[1]
        thread = starting(client).waits_in("select")
        client.close()
        with pytest.raises(ClientClosedError):
            thread.result()
        check_closed(client)


@blocking
def test_timeouts_meanwhile(kind: Kind) -> None:
    """Other threads' timeouts hold while they wait for its end."""
    with kind.open() as (client, peer):
        thread = in_handshake(client, peer)
        for operation in (
            lambda: client.receive(timeout=5 * MS),
            lambda: client.send("hello", timeout=5 * MS),
        ):
            with pytest.raises(TimeoutError):
                operation()
        tls = accept_tls(peer)
        thread.result()
        tls.sendall(b"hello\n")
        assert client.receive() == "hello"


@blocking
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer(2)")
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_interrupted(kind: Kind, error: type[BaseException]) -> None:
    """An exception of a signal handler ends it, and the client with it."""

    def interrupt(*args: object) -> None:
        raise error

    with kind.open() as (client, peer):
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 20 * MS)
        try:
            with pytest.raises(error):
                client.start_tls(client_context(), server_hostname="localhost")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        check_closed(client)
        assert b"secret" not in read_all(peer)


def has_ended(client: Any) -> bool:
    """Return whether a client is closed, or refuses to go on. If not, it has lost nothing."""
    if client.is_closed():
        check_closed(client)
        return True
    try:
        assert client.receive() == "injected"
    except ConnectionAbortedError as exc:
        assert "was interrupted" in str(exc)  # noqa: PT017 - now and then
        with pytest.raises(ConnectionAbortedError):
            client.send("a secret")
        return True
    return False


@blocking
def test_interrupted_anywhere(kind: Kind) -> None:
    """Wherever it comes: nothing has changed, or nothing follows in clear text."""
    outcomes: list[bool] = []
    lines_left = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines_left
        if not frame.f_code.co_filename.endswith(("_blocking_stream.py", "_blocking_tls.py")):
            return None
        if event == "line":
            lines_left -= 1
            if lines_left == 0:
                raise KeyboardInterrupt
        return trace

    def start_tls(client: Any) -> bool:
        """Return whether it was interrupted."""
        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            client.start_tls(client_context(), server_hostname="localhost")
        except KeyboardInterrupt:
            return True
        except ssl.SSLError:
            return False
        finally:
            sys.settrace(previous)
        raise AssertionError

    is_interrupted = True
    while is_interrupted:
        lines_left = len(outcomes) + 1
        with kind.open() as (client, peer):
            peer.sendall(b"go ahead\ninjected\n")
            assert client.receive() == "go ahead"
            # In a thread of its own: where a trace function raises, CPython (3.11 to 3.13) may
            # go on as if the exception that was being handled were handled for ever.
            is_interrupted = InThread(start_tls, client).result()
            outcomes.append(has_ended(client))
    assert not outcomes[0]
    assert outcomes[-1]
    assert sorted(outcomes) == outcomes


@blocking
def test_closing_in_a_handler(kind: Kind) -> None:
    """A signal handler may close the client in the middle of it."""
    with kind.open() as (client, peer):
        previous = signal.signal(signal.SIGALRM, lambda *_: client.close())
        signal.setitimer(signal.ITIMER_REAL, 20 * MS)
        try:
            with pytest.raises(ClientClosedError):
                client.start_tls(client_context(), server_hostname="localhost")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        check_closed(client)
        read_all(peer)
