"""`ClientGroup`, with clients whose connections are made up."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.backends.abc import Incoming, SessionTasks
from easynetwork.codec import new_codec
from easynetwork.exceptions import ProtocolCrashedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers._stream.client import ServedClient
from easynetwork.servers.groups import ClientGroup

MANY = 2_500


class Loop:
    """Calls functions at its next turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Connection:
    """Keeps what is sent."""

    def __init__(self, loop: Loop) -> None:
        self.sent: list[bytes] = []
        self.unsent = 0
        self.queued = False
        self.closed = self.broken = False
        self.call_soon = lambda callback: loop.soon.append(callback)
        self.extra_attributes: dict[Any, Any] = {}
        self.feed: Any = None

    def write(self, data: bytes) -> int:
        if self.broken:
            self.closed = True
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        self.sent.append(bytes(data))
        return len(data)

    def get_unsent_size(self) -> int:
        return self.unsent

    @property
    def congested(self) -> bool:
        return self.queued or self.unsent > HIGH_WATER

    def make_room(self, high_water: int) -> bool:
        return not self.queued and self.unsent <= high_water

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Counting(StreamProtocol[Any, Any]):
    """Counts what it encodes; cannot encode everything."""

    calls = 0

    def generate_chunks(self, packet: Any) -> Any:
        self.calls += 1
        if packet == "crash":
            raise LookupError
        yield from super().generate_chunks(packet)


