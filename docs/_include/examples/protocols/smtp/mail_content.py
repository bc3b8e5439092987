from __future__ import annotations

import logging
from typing import Any

import anyio
from mail_protocol import NOT_LINES, NOT_STORED, TIMEOUT, TOO_LARGE, Reply
from mail_queue import NewMail, QueueError
from mail_session import Settings

from easynetwork.exceptions import DeserializeError, StreamProtocolParseError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.servers.handlers import AsyncStreamClient

logger = logging.getLogger("mail")


class ContentSerializer(AutoSeparatedPacketSerializer[bytes | None, bytes | None]):
    """A packet is a line of a message, without its end. None is the end of the message."""

    def __init__(self, *, limit: int = 65_536) -> None:
        super().__init__(b"\r\n", limit=limit)

    def serialize(self, packet: bytes | None) -> bytes:
        if packet is None:
            return b"."
        return b"." + packet if packet.startswith(b".") else packet

    def deserialize(self, data: bytes) -> bytes | None:
        if data == b".":
            return None
        if b"\r" in data or b"\n" in data:
            raise DeserializeError("CR or LF inside a line")
        return data.removeprefix(b".")


CONTENT = StreamProtocol(ContentSerializer())


async def receive_content(
    client: AsyncStreamClient[Any], mail: NewMail, settings: Settings
) -> Reply | None:
    """Write a message to the queue, up to its end. Return why it is refused, if it is."""
    problem: Reply | None = None
    size = 0
    with anyio.move_on_after(settings.content_timeout):
        while True:
            try:
                line: bytes | None = await client.recv_packet()
                if line is None:
                    return problem
                size += len(line) + 2
                if size > settings.max_size:
                    problem = TOO_LARGE
                elif problem is None:
                    mail.write(line)
            except StreamProtocolParseError:
                problem = NOT_LINES
            except QueueError as exc:
                logger.error("A message cannot be stored: %s", exc)
                problem = NOT_STORED
    return TIMEOUT
