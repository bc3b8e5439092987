"""Send one packet to many clients, without waiting for any of them."""

from __future__ import annotations

__all__ = ["ClientGroup"]

import weakref
from collections.abc import Collection, Iterable, Iterator, MutableSet
from functools import partial
from typing import Any, Final, Literal

from easynetwork._tuning import HIGH_WATER
from easynetwork._typevars import _T, _T_Response
from easynetwork.exceptions import ProtocolCrashedError
from easynetwork.servers._stream.packets import PacketClient
from easynetwork.servers.handlers import AsyncStreamClient

_BATCH: Final = 1000
"""Clients that get a packet before the event loop gets a turn: 5 to 10 ms (measured)."""


class _Packet:
    """A packet, and its bytes for each protocol object that was asked for them.

    Attributes:
        error: That of a protocol object that could not make bytes of it.
    """

    __slots__ = ("_encoded", "_packet", "error")

    def __init__(self, packet: Any) -> None:
        self._packet = packet
        # The keys are the objects' ids; the objects are kept so that no other one gets these.
        self._encoded: dict[int, tuple[object, bytes]] = {}
        self.error: ProtocolCrashedError | None = None

    def encode_for(self, client: PacketClient) -> bytes:
        """Return the bytes for a client; none if its protocol object cannot make them."""
        known = self._encoded.get(id(client.protocol))
        if known is None:
            data = b""  # of a packet, there is at least one
            try:
                data = client.encode(self._packet)
            except ProtocolCrashedError as exc:
                self.error = exc
            known = self._encoded[id(client.protocol)] = client.protocol, data
        return known[1]

    def raise_error(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame


class ClientGroup(MutableSet[AsyncStreamClient[_T_Response]]):
    """A set of clients of a server with connections, for chats, feeds and publishers.

    Clients that are closed, or whose connection broke, leave by themselves. The group keeps no
    client alive. All methods must be called in the event loop's thread.

    Args:
        slow: What `broadcast()` does with a client for which more than `high_water` bytes wait to
            be sent: ``"skip"`` it, so that it misses this packet, or ``"abort"`` its connection. A
            client to which tasks wait to send misses the packet, too.
        high_water: A number of bytes. So at most that many, and one packet, wait for each client.

    Attributes:
        skipped: How often a client was too slow for a packet.

    Raises:
        ValueError: `slow` is something else, or `high_water` is negative.
    """

    def __init__(
        self, *, slow: Literal["skip", "abort"] = "skip", high_water: int = HIGH_WATER
    ) -> None:
        if slow not in ("skip", "abort"):
            raise ValueError(f"Invalid slow: expected 'skip' or 'abort', got {slow!r}")
        if high_water < 0:
            raise ValueError("high_water must not be negative")
        self.skipped: int = 0
        self._slow = slow
        self._high_water = high_water
        self._members: dict[weakref.ref[PacketClient], None] = {}  # in the order of `add()`
        self._is_scheduled = False  # `_send_more()` will be called
        self._rest: list[PacketClient] = []  # which the last packet has yet to reach
        self._packet = _Packet(None)  # the last one

    def __repr__(self) -> str:
        return f"<ClientGroup of {len(self)} clients>"

    # -- the set

    def add(self, client: AsyncStreamClient[_T_Response]) -> None:
        """Add a client. Does nothing if it is a member, or closed.

        Args:
            client: A client that a server has given to its handler.

        Raises:
            TypeError: It is something else.
        """
        if not isinstance(client, PacketClient):
            raise TypeError(f"Expected a client of a server with connections, got {client!r}")
        if not client.is_closing():
            self._members[weakref.ref(client, partial(_forget, self._members))] = None

    def discard(self, client: AsyncStreamClient[_T_Response]) -> None:
        """Remove a client, if it is a member."""
        if isinstance(client, PacketClient):
            self._members.pop(weakref.ref(client), None)

    def __contains__(self, client: object) -> bool:
        return (
            isinstance(client, PacketClient)
            and weakref.ref(client) in self._members
            and not client.is_closing()
        )

    def __iter__(self) -> Iterator[AsyncStreamClient[_T_Response]]:
        return iter(self._open_members())

    def __len__(self) -> int:
        return len(self._open_members())

    def clear(self) -> None:
        """Remove all clients."""
        self._members.clear()

    @classmethod
    def _from_iterable(cls, it: Iterable[_T]) -> set[_T]:
        return set(it)  # what the operators of sets return

    def _open_members(self) -> list[PacketClient]:
        """Return the clients that are not closed, and forget the others."""
        found = []
        for reference in list(self._members):
            client = reference()
            if client is None or client.is_closing():
                self._members.pop(reference, None)
            else:
                found.append(client)
        return found

    # -- sending

    def broadcast(
        self, packet: _T_Response, *, exclude: Collection[AsyncStreamClient[_T_Response]] = ()
    ) -> int:
        """Send a packet to all clients. Never waits.

        The packet is encoded once for each protocol object that the clients speak. The first 1,000
        clients get it at once, the others at the next turns of the event loop. Each client gets the
        packets of several broadcasts in their order.

        Args:
            packet: The object to send.
            exclude: Clients that do not get it.

        Returns:
            How many clients got it, or will at the next turns. Not those that were too slow.

        Raises:
            ProtocolCrashedError: A protocol object could not make bytes of the packet (the cause).
                The clients that speak another one got it, or will.
            RuntimeError: This is not the event loop's thread.
        """
        while self._rest:  # at most one packet is on its way
            self._send_rest()
        encoded = _Packet(packet)
        is_strict = self._high_water < HIGH_WATER  # what is not congested may be too full for that
        protocol, data, sent = None, b"", 0
        for reference in list(self._members):
            client = reference()
            if client is None or (exclude and client in exclude):
                continue
            if client.protocol is not protocol:
                client.tasks.check_thread()
                protocol, data = client.protocol, encoded.encode_for(client)
            if not data:
                continue
            if sent == _BATCH:
                self._rest.append(client)
            elif (
                client.transport.congested
                or client.is_closed
                or client.flush_is_scheduled
                or is_strict
            ):
                sent += self._offer(client, data)
            else:  # the usual case, with one call. Two more cost a tenth of it all (measured)
                try:
                    client.transport.write(data)
                except ConnectionError:  # reported to the next operation on the connection
                    pass
                else:
                    sent += 1
                    client.packets_sent += 1
                    client.bytes_sent += len(data)
        self._packet = encoded
        self._go_on()
        encoded.raise_error()
        return sent + len(self._rest)

    def _offer(self, client: PacketClient, data: bytes) -> bool:
        if client.offer(data, self._high_water):
            return True
        if not client.is_closing():
            self.skipped += 1
            if self._slow == "abort" and client.get_unsent_size() > self._high_water:
                client.abort()
        return False

    def _go_on(self) -> None:
        """Have the rest sent at the next turns of the event loop."""
        if not self._rest:
            self._packet = _Packet(None)
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._rest[0].transport.call_soon(self._send_more)

    def _send_more(self) -> None:
        self._is_scheduled = False
        self._send_rest()
        self._go_on()

    def _send_rest(self) -> None:
        batch, self._rest = self._rest[:_BATCH], self._rest[_BATCH:]
        for client in batch:
            if data := self._packet.encode_for(client):
                self._offer(client, data)
            else:  # of a protocol object that it did not speak before
                self.skipped += 1


def _forget(members: dict[weakref.ref[Any], None], reference: weakref.ref[Any]) -> None:
    members.pop(reference, None)
