"""Test the statements and the examples of the page about tests.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The examples run under pytest, in
their own folder, as a reader runs them.

What the page says of the network in memory itself is in `test_howto_testing_network`.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.testing import MemoryNetwork, converse, plugin, serve, virtual_time
from easynetwork.testing._conversation import Conversation
from tests.conftest import HAS_TRIO, HAS_UVLOOP
from tests.docs.howto_support import DOCS, check_quotations
from tests.testing import test_planted_bugs as planted
from tests.testing.test_conversation import LINES, Shouter
from tests.times import PATIENCE

FOLDER = DOCS / "_include/examples/howto/testing"
PAGE = (DOCS / "howto/testing.rst").read_text(encoding="utf-8")


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/testing.rst", globals())


# The examples


@functools.cache
def pytest_run(*arguments: str, folder: Path = FOLDER) -> str:
    """Run pytest as a reader does; return what it prints."""
    plugins = ["-pno:cacheprovider", *([] if "-n2" in arguments else ["-pno:xdist"])]
    # Bytecode goes to the folder of this run, if it has one, but not beside the examples.
    writes = {} if "PYTHONPYCACHEPREFIX" in os.environ else {"PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-Wdefault", *plugins, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "500", **writes},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=5 * PATIENCE,  # it imports and runs a lot
        check=False,
    )
    return run.stdout


def failures(*arguments: str) -> str:
    return pytest_run("--easynetwork-leaks", "--tb=short", "failing_tests.py", *arguments)


def shown(output: str) -> str:
    """Return lines without what differs from run to run, and without their indentation."""
    output = output.replace(f"{FOLDER}{os.sep}", "")
    output = re.sub(r"Task-\d+", "Task-N", re.sub(r"\(failing_tests.py:\d+\)", "(LINE)", output))
    return "\n".join(line.strip() for line in output.splitlines())


def blocks() -> list[str]:
    """Return the messages that the page shows."""
    found = re.findall(r"^\.\. code-block:: none\n\n((?:   .*\n|\n)+)", PAGE, re.MULTILINE)
    return [block.strip() for block in found]


@pytest.mark.in_turn
@pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed")
@pytest.mark.parametrize("options", [(), ("-n2",), ("-pno:asyncio",)], ids=str)
def test_examples(options: tuple[str, ...]) -> None:
    """All tests of the page pass, on both frameworks, also beside the other plugins.

    "It runs each test that is marked with pytest.mark.anyio twice: on asyncio and on trio."

    "It works together with anyio's plugin, pytest-asyncio and pytest-xdist."
    """
    output = pytest_run(*options)
    assert re.search(r"^=* ?100 passed in", output, re.MULTILINE), output


@pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")
@pytest.mark.parametrize("number", range(5))
def test_messages(number: int) -> None:
    """The messages of failures are as the page shows them.

    "The message of a failure shows the conversation, what the server logged as a warning or an
    error, and the network"

    "Real sockets, pipes and processes are refused, because the clock would jump before they are
    ready"

    "uvloop has a clock of its own, so it is refused, too. A marked test that would run on uvloop
    fails"

    "In virtual time it fails after half a second, and the message says where the tasks wait."

    "This test starts a thread and forgets to stop it"
    """
    assert len(blocks()) == 5
    message = shown(blocks()[number])
    output = shown(re.sub(r"_+ (ERROR at teardown.*) _+", r"\1", failures()))
    assert message in output, output


def test_place_of_the_message() -> None:
    """The line of the message is the one that waits.

    "The message has the full path of the file."

    "count() waits for a response, and the task of the server called client waits for the next
    request."

    "This server counts lines until the end of the stream, but the client forgets to end it"

    "If all tasks wait and there is no timer, a test in real time would wait forever."
    """
    [number] = re.findall(r"in count \(failing_tests.py:(\d+)\)", PAGE)
    line = (FOLDER / "failing_tests.py").read_text().splitlines()[int(number) - 1]
    assert "recv_packet()" in line
    message = failures().partition("every task waits, and there is no timer")[2]
    assert f"in count ({FOLDER / 'failing_tests.py'}:{number})" in message
    assert "client ('198.51.100.1', " in message


def test_seed_of_the_fixture() -> None:
    """The report of a failed test shows the network of the fixture, and its seed.

    "A fixture: a new MemoryNetwork. The report of a failed test shows it."

    "An option: the seed of this fixture; 0 by default."
    """
    for options, seed in ((), 0), (("--easynetwork-seed=7", "-k", "network_of_the"), 7):
        output = failures(*options)
        assert f"memory network setup -\nMemoryNetwork(seed={seed}" in re.sub("-+", "-", output)


def test_not_loaded(tmp_path: Path) -> None:
    """Without the line in conftest.py, there are neither markers nor options.

    "The plugin is loaded only if you ask for it, in the conftest.py beside the configuration file
    of pytest"

    "The file conftest.py in the top folder of your tests loads the plugin of easynetwork"
    """
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    for option in "--easynetwork-leaks", "--markers":
        assert "easynetwork: " not in pytest_run(option, folder=tmp_path)
    assert "unrecognized arguments" in pytest_run("--easynetwork-leaks", folder=tmp_path)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["easynetwork.testing.plugin"]\n')
    pytest_run.cache_clear()
    assert "1 passed" in pytest_run("--easynetwork-leaks", folder=tmp_path)
    markers = pytest_run("--markers", folder=tmp_path)
    assert "@pytest.mark.virtual_time" in markers
    assert "@pytest.mark.memory_network(**faults)" in markers


class Registry:
    """Stands for pytest: takes note of what a plugin adds."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def addini(self, name: str, *_: object) -> None:
        self.names.add(name)

    def addoption(self, name: str, **_: object) -> None:
        self.names.add(name)

    def getgroup(self, _: str) -> Registry:
        return self

    def addinivalue_line(self, name: str, line: str) -> None:
        assert name == "markers"
        self.names.add("@pytest.mark." + re.split(r"[(:]", line)[0])


