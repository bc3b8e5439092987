"""What the tests of the page about SMTP share: its modules, its program, and a client of bytes."""

from __future__ import annotations

import contextlib
import importlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio

from easynetwork.testing import MemoryNetwork, serve
from tests.docs.howto_support import DOCS
from tests.times import PATIENCE

FOLDER = DOCS / "_include/examples/protocols/smtp"

LOGIN = ("ada", "lovelace")


def example(name: str) -> Any:
    """Import a module of the page, which finds its neighbours as in a reader's folder."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


mail_auth = example("mail_auth")
mail_content = example("mail_content")
mail_handler = example("mail_handler")
mail_protocol = example("mail_protocol")
mail_queue = example("mail_queue")
mail_server = example("mail_server")
mail_session = example("mail_session")


# The handler on the network in memory


@contextlib.asynccontextmanager
async def serving_in_memory(queue: Any, settings: Any = None, **options: Any) -> AsyncIterator[Any]:
    """Serve the page's handler while the block runs."""
    handler = mail_handler.MailRequestHandler(settings or mail_session.Settings(), queue)
    network = options.pop("network", None) or MemoryNetwork()
    with anyio.fail_after(PATIENCE):
        async with serve(handler, mail_protocol.COMMANDS, network=network, **options) as served:
            yield served


async def send_and_read(served: Any, data: bytes, **faults: Any) -> bytes:
    """Send bytes, at once, and return all that comes up to the end of the connection."""
    connection = await served.connect(raw=True, **faults)
    await connection.send(data)
    return await read_to_the_end(connection)


async def read_to_the_end(connection: Any) -> bytes:
    replies = b""
    while data := await connection.receive():
        replies += data
    return replies


def codes(replies: bytes) -> list[int]:
    """Return the codes of replies, one for each."""
    return [int(code) for code in re.findall(rb"^(\d\d\d) ", replies, re.MULTILINE)]


# The program


class Program:
    """The page's program, on a free port.

    Attributes:
        folder: Where it runs. Its queue is there.
        process: The process.
        port: Its port.
    """

    def __init__(self, folder: Path, *options: str, name: str = "mail_server.py") -> None:
        self.folder = folder
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(FOLDER / name), "--port=0", *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.port = int(self.wait_for(r"Start serving at \('[^']*', (\d+)")[1])
        except BaseException:
            self.kill()
            raise

    def log(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it logs something."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if found := re.search(pattern, self.log()):
                return found
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it as a process manager does."""
        self.process.terminate()
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Wait until it has stopped; nothing must have gone wrong."""
        assert self.process.wait(PATIENCE) == 0, self.log()
        assert "Traceback" not in self.log()
        assert "ERROR" not in self.log()

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def queued(self) -> list[tuple[dict[str, Any], bytes]]:
        """Return the messages in its queue; each of them must be complete."""
        queue = mail_queue.MailQueue(self.folder / "queue")
        return [mail_queue.read_mail(path) for path in queue.messages()]


@contextlib.contextmanager
def running(folder: Path, *options: str, name: str = "mail_server.py") -> Iterator[Program]:
    """Run the program while the block runs, then stop it."""
    program = Program(folder, *options, name=name)
    try:
        yield program
        if program.process.poll() is None:
            program.stop()
    finally:
        program.kill()


# A client of bytes


class Client:
    """A client that sends what it is told to, and reads replies.

    Args:
        port: The server's port.
        host: The client's own address.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, (host, 0))
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def reply(self) -> str:
        """Return the next reply; "" at the end of the stream."""
        reply = ""
        while line := self._file.readline().decode():
            reply += line
            if line[3:4] != "-":
                break
        return reply

    def ask(self, data: bytes, count: int = 1) -> str:
        """Send bytes and return the last one of several replies."""
        self.socket.sendall(data)
        return [self.reply() for _ in range(count)][-1]


ENVELOPE = (
    b"EHLO client.example.org\r\n"
    b"MAIL FROM:<ada@example.org>\r\n"
    b"RCPT TO:<bob@example.com>\r\n"
    b"DATA\r\n"
)
