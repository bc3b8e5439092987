"""The commands that are about the connection, or the server."""

from __future__ import annotations

from typing import Any, Final

from .commands import COMMANDS, command
from .resp import Error, Reply

VERSION: Final = "7.0.0"
SETTINGS: Final = {b"save": b"", b"appendonly": b"no"}


class Connection:
    """What a client may ask for before, or beside, its work."""

    def __init__(self, server: Any, number: int) -> None:
        self.server = server
        self.number = number
        self.name: bytes | None = None
        self.has_quit = False

    @command("ECHO", "connection")
    def echo(self, message: bytes) -> Reply:
        return message

    @command("QUIT", "connection")
    def quit(self) -> Reply:
        self.has_quit = True
        return "OK"

    @command("POST", "connection")
    @command("HOST:", "connection")
    def refuse_http(self, *words: bytes) -> Reply:
        """Disconnect a browser: a web page can make it send a request to this machine."""
        self.has_quit = True
        raise Error("ERR this is not a web server")

    @command("SELECT", "connection")
    def select(self, index: bytes) -> Reply:
        if index != b"0":
            raise Error("ERR DB index is out of range")
        return "OK"

    @command("HELLO", "connection")
    def hello(self, version: bytes = b"2", *options: bytes) -> Reply:
        if version != b"2":
            raise Error("NOPROTO unsupported protocol version")
        if options:
            raise Error("ERR syntax error")
        facts: dict[bytes, Reply] = {
            b"server": b"redis",
            b"version": VERSION.encode(),
            b"proto": 2,
            b"id": self.number,
            b"mode": b"standalone",
            b"role": b"master",
            b"modules": [],
        }
        return [word for fact in facts.items() for word in fact]

    @command("CLIENT", "connection")
    def client(self, subcommand: bytes, *words: bytes) -> Reply:
        match subcommand.upper(), words:
            case b"ID", ():
                return self.number
            case b"GETNAME", ():
                return self.name
            case b"SETNAME", (name,):
                self.name = name
                return "OK"
            case b"SETINFO", (_, _):
                return "OK"
        raise Error("ERR unknown subcommand or wrong number of arguments for 'client' command")

    @command("CONFIG", "connection")
    def config(self, subcommand: bytes, *names: bytes) -> Reply:
        if subcommand.upper() != b"GET":
            raise Error("ERR only CONFIG GET is supported")
        found = [name for name in map(bytes.lower, names) if name in SETTINGS]
        return [word for name in found for word in (name, SETTINGS[name])]

    @command("COMMAND", "connection")
    def list_commands(self, *words: bytes) -> Reply:
        if [word.upper() for word in words] == [b"COUNT"]:
            return len(COMMANDS)
        return []  # redis-cli shows no hints then

    @command("INFO", "connection")
    def info(self, *sections: bytes) -> Reply:
        statistics = self.server.get_statistics()
        lines = (
            "# Server",
            f"redis_version:{VERSION}",
            "# Clients",
            f"connected_clients:{statistics.clients}",
            "# Stats",
            f"total_connections_received:{statistics.accepted}",
            f"total_commands_processed:{statistics.packets_received}",
        )
        return "".join(f"{line}\r\n" for line in lines).encode()
