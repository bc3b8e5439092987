from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from benchmarks.links import WrongAnswerError, make_line, open_links
from benchmarks.load import Load, closed_loop, open_loop
from benchmarks.packets import PACKETS
from benchmarks.process import Reading

SHORT = {"warm_up": 0.02, "duration": 0.05}


def read_clock() -> Reading:
    return Reading(time.perf_counter(), 0.0, 0.0)


@contextlib.contextmanager
def echo_thread(change=lambda data: data, connections=1):
    """Serve so many TCP connections from threads; yields the port."""

    def serve(listener):
        with contextlib.ExitStack() as stack:
            threads = []
            for _ in range(connections):
                sock = stack.enter_context(listener.accept()[0])
                threads.append(threading.Thread(target=answer, args=(sock,)))
                threads[-1].start()
            for thread in threads:
                thread.join()

    def answer(sock):
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                sock.sendall(change(data))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@contextlib.contextmanager
def echo_datagrams(answers=lambda number: True):
    """Echo datagrams from a thread, those whose number passes; yields the port."""

    def serve(sock):
        for number in range(1_000_000):
            data, address = sock.recvfrom(65536)
            if not data:
                return
            if answers(number):
                sock.sendto(data, address)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(sock,))
        thread.start()
        yield sock.getsockname()[1]
        sock.sendto(b"", sock.getsockname())
        thread.join()


@pytest.mark.parametrize("size", [2, 64, 100])
def test_make_line(size):
    """A line has the size that was asked for and one newline, at its end."""
    line = make_line(size)

    assert len(line) == size
    assert line.index(b"\n") == size - 1


@pytest.mark.parametrize(
    ("connections", "size", "in_flight"), [(1, 64, 1), (3, 64, 16), (2, 1 << 20, 1)]
)
def test_closed_loop(connections, size, in_flight):
    """A closed loop counts answers, and has a latency for each batch of them."""
    with (
        echo_thread(connections=connections) as port,
        open_links("tcp", port, connections, size=size, in_flight=in_flight) as links,
    ):
        load = closed_loop(links, reading=read_clock, **SHORT)

    assert load.answers > 0
    assert abs(len(load.latencies) * in_flight - load.answers) <= connections * in_flight
    assert load.seconds >= 0.05
    assert load.lost == 0
    assert load.busy > 0


def test_open_loop():
    """An open loop sends all requests that are due, whatever the server does."""
    with (
        echo_thread(connections=2) as port,
        open_links("tcp", port, 2, size=64) as links,
    ):
        load = open_loop(links, rate=1000, warm_up=0.0, duration=0.0505, reading=read_clock)

    assert len(load.late) == 50  # the first one left with the warm-up
    assert len(load.latencies) == 51


def test_open_loop_counts_from_when_a_request_was_due():
    """Requests that wait behind a stalled server count with the whole time that they waited."""
    stalled = threading.Event()

    def stall(data):
        if data != b"hello\n" and not stalled.is_set():
            stalled.set()
            time.sleep(0.06)
        return data

    with echo_thread(stall) as port, open_links("tcp", port, 1, size=64) as links:
        load = open_loop(links, rate=1000, warm_up=0.0, duration=0.1005, reading=read_clock)

    assert len(load.latencies) == 101
    assert sum(latency > 0.03 for latency in load.latencies) >= 20


@pytest.mark.parametrize("name", PACKETS)
def test_formats(name):
    """A server of a format gets packets of that format from the first byte on, and no others."""
    received = bytearray()

    def record(data):
        received.extend(data)
        return data

    with (
        echo_thread(record) as port,
        open_links(name, port, 1, size=64, in_flight=3) as links,
    ):
        load = closed_loop(links, reading=read_clock, **SHORT)

    count, rest = divmod(len(received), len(PACKETS[name]))
    assert (received, rest) == (PACKETS[name] * count, 0)
    assert 0 < load.answers < count


@pytest.mark.parametrize("name", PACKETS)
def test_wrong_answer_in_a_format(name):
    """An answer in a format is compared to its last byte, beginning with the first one."""
    with (
        pytest.raises(WrongAnswerError, match="expected"),
        echo_thread(lambda data: data[:-1] + b"?") as port,
        open_links(name, port, 1, size=64),
    ):
        pass


def test_wrong_answer():
    """An answer that is not the echo ends the measurement and is shown."""
    with (
        pytest.raises(WrongAnswerError, match="HELLO"),
        echo_thread(bytes.upper) as port,
        open_links("tcp", port, 1, size=64),
    ):
        pass


def test_wrong_answer_later():
    """Every byte of every answer is compared."""
    with (
        pytest.raises(WrongAnswerError, match="x"),
        echo_thread(lambda data: data.replace(b"7", b"x")) as port,
        open_links("tcp", port, 1, size=64) as links,
    ):
        closed_loop(links, reading=read_clock, **SHORT)


def test_server_that_leaves():
    """A connection that ends is an error, not a fast server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with (
            pytest.raises((WrongAnswerError, ConnectionError)),
            open_links("tcp", listener.getsockname()[1], 1, size=64),
        ):
            pass
        thread.join()


def test_datagrams():
    """Datagrams are counted as lines are."""
    with (
        echo_datagrams() as port,
        open_links("udp", port, 2, size=64, in_flight=4) as links,
    ):
        load = closed_loop(links, reading=read_clock, **SHORT)

    assert load.answers > 0
    assert load.lost == 0


def test_lost_datagrams():
    """A batch with a lost datagram is sent again and counted."""
    with (
        echo_datagrams(lambda number: number != 1) as port,
        open_links("udp", port, 1, size=64, in_flight=2) as links,
    ):
        load = closed_loop(links, warm_up=0.0, duration=0.3, reading=read_clock)

    assert load.lost == 1
    assert load.answers > 2


@pytest.mark.parametrize(
    ("busy", "server", "limit"), [(0.95, 0.5, True), (0.95, 0.95, False), (0.5, 0.5, False)]
)
def test_load_says_when_it_was_the_limit(busy, server, limit):
    """The load was the limit if it was saturated and the server was not."""
    load = Load(1, Reading(0, 0, 0), Reading(1, server, server), [], busy)

    assert load.was_the_limit is limit
