"""Test the statements and the examples of the page about DNS, with the programs that speak it.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import importlib
import importlib.metadata
import inspect
import ipaddress
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
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
import dns.rrset
import dns.zone
import pytest
from dns.message import Message
from hypothesis import given, strategies as st
from sybil import Document

from easynetwork.addresses import IPv4SocketAddress
from easynetwork.exceptions import DatagramProtocolParseError, DeserializeError
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer, CloseReason, Limits
from easynetwork.servers._core import fault_log
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.testing import MemoryNetwork, serve, virtual_time
from tests.conftest import HAS_TRIO
from tests.docs.howto_support import DOCS, check_quotations, complaints, in_thread, table, until
from tests.docs.sybil_parsers import code_blocks, is_console
from tests.docs.terminals import next_lines
from tests.interop.support import needs, run
from tests.times import MS, PATIENCE

PAGE = "protocols/dns.rst"
FOLDER = DOCS / "_include/examples/protocols/dns"
MODULES = "dns_messages", "dns_zone", "dns_handler", "dns_server", "dns_clock", "dns_private"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(FOLDER)
    messages, zones, handlers, program, clock, private = map(importlib.import_module, MODULES)

HANDLER: Any = handlers.DNSRequestHandler(zones.Zone(str(FOLDER / "example.com.zone")))

TRIO = pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed")
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
        """Play one block. ^C stands for an interrupt of the server, which prints the rest."""
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
            printed = self.server.communicate(timeout=PATIENCE)[0].decode()
            assert self.server.returncode == 0
            printed = re.sub(r".* (?:new connection|disconnected) \(.*\n", "", printed)
            assert comparable(printed) == comparable(source.removeprefix("^C"))

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
            done: subprocess.CompletedProcess[str] = subprocess.run(
                command, shell=True, timeout=2 * PATIENCE, encoding="utf-8", check=True, **options
            )
            return done.stdout
        self.server = subprocess.Popen(
            [sys.executable, *command.split()[1:], *self.options], **options
        )
        printed = ""
        for _ in range(3):  # to import all modules for the first time takes long
            printed += next_lines(self.server, lines - printed.count("\n"))
        return printed

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


@pytest.mark.in_turn
@needs("dig")
@needs("dnsperf")
@pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed")
@pytest.mark.parametrize(("backend", "host"), [("asyncio", "127.0.0.1"), ("trio", "::1")])
def test_transcript(backend: str, host: str, tmp_path: Path) -> None:
    """All that the page shows in its terminals happens, on both frameworks and over both IPs.

    "Download all files into one folder"

    "Without +ignore, dig repeats the query over TCP, as every resolver does"

    "It sends each of them 50 times from four sockets"

    "Each of them runs on asyncio and on trio"

    "Press Control-C for the same in a terminal (lines about connections are not shown)"
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
    assert len(reader.commands) == 13
    assert reader.server is not None
    assert reader.server.returncode == 0


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
                tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
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
example.com.               3600 SOA   SOA_DATA
example.com.               3600 HINFO "RFC8482" ""
www.example.com.           3600 CNAME web.example.com.
WEB.Example.Com.           3600 AAAA  2001:db8::80
one.two.users.example.com. 3600 A     192.0.2.81
""".replace("SOA_DATA", "ns1.example.com. hostmaster.example.com. 2025010101 7200 900 1209600 300")


@needs("dig")
@pytest.mark.anyio
@both_families
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
async def test_records(host: str, transport: str) -> None:
    """Dig gets all records of all types, over both transports.

    "It answers from a zone file"

    "A DNS message is the same over UDP and TCP"
    """
    expected = sorted(line.split(maxsplit=3) for line in RECORDS.strip().splitlines())
    types = {"HINFO": "ANY"}
    questions = sorted({(name, types.get(rdtype, rdtype)) for name, _, rdtype, _ in expected})
    arguments = [each for name, rdtype in questions for each in ("-q", name, "-t", rdtype)]
    async with serving(host) as served:
        output = await served.dig("+noall", "+answer", transport, *arguments)
    found = [line.split(maxsplit=4) for line in output.splitlines()]
    assert sorted([name, ttl, rdtype, data] for name, ttl, _, rdtype, data in found) == expected


@needs("dig")
@pytest.mark.anyio
@both_families
async def test_sizes(host: str) -> None:
    """A response has at most as many bytes as the transport and the client allow.

    "Over UDP, a client without EDNS accepts 512 bytes."

    "but the server sends at most 1,232 bytes"

    "farm.example.com fits into a datagram only if the client has EDNS."

    "Over TCP, all responses fit."

    "+noedns turns it off, and +bufsize changes the size that dig accepts"

    "+ignore makes dig show it"

    "dig warns because it asks for recursion, which resolvers offer. With +norecurse, it does not
    ask for it."
    """
    cases = [
        ("farm", "+ignore", "UDP", 38, 653),
        ("farm", "+ignore +bufsize=653", "UDP", 38, 653),
        ("farm", "+ignore +bufsize=652", "UDP", 0, 45),
        ("farm", "+ignore +bufsize=1", "UDP", 0, 45),
        ("farm", "+ignore +noedns", "UDP", 0, 34),
        ("farm", "+noedns", "TCP", 38, 642),
        ("pool", "+ignore +bufsize=4096", "UDP", 0, 45),
        ("pool", "+bufsize=4096", "TCP", 100, 1645),
        ("pool", "+noedns", "TCP", 100, 1634),
        ("pool", "+noedns +tcp", "TCP", 100, 1634),
    ]
    async with serving(host) as served:
        for name, options, transport, answers, size in cases:
            output = await served.dig(f"{name}.example.com", *options.split())
            case = f"{name} {options}\n{output}"
            assert f"ANSWER: {answers}," in output, case
            assert (" tc" in re.findall(r"flags:(.*?);", output)[0]) == (answers == 0), case
            assert f"({transport})" in output, case
            assert f"rcvd: {size}" in output, case
            assert ("OPT PSEUDOSECTION" in output) == ("+noedns" not in options), case
            assert "WARNING: recursion" in output  # and no other one
            assert output.count("WARNING") == 1, case
        output = await served.dig("web.example.com", "+norecurse")
        assert "WARNING" not in output
        assert " rd" not in re.findall(r"flags:(.*?);", output)[0]


# Queries of all kinds

ID = 4711


def query_of(name: str, rdtype: str = "A", rdclass: str = "IN", **options: Any) -> Message:
    return dns.message.make_query(name, rdtype, rdclass, id=ID, **options)


def with_opcode(query: Message, opcode: dns.opcode.Opcode) -> Message:
    query.set_opcode(opcode)
    return query


def with_two_questions() -> Message:
    query = query_of("example.com")
    query.question += query_of("www.example.com").question
    return query


def wire(query: Message) -> bytes:
    return query.to_wire()


PLAIN = wire(query_of("www.example.com", use_edns=0))

KINDS: dict[str, list[bytes]] = {
    "The name has such records": [
        wire(query_of("web.example.com")),
        wire(query_of("www.example.com")),
        wire(query_of("*.users.example.com")),
    ],
    "The name exists, but has no such records": [
        wire(query_of("mail.example.com", "AAAA")),
        wire(query_of("www.example.com", "MX")),
        wire(query_of("users.example.com")),
        wire(query_of("example.com", "TYPE1234")),
        wire(query_of("lab.example.com", "DS")),  # the zone above answers (RFC 4035, 3.1.4.1)
    ],
    "The name does not exist": [
        wire(query_of("nobody.example.com")),
        wire(query_of("nobody.mail.example.com")),
        wire(query_of("old.example.com", "TXT")),
        wire(query_of("nobody.example.com", "ANY")),
    ],
    "The name belongs to the zone of another server": [
        wire(query_of("lab.example.com")),
        wire(query_of("LAB.example.com", "NS")),
        wire(query_of("host.lab.example.com", "ANY")),
        wire(query_of("host.lab.example.com", "DS")),
    ],
    "Any type (ANY)": [
        wire(query_of("example.com", "ANY")),
        wire(query_of("www.example.com", "ANY")),
        wire(query_of("users.example.com", "ANY")),
    ],
    "The name is outside the zone, the class is not IN, or the query is a zone transfer": [
        wire(query_of("example.org")),
        wire(query_of("com")),
        wire(query_of(".", "NS")),
        wire(query_of("notexample.com")),
        wire(query_of("example.com", "AXFR")),
        wire(query_of("example.com", "IXFR")),
        wire(query_of("example.com", "A", "CH")),
        wire(query_of("example.com", "OPT")),
    ],
    "The EDNS version is not 0": [wire(query_of("example.com", use_edns=1))],
    "The query is malformed, or does not have exactly one question": [
        wire(query_of("example.com"))[:-1],
        wire(query_of("example.com")) + b"\0",
        wire(query_of("example.com"))[:12],
        wire(query_of("example.com"))[:4] + b"\xff" * 8,
        wire(with_two_questions()),
        wire(Message(ID)),
        PLAIN[:11] + b"\2" + PLAIN[12:] + PLAIN[-11:],  # two OPT records
    ],
    "Another opcode, for example an update": [
        wire(with_opcode(query_of("example.com"), dns.opcode.Opcode(opcode)))
        for opcode in (1, 2, 4, 5, 6)
    ],
    "A response, or less than a header": [
        wire(dns.message.make_response(query_of("example.com"))),
        b"",
        PLAIN[:11],
        PLAIN[:2] + b"\xff\xff" + PLAIN[4:],
    ],
}


class Asking:
    """Sends bytes to the UDP server, and returns what comes back because of them.

    Args:
        raw: The client's end of a connection in memory.
    """

    sentinel = dns.message.make_query("sentinel.example.com", "A", id=1).to_wire()

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    async def ask(self, data: bytes) -> list[bytes]:
        """Return the responses: what comes before the response to another query."""
        await self.raw.send(data)
        await self.raw.send(self.sentinel)
        responses: list[bytes] = []
        while True:
            response = await self.raw.receive()
            if b"\x08sentinel" in response:
                return responses
            responses.append(response)


@contextlib.asynccontextmanager
async def asking(handler: Any = HANDLER, **options: Any) -> AsyncIterator[Asking]:
    async with serve(handler, messages.udp_protocol, **options) as served:
        yield Asking(await served.connect(raw=True))


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_responses(kind: str, log: pytest.LogCaptureFixture) -> None:
    """The table says what is answered.

    "a response, which has the QR bit set"

    "The SOA record says how long the client may remember that there is no such name"

    "The example is an authoritative DNS server."

    "The flag aa means that the server is authoritative: it has the records itself."
    """
    rows = dict(table(PAGE, "Query", "Response"))
    assert rows.keys() == KINDS.keys()
    expected = rows[kind]
    async with asking() as served:
        for data in KINDS[kind]:
            found = [dns.message.from_wire(response) for response in await served.ask(data)]
            assert len(found) == (expected != "nothing"), data
            for response in found:
                check_response(response, expected)
    check_log(log)


def check_response(response: Message, expected: str) -> None:
    """Check that a response is what a row of the table says."""
    case = f"{expected}\n{response}"
    assert response.id == ID, case
    assert response.flags & dns.flags.QR, case
    assert dns.rcode.to_text(response.rcode()) == expected.split()[0].rstrip(","), case
    soa = [each for each in response.authority if each.rdtype == dns.rdatatype.SOA]
    assert bool(soa) == ("SOA" in expected), case
    assert all(each.ttl == 300 for each in soa), case
    is_referral = "name servers" in expected
    assert bool(response.flags & dns.flags.AA) == (
        not is_referral and response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    ), case
    answers = [each for each in response.answer if each.rdtype != dns.rdatatype.CNAME]
    assert bool(answers) == ("with" in expected and not soa and not is_referral), case
    if is_referral:
        assert [each.rdtype for each in response.authority] == [dns.rdatatype.NS], case
    if "HINFO" in expected:
        assert [each.rdtype for each in answers] == [dns.rdatatype.HINFO], case


@pytest.mark.anyio
async def test_pipeline(log: pytest.LogCaptureFixture) -> None:
    """Queries in one connection are answered in order, however they are cut.

    "A TCP client may send many queries without waiting for the responses"

    "queries that have arrived together are answered one after the other, and their responses leave
    together"

    "The handler can tell the client, because it knows the ID of the query."

    "answer() contains the only difference between the transports: the size of a response."
    """
    kinds = [data for kind, each in KINDS.items() if "A response" not in kind for data in each]
    async with asking() as served:
        expected = [answer for data in kinds for answer in await served.ask(data)]
    sent = b"".join(map(framed, kinds))
    for network in MemoryNetwork(), MemoryNetwork(chunks=1), MemoryNetwork(chunks=range(1, 60)):
        async with serve(HANDLER, messages.tcp_protocol, network=network) as served_streams:
            raw = await served_streams.connect(raw=True)
            await raw.send(sent)
            raw.send_eof()
            assert split(await everything(raw)) == expected
    async with serve(HANDLER, messages.tcp_protocol) as served_streams:
        raw = await served_streams.connect(raw=True)
        await raw.send(framed(wire(query_of("mail.example.com"))) * 10)
        assert len(split(await raw.receive())) == 10
    assert not complaints(log)


def framed(message: bytes) -> bytes:
    """Return a message as it is sent over TCP."""
    return len(message).to_bytes(2, "big") + message


def split(data: bytes) -> list[bytes]:
    """Return the messages of a stream."""
    found: list[bytes] = []
    while data:
        end = 2 + int.from_bytes(data[:2], "big")
        assert len(data) >= end
        found.append(data[2:end])
        data = data[end:]
    return found


async def everything(raw: Any) -> bytes:
    """Return what arrives up to the end of a connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := await raw.receive():
            data += chunk
    return data


