"""Services whose supervisor binds the sockets and keeps them: the tests are the supervisor.

See ``supervised.py`` for the service.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.adopting import CLIENTS, Load, ask, new_bound_socket
from tests.clients.threads_support import wait_until
from tests.conftest import HAS_UVLOOP
from tests.times import PATIENCE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")

PROGRAM = Path(__file__).parent / "supervised.py"
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM

# A service finds its own number in LISTEN_PID: only the process that becomes the service knows it.
SHELL = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"]

UVLOOP = pytest.param(
    "uvloop", marks=pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")
)
each_loop = pytest.mark.parametrize("loop", ["asyncio", UVLOOP, "trio"])
each_way = pytest.mark.parametrize("way", [[], ["--standalone"]], ids=["async", "standalone"])
each_type = pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])


class Service:
    """A context manager around a running service, as its supervisor sees it.

    Args:
        sockets: What it is passed.
        arguments: Those of the program.
        variables: The environment variables that come with the sockets, without LISTEN_PID.
    """

    def __init__(self, sockets: Sequence[socket.socket], *arguments: str, **variables: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._notifications = socket.socket(socket.AF_UNIX, DATAGRAM)
        self._notifications.settimeout(PATIENCE)
        self._notifications.bind("")  # the kernel chooses an abstract address: unix(7)
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("LISTEN_")},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NOTIFY_SOCKET": "@" + self._notifications.getsockname()[1:].decode(),
            "LISTEN_FDS": str(len(sockets)),
            **variables,
        }
        command = [*SHELL, sys.executable, "-W", "error", str(PROGRAM), *arguments]
        with contextlib.ExitStack() as stack:
            actions = [(os.POSIX_SPAWN_DUP2, self._log.fileno(), 2)]
            for number, sock in enumerate(sockets, 3):
                # Out of the way: the target of one may be the source of another.
                descriptor = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100)
                stack.callback(os.close, descriptor)
                actions.append((os.POSIX_SPAWN_DUP2, descriptor, number))
            self.pid = os.posix_spawn(command[0], command, environment, file_actions=actions)

    def __enter__(self) -> Self:
        try:
            assert self._notifications.recv(100) == b"READY=1"
        except BaseException as exc:
            self.__exit__(type(exc), exc, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status = self._stop()
        self._notifications.close()
        with self._log:
            self._log.seek(0)
            log = self._log.read().decode()
        if exc is None:
            assert (status, log) == (0, "")
        else:
            exc.add_note(f"The service's exit status is {status}, its log:\n{log[-2000:]}")

    def _stop(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


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
        for kind, host in [(STREAM, "127.0.0.1"), (DATAGRAM, "127.0.0.1"), (STREAM, "::1")]
    ]
    with Service(sockets, loop, *way, LISTEN_FDNAMES="web:dns:web") as service:
        for sock in sockets:
            address = sock.getsockname()
            assert ask(sock.type, address, "pid") == str(service.pid)
            assert ask(sock.type, address, "names") == "web web dns"
            assert ask(sock.type, address, "variables") == "variables:"
    # The sockets are the supervisor's as before.
    with socket.create_connection(sockets[0].getsockname(), PATIENCE):
        sockets[0].settimeout(PATIENCE)
        sockets[0].accept()[0].close()


@each_type
@each_loop
@each_way
def test_restarts(
    loop: str, way: list[str], kind: socket.SocketKind, supervisor: contextlib.ExitStack
) -> None:
    """While a service restarts, clients wait: none is refused, no TCP request is lost."""
    sock = supervisor.enter_context(new_bound_socket(kind))
    with Load(kind, sock.getsockname()) as load:
        for _ in range(3):
            goal = load.answered + CLIENTS
            with Service([sock], loop, *way):
                wait_until(lambda goal=goal: load.answered >= goal)  # type: ignore[misc]
        with Service([sock], loop, *way):
            load.stop()
    assert load.refused == 0
    assert load.lost == 0 or kind == DATAGRAM
    assert load.answered >= 3 * CLIENTS


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
