"""Running a program on a backend."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio.lowlevel
import pytest
import trio
import trio.testing

from easynetwork.backends import ensure_backend, new_builtin_backend

uvloop = pytest.importorskip("uvloop")


async def tell(*args: Any) -> tuple[object, ...]:
    await anyio.lowlevel.checkpoint()
    return (ensure_backend(None).name, *args)


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_bootstrap(name: str) -> None:
    """A coroutine function gets its arguments and runs in a new loop; its result is returned."""
    backend = new_builtin_backend(name)
    assert backend.bootstrap(tell, 1, "two") == (name, 1, "two")
    assert backend.bootstrap(tell, runner_options={}) == (name,)


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_exception(name: str) -> None:
    """Its exception is raised."""

    async def fail() -> None:
        raise KeyError("oops")

    with pytest.raises(KeyError):
        new_builtin_backend(name).bootstrap(fail)


def test_asyncio_options() -> None:
    """Options are those of `asyncio.Runner`: another loop, for example."""

    async def loop() -> object:
        assert asyncio.get_running_loop().get_debug()
        return asyncio.get_running_loop()

    options = {"loop_factory": uvloop.new_event_loop, "debug": True}
    running = new_builtin_backend("asyncio").bootstrap(loop, runner_options=options)
    assert isinstance(running, uvloop.Loop)


def test_trio_options() -> None:
    """Options are those of `trio.run`: another clock, for example."""
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def sleep() -> float:
        await trio.sleep(1000)
        return trio.current_time() - clock.current_time()

    options = {"clock": clock}
    assert new_builtin_backend("trio").bootstrap(sleep, runner_options=options) == 0
