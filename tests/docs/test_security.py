"""Compare the page about security with the code; make the attacks that no other test makes.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import AsyncGenerator
from dataclasses import fields
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork import tls
from easynetwork._tls_options import _HANDSHAKE_TIMEOUT
from easynetwork._tuning import HIGH_WATER
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    CBORSerializer,
    JSONSerializer,
    MessagePackSerializer,
    StringLineSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.cbor import _MOST_NUMBERS
from easynetwork.serializers.tools import DEFAULT_MAX_DEPTH, DEFAULT_SERIALIZER_LIMIT
from easynetwork.servers import AsyncTCPNetworkServer, DatagramLimits, Limits, limits
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.sockets import messages
from easynetwork.testing import serve
from tests.docs.howto_support import (
    DOCS,
    DatagramEcho,
    Echo,
    check_quotations,
    check_tests,
    serving,
    table,
    until,
    visiting,
    words,
)
from tests.robustness.test_idle import LIMIT as IDLE_LIMIT
from tests.robustness.test_tls import IDLE_LIMIT as IDLE_LIMIT_OF_TLS

PAGE = "security.rst"
REPOSITORY = Path(__file__).resolve().parents[2]
KIB = 1024
LINES: Any = StreamProtocol(StringLineSerializer())

Client = AsyncStreamClient[str]


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


# What you can rely on

ELSEWHERE = """
tests/conformance/test_crashes.py: test_crash_anywhere
tests/conformance/test_misbehaviour.py: test_descriptor_closed_and_used
tests/robustness/test_faults.py: test_peers_that_send_garbage
tests/robustness/test_memory.py: test_requests_for_ever_and_answers_never_read
tests/conformance/test_peer_faults.py: test_flood, test_flood_of_crashes
"""


def test_promises() -> None:
    """Whole modules of tests are about each of them.

    "One client does not reach another. What a client sends, and what your code raises while it
    serves this client, ends at most this one connection."

    "Everything is bounded. Each queue and each buffer that a client can fill has a limit"

    "The log is bounded. Lines that clients can cause are limited per second, and the rest is
    counted."
    """
    check_tests(ELSEWHERE)
    assert "Two lines in the log do not have a limit" in words("howto/limits.rst")


# What is bounded by default


def shown(value: float | None, unit: str = "") -> str:
    """Return a value as the table shows it."""
    if value is None:
        return "no limit"
    if unit == "KiB":
        assert value % KIB == 0
        value /= KIB
    return f"{value:,.0f} {unit}".strip()


def default(cls: Any, name: str) -> Any:
    return inspect.signature(cls).parameters[name].default


def test_defaults() -> None:
    """The table has the values of the code.

    "What is bounded by default"

    "Limits.public() has narrower limits for a port that faces the internet."
    """
    stream, datagrams = Limits(), DatagramLimits()
    assert stream.first_packet_timeout is None
    assert default(JSONSerializer, "limit") == DEFAULT_SERIALIZER_LIMIT
    backlog, size = documented("backlog"), documented("max_recv_size")
    assert {(setting, value) for _, value, setting in table(PAGE, "What", "Default")} == {
        ("max_clients of Limits", shown(limits._MOST_CLIENTS, "clients")),
        ("max_clients_per_host", shown(stream.max_clients_per_host)),
        ("ssl_handshake_timeout", shown(_HANDSHAKE_TIMEOUT, "seconds")),
        ("packet_timeout", shown(stream.packet_timeout, "seconds")),
        ("idle_timeout, first_packet_timeout", shown(stream.idle_timeout)),
        ("limit of the serializer", shown(DEFAULT_SERIALIZER_LIMIT, "KiB")),
        ("max_depth of the serializer", shown(DEFAULT_MAX_DEPTH, "levels")),
        ("max_recv_size", size),
        ("none", shown(tls.MAX_HANDSHAKE_BYTES, "KiB")),
        ("none", shown(messages._MAX_DESCRIPTORS, "descriptors")),
        (
            "none; high_water of a ClientGroup",
            shown(default(ClientGroup, "high_water"), "KiB"),
        ),
        ("send_timeout", shown(stream.send_timeout, "seconds")),
        ("close_timeout", shown(stream.close_timeout, "seconds")),
        ("max_waiting of DatagramLimits", shown(datagrams.max_waiting, "datagrams")),
        ("max_waiting_bytes", shown(datagrams.max_waiting_bytes, "KiB")),
        ("max_peers", shown(datagrams.max_peers, "senders")),
        ("backlog", f"{backlog} connections"),
    }
    for field in fields(Limits):
        public, usual = getattr(Limits.public(), field.name), getattr(stream, field.name)
        assert public == usual or usual is None or public < usual


def documented(parameter: str) -> str:
    """Return the default of a parameter of servers that its description contains."""
    text = " ".join(str(AsyncTCPNetworkServer.__init__.__doc__).split())
    match = re.search(rf"{parameter}: [^:]*?([\d,]+(?: KiB)?) by default", text)
    assert match
    return match[1]


def test_number_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may open few has fewer clients.

    "If the process may open fewer descriptors, the number of connections is lower: 80 % of its soft
    limit."
    """
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    assert Limits().in_force().max_clients == 800


