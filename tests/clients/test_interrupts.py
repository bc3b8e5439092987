"""Blocking clients whose operations are cut short by the exception of a signal's handler.

Whatever the moment, no lock is left behind, and either nothing is lost or the next operation says
that something may be.
"""

from __future__ import annotations

import itertools
import os
import queue
import random
import select
import signal
import socket
import ssl
import time
from collections import Counter
from typing import Any

import pytest

from easynetwork.clients._waiting import ClientLock
from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.exceptions import BusyResourceError, ClientClosedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients.blocking_kinds import PatientTCPClient
from tests.clients.conftest import Pair
from tests.clients.storm import Alarm, Interruption, Storm, serving
from tests.clients.threads_support import InThread
from tests.clients.udp_support import opened
from tests.conftest import ALL_TESTS
from tests.times import PATIENCE, STUCK
from tests.tls_peers import client_context, server_context

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer(2)"),
    pytest.mark.in_turn,
]

# A lock that one acquire() leaves locked is found once in twelve interrupts (measured).
INTERRUPTS = 3_000 if ALL_TESTS else 1_000
FEWEST = 120  # interrupts that find it, but for once in 30,000 runs
TIME_LIMIT = 3.0  # seconds; a machine that is too slow for all interrupts gets fewer
LARGE = "x" * 200_000

each_error = pytest.mark.parametrize(("error", "share"), [(Interruption, 1), (Alarm, 5)])
each_transport = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


