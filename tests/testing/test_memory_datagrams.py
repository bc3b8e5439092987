"""Datagrams in memory do what Linux does over the loopback interface, and have faults."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import hypothesis
import pytest
from hypothesis import strategies as st

from easynetwork.testing._memory.datagrams import MemoryDatagramSocket
from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._serving import RawDatagrams
from tests.testing.sockets_compared import Compared, memory_datagrams, outcome, real_datagrams
from tests.times import MS, PATIENCE

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux")

# What a client does, or the server.
STEPS: dict[str, tuple[Any, ...]] = {
    "send": ("send", b"abc"),
    "send nothing": ("send", b""),
    "send too much": ("send", bytes(65_508)),
    "receive": ("recv", 100),
    "receive a byte": ("recv", 1),
    "receive from": ("recvfrom", 100),
    "close": ("close",),
    "error": ("getsockopt", socket.SOL_SOCKET, socket.SO_ERROR),
    "peer": ("getpeername",),
    "name": ("getsockname",),
    "send to a": ("sendto", b"to a", "a"),
    "send to b": ("sendto", b"to b", "b"),
}


@contextlib.contextmanager
def compared() -> Iterator[Compared]:
    with contextlib.closing(Compared(real_datagrams(), memory_datagrams())) as both:
        yield both


@linux_only
@pytest.mark.parametrize(
    ("script", "results"),
    {
        "a send, b send, server receive from": [3, 3, (b"abc", "a")],
        "a send, server receive a byte, server receive": [3, b"a", "EAGAIN"],
        "a send nothing, server receive from": [0, (b"", "a")],
        "a send too much, server receive, a send": ["EMSGSIZE", "EAGAIN", 3],
        "server send to b, a receive, b receive": [4, "EAGAIN", b"to b"],
        "server send, server peer, server name": ["EDESTADDRREQ", "ENOTCONN", "server"],
        "a peer, a name": ["server", "a"],
        "a send to b, b receive, a send": [4, "EAGAIN", 3],
        # -- closed
        "server close, a send, a receive, a receive": [None, 3, "ECONNREFUSED", "EAGAIN"],
        "server close, a send, a send, a send": [None, 3, "ECONNREFUSED", 3],
        "server close, a send, a error, a receive": [None, 3, 111, "EAGAIN"],
        "server close, a send, a send too much, a send": [None, 3, "EMSGSIZE", "ECONNREFUSED"],
        "server send to a, server close, a send, a receive": [4, None, 3, "ECONNREFUSED"],
        "a close, server send to a, server receive": [None, 4, "EAGAIN"],
        "a close, a send, a receive, a peer, a close": [None, *["EBADF"] * 3, None],
    }.items(),
)
def test_script(script: str, results: list[Any]) -> None:
    """A few calls, on real sockets and in memory."""
    steps = [step.partition(" ") for step in script.split(", ")]
    with compared() as both:
        assert [both.do(name, *STEPS[step]) for name, _, step in steps] == results


any_step = st.tuples(st.sampled_from(["a", "b", "server"]), st.sampled_from(list(STEPS)))


@linux_only
@hypothesis.settings(max_examples=200)
@hypothesis.given(st.lists(any_step))
def test_any_script(script: list[tuple[str, str]]) -> None:
    """Any calls at all."""
    with compared() as both:
        for name, step in script:
            both.do(name, *STEPS[step])


def test_full_queue() -> None:
    """What a receiver has no room for is lost, and the sender does not notice."""
    for sockets in (memory_datagrams(), real_datagrams() if sys.platform == "linux" else {}):
        for _ in range(1_000 * bool(sockets)):
            sockets["a"].send(b"x")
        if sockets:
            assert 200 < len(received(sockets["server"])) < 1_000
        for sock in sockets.values():
            sock.close()


def test_strangers() -> None:
    """A connected socket receives from its peer alone."""
    network = MemoryNetwork()
    server, other = network.bind(), network.bind()
    client = network.bind(server.getsockname())
    for sock in other, server:
        sock.sendto(b"hello", client.getsockname())
    assert received(client) == [b"hello"]
    for sock in server, other, client:
        sock.close()


def test_address_in_use() -> None:
    """An address belongs to one socket, until that is closed."""
    network = MemoryNetwork()
    address = "198.51.100.1", 7
    for _ in range(2):
        with contextlib.closing(network.bind(None, address)):
            with pytest.raises(OSError, match="in use"):
                network.bind(None, address)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["a datagram", "an error", "its end"])
async def test_receiver_is_woken_up(how: str) -> None:
    """A receiver learns what arrives, and that its own socket is closed."""
    sockets = memory_datagrams()
    server, client = sockets["server"], sockets["a"]
    results: list[Any] = []

    async def receive() -> None:
        try:
            results.append(await RawDatagrams(client).receive())
        except OSError as exc:
            results.append(type(exc))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            if how == "a datagram":
                server.sendto(b"hello", client.getsockname())
            elif how == "an error":
                server.close()
                client.send(b"hello")
            else:
                client.close()
    expected = {"a datagram": b"hello", "an error": ConnectionRefusedError, "its end": OSError}
    assert results == [expected[how]]
    for sock in sockets.values():
        sock.close()


# -- faults

SENT = [b"%d" % number for number in range(100)]


def received(sock: Any) -> list[bytes]:
    """Return what has arrived."""
    datagrams = []
    while isinstance(datagram := outcome(sock, "recv", 100), bytes):
        datagrams.append(datagram)
    return datagrams


@contextlib.contextmanager
def sending(seed: int = 0, **faults: Any) -> Iterator[MemoryDatagramSocket]:
    """Send `SENT`, and yield the socket at which it arrives."""
    network = MemoryNetwork(seed=seed)
    with contextlib.closing(network.bind()) as server:
        address = server.getsockname()
        with contextlib.closing(network.bind(address, None, Faults(**faults))) as client:
            for datagram in SENT:
                assert client.send(datagram) == len(datagram)
            yield server


def arrived(seed: int = 0, **faults: Any) -> list[bytes]:
    """Send `SENT`, and return what arrives of it at once."""
    with sending(seed, **faults) as server:
        return received(server)


def test_no_faults() -> None:
    """Without them everything arrives, once and in order."""
    assert arrived() == SENT


def test_loss() -> None:
    """Some datagrams are lost; the others arrive in order."""
    found = arrived(loss=0.3)
    assert 50 < len(found) < 90
    assert found == [datagram for datagram in SENT if datagram in found]
    assert arrived(loss=1) == []


def test_duplicate() -> None:
    """Some datagrams arrive twice, one right after the other."""
    found = arrived(duplicate=0.3)
    assert 110 < len(found) < 150
    assert list(dict.fromkeys(found)) == SENT
    assert arrived(duplicate=1) == [datagram for datagram in SENT for _ in range(2)]


@pytest.mark.anyio
async def test_reorder() -> None:
    """Some datagrams come after the next one, and the last one a bit later; none is lost."""
    with sending(reorder=0.3) as server:
        found = received(server)
        with anyio.fail_after(PATIENCE):
            while len(found) < len(SENT):
                await anyio.sleep(10 * MS)
                found += received(server)
    assert sorted(found) == sorted(SENT)
    late = sum(int(one) > int(other) for one, other in itertools.pairwise(found))
    assert 10 < late < 50


@pytest.mark.anyio
async def test_reordered_though_nothing_follows() -> None:
    """A datagram that no other one overtakes is a tenth of a second late."""
    network = MemoryNetwork(reorder=1)
    server = network.bind()
    client = network.bind(server.getsockname())
    begin = anyio.current_time()
    client.send(b"late")
    assert not server.is_readable()
    with anyio.fail_after(PATIENCE):
        assert await RawDatagrams(server).receive() == b"late"
    assert anyio.current_time() - begin >= 0.09
    client.close()
    server.close()


@pytest.mark.anyio
@pytest.mark.parametrize("latency", [20 * MS, (10 * MS, 30 * MS)])
async def test_latency(latency: Any) -> None:
    """All datagrams arrive, later: in order if all of them take as long."""
    least = latency if isinstance(latency, float) else latency[0]
    begin = anyio.current_time()
    with sending(latency=latency) as server:
        datagrams = RawDatagrams(server)
        with anyio.fail_after(PATIENCE):
            found = [await datagrams.receive() for _ in SENT]
    assert anyio.current_time() - begin >= least - MS  # uvloop rounds
    assert sorted(found) == sorted(SENT)
    assert (found == SENT) is isinstance(latency, float)


@pytest.mark.parametrize("faults", [{"loss": 0.3}, {"duplicate": 0.3}], ids=repr)
def test_seed(faults: dict[str, Any]) -> None:
    """The same seed gives the same, another one something else."""
    one, again, other = (arrived(seed, **faults) for seed in (1, 1, 2))
    assert one == again != other