# Other programs


@pytest.mark.anyio
@both_families
async def test_resolver(host: str) -> None:
    """Dnspython's resolver gets all answers, and asks again over TCP where it has to.

    "dig, dnsperf and the resolvers of the internet can ask it"
    """

    def resolve(port: int) -> None:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = [host], port, PATIENCE
        assert [each.to_text() for each in resolver.resolve("www.example.com")] == ["192.0.2.80"]
        exchanges = {each.to_text() for each in resolver.resolve("example.com", "MX")}
        assert exchanges == {"10 mail.example.com.", "20 mail.example.net."}
        assert len(resolver.resolve("pool.example.com")) == 100
        assert len(resolver.resolve("pool.example.com", tcp=True)) == 100
        for edns in (-1, 0):
            resolver.use_edns(edns)
            assert len(resolver.resolve("farm.example.com")) == 38
        with pytest.raises(dns.resolver.NXDOMAIN):
            resolver.resolve("nobody.example.com")
        with pytest.raises(dns.resolver.NoAnswer):
            resolver.resolve("mail.example.com", "AAAA")
        with pytest.raises(dns.resolver.NoNameservers):
            resolver.resolve("example.org")

    async with serving(host) as served:
        await in_thread(lambda: resolve(served.port))
        # pool twice and farm once over TCP
        assert served.tcp.get_statistics().packets_received == 3


@needs("dnsperf")
@pytest.mark.anyio
@both_families
@pytest.mark.parametrize("mode", ["udp", "tcp"])
async def test_dnsperf(host: str, mode: str) -> None:
    """Dnsperf loses no query.

    "dnsperf (a package of the same name) sends the queries of a file, up to 100 at a time."
    """
    queries = str(FOLDER / "queries.txt")
    async with serving(host) as served:
        options = ["-s", host, "-p", str(served.port), "-d", queries, "-m", mode, "-e"]
        done = await run("dnsperf", *options, "-n", "25", "-c", "4", "-q", "40")
        statistics = served.tcp.get_statistics()
    assert done.returncode == 0, done.stderr
    assert re.search(r"Queries completed: +200 \(100", done.stdout), done.stdout
    assert re.search(r"Queries lost: +0 ", done.stdout), done.stdout
    assert statistics.packets_received == (200 if mode == "tcp" else 0)
    assert statistics.accepted == (4 if mode == "tcp" else 0)


