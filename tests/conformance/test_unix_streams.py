"""What only servers for Unix streams have: a path, credentials, ancillary data."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import threading
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.addresses import (
    SocketAncillary,
    SocketAttribute,
    UnixCredentials,
    UnixSocketAddress,
    UNIXSocketAttribute,
)
from easynetwork.exceptions import (
    TypedAttributeLookupError,
    UnsupportedOperation,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    RecvAncillaryDataParams,
    RecvParams,
    UNIXClientAttribute,
)
from easynetwork.servers.standalone_unix_stream import StandaloneUnixStreamServer
from tests.clients.unix_support import fill
from tests.conformance.support import Recorder, Records, restarting, serving
from tests.times import PATIENCE, SOON
from tests.tls_peers import client_context, server_context

pytestmark = pytest.mark.anyio

Requests = AsyncGenerator[Any, str]
LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(limit=1 << 21))


def new(path: Any, handler: Any = None, **options: Any) -> AsyncUnixStreamServer[str, str]:
    return AsyncUnixStreamServer(path, LINES, handler or Recorder(), **options)


class Receiver(Recorder):
    """Answers how many descriptors came with a line; closes them."""

    timeout: float | None = None

    def params(self, ancillary: SocketAncillary) -> RecvParams:
        return RecvParams(
            timeout=self.timeout,
            recv_with_ancillary=RecvAncillaryDataParams(ancillary.update_from_raw),
        )

    async def handle(self, client: AsyncStreamClient[str]) -> Requests:
        ancillary = SocketAncillary()
        try:
            request = yield self.params(ancillary)
        except (OSError, EOFError, RuntimeError) as exc:
            for fd in ancillary.iter_fds():
                os.close(fd)
            await client.send_packet(f"{type(exc).__name__}: {exc}")
            if isinstance(exc, UnsupportedOperation):
                yield
            return
        fds = list(ancillary.iter_fds())
        self.note(f"{request} {len(fds)} {[os.get_inheritable(fd) for fd in fds]}")
        for fd in fds:
            os.close(fd)
        await client.send_packet(f"{request} {len(fds)}")


def exists(path: str) -> bool:
    return os.path.exists(path)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- the path


async def test_path(unix_path: str, log: Records) -> None:
    """It is there from the activation to the close, and after a shutdown, too."""
    server = new(unix_path)
    assert server.get_addresses() == ()
    assert not exists(unix_path)
    for _ in range(2):
        async with serving(new(unix_path)) as service:
            server = service.server
            assert server.get_addresses() == (UnixSocketAddress.from_pathname(unix_path),)
            assert server.get_sockets()[0].getsockname() == unix_path
            assert await (await service.connect()).ask("hello") == "hello"
            await server.shutdown()
            assert exists(unix_path)
            async with restarting(server):
                assert await (await service.connect()).ask("hello") == "hello"
        assert not exists(unix_path)
        assert server.get_addresses() == ()
    assert log.messages()[0] == f"Start serving at {unix_path}"


async def test_removed_when_closing_is_cancelled(unix_path: str) -> None:
    server = new(unix_path)
    await server.server_activate()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.server_close()
    assert scope.cancelled_caught
    assert not exists(unix_path)
    assert not server.is_listening()


async def test_another_file_in_its_place(unix_path: str) -> None:
    """What has taken the path meanwhile is left alone, and a path that is gone is no error."""
    async with new(unix_path):
        os.unlink(unix_path)
        os.mkdir(unix_path)
    os.rmdir(unix_path)
    async with new(unix_path):
        os.unlink(unix_path)


async def test_removal_fails(unix_path: str, log: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log gets one ERROR, and the server is closed all the same."""

    def unlink(path: str) -> None:
        raise PermissionError(errno.EPERM, "forced")

    async with new(unix_path) as server:
        monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.undo()
    assert not server.is_listening()
    [(level, message, _)] = log.problems()
    start = f"Unable to clean up listening Unix socket '{unix_path}': "
    assert (level, message) == ("ERROR", f"{start}[Errno 1] forced")


