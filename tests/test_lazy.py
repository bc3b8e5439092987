"""Packages import what is in them when it is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.in_turn

PACKAGES = (
    "easynetwork.clients",
    "easynetwork.serializers",
    "easynetwork.serializers.framing",
    "easynetwork.serializers.wrapper",
    "easynetwork.servers",
    "easynetwork.sockets",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_can_be_imported(package: str) -> None:
    """What a package says it has, it has, and shows to whoever looks around."""
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
        assert name in dir(module)
    assert "__all__" in dir(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_name(package: str) -> None:
    """What it has not is an AttributeError that names both."""
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        _ = module.Nothing


@pytest.mark.parametrize(
    ("statement", "unused"),
    [
        ("from easynetwork.clients import TCPNetworkClient", "easynetwork.servers"),
        ("from easynetwork.clients import TCPNetworkClient", "easynetwork.clients.async_tcp"),
        ("from easynetwork.servers import AsyncTCPNetworkServer", "easynetwork.serializers.json"),
        ("from easynetwork.servers import AsyncTCPNetworkServer", "easynetwork.backends.trio"),
        ("from easynetwork.servers import AsyncTCPNetworkServer", "anyio.from_thread"),
        ("from easynetwork.servers import AsyncUDPNetworkServer", "easynetwork.servers._stream"),
        ("from easynetwork.servers import AsyncUDPNetworkServer", "easynetwork.tls"),
        ("from easynetwork.servers import AsyncTCPNetworkServer", "easynetwork.servers._datagram"),
        ("from easynetwork.serializers import StringLineSerializer", "json"),
        ("from easynetwork.serializers import StringLineSerializer", "zlib"),
    ],
)
def test_only_that(statement: str, unused: str) -> None:
    """A program imports what it uses, and not what is beside it."""
    # Not what a tool that measures the tests has imported before.
    check = (
        f"import sys; before = {{*sys.modules}}; {statement}; "
        f"sys.exit({unused!r} in sys.modules.keys() - before)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
