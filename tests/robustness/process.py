"""A server in a process of its own, and what the kernel knows of it. Linux only."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.tls_peers import client_context

PROGRAM = Path(__file__).parent / "served.py"

# Seconds. Generous: an interpreter has to start, and other tests may be running.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0


class ServerProcess:
    """A context manager around a running ``served.py``, or a program like it.

    Fails if that does not end well.

    Attributes:
        pid: The process.
        port: Where it listens.
        path: Where it listens, if that is a Unix socket.
        tls: With which to connect, if it speaks TLS.
    """

    def __init__(self, *arguments: str, program: Path = PROGRAM) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.pid = self._process.pid
        self.port = 0
        self.path = arguments[arguments.index("--unix") + 1] if "--unix" in arguments else None
        self.tls = client_context() if "--tls" in arguments else None

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_TIMEOUT)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._stop()
            raise AssertionError(f"the server did not start: {self._close_log()}")
        self.port = int(line)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status = self._stop()
        log = self._close_log()
        if exc is None:
            assert status == 0, log
        else:
            exc.add_note(
                f"The server's exit status is {status}, the end of its log:\n{log[-2000:]}"
            )

    def _stop(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process.stdout.close()

    def _close_log(self) -> str:
        log = self.log()
        self._log.close()
        return log

    # -- meters

    def log(self) -> str:
        """Return what was logged so far, but for the limits, which are known here."""
        size = os.fstat(self._log.fileno()).st_size
        lines = os.pread(self._log.fileno(), size, 0).decode().splitlines(keepends=True)
        return "".join(line for line in lines if "Clients have Limits" not in line)

    def processor_time(self) -> float:
        """Return the seconds, user's and system's, that the server has worked so far."""
        # The number that clock_getcpuclockid(3) makes of a process.
        return time.clock_gettime((~self.pid << 3) | 2)

    def memory(self) -> int:
        """Return the bytes that the process occupies now."""
        return self._kibibytes("smaps_rollup", "Rss:") * 1024

    def forget_peak(self) -> None:
        """Let `peak_memory()` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc(5)

    def peak_memory(self) -> int:
        """Return the most bytes that the process has occupied since `forget_peak()`."""
        return self._kibibytes("status", "VmHWM:") * 1024

    def _kibibytes(self, file: str, key: str) -> int:
        lines = Path(f"/proc/{self.pid}/{file}").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key))