def contexts(tls: bool) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Return what a server and a client need."""
    return (server_context(), client_context()) if tls else (None, None)


def connect(
    address: tuple[str, int], context: ssl.SSLContext | None, client_class: Any = TCPNetworkClient
) -> Any:
    protocol = StreamProtocol(StringLineSerializer(limit=1 << 20))
    return client_class(address, protocol, ssl=context)


class Rounds:
    """Says how long a storm goes on."""

    def __init__(self, storm: Storm, share: int = 1) -> None:
        self._storm = storm
        self._interrupts = max(INTERRUPTS // share, FEWEST)
        self._end = time.monotonic() + TIME_LIMIT

    def __bool__(self) -> bool:
        return self._storm.count < self._interrupts and time.monotonic() < self._end


def leaves_lock(client: Any) -> bool:
    """Return whether an operation of this thread that was cut has left a lock behind."""
    locks = client._locks
    every = [locks.sending, locks.receiving, locks.descriptor]
    if getattr(client, "_tls", None) is not None:
        every.append(client._tls._lock)
    return any(lock.is_taken or lock.lock._is_owned() for lock in every)


def close_at_once(client: Any) -> None:
    """Close a client whose peer goes on sending, without waiting for it."""
    client._reset()
    client.close()
    assert client.socket.fileno() == -1


# -- Storms ------------------------------------------------------------------------------------


def send_numbers(sock: socket.socket) -> None:
    """Send numbered lines, cut in any way, as long as the client takes them."""
    cuts = random.Random(1)
    numbers = itertools.count()
    waiting = b""
    while True:
        while len(waiting) < 200:
            waiting += b"%d\n" % next(numbers)
        size = cuts.choice((1, 7, 20, 200))
        sock.sendall(waiting[:size])
        waiting = waiting[size:]


@pytest.mark.in_turn
@each_transport
@each_error
def test_receiving(tls: bool, error: type[BaseException], share: int) -> None:
    """What is received has no gap; the client says so before it goes on behind one."""
    seen: Counter[str] = Counter()
    server, context = contexts(tls)
    with serving(send_numbers, server) as address, Storm(error) as storm:
        rounds = Rounds(storm, share)
        while rounds:
            client = connect(address, context)
            seen.update(receive_numbers(client, storm, rounds))
            close_at_once(client)
    assert storm.count > 100
    assert seen.keys() <= {"said"}


@each_error
def test_waiting_in_recv(error: type[BaseException], share: int) -> None:
    """What has arrived in a recv(2) that was cut short is there for the next one."""
    seen: Counter[str] = Counter()
    with serving(send_numbers) as address, Storm(error) as storm:
        rounds = Rounds(storm, 5 * share)
        while rounds:
            client = connect(address, None, PatientTCPClient)
            seen.update(receive_numbers(client, storm, rounds, None))
            close_at_once(client)
    assert storm.count > 100
    assert seen.keys() <= {"said"}


def receive_numbers(
    client: Any, storm: Storm, rounds: Rounds, timeout: float | None = STUCK
) -> Counter[str]:
    seen: Counter[str] = Counter()
    expected = 0
    while rounds:
        try:
            storm.arm()
            packet = client.recv_packet(timeout=timeout)
            storm.armed = False
        except (Interruption, Alarm):
            seen.update(["lock"] * leaves_lock(client))
            continue
        except (OSError, RuntimeError) as exc:
            storm.armed = False
            is_said = "was interrupted" in str(exc) or isinstance(exc.__cause__, Alarm)
            return seen + Counter(["said" if is_said else f"{exc}"])
        if packet != str(expected):
            return seen + Counter(["gap"])
        expected += 1
    return seen


def test_iterating() -> None:
    """An iterator loses nothing either."""
    seen: Counter[str] = Counter()
    with serving(send_numbers) as address, Storm() as storm:
        rounds = Rounds(storm, 5)
        while rounds:
            client = connect(address, None)
            expected = 0
            while rounds:
                packet = None
                packets = client.iter_received_packets(timeout=STUCK)
                try:
                    storm.arm()
                    for packet in packets:  # noqa: B007 - of which there is one
                        storm.armed = False
                        break
                except Interruption:
                    continue
                storm.armed = False
                if packet is None:  # the iterator says nothing, but ends
                    break
                seen.update(["gap"] * (packet != str(expected)))
                expected += 1
            close_at_once(client)
    assert storm.count > 100
    assert not seen


@pytest.mark.in_turn
@each_transport
@each_error
def test_sending(tls: bool, error: type[BaseException], share: int) -> None:
    """Whatever `send_packet()` returned for arrives; nothing follows a part of a packet."""
    streams: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def receive(sock: socket.socket) -> None:
        chunks = []
        try:
            while chunk := sock.recv(1 << 16):
                chunks.append(chunk)
        except OSError:  # the end without a closing alert, after a part of a packet
            pass
        streams.put(b"".join(chunks))

    server, context = contexts(tls)
    with serving(receive, server) as address, Storm(error) as storm:
        rounds = Rounds(storm, share)
        while rounds:
            client = connect(address, context)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            sent = send_all_numbers(client, storm, rounds)
            client.close()
            received = streams.get(timeout=PATIENCE).split(b"\n")[:-1]
            numbers = [int(line.removesuffix(LARGE.encode())) for line in received]
            assert numbers == sorted(set(numbers))
            assert set(numbers) >= sent
    assert storm.count > 100


def send_all_numbers(client: Any, storm: Storm, rounds: Rounds) -> set[int]:
    """Send numbers until the client says that it cannot; return those that were sent."""
    sent = set()
    for number in itertools.count():
        packet = f"{number}{LARGE if number % 50 == 0 else ''}"
        try:
            storm.arm()
            client.send_packet(packet, timeout=STUCK)
            storm.armed = False
            sent.add(number)
        except (Interruption, Alarm):
            assert not leaves_lock(client)
        except (ConnectionAbortedError, RuntimeError) as exc:
            storm.armed = False
            if not isinstance(exc.__cause__, Alarm):  # in the serializer
                assert "Only a part of an earlier packet" in str(exc)  # noqa: PT017 - now and then
                break
        if not rounds or number > 300:
            break
    return sent


@each_transport
def test_closing(tls: bool) -> None:
    """A client whose `close()` was cut can still be closed, and is as closed as any."""
    server, context = contexts(tls)
    with serving(lambda sock: sock.recv(100), server) as address, Storm() as storm:
        rounds = Rounds(storm, 10)
        while rounds:
            client = connect(address, context)
            try:
                storm.arm()
                client.close()
                storm.armed = False
            except Interruption:
                assert not leaves_lock(client)
                client.close()
            assert client.is_closed()
            assert client.socket.fileno() == -1
            assert not leaves_lock(client)
    assert storm.count > 100


def test_datagrams() -> None:
    """Datagrams are not mixed up; what is lost is the one on its way, as it may."""
    lost = 0
    with opened() as (client, peer), Storm() as storm:
        rounds = Rounds(storm)
        for number in itertools.count():
            if not rounds:
                break
            packet = None
            try:
                storm.arm()
                client.send_packet(f"{number}", timeout=STUCK)
                storm.armed = False
            except Interruption:
                assert not leaves_lock(client)
                client.send_packet(f"{number}")
            while (datagram := peer.recv(100)) != str(number).encode():
                assert datagram == str(number - 1).encode()  # sent although it was interrupted
            peer.send(datagram)
            try:
                storm.arm()
                packet = client.recv_packet(timeout=STUCK)
                storm.armed = False
            except Interruption:
                assert not leaves_lock(client)
                packet = next(client.iter_received_packets(), None)
            assert packet in (str(number), None)
            lost += packet is None
    assert storm.count > 100
    assert lost < storm.count / 4


# -- Single interrupts -------------------------------------------------------------------------


@pytest.fixture
def on_signal() -> Any:
    """Return what has a function called by a signal, after a moment, in the main thread."""
    previous = signal.getsignal(signal.SIGALRM)

    def call(function: Any) -> None:
        signal.signal(signal.SIGALRM, lambda *_: function())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    yield call
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def interrupt() -> None:
    raise Interruption


def test_while_waiting_for_a_packet(pair: Pair, on_signal: Any) -> None:
    """An interrupt that comes while nothing arrives changes nothing."""
    client, peer = pair
    peer.sendall(b"hel")
    on_signal(interrupt)
    with pytest.raises(Interruption):
        client.recv_packet()
    peer.sendall(b"lo\nworld\n")
    assert [client.recv_packet(timeout=PATIENCE) for _ in "ab"] == ["hello", "world"]


@pytest.mark.in_turn
def test_while_waiting_to_send(narrow: Pair, on_signal: Any) -> None:
    """Nor one that comes before anything of a packet has left."""
    client, peer = narrow
    with socket.socket(fileno=os.dup(client.fileno())) as sock:
        sock.setblocking(False)
        is_full = False
        while not is_full:
            try:
                sock.send(b"\n" * 1000)
            except BlockingIOError:
                is_full = not select.select([], [sock], [], 0.2)[1]
    on_signal(interrupt)
    with pytest.raises(Interruption):
        client.send_packet("interrupted")
    reader = InThread(lambda: peer.makefile("rb").read())
    client.send_packet("next")
    client.close()
    assert set(reader.result().split(b"\n")) == {b"next", b""}


def test_closing_in_a_handler(pair: Pair, on_signal: Any) -> None:
    """A signal handler may close the client that its own thread waits with."""
    client, peer = pair
    on_signal(client.close)
    with pytest.raises(ClientClosedError):
        client.recv_packet()
    assert peer.recv(100) == b""
    assert client.socket.fileno() == -1


def test_closing_a_sender_in_a_handler(narrow: Pair, on_signal: Any) -> None:
    """Also in the middle of a packet: it cannot wait until that has left."""
    client, peer = narrow
    on_signal(client.close)
    with pytest.raises(ClientClosedError):
        client.send_packet(LARGE * 10)
    assert client.socket.fileno() == -1
    with pytest.raises(ConnectionResetError):
        while peer.recv(1 << 16):
            pass


def test_the_same_in_a_handler(pair: Pair, on_signal: Any) -> None:
    """What would wait for itself is an error."""
    client, peer = pair
    errors: list[Exception] = []

    def receive() -> None:
        try:
            client.recv_packet()
        except Exception as exc:
            errors.append(exc)
        peer.sendall(b"hello\n")

    on_signal(receive)
    assert client.recv_packet() == "hello"
    assert [type(error) for error in errors] == [BusyResourceError]
    peer.sendall(b"world\n")
    assert client.recv_packet() == "world"


def test_lock_of_another_thread() -> None:
    """A lock is one, whoever asks."""
    lock = ClientLock()
    assert lock.run(lambda: InThread(lock.is_taken_elsewhere).result())
    assert not InThread(lock.is_taken_elsewhere).result()
    with pytest.raises(TimeoutError):
        lock.run(lambda: InThread(lock.run, bool, 0).result())
    with pytest.raises(BusyResourceError):
        lock.run(lambda: lock.run(bool))
    assert not lock.run(bool, 0)
