"""An exception that leaves the handler: what is logged, and that nobody else is concerned."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import traceback

import anyio
import anyio.lowlevel
import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    PacketConversionError,
)
from tests.conformance.datagrams.support import (
    Client,
    NewServer,
    Peer,
    Recorder,
    Requests,
    Serve,
    serving,
)
from tests.conformance.support import Records

pytestmark = pytest.mark.anyio


def crash(peer: Peer) -> str:
    return f"Exception occurred during processing of request from {peer.name}"


def misuse(peer: Peer) -> str:
    return f"There have been attempts to do operation on closed client {peer.name}"


class Failing(Recorder):
    """Raises an exception in answer to a request "fail"."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request == "fail":
            raise self.error
        await client.send_packet(request)


@pytest.mark.parametrize("kind", [LookupError, OSError, ConnectionResetError, ExceptionGroup])
async def test_crash(serve: Serve, log: Records, kind: type[Exception]) -> None:
    """One ERROR with its traceback, for any exception; the peer's next datagram is served."""
    error = ExceptionGroup("", [BrokenPipeError()]) if kind is ExceptionGroup else kind("a bug")
    async with serve(Failing(error)) as service:
        peer, other = service.connect(), service.connect()
        assert await other.ask("hello") == "hello"
        assert await peer.ask("fail", "next") == "next"
        [(level, message, exc)] = log.problems()
        assert (level, message, type(exc)) == ("ERROR", crash(peer), kind)
        assert exc is not None
        assert exc.__traceback__ is not None
        assert await other.ask("hello") == "hello"
        await service.statistics(received=4, refused=0)


@pytest.mark.parametrize("waits", [False, True])
async def test_crash_before_the_first_yield(serve: Serve, log: Records, waits: bool) -> None:
    """It costs the datagram, and no other."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            if waits:
                await anyio.lowlevel.checkpoint()
            if len(self.notes) == 1:
                raise LookupError
            await client.send_packet((yield))

    async with serve(Handler()) as service:
        peer = service.connect()
        assert await peer.ask("lost", "next") == "next"
        assert [problem[:2] for problem in log.problems()] == [("ERROR", crash(peer))]
        assert service.server.get_statistics().refused == 0


async def test_bad_yield_let_out(serve: Serve, log: Records) -> None:
    """What is no timeout, at the first yield, costs the datagram too: it is not tried again."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            await client.send_packet((yield -1 if len(self.notes) == 1 else None))

    async with serve(Handler()) as service:
        assert await service.connect().ask("lost", "next") == "next"
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert isinstance(exc, ValueError)


async def test_no_generator(serve: Serve, log: Records) -> None:
    """A `handle()` that is no asynchronous generator function is a crash for each datagram."""

    class Handler(Recorder):
        def handle(self, client: Client) -> Requests:
            self.note("handle")
            return super().handle(client) if len(self.notes) > 2 else None  # type: ignore[return-value] # wrong on purpose

    async with serve(Handler()) as service:
        assert await service.connect().ask("one", "two", "three") == "three"
        assert [level for level, *_ in log.problems()] == ["ERROR", "ERROR"]


class Fatal(BaseException):
    pass


@pytest.mark.parametrize("kind", [SystemExit, Fatal])
async def test_fatal_exception(serve: Serve, log: Records, kind: type[BaseException]) -> None:
    """What is no `Exception` is a crash that costs one datagram, like any other."""
    async with serve(Failing(kind())) as service:
        peer = service.connect()
        assert await peer.ask("fail", "next") == "next"
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert isinstance(exc, RuntimeError)
        assert isinstance(exc.__cause__, kind)