# Damaged messages


def damages(data: bytes) -> Iterator[bytes]:
    """Yield a message with each of its bits inverted, and cut off after each of its bytes."""
    for index in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[index // 8] ^= 1 << index % 8
        yield bytes(damaged)
    for end in range(len(data)):
        yield data[:end]


def is_answered(data: bytes) -> bool:
    """Whether bytes may be a query."""
    return 12 <= len(data) <= 1232 and not data[2] & 0x80


async def check_damaged(served: Asking, data: bytes) -> list[bytes]:
    """Check that bytes get the response that they may get, and return it."""
    responses = await served.ask(data)
    assert len(responses) == is_answered(data), data
    for response in responses:
        message = dns.message.from_wire(response)
        assert response[:2] == data[:2], data
        assert response[2] & 0x80, data
        assert (response[2] ^ data[2]) & 0x78 == 0, data  # the opcode
        assert len(response) <= 1232, data
        assert message.rcode() != dns.rcode.SERVFAIL, data
    return responses


def check_log(log: pytest.LogCaptureFixture) -> None:
    """Check that the log has neither an error nor a traceback."""
    assert [each for each in log.records if each.exc_info or each.levelno > logging.WARNING] == []


QUERIES = [
    PLAIN,
    wire(query_of("pool.example.com", "MX", use_edns=0, options=[])),
    wire(query_of("example.com", "SOA", want_dnssec=True)),
]


@pytest.mark.in_turn
@pytest.mark.anyio
@pytest.mark.parametrize("data", QUERIES[:2], ids=["alias", "mx"])
async def test_damages(data: bytes, log: pytest.LogCaptureFixture) -> None:
    """No damage of a query crashes the handler, or has it answer a response.

    "Never answer a response."

    "The handler does not catch the error that results, so the server logs one line, and sends
    nothing."
    """
    async with asking() as served:
        for damaged in damages(data):
            await check_damaged(served, damaged)
    check_log(log)


@pytest.mark.anyio
async def test_damages_over_tcp(log: pytest.LogCaptureFixture) -> None:
    """Over TCP it is the same, and what is not a query ends the connection.

    "A datagram is discarded; a TCP connection is closed."
    """
    async with serve(HANDLER, messages.tcp_protocol) as served:
        raw = await served.connect(raw=True)
        closed = 0
        for damaged in damages(PLAIN):
            await raw.send(framed(damaged))
            response = await raw.receive()
            if is_answered(damaged):
                assert response[2:4] == damaged[:2]
            else:
                closed += 1
                assert response == b""
                raw.close()
                raw = await served.connect(raw=True)
        assert closed == 12 + 1
        assert served.server.get_statistics().closed[CloseReason.INVALID_DATA] == closed
    check_log(log)


@st.composite
def damaged_queries(draw: st.DrawFn) -> bytes:
    """Return a query with some bytes replaced, inserted, deleted or repeated."""
    data = bytearray(draw(st.sampled_from(QUERIES)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 12))
        data[start:end] = draw(st.one_of(st.binary(max_size=12), st.just(bytes(data[:end]))))
    return bytes(data)


@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=TRIO)])
def test_any_damage(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does any other damage.

    "With continue_on_error=True, dnspython returns a message that has errors."
    """

    @given(st.lists(damaged_queries() | st.binary(max_size=1300), min_size=1, max_size=30))
    def check(datagrams: list[bytes]) -> None:
        async def main() -> None:
            async with asking() as served:
                for data in datagrams:
                    for response in await check_damaged(served, data):
                        assert await served.ask(response) == []
            async with serve(HANDLER, messages.tcp_protocol) as streams:
                for sent in b"".join(map(framed, datagrams)), b"".join(datagrams):
                    raw = await streams.connect(raw=True)
                    with contextlib.suppress(OSError):
                        await raw.send(sent)
                        raw.send_eof()
                    for response in split(await everything(raw)):
                        assert response[2] & 0x80

        anyio.run(main, backend=backend)

    check()
    check_log(caplog)


# Abuse


@contextlib.asynccontextmanager
async def zone_with(*lines: str, folder: Path) -> AsyncIterator[Served]:
    """Serve the zone of the page with further records."""
    path = folder / "zone"
    path.write_text((FOLDER / "example.com.zone").read_text() + "\n".join(["", *lines, ""]))
    async with serving(handler=handlers.DNSRequestHandler(zones.Zone(str(path)))) as served:
        yield served


class Attackers:
    """Two hundred TCP clients that do harm, and a flood of datagrams.

    Args:
        served: The servers.
    """

    pause = 50 * MS

    def __init__(self, served: Served) -> None:
        self.served = served
        self.connected = 0

    async def attack(self) -> None:
        """Attack until cancelled."""
        async with anyio.create_task_group() as tasks:
            for number, kind in enumerate((self.slow, self.silent, self.garbage, self.never_read)):
                for _ in range(50):
                    tasks.start_soon(self.connection, f"127.0.0.{number + 2}", kind)
            tasks.start_soon(self.flood)

    async def connection(self, host: str, kind: Any) -> None:
        """Connect from an address, again and again if the server ends the connection."""
        is_first = True
        while True:
            with socket.socket() as sock, contextlib.suppress(OSError):
                sock.setblocking(False)
                sock.bind((host, 0))
                with contextlib.suppress(BlockingIOError):
                    sock.connect((self.served.host, self.served.port))
                await anyio.wait_writable(sock)
                self.connected += is_first
                is_first = False
                await kind(sock)
            await anyio.sleep(self.pause)

    async def slow(self, sock: socket.socket) -> None:
        """Send a query byte by byte, as slowly as possible."""
        for byte in framed(PLAIN):
            sock.send(bytes([byte]))
            await anyio.sleep(self.pause)

    async def silent(self, sock: socket.socket) -> None:
        """Say nothing."""
        await anyio.wait_readable(sock)

    async def garbage(self, sock: socket.socket) -> None:
        """Send what is not DNS."""
        while True:
            await anyio.wait_writable(sock)
            sock.send(random.randbytes(200))
            await anyio.sleep(self.pause)

    async def never_read(self, sock: socket.socket) -> None:
        """Ask for long responses, and read none of them."""
        sock.send(framed(wire(query_of("huge.example.com", "TYPE65280"))) * 100)
        await anyio.sleep_forever()

    async def flood(self) -> None:
        """Send datagrams that are not DNS, damaged queries and responses."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            damaged = list(damages(PLAIN))
            while True:
                for data in (
                    *random.sample(damaged, 3),
                    *map(random.randbytes, range(0, 1300, 100)),
                ):
                    with contextlib.suppress(OSError):
                        sock.sendto(data, (self.served.host, self.served.port))
                await anyio.sleep(self.pause / 3)


@pytest.mark.in_turn
@needs("dig")
@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="needs many addresses of its own")
async def test_abuse(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """Dig gets its answers while others do their worst, and nothing grows without bound.

    "so one host cannot take all places"

    "For invalid messages, the server logs at most three lines per second, however many arrive"
    """
    log.set_level(logging.WARNING, "easynetwork")
    huge = r"TYPE65280 \# 60000 " + "ff" * 60_000
    async with (
        zone_with(f"huge {huge}", folder=tmp_path) as served,
        anyio.create_task_group() as tasks,
    ):
        attackers = Attackers(served)
        began = time.monotonic()
        tasks.start_soon(attackers.attack)

        def clients() -> list[Any]:
            return [each.get_statistics() for each in served.tcp.get_clients()]

        # All have come, and the server has stopped working for the greedy.
        while attackers.connected < 200 or sum(each.state == "sending" for each in clients()) < 50:
            await anyio.sleep(10 * MS)
        for _ in range(2):
            for arguments in (
                ["web.example.com"],
                ["+tcp", "web.example.com"],
                ["pool.example.com"],
            ):
                output = await served.dig(*arguments, "+tries=5", "+time=1")
                assert "status: NOERROR" in output
                assert "ANSWER: 0" not in output
        assert all(each.unsent <= 2 * 65_536 for each in clients())
        seconds = time.monotonic() - began
        invalid = served.udp.get_statistics().invalid
        tasks.cancel_scope.cancel()
    assert invalid > 50
    assert served.tcp.get_statistics().closed[CloseReason.INVALID_DATA] >= 50
    assert len([each for each in complaints(log) if "invalid data" in each.getMessage()]) > 0
    # And one more line per second that says how many were left out; there are two servers.
    assert len(complaints(log)) <= 2 * (3 + 1) * (seconds + 2)
    check_log(log)


# Before it meets the internet


@pytest.mark.anyio
async def test_amplification() -> None:
    """The response is never much longer than the query.

    "With this zone, a response over UDP is up to 15 times as long as the query."

    "A query for all records of a name (ANY) gets one short record."

    "Invalid messages get no response, or one without records."

    "A zone transfer is refused, also over TCP."
    """
    zone = dns.zone.from_file(str(FOLDER / "example.com.zone"), relativize=False)
    types = ["A", "AAAA", "ANY", "AXFR", "CNAME", "MX", "NS", "SOA", "TXT"]
    queries = [wire(query_of(str(name), each, use_edns=0)) for name in zone for each in types]
    queries += KINDS["The query is malformed, or does not have exactly one question"]
    async with asking() as served:
        factors = [len((await served.ask(data))[0]) / len(data) for data in queries]
    assert 14 < max(factors) <= 15
    assert max(factors[-7:]) <= 1


def test_cost() -> None:
    """A query with many questions costs nothing.

    "One of 1,232 bytes can contain more than 160 questions, each of which refers to a long name,
    and parsing it costs several hundred times as much as a plain query."

    "of a query with more, only the header is parsed"

    "A query costs about half a millisecond of processor time, and one with a very long name more
    than ten times as much."
    """
    questions = [b"\1a" * 126 + b"\0\0\1\0\1"]
    while 12 + sum(map(len, questions)) + 6 <= 1232:
        questions.append(b"\xc0\x0c" + len(questions).to_bytes(2, "big") + b"\0\1")
    assert len(questions) > 160
    data = PLAIN[:4] + len(questions).to_bytes(2, "big") + bytes(6) + b"".join(questions)

    def cost(func: Any, *args: Any) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            func(*args)
            times.append(time.perf_counter() - began)
        return min(times)

    plain = cost(dns.message.from_wire, PLAIN)
    assert cost(dns.message.from_wire, data) > 50 * plain
    serializer = messages.MessageSerializer()
    assert cost(serializer.deserialize, data) < 2 * plain

    def serve_one(data: bytes) -> None:
        serializer.serialize(HANDLER.respond(serializer.deserialize(data)))

    long = wire(query_of("a." * 120 + "example.com"))
    assert cost(serve_one, long) > 5 * cost(serve_one, PLAIN)


@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=TRIO)])
def test_limits(backend: str) -> None:
    """The limits of the program are those that the page names.

    "a client that is silent for 10 seconds is disconnected"

    "At most 100 connections of one host are open"
    """
    assert program.LIMITS.max_clients_per_host == 100

    async def main() -> None:
        async with serve(HANDLER, messages.tcp_protocol, limits=program.LIMITS) as served:
            silent = await served.connect(raw=True)
            once = await served.connect(raw=True)
            began = anyio.current_time()
            await once.send(framed(PLAIN))
            assert await once.receive()
            for raw in silent, once:
                assert await raw.receive() == b""
                assert 10 - MS <= anyio.current_time() - began <= 11
            closed = served.server.get_statistics().closed
            assert closed[CloseReason.FIRST_PACKET_TIMEOUT] == 1
            assert closed[CloseReason.IDLE_TIMEOUT] == 1

    anyio.run(main, backend=backend, backend_options=virtual_time(backend))


