"""Test the statements and the examples of the page about DNS, with the programs that speak it.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import ipaddress
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.zone
import pytest
from dns.message import Message
from hypothesis import given, settings, strategies as st
from sybil import Document

from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer, CloseReason, Limits
from easynetwork.testing import MemoryNetwork, serve, virtual_time
from tests.conftest import HAS_TRIO
from tests.docs.howto_support import DOCS, check_quotations, complaints, in_thread, table, until
from tests.docs.sybil_parsers import code_blocks, is_console
from tests.docs.terminals import next_lines
from tests.interop.support import needs, run
from tests.times import PATIENCE

PAGE = "protocols/dns.rst"
FOLDER = DOCS / "_include/examples/protocols/dns"
MODULES = "dns_messages", "dns_zone", "dns_handler", "dns_server", "dns_clock", "dns_private"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(FOLDER)
    messages, zones, handlers, program, clock, private = map(importlib.import_module, MODULES)

HANDLER: Any = handlers.DNSRequestHandler(zones.Zone(str(FOLDER / "example.com.zone")))

both_families = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def test_size_of_the_handler() -> None:
    """The handler is short.

    "a server that speaks one protocol over UDP and TCP with one request handler"
    """
    assert len((FOLDER / "dns_handler.py").read_text().splitlines()) <= 90


# The page, played in two terminals


class Reader:
    """Types what the page shows in two terminals, and compares what is printed.

    Args:
        folder: Where the files of the page are.
        backend: What the server runs on.
        host: The address in place of 127.0.0.1.
    """

    def __init__(self, folder: Path, backend: str, host: str) -> None:
        self.folder = folder
        self.host = host
        self.port = str(free_port(host))
        self.options = ["--backend", backend, "--host", host, "--port", self.port]
        self.server: subprocess.Popen[bytes] | None = None
        self.commands: list[str] = []

    def play(self, page: Path) -> None:
        """Play all console blocks of a page."""
        document = Document(page.read_text(encoding="utf-8"), str(page))
        for region in code_blocks(document):
            if is_console(region) and "caption" in region.lexemes["options"]:
                self.play_block(self.here(region.lexemes["source"]))

    def here(self, text: str) -> str:
        """Return a text with the address and the port of this server."""
        return text.replace("127.0.0.1", self.host).replace("5300", self.port)

    def play_block(self, source: str) -> None:
        """Play one block. What follows ^C is what the server prints when it is interrupted."""
        _, *blocks = re.split(r"^\$ ", "\n" + source, flags=re.MULTILINE)
        for block in blocks:
            command, _, shown = block.partition("\n")
            self.commands.append(command)
            assert comparable(self.printed_by(command, shown.count("\n"))) == comparable(shown), (
                command
            )
        if not blocks:
            assert self.server is not None
            self.server.send_signal(signal.SIGINT)
            printed = "^C" + self.server.communicate(timeout=PATIENCE)[0].decode()
            assert self.server.returncode == 0
            assert comparable(printed) == comparable(source)

    def printed_by(self, command: str, lines: int) -> str:
        """Return what a command prints; of the server, only so many lines."""
        environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            # The reader's pytest has fewer plugins than ours.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "anyio.pytest_plugin",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONWARNINGS": "error",
        }
        options: dict[str, Any] = {
            "cwd": self.folder,
            "env": environment,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }
        if "dns_server.py" not in command:
            command = command.replace("python ", f"{sys.executable} ")
            return subprocess.run(
                command, shell=True, timeout=PATIENCE, encoding="utf-8", check=True, **options
            ).stdout
        self.server = subprocess.Popen([sys.executable, *command.split()[1:], *self.options], **options)
        return next_lines(self.server, lines)

    def close(self) -> None:
        """Kill the server, if it still runs."""
        if self.server is not None:
            self.server.kill()
            self.server.communicate()


VARIABLE = (
    (r"\bid: \d+", "id: N"),
    (r"(Query time: )\d+", r"\1N"),
    (r"(WHEN: ).*", r"\1N"),
    (r"(DiG )[\w.+~:-]+", r"\1N"),
    (r"max_clients=\d+", "max_clients=N"),
    (r"(passed in ).*", r"\1N"),
    (r" +$", ""),
)


def comparable(output: str) -> list[str]:
    """Return the lines of an output without what differs from run to run."""
    for pattern, replacement in VARIABLE:
        output = re.sub(pattern, replacement, output, flags=re.MULTILINE)
    lines = [line.strip() for line in output.splitlines()]
    # The two servers print independently of each other.
    return sorted(lines) if "INFO:" in output else list(filter(None, lines))


def free_port(host: str) -> int:
    """Return a port that is free for UDP and for TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
            port: int = sock.getsockname()[1]
            with socket.socket(family) as other, contextlib.suppress(OSError):
                other.bind((host, port))
                return port


@needs("dig")
@needs("dnsperf")
@pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed")
@pytest.mark.parametrize(("backend", "host"), [("asyncio", "127.0.0.1"), ("trio", "::1")])
def test_transcript(backend: str, host: str, tmp_path: Path) -> None:
    """All that the page shows in its terminals happens, on both frameworks and over both IPs.

    "Put all files of this page into one folder."

    "Without +ignore, dig repeats the query over TCP, as every resolver does"

    "It sends each of them 50 times, over UDP and then over TCP"

    "Each of them runs on asyncio and on trio"
    """
    for file in FOLDER.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    reader = Reader(tmp_path, backend, host)
    try:
        reader.play(DOCS / PAGE)
    finally:
        reader.close()
    assert {command.split()[0] for command in reader.commands} == {"python", "dig", "dnsperf"}
    assert len(reader.commands) == 14


# The servers, on real sockets


@dataclasses.dataclass
class Served:
    """Both servers, and where they are."""

    host: str
    port: int
    udp: Any
    tcp: Any

    async def dig(self, *arguments: str) -> str:
        """Return what dig prints."""
        address = [f"@{self.host}", "-p", str(self.port)]
        done = await run("dig", *address, "+tries=1", f"+time={PATIENCE:.0f}", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextlib.asynccontextmanager
async def serving(
    host: str = "127.0.0.1", handler: Any = HANDLER, limits: Limits = program.LIMITS
) -> AsyncIterator[Served]:
    """Serve over UDP and TCP at the same port while the block runs."""
    port = free_port(host)
    udp = AsyncUDPNetworkServer(host, port, messages.udp_protocol, handler)
    tcp = AsyncTCPNetworkServer(host, port, messages.tcp_protocol, handler, limits=limits)
    with anyio.fail_after(2 * PATIENCE):
        async with udp, tcp, anyio.create_task_group() as tasks:
            for server in (udp, tcp):
                is_up = anyio.Event()
                tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
                await is_up.wait()
            yield Served(host, port, udp, tcp)
            await udp.shutdown()
            await tcp.shutdown()


RECORDS = """
example.com.               3600 A     192.0.2.10
example.com.               3600 AAAA  2001:db8::10
example.com.               3600 MX    10 mail.example.com.
example.com.               3600 MX    20 mail.example.net.
example.com.               3600 NS    ns1.example.com.
example.com.               3600 NS    ns2.example.net.
example.com.               3600 TXT   "v=spf1 mx -all"
example.com.               3600 SOA   ns1.example.com. hostmaster.example.com. 2025010101 7200 900 1209600 300
example.com.               3600 HINFO "RFC8482" ""
www.example.com.           3600 CNAME web.example.com.
WEB.Example.Com.           3600 AAAA  2001:db8::80
one.two.users.example.com. 3600 A     192.0.2.81
"""
