"""Services whose supervisor binds the sockets and keeps them: the tests are the supervisor.

See ``supervised.py`` for the service, and ``supervisor.py`` for how it is started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adopting import CLIENTS, Load, ask, new_bound_socket
from tests.clients.threads_support import wait_until
from tests.conftest import ALL_TESTS, HAS_UVLOOP
from tests.networks import own_network
from tests.supervisor import PROGRAM, Service
from tests.times import PATIENCE

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system"),
    pytest.mark.in_turn,
]

# Each restart takes half a second: another interpreter has to start.
RESTARTS = 100 if ALL_TESTS else 4
long = pytest.mark.timeout(1200 if ALL_TESTS else 60)

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM

LOOPS = ["asyncio", *(["uvloop"] if HAS_UVLOOP else []), "trio"]
each_loop = pytest.mark.parametrize("loop", LOOPS)
each_way = pytest.mark.parametrize("way", [[], ["--standalone"]], ids=["async", "standalone"])
# A standalone server adopts its sockets as its asynchronous server does, whatever the loop.
each_service = pytest.mark.parametrize(
    ("loop", "way"),
    [
        *(pytest.param(loop, [], id=f"async-{loop}") for loop in LOOPS),
        *(
            pytest.param(loop, ["--standalone"], id=f"standalone-{loop}")
            for loop in (LOOPS if ALL_TESTS else LOOPS[:1])
        ),
    ],
)
each_type = pytest.mark.parametrize(
    ("kind", "host"),
    [(STREAM, "127.0.0.1"), (DATAGRAM, "127.0.0.1"), (STREAM, ""), (DATAGRAM, "")],
    ids=["tcp", "udp", "unix-stream", "unix-datagram"],
)


@pytest.fixture
def supervisor() -> Iterator[contextlib.ExitStack]:
    """Keeps the sockets for as long as the test runs."""
    with contextlib.ExitStack() as stack:
        yield stack


@each_loop
@each_way
def test_service(loop: str, way: list[str], supervisor: contextlib.ExitStack) -> None:
    """A service serves on all that it is passed, by name; its children are passed nothing."""
    sockets = [
        supervisor.enter_context(new_bound_socket(kind, host))
        for kind, host in [
            *((STREAM, "127.0.0.1"), (DATAGRAM, "127.0.0.1"), (STREAM, "::1")),
            *((STREAM, ""), (DATAGRAM, "")),
        ]
    ]
    with Service(sockets, loop, *way, LISTEN_FDNAMES="web:dns:web:x:y") as service:
        for sock in sockets:
            address = sock.getsockname()
            assert ask(sock.type, address, "pid") == str(service.pid)
            assert ask(sock.type, address, "names") == "web web dns x y"
            assert ask(sock.type, address, "variables") == "variables:"
    # The sockets are the supervisor's as before.
    with socket.create_connection(sockets[0].getsockname(), PATIENCE):
        sockets[0].settimeout(PATIENCE)
        sockets[0].accept()[0].close()


@pytest.mark.in_turn
@each_type
@each_service
def test_restarts(
    loop: str,
    way: list[str],
    kind: socket.SocketKind,
    host: str,
    supervisor: contextlib.ExitStack,
) -> None:
    """While a service restarts, clients wait: none is refused, no TCP request is lost."""
    sock = supervisor.enter_context(new_bound_socket(kind, host))
    with Load(kind, sock.getsockname()) as load:
        for is_last in False, True:
            goal = load.answered + CLIENTS
            with Service([sock], loop, *way):
                wait_until(lambda goal=goal: load.answered >= goal)  # type: ignore[misc]
                if is_last:
                    load.stop()
    assert load.refused == 0
    assert load.lost == 0 or kind == DATAGRAM
    assert load.answered >= 2 * CLIENTS


@long
@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("loop", "kind", "host"),
    [
        *(pytest.param(loop, STREAM, "127.0.0.1", id=f"{loop}-tcp") for loop in LOOPS),
        pytest.param("asyncio", DATAGRAM, "127.0.0.1", id="asyncio-udp"),
        pytest.param("asyncio", STREAM, "", id="asyncio-unix-stream"),
    ],
)
def test_rolling_restarts(
    loop: str,
    kind: socket.SocketKind,
    host: str,
    supervisor: contextlib.ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next service starts before the last one drains: no request fails."""
    monkeypatch.setattr("tests.adopting.SOON", PATIENCE)  # a late answer is no lost datagram
    sock = supervisor.enter_context(new_bound_socket(kind, host))
    with Load(kind, sock.getsockname()) as load:
        restart_often(load, lambda: Service([sock], loop, "--run"), supervisor)
    assert (load.refused, load.lost) == (0, 0)