@pytest.mark.anyio
async def test_drain() -> None:
    """Queries that have arrived are answered before the connection ends.

    "queries that have arrived are answered, and TCP clients between two queries are disconnected"
    """
    async with serve(HANDLER, messages.tcp_protocol) as served:
        idle, busy = await served.connect(raw=True), await served.connect(raw=True)
        await idle.send(framed(PLAIN))
        assert await idle.receive()
        await busy.send(framed(PLAIN) * 20)
        await served.server.shutdown(grace=PATIENCE)
        assert await idle.receive() == b""
        assert len(split(await everything(busy))) == 20


@pytest.mark.anyio
async def test_private(log: pytest.LogCaptureFixture) -> None:
    """Clients of other networks get nothing.

    "handler = PrivateRequestHandler(Zone(arguments.zone), OWN_NETWORKS)"

    "The server then discards the datagram without decoding it, or resets the TCP connection"

    "Shows how to serve only your own network."

    "This handler returns before its first yield if a client is in another network."
    """
    zone = HANDLER.zone
    own, other = (
        private.PrivateRequestHandler(zone, list(map(ipaddress.ip_network, networks)))
        for networks in (["198.51.100.0/24", "fd00::/8"], ["192.0.2.0/24"])
    )
    for address in "127.0.0.1", "192.168.1.2", "fd00::1":
        assert any(ipaddress.ip_address(address) in network for network in private.OWN_NETWORKS)
    async with asking(own) as served:
        [response] = await served.ask(PLAIN)
        assert dns.message.from_wire(response).answer
    async with serve(other, messages.udp_protocol) as datagrams:
        raw = await datagrams.connect(raw=True)
        await raw.send(PLAIN)
        await raw.send(b"")
        await until(lambda: datagrams.server.get_statistics().refused == 2)
    async with serve(other, messages.tcp_protocol) as streams:
        raw = await streams.connect(raw=True)
        with pytest.raises(ConnectionResetError):
            await raw.receive()
    assert not complaints(log)


@pytest.mark.anyio
async def test_clock() -> None:
    """The zone of the page knows one more name, whose other types and classes are those of a zone.

    "This zone knows one more name"

    "The time to live is 0, so that no resolver remembers the answer."

    "the name exists, but has no such records"

    "The handler checks the class of the question before it calls find()."

    "Shows how to compute an answer."

    "For the other types, find() returns the SOA record: the name exists, but has no such records."

    "Then dig shows the time if you ask for clock.example.com TXT."
    """
    zone = clock.ClockZone(str(FOLDER / "example.com.zone"))

    async with asking(handlers.DNSRequestHandler(zone)) as served:

        async def ask(*arguments: str) -> Message:
            [response] = await served.ask(wire(query_of(*arguments)))
            return dns.message.from_wire(response)

        for rdtype in "TXT", "ANY":
            message = await ask("Clock.Example.com", rdtype)
            assert message.flags & dns.flags.AA
            assert re.fullmatch(r'Clock.Example.com. 0 IN TXT "\d\d:\d\d"', str(message.answer[0]))
        check_response(await ask("clock.example.com"), "NOERROR without records, with SOA")
        check_response(await ask("x.clock.example.com", "TXT"), "NXDOMAIN, with SOA")
        for arguments in ("clock.example.com", "TXT", "CH"), ("clock.example.com", "AXFR"):
            check_response(await ask(*arguments), "REFUSED")
        assert (await ask("www.example.com")).answer


