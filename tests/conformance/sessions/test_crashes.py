"""An exception that leaves the handler: what is logged, and what the peer and others notice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import traceback
import weakref
from typing import Any

import anyio
import pytest

from tests.conformance.sessions.kinds import Handler, Kind, Requests
from tests.conformance.support import Records
from tests.misbehaviours import MALFORMED, Fatal
from tests.times import MS

pytestmark = pytest.mark.anyio


def crash(peer: Any) -> str:
    return f"Exception occurred during processing of request from {peer.name}"


class Failing(Handler):
    """Raises an exception in response to a request "fail"."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def handle(self, client: Any) -> Requests:
        request = yield
        if request == "fail":
            raise self.error
        await client.send_packet(request)


@pytest.mark.parametrize(
    "error",
    [
        LookupError("a bug"),
        OSError("a bug"),
        ConnectionResetError("the database"),
        ExceptionGroup("two", [LookupError()]),
        ExceptionGroup("two", [BrokenPipeError()]),
    ],
    ids=repr,
)
async def test_crash(kind: Kind, log: Records, error: Exception) -> None:
    """One ERROR with its traceback is logged, for any exception; other peers do not notice."""
    async with kind.serve(Failing(error)) as service:
        other = await kind.connect(service)
        assert await other.ask("hello") == "hello"
        peer = await kind.connect(service)
        peer.send("fail")
        await kind.check_end(peer, "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert exc is error
        assert exc.__traceback__ is not None
        assert await other.ask("hello") == "hello"
        assert await (await kind.connect(service)).ask("hello") == "hello"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit, "The handler raised SystemExit. That ends this client, not the program"),
        (Fatal, "The handler raised Fatal, which is not an Exception"),
    ],
)
async def test_fatal_exception(
    kind: Kind, log: Records, error: type[BaseException], text: str
) -> None:
    """An exception that is not an `Exception` is a crash like any other: the server goes on."""
    handler = Failing(error())
    async with kind.serve(handler) as service:
        other = await kind.connect(service)
        assert await other.ask("hello") == "hello"
        peer = await kind.connect(service)
        peer.send("fail")
        await kind.check_end(peer, "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert isinstance(exc, RuntimeError)
        assert str(exc).startswith(text)
        assert isinstance(exc.__cause__, error)
        kind.check_gone(service, handler)
        assert await other.ask("hello") == "hello"


async def test_interrupt(kind: Kind) -> None:
    """A KeyboardInterrupt ends the server, whichever client's code it is raised in."""
    error = BaseExceptionGroup("in a group", [KeyboardInterrupt()])
    handler = Failing(error)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with kind.serve(handler) as service:
            (await kind.connect(service)).send("fail")
            await anyio.sleep_forever()
    assert caught.group_contains(KeyboardInterrupt)
    kind.check_gone(service, handler)


@pytest.mark.parametrize("victim", ["another task", "the client's task"])
async def test_foreign_cancellation(
    kind: Kind, log: Records, anyio_backend_name: str, victim: str
) -> None:
    """On asyncio, a handler that re-raises another task's cancellation has crashed, no more."""
    if anyio_backend_name == "trio":
        pytest.skip("trio's cancellations do not leave their scope")

    class Suffering(Handler):
        async def handle(self, client: Any) -> Requests:
            request = yield
            if request == "suffer":
                task = asyncio.current_task()
                if victim == "another task":
                    task = asyncio.create_task(asyncio.sleep(60))
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
                await (task if victim == "another task" else asyncio.sleep(60))
            await asyncio.sleep(0)
            await client.send_packet(request)

        async def on_disconnection(self, client: Any) -> None:
            await asyncio.sleep(0)
            await super().on_disconnection(client)

    handler = Suffering()
    async with kind.serve(handler) as service:
        peer, other = await kind.connect(service), await kind.connect(service)
        peer.send("suffer")
        assert await other.ask("hello") == "hello"
        await kind.check_end(peer, "reset")
        kind.check_gone(service, handler)
        assert await other.ask("hello") == "hello"
        assert service.server.is_serving()
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert exc is not None
        assert isinstance(exc.__cause__, asyncio.CancelledError)


# -- handlers that do not end when they are cancelled


class Stubborn(Handler):
    """Waits on, whatever it is told, and suppresses certain exceptions."""

    def __init__(self, suppressed: type[BaseException], where: str) -> None:
        super().__init__()
        self.suppressed = suppressed
        self.where = where

    def handle(self, client: Any) -> Requests:
        generator = self.wait(client)
        self.generator = weakref.ref(generator)
        return generator

    async def wait(self, client: Any) -> Requests:
        yield
        self.note("waiting")
        if self.where == "elsewhere":
            with contextlib.suppress(self.suppressed):
                await anyio.sleep_forever()
        while True:
            with contextlib.suppress(self.suppressed):
                yield


each_place = pytest.mark.parametrize("where", ["at the yield", "elsewhere"])


@each_place
async def test_generator_that_swallows_its_cancellation(kind: Kind, where: str) -> None:
    """A handler that goes on when it is cancelled cannot keep the server from stopping."""
    handler = Stubborn(anyio.get_cancelled_exc_class(), where)
    async with kind.serve(handler) as service:
        (await kind.connect(service)).send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        assert service.server.is_listening()
        kind.check_gone(service, handler)


@each_place
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_generator_that_swallows_everything(kind: Kind, log: Records, where: str) -> None:
    """Nor can one that suppresses GeneratorExit as well."""
    handler = Stubborn(BaseException, where)
    async with kind.serve(handler) as service:
        (await kind.connect(service)).send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        kind.check_gone(service, handler)
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert isinstance(exc, RuntimeError)
        assert str(exc) == "async generator ignored GeneratorExit"
        cause: BaseException | None = exc
        while cause is not None:  # whatever refers to the generator
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
        del exc
        for _ in range(10):  # so that it is collected now, not in another test
            if handler.generator() is not None:
                gc.collect()
                await anyio.sleep(MS)


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_handler(kind: Kind, log: Records, name: str) -> None:
    """A `handle()` that does not follow the form is reported in a sentence, each time."""

    class Malformed(Handler):
        def handle(self, client: Any) -> Any:
            return MALFORMED[name](client)

    async with kind.serve(Malformed()) as service:
        for count in 1, 2:
            with contextlib.suppress(ConnectionError):  # TLS may see it in the handshake
                peer = await kind.connect(service)
                peer.send("hello")
                await log.logged_often(count)
                await kind.check_silence(peer)
            await log.logged_often(count)
        (_, _, exc), (_, second, _) = log.problems()
        assert isinstance(exc, (TypeError, ValueError))
        text = "\n".join([str(exc), *getattr(exc, "__notes__", ())])
        assert "handle() " in text or "Invalid delay" in text
        assert type(exc).__name__ in second
        assert service.server.is_serving()
