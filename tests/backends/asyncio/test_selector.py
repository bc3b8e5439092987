from __future__ import annotations

import asyncio
import socket

import anyio
import pytest

from easynetwork.backends.asyncio.selector import selector_of
from tests.backends.pairs import connected_sockets

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["loop", "tasks"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    factory = loop_without_readers if request.param == "tasks" else asyncio.new_event_loop
    return "asyncio", {"loop_factory": factory}