async def test_forgotten_server(unix_path: str) -> None:
    """A server that is collected while it listens complains, and removes its path."""
    server = new(unix_path)
    await server.server_activate()
    forgotten = [server]
    del server
    with pytest.warns(ResourceWarning, match=f"unclosed server <.* on {unix_path} at"):
        forgotten.clear()
    assert not exists(unix_path)


async def test_path_in_use(unix_path: str) -> None:
    """The error names path and reason; the server can be activated when the path is free."""
    async with new(unix_path):
        for options in {}, {"unlink_stale": True}:
            server = new(unix_path, **options)
            with pytest.raises(OSError, match=f"bind on address {unix_path}: Address already in"):
                await server.server_activate()
            assert not server.is_listening()
    async with server:
        assert server.is_listening()


async def test_stale_path(unix_path: str) -> None:
    """A path that a killed server has left can be replaced; peers see the path that they asked."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(unix_path)
    with pytest.raises(OSError, match="Address already in use"):
        await new(unix_path).server_activate()
    handler = Recorder()
    async with serving(new(unix_path, handler, unlink_stale=True, mode=0o640)) as service:
        assert stat.S_IMODE(os.stat(unix_path).st_mode) == 0o640
        assert await (await service.connect()).ask("hello") == "hello"
        [client] = handler.clients
        name = UnixSocketAddress.from_pathname(unix_path)
        assert client.extra(UNIXClientAttribute.local_name) == name
        assert client.extra(UNIXSocketAttribute.sockname) == name
        assert service.server.get_addresses() == (name,)
    assert os.listdir(os.path.dirname(unix_path)) == ["socket.lock"]


async def test_abstract_names() -> None:
    """Names that are not in the file system: chosen here, or by Linux."""
    name = UnixSocketAddress.from_abstract_name(f"easynetwork-{os.getpid()}")
    for path in name, name.as_raw(), "", UnixSocketAddress():
        async with serving(new(path)) as service:
            [address] = service.server.get_addresses()
            assert (address == name) == bool(path and path != UnixSocketAddress())
            assert address.as_abstract_name()
            assert await (await service.connect()).ask("hello") == "hello"


def test_standalone(unix_path: str) -> None:
    """A standalone server makes the path in each run, and removes it at its end."""
    server = StandaloneUnixStreamServer(unix_path, LINES, Recorder(), mode=0o600)
    for _ in range(2):
        assert not exists(unix_path)
        is_up = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"is_up_event": is_up})
        thread.start()
        assert is_up.wait(PATIENCE)
        assert server.get_addresses() == (UnixSocketAddress.from_pathname(unix_path),)
        assert stat.S_IMODE(os.stat(unix_path).st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(unix_path)
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"hello\n"
        server.shutdown()
        thread.join()
    server.server_close()
    assert not exists(unix_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"path": 5}, TypeError, "Expected a str object or an os.PathLike object, got 5"),
        ({"path": None}, TypeError, "Expected a str object or an os.PathLike object, got None"),
        ({"path": "a\0b"}, ValueError, "paths must not contain interior null bytes"),
        ({"mode": "600"}, TypeError, "Expected an integer as mode, got '600'"),
        ({"mode": -1}, ValueError, "mode must be between 0 and 0o7777, got -0o1"),
        ({"mode": 0o600, "path": ""}, ValueError, "mode is only meaningful with a path"),
        ({"unlink_stale": True, "path": "\0x"}, ValueError, "unlink_stale is only meaningful with"),
        ({"ancillary_bufsize": 0}, ValueError, "ancillary_bufsize must be a strictly positive int"),
        ({"ancillary_bufsize": 1.5}, ValueError, "ancillary_bufsize must be a strictly positive"),
        ({"backlog": 0}, ValueError, "backlog should be strictly positive"),
        ({"max_recv_size": 0}, ValueError, "'max_recv_size' must be a strictly positive integer"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with"),
        ({"protocol": None}, TypeError, "Expected a StreamProtocol or a BufferedStreamProtocol"),
        ({"request_handler": None}, TypeError, "Expected an AsyncStreamRequestHandler object, got"),
    ],
)
@pytest.mark.parametrize("server_class", [AsyncUnixStreamServer, StandaloneUnixStreamServer])
def test_arguments(server_class: Any, changes: Any, error: Any, message: str) -> None:
    """Every argument is checked at construction."""
    arguments = {"path": "/x", "protocol": LINES, "request_handler": Recorder(), "backend": "trio"}
    with pytest.raises(error, match=f"^{message}"):
        server_class(**arguments | changes)


def test_no_autobind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems than Linux choose no names."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ValueError, match="^path parameter is required on this platform") as caught:
        new("", backend="asyncio")
    assert caught.value.__notes__ == ["Automatic socket bind is not supported."]


# -- the client


async def test_client(unix_path: str, log: Records) -> None:
    """Its name, the server's, and its credentials; the log names these, too."""
    handler = Recorder()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        await peer.ask("hello")
        [client] = handler.clients
        name = UnixSocketAddress.from_raw(peer.address)
        credentials = UnixCredentials(os.getpid(), os.geteuid(), os.getegid())
        assert client.extra(UNIXClientAttribute.peer_name) == name
        assert client.extra(SocketAttribute.peername) == name
        assert str(client.extra(UNIXClientAttribute.local_name)) == unix_path
        assert client.extra(UNIXClientAttribute.peer_credentials) == credentials
        assert client.extra(UNIXClientAttribute.socket).family == socket.AF_UNIX
        assert client.extra(SocketAttribute.family) == socket.AF_UNIX
        assert peer.accepted in log.messages()
        peer.close()
        await log.logged("disconnected")
        assert client.extra(UNIXClientAttribute.peer_name) == name
        assert client.extra(UNIXClientAttribute.peer_credentials) == credentials


