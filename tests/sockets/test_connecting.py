from __future__ import annotations

import errno
import math
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Literal, TypeAlias

import anyio
import pytest

from easynetwork.sockets.connecting import (
    connect_tcp,
    connection_error,
    new_client_socket,
    tune_tcp,
)
from tests.times import MS, SOON

on_each_backend = pytest.mark.anyio


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@contextmanager
def listening(host: str, port: int = 0) -> Iterator[int]:
    """Listen; yield the port."""
    with socket.create_server((host, port)) as listener:
        yield listener.getsockname()[1]


Behaviour: TypeAlias = Literal["accepts", "refuses", "ignores"]
"""What happens to connections: a listener, nobody, or a backlog that is full."""


@contextmanager
def loopback(v4: Behaviour, v6: Behaviour | None = None) -> Iterator[int]:
    """Yield a port of 127.0.0.1, and of ::1, where connections are treated like that."""
    with ExitStack() as stack:
        one, other = bind_both(with_ipv6=v6 is not None)
        for sock, behaviour in ((one, v4), (other, v6)):
            stack.enter_context(sock)
            if behaviour == "accepts":
                sock.listen()
            elif behaviour == "ignores":
                sock.listen(0)
                for _ in range(4):
                    peer = stack.enter_context(socket.socket(sock.family))
                    peer.setblocking(False)
                    peer.connect_ex(sock.getsockname())
        yield one.getsockname()[1]


def bind_both(*, with_ipv6: bool) -> tuple[socket.socket, socket.socket]:
    """Return sockets bound to the same port of 127.0.0.1 and of ::1."""
    while True:
        one = socket.socket()
        other = socket.socket(socket.AF_INET6 if with_ipv6 else socket.AF_INET)
        one.bind(("127.0.0.1", 0))
        try:
            if with_ipv6:
                other.bind(("::1", one.getsockname()[1]))
            return one, other
        except OSError as exc:
            one.close()
            other.close()
            if exc.errno != errno.EADDRINUSE:
                raise


@pytest.fixture
def dual(known_names: dict[str, list[str]]) -> str:
    """A name with an address of either family."""
    known_names["dual.example"] = ["127.0.0.1", "::1"]
    return "dual.example"


@on_each_backend
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_connect(host: str) -> None:
    """A connection is a non-blocking socket."""
    with loopback("accepts") as port:
        with await connect_tcp(host, port) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
            assert sock.gettimeout() == 0


@on_each_backend
async def test_refused() -> None:
    """The error has the class of what happened, names the address, and says so once."""
    with loopback("refuses") as port:
        with pytest.raises(ConnectionRefusedError) as info:
            await connect_tcp("127.0.0.1", port)
    assert str(info.value) == (
        f"[Errno {errno.ECONNREFUSED}] cannot connect to '127.0.0.1', port {port}: "
        "Connection refused"
    )
    group = info.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert group.message == "create_connection() failed"
    assert [str(error) for error in group.exceptions] == [
        f"[Errno {errno.ECONNREFUSED}] Connect call failed ('127.0.0.1', {port}): "
        "Connection refused"
    ]


@on_each_backend
@needs_ipv6
async def test_all_refused(dual: str) -> None:
    """Several addresses that fail alike are one error; the attempts are its cause."""
    with loopback("refuses", "refuses") as port:
        with pytest.raises(ConnectionRefusedError) as info:
            await connect_tcp(dual, port)
    assert isinstance(info.value.__cause__, ExceptionGroup)
    first, second = info.value.__cause__.exceptions
    assert "Connect call failed ('::1', " in str(first)
    assert "Connect call failed ('127.0.0.1', " in str(second)


@on_each_backend
@needs_ipv6
async def test_failed_differently(dual: str) -> None:
    """Several addresses that fail for different reasons are an error that lists them."""
    with loopback("refuses", "refuses") as port:
        with pytest.raises(OSError, match="cannot connect to 'dual.example'") as info:
            await connect_tcp(dual, port, local_address=("127.0.0.1", 0))
    assert type(info.value) is OSError
    assert info.value.errno is None
    assert "no matching local address with family=<AddressFamily.AF_INET6: " in str(info.value)
    assert f"Connect call failed ('127.0.0.1', {port}): Connection refused" in str(info.value)


