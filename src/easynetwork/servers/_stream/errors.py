"""Errors that come from operations on a client, and how to tell that they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from easynetwork.exceptions import BusyResourceError

if TYPE_CHECKING:
    from easynetwork.servers._stream.packets import PacketClient

_OSError = TypeVar("_OSError", bound=OSError)


class DisconnectedError(Exception):
    """Raised where a packet was wanted, and there will be none. Its cause says why."""


def busy() -> BusyResourceError:
    """Return the error of an operation that needs what the client sends, for itself alone."""
    return BusyResourceError(
        "Another task, or handle() at its yield, already waits for a packet of this client"
    )


def tag_with_client(client: PacketClient, exc: _OSError) -> _OSError:
    """Mark an error as coming from an operation on this client, and keep the client alive."""
    vars(exc)["_easynetwork_client"] = client
    return exc


def came_from_client(client: PacketClient, exc: BaseException) -> bool:
    """Whether an exception that left a handler came from an operation on this client."""
    return getattr(exc, "__dict__", {}).get("_easynetwork_client") is client


def was_raised_for_packet(client: PacketClient, exc: BaseException) -> bool:
    """Whether `recv_packet()` of this client has raised an exception in place of a packet."""
    return getattr(exc, "__dict__", {}).get("_easynetwork_receiver") is client
