"""What holds for every test: the backends it runs on, and that it leaves nothing behind.

A coroutine test marked ``pytest.mark.anyio`` runs on each of `BACKENDS`. After any test, no file
descriptor, thread or task that it started may be left, and nothing that it forgot to close or to
await: garbage is collected so that such objects speak up, and warnings are errors.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import functools
import gc
import importlib.util
import inspect
import os
import re
import signal
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import anyio
import hypothesis
import pytest

HAS_TRIO = importlib.util.find_spec("trio") is not None
HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None

# Whether to run all cases of all tests. Otherwise, of those that differ in nothing that should
# matter, each version of Python has its own.
ALL_TESTS = os.environ.get("CONFORMANCE") == "all"

# Whether a third of the cases of each test is enough.
FEW_TESTS = os.environ.get("CONFORMANCE") == "few"

# A slow machine is no reason to fail. Where all tests are asked for, so are more examples.
EXAMPLES = 100 if ALL_TESTS else 20
hypothesis.settings.register_profile("easynetwork", deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("easynetwork")

_T = TypeVar("_T")

# Seconds. Less than the limit in pyproject.toml, at which the whole run ends.
TIME_LIMIT = 30.0

# Seconds from the last test to the end of the process, and from a failure to the end of its test.
EXIT_LIMIT = 60.0

# Seconds for what ends by itself to end: threads whose work is done, tasks that were cancelled.
GRACE = 5.0

# Threads that are made once and then kept for whoever comes next: those of trio.to_thread.
KEPT_THREADS = ("Trio thread",)

# In the identifiers of tests: loops, those on which each test runs once, and other variants.
LOOP = re.compile(r"asyncio-eager|eager|uvloop|trio|asyncio")
ONCE = ("asyncio-eager", "eager", "uvloop")
VARIANT = re.compile(r"\b(buffer|ipv6|memory|tls|unix)\b")

# Where the system lists this process's open file descriptors, if it does.
DESCRIPTORS = next(filter(os.path.isdir, ("/proc/self/fd", "/dev/fd")), None)


def eager_loop() -> asyncio.AbstractEventLoop:
    """Return an asyncio loop whose tasks begin to run when they are created."""
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def backend_params() -> Iterator[object]:
    """Yield what the fixture `anyio_backend` ranges over on this interpreter."""
    yield pytest.param(("asyncio", {}), id="asyncio")
    if sys.version_info >= (3, 12):
        yield pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio-eager")
    yield pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed"),
    )
    yield pytest.param(
        ("trio", {}),
        id="trio",
        marks=pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed"),
    )


BACKENDS = tuple(backend_params())


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Return the backend a coroutine test runs on: its name, and the options of its runner."""
    return request.param


def pytest_configure() -> None:
    """Let programs that tests start be interrupted, even if this run is in the background.

    A shell starts background jobs with SIGINT ignored, and their children inherit that (signal(7)).
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Cancel a coroutine test of anyio's that waits for ever, so that the run can go on."""
    test = pyfuncitem.obj
    if "anyio_backend" in pyfuncitem.funcargs and inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def cancelled_in_time(**arguments: object) -> None:
            with anyio.fail_after(TIME_LIMIT):
                await test(**arguments)

        pyfuncitem.obj = cancelled_in_time


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the tests whose turn it is on this version of Python, or all that somebody has named."""
    is_named = config.getoption("lf", False) or any("::" in name for name in config.args)
    if ALL_TESTS or is_named:
        return
    groups: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        groups.setdefault((item.nodeid.partition("[")[0], kind_of(item)), []).append(item)
    chosen: set[pytest.Item] = set()
    for (function, kind), cases in groups.items():
        chosen.update(cases_in_turn(function, kind, cases))
    items[:] = [item for item in items if item in chosen]


def kind_of(item: pytest.Item) -> str:
    """Return how the versions of Python share the cases of a test: see `cases_in_turn()`."""
    _, _, parameters = item.nodeid.partition("[")
    found = LOOP.search(parameters)
    if item.get_closest_marker("cost"):
        return "all"  # what measures cost runs on one version only
    if FEW_TESTS:
        return "few"
    if found and found[0] in ONCE:
        return found[0]
    if item.get_closest_marker("in_turn") or (found and found[0] == "trio"):
        return "in turn"
    return "in turn" if found and VARIANT.search(parameters) else "usual"


def cases_in_turn(function: str, kind: str, cases: list[pytest.Item]) -> list[pytest.Item]:
    """Return those of some cases of a test that run on this version of Python.

    Args:
        function: The test.
        kind: Which of its cases these are. Of the usual ones, each version runs a third, and at
            least one. Others run on one version each. Of those on uvloop, and with eager tasks,
            there is one.
        cases: The cases.
    """
    minor = sys.version_info.minor
    third = cases[minor % 3 :: 3] or [cases[minor % len(cases)]]
    if kind in ONCE:
        # Python 3.11 has no eager tasks.
        is_turn = is_turn_of(function, 2, 3) if kind == "uvloop" else is_turn_of(function, 0, 2)
        return [cases[minor % len(cases)]] if is_turn else []
    if kind == "in turn":
        return [case for number, case in enumerate(cases) if is_turn_of(function, number, 3)]
    return cases if kind == "all" else third


def is_turn_of(function: str, number: int, versions: int) -> bool:
    """Whether case `number` of a test that runs on one of so many versions of Python runs here."""
    return (zlib.crc32(function.encode()) + number - sys.version_info.minor) % versions == 0


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Do what happens once per process, so that no test is blamed for it.

    libuv makes its pipe for signals with its first loop, and keeps it.
    """
    if HAS_UVLOOP:
        importlib.import_module("uvloop").new_event_loop().close()
    if sys.dont_write_bytecode:
        share_bytecode()
    collect_garbage()