@needs("dig")
@pytest.mark.anyio
async def test_other_zones(tmp_path: Path) -> None:
    """What the zone of the page does not have: a loop, an alias of the zone below, a long response.

    "look_up() follows aliases until it has an answer or leaves the zone."

    "serialize() leaves out records that do not fit, and then sets the TC bit"

    "It goes from the name of the zone down to the name that was asked for, and stops where another
    zone begins, or where no further name exists"

    "A new record needs no code, whatever its type"

    "the server adds their addresses to the response if they are in the zone"

    "Put text with spaces in quotes"

    "Only a query for DS records at the start of another zone goes on"
    """
    lines = ["one CNAME two", "two CNAME one", "alias CNAME host.lab", "a.b.c A 192.0.2.99"]
    lines += [rf"long TYPE65280 \# 40000 {digit * 80_000}" for digit in "12"]
    lines += ["lab DS 1 13 2 " + "ab" * 32, "lab TXT hidden"]
    lines += ['ca CAA 0 issue "a b"', "_ldap._tcp SRV 0 5 389 web", 'text TXT "two words"']
    async with zone_with(*lines, folder=tmp_path) as served:
        records = ["+noall", "+answer", "+additional"]
        for name, rdtype, expected in (
            ("ca", "CAA", ['0 issue "a b"']),
            ("text", "TXT", ['"two words"']),
            ("_ldap._tcp", "SRV", ["0 5 389 web.example.com.", "192.0.2.80", "2001:db8::80"]),
        ):
            output = await served.dig(*records, f"{name}.example.com", rdtype)
            assert [line.split(maxsplit=4)[4] for line in output.splitlines()] == expected
        output = await served.dig("+noall", "+answer", "lab.example.com", "DS")
        assert "1 13 2 ABABAB" in output
        assert await served.dig("+noall", "+answer", "lab.example.com", "TXT") == ""
        short = ["+noall", "+answer", "+comments"]
        output = await served.dig(*short, "one.example.com")
        assert "flags: qr aa rd; QUERY: 1, ANSWER: 2, AUTHORITY: 0" in output
        output = await served.dig(*short, "alias.example.com")
        assert "flags: qr aa rd; QUERY: 1, ANSWER: 1, AUTHORITY: 1, ADDITIONAL: 2" in output
        for name, status in ("b.c", "NOERROR"), ("x.b.c", "NXDOMAIN"), ("c.b.c", "NXDOMAIN"):
            output = await served.dig(*short, f"{name}.example.com")
            assert f"status: {status}" in output
            assert "ANSWER: 0, AUTHORITY: 1" in output
        output = await served.dig(*short, "+tcp", "long.example.com", "TYPE65280")
        assert "flags: qr aa tc rd; QUERY: 1, ANSWER: 0" in output


# What the page says about the modules

once = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def zone_of(*lines: str, folder: Path) -> Any:
    """Return a zone of records, whose name is example.com."""
    path = folder / "zone"
    begin = ("$ORIGIN example.com.", "$TTL 3600", "@ SOA ns1 hostmaster 1 7200 900 1209600 300")
    path.write_text("\n".join([*begin, "@ NS ns1", *lines, ""]))
    return zones.Zone(str(path))


def changed(module: Any, *replacements: tuple[str, str]) -> dict[str, Any]:
    """Return the names of a module whose source has been changed."""
    source = Path(module.__file__).read_text()
    for old, new in replacements:
        assert old in source
        source = source.replace(old, new)
    names: dict[str, Any] = {"__name__": "changed"}
    exec(compile(source, module.__file__, "exec", dont_inherit=True), names)
    return names


