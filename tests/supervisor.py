"""A supervisor, as systemd is one: it starts services, passes them sockets and hears from them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.times import PATIENCE

PROGRAM = Path(__file__).parent / "supervised.py"

# A service finds its own number in LISTEN_PID: only the process that becomes the service knows it.
SHELL = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"]


class Service:
    """A context manager around a running service, as its supervisor sees it.

    Fails if the service does not end well.

    Args:
        sockets: What it is passed.
        arguments: Those of the program.
        program: The program.
        is_silent: Whether it must not log anything.
        variables: The environment variables that come with the sockets, without LISTEN_PID.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *arguments: str,
        program: Path = PROGRAM,
        is_silent: bool = True,
        **variables: str,
    ) -> None:
        self._is_silent = is_silent
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.settimeout(PATIENCE)
        self._notifications.bind("")  # the kernel chooses an abstract address: unix(7)
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("LISTEN_")},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NOTIFY_SOCKET": "@" + self._notifications.getsockname()[1:].decode(),
            "LISTEN_FDS": str(len(sockets)),
            **variables,
        }
        command = [*SHELL, sys.executable, "-W", "error", str(program), *arguments]
        with contextlib.ExitStack() as stack:
            actions = [(os.POSIX_SPAWN_DUP2, self._log.fileno(), 2)]
            for number, sock in enumerate(sockets, 3):
                # Out of the way: the target of one may be the source of another.
                descriptor = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100)
                stack.callback(os.close, descriptor)
                actions.append((os.POSIX_SPAWN_DUP2, descriptor, number))
            self._is_told = False
            self.pid = os.posix_spawn(command[0], command, environment, file_actions=actions)

    def __enter__(self) -> Self:
        try:
            assert self.notification() == "READY=1"
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
            assert status == 0, log
            assert not (log and self._is_silent), log
        else:
            exc.add_note(f"The service's exit status is {status}, its log:\n{log[-2000:]}")

    def notification(self) -> str:
        """Return what the service says next."""
        return self._notifications.recv(100).decode()

    def terminate(self) -> None:
        """Tell the service to stop."""
        self._is_told = True
        os.kill(self.pid, signal.SIGTERM)

    def _stop(self) -> int:
        if not self._is_told:  # one that is about to end would be killed by a second signal
            self.terminate()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
