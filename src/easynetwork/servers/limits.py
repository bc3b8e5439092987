"""What a server allows its clients: how many, how slow, how long."""

from __future__ import annotations

__all__ = ["DatagramLimits", "Limits"]

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, Self, TypeVar

from easynetwork._tuning import CLOSE_TIMEOUT

try:
    import resource
except ModuleNotFoundError:

    def _descriptors() -> float:
        return math.inf  # Windows: sockets are no descriptors there

else:

    def _descriptors() -> float:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return math.inf if soft == resource.RLIM_INFINITY else soft


_T_Limits = TypeVar("_T_Limits", "Limits", "DatagramLimits")

_MOST_CLIENTS: Final = 10_000
"""Connections of a server that nobody has thought about: 60 MB, if they are idle (measured)."""

_SHARE: Final = 0.8
"""Of the descriptors of the process: the rest is for its files, databases and other servers."""

_BATCH: Final = 64
"""Datagrams taken from a socket at once: all of them may be of one peer."""

_LARGEST: Final = 64 * 1024
"""Bytes of the largest UDP datagram: its length has 16 bits (RFC 768)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a stream server allows its clients. `dataclasses.replace` changes single values.

    A client that meets a limit is closed, and `CloseReason` and the log say why. Times are in
    seconds; None means that there is no limit. None of them is met by a client that says nothing
    for hours, by one that only receives, or by one that receives a lot slowly: those have to be
    asked for.

    Attributes:
        max_clients: Connections at a time, those in a handshake included, for each server. More are
            accepted and reset at once. ``"auto"`` stands for 80 % of the descriptors that the
            process may have when the server begins to serve (the soft limit), 10,000 at most.
        max_clients_per_host: Connections at a time of one IPv4 address, or of one IPv6 network of
            64 bits, which is the least that a host gets (RFC 6177). Does not concern Unix sockets.
        first_packet_timeout: From the moment when the handler begins to wait for the first packet,
            right after the connection and the TLS handshake in most cases, to its end.
        packet_timeout: From the first byte of a packet to its last, and one second more for each
            KiB of it that has come.
        idle_timeout: Without a complete packet from the client, and without anything sent to it,
            while its handler waits for a packet.
        send_timeout: Without any progress of the client, while something waits to be sent to it:
            neither does the operating system take a byte, nor does what it has taken become less.
        close_timeout: That a client has, when its connection is closed, to take what was sent. Over
            TLS, `ssl_shutdown_timeout` takes its place, if the server has that option.
        keepalive: Of silence until the operating system asks whether the client is still there. One
            that has vanished is gone within three times that. While sent data is not acknowledged,
            it does not ask, but gives up five seconds after one and a quarter `send_timeout`
            (tcp(7): TCP_USER_TIMEOUT); or, if that is more than two and a half times `keepalive`,
            when the system does, after 15 minutes. TCP only, as far as the platform has these
            options.
    """

    max_clients: int | Literal["auto"] | None = "auto"
    max_clients_per_host: int | None = None
    first_packet_timeout: float | None = None
    packet_timeout: float | None = 60.0
    idle_timeout: float | None = None
    send_timeout: float | None = 60.0
    close_timeout: float | None = CLOSE_TIMEOUT
    keepalive: float | None = 60.0

    @property
    def seconds_to_close(self) -> float:
        """`close_timeout`, infinity for None."""
        return math.inf if self.close_timeout is None else self.close_timeout

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TypeError: One is not a number.
            ValueError: One is not positive, infinite or not a number.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("max_"):
                _check_count(field.name, value)
            else:
                check_timeout(field.name, value)

    def in_force(self) -> Self:
        """Return the limits as they are for a server that begins to serve now."""
        if self.max_clients != "auto":
            return self
        found = min(_MOST_CLIENTS, _descriptors() * _SHARE)
        return replace(self, max_clients=max(1, int(found)))

    @classmethod
    def public(cls) -> Self:
        """Return limits for a port that faces the internet.

        Behind a proxy, all clients have the proxy's address, so `max_clients_per_host` has to be
        None there.
        """
        return cls(
            max_clients_per_host=100,
            first_packet_timeout=30.0,
            packet_timeout=30.0,
            idle_timeout=600.0,
            send_timeout=30.0,
            close_timeout=10.0,
        )

    @classmethod
    def unlimited(cls) -> Self:
        """Return no limits at all, for networks on which every machine is trusted."""
        return cls(**{field.name: None for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramLimits:
    """What a datagram server keeps for its peers. `dataclasses.replace` changes single values.

    A peer has a *place* while a generator of the request handler runs for it. When all places are
    taken and another peer sends a datagram, the peer is *evicted* that has waited longest at a
    `yield` after its first one: `TimeoutError` is raised at that `yield`, whatever timeout it has,
    and if the generator yields again, it is closed. A peer whose generator does not wait for a
    datagram keeps its place. If that is true of all of them, the datagram is dropped.

    Together, the queues hold at most `max_peers` times `max_waiting_bytes`.

    Attributes:
        max_peers: Places of the server, for all its sockets.
        max_peers_per_host: Places of one IPv4 address, or of one IPv6 network of 64 bits. Datagrams
            of more peers are dropped. It keeps a host whose requests take long from taking all
            places. None, the default, is no limit: many users behind one router have one address,
            and so have all clients of a proxy. Besides, a sender can forge the address of another
            host, and so take the places of that host. Does not concern Unix sockets.
        max_waiting: Datagrams of one peer that wait until its generator asks for them.
        max_waiting_bytes: Their total size.
    """

    max_peers: int = 1000
    max_peers_per_host: int | None = None
    max_waiting: int = _BATCH
    max_waiting_bytes: int = 4 * _LARGEST

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TypeError: One is not an integer; only `max_peers_per_host` may be None.
            ValueError: One is not positive.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name != "max_peers_per_host":
                raise TypeError(f"{field.name} must be an integer, got None")
            _check_count(field.name, value)


def _check_count(name: str, value: object) -> None:
    if value is None or (name == "max_clients" and value == "auto"):
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer or None, got {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be strictly positive, got {value}")


def check_timeout(name: str, value: Any) -> None:
    """Make sure that a limit of time is one.

    Raises:
        TypeError: It is neither a number nor None.
        ValueError: It is not strictly positive, or infinite, or not a number.
    """
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds or None, got {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be strictly positive and finite, got {value}")


def changed_limits(limits: Limits, timeouts: Mapping[str, float | None]) -> Limits:
    """Return limits with other timeouts.

    Raises:
        TypeError: One of them cannot be changed for a single client, or is not a number.
        ValueError: One is not strictly positive and finite.
    """
    for name in timeouts:
        if not name.endswith("_timeout"):
            raise TypeError(f"{name} cannot be changed for one client: only timeouts can")
    return replace(limits, **dict(timeouts))  # type: ignore[arg-type]  # checked by itself


def check_limits(limits: _T_Limits | None, kind: type[_T_Limits]) -> _T_Limits:
    """Return the limits of a server; the defaults for None.

    Raises:
        TypeError: They are something else.
    """
    if limits is None:
        return kind()
    if not isinstance(limits, kind):
        raise TypeError(f"Expected a {kind.__name__} object, got {limits!r}")
    return limits
