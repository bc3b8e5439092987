"""The tutorials: who does what they say sees what they show.

What stands in quotation marks in a docstring is what a page says, word for word, and the test would
fail if it were wrong.
"""

from __future__ import annotations

import errno
import os
import re
import runpy
import socket
import sys
import types
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.rest import DocTestParser

from docs._include.examples.tutorials.echo_client_server_tcp import echo_handler as tcp_example
from docs._include.examples.tutorials.echo_client_server_udp import echo_handler as udp_example
from easynetwork.clients import AsyncTCPNetworkClient, AsyncUDPNetworkClient
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer
from tests.docs.howto_support import DOCS, serving, words
from tests.docs.sybil_parsers import code_blocks
from tests.docs.terminals import Terminals, end, next_lines, terminals

TCP, UDP = PAGES = ("tutorials/echo_client_server_tcp.rst", "tutorials/echo_client_server_udp.rst")
EXAMPLES = DOCS / "_include/examples/tutorials"
SERVERS = ("asyncio", "trio", "standalone")
CLIENTS = ("blocking", "asyncio", "trio")


def test_quotations() -> None:
    """The pages say what the tests quote."""
    said = " ".join(words(page) for page in PAGES)
    docstrings = [str(test.__doc__) for name, test in globals().items() if name.startswith("test_")]
    quotations = re.findall(r'"(.+?)"', " ".join(" ".join(docstrings).split()))
    assert quotations
    assert [quotation for quotation in quotations if quotation not in said] == []


# The pages, from top to bottom


class Tutorial:
    """A tutorial as its reader has it: a page, and its files in a folder, on a port of its own."""

    def __init__(self, page: str, folder: Path) -> None:
        kind = socket.SOCK_STREAM if page == TCP else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.bind(("127.0.0.1", 0))
            self.host, self.port = sock.getsockname()
        self.path = DOCS / page
        for file in (EXAMPLES / self.path.stem).glob("*.py"):
            (folder / file.name).write_text(self.here(file), encoding="utf-8")

    def here(self, file: Path) -> str:
        """Return a text with an address that is free, and that has only one spelling."""
        text = file.read_text(encoding="utf-8")
        return text.replace("localhost", self.host).replace("9000", str(self.port))

    def follow(self, reader: Terminals) -> None:
        """Do what the page says."""
        document = Document(self.here(self.path), str(self.path))
        for parser in (reader.blocks, DocTestParser()):
            for region in parser(document):
                document.add(region)
        for example in document:
            example.evaluate()