def imports(module: Any) -> set[str]:
    """Return the first parts of the names of the modules that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


async def answer_of(served: Asking, *arguments: str, **options: Any) -> Message:
    """Return the only response to a query."""
    [response] = await served.ask(wire(query_of(*arguments, **options)))
    return dns.message.from_wire(response)


def test_files() -> None:
    """The table lists the files, and the server needs four modules of them.

    "The program consists of four modules and a zone file."

    "Looks up names in the zone."

    "Nothing in this module concerns the network."
    """
    rows = dict(table(PAGE, "File", "What it does"))
    assert set(rows) == {path.name for path in FOLDER.iterdir() if path.is_file()}
    needed = {"dns_server"}
    for _ in range(len(rows)):
        needed |= {name for each in needed for name in imports(importlib.import_module(each))} & {
            Path(name).stem for name in rows
        }
    assert needed == set(MODULES[:4])
    assert imports(zones) == {"__future__", "collections", "dns", "enum"}
    _, records = HANDLER.zone.find(dns.name.from_text("web.example.com"), dns.rdatatype.A)
    assert [each.to_text() for each in records] == ["192.0.2.80"]


def test_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """One package does what is DNS itself.

    "The package dnspython encodes and decodes messages and reads the zone file. Install it with pip
    install dnspython."

    "dnspython is written in Python."
    """
    distribution = importlib.metadata.distribution("dnspython")
    assert distribution.locate_file("dns/message.py") == Path(dns.message.__file__)
    calls: list[str] = []
    for owner, name in (
        (dns.message, "from_wire"),
        (dns.message.Message, "to_wire"),
        (dns.zone, "from_file"),
    ):
        function = getattr(owner, name)
        assert inspect.getsourcefile(function) == function.__code__.co_filename
        assert function.__code__.co_filename.endswith(".py")

        def noted(*args: Any, function: Any = function, **options: Any) -> Any:
            calls.append(function.__name__)
            return function(*args, **options)

        monkeypatch.setattr(owner, name, noted)
    serializer = messages.MessageSerializer()
    zone = zones.Zone(str(FOLDER / "example.com.zone"))
    response = handlers.DNSRequestHandler(zone).respond(serializer.deserialize(PLAIN))
    assert serializer.serialize(response)
    assert calls == ["from_file", "from_wire", "to_wire"]


def test_encoding() -> None:
    """Both protocol objects have one serializer; one of them has a length in front.

    "Turns DNS messages into bytes and back, for UDP and TCP."

    "A DNS message is the same over UDP and TCP: a header of 12 bytes, a question, and records. So
    one serializer is enough"

    "Over TCP, two bytes with the length of the message come first (1035, section 4.2.2).
    LengthPrefixedSerializer adds them when it sends, and finds the end of a message when it
    receives."

    "is an unsigned integer of 16 bits, in the byte order of the network."

    "The limit only applies to what the server receives."
    """
    assert len(wire(Message(ID))) == messages.HEADER_SIZE == 12
    for name in "www", "pool":
        response = HANDLER.respond(dns.message.from_wire(wire(query_of(f"{name}.example.com"))))
        response.request_payload = 65_535
        data = messages.udp_protocol.make_datagram(response)
        sent = b"".join(messages.tcp_protocol.generate_chunks(response))
        assert sent[:14] == len(data).to_bytes(2, "big") + data[:12]
        assert name == "pool" or sent[2:] == data  # the order of 100 addresses is random
    assert len(data) == 1634 > messages.MAX_QUERY_SIZE
    parser = messages.tcp_protocol.build_packet_from_chunks()
    next(parser)
    with pytest.raises(StopIteration) as stopped:
        parser.send(framed(PLAIN) + b"rest")
    query, rest = stopped.value.value
    assert (query.id, rest) == (ID, b"rest")


def test_room() -> None:
    """The serializer cuts off at the number of bytes in the message.

    "The handler says how many bytes fit."
    """
    response = HANDLER.respond(dns.message.from_wire(wire(query_of("farm.example.com"))))
    for room, is_cut in (641, True), (642, False):
        response.request_payload = room
        data = messages.MessageSerializer().serialize(response)
        assert bool(dns.message.from_wire(data).flags & dns.flags.TC) == is_cut
        assert (len(data) == 642) == (not is_cut)


def test_groups() -> None:
    """What arrives is no query, a query with errors, or a query.

    "deserialize() divides what arrives into three groups"

    "Not a query: too short for a header, too long for a query, or a response, which has the QR bit
    set."

    "deserialize() raises DeserializeError."

    "A malformed query: the header is complete, but the rest is not valid."

    "So MAX_QUERY_RECORDS limits the number of records: of a query with more, only the header is
    parsed."
    """
    deserialize = messages.MessageSerializer().deserialize
    response = wire(dns.message.make_response(query_of("example.com")))
    for data in PLAIN[:11], PLAIN + bytes(1233 - len(PLAIN)), response:
        with pytest.raises(DeserializeError):
            deserialize(data)
    for data in PLAIN[:12], PLAIN[:-1], PLAIN + bytes(1232 - len(PLAIN)):
        query = deserialize(data)
        assert query.errors
        assert query.id == ID
    query = deserialize(PLAIN)
    assert not query.errors
    assert query.question == query_of("www.example.com").question
    plain = wire(query_of("www.example.com"))
    question = plain[12:]
    assert messages.MAX_QUERY_RECORDS == 8
    for count in 8, 9:
        query = deserialize(plain[:5] + bytes([count]) + plain[6:12] + question * count)
        assert query.id == ID
        assert len(query.question) == (8 if count == 8 else 0), query


@pytest.mark.anyio
@once
async def test_one_message_in_a_datagram() -> None:
    """A second message in a datagram makes the query malformed.

    "A datagram contains one message."
    """
    async with asking() as served:
        [response] = await served.ask(PLAIN * 2)
        assert dns.message.from_wire(response).rcode() == dns.rcode.FORMERR


# The zone


def test_zone_file(tmp_path: Path) -> None:
    """Names are relative to the zone, and the file is read when the zone is made.

    "@ is the name of the zone, and names without a dot at the end are below it"

    "add lines such as @ CAA 0 issue"

    "_ldap._tcp SRV 0 5 389 web"

    "The server reads the file only when it starts, so restart it after a change."

    "and does not reload the zone file: restart it."
    """
    lines = ["mail A 192.0.2.1", "www.example.com. A 192.0.2.2", "www.example.com A 192.0.2.3"]
    lines += ['@ CAA 0 issue "ca.example.net"', "_ldap._tcp SRV 0 5 389 web"]
    zone = zone_of(*lines, folder=tmp_path)

    def found(zone: Any, name: str, rdtype: str = "A") -> list[str]:
        rdtypes = dns.rdatatype.from_text(rdtype)
        kind, records = zone.find(dns.name.from_text(f"{name}example.com."), rdtypes)
        return [each.to_text() for each in records] if kind is zones.Kind.FOUND else []

    assert zone.origin == dns.name.from_text("example.com.")
    assert found(zone, "mail.") == ["192.0.2.1"]
    assert found(zone, "www.") == ["192.0.2.2"]
    assert found(zone, "www.example.com.") == ["192.0.2.3"]
    assert found(zone, "", "CAA") == ['0 issue "ca.example.net"']
    assert found(zone, "_ldap._tcp.", "SRV") == ["0 5 389 web.example.com."]
    restarted = zone_of("mail A 192.0.2.9", folder=tmp_path)
    assert found(zone, "mail.") == ["192.0.2.1"]
    assert found(restarted, "mail.") == ["192.0.2.9"]


@pytest.mark.anyio
@once
async def test_other_source() -> None:
    """The handler needs three methods and a name of the zone object, whatever is behind them.

    "Replace it if your records are in a database."

    "To answer from another source than the zone file, override find()."
    """

    class Database:
        origin = dns.name.from_text("example.com.")

        def find(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Any:
            records = dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.99")
            return zones.Kind.FOUND, records

        def addresses_for(self, records: Any) -> list[Any]:
            return []

    class Overriding(zones.Zone):  # type: ignore[name-defined]
        find = Database.find

    for zone in Database(), Overriding(str(FOLDER / "example.com.zone")):
        async with asking(handlers.DNSRequestHandler(zone)) as served:
            response = await answer_of(served, "any.example.com")
            assert [str(each) for each in response.answer] == [
                "any.example.com. 60 IN A 192.0.2.99"
            ]


# The handler


@pytest.mark.anyio
@once
async def test_both_base_classes() -> None:
    """One class is both, and the same method gets each query of both transports by itself.

    "A handler class can have both base classes, AsyncStreamRequestHandler
    and AsyncDatagramRequestHandler. Both call handle() for one query at a time, and both kinds of
    clients have send_packet()"
    """
    calls: list[list[int]] = []

    class Noting(handlers.DNSRequestHandler):  # type: ignore[name-defined]
        async def handle(self, client: Any) -> AsyncGenerator[None, Message]:
            calls.append([])
            query = yield
            calls[-1].append(query.id)
            assert callable(client.send_packet)
            await self.answer(client, query)

    assert issubclass(Noting, AsyncStreamRequestHandler)
    assert issubclass(Noting, AsyncDatagramRequestHandler)
    handler = Noting(HANDLER.zone)
    for protocol, frame in (messages.udp_protocol, bytes), (messages.tcp_protocol, framed):
        calls.clear()
        async with serve(handler, protocol) as served:
            raw = await served.connect(raw=True)
            for number in 1, 2, 3:
                await raw.send(frame(number.to_bytes(2, "big") + PLAIN[2:]))
                assert await raw.receive()
        # Over TCP, one that has begun waits for the next query.
        assert [each for each in calls if each] == [[1], [2], [3]]


def test_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some checks are in one method, the others in the other one.

    "respond() checks the query, and look_up() the question: its name, its type and its class."

    "dnspython copies the ID, the question and the RD bit into the response, and adds an OPT record
    if the query has one."
    """
    asked: list[Any] = []
    original = handlers.DNSRequestHandler.look_up

    def look_up(self: Any, response: Message) -> None:
        asked.append(response.question[0])
        original(self, response)

    monkeypatch.setattr(handlers.DNSRequestHandler, "look_up", look_up)
    deserialize = messages.MessageSerializer().deserialize
    bad = {
        dns.rcode.FORMERR: "The query is malformed, or does not have exactly one question",
        dns.rcode.NOTIMP: "Another opcode, for example an update",
        dns.rcode.BADVERS: "The EDNS version is not 0",
    }
    for rcode, kind in bad.items():
        for data in KINDS[kind]:
            assert HANDLER.respond(deserialize(data)).rcode() == rcode
    assert asked == []
    for arguments in ("example.org", "A"), ("example.com", "AXFR"), ("example.com", "A", "CH"):
        assert HANDLER.respond(query_of(*arguments)).rcode() == dns.rcode.REFUSED
    assert len(asked) == 3
    for edns in -1, 0:
        for flags in 0, dns.flags.RD:
            query = query_of("www.example.com", use_edns=edns)
            query.flags = flags
            response = HANDLER.respond(query)
            assert response.id == ID
            assert response.question == query.question
            assert response.flags & dns.flags.RD == flags
            assert response.edns == edns


def test_further_addresses(tmp_path: Path) -> None:
    """What the response says of hosts comes with their addresses.

    "It also adds the addresses of mail servers, name servers and the targets of SRV records, so
    that the client does not have to ask for them."

    "Records of the types MX, NS and SRV name hosts"
    """
    lines = [f"{host} A 192.0.2.{number}" for number, host in enumerate(("ns1", "mx", "ldap"))]
    zone = zone_of(*lines, "@ MX 1 mx", "_ldap._tcp SRV 0 5 389 ldap", folder=tmp_path)
    handler = handlers.DNSRequestHandler(zone)
    for name, rdtype, host in (
        ("", "MX", "mx"),
        ("", "NS", "ns1"),
        ("_ldap._tcp.", "SRV", "ldap"),
    ):
        response = handler.respond(query_of(f"{name}example.com", rdtype))
        assert [str(each.name) for each in response.additional] == [f"{host}.example.com."]
    assert handler.respond(query_of("example.com", "SOA")).additional == []


