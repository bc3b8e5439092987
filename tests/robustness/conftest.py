"""Proofs that no peer can make the server's process grow, stop serving others or fill its log.

Each runs a server in a process of its own (``served.py``), on every loop. The figures come from
Linux's ``/proc``; elsewhere there is nothing to prove.

``ROBUSTNESS_SCALE=16`` in the environment makes it a gigabyte wherever less is sent by default.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.tls_peers import authority

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]


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
