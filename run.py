#!/usr/bin/env python3
"""The one command a fresh clone needs: ``python3 run.py SESSION [arguments]``.

Turns the name of a session of ``noxfile.py`` into a run of it, with nothing but Python and its
standard library: nox goes into ``.venv/<version>`` on first use and stays there. ``tests`` means
the tests on the interpreter that runs this file; without a session, they are listed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VERSION = "{}.{}".format(*sys.version_info)
NOX = "nox>=2025.5.1"


def nox_environment() -> Path:
    """Return the folder of an environment's programs, nox among them, making it if need be."""
    environment = ROOT / ".venv" / VERSION
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    if not (programs / "python").exists() or not list(programs.glob("nox*")):
        print(f"Making {environment.relative_to(ROOT)} with nox in it", file=sys.stderr)
        venv.create(environment, clear=True, with_pip=True)
        subprocess.run([programs / "python", "-m", "pip", "install", "-q", NOX], check=True)
    return programs


def main(arguments: list[str]) -> int:
    """Run one session and return its exit status."""
    if sys.version_info < (3, 11):
        print(f"easynetwork needs Python 3.11 or newer, this is {VERSION}", file=sys.stderr)
        return 2
    programs = nox_environment()
    command = [str(programs / "python"), "-m", "nox", "-f", str(ROOT / "noxfile.py")]
    if arguments:
        session, *others = arguments
        command += ["-s", f"tests-{VERSION}" if session == "tests" else session, "--", *others]
    else:
        command += ["--list"]
    # First on the path, so that nox takes the interpreter that was asked for.
    path = os.pathsep.join([str(programs), os.environ.get("PATH", "")])
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.call(command, env={**os.environ, "PATH": path})
    return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