@pytest.mark.anyio
@once
async def test_sizes_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram has at most 1,232 bytes, or fewer if the client or the administrator wants so.

    "A client with EDNS (6891) says how many it accepts, but the server sends at most 1,232 bytes"

    "A response over UDP never has more than 1,232 bytes. Set MAX_UDP_SIZE to 512 to reduce this
    further: longer responses then need TCP"

    "pool.example.com has 100 addresses, too many for a datagram. The response that arrives over UDP
    is empty and has the flag tc."
    """
    names = [f"n{count} A 192.0.2.{number}" for count in (74, 75) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        zone = zone_of(*names, folder=Path(folder))
    async with asking(handlers.DNSRequestHandler(zone)) as served:
        for count, payload, size in (
            (74, 4096, 1228),
            (75, 4096, None),
            (74, 1227, None),
            (74, 1228, 1228),
        ):
            query = query_of(f"n{count}.example.com", use_edns=0, payload=payload)
            [data] = await served.ask(wire(query))
            assert bool(dns.message.from_wire(data).flags & dns.flags.TC) == (size is None)
            assert len(data) == size or size is None
    async with asking() as served:
        response = await answer_of(served, "pool.example.com", use_edns=0, payload=65_535)
        assert response.flags & dns.flags.TC
        assert response.answer == []
        query = query_of("farm.example.com", use_edns=0)
        assert len((await served.ask(wire(query)))[0]) == 653
        monkeypatch.setattr(handlers, "MAX_UDP_SIZE", 512)
        assert len((await served.ask(wire(query)))[0]) == 45
    async with serve(HANDLER, messages.tcp_protocol) as streams:
        raw = await streams.connect(raw=True)
        await raw.send(framed(wire(query)))
        assert len(await raw.receive()) == 2 + 653
    assert len(HANDLER.zone.find(dns.name.from_text("pool.example.com"), dns.rdatatype.A)[1]) == 100


@pytest.mark.anyio
@once
async def test_four_queries_of_the_page() -> None:
    """The page shows one query of each kind.

    "A wildcard, a delegation to another zone, a name that does not exist, and a query that is
    refused"
    """
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    block = text.partition("and a query that is refused:")[2].partition("\n\n\n")[0]
    names = [line.split()[-1] for line in re.findall(r"\$ (dig .*)", block)]
    async with asking() as served:
        wildcard, delegation, unknown, refused = [await answer_of(served, each) for each in names]
    assert dns.name.from_text(names[0]) not in HANDLER.zone._zone
    assert str(wildcard.answer[0][0]) == "192.0.2.81"
    assert delegation.authority[0].rdtype == dns.rdatatype.NS
    assert (unknown.rcode(), refused.rcode()) == (dns.rcode.NXDOMAIN, dns.rcode.REFUSED)


# The program


def test_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program makes two servers, with one handler.

    "Runs a UDP server and a TCP server."

    "run() runs several servers in one event loop. Both get the same handler object"

    "The port of DNS is 53, which only the administrator may open. So the program listens on port
    5300 by default"

    "The TCP server has the limits for public servers, with shorter times"
    """
    made: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["dns_server.py", str(FOLDER / "example.com.zone")])
        for name in "AsyncUDPNetworkServer", "AsyncTCPNetworkServer":

            def new_server(*args: Any, name: str = name, **options: Any) -> str:
                made[name] = args, options
                return name

            patch.setattr(program, name, new_server)
        patch.setattr(program, "run", lambda *new, backend: [each() for each in new])
        program.main()
    (udp, no_options), (tcp, options) = made.values()
    assert list(made) == ["AsyncUDPNetworkServer", "AsyncTCPNetworkServer"]
    assert udp[:3] == ("127.0.0.1", 5300, messages.udp_protocol)
    assert tcp[:3] == ("127.0.0.1", 5300, messages.tcp_protocol)
    assert udp[3] is tcp[3]
    assert no_options == {}
    assert socket.getservbyname("domain") == 53 < socket.IPPORT_RESERVED <= 5300
    limits, public = dataclasses.asdict(options["limits"]), dataclasses.asdict(Limits.public())
    shorter = {name for name in limits if limits[name] != public[name]}
    assert shorter == {"first_packet_timeout", "idle_timeout"}
    assert all(limits[name] < public[name] for name in shorter)