def restart_often(
    load: Load, new_service: Callable[[], Service], supervisor: contextlib.ExitStack
) -> None:
    """Start a service while the last one serves, then have that drain and end, again and again."""
    last = supervisor.enter_context(contextlib.ExitStack())
    for _ in range(RESTARTS):
        following = contextlib.ExitStack()
        following.enter_context(new_service())
        last.close()  # tells the last service to drain, and waits until it has ended
        last = supervisor.enter_context(following)
        goal = load.answered + 5 * CLIENTS
        wait_until(lambda goal=goal: load.answered >= goal)  # type: ignore[misc]
    load.stop()


@pytest.mark.in_turn
@long
@pytest.mark.in_turn
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("migrates", [True, False])
def test_rolling_restarts_with_reuse_port(
    loop: str, migrates: bool, supervisor: contextlib.ExitStack
) -> None:
    """With a socket for each service, no request fails if the kernel gives connections away.

    Otherwise, those fail whose handshake is not complete when the socket is closed. There may be
    none: the test prints how many.
    """

    def new_service() -> Service:
        with new_socket() as sock:
            return Service([sock], loop, "--run")

    def new_socket() -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(1024)
        return sock

    with own_network():
        migration = Path("/proc/sys/net/ipv4/tcp_migrate_req")  # of this network alone
        try:
            migration.write_text(str(int(migrates)))
        except OSError as exc:
            pytest.skip(f"net.ipv4.tcp_migrate_req cannot be set here: {exc}")
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            address: Any = sock.getsockname()
        first = supervisor.enter_context(new_socket())
        with Load(STREAM, address) as load:
            supervisor.callback(first.close)
            service = contextlib.ExitStack()
            service.enter_context(Service([first], loop, "--run"))
            first.close()
            supervisor.push(service)
            restart_often(load, new_service, supervisor)
        print(f"{load.refused} refused, {load.lost} lost of {load.answered + load.lost} requests")
        assert load.refused == 0
        if migrates:
            assert load.lost == 0
        supervisor.close()


def test_two_services(supervisor: contextlib.ExitStack) -> None:
    """Two services may share the sockets: if one ends, the other goes on."""
    sock = supervisor.enter_context(new_bound_socket(STREAM))
    with Service([sock], "asyncio") as one:
        with Service([sock], "trio") as two:
            pids = {str(one.pid), str(two.pid)}
            for _ in range(20):
                assert ask(STREAM, sock.getsockname(), "pid") in pids
        for _ in range(20):
            assert ask(STREAM, sock.getsockname(), "pid") == str(one.pid)


@each_loop
def test_systemd_socket_activate(loop: str) -> None:
    """What systemd's own program passes is served; the client that woke it up is the first."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed")
    with new_bound_socket(STREAM) as sock:
        address: Any = sock.getsockname()
    command = [program, "--listen", f"127.0.0.1:{address[1]}", "--fdname", "web"]
    environment = [f"--setenv=PYTHONPATH={os.pathsep.join(sys.path)}"]
    process = subprocess.Popen(
        [*command, *environment, sys.executable, "-W", "error", str(PROGRAM), loop],
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            assert process.stderr is not None
            assert "Listening on" in process.stderr.readline()
            assert ask(STREAM, address, "names") == "web"
            assert ask(STREAM, address, "variables") == "variables:"
            assert ask(STREAM, address, "pid") == str(process.pid)
            process.terminate()
            log = process.communicate(timeout=PATIENCE)[1]
        finally:
            process.kill()
    assert process.returncode == 0, log
