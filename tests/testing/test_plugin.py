"""The pytest plugin, in processes of pytest: the marker beside other plugins, and what leaks."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.in_turn

IMPORTS = """
import asyncio, os, socket, threading, time
import anyio, anyio.to_thread, pytest, pytest_asyncio
kept = []

async def wait():
    start, real = anyio.current_time(), time.monotonic()
    await anyio.sleep(300)
    assert anyio.current_time() - start == 300
    assert time.monotonic() - real < 100
"""

CONFTEST = """
pytest_plugins = ["easynetwork.testing.plugin"]

def pytest_configure():
    import easynetwork.testing.plugin
    easynetwork.testing.plugin._GRACE = 0.2
"""

# Added to that: how long an event loop waits until nothing can happen any more.
IMPATIENT = """
    from easynetwork.testing import _virtual_time, _virtual_trio
    _virtual_time.GRACE = _virtual_trio.GRACE = 0.1
"""

MARKED = """
@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_scope_of_a_module():  # anyio's own fixture, for both backends
    await wait()

@pytest.mark.anyio
async def test_real_between():
    assert anyio.current_time() > 1

class TestNoParameters:
    @pytest.fixture
    def anyio_backend(self):
        return "trio"

    @pytest.fixture
    async def begin(self, anyio_backend):
        await wait()
        yield anyio.current_time()
        await wait()

    @pytest.mark.anyio
    @pytest.mark.virtual_time
    async def test_fixture(self, begin):
        assert begin == 300
        await wait()
        await anyio.to_thread.run_sync(time.monotonic)

@pytest.mark.anyio
@pytest.mark.virtual_time
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_options(anyio_backend):
    assert asyncio.get_running_loop().get_debug()
    await wait()
"""

ASYNCIO = """
@pytest_asyncio.fixture
async def begin():
    yield anyio.current_time()

@pytest.mark.virtual_time
{marker}
async def test_asyncio(begin):
    assert begin == 0
    await wait()
    await asyncio.to_thread(time.monotonic)

{marker}
async def test_asyncio_real(request):
    assert not hasattr(request.node, "callspec")
    assert anyio.current_time() > 1
"""

REFUSED = """
@pytest.mark.anyio
@pytest.mark.virtual_time
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_uvloop():
    pass

@pytest.mark.anyio
@pytest.mark.virtual_time
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": asyncio.new_event_loop})])
async def test_loop_factory():
    pass

@pytest.mark.virtual_time
def test_no_coroutine():
    pass

class TestWider:
    @pytest.fixture(scope="class")
    async def started(self):
        yield

    @pytest.mark.anyio
    @pytest.mark.usefixtures("started")
    async def test_real(self):
        pass

    @pytest.mark.anyio
    @pytest.mark.virtual_time
    @pytest.mark.usefixtures("started")
    async def test_wider(self):
        pass
"""

STUCK = """
pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture(scope="module")
async def shared():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        yield
        tasks.cancel_scope.cancel()

@pytest.mark.parametrize("is_task", [True, False])
async def test_stuck(shared, is_task, anyio_backend_name):
    wait = anyio.Event().wait()
    await (asyncio.create_task(wait) if is_task and anyio_backend_name == "asyncio" else wait)

async def test_next(shared):
    await wait()
"""

# Bodies of tests that leave something behind, and how it is named.
LEAKS = {
    "kept.append(asyncio.create_task(asyncio.sleep(60), name='forgotten'))": "task 'forgotten': .*",
    "threading.Thread(target=time.sleep, args=(1,), name='busy').start()": "thread 'busy'",
    "kept.append(socket.create_server(('127.0.0.1', 0)))": (
        r"descriptor \d+: a socket, \('127.0.0.1', \d+\)"
    ),
    "kept.append(open(__file__))": r"descriptor \d+: .*test_it.py",
}

TIDY = """
@pytest.mark.anyio
async def test_anyio_tidy():
    with socket.create_server(("127.0.0.1", 0)):
        await anyio.to_thread.run_sync(time.monotonic)