async def test_name_that_comes_later(unix_path: str) -> None:
    """An unnamed client may get a name when it is connected."""
    handler = Recorder()
    async with serving(new(unix_path, handler)) as service:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(unix_path)
            await handler.noted("on_connection")
            [client] = handler.clients
            assert client.extra(UNIXClientAttribute.peer_name).is_unnamed()
            sock.bind("")
            name = client.extra(UNIXClientAttribute.peer_name)
            assert name == UnixSocketAddress.from_raw(sock.getsockname())
        await handler.noted("on_disconnection")
        assert client.extra(UNIXClientAttribute.peer_name) == name
        assert service


async def test_no_credentials(unix_path: str, log: Records, monkeypatch: Any) -> None:
    """Where the platform cannot tell, the attribute is missing, and the log says nothing of it."""
    monkeypatch.delattr(socket, "SO_PEERCRED")
    handler = Recorder()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        await peer.ask("hello")
        with pytest.raises(TypedAttributeLookupError, match="^credentials not available$"):
            handler.clients[0].extra(UNIXClientAttribute.peer_credentials)
        assert f"Accepted new connection (address = {peer.name})" in log.messages()


async def test_name_in_the_log(unix_path: str, log: Records) -> None:
    """A client chooses its name, and cannot write lines to the log with it."""
    async with serving(new(unix_path)) as service:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind("\0evil\nERROR \x1b[31m")
            sock.connect(unix_path)
            await log.logged("Accepted new connection (address = @evil\\nERROR \\x1b[31m), pid")
        assert service


