"""Why a conversation is over, and why the connection ends with it."""

from __future__ import annotations

import enum
from typing import TypeAlias

from easynetwork.servers._core.verdict import Verdict
from easynetwork.servers._stream.packets import PacketClient
from easynetwork.servers.statistics import CloseReason


class Over(enum.Enum):
    """Why a conversation is over, when nothing was raised."""

    FINISHED = "the generator returned, and the client was closed or does not get another one"
    LEFT = "the peer has left, or the client was closed before a yield"
    REFUSED = "the generator returned before its first yield"


End: TypeAlias = Over | BaseException


def reason_of(
    end: End, verdict: Verdict, client: PacketClient, *, is_stopping: bool
) -> CloseReason:
    """Return why a connection ends.

    Args:
        end: Why the conversation is over.
        verdict: Which side is at fault.
        client: The client. What it has sent is still there.
        is_stopping: Whether the server stops.
    """
    if verdict.crash is not None or client.transport.has_lost_descriptor:
        return CloseReason.HANDLER_ERROR
    if verdict.fault is not None:
        return CloseReason.INVALID_DATA
    if client.ended_by is not None:
        return client.ended_by
    if is_stopping:
        return CloseReason.STOPPED
    if verdict.timeout:
        return CloseReason.IDLE_TIMEOUT
    if end is Over.REFUSED:
        return CloseReason.REFUSED
    if end is Over.FINISHED or verdict.misuse is not None:
        return CloseReason.CLOSED
    if client.decoder:
        return CloseReason.TRUNCATED
    return CloseReason.PEER_CLOSED