@pytest.mark.asyncio
async def test_asyncio_tidy():
    await asyncio.to_thread(time.monotonic)
    asyncio.create_task(asyncio.sleep(0.01))

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": UVLOOP})])
async def test_uvloop_tidy():
    pass

@pytest.mark.xfail
def test_failure_only():
    sock = socket.socket()
    assert not sock
"""


class Pytest:
    """Runs pytest in a folder of its own, where the plugin is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conftest.py").write_text(CONFTEST)
        self.configure("asyncio_default_fixture_loop_scope = function")

    def configure(self, *lines: str) -> None:
        (self.folder / "pytest.ini").write_text("\n".join(["[pytest]", *lines]))

    def run(self, source: str, *options: str) -> str:
        (self.folder / "test_it.py").write_text(IMPORTS + source)
        strict = ["--strict-markers", "--strict-config", "-Werror", "-pno:cacheprovider", "-rA"]
        command = [sys.executable, "-m", "pytest", *strict, *options]
        run = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "500"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return run.stdout + run.stderr


@pytest.fixture
def run(tmp_path: Path) -> Pytest:
    return Pytest(tmp_path)


def outcomes(output: str) -> dict[str, int]:
    """Return how many tests had which outcome, as the last line says."""
    return {name: int(n) for n, name in re.findall(r"(\d+) (\w+)", output.splitlines()[-1])}


@pytest.mark.in_turn
@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["here", "xdist"])
def test_marker(run: Pytest, options: list[str]) -> None:
    """Marked tests of both plugins run in virtual time, and others do not."""
    source = MARKED + ASYNCIO.format(marker="@pytest.mark.asyncio")
    output = run.run(source, "--asyncio-mode=strict", "--easynetwork-leaks", *options)
    assert outcomes(output) == {"passed": 8}, output


def test_auto_mode(run: Pytest) -> None:
    """In its auto mode, pytest-asyncio runs all coroutine tests; the marker works as well."""
    output = run.run(ASYNCIO.format(marker=""), "--asyncio-mode=auto", "--easynetwork-leaks")
    assert outcomes(output) == {"passed": 2}, output


def test_marker_is_listed(run: Pytest) -> None:
    assert "@pytest.mark.virtual_time: run a coroutine test" in run.run("", "--markers")


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
def test_refused(run: Pytest) -> None:
    """Where there can be no virtual time, the marked test fails and says why."""
    output = run.run(REFUSED, "-k", "not trio")
    for name in ("test_uvloop", "test_loop_factory", "test_wider"):
        assert re.search(
            rf"^FAILED .*::{name}\S* - .*virtual_time has no effect here", output, re.M
        )
    assert re.search(r"^ERROR .*::test_no_coroutine - .*virtual_time is for cor", output, re.M)
    assert outcomes(output) == {"failed": 3, "passed": 1, "deselected": 2, "error": 1}, output


def test_stuck(run: Pytest) -> None:
    """A test that waits for ever fails, and nothing else: the next one and the fixtures go on."""
    conftest = run.folder / "conftest.py"
    conftest.write_text(CONFTEST + IMPATIENT)
    output = run.run(STUCK)
    assert len(re.findall(r"^FAILED .*::test_stuck\S* - .*Nothing can happen", output, re.M)) == 4
    assert outcomes(output) == {"failed": 4, "passed": 2}, output


def test_older_pytest_asyncio(run: Pytest) -> None:
    """A pytest-asyncio that knows no event loop but its own is told from one that does."""
    conftest = run.folder / "conftest.py"
    hook = "    del easynetwork.testing.plugin._Loops.pytest_asyncio_loop_factories\n"
    conftest.write_text(CONFTEST + hook)
    output = run.run(ASYNCIO.format(marker="@pytest.mark.asyncio"))
    assert re.search(r"^FAILED .*::test_asyncio - .*pytest-asyncio 1.4 or later", output, re.M)
    assert outcomes(output) == {"failed": 1, "passed": 1}, output