def share_bytecode() -> None:
    """Let programs that tests start share their bytecode, in a folder that is gone afterwards.

    Where it must not be written beside the source, each would compile all that it imports.
    """
    folder = tempfile.TemporaryDirectory(prefix="easynetwork-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    os.environ["PYTHONPYCACHEPREFIX"] = folder.name
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_exception_interact() -> None:
    """See to it that a test that has failed ends: pytest-timeout leaves it alone from then on."""
    with contextlib.suppress(RuntimeError):  # as below
        faulthandler.dump_traceback_later(EXIT_LIMIT, exit=True)


def pytest_runtest_logfinish() -> None:
    """It has ended."""
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """See to it that the process ends: if a thread keeps it from exiting, show which and fail.

    A worker of pytest-xdist waits until the others have done their work. It is ended from outside.
    """
    if hasattr(config, "workerinput"):
        return
    # In WebAssembly no thread can start: none keeps the process from exiting, and none can watch.
    with contextlib.suppress(RuntimeError):
        faulthandler.dump_traceback_later(EXIT_LIMIT, exit=True)


@pytest.fixture
def unix_path() -> Iterator[str]:
    """Return a path for a Unix socket. Those of pytest's folders are too long (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="easynetwork-") as folder:
        yield f"{folder}/socket"


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a descriptor, a thread or something unclosed behind."""
    collect_garbage()
    before = descriptors(), threads()
    yield
    # No freeze yet: pytest still refers to the values of the test's fixtures.
    gc.collect()
    assert wait_until_empty(lambda: threads() - before[1]) == set(), "threads left"
    left = wait_until_empty(lambda: descriptors() - before[0])
    assert named(left) == set(), "descriptors left"


@pytest.fixture(autouse=True)
def no_leftover_tasks(request: pytest.FixtureRequest, no_leaks: None) -> None:
    """Fail a test of anyio's that leaves a task of its event loop running.

    After `no_leaks`, which therefore looks when the loop is closed.
    """
    if "anyio_backend" in request.fixturenames:
        request.getfixturevalue("tasks_end")


@pytest.fixture
async def tasks_end() -> AsyncIterator[None]:
    """Wait for the tasks of a test to end, fail if they do not."""
    before = tasks()
    yield
    with anyio.move_on_after(GRACE):
        while tasks() - before:
            await anyio.sleep(0.01)
    assert tasks() - before == set(), "tasks left"


def collect_garbage() -> None:
    """Collect what became garbage since the last time.

    What is left is what modules, reports and the like hold. It is not looked at again: a collection
    after each test would cost more than most tests. So this must not be called while anything holds
    a test's objects: they would never be collected, and each step of asyncio.all_tasks() walks over
    all tasks that there are.
    """
    gc.collect()
    gc.freeze()


def wait_until_empty(left: Callable[[], set[_T]]) -> set[_T]:
    """Return what is left, as soon as that is nothing or when the time is up."""
    deadline = time.monotonic() + GRACE
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def tasks() -> set[str]:
    """Return the names and the coroutines of the running tasks, but for those of anyio's runner."""
    running = (f"{task.name}: {task.coro!r}" for task in anyio.get_running_tasks())
    return {task for task in running if " TestRunner." not in task}


def threads() -> set[object]:
    """Return the threads that somebody has to end."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(KEPT_THREADS)}


def descriptors() -> set[tuple[int, ...]]:
    """Return the open file descriptors with the device and the inode of each."""
    if DESCRIPTORS is None:
        return set()
    found: set[tuple[int, ...]] = set()
    for number in map(int, os.listdir(DESCRIPTORS)):
        # The descriptor that lists the folder is gone by now.
        with contextlib.suppress(OSError):
            file = os.fstat(number)
            found.add((number, file.st_dev, file.st_ino))
    return found


def named(left: set[tuple[int, ...]]) -> set[object]:
    """Return open file descriptors with what the system calls each of them, if it does."""
    found: set[object] = set()
    for descriptor in left:
        try:
            found.add((descriptor[0], os.readlink(f"{DESCRIPTORS}/{descriptor[0]}")))
        except OSError:
            found.add(descriptor)
    return found