def test_one_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's servers share a thread and a loop.

    "runs several servers in one event loop."
    """
    loops: list[object] = []

    class Noting(handlers.DNSRequestHandler):  # type: ignore[name-defined]
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            loops.append(asyncio.get_running_loop())
            if len(loops) == 2:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(program, "DNSRequestHandler", Noting)
    arguments = [str(FOLDER / "example.com.zone"), "--port", str(free_port("127.0.0.1"))]
    monkeypatch.setattr(sys, "argv", ["dns_server.py", *arguments])
    program.main()
    assert len(loops) == 2
    assert loops[0] is loops[1]


@pytest.mark.anyio
@once
async def test_queue(log: pytest.LogCaptureFixture) -> None:
    """Each socket has a queue of its own.

    "Over UDP, the server keeps the queries of each socket in a queue. When 64 of them wait, further
    ones are dropped"

    "Resolvers use a different port for each query, so this does not affect them."
    """
    released = anyio.Event()

    class Waiting(handlers.DNSRequestHandler):  # type: ignore[name-defined]
        async def answer(self, client: Any, query: Message) -> None:
            if query.id == ID:
                await released.wait()
            await super().answer(client, query)

    async with serve(Waiting(HANDLER.zone), messages.udp_protocol) as served:
        greedy, resolver = await served.connect(raw=True), await served.connect(raw=True)
        for _ in range(1 + 64 + 6):
            await greedy.send(PLAIN)
            await anyio.wait_all_tasks_blocked()
        await resolver.send(b"\0\1" + PLAIN[2:])
        assert (await resolver.receive())[:2] == b"\0\1"
        assert served.server.get_statistics().dropped_by_count == 6
        released.set()
        for _ in range(1 + 64):
            await greedy.receive()


# Computing an answer


def test_clock_in_the_program() -> None:
    """The program serves the other zone if it makes that one.

    "Import it in dns_server.py, and create it in place of Zone"

    "To use it, import both names in dns_server.py"
    """
    changes = {
        "clock": (("Zone(", "ClockZone("), ("import Zone", "import Zone\nfrom dns_clock import *")),
        "private": (
            ("DNSRequestHandler(Zone", "PrivateRequestHandler(Zone"),
            ("zone))", "zone), OWN_NETWORKS)"),
            (
                "import Zone",
                "import Zone\nfrom dns_private import OWN_NETWORKS, PrivateRequestHandler",
            ),
        ),
    }
    made: list[Any] = []
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dns_server.py", str(FOLDER / "example.com.zone")])
        for kind, replacements in changes.items():
            names = changed(program, *replacements)
            names["AsyncUDPNetworkServer"] = lambda *args: args[3]
            names["run"] = lambda new, *others, backend: made.append(new())
            names["main"]()
            found[kind] = made.pop()
    assert isinstance(found["clock"].zone, clock.ClockZone)
    assert isinstance(found["private"], private.PrivateRequestHandler)
    assert found["private"].networks == private.OWN_NETWORKS


def test_other_types_of_the_clock() -> None:
    """A zone that leaves the other types of its name to the file denies that there is such a name.

    "Do not leave these types to the zone file, which does not know the name: the server would deny
    that the name exists, and a resolver would remember this for all types."

    "For the other types, find() returns the SOA record"
    """

    class Leaving(clock.ClockZone):  # type: ignore[name-defined]
        def find(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Any:
            if rdtype == dns.rdatatype.TXT:
                return super().find(name, rdtype)
            return HANDLER.zone.find(name, rdtype)

    query = query_of("clock.example.com", "AAAA")
    for zone_class, rcode in (clock.ClockZone, "NOERROR"), (Leaving, "NXDOMAIN"):
        zone = zone_class(str(FOLDER / "example.com.zone"))
        response = handlers.DNSRequestHandler(zone).respond(query)
        assert dns.rcode.to_text(response.rcode()) == rcode
        assert [each.rdtype for each in response.authority] == [dns.rdatatype.SOA]


class Database(zones.Zone):  # type: ignore[name-defined]
    """A zone whose lookups wait, of one name until that is released."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.released = anyio.Event()

    async def find(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Any:
        if name.labels[0] == b"mail":
            await self.released.wait()
        return super().find(name, rdtype)


COROUTINES = (
    ("    def respond", "    async def respond"),
    ("    def look_up", "    async def look_up"),
    ("= self.respond(query)", "= await self.respond(query)"),
    ("self.look_up(response)", "await self.look_up(response)"),
    ("= self.zone.find(", "= await self.zone.find("),
)


@pytest.mark.anyio
@once
@pytest.mark.parametrize("is_at_once", [False, True], ids=["in order", "at once"])
async def test_waiting_lookup(is_at_once: bool) -> None:
    """A lookup that waits holds up what comes after it, but no other client.

    "If a lookup has to wait, for example for a database, make find(), look_up() and respond()
    coroutine functions, and await them. Other clients are served meanwhile, but further queries of
    the same connection, or of the same UDP socket, wait."

    "To answer the queries of a connection at the same time and in any order, which 7766 allows,
    start answer() with client.start_soon()"
    """
    start = ("await self.answer(client, query)", "client.start_soon(self.answer, client, query)")
    names = changed(handlers, *COROUTINES, *([start] if is_at_once else []))
    slow, fast = wire(query_of("mail.example.com")), wire(query_of("web.example.com"))
    transports: dict[Any, Any] = {messages.udp_protocol: bytes, messages.tcp_protocol: framed}
    if is_at_once:
        del transports[messages.udp_protocol]
    for protocol, frame in transports.items():
        zone = Database(str(FOLDER / "example.com.zone"))
        async with serve(names["DNSRequestHandler"](zone), protocol) as served:
            raw, other = await served.connect(raw=True), await served.connect(raw=True)
            await raw.send(frame(slow))
            await raw.send(frame(fast))
            await other.send(frame(fast))
            assert b"\3web" in await other.receive()
            await anyio.wait_all_tasks_blocked()
            assert not zone.released.is_set()
            if is_at_once:
                assert b"\3web" in await raw.receive()
            zone.released.set()
            data = await raw.receive()
            assert data.index(b"\4mail") < 20
            if not is_at_once:
                assert b"\3web" in data + await raw.receive()


# The tests of the page


@pytest.mark.anyio
@once
async def test_tests_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of the page's tests work without sockets, and with other handlers.

    "They need no port, so they can run anywhere"

    "The client needs a serializer of its own, because that of the server receives only queries.
    Pass it to connect() as the protocol. With raw=True, the client sends and receives bytes. To
    test a handler of your own, pass it to ask_udp()."
    """
    monkeypatch.syspath_prepend(FOLDER)
    page_tests = importlib.import_module("test_dns")

    def refuse(*args: object) -> None:
        raise AssertionError("a socket")

    for name in "bind", "connect", "sendto":
        monkeypatch.setattr(socket.socket, name, refuse)
    zone = clock.ClockZone(str(FOLDER / "example.com.zone"))
    query = query_of("clock.example.com", "TXT")
    response = await page_tests.ask_udp(handlers.DNSRequestHandler(zone), query)
    assert response.answer[0].ttl == 0
    [response] = await page_tests.ask_tcp(HANDLER, query_of("web.example.com"))
    assert response.answer
    async with serve(HANDLER, messages.udp_protocol) as served:
        client = await served.connect(protocol=messages.udp_protocol)
        await client.send_packet(query)
        with pytest.raises(DatagramProtocolParseError):
            await client.recv_packet()
        raw = await served.connect(raw=True)
        await raw.send(PLAIN)
        assert type(await raw.receive()) is bytes


# Before it meets the internet, in memory


@pytest.mark.anyio
@once
async def test_one_datagram_per_run() -> None:
    """The generator ends after one query.

    "For UDP, the default limits are enough, because handle() never waits for a second datagram."

    "This handler returns before its first yield if a client is in another network."
    """

    class Sink:
        async def send_packet(self, response: Message) -> None:
            assert response.id == ID

        def extra(self, attribute: object) -> Any:
            return IPv4SocketAddress("192.0.2.1", 5300)

    query = query_of("www.example.com")
    generator = HANDLER.handle(Sink())
    assert await anext(generator) is None
    with pytest.raises(StopAsyncIteration):
        await generator.asend(query)
    generator = private.PrivateRequestHandler(HANDLER.zone, []).handle(Sink())
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


@pytest.mark.anyio
@once
async def test_logs(log: pytest.LogCaptureFixture) -> None:
    """Queries are not logged, connections are, and what is invalid is logged up to a number.

    "A query that is answered is not logged."

    "Each TCP connection is logged at level INFO. If there are many, set the level of the logger
    easynetwork to WARNING."
    """
    async with asking() as served, serve(HANDLER, messages.tcp_protocol) as streams:
        log.clear()
        assert await served.ask(PLAIN)
        assert log.records == []
        for level, is_logged in (logging.INFO, True), (logging.WARNING, False):
            log.set_level(level, "easynetwork")
            log.clear()
            raw = await streams.connect(raw=True)
            await raw.send(framed(PLAIN))
            await raw.receive()
            about = [each for each in log.records if "connection" in each.getMessage()]
            assert [each.levelno for each in about] == [logging.INFO] * is_logged
            raw.close()
            await anyio.wait_all_tasks_blocked()


@pytest.mark.anyio
@once
async def test_log_of_invalid_messages(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log does not contain each invalid message, but a number counts the others.

    "For invalid messages, the server logs at most three lines per second, however many arrive, and
    one line with the number of the others. Its statistics count all of them"
    """
    now = 100.0
    monkeypatch.setattr(fault_log, "time", SimpleNamespace(monotonic=lambda: now))
    async with serve(HANDLER, messages.udp_protocol) as datagrams:
        raw = await datagrams.connect(raw=True)
        for now in 100.0, 101.0:
            log.clear()
            for _ in range(50):
                await raw.send(PLAIN[:11])
            await raw.send(PLAIN)
            await raw.receive()
            lines = [each.getMessage() for each in complaints(log)]
            assert sum("sent invalid data" in line for line in lines) == 3
            others = [line for line in lines if "sent invalid data" not in line]
            assert [line.split()[0] for line in others] == ["47"] * (now > 100)
        assert datagrams.server.get_statistics().invalid == 100


@pytest.mark.anyio
@once
async def test_missing() -> None:
    """The server does not do what the page says that it does not.

    "This server does not sign its responses (DNSSEC), does not transfer its zone to others"

    "What it does not have is a limit for the responses to each network."
    """
    async with asking() as served:
        for name in "web", "nobody":
            response = await answer_of(served, f"{name}.example.com", want_dnssec=True)
            sections = *response.answer, *response.authority, *response.additional
            signed = {dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.NSEC3}
            assert not signed & {each.rdtype for each in sections}
        for rdtype in "AXFR", "IXFR":
            assert (await answer_of(served, "example.com", rdtype)).rcode() == dns.rcode.REFUSED
        for _ in range(50):
            assert len(await served.ask(PLAIN)) == 1


@pytest.mark.anyio
@once
async def test_second_name_server() -> None:
    """Who gets no answer from one name server asks the next.

    "Resolvers then ask another name server of the zone, so have at least two, on different
    machines."
    """

    def resolve(port: int) -> list[str]:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.lifetime = ["127.0.0.2", "127.0.0.1"], PATIENCE
        resolver.port, resolver.timeout = port, 50 * MS
        return [each.to_text() for each in resolver.resolve("web.example.com")]

    async with serving() as served:
        assert await in_thread(lambda: resolve(served.port)) == ["192.0.2.80"]