async def test_interrupt(new_server: NewServer) -> None:
    """A KeyboardInterrupt is meant for the program."""
    error = BaseExceptionGroup("in a group", [KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(new_server(Failing(error))) as service:
            service.connect().send("fail")
            await anyio.sleep_forever()
    assert caught.group_contains(KeyboardInterrupt)


# -- the peer's fault


async def test_parse_error_let_out(serve: Serve, log: Records) -> None:
    """The log gets one WARNING line without traceback; the peer goes on, as does everybody."""
    async with serve(Recorder()) as service:
        peer = service.connect()
        assert await peer.ask("one", b"\xff", "two") == "one"
        assert await peer.receive() == "two"
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: DeserializeError: ")
        await service.statistics(received=3, invalid=1)


async def test_parse_error_in_a_group(serve: Serve, log: Records) -> None:
    """A task group around the yield makes no traceback of it either."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            async with anyio.create_task_group():
                await client.send_packet((yield))

    async with serve(Handler()) as service:
        peer = service.connect()
        assert await peer.ask(b"\xff", "next") == "next"
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: ")


async def test_parse_error_of_another_yield(serve: Serve, log: Records) -> None:
    """A parse error that is raised later, for reasons of the handler's own, is a crash."""

    class Handler(Recorder):
        error: Exception | None = None

        async def handle(self, client: Client) -> Requests:
            try:
                await client.send_packet((yield))
            except DatagramProtocolParseError as exc:
                self.error = exc
            if self.error is not None:
                yield
                raise self.error

    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send(b"\xff", "again")
        await log.logged(crash(peer))
        assert [level for level, _, _ in log.problems()] == ["ERROR"]


class Quoting(AbstractPacketConverterComposite[str, str, str, str]):
    """Refuses every packet but one, and quotes it."""

    def create_from_dto_packet(self, packet: str) -> str:
        if packet == "fine":
            return packet
        raise PacketConversionError(f"what is {packet}?")

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


async def test_escaping(serve: Serve, log: Records) -> None:
    """What a peer sent appears in the log escaped, on one line, and shortened."""
    async with serve(Recorder(), Quoting()) as service:
        peer = service.connect()
        await peer.ask(b"\x1b[2J\rERROR the disk is on fire\n" + b"!" * 10_000, "fine")
        [(_, message, _)] = log.problems()
        assert message.isprintable()
        assert message.isascii()
        assert "\\x1b[2J\\rERROR" in message
        assert len(message) < 500


async def test_flood_of_garbage(serve: Serve, log: Records) -> None:
    """However much garbage comes, the log gets three lines a second; the rest is counted."""
    async with serve(Recorder()) as service:
        begin = int(time.monotonic())
        peer = service.connect()
        for _ in range(50):
            await peer.ask(b"\xff", "hello")
        seconds = int(time.monotonic()) - begin + 1
        await service.statistics(invalid=50)
    lines = [message for _, message, _ in log.problems()]
    logged = [line for line in lines if "sent invalid data" in line]
    counts = [int(line.split()[0]) for line in lines if "were not logged" in line]
    assert len(logged) <= 3 * seconds
    assert len(counts) <= seconds
    assert len(logged) + sum(counts) == 50


# -- misuse


@pytest.mark.parametrize("grouped", [False, True])
async def test_use_of_a_closed_client(serve: Serve, log: Records, grouped: bool) -> None:
    """To send when the server has been closed is a mistake that gets a warning."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await service.server.server_close()
            with anyio.CancelScope(shield=True):
                if grouped:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client.send_packet, "too late")
                await client.send_packet("too late")

    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send("close")
        await log.logged("Server stopped")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("WARNING", misuse(peer))
        assert isinstance(exc, ExceptionGroup if grouped else ClientClosedError)


async def test_misuse_and_crash(serve: Serve, log: Records) -> None:
    """Of a group, what is not that mistake is a crash."""
    error = ExceptionGroup("both", [LookupError("a bug"), ClientClosedError("Closed client")])
    async with serve(Failing(error)) as service:
        peer = service.connect()
        assert await peer.ask("fail", "next") == "next"
        (warning, *_, misused), (level, message, exc) = log.problems()
        assert (warning, level, message) == ("WARNING", "ERROR", crash(peer))
        assert isinstance(misused, ExceptionGroup)
        assert isinstance(exc, ExceptionGroup)
        assert [type(part) for part in exc.exceptions] == [LookupError]


# -- handlers that do not do what they are told


@pytest.mark.parametrize("where", ["at the yield", "elsewhere"])
async def test_generator_that_swallows_its_cancellation(serve: Serve, where: str) -> None:
    """A handler that goes on when it is cancelled cannot keep the server from stopping."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("waiting")
            if where == "elsewhere":
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep_forever()
            while True:
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    yield

    handler = Handler()
    async with serve(handler) as service:
        service.connect().send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        assert service.server.is_listening()
        assert service.server.get_statistics().peers == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_generator_that_swallows_everything(serve: Serve, log: Records) -> None:
    """Nor can one that swallows GeneratorExit as well."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("waiting")
            while True:
                with contextlib.suppress(BaseException):
                    yield

    handler = Handler()
    async with serve(handler) as service:
        service.connect().send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert str(exc) == "async generator ignored GeneratorExit"
        assert exc is not None
        traceback.clear_frames(exc.__traceback__)  # so that the generator is collected now
        del exc
        gc.collect()


@pytest.mark.parametrize("victim", ["another task", "the client's task"])
async def test_foreign_cancellation(
    serve: Serve, log: Records, anyio_backend_name: str, victim: str
) -> None:
    """On asyncio, a handler that lets out a cancellation by who knows whom has crashed, no more."""
    if anyio_backend_name == "trio":
        pytest.skip("trio's cancellations do not leave their scope")

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
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

    async with serve(Handler()) as service:
        peer, other = service.connect(), service.connect()
        peer.send("suffer", "one", "two")
        assert await other.ask("hello") == "hello"
        assert [await peer.receive() for _ in range(2)] == ["one", "two"]
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert exc is not None
        assert isinstance(exc.__cause__, asyncio.CancelledError)
