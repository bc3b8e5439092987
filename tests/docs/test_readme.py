"""The README: what its programs do with clients that do not keep to the protocol."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import types
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from tests.docs.howto_support import DOCS, complaints, connected, serving

pytestmark = pytest.mark.anyio

README = (DOCS.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def handler_class() -> Any:
    """Return the request handler of the first program."""
    found = re.search(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    program = types.ModuleType("program")
    exec(found[1], vars(program))
    return program.Greeter


async def test_bad_requests(handler_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A request without a name is the client's mistake: it is answered, and no bug is logged."""
    caplog.set_level(logging.DEBUG, "easynetwork")
    async with serving(handler_class(), StreamProtocol(JSONSerializer())) as server:
        async with connected(server) as peer:
            for request in "{}", '{"name": 1}', "[]", "null", '"name"', "not JSON", "\x00":
                assert list(json.loads(await peer.ask(request))) == ["error"], request
            assert json.loads(await peer.ask('{"name": "world"}')) == {"hello": "world"}
    assert not complaints(caplog)


async def test_silent_client(handler_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The timeout that the handler does not catch ends the connection in good order."""
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