async def test_tls(unix_path: str, log: Records) -> None:
    """TLS works as over TCP; there is no ancillary data."""
    server = new(unix_path, Receiver(), ssl=server_context(ssl.TLSVersion.TLSv1_3))
    async with serving(server):

        def ask() -> bytes:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(unix_path)
                context = client_context(ssl.TLSVersion.TLSv1_3)
                with context.wrap_socket(sock, server_hostname="localhost") as tls:
                    tls.sendall(b"hello\n")
                    return tls.recv(1000).partition(b"\n")[0]

        answer = (await anyio.to_thread.run_sync(ask)).decode()
        why = "This transport does not have ancillary data support."
        assert answer == f"UnsupportedOperation: {why}"
    log.problems()


# -- ancillary data that arrives


async def test_descriptors(unix_path: str, anyio_backend_name: str) -> None:
    """A handler that asks gets the descriptors of the packet, which no child program inherits."""
    handler = Receiver()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        assert await peer.ask("first") == "first 0"
        before = open_descriptors()
        for count in 0, 1, 253, 0, 2:
            socket.send_fds(peer.socket, [b"hello\n"], [0] * count)
            assert await peer.receive() == f"hello {count}"
        assert open_descriptors() == before
        assert handler.notes.count("hello 2 [False, False]") == 1


async def test_wait_and_timeout(unix_path: str) -> None:
    """Timeouts hold while a handler waits for ancillary data; nothing is lost by one."""
    handler = Receiver()
    handler.timeout = SOON
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        assert await peer.receive() == "TimeoutError: timed out"
        socket.send_fds(peer.socket, [b"he"], [0])
        while (answer := await peer.receive()) == "TimeoutError: timed out":
            pass
        assert answer == "EOFError: Received partial packet data"
        peer.send_bytes(b"llo\n")
        while (answer := await peer.receive()) == "TimeoutError: timed out":
            pass
        assert answer == "hello 0"
        handler.timeout = 0
        while (await peer.receive()) != "TimeoutError: timed out":
            pass


async def test_packet_that_is_here(unix_path: str) -> None:
    """It is delivered without a look at the socket; what came with the first read comes first."""
    handler = Receiver()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        socket.send_fds(peer.socket, [b"one\ntwo\n"], [0, 0])
        assert await peer.receive_lines(2) == ["one 2", "two 0"]


@pytest.mark.parametrize("ending", ["packets", "plain yield", "leaves", "crash", "never"])
async def test_what_nobody_asks_for(unix_path: str, log: Records, ending: str) -> None:
    """Descriptors that a handler does not ask for are closed at once, however it goes on."""

    class Handler(Recorder):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            request = yield
            self.note(request)
            if ending == "crash":
                raise LookupError
            if ending == "never":
                await anyio.sleep_forever()
            await client.send_packet(request)

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        before = open_descriptors()
        for _ in range(50):
            socket.send_fds(peer.socket, [b"hello\n"], [0] * 253)
            if ending in ("packets", "plain yield"):
                assert await peer.receive() == "hello"
                assert open_descriptors() <= before
            else:
                await handler.noted("hello")
                break
        if ending == "leaves":
            peer.close()
        assert open_descriptors() <= before
    log.problems()