def test_without_other_plugins(run: Pytest) -> None:
    """Without a plugin that runs coroutines, pytest says so itself."""
    source = "@pytest.mark.virtual_time\nasync def test_it(): pass"
    run.configure()
    output = run.run(source, "-pno:asyncio", "-pno:anyio", "-pno:xdist")
    assert "async def functions are not natively supported" in output


@pytest.mark.in_turn
@pytest.mark.parametrize("configured", [True, False], ids=["file", "option"])
def test_leaks(run: Pytest, configured: bool) -> None:
    """A test that leaves something behind fails, and the message names it."""
    run.configure(
        "asyncio_default_fixture_loop_scope = function", f"easynetwork_leaks = {configured}"
    )
    tests = [
        f"@pytest.mark.asyncio\nasync def test_leak_{number}():\n    {body}\n"
        for number, body in enumerate(LEAKS)
    ]
    tidy = TIDY.replace("UVLOOP", str(importlib.util.find_spec("uvloop") is not None))
    output = run.run("\n".join([*tests, tidy]), *([] if configured else ["--easynetwork-leaks"]))
    for leak in LEAKS.values():
        assert re.search(rf"^The test has left behind:\n  {leak}$", output, re.M), output
    # A task fails the test itself, the others when all that the test used has been closed.
    expected = {"failed": 1, "passed": 7, "xfailed": 1, "errors": 3}
    assert outcomes(output) == expected, output


def test_on_the_way(run: Pytest) -> None:
    """What is still on its way in a network in memory is not left behind by the test."""
    source = """
from easynetwork.testing import MemoryNetwork

@pytest.mark.anyio
@pytest.mark.virtual_time
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_it(anyio_backend):
    network = MemoryNetwork(latency=60)
    sock = network.bind(local_address=("192.0.2.1", 1))
    sock.sendto(b"hello", ("192.0.2.1", 1))
    sock.close()
"""
    assert outcomes(run.run(source, "--easynetwork-leaks")) == {"passed": 2}


def test_no_leak_check(run: Pytest) -> None:
    """Nobody looks for leaks unasked."""
    source = "def test_it(): kept.append(socket.create_server(('127.0.0.1', 0)))"
    assert outcomes(run.run(source, "-Wdefault")) == {"passed": 1}


def test_memory_network(run: Pytest) -> None:
    """The fixture makes a network; a failure's report says which."""
    source = """
@pytest.mark.memory_network(chunks=3)
def test_marked(memory_network):
    assert repr(memory_network) == "MemoryNetwork(seed=7, chunks=3)"

@pytest.mark.memory_network(loss=0.5)
def test_failing(memory_network):
    assert False
"""
    output = run.run(source, "--easynetwork-seed=7")
    assert outcomes(output) == {"failed": 1, "passed": 1}, output
    assert "Captured memory network setup" in output
    assert "MemoryNetwork(seed=7, loss=0.5)" in output


def test_sessions_are_no_leaks(run: Pytest) -> None:
    """Sessions belong to their server, which may be a fixture's and be there after the test."""
    source = """
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.testing import serve

class Echo(AsyncStreamRequestHandler, AsyncDatagramRequestHandler):
    async def handle(self, client):
        while True:
            await client.send_packet((yield))

@pytest.fixture(params=[StreamProtocol, DatagramProtocol])
async def served(anyio_backend, request):
    async with serve(Echo(), request.param(StringLineSerializer())) as served:
        yield served

@pytest.mark.anyio
async def test_it(served):
    client = await served.connect()
    await client.send_packet("hello")
    assert await client.recv_packet() == "hello"
"""
    output = run.run(source, "--easynetwork-leaks")
    assert outcomes(output) == {"passed": 4}, output
