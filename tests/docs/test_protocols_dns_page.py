"""Test what the page about DNS says of its modules, its limits and its tests, in memory.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. What other programs get from the server is in `test_protocols_dns`.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import importlib.metadata
import inspect
import logging
import re
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
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

from easynetwork.addresses import IPv4SocketAddress
from easynetwork.exceptions import DatagramProtocolParseError, DeserializeError
from easynetwork.servers import Limits
from easynetwork.servers._core import fault_log
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.testing import serve
from tests.docs.howto_support import DOCS, check_quotations, complaints, in_thread, table
from tests.docs.test_protocols_dns import (
    FOLDER,
    HANDLER,
    ID,
    KINDS,
    MODULES,
    PAGE,
    PLAIN,
    Asking,
    asking,
    clock,
    framed,
    free_port,
    handlers,
    messages,
    private,
    program,
    query_of,
    serving,
    wire,
    zones,
)
from tests.times import MS, PATIENCE


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


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

    "Zone.find() looks up one name, and returns the Kind of the answer with its records."

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
    further: longer responses then need TCP, where the address cannot be forged."

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

    "run() runs several servers in one event loop. Both get the same handler object, and the TCP
    server gets LIMITS"

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
    port = dns.resolver.Resolver(configure=False).port
    assert port == 53 < socket.IPPORT_RESERVED <= 5300
    assert options["limits"] is program.LIMITS
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
                raise KeyError("both servers have begun")

    monkeypatch.setattr(program, "DNSRequestHandler", Noting)
    arguments = [str(FOLDER / "example.com.zone"), "--port", str(free_port("127.0.0.1"))]
    monkeypatch.setattr(sys, "argv", ["dns_server.py", *arguments])
    with pytest.raises(KeyError, match="both servers"):
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

    "The client needs a serializer of its own, ClientSerializer, because that of the server receives
    only queries. Pass it to connect() as the protocol. With raw=True, the client sends and receives
    bytes. To test a handler of your own, pass it to ask_udp()."
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

    "This handler returns before its first yield if the address of a client is in none of its
    networks."
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