def test_table_of_the_plugin() -> None:
    """The table lists the options, the markers and the fixture.

    "This is what it contains"
    """
    registry: Any = Registry()
    plugin.pytest_addoption(registry)
    plugin.pytest_configure(registry)
    fixture = type(plugin.memory_network)
    fixtures = {name for name, value in vars(plugin).items() if type(value) is fixture}
    names = registry.names | {name for name in fixtures if name[0] != "_"}
    table = PAGE[PAGE.index("This is what it contains:") :]
    assert len(names) == 6
    assert all(f"``{name}" in table for name in names)
    assert table.count("   * - ``") == 5  # the setting is in the row of its option


# Conversations


def test_methods_of_a_conversation() -> None:
    """The table lists all of them.

    "The methods of a conversation are"
    """
    listed = set(re.findall(r"^   \* - ``(\w+)\(.*?\)``$", PAGE, re.MULTILINE))
    public = {name for name in vars(Conversation) if name[0] != "_"} - {"check_log"}
    assert listed == public


@pytest.mark.anyio
async def test_unexpected_crash() -> None:
    """A crash fails the test at the end, and the log is in the message.

    "If the handler raises an exception that you do not expect, the test fails at the end of the
    block."
    """
    with pytest.raises(AssertionError, match="ERROR Exception occurred .*a bug"):
        async with converse(Shouter(), LINES) as conversation:
            await conversation.send("crash")
            await anyio.wait_all_tasks_blocked()


def test_patience() -> None:
    """Waiting is limited.

    "A method that waits fails after one second, unless you pass another timeout."
    """

    async def main() -> None:
        for options, seconds in ({}, 1), ({"timeout": 60}, 60):  # type: tuple[Any, float]
            start = anyio.current_time()
            with pytest.raises(AssertionError, match=f"nothing came within {seconds}"):
                async with converse(Shouter(), LINES) as conversation:
                    await conversation.send("hush")
                    await conversation.expect("HUSH", **options)
            assert anyio.current_time() - start == pytest.approx(seconds, abs=0.1)

    anyio.run(main, backend_options=virtual_time())


@pytest.mark.anyio
async def test_duration() -> None:
    """A test of a handler is over soon.

    "So a test takes a few milliseconds"
    """
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        async with converse(Shouter(), LINES) as conversation:
            await conversation.send("one")
            await conversation.expect("ONE")
        best = min(best, time.perf_counter() - start)
    assert best < 0.01


# Virtual time


def test_virtual_time_without_the_plugin() -> None:
    """The program of the page runs, and takes no time.

    "Without the plugin, virtual_time() returns the options of the event loop"
    """
    source = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", PAGE)[0]
    start = time.perf_counter()
    exec(re.sub(r"^   ", "", source, flags=re.MULTILINE), {})
    assert time.perf_counter() - start < 10


def test_threads() -> None:
    """The clock waits for worker threads.

    "While a worker thread runs (of anyio.to_thread.run_sync() or asyncio.to_thread(), or of a
    blocking handler), the clock stands still, because the loop cannot know how long the thread
    takes."
    """

    async def main() -> None:
        with anyio.fail_after(0.001):
            await anyio.to_thread.run_sync(time.sleep, 0.05)

    anyio.run(main, backend_options=virtual_time())


# What such tests find


@planted.each_backend
def test_planted_bugs(backend: str) -> None:
    """The three bugs are found: `test_planted_bugs` checks the messages as well.

    "A client forgets to half-close the connection. Virtual time finds it as soon as all tasks wait"

    "A serializer loses the second part of a packet. It works as long as packets arrive complete,
    and fails with chunks=1."

    "A client function has a timeout, and uses the same connection again after it. Then the late
    response to the first request is returned as the response to the second request."

    "A network with latency=(0.0, 10.0) and a timeout of 12 seconds for a request and its response
    show it."

    "To repair the function, number the requests, or close the client after a timeout"
    """
    planted.test_forgotten_half_close(backend)
    planted.test_lost_second_half(backend, 1)
    assert planted.PATIENCE == 12
    planted.test_response_to_an_earlier_request(backend)


@pytest.mark.anyio
async def test_note() -> None:
    """The network and the seed are in what a failure shows.

    "A failure shows the seed: in the message of a conversation, and in a note of any exception that
    leaves the block of serve()."
    """
    network = MemoryNetwork(seed=41)
    for context in (
        converse(Shouter(), LINES, network=network),
        serve(Shouter(), LINES, network=network),
    ):
        with pytest.raises(AssertionError) as caught:
            async with context as opened:
                if isinstance(opened, Conversation):
                    await opened.send("one")
                    await opened.expect("two")
                raise AssertionError("no")
        text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
        assert text.count("MemoryNetwork(seed=41)") == 1
