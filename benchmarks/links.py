"""One connection of the load: sends batches of one line and checks every byte of the echo.

Where a format is measured, the "line" is a packet of that format.

All links have the same methods: `ask` sends a batch, `take` reads what has come, `missing` says how
many bytes of answers are still to come. Sockets are non-blocking; what the kernel does not take
at once waits in `unsent` for `flush`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence

from .certificates import client_context
from .packets import PACKETS

__all__ = [
    "HOST",
    "PATIENCE",
    "DatagramLink",
    "Link",
    "StreamLink",
    "TLSLink",
    "WrongAnswerError",
    "make_line",
    "open_links",
]

HOST = "127.0.0.1"
# Bytes read at a time. A larger `recv` costs several times more: beyond 128 KiB the C library maps
# memory for each buffer, and gives it back.
CHUNK = 64 * 1024
# Seconds. A server that answers nothing for so long is broken, not slow.
PATIENCE = 20.0


class WrongAnswerError(Exception):
    """A server answered something else than the echo of the line, or closed."""


class StreamLink:
    """A TCP connection."""

    __slots__ = (
        "asked_at",
        "batch",
        "cycle",
        "greeting",
        "line_size",
        "missing",
        "offset",
        "sock",
        "unsent",
    )

    def __init__(
        self, port: int, line: bytes, in_flight: int, cycle: bytes, greeting: bytes = b"hello\n"
    ) -> None:
        """Connect.

        Args:
            port: The server's port.
            line: What to send, newline included.
            in_flight: How many lines make a batch.
            cycle: The line over and over, longer than CHUNK by one line; shared by all links.
            greeting: A short request.
        """
        self.sock = self._connect(port)
        self.batch, self.cycle, self.line_size = line * in_flight, cycle, len(line)
        self.greeting = greeting
        self.unsent = b""
        self.missing = self.offset = 0
        self.asked_at = 0.0

    @staticmethod
    def _connect(port: int) -> socket.socket:
        sock = socket.create_connection((HOST, port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def greet(self) -> None:
        """Have a short line answered: then the server has accepted, however short its queue."""
        self.sock.sendall(self.greeting)
        if (answer := self.sock.recv(CHUNK)) != self.greeting:
            raise WrongAnswerError(f"expected {self.greeting!r}, got {answer[:80]!r}")
        self.sock.setblocking(False)

    def ask(self, now: float) -> None:
        """Send a batch at a time that is remembered."""
        self.asked_at = now
        self.missing += len(self.batch)
        if self.unsent:
            self.unsent += self.batch
            return
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = self.sock.send(self.batch)
        self.unsent = self.batch[sent:]

    def flush(self) -> None:
        """Send what `ask` had to leave; for a socket that is writable."""
        self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def take(self) -> int:
        """Read what has arrived; return how many bytes of answers it is."""
        data = self.sock.recv(CHUNK)
        if not data or not self.cycle.startswith(data, self.offset):
            raise WrongAnswerError(f"expected the echo of the request, got {data[:80]!r}")
        self.offset = (self.offset + len(data)) % self.line_size
        self.missing -= len(data)
        return len(data)

    def finish(self) -> None:
        """Take the outstanding answers, so that the server sees an orderly end."""
        self.sock.settimeout(PATIENCE)
        self.sock.sendall(self.unsent)
        while self.missing > 0:
            self.take()


class TLSLink(StreamLink):
    """A TCP connection with TLS."""

    __slots__ = ("_incoming", "_outgoing", "_tls")

    def __init__(self, port: int, line: bytes, in_flight: int, cycle: bytes) -> None:
        """Connect, and do the handshake; see `StreamLink`."""
        super().__init__(port, line, in_flight, cycle)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_context().wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost"
        )
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._incoming.write(self.sock.recv(CHUNK))
        self.sock.sendall(self._outgoing.read())

    def greet(self) -> None:
        self._tls.write(b"hello\n")
        self.sock.sendall(self._outgoing.read())
        while not (answer := self._decrypt(self.sock.recv(CHUNK))):
            pass
        if answer != b"hello\n":
            raise WrongAnswerError(f"expected b'hello\\n', got {answer[:80]!r}")
        self.sock.setblocking(False)

    def ask(self, now: float) -> None:
        self.asked_at = now
        self.missing += len(self.batch)
        for start in range(0, len(self.batch), CHUNK):
            self._tls.write(self.batch[start : start + CHUNK])
        self.unsent += self._outgoing.read()
        with contextlib.suppress(BlockingIOError):
            self.flush()

    def take(self) -> int:
        data = self._decrypt(self.sock.recv(CHUNK))
        if not self.cycle.startswith(data, self.offset):
            raise WrongAnswerError(f"expected the echo of the request, got {data[:80]!r}")
        self.offset = (self.offset + len(data)) % self.line_size
        self.missing -= len(data)
        return len(data)

    def _decrypt(self, ciphertext: bytes) -> bytes:
        """Return the data of all complete records."""
        if not ciphertext:
            raise WrongAnswerError("the server has left")
        self._incoming.write(ciphertext)
        plaintext = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while self._incoming.pending:
                plaintext += self._tls.read(CHUNK)
        return plaintext


def unix_name(number: int) -> str:
    """Return the abstract name of a server on a Unix socket; for a port, it prints its number."""
    return f"\0easynetwork-benchmark-{number}"


class UnixLink(StreamLink):
    """A connection over a Unix socket."""

    __slots__ = ()

    @staticmethod
    def _connect(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(unix_name(port))
        return sock


class DatagramLink:
    """A connected UDP socket; each line of a batch is a datagram."""

    __slots__ = ("asked_at", "in_flight", "line", "line_size", "missing", "sock", "unsent")

    def __init__(self, port: int, line: bytes, in_flight: int) -> None:
        """Connect, which for UDP tells the server nothing.

        Args:
            port: The server's port.
            line: What to send, newline included.
            in_flight: How many lines make a batch.
        """
        self.sock = self._connect(port)
        self.sock.setblocking(False)
        self.line, self.line_size, self.in_flight = line, len(line), in_flight
        self.unsent = b""  # always: a datagram leaves whole or is lost
        self.missing = 0
        self.asked_at = 0.0

    @staticmethod
    def _connect(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((HOST, port))
        return sock

    def greet(self) -> None:
        """Do nothing: there is no connection to wait for."""

    def ask(self, now: float) -> None:
        """Send a batch at a time that is remembered; an unanswered one is given up."""
        self.asked_at = now
        self.missing = self.in_flight * self.line_size
        with contextlib.suppress(BlockingIOError):
            for _ in range(self.in_flight):
                self.sock.send(self.line)

    def flush(self) -> None:
        """Do nothing: there is never anything left to send."""

    def take(self) -> int:
        """Read one answer; return its size, or 0 if its batch had been given up."""
        data = self.sock.recv(CHUNK)
        if data != self.line:
            raise WrongAnswerError(f"expected the echo of the request, got {data[:80]!r}")
        if not self.missing:
            return 0
        self.missing -= len(data)
        return len(data)

    def finish(self) -> None:
        """Do nothing: a server of datagrams does not notice unread answers."""


class UnixDatagramLink(DatagramLink):
    """A connected Unix datagram socket."""

    __slots__ = ()

    @staticmethod
    def _connect(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind("")
        sock.connect(unix_name(port))
        return sock


Link = StreamLink | DatagramLink

_STREAMS = {"tcp": StreamLink, "tls": TLSLink, "unix-streams": UnixLink}
_DATAGRAMS = {"udp": DatagramLink, "unix-datagrams": UnixDatagramLink}


def make_line(size: int) -> bytes:
    """Return a line of so many bytes, the newline included."""
    return (b"0123456789abcdef" * (size // 16 + 1))[: size - 1] + b"\n"


@contextlib.contextmanager
def open_links(
    family: str, port: int, count: int, *, size: int, in_flight: int = 1
) -> Iterator[Sequence[Link]]:
    """Open links to a server; at the end take the outstanding answers and close them.

    Args:
        family: As of a `Contender`.
        port: The server's port.
        count: How many links.
        size: Bytes of each line, newline included. A format's packets have a size of their own.
        in_flight: Lines in each batch.
    """
    packet = PACKETS.get(family)
    line = packet or make_line(size)
    cycle = line * (CHUNK // len(line) + 2)
    with contextlib.ExitStack() as stack:
        links: list[Link] = []
        for _ in range(count):
            if family in _DATAGRAMS:
                links.append(_DATAGRAMS[family](port, line, in_flight))
            elif packet:
                links.append(StreamLink(port, packet, in_flight, cycle, greeting=packet))
            else:
                links.append(_STREAMS[family](port, line, in_flight, cycle))
            stack.enter_context(links[-1].sock)
            links[-1].greet()
        yield links
        for link in links:
            link.finish()