class World:
    """Makes clients."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.protocol = Counting(StringLineSerializer())
        self.number = 0

    def client(self, protocol: Any = None) -> Any:
        self.number += 1
        tasks: Any = SimpleNamespace(
            check_thread=lambda: SessionTasks.check_thread(tasks), thread=threading.get_ident()
        )
        codec = new_codec(protocol or self.protocol, 65_536)
        options: Any = SimpleNamespace(codec=codec, max_recv_size=65_536)
        connection: Any = Connection(self.loop)
        incoming = Incoming(connection, "local", f"address {self.number}")  # type: ignore[arg-type]
        return ServedClient(options, tasks, incoming, codec.new_decoder())

    def clients(self, count: int) -> list[Any]:
        return [self.client() for _ in range(count)]


@pytest.fixture
def world() -> World:
    return World()


def new_group(clients: Any, **options: Any) -> ClientGroup[str]:
    group = ClientGroup[str](**options)
    for client in clients:
        group.add(client)
    return group


# -- the set


def test_members(world: World) -> None:
    """It is a set, in the order in which clients were added."""
    one, two, three = world.clients(3)
    group = new_group([one, two, one])
    assert list(group) == [one, two]
    assert len(group) == 2
    assert one in group
    assert three not in group
    assert "something" not in group
    assert repr(group) == "<ClientGroup of 2 clients>"
    group.discard(three)
    group.discard(one)
    group.discard(one)
    assert list(group) == [two]
    with pytest.raises(KeyError):
        group.remove(one)
    group.add(one)
    assert list(group) == [two, one]


@pytest.mark.parametrize("other", [None, "client", object()])
def test_something_else(other: Any) -> None:
    """Only clients of a server with connections can be members."""
    group = ClientGroup[str]()
    with pytest.raises(TypeError, match="Expected a client of a server with connections"):
        group.add(other)
    group.discard(other)
    assert len(group) == 0


def test_operators(world: World) -> None:
    """The operators of sets give sets, and those that change it change it."""
    one, two, three = world.clients(3)
    group = new_group([one, two])
    assert group & {two, three} == {two}
    assert group | {three} == {one, two, three}
    assert group - {one} == {two}
    assert group ^ {one, three} == {two, three}
    assert group == {one, two}
    assert group <= {one, two, three}
    assert group.isdisjoint({three})
    group |= {three}
    group -= {one}
    assert list(group) == [two, three]
    group &= {three}
    assert list(group) == [three]
    group ^= {one, three}
    assert list(group) == [one]


def test_clear(world: World) -> None:
    """A large group is cleared at once."""
    clients = world.clients(MANY)
    group = new_group(clients)
    group.clear()
    assert len(group) == 0
    assert group.broadcast("hello") == 0


def test_changed_while_iterating(world: World) -> None:
    """A group may change while it is iterated over."""
    clients = world.clients(10)
    group = new_group(clients)
    for client in group:
        group.discard(client)
        group.add(world.client())
    assert len(group) == 0  # nothing else refers to the new ones


@pytest.mark.parametrize("how", ["closed here", "broken"])
def test_closed_clients(world: World, how: str) -> None:
    """They leave by themselves, and cannot be added."""
    one, two = world.clients(2)
    group = new_group([one, two])
    if how == "broken":
        one.transport.closed = True
    else:
        one.is_closed = True
    assert one not in group
    assert list(group) == [two]
    assert len(group) == 1
    group.add(one)
    assert len(group) == 1
    assert group.broadcast("hello") == 1
    assert one.transport.sent == []


def test_keeps_nobody_alive(world: World) -> None:
    """It refers to its members weakly, without cycles."""
    clients = world.clients(3)
    group = new_group(clients)
    group.add(clients[0])
    known = [weakref.ref(client) for client in clients]
    group.broadcast("hello")
    gc.collect()
    gc.disable()
    try:
        del clients[1:]
        assert [reference() is None for reference in known] == [False, True, True]
        assert list(group) == clients
        clients.clear()
        assert known[0]() is None
        assert len(group) == 0
    finally:
        gc.enable()


def test_forgotten_group(world: World) -> None:
    """Clients do not keep their group."""
    clients = world.clients(3)
    group = new_group(clients)
    known = weakref.ref(group)
    del group
    gc.collect()
    assert known() is None
    del clients


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slow": "wait"}, "Invalid slow: expected 'skip' or 'abort', got 'wait'"),
        ({"high_water": -1}, "high_water must not be negative"),
    ],
)
def test_invalid_arguments(options: Any, message: str) -> None:
    """They are refused."""
    with pytest.raises(ValueError, match=message):
        ClientGroup(**options)


# -- broadcasts


def test_broadcast(world: World) -> None:
    """Everybody gets the packet, which is encoded once; those that are excluded do not."""
    clients = world.clients(10)
    group = new_group(clients)
    assert group.broadcast("hello") == 10
    assert world.protocol.calls == 1
    assert group.broadcast("some", exclude=clients[:3]) == 7
    assert group.broadcast("none", exclude=group) == 0
    expected = [[b"hello\n"]] * 3 + [[b"hello\n", b"some\n"]] * 7
    assert [client.transport.sent for client in clients] == expected
    assert group.skipped == 0


def test_two_protocols(world: World) -> None:
    """It is encoded once for each protocol object."""
    other = Counting(StringLineSerializer("CRLF"))
    clients = [world.client(protocol) for protocol in (None, other) * 5]
    group = new_group(clients)
    assert group.broadcast("hello") == 10
    assert (world.protocol.calls, other.calls) == (1, 1)
    assert [client.transport.sent for client in clients] == [[b"hello\n"], [b"hello\r\n"]] * 5


def test_what_cannot_be_encoded(world: World) -> None:
    """Nothing is sent to those that speak this protocol object, and no place is lost."""
    clients = world.clients(2)
    group = new_group(clients)
    with pytest.raises(ProtocolCrashedError):
        group.broadcast("crash")
    assert [client.transport.sent for client in clients] == [[], []]
    assert group.broadcast("fine") == 2


def test_not_encoded_for_those_who_are_excluded(world: World) -> None:
    """The protocol object of a client that is excluded is not asked."""
    plain = StreamProtocol[Any, Any](StringLineSerializer())
    one, two = world.client(plain), world.client()
    assert new_group([one, two]).broadcast("crash", exclude=[two]) == 1
    assert (one.transport.sent, two.transport.sent) == ([b"crash\n"], [])


def test_slow_clients_are_skipped(world: World) -> None:
    """Those for which more waits than the high-water mark miss the packet, and are counted."""
    clients = world.clients(3)
    clients[0].transport.unsent = HIGH_WATER
    clients[1].transport.unsent = HIGH_WATER + 1
    group = new_group(clients)
    assert group.broadcast("hello") == 2
    assert group.skipped == 1
    assert [len(client.transport.sent) for client in clients] == [1, 0, 1]
    clients[1].transport.unsent = 0
    assert group.broadcast("again") == 3
    assert group.skipped == 1


@pytest.mark.parametrize("high_water", [0, 1_000, 1_000_000])
def test_slow_clients_are_aborted(world: World, high_water: int) -> None:
    """Or their connections are reset, if the group is told so."""
    clients = world.clients(2)
    clients[1].transport.unsent = high_water + 1
    clients[0].transport.unsent = high_water
    group = new_group(clients, slow="abort", high_water=high_water)
    assert group.broadcast("hello") == 1
    assert group.skipped == 1
    assert list(group) == clients[:1]
    assert clients[1].is_closing()
    assert clients[1].transport.closed


@pytest.mark.parametrize("slow", ["skip", "abort"])
def test_client_with_a_queue(world: World, slow: Any) -> None:
    """A client to which tasks wait to send misses the packet; it is slow only if much waits."""
    [client] = world.clients(1)
    client.transport.queued = True
    group = new_group([client], slow=slow)
    assert group.broadcast("hello") == 0
    assert group.skipped == 1
    assert client.transport.sent == []
    assert not client.is_closing()


def test_broken_clients(world: World) -> None:
    """A connection that breaks is not counted, and stops nobody else."""
    clients = world.clients(3)
    clients[1].transport.broken = True
    group = new_group(clients)
    assert group.broadcast("hello") == 2
    assert group.skipped == 0
    assert list(group) == [clients[0], clients[2]]


def test_gathered_answers(world: World) -> None:
    """It does not overtake answers that were gathered."""
    [client] = world.clients(1)
    client._begin_to_gather(b"answer\n")
    assert new_group([client]).broadcast("hello") == 1
    client.flush()
    assert b"".join(client.transport.sent) == b"answer\nhello\n"


# -- many clients


def received(clients: list[Any]) -> list[int]:
    """Return how many packets each client has got."""
    return [len(client.transport.sent) for client in clients]


def test_many(world: World) -> None:
    """A thousand clients get the packet at once, each thousand more at the next turn."""
    clients = world.clients(MANY)
    group = new_group(clients)
    assert group.broadcast("hello") == MANY
    assert received(clients) == [1] * 1_000 + [0] * 1_500
    world.loop.turn()
    assert received(clients) == [1] * 2_000 + [0] * 500
    world.loop.turn()
    assert received(clients) == [1] * MANY
    world.loop.turn()
    assert (world.loop.soon, world.protocol.calls) == ([], 1)


def test_order(world: World) -> None:
    """Each client gets the packets in their order, however fast they follow each other."""
    clients = world.clients(MANY)
    group = new_group(clients)
    for number in range(5):
        assert group.broadcast(f"{number}") == MANY
        if number == 2:
            world.loop.turn()
    for _ in range(3):
        world.loop.turn()
    expected = [f"{number}\n".encode() for number in range(5)]
    assert all(client.transport.sent == expected for client in clients)
    assert world.loop.soon == []


def test_clients_that_leave_meanwhile(world: World) -> None:
    """Clients that leave before their turn, or become slow, do not get the packet."""
    clients = world.clients(1_003)
    group = new_group(clients)
    assert group.broadcast("hello") == 1_003
    clients[1_000].is_closed = True
    clients[1_001].transport.unsent = HIGH_WATER + 1
    world.loop.turn()
    assert received(clients[1_000:]) == [0, 0, 1]
    assert group.skipped == 1


def test_protocol_that_changes_meanwhile(world: World) -> None:
    """A client that speaks another protocol at its turn gets the packet in that one."""
    clients = world.clients(1_002)
    group = new_group(clients)
    group.broadcast("hello")
    clients[1_000].set_protocol(StreamProtocol(StringLineSerializer("CRLF")))
    world.loop.turn()
    assert [client.transport.sent for client in clients[1_000:]] == [[b"hello\r\n"], [b"hello\n"]]


def test_other_thread(world: World) -> None:
    """In another thread, a broadcast says the rule, and does nothing."""
    clients = world.clients(3)
    group = new_group(clients)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            group.broadcast("hello")
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "only be used in the thread of its event loop" in str(errors[0])
    assert received(clients) == [0, 0, 0]
    assert world.protocol.calls == 0
