"""Clients that are silent, rude or many hold up nobody else, and cost a bounded amount."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import easynetwork.socketserver as ours
from tests.socketserver.support import (
    LOCALHOST,
    Echo,
    EchoBytes,
    EchoDatagrams,
    ask,
    connect,
    datagram_socket,
    echoes,
    levels_of,
    receive_line,
    reset,
    served,
    wait_cut_off,
)
from tests.times import MS, PATIENCE, SOON, STUCK
from tests.tls_peers import NEWEST, TLSSocket, client_context, server_context

each_timeout = pytest.mark.parametrize("close_timeout", [0.0, 0.05])


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, "easynetwork.socketserver"):
        yield


class Counting(Echo):
    """Counts how many handlers there are at the same time."""

    lock = threading.Lock()
    now = most = 0

    def handle(self) -> None:
        with self.lock:
            type(self).now += 1
            type(self).most = max(self.now, self.most)
        try:
            super().handle()
        finally:
            with self.lock:
                type(self).now -= 1


# -- threads


def test_bound_of_threads(caplog: pytest.LogCaptureFixture) -> None:
    """While all are busy, clients wait; each is served when its turn comes. One line is logged."""

    class Handler(Counting):
        pass

    with served(ours.ThreadingTCPServer, Handler, max_threads=3) as server:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connect(server)) for _ in range(10)]
            for sock in socks:
                sock.sendall(b"hello\n")
            for sock in socks[:3]:
                assert receive_line(sock) == b"hello\n"
            socks[3].settimeout(SOON)
            with pytest.raises(TimeoutError):
                socks[3].recv(1)
            socks[3].settimeout(PATIENCE)
            for leaving, waiting in zip(socks, socks[3:], strict=False):
                leaving.close()
                assert receive_line(waiting) == b"hello\n"
    assert Handler.most == 3
    assert [record.getMessage() for record in caplog.records if record.levelno > 10] == [
        "All 3 threads are busy: clients wait"
    ]


@pytest.mark.parametrize("accept", [ours.TCPServer.get_request, lambda self: self.socket.accept()])
@pytest.mark.parametrize("client", ["none waits", "one waits"])
def test_shutdown_while_all_threads_are_busy(client: str, accept: Any) -> None:
    """`shutdown()` and `service_actions()` go on, also in a program that accepts by itself."""
    actions = threading.Semaphore(0)

    class Server(ours.ThreadingTCPServer):
        def service_actions(self) -> None:
            actions.release()

        def get_request(self) -> Any:
            return accept(self)

    with Server(LOCALHOST, Echo, max_threads=1, close_timeout=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(10 * MS,))
        thread.start()
        with connect(server) as busy, connect(server) as waiting:
            assert ask(busy, b"busy\n") == b"busy\n"
            if client == "one waits":
                waiting.sendall(b"wait\n")
            while actions.acquire(blocking=False):
                pass
            assert actions.acquire(timeout=PATIENCE)
            start = time.monotonic()
            server.shutdown()
            thread.join(PATIENCE)
            assert not thread.is_alive()
            assert time.monotonic() - start < 2 * STUCK
            assert ask(busy, b"still\n") == b"still\n"


def test_handle_request_while_all_threads_are_busy() -> None:
    """After `timeout` seconds, it calls `handle_timeout()`."""
    timeouts = []

    class Server(ours.ThreadingTCPServer):
        timeout: float = 0
        handle_timeout = lambda self: timeouts.append(self)  # noqa: E731

    with Server(LOCALHOST, Echo, max_threads=1, close_timeout=0) as server:
        with connect(server) as busy, connect(server) as waiting:
            server.handle_request()
            assert ask(busy, b"busy\n") == b"busy\n"
            server.handle_request()
            assert timeouts == [server]
            server.timeout = PATIENCE
            busy.close()
            server.handle_request()
            assert ask(waiting, b"wait\n") == b"wait\n"


def test_bound_of_threads_for_datagrams() -> None:
    """Datagrams wait in the socket's buffer."""
    started, finish = threading.Semaphore(0), threading.Event()

    class Handler(EchoDatagrams):
        def handle(self) -> None:
            started.release()
            assert finish.wait(PATIENCE)
            super().handle()

    with served(ours.ThreadingUDPServer, Handler, max_threads=2) as server:
        with datagram_socket(server) as sock:
            for number in range(4):
                sock.send(b"%d" % number)
            for _ in range(2):
                assert started.acquire(timeout=PATIENCE)
            assert not started.acquire(timeout=SOON)
            finish.set()
            assert sorted(sock.recv(100) for _ in range(4)) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("fault", ["start", "bug"])
