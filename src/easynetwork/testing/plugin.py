"""A pytest plugin: networks in memory, virtual time, and a check that tests leave nothing behind.

Ask for it in the `conftest.py` beside pytest's configuration file; it is not active by itself::

    pytest_plugins = ["easynetwork.testing.plugin"]

* The fixture `memory_network`: a `MemoryNetwork`, whose seed is 0 or that of `--easynetwork-seed`.
  Its faults are the arguments of a marker, for example `@pytest.mark.memory_network(chunks=1)`. If
  the test fails, the report says how the network was made.
* `@pytest.mark.virtual_time`: a coroutine test runs in virtual time, see
  `easynetwork.testing.virtual_time()`, on the backend that the fixture `anyio_backend` gives. It
  works for tests of pytest-asyncio as well, from 1.4 on.
* `--easynetwork-leaks`, or `easynetwork_leaks = true` in pytest's configuration file: a test fails
  that leaves tasks, threads or file descriptors behind. Idle threads of anyio, asyncio and trio,
  which these keep, are not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, Final, NoReturn, TypeAlias

import anyio
import pytest
from anyio.lowlevel import current_token

from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._virtual_time import VirtualLoop, virtual_time

__all__: list[str] = []

CoroutineTest: TypeAlias = Callable[..., Awaitable[object]]

_NOT_VIRTUAL: Final = (
    "The marker virtual_time has no effect here. It needs anyio's plugin, or pytest-asyncio 1.4 or "
    "later, and an event loop of asyncio or trio that is made for this test: no uvloop, no clock "
    "or loop_factory in anyio_backend, and no fixture of a wider scope that has started one"
)

_GRACE: Final = 2.0
"""Seconds for tasks that were cancelled, and for threads whose work is done, to end."""

_KEPT: Final = ("AnyIO worker thread", "Trio thread", "asyncio_", "pytest_timeout")
"""The names of threads that are kept for the next function to run, and of a time limit."""

_OURS: Final = (
    *("StreamService._serve", "StreamSession.", "TaskReuse._work", "TrioSessionTasks._run"),
    "easynetwork.testing._memory.sockets.call_at.",
)
"""In the descriptions of tasks that serve the clients of a server, which has a task of its own, or
that deliver what is on its way in a network in memory (on trio)."""

_DESCRIPTORS: Final = next(filter(os.path.isdir, ("/proc/self/fd", "/dev/fd")), None)
"""Where the system lists this process's open file descriptors, if it does."""


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "fail tests that leave tasks, threads or file descriptors behind"
    parser.addini("easynetwork_leaks", text, "bool", False)
    group = parser.getgroup("easynetwork")
    group.addoption("--easynetwork-leaks", action="store_true", help=text)
    text = "the number by which a memory_network decides about its faults"
    group.addoption("--easynetwork-seed", type=int, default=0, help=text)


def pytest_configure(config: pytest.Config) -> None:
    virtual_time = "virtual_time: run a coroutine test on a clock that jumps when every task waits"
    memory_network = "memory_network(**faults): the faults of the fixture memory_network"
    for marker in virtual_time, memory_network:
        config.addinivalue_line("markers", marker)


@pytest.fixture
def memory_network(request: pytest.FixtureRequest) -> MemoryNetwork:
    """Return a network in memory, with the faults of the marker of the same name."""
    marker = request.node.get_closest_marker("memory_network")
    faults = {} if marker is None else marker.kwargs
    network = MemoryNetwork(seed=request.config.getoption("easynetwork_seed"), **faults)
    request.node.add_report_section("setup", "memory network", f"{network!r}")
    return network