@pytest.mark.in_turn
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("page", PAGES, ids=["tcp", "udp"])
def test_tutorial(page: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page shows what happens with each server and each client, and when something breaks.

    "It need not match your server: the two share only the protocol object."

    "run() calls new_server(), opens the listening sockets, and accepts clients until you press
    Control-C."

    "run() calls new_server(), opens the sockets, and serves every client that sends a datagram,
    until you press Control-C."

    "serve_forever() opens the listening sockets, runs the handler in an event loop of its own, and
    accepts clients until you press Control-C."

    "serve_forever() opens the sockets, runs the handler in an event loop of its own, and serves
    every client that sends a datagram, until you press Control-C."
    """
    tutorial = Tutorial(page, tmp_path)
    module = types.ModuleType("echo_protocol")
    vars(module).update(runpy.run_path(str(tmp_path / "echo_protocol.py")))
    monkeypatch.setitem(sys.modules, "echo_protocol", module)
    with terminals(tmp_path, server) as reader:
        tutorial.follow(reader)
    assert reader.typed[0] == f"python server_{server}.py"
    for client in CLIENTS:
        assert f'python client_{client}.py Hello "How are you?"' in reader.typed


def test_other_pages() -> None:
    """No other page has blocks that belong to a terminal: nothing would type there.

    But for that about DNS, whose own tests do.
    """
    for page in DOCS.rglob("*.rst"):
        if str(page.relative_to(DOCS)) not in {*PAGES, "protocols/dns.rst"}:
            for region in code_blocks(Document(page.read_text(encoding="utf-8"), str(page))):
                is_typed = region.lexemes["arguments"] in ("console", "pycon")
                assert not is_typed or "caption" not in region.lexemes["options"], page


# What they say besides


@pytest.mark.parametrize(
    ("page", "words_of_page", "file", "line"),
    [
        (TCP, "Lines 9 to 11 print", "echo_protocol.py", "if __name__ =="),
        (TCP, "Line 6 defines the address", "echo_protocol.py", 'host, port = "localhost", 9000'),
        (TCP, "line 7 defines the format", "echo_protocol.py", "protocol = StreamProtocol("),
        (TCP, "Read line 16 as", "echo_handler.py", "request = yield"),
        (TCP, "line 17 sends the response", "echo_handler.py", "await client.send_packet(request)"),
        (TCP, "Line 11 connects", "client_blocking.py", "with TCPNetworkClient("),
        (TCP, "Line 12 connects", "client_asyncio.py", "async with AsyncTCPNetworkClient("),
        (TCP, "Line 12 connects", "client_trio.py", "async with AsyncTCPNetworkClient("),
        (UDP, "Lines 9 to 11 print", "echo_protocol.py", "if __name__ =="),
        (UDP, "Line 6 defines the address", "echo_protocol.py", 'host, port = "localhost", 9000'),
        (UDP, "line 7 defines the format", "echo_protocol.py", "protocol = DatagramProtocol("),
        (UDP, "Read line 19 as", "echo_handler.py", "request = yield"),
        (UDP, "line 20 sends the response", "echo_handler.py", "await client.send_packet(request)"),
        (UDP, "Line 11 opens a socket", "client_blocking.py", "with UDPNetworkClient("),
        (UDP, "Line 12 opens a socket", "client_asyncio.py", "async with AsyncUDPNetworkClient("),
        (UDP, "Line 12 opens a socket", "client_trio.py", "async with AsyncUDPNetworkClient("),
        (UDP, "Line 14 waits", "client_blocking.py", "response = client.recv_packet(timeout=5)"),
        (UDP, "Line 15 sets a timeout", "client_asyncio.py", "async with asyncio.timeout(5)"),
        (UDP, "Line 15 sets a timeout", "client_trio.py", "with trio.fail_after(5)"),
    ],
)
def test_line_numbers(page: str, words_of_page: str, file: str, line: str) -> None:
    """The line that a page names is the one that it means.

    "Read line 16 as" "wait for the next request of this client"

    "Read line 19 as" "take the request of this client" "Line 15 sets a timeout, because the request
    or the response may be lost, and no error reports the loss."
    """
    number = re.search(r"\d+", words_of_page)
    assert number
    assert words_of_page in words(page)
    text = (EXAMPLES / Path(page).stem / file).read_text(encoding="utf-8")
    assert text.splitlines()[int(number[0]) - 1].strip().startswith(line)


@pytest.mark.parametrize("page", PAGES, ids=["tcp", "udp"])
def test_port_in_use(page: str, tmp_path: Path) -> None:
    """A second server does not start.

    "Before you try another variant, stop this server: only one program at a time can use the port."

    "If the port is in use, the server ends with the error Address already in use. If another
    program is using it, choose a different port in echo_protocol.py."
    """
    Tutorial(page, tmp_path)
    with terminals(tmp_path, "asyncio") as reader:
        first = reader.start("First terminal", "python server_asyncio.py")
        assert "Start serving" in next_lines(first, 1)
        second = reader.start("Second terminal", "python server_trio.py")
        assert "Address already in use" in end(second)
        assert second.returncode == 1
        file = tmp_path / "echo_protocol.py"
        other = TCP if page == UDP else UDP
        (tmp_path / "other").mkdir()
        port = Tutorial(other, tmp_path / "other").port
        file.write_text(re.sub(r"\b\d{4,5}\b", str(port), file.read_text(), count=1))
        os.utime(file, (0, 0))  # as if later: bytecode of the same second and size would be used
        third = reader.start("Third terminal", "python server_trio.py")
        assert f"{port})" in next_lines(third, 1)


@pytest.mark.anyio
async def test_limit() -> None:
    """The limit of a line is what the page says, and so is what happens if only one end changes it.

    "This was JSON, but the line was longer than the default limit of 65,536 bytes"

    "The limit applies to received data, at both ends: with a larger limit in the server only, the
    client would reject the response."
    """
    message = {"message": "x" * 200_000}
    small, large = (
        StreamProtocol(serializer)
        for serializer in (JSONSerializer(), JSONSerializer(limit=1_000_000))
    )
    assert JSONSerializer().buffer_limit == 65_536
    async with serving(tcp_example.EchoRequestHandler(), large) as server:
        address = server.get_addresses()[0]
        async with AsyncTCPNetworkClient(tuple(address), large) as client:
            await client.send_packet(message)
            assert await client.recv_packet() == message
        async with AsyncTCPNetworkClient(tuple(address), small) as client:
            await client.send_packet(message)
            with pytest.raises(StreamProtocolParseError):
                await client.recv_packet()


@pytest.mark.anyio
async def test_errors_of_asynchronous_clients() -> None:
    """Asynchronous clients meet the errors that the pages show for the blocking ones.

    "The asynchronous clients raise the same ones."

    "The asynchronous clients raise the same errors."
    """
    stream = StreamProtocol(JSONSerializer())
    async with serving(tcp_example.EchoRequestHandler(), stream) as server:
        address = tuple(server.get_addresses()[0])
        tcp_client = AsyncTCPNetworkClient(address, stream)
        await tcp_client.wait_connected()
        async with AsyncTCPNetworkClient(address, stream) as client:
            await client.send_packet({"message": "x" * 200_000})
            with pytest.raises(ConnectionAbortedError):
                await client.recv_packet()
    async with tcp_client:
        with pytest.raises(ConnectionAbortedError):
            await tcp_client.recv_packet()
    with pytest.raises(ConnectionRefusedError):
        await AsyncTCPNetworkClient(address, stream).wait_connected()

    datagrams = DatagramProtocol(JSONSerializer())
    async with serving(udp_example.EchoRequestHandler(), datagrams) as server:
        udp_client = AsyncUDPNetworkClient(tuple(server.get_addresses()[0]), datagrams)
        await udp_client.wait_connected()
        with pytest.raises(OSError, match="too long") as error:
            await udp_client.send_packet({"message": "x" * 70_000})
        assert error.value.errno == errno.EMSGSIZE
    async with udp_client:
        with pytest.raises(ConnectionRefusedError):
            await udp_client.send_packet({"message": "Are you there?"})
