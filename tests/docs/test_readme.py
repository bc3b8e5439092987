"""The README and the first page: their programs, what they say to type, and their figures.

A sentence in quotation marks in a docstring is a quotation of one of the two pages. What else they
say is in `test_first_pages`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import types
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import run
from tests.docs.howto_support import (
    DOCS,
    check_quotations_in,
    complaints,
    connected,
    plain,
    serving,
)
from tests.docs.sentences import words_of
from tests.times import PATIENCE

README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
FIRST_PAGE = (DOCS / "index.rst").read_text(encoding="utf-8")
PROGRAMS = dict(
    zip(
        ("hello.py", "greeter.py", "ask.py", "background.py"),
        re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE),
        strict=True,
    )
)
SAID = plain(re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", README)), plain(FIRST_PAGE)


def test_quotations() -> None:
    """Check that one of the pages contains each quotation, and that each test quotes one."""
    check_quotations_in(SAID, globals())


# -- the programs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the programs, saved under the names that the README gives them."""
    for name, text in PROGRAMS.items():
        assert f"`{name}`" in README
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@contextlib.contextmanager
def running(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends."""
    program = subprocess.Popen(
        [sys.executable, "-W", "error", name],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    with program:
        try:
            yield program
        finally:
            program.kill()


def next_line(program: subprocess.Popen[str]) -> str:
    """Return the next line that a program prints."""
    assert program.stdout is not None
    assert select.select([program.stdout], [], [], PATIENCE)[0]
    return program.stdout.readline()


def program_of(name: str) -> Any:
    """Return a program as a module."""
    program = types.ModuleType("program")
    exec(PROGRAMS[name], vars(program))
    return program


def output_of(command: str) -> str:
    """Return what the README shows after a command."""
    shown = re.search(rf"^```console\n\$ {command}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert shown is not None
    return shown[1]


def test_first_program(folder: Path) -> None:
    """It is the one of the first page, prints what both pages show, and ends.

    "This is a whole program, with a server and a client"

    "Save it as hello.py and run it, after"
    """
    text = PROGRAMS["hello.py"]
    assert text == (DOCS / "_include/examples/hello.py").read_text(encoding="utf-8")
    with running(folder, "hello.py") as program:
        assert program.communicate(timeout=PATIENCE)[0] == output_of("python hello.py")
    assert program.returncode == 0


def test_server_of_your_own(folder: Path) -> None:
    """It says where it serves, answers netcat and the client as shown, and ends on Control-C.

    "Start it with python greeter.py. (If it says that the address is already in use, another
    program has the port: stop that one, or choose another port.)"

    "In a second terminal, connect with netcat if you have it, and type a request"

    "Save it as ask.py, and activate the environment in the second terminal, too"
    """
    with running(folder, "greeter.py") as server:
        assert "Start serving at ('127.0.0.1', 9000)" in next_line(server)
        other = program_of("greeter.py")
        with pytest.raises(OSError, match="(?i)address already in use"):
            run(other.new_server)
        typed, received = output_of("nc localhost 9000").splitlines(keepends=True)
        with socket.create_connection(("localhost", 9000), PATIENCE) as sock:
            sock.sendall(typed.encode())
            assert sock.makefile().readline() == received
        with running(folder, "ask.py") as client:
            assert client.communicate(timeout=PATIENCE)[0] == output_of("python ask.py")
        server.send_signal(signal.SIGINT)
        log = server.communicate(timeout=PATIENCE)[0]
        assert server.returncode == 0
        assert "Traceback" not in log


def test_standalone_server(folder: Path) -> None:
    """It serves in the background until Enter is pressed.

    "A standalone server has its own event loop, and can run in a thread. The handler stays the
    same. Stop greeter.py, and save this beside greeter.py, as background.py"

    "Start it with python background.py, run python ask.py in the second terminal, then press Enter
    in the first."
    """
    assert "from greeter import Greeter" in PROGRAMS["background.py"]
    with running(folder, "background.py") as server:
        assert next_line(server) == "Press Enter to stop the server\n"
        with running(folder, "ask.py") as client:
            assert client.communicate(timeout=PATIENCE)[0] == output_of("python ask.py")
        assert server.communicate("\n", timeout=PATIENCE)[0] == ""
        assert server.returncode == 0


# -- the handler of the server of your own


@pytest.fixture
def handler_class() -> Any:
    """Return the request handler of the server."""
    return program_of("greeter.py").Greeter


@pytest.mark.anyio
async def test_bad_requests(handler_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A request without a name gets a response, and is not logged as a bug.

    "This server checks what clients send"
    """
    caplog.set_level(logging.DEBUG, "easynetwork")
    async with serving(handler_class(), StreamProtocol(JSONSerializer())) as server:
        async with connected(server) as peer:
            for request in "{}", '{"name": 1}', "[]", "null", '"name"', "not JSON", "\x00":
                assert list(json.loads(await peer.ask(request))) == ["error"], request
            assert json.loads(await peer.ask('{"name": "world"}')) == {"hello": "world"}
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_silent_client(handler_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The timeout that the handler does not catch ends the connection in good order.

    "and disconnects those that send nothing."
    """
    caplog.set_level(logging.DEBUG, "easynetwork")

    class Impatient(handler_class):
        async def handle(self, client: Any) -> AsyncGenerator[float, Any]:
            async with contextlib.aclosing(super().handle(client)) as generator:
                assert await anext(generator) == 30
                try:
                    request = yield 0.05
                except TimeoutError as exc:
                    await generator.athrow(exc)
                with contextlib.suppress(StopAsyncIteration):
                    await generator.asend(request)

    async with serving(Impatient(), StreamProtocol(JSONSerializer())) as server:
        async with connected(server) as peer:
            assert json.loads(await peer.ask('{"name": "world"}')) == {"hello": "world"}
            assert await peer.ending() == "end of the stream"
    assert not complaints(caplog)


# -- the figures

FIGURES = json.loads((DOCS / "_include/performance/python-3.13.json").read_text(encoding="utf-8"))


def median(scenario: str, contender: str, key: str) -> float:
    """Return a committed figure, as the performance page shows it."""
    [table] = [table for table in FIGURES["tables"] if table["scenario"] == scenario]
    [row] = [row for row in table["rows"] if row["contender"] == contender]
    return float(statistics.median(sample["figures"][key] for sample in row["samples"]))


@pytest.mark.parametrize(
    ("scenario", "key", "figures"),
    [
        (
            "tcp-50x64x16",
            "cpu_us",
            {
                "easynetwork-asyncio-loop": "costs {:.1f} µs of processor time on asyncio",
                "asyncio-streams": "asyncio streams take {:.1f} µs",
                "asyncio-protocol": "an asyncio.Protocol written by hand takes {:.1f} µs",
            },
        ),
        (
            "tcp-never-reader",
            "grown_mib",
            {
                "easynetwork-asyncio-loop": "makes the server grow by {:.2f} MiB",
                "asyncio-protocol": "a handwritten asyncio.Protocol grows by {:.0f} MiB",
            },
        ),
        (
            "tls-idle",
            "kib",
            {
                "easynetwork-asyncio-tls": "An idle TLS connection takes {:.0f} KiB",
                "asyncio-streams-tls": "asyncio streams take {:.0f} KiB",
            },
        ),
        (
            "tcp-crowd",
            "p99_ms",
            {
                "easynetwork-asyncio-loop": "gets its response within {:.0f} ms (99th percentile)",
                "asyncio-streams": "asyncio streams take {:,.0f} ms",
            },
        ),
    ],
)
@pytest.mark.parametrize("page", [README, FIRST_PAGE], ids=["README", "first page"])
def test_figures(page: str, scenario: str, key: str, figures: dict[str, str]) -> None:
    """The reasons to use easynetwork are the figures that the performance page shows.

    "Fast under load. With 16 requests in flight on each of 50 connections, a request to a handler
    with a loop costs 1.7 µs of processor time on asyncio, where asyncio streams take 6.6 µs and an
    asyncio.Protocol written by hand takes 5.1 µs."

    "Safe by default. A client that sends 64 MiB and never reads the responses makes the server grow
    by 0.12 MiB; a handwritten asyncio.Protocol grows by 57 MiB."

    "Small. An idle TLS connection takes 24 KiB, where asyncio streams take 283 KiB."

    "Fair. Beside 400 clients that send as fast as they are answered, a quiet client gets its
    response within 6 ms (99th percentile), where asyncio streams take 2,019 ms."
    """
    text = " ".join(re.sub(r":\w+:`(?:[^`<]*<)?([^`>]*)>?`", r"\1", page).replace("`", "").split())
    for contender, sentence in figures.items():
        assert sentence.format(median(scenario, contender, key)) in text


def test_same_reasons() -> None:
    """The README and the first page give the same reasons.

    "Whatever one client sends, the server and the other clients go on."
    """
    in_readme, on_first_page = (
        [
            words_of(reason)
            for reason in re.findall(r"^\* (\*\*.*\n(?:  .*\n)*)", page, re.MULTILINE)
        ]
        for page in (README, FIRST_PAGE)
    )
    assert [reason[0] for reason in on_first_page] == ["fast", "safe", "small", "fair"]
    assert all(reason in in_readme for reason in on_first_page)


def test_conditions_of_the_figures() -> None:
    """They are what the sentences before the figures say.

    "With 16 requests in flight on each of 50 connections, a request to a handler with a loop"

    "A client that sends 64 MiB and never reads the responses"

    "Beside 400 clients that send as fast as they are answered, a quiet client gets its response"

    "The figures are medians on Python 3.13, from the performance page, which also says where others
    are faster, and how to measure it yourself."

    "The figures are medians on Python 3.13. The page on performance has all of them, and also says
    where others are faster."
    """
    titles = {table["scenario"]: table["title"] for table in FIGURES["tables"]}
    assert "50 connections, 64 B, 16 in flight" in titles["tcp-50x64x16"]
    assert "while 400 connections send as fast as they are answered" in titles["tcp-crowd"]
    assert FIGURES["settings"]["never_reader_bytes"] == 64 << 20
    assert FIGURES["machine"]["python"].startswith("3.13.")
    page = (DOCS / "performance.rst").read_text(encoding="utf-8")
    assert "_include/performance/python-3.13.rst" in page
    assert "Run the benchmarks yourself" in page
    tables = (DOCS / "_include/performance/python-3.13.rst").read_text(encoding="utf-8")
    assert "Contenders that need less than ``easynetwork-asyncio-loop``" in tables


def test_much_alike() -> None:
    """With one request in flight, neither side needs a fifth less than the other.

    "With one request in flight at a time, the costs are much alike."
    """
    ours = median("tcp-50x64x1", "easynetwork-asyncio-loop", "cpu_us")
    assert 0.8 < ours / median("tcp-50x64x1", "asyncio-streams", "cpu_us") < 1.25