# -- virtual time


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have a coroutine test check where it runs, and what it leaves behind."""
    if not isinstance(item, pytest.Function):
        return
    is_virtual, callspec = _is_marked(item), getattr(item, "callspec", None)
    if is_virtual and callspec is not None and "anyio_backend" in callspec.params:
        # Not only in `pytest_fixture_setup()`: tests without the marker may share the fixture.
        callspec.params["anyio_backend"] = _virtual(callspec.params["anyio_backend"])
    if inspect.iscoroutinefunction(item.obj):
        if is_virtual or _looks_for_leaks(item.config):
            item.obj = _checked(item.obj, is_virtual, _looks_for_leaks(item.config))
    elif is_virtual and not hasattr(item.obj, "hypothesis"):
        pytest.fail("The marker virtual_time is for coroutine tests", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Change what anyio's fixture says for marked tests, or modules."""
    backend = yield
    if fixturedef.argname == "anyio_backend" and _is_marked(request.node):
        assert fixturedef.cached_result is not None
        backend = _virtual(backend)
        fixturedef.cached_result = (backend, *fixturedef.cached_result[1:])
    return backend


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Give pytest-asyncio the event loop of a marked test.

    Only then, as it parametrizes all its tests as soon as a plugin has this hook.
    """
    if not _is_marked(metafunc.definition):
        return (yield)
    loops, plugins = _Loops(), metafunc.config.pluginmanager
    plugins.register(loops)
    try:
        return (yield)
    finally:
        plugins.unregister(loops)


class _Loops:
    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        return {"virtual_time": VirtualLoop}


def _is_marked(node: Any) -> bool:
    return node.get_closest_marker("virtual_time") is not None


def _virtual(backend: Any) -> Any:
    """Return what `anyio_backend` is in virtual time, if that is possible."""
    match backend:
        case "asyncio" | "trio":
            return backend, virtual_time(backend)
        case (("asyncio" | "trio" as name), dict(options)):
            if not any(map(options.get, ("clock", "loop_factory", "use_uvloop"))):
                return name, {**options, **virtual_time(name)}
    return backend


def _is_time_virtual() -> bool:
    loop = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        return isinstance(loop, VirtualLoop)
    from easynetwork.testing._virtual_trio import is_time_virtual  # optional dependency

    return is_time_virtual()


# -- what tests leave behind


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have uvloop make the pipe that its first event loop makes and keeps."""
    if _looks_for_leaks(session.config):
        with contextlib.suppress(ImportError):
            import uvloop  # optional dependency

            uvloop.new_event_loop().close()


_has_failed: Final = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    item.stash[_has_failed] = call.excinfo is not None
    return (yield)


@pytest.fixture(autouse=True)
def _easynetwork_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads or descriptors behind, if that was asked for."""
    if not _looks_for_leaks(request.config):
        yield
        return
    before = _threads_and_descriptors()
    yield
    if request.node.stash.get(_has_failed, False):
        return  # the traceback keeps what the test has used
    deadline = time.monotonic() + _GRACE
    while left := _threads_and_descriptors() - before:
        if time.monotonic() > deadline:
            _fail(map(_description, left))
        gc.collect()
        time.sleep(0.01)


def _looks_for_leaks(config: pytest.Config) -> bool:
    return bool(config.getini("easynetwork_leaks") or config.getoption("easynetwork_leaks", False))


def _checked(test: CoroutineTest, is_virtual: bool, looks_for_leaks: bool) -> CoroutineTest:
    @functools.wraps(test)
    async def checked(**arguments: object) -> None:
        if is_virtual and not _is_time_virtual():
            pytest.fail(_NOT_VIRTUAL, pytrace=False)
        before = _tasks()
        await test(**arguments)
        deadline = anyio.current_time() + _GRACE
        while looks_for_leaks and (left := _tasks() - before):
            if anyio.current_time() > deadline:
                _fail(left)
            await anyio.sleep(0.01)

    return checked


def _fail(left: Iterable[str]) -> NoReturn:
    pytest.fail("\n  ".join(["The test has left behind:", *sorted(left)]), pytrace=False)


def _tasks() -> set[str]:
    tasks = {f"task {task.name!r}: {task.coro}" for task in anyio.get_running_tasks()}
    return {task for task in tasks if not any(ours in task for ours in _OURS)}


def _threads_and_descriptors() -> set[Any]:
    threads = threading.enumerate()
    found: set[Any] = {thread for thread in threads if not thread.name.startswith(_KEPT)}
    for number in () if _DESCRIPTORS is None else map(int, os.listdir(_DESCRIPTORS)):
        with contextlib.suppress(OSError):  # the descriptor that lists the folder is gone by now
            status = os.fstat(number)
            found.add((number, status.st_dev, status.st_ino))
    return found


def _description(left: Any) -> str:
    if isinstance(left, threading.Thread):
        return f"thread {left.name!r}"
    number, *_ = left
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as sock:
        return f"descriptor {number}: a socket, {sock.getsockname()}"
    with contextlib.suppress(OSError):
        return f"descriptor {number}: {os.readlink(f'{_DESCRIPTORS}/{number}')}"
    return f"descriptor {number}"