# What a connection costs


def test_cost_of_silence() -> None:
    """These tests measure it.

    "The memory of the operating system for each socket is not included."
    """
    costs = dict(table(PAGE, "A client that", "costs at most"))
    assert costs["is connected and silent"] == shown(IDLE_LIMIT, "KiB")
    assert costs["is connected over TLS and silent"] == shown(IDLE_LIMIT_OF_TLS, "KiB")


def test_sum() -> None:
    """A client can have the other three rows at the same time.

    "So if 10,000 clients attack at once, and do all of this, the server needs about 3 GiB with
    packets of 64 KiB."
    """
    costs = dict(table(PAGE, "A client that", "costs at most"))
    packet = 64
    stated = [int(size) for cost in costs.values() for size in re.findall(r"(\d+) KiB", cost)]
    assert stated == [8, 28, 64, 64, 64, 64]
    assert round((sum(stated[2:]) + packet) * 10_000 / KIB**2) == 3


class Working(AsyncStreamRequestHandler[str, str]):
    """Gets one request, and works until the test lets it go on."""

    def __init__(self) -> None:
        self.free = anyio.Event()
        self.unsent: list[int] = []

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        request = yield
        if request == "send":
            for _ in range(1000):
                await client.send_packet("x" * 9_999)
                self.unsent.append(client.get_unsent_size())
        await self.free.wait()
        await client.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("is_complete", [True, False], ids=["requests", "one request"])
async def test_cost_of_requests(is_complete: bool) -> None:
    """The server takes no more bytes from a client than it says.

    "64 KiB, and one chunk of 64 KiB"

    "one limit: 64 KiB by default"
    """
    handler = Working()
    protocol: Any = StreamProtocol(StringLineSerializer(limit=1 << 20)) if is_complete else LINES
    async with serve(handler, protocol) as served:
        connection = await served.connect(raw=True)
        async with anyio.create_task_group() as group:

            async def flood() -> None:
                if not is_complete:
                    await connection.send(b"x" * (DEFAULT_SERIALIZER_LIMIT - 1))
                while is_complete:
                    await connection.send(b"work\n" * 200)

            group.start_soon(flood)
            await anyio.wait_all_tasks_blocked()
            received = served.server.get_statistics().bytes_received
            assert 0 < received <= HIGH_WATER + 64 * KIB
            group.cancel_scope.cancel()
        handler.free.set()


@pytest.mark.anyio
async def test_cost_of_not_reading() -> None:
    """What waits for a client is bounded.

    "64 KiB, and one packet of yours"
    """
    handler = Working()
    async with serve(handler, LINES) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"send\n")
        await anyio.wait_all_tasks_blocked()
        (client,) = served.server.get_clients()
        assert HIGH_WATER < client.get_unsent_size() <= HIGH_WATER + 10_000
        handler.free.set()


# Attacks


