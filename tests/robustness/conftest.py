"""Proofs that no peer can make the server's process grow, stop serving others or fill its log.

Each runs a server in a process of its own (``served.py``), on every loop. The figures come from
Linux's ``/proc``; elsewhere there is nothing to prove.

Unix sockets and TLS differ for the transports, which know little of loops, and nothing of
protocols: they are tried on asyncio and trio, with one class of protocols, unless ``CONFORMANCE``
is ``all`` in the environment.

``ROBUSTNESS_SCALE=16`` in the environment makes it a gigabyte wherever less is sent by default.
"""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ALL_TESTS
from tests.tls_peers import authority

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]

# In the identifiers of tests: a transport beside what is only tried over TCP.
REPETITION = re.compile(
    r"\b(unix|tls)\b.*(\buvloop\b|--buffered)|(\buvloop\b|--buffered).*\b(unix|tls)\b"
)

# What ends clients that are too slow is the same for all loops, and takes its time.
LIMITS = Path(__file__).with_name("test_limits.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave repetitions out, unless all tests are asked for."""
    if not ALL_TESTS:
        items[:] = [item for item in items if not is_repetition(item)]


def is_repetition(item: pytest.Item) -> bool:
    """Whether a test of this folder differs from others in nothing that should matter."""
    _, _, parameters = item.name.partition("[")
    if item.path == LIMITS and not re.match(r"asyncio-(tcp|unix)", parameters):
        return True
    return bool(REPETITION.search(parameters)) and Path(__file__).parent in item.path.parents


@pytest.fixture(scope="session")
def scale() -> int:
    """How much more is sent than for a quick proof."""
    return int(os.environ.get("ROBUSTNESS_SCALE", "1"))


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop that the server runs on."""
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return str(request.param)


@pytest.fixture(scope="session")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments with which the server speaks TLS."""
    path = tmp_path_factory.mktemp("robustness") / "certificate.pem"
    certificate = authority().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    return ["--tls", str(path)]


@pytest.fixture
def over_unix() -> Iterator[list[str]]:
    """The arguments with which the server listens on a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="easynetwork-") as folder:
        yield ["--unix", f"{folder}/socket"]


@pytest.fixture(params=["tcp", "tls", "unix"])
def transport(
    request: pytest.FixtureRequest, over_tls: list[str], over_unix: list[str]
) -> list[str]:
    """The arguments for TCP, TLS over TCP, and Unix streams."""
    return {"tcp": [], "tls": over_tls, "unix": over_unix}[request.param]


@pytest.fixture(params=["tcp", "unix"])
def plain(request: pytest.FixtureRequest, over_unix: list[str]) -> list[str]:
    """The arguments for what is not encrypted."""
    return over_unix if request.param == "unix" else []


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process, and the server it starts, open as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