async def test_cut_off(unix_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many descriptors for the buffer are an error that says so; the bytes are kept."""
    async with serving(
        new(unix_path, Receiver(), ancillary_bufsize=socket.CMSG_SPACE(8))
    ) as service:
        peer = await service.connect()
        assert await peer.ask("first") == "first 0"
        before = open_descriptors()
        socket.send_fds(peer.socket, [b"hello\n"], [0] * 20)
        answer = await peer.receive()
        assert answer.startswith(
            "OSError: [Errno 90] ancillary data was cut off: it is longer than"
        )
        assert await peer.receive() == "hello 0"
        assert open_descriptors() == before
        socket.send_fds(peer.socket, [b"again\n"], [0, 0])
        assert await peer.receive() == "again 2"


async def test_function_crashes(unix_path: str) -> None:
    """A function that fails is the handler's error, at its yield."""

    class Handler(Receiver):
        def params(self, ancillary: SocketAncillary) -> RecvParams:
            return RecvParams(recv_with_ancillary=RecvAncillaryDataParams(self.fail))

        def fail(self, raw: Any) -> None:
            self.note(str(len(raw)))
            raise LookupError

    async with serving(new(unix_path, Handler())) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == (
            "RuntimeError: RecvAncillaryDataParams.data_received() crashed"
        )
        # Its packet is the next one.
        assert await peer.receive() == "hello 0"


@pytest.mark.parametrize("wrong", [5, "x", lambda raw: None])
async def test_wrong_parameter(unix_path: str, wrong: Any) -> None:
    class Handler(Recorder):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            try:
                yield RecvParams(recv_with_ancillary=wrong)
            except TypeError as exc:
                await client.send_packet(str(exc).partition(",")[0])
            await client.send_packet((yield))

    async with serving(new(unix_path, Handler())) as service:
        peer = await service.connect()
        assert await peer.receive() == "Expected a RecvAncillaryDataParams object"
        assert await peer.ask("hello") == "hello"


async def test_not_over_tcp(serve: Any, log: Records, transport: str) -> None:
    """Other servers say that they have none; the connection goes on."""
    if transport == "unix":
        return

    class Handler(Receiver):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            with pytest.raises(UnsupportedOperation, match="does not have ancillary data support"):
                await client.send_packet_with_ancillary("x", [])
            try:
                yield self.params(SocketAncillary())
            except UnsupportedOperation as exc:
                await client.send_packet(str(exc))
            await client.send_packet((yield))

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive() == (
            "The server is not configured to handle ancillary data (ancillary_bufsize=None)."
        )
        assert await peer.ask("hello") == "hello"


async def test_closed_while_waiting(unix_path: str) -> None:
    """A handler that waits for ancillary data ends when its client leaves or is closed."""
    handler = Receiver()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        await anyio.wait_all_tasks_blocked()
        await handler.clients[0].aclose()
        await handler.noted("on_disconnection")
        assert await peer.rest() == ("", "EOF")
        other = await service.connect()
        await handler.noted("on_connection", times=2)
        other.close()
        await handler.noted("on_disconnection", times=2)


async def test_cancelled_when_it_arrives(unix_path: str) -> None:
    """What arrives as a `yield` is cancelled is delivered at the next one that asks."""
    counts: list[int] = []

    class Handler(Receiver):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            ancillary = SocketAncillary()
            while True:
                try:
                    with anyio.fail_after(SOON / 50):
                        request = yield self.params(ancillary)
                    break
                except TimeoutError:
                    pass
            fds = list(ancillary.iter_fds())
            counts.append(len(fds))
            for fd in fds:
                os.close(fd)
            await client.send_packet(request)

    async with serving(new(unix_path, Handler())) as service:
        peer = await service.connect()
        assert await peer.ask("first") == "first"
        counts.clear()
        before = open_descriptors()
        for number in range(100):
            socket.send_fds(peer.socket, [b"hello\n"], [0])
            assert await peer.receive() == "hello"
            await anyio.sleep(SOON / 100 * (number % 7) / 7)
        assert counts == [1] * 100
        assert open_descriptors() == before


# -- ancillary data that is sent


class Sender(Recorder):
    """Answers with two descriptors of an open file."""

    async def handle(self, client: AsyncStreamClient[str]) -> Requests:
        request = yield
        ancillary = SocketAncillary()
        ancillary.add_fds([0, 0])
        try:
            await client.send_packet_with_ancillary(request, ancillary.as_raw())
        except OSError as exc:
            await client.send_packet(f"{type(exc).__name__} {exc.errno}")


async def test_sending(unix_path: str) -> None:
    """The peer gets the packet and the descriptors."""
    async with serving(new(unix_path, Sender())) as service:
        peer = await service.connect()
        for text in "hello", "x" * 50_000:
            peer.send(text)

            def receive(text: str = text) -> tuple[bytes, int]:
                data, fds, _, _ = socket.recv_fds(peer.socket, 1 << 18, 10)
                for fd in fds:
                    os.close(fd)
                while len(data) <= len(text):
                    data += peer.socket.recv(1 << 18)
                return data, len(fds)

            assert await anyio.to_thread.run_sync(receive) == (f"{text}\n".encode(), 2)


async def test_order(unix_path: str) -> None:
    """Packets before and after it keep their places, whatever is gathered or waits."""

    class Handler(Recorder):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            while True:
                request = yield
                if int(request) % 3:
                    await client.send_packet(request)
                else:
                    await client.send_packet_with_ancillary(request, [])

    async with serving(new(unix_path, Handler())) as service:
        peer = await service.connect()
        peer.send(*map(str, range(100)))
        assert await peer.receive_lines(100) == [str(number) for number in range(100)]


async def test_peer_that_does_not_read(unix_path: str) -> None:
    """The packet waits for its turn; cancelled meanwhile, it is not sent, and the rest is whole."""

    class Handler(Recorder):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            yield
            sock = client.extra(UNIXClientAttribute.socket)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            filled = 0
            with anyio.move_on_after(SOON):
                while True:
                    await client.send_packet_with_ancillary("x" * 100, [])
                    filled += 1
            self.filled = filled
            self.note("full")
            await client.send_packet_with_ancillary("end", [])

        filled = 0

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("full")
        lines = [await peer.receive() for _ in range(handler.filled + 1)]
        assert lines == ["x" * 100] * handler.filled + ["end"]


async def test_another_task_sends_beside(unix_path: str) -> None:
    """While a packet with ancillary data waits for the peer, those of other tasks wait with it."""

    class Handler(Recorder):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            yield
            filled = fill(client.extra(UNIXClientAttribute.socket), b"x" * 99 + b"\n")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.send_packet_with_ancillary, "with", [])
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(client.send_packet, "without")
                await anyio.sleep(SOON)
                self.filled = filled // 100
                self.note("full")
            yield
            await client.send_packet("end")

        filled = 0

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        peer = await service.connect()
        peer.send("go", "on")  # two at once: what answers the first may be gathered
        await handler.noted("full")
        lines = [await peer.receive() for _ in range(handler.filled + 3)]
        assert sorted(lines[-3:-1]) == ["with", "without"]
        assert lines[-1] == "end"