def test_attacks() -> None:
    """The tests that the page names exist, and the defaults are as it says.

    "The column Test names tests in the repository that make this attack."

    "Decompression stops at the limit of the serializer."

    "No byte of such a line is parsed."

    "It goes to TLS, whose handshake fails."

    "It is refused before it is parsed."

    "In CBOR, keys are text, bytes, or at most 1,000 numbers, as long as strict_map_key is true."

    "In a packet, and in clients, an error, as long as ssl_standard_compatible is true."
    """
    assert _MOST_NUMBERS == 1_000
    rows = table(PAGE, "Attack", "By default")
    assert len(rows) == 9
    sources = "".join(
        file.read_text(encoding="utf-8") for file in (REPOSITORY / "tests").rglob("test_*.py")
    )
    for _, _, tests in rows:
        for name in tests.split(", "):
            assert re.search(rf"^(?:async )?def {name}\(", sources, re.MULTILINE), name
    assert default(CBORSerializer, "strict_map_key") is True
    options: dict[str, list[Any]] = {
        "limit": [ZlibCompressorSerializer],
        "max_depth": [JSONSerializer, MessagePackSerializer, CBORSerializer],
        "ssl_standard_compatible": [AsyncTCPNetworkServer],
    }
    for parameter, classes in options.items():
        assert all(parameter in inspect.signature(cls).parameters for cls in classes)
    here = {row[0] for row in rows}
    assert not here & {row[0] for row in table("howto/limits.rst", "Attack", "By default")}


# What is up to you


@pytest.mark.anyio
async def test_invalid_datagram() -> None:
    """Only the handler answers.

    "easynetwork itself never answers a datagram that is not a valid request."
    """
    protocol: Any = DatagramProtocol(JSONSerializer())
    handler = DatagramEcho()
    async with serving(handler, protocol) as server:
        with visiting(server) as peer:
            peer.send("{")
            assert await peer.ask('"hello"') == '"hello"'
        await until(lambda: handler.errors)


def test_newlines() -> None:
    """The examples of the page show both.

    ">>> from easynetwork.serializers import StringLineSerializer >>>
    StringLineSerializer().serialize_frame("

    ">>> from easynetwork.serializers import JSONSerializer >>> JSONSerializer().serialize_frame("

    "a text that contains the end of a line becomes two packets"

    "or use JSON, which escapes the end of a line"
    """
    kinds: list[tuple[Any, int]] = [(StringLineSerializer(), 2), (JSONSerializer(), 1)]
    for serializer, lines in kinds:
        assert serializer.serialize_frame("name: Ada\nrole: admin").count(b"\n") == lines


def test_replay() -> None:
    """A signed packet can be recorded.

    "A signature does not hide the packet, and does not prevent that it is sent again."
    """
    signed: Any = Base64EncoderSerializer(
        StringLineSerializer(), checksum=Base64EncoderSerializer.generate_key()
    )
    data = signed.serialize("hello")
    assert b"hello" in base64.b64decode(data, altchars=b"-_")
    assert signed.deserialize(data) == signed.deserialize(data) == "hello"


def test_debug() -> None:
    """It is off unless it is asked for.

    "With debug=True, the errors of a serializer contain what was received."
    """
    from easynetwork.exceptions import DeserializeError

    assert default(JSONSerializer, "debug") is False
    for debug in False, True:
        with pytest.raises(DeserializeError) as caught:
            JSONSerializer(debug=debug).deserialize(b"secret")
        assert ("secret" in repr(caught.value.error_info)) is debug


@pytest.mark.anyio
async def test_no_limit_of_rates() -> None:
    """A thousand requests at once are served.

    "There is no limit for the number of requests, only for their size and for what waits."
    """
    async with serve(Echo(), LINES, limits=Limits.public()) as served:
        client = await served.connect()
        for number in range(1000):
            await client.send_packet(f"{number}")
            assert await client.recv_packet() == f"{number}"


def test_own_data() -> None:
    """The page names what there is.

    "Each server has limits of its own."

    "Delete the entry of a client in on_disconnection()."
    """
    assert "each of them counts for itself" in words("howto/limits.rst")
    assert hasattr(AsyncStreamRequestHandler, "on_disconnection")


# Checklist


def test_checklist() -> None:
    """What it says to pass are arguments.

    "Pass limits=Limits.public()."

    "Behind a proxy, replace max_clients_per_host by None."
    """
    text = (DOCS / PAGE).read_text(encoding="utf-8").partition("Checklist")[2]
    for name in "limits", "ssl":
        assert f"``{name}" in text
        assert name in inspect.signature(AsyncTCPNetworkServer).parameters
    assert {field.name for field in fields(Limits)} > {"max_clients_per_host", "max_clients"}