def test_places_are_given_back(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that cannot be started, or ends with an exception, costs no place."""
    faults = 5

    def fail(self: Any, *arguments: Any) -> None:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("can't start new thread")
        original(self, *arguments)

    owner, name = (threading.Thread, "start") if fault == "start" else (Echo, "handle")
    original = getattr(owner, name)
    with served(ours.ThreadingTCPServer, Echo, max_threads=1) as server:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            for _ in range(5):
                with connect(server) as sock:
                    assert sock.recv(1) == b""
            assert echoes(server)


# -- clients that reset, or send garbage


def reset_at_once(sock: socket.socket) -> None:
    """Be gone when the server accepts."""


def reset_after_half_a_packet(sock: socket.socket) -> None:
    sock.sendall(b"hal")


def reset_after_a_packet(sock: socket.socket) -> None:
    sock.sendall(b"packet\n")


def reset_after_the_response(sock: socket.socket) -> None:
    assert ask(sock, b"packet\n") == b"packet\n"


def reset_while_receiving(sock: socket.socket) -> None:
    sock.sendall(b"x" * 50_000 + b"\n")
    sock.recv(1)


def reset_after_the_end(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    wait_cut_off(sock)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer"])
@pytest.mark.parametrize(
    "step",
    [
        *(reset_at_once, reset_after_half_a_packet, reset_after_a_packet),
        *(reset_after_the_response, reset_while_receiving, reset_after_the_end),
    ],
)
def test_resets(name: str, step: Any, tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    """None of them is worth more than a line at the level DEBUG."""
    options = {"ssl": server_context()} if tls else {}
    with served(getattr(ours, name), Echo, **options) as server:
        for _ in range(10):
            raw = connect(server)
            sock: Any = TLSSocket(raw, client_context(NEWEST)) if tls else raw
            if tls and step is not reset_at_once:
                sock.do_handshake()
            step(sock)
            reset(raw)
        with connect(server) as raw:
            sock = TLSSocket(raw, client_context(NEWEST)) if tls else raw
            assert ask(sock, b"echo\n") == b"echo\n"
    assert set(levels_of(caplog)) <= {"DEBUG"}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("garbage", [b"\xff" * 1000 + b"\n", bytes(1 << 20), b"\n" * 1000])
def test_garbage(garbage: bytes, tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It ends its connection, at most; the others go on."""
    options = {"ssl": server_context()} if tls else {}
    with served(ours.ThreadingTCPServer, Echo, **options) as server:
        with connect(server) as raw:
            good: Any = TLSSocket(raw, client_context(NEWEST)) if tls else raw
            assert ask(good, b"before\n") == b"before\n"
            with connect(server) as sock:
                with contextlib.suppress(OSError):  # it may not be connected any more
                    sock.sendall(garbage)
                    sock.shutdown(socket.SHUT_WR)
                wait_cut_off(sock)
            assert ask(good, b"after\n") == b"after\n"
            if tls:
                good.close()
    assert "ERROR" not in levels_of(caplog)


def test_datagrams() -> None:
    """Empty ones, garbage, and large ones between good ones."""
    with served(ours.ThreadingUDPServer, EchoDatagrams) as server:
        with datagram_socket(server) as sock, datagram_socket(server) as good:
            for data in b"", b"\xff" * 100, bytes(65507), b"\0" * 9:
                sock.send(data)
                good.send(b"good")
                assert good.recv(100) == b"good"


# -- TLS


@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer"])
def test_silent_tls_clients(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The handshake has a timeout; with threads, nobody else waits for it."""
    timeout = 300 * MS
    options = {"ssl": server_context(), "ssl_handshake_timeout": timeout}
    with served(getattr(ours, name), Echo, **options) as server:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(connect(server)) for _ in range(3)]
            start = time.monotonic()
            with connect(server) as raw:
                good = TLSSocket(raw, client_context(NEWEST))
                assert ask(good, b"good\n") == b"good\n"
                elapsed = time.monotonic() - start
                good.close()
            for sock in silent:
                wait_cut_off(sock)
    if name == "ThreadingTCPServer":
        assert elapsed < timeout
    else:
        assert elapsed >= 2 * timeout
    assert [level for level in levels_of(caplog) if level != "DEBUG"] == []
    assert caplog.text.count("The TLS handshake took longer") == 3


def test_tls_client_that_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that trickle in do not prolong the handshake."""
    options = {"ssl": server_context(), "ssl_handshake_timeout": 300 * MS}
    with served(ours.ThreadingTCPServer, Echo, **options) as server, connect(server) as sock:
        hello = TLSSocket(sock, client_context(NEWEST))
        with contextlib.suppress(ssl.SSLWantReadError):
            hello.object.do_handshake()
        ended = threading.Event()
        with contextlib.suppress(ConnectionError):
            for byte in hello._outgoing.read()[:-1]:
                sock.sendall(bytes([byte]))
                if ended.wait(5 * MS):
                    break
        wait_cut_off(sock)
    assert levels_of(caplog) == ["DEBUG"]


# -- closing with a time limit


class BlockedInRecv(Echo):
    """Waits for a packet."""

    def handle(self) -> None:
        self.send_packet("begun")
        self.recv_packet()


class BlockedInSend(Echo):
    """Sends to a client that does not read."""

    def handle(self) -> None:
        self.send_packet("begun")
        while True:
            self.send_packet("x" * 65536)


class BlockedInBytes(EchoBytes):
    """Waits for a line, without packets."""

    def handle(self) -> None:
        self.wfile.write(b"begun\n")
        self.rfile.readline()


class BlockedInSendOfBytes(EchoBytes):
    """Sends to a client that does not read, without packets."""

    def handle(self) -> None:
        self.wfile.write(b"begun\n")
        while True:
            self.wfile.write(bytes(65536))


@each_timeout
@pytest.mark.parametrize(
    "handler", [BlockedInRecv, BlockedInSend, BlockedInBytes, BlockedInSendOfBytes]
)
@pytest.mark.parametrize("name", ["ThreadingTCPServer", "ThreadingUnixStreamServer"])
def test_close_timeout(
    name: str, handler: Any, close_timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    """`server_close()` ends what waits for clients, and its threads."""
    caplog.set_level(logging.ERROR)
    with contextlib.ExitStack() as stack:
        with served(getattr(ours, name), handler, close_timeout=close_timeout) as server:
            for _ in range(5):
                sock = stack.enter_context(connect(server))
                assert sock.recv(1) == b"b"
            start = time.monotonic()
        elapsed = time.monotonic() - start
    assert elapsed < close_timeout + STUCK / 2
    assert "still being handled" not in caplog.text


def test_close_timeout_during_a_handshake() -> None:
    """A silent TLS client does not prolong it."""
    options: Any = {"ssl": server_context(), "close_timeout": SOON}
    with ours.ThreadingTCPServer(LOCALHOST, Echo, **options) as server:
        with connect(server) as sock:
            server.handle_request()
            start = time.monotonic()
            server.server_close()
            assert time.monotonic() - start < 2 * STUCK
            wait_cut_off(sock)


def test_close_timeout_with_a_handler_that_sleeps(caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be interrupted: `server_close()` returns all the same, with an ERROR line."""
    started, finish = threading.Event(), threading.Event()

    class Handler(Echo):
        def handle(self) -> None:
            started.set()
            finish.wait(PATIENCE)

    with ours.ThreadingTCPServer(LOCALHOST, Handler, close_timeout=SOON) as server:
        with connect(server):
            server.handle_request()
            assert started.wait(PATIENCE)
            server.server_close()
            finish.set()
    assert caplog.text.count("still being handled") == 1


def test_close_timeout_that_is_not_needed() -> None:
    """`server_close()` waits for a handler that ends in time, and cuts off nobody."""

    class Handler(Echo):
        def handle(self) -> None:
            self.send_packet("begun")
            time.sleep(SOON)
            self.send_packet("done")

    with contextlib.ExitStack() as stack:
        with served(ours.ThreadingTCPServer, Handler, close_timeout=PATIENCE) as server:
            sock = stack.enter_context(connect(server))
            assert receive_line(sock) == b"begun\n"
        assert receive_line(sock) == b"done\n"