async def test_too_long(unix_path: str) -> None:
    """A packet that the kernel does not take at once is refused, and nothing of it is sent."""
    async with serving(new(unix_path, Sender())) as service:
        peer = await service.connect()
        await peer.send_much(b"x" * 1_000_000 + b"\n")
        assert await peer.receive() == f"OSError {errno.EMSGSIZE}"


async def test_closed_descriptor(unix_path: str) -> None:
    """A descriptor that is not open is an error; nothing is sent, and the client goes on."""

    class Handler(Recorder):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            request = yield
            ancillary = SocketAncillary()
            ancillary.add_fds([987])
            with pytest.raises(OSError, match="Bad file descriptor"):
                await client.send_packet_with_ancillary("lost", ancillary.as_raw())
            await client.send_packet(request)

    async with serving(new(unix_path, Handler())) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        assert await peer.ask("again") == "again"


async def test_sending_to_the_dead(unix_path: str, log: Records) -> None:
    """A client that has left is a ConnectionError, one closed here a ClientClosedError."""

    class Handler(Recorder):
        async def handle(self, client: AsyncStreamClient[str]) -> Requests:
            request = yield
            self.note(request)
            if request == "close":
                await client.aclose()
            await self.released.wait()
            with self.noting_errors():
                await client.send_packet_with_ancillary(request, [])

    handler = Handler()
    async with serving(new(unix_path, handler)) as service:
        for request in "close", "leave":
            peer = await service.connect()
            peer.send(request)
            await handler.noted(request)
            peer.close()
        handler.released.set()
        await handler.noted("on_disconnection", times=2)
        assert "ClientClosedError" in handler.notes
        assert "BrokenPipeError" in handler.notes
    log.problems()
