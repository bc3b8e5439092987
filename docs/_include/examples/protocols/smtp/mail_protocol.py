from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import PacketConversionError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer


@dataclass(frozen=True, slots=True)
class Reply:
    """A code, and a text of one or more lines. Most begin with an enhanced code (RFC 3463)."""

    code: int
    text: str


GO_AHEAD: Final = Reply(354, "End the message with a dot on a line of its own")
SHUTTING_DOWN: Final = Reply(421, "4.3.2 The server is shutting down")
TIMEOUT: Final = Reply(421, "4.4.2 Timeout, closing the connection")
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0 Too many errors, closing the connection")
TOO_MANY_COMMANDS: Final = Reply(421, "4.7.0 Too many commands, closing the connection")
NOT_STORED: Final = Reply(451, "4.3.0 The message cannot be stored now")
NOT_A_COMMAND: Final = Reply(500, "5.5.2 A command is a line of ASCII that ends with CRLF")
TOO_LARGE: Final = Reply(552, "5.3.4 The message is too large")
NOT_LINES: Final = Reply(554, "5.6.0 A line is too long, or contains a bare CR or LF")


class CommandConverter(AbstractPacketConverterComposite[Reply, str, str, str]):
    """A request is one line of printable ASCII characters. A response is a Reply."""

    def create_from_dto_packet(self, packet: str) -> str:
        if not packet.isprintable():
            raise PacketConversionError("control character in a command")
        return packet

    def convert_to_dto_packet(self, obj: Reply) -> str:
        *lines, last = obj.text.split("\n")
        return "".join(f"{obj.code}-{line}\r\n" for line in lines) + f"{obj.code} {last}"


# RFC 4954 allows 12,288 bytes for a line with credentials. All other commands are shorter.
COMMANDS = StreamProtocol(StringLineSerializer("CRLF", limit=12_288), CommandConverter())
