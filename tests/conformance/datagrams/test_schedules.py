"""Schedules of datagrams and of what handlers do with them, made up by hypothesis."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.servers.handlers import INETClientAttribute
from tests.conformance.datagrams.support import (
    Client,
    NewServer,
    Recorder,
    Requests,
    on_ip,
    serving,
)
from tests.conformance.support import Records

pytestmark = pytest.mark.anyio

PEERS = 3


class Puppet(Recorder):
    """Does what a schedule says: the next generator of a peer, what comes next for that peer.

    Attributes:
        taken: The numbers of the datagrams that each peer's generators got, in order.
        ignored: How many generators of each peer did not ask for their datagram.
        crashes: How many generators raised an exception.
    """

    def __init__(self, schedule: list[list[list[str]]]) -> None:
        super().__init__()
        self.ports: list[int] = []
        self.schedule = [iter(generators) for generators in schedule]
        self.taken: list[list[int]] = [[] for _ in range(PEERS)]
        self.ignored = [0] * PEERS
        self.refused = 0
        self.crashes = 0
        self.is_running = [False] * PEERS

    async def handle(self, client: Client) -> Requests:
        peer = self.ports.index(client.extra(INETClientAttribute.remote_address).port)
        assert not self.is_running[peer], "two generators at once"
        self.is_running[peer] = True
        before = len(self.taken[peer])
        try:
            for action in next(self.schedule[peer], ["take"]):
                match action:
                    case "take":
                        self.take(peer, (yield None))
                    case "poll":
                        try:
                            self.take(peer, (yield 0.001))
                        except TimeoutError:
                            assert len(self.taken[peer]) > before, "the first one cannot time out"
                    case "checkpoint":
                        await anyio.lowlevel.checkpoint()
                    case "sleep":
                        await anyio.sleep(0.001)
                    case "crash":
                        self.crashes += 1
                        raise LookupError
        except DatagramProtocolParseError as exc:
            cause = exc.error.__cause__
            assert isinstance(cause, UnicodeDecodeError)
            self.take(peer, cause.object[1:].decode())
        finally:
            self.ignored[peer] += len(self.taken[peer]) == before
            self.is_running[peer] = False

    def take(self, peer: int, packet: str) -> None:
        self.taken[peer].append(int(packet))


# "take" waits for ever if it is not the first: at the end, the others get what is missing.
generators = st.lists(st.sampled_from(["poll", "checkpoint", "sleep", "crash"]), max_size=5)
schedules = st.lists(st.lists(generators, max_size=8), min_size=PEERS, max_size=PEERS)
pauses = st.sampled_from(["checkpoint", "sleep"])
datagrams = st.tuples(st.integers(0, PEERS - 1), st.booleans())


@on_ip
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schedule=schedules, sending=st.lists(datagrams | pauses, max_size=40))
async def test_schedule(
    new_server: NewServer,
    log: Records,
    schedule: list[list[list[str]]],
    sending: list[tuple[int, bool] | str],
) -> None:
    """Whatever comes when, and whatever handlers do: each datagram once, each peer's in order."""
    handler = Puppet(schedule)
    async with serving(new_server(handler)) as service:
        peers = [service.connect() for _ in range(PEERS)]
        handler.ports = [peer.address[1] for peer in peers]
        sent = [0] * PEERS
        for what in sending:
            if what == "sleep":
                await anyio.sleep(0.001)
            elif isinstance(what, str):
                await anyio.lowlevel.checkpoint()
            else:
                peer, is_valid = what
                peers[peer].send(str(sent[peer]) if is_valid else b"\xff%d" % sent[peer])
                sent[peer] += 1
        await service.statistics(received=sum(sent), peers=0, waiting=0)
        for peer in range(PEERS):
            assert handler.taken[peer] == sorted(set(handler.taken[peer]))
            assert len(handler.taken[peer]) + handler.ignored[peer] == sent[peer]
        assert service.server.get_statistics().dropped == 0
    problems = log.problems()
    errors = [level for level, *_ in problems if level == "ERROR"]
    counts = [int(line.split()[0]) for _, line, _ in problems if "were not logged" in line]
    assert len(errors) + sum(counts) == handler.crashes