def test_same_error_without_number() -> None:
    """Errors that the kernel does not know cannot be told to be alike."""
    errors = [OSError("one"), OSError("two")]
    error = connection_error("host", 80, errors)
    assert type(error) is OSError
    assert str(error) == "cannot connect to 'host', port 80: one; two"


@on_each_backend
@needs_ipv6
async def test_next_address_after_failure(dual: str) -> None:
    """When an address fails, the next one is tried at once."""
    with loopback("accepts", "refuses") as port:
        with await connect_tcp(dual, port, happy_eyeballs_delay=math.inf) as sock:
            assert sock.family == socket.AF_INET


@on_each_backend
@needs_ipv6
async def test_next_address_after_delay(dual: str) -> None:
    """When an address does not answer, the next one is tried after a while, and the first wins."""
    with loopback("accepts", "ignores") as port:
        # By the loop's clock: uvloop's stands still within a turn, so its timers may look early.
        start = anyio.current_time()
        with await connect_tcp(dual, port, happy_eyeballs_delay=SOON) as sock:
            assert sock.family == socket.AF_INET
        assert anyio.current_time() - start >= SOON - MS


@on_each_backend
@needs_ipv6
async def test_first_address_is_preferred(dual: str) -> None:
    """Of two that answer, it is IPv6."""
    with loopback("accepts", "accepts") as port:
        with await connect_tcp(dual, port) as sock:
            assert sock.family == socket.AF_INET6


@on_each_backend
@needs_ipv6
async def test_one_after_the_other(dual: str) -> None:
    """Without end to the delay, one address that does not answer is waited for; giving up works."""
    with loopback("accepts", "ignores") as port:
        with anyio.move_on_after(SOON) as scope:
            await connect_tcp(dual, port, happy_eyeballs_delay=math.inf)
        assert scope.cancelled_caught


@on_each_backend
@needs_ipv6
async def test_all_at_once(dual: str) -> None:
    """Without any delay, all addresses are tried; what is not needed is closed."""
    with loopback("accepts", "accepts") as port:
        with await connect_tcp(dual, port, happy_eyeballs_delay=0):
            pass


@on_each_backend
async def test_cancelled() -> None:
    """An attempt that is given up leaves nothing open."""
    with loopback("ignores") as port:
        with anyio.move_on_after(SOON) as scope:
            await connect_tcp("127.0.0.1", port)
        assert scope.cancelled_caught


@on_each_backend
async def test_local_address() -> None:
    """A connection comes from where it is said to."""
    with loopback("accepts") as port:
        with await connect_tcp("127.0.0.1", port, local_address=("127.0.0.2", 0)) as sock:
            assert sock.getsockname()[0] == "127.0.0.2"


@on_each_backend
async def test_local_address_in_use() -> None:
    """If it cannot, the error says which address, and why."""
    with loopback("accepts") as port, loopback("refuses") as used_port:
        with pytest.raises(OSError, match="Address already in use") as info:
            await connect_tcp("127.0.0.1", port, local_address=("127.0.0.1", used_port))
    assert info.value.errno == errno.EADDRINUSE
    assert isinstance(info.value.__cause__, ExceptionGroup)
    (error,) = info.value.__cause__.exceptions
    address = f"('127.0.0.1', {used_port})"
    assert f"error while attempting to bind on address {address}" in str(error)


@on_each_backend
async def test_connect_to_unknown_host() -> None:
    """Names are reported as such, whichever end they are for."""
    with pytest.raises(socket.gaierror, match="cannot resolve 'nowhere.invalid'"):
        await connect_tcp("nowhere.invalid", 80)
    with pytest.raises(socket.gaierror, match="cannot resolve 'nowhere.invalid'"):
        await connect_tcp("127.0.0.1", 80, local_address=("nowhere.invalid", 0))


def test_client_socket_for_datagrams() -> None:
    """A client's socket is of the kind that its address says."""
    info = (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", ("127.0.0.1", 80))
    with new_client_socket(info) as sock:
        assert sock.type == socket.SOCK_DGRAM
        assert sock.gettimeout() == 0


def test_tune_tcp() -> None:
    """Small packets leave at once, and dead peers are found; what cannot be set is not an error."""
    with socket.socket() as sock:
        tune_tcp(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    tune_tcp(sock)
    one, other = socket.socketpair()
    with closing(one), closing(other):
        tune_tcp(one)
