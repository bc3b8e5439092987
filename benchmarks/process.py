"""A server in a process of its own, pinned to a core, and what the kernel counts of it.

Processor time is read from the process's own clock (``clock_getcpuclockid(3)``): nanoseconds of
user and system time of all its threads, those that have ended included. ``/proc/PID/stat`` has the
same sum in ticks of 10 ms, ``/proc/PID/schedstat`` only that of one living thread. Memory is
``Rss`` of ``/proc/PID/smaps_rollup``: exact, whereas ``statm`` is updated late.

Linux only.
"""

from __future__ import annotations

import dataclasses
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["TICK", "Reading", "ServerError", "ServerProcess"]

SERVERS = Path(__file__).parent / "servers"
# Seconds for an interpreter to start, import its libraries and listen.
START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
# Seconds. The kernel counts the time of a core in these.
TICK = 1 / os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """A server did not start, or ended before it was told to."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """The meters at one moment, all in seconds.

    Attributes:
        clock: A monotonic clock.
        processor: Processor time of the server so far.
        core: Time that the server's core has been busy so far, with any process; to 10 ms.
    """

    clock: float
    processor: float
    core: float


class ServerProcess:
    """A context manager around one running server."""

    __slots__ = ("_core", "_stderr", "name", "port", "process")

    def __init__(self, program: str, arguments: Sequence[str], *, core: int) -> None:
        """Start the server and wait for its port.

        Args:
            program: File in ``servers/``.
            arguments: Its arguments.
            core: The processor core to pin it to.

        Raises:
            ServerError: It ended, or printed no port.
        """
        self.name = " ".join([program, *arguments])
        self._core = core
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        command = [sys.executable, str(SERVERS / program), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._stderr)
        try:
            os.sched_setaffinity(self.process.pid, {core})
            self.port = self._read_port()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Terminate the process; kill it if that takes too long."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.close()

    def read(self) -> Reading:
        """Read the meters."""
        return Reading(time.perf_counter(), self._processor_time(), core_time(self._core))

    def memory(self) -> int:
        """Return the memory that the process occupies, in bytes."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        for line in rollup.splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise ServerError(f"{self.name} has ended: {self.last_words()}")

    def last_words(self) -> str:
        """Return whether the process runs, and the end of what it wrote on standard error."""
        status = self.process.poll()
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace")[-2000:]
        return f"exit status {status}, standard error: {text or 'nothing'}"

    def _processor_time(self) -> float:
        # The bits that clock_getcpuclockid(3) makes of a process: its complement, "scheduler".
        clock = (~self.process.pid << 3) | 2
        try:
            return time.clock_gettime(clock)
        except OSError as exc:
            raise ServerError(f"{self.name} has ended: {self.last_words()}") from exc

    def _read_port(self) -> int:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT)
        line = self.process.stdout.readline() if ready else b""
        if not line.strip().isdigit():
            raise ServerError(f"{self.name} did not print its port: {self.last_words()}")
        return int(line)


def core_time(core: int) -> float:
    """Return for how many seconds a core has been busy; time stolen by a hypervisor counts."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, ticks)
            return (user + nice + system + irq + softirq + steal) * TICK
    raise ValueError(f"there is no core {core}")
