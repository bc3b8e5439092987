"""Test the statements and the examples of the page about DNS, with the programs that speak it.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
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
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
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
import dns.rrset
import dns.zone
import pytest
from dns.message import Message
from hypothesis import given, strategies as st
from sybil import Document

from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer, CloseReason, Limits
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
    (r"at most 9\.9\d* seconds", "at most 10 seconds"),  # part of it is over: the machine is busy
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

    "It sends each of them 50 times from four sockets, at most 40 at a time, over UDP and then over
    TCP"

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
    options = [command for command in reader.commands if command.startswith("dnsperf ")]
    assert len(options) == 2
    assert all("-n 50 -c 4 -q 40" in each for each in options)
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

    "Over TCP, with an AsyncStreamClient, all responses fit."

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

    "You do not have to do anything about it: queries that have arrived together are answered one
    after the other, and their responses leave together"

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

    "This handler returns before its first yield if the address of a client is in none of its
    networks."
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
