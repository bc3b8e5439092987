"""What every test is checked for, on tests that are deliberately wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# These tidy up, on every backend.
RIGHT = """
import asyncio, socket, threading, time, warnings, weakref
import anyio.to_thread, pytest
kept = []

@pytest.mark.anyio
async def test_right_anyio():
    with socket.create_server(("127.0.0.1", 0)):
        await anyio.to_thread.run_sync(time.monotonic)

@pytest.mark.asyncio
async def test_right_asyncio():
    await asyncio.to_thread(time.monotonic)

class Node:
    pass

@pytest.fixture
def cycle():
    node = Node()
    node.itself = node
    kept.append(weakref.ref(node))
    return node

def test_right_cycle(cycle):
    assert kept[0]() is cycle

def test_right_cycle_is_collected():
    assert kept[0]() is None
"""

# These leave something behind, or warn; what pytest then says of them.
WRONG = {
    "descriptors left": "kept.append(socket.socket())",
    "threads left": "threading.Thread(target=time.sleep, args=(0.5,)).start()",
    "tasks left": "kept.append(asyncio.create_task(asyncio.sleep(60)))",
    "ResourceWarning: unclosed": "socket.socket()",
    "'sleep' was never awaited": "asyncio.sleep(1)",
    "ZeroDivisionError": "threading.Thread(target=lambda: 1 / 0).start()",
    "DeprecationWarning: old": "warnings.warn('old', DeprecationWarning)",
}

WRONG_TEST = """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_wrong_{}():
    {}
"""


def test_leaks_are_found(tmp_path: Path) -> None:
    """A test that tidies up passes; one that leaves something behind, or warns, does not."""
    conftest = (ROOT / "tests" / "conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(conftest.replace("GRACE = 5.0", "GRACE = 0.1"))
    wrong = (WRONG_TEST.format(number, body) for number, body in enumerate(WRONG.values()))
    (tmp_path / "test_it.py").write_text("".join([RIGHT, *wrong]))
    configuration = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    output = subprocess.run(
        [sys.executable, "-m", "pytest", *configuration, "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    ).stdout
    for number, complaint in enumerate(WRONG):
        assert re.search(rf"^(FAILED|ERROR) .*::test_wrong_{number}\b", output, re.M), output
        assert complaint in output
    assert not re.search(r"^(FAILED|ERROR) .*::test_right", output, re.M), output
