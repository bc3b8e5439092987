"""The contenders: one line for each server, and for each library whose import is timed.

To add a contender, write a file in ``servers/`` and name it here. Within a family all do the same
work, so within a family figures can be compared.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator

from .packets import FORMATS

__all__ = ["CONTENDERS", "REFERENCES", "Contender"]


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One server, or one import.

    Attributes:
        name: Its name on the command line and in tables.
        family: "tcp", "broadcast", "tls", "udp", "unix-streams", "unix-datagrams", a format (over
            TCP) or "import".
        program: File in ``servers/``; for "import", the statement.
        arguments: Of the program, besides the limit and, with TLS, the certificate.
        requires: Modules without which it is skipped.
    """

    name: str
    family: str
    program: str
    arguments: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Return the first required module that is not installed."""
        for module in self.requires:
            if importlib.util.find_spec(module) is None:
                return module
        return None


def _easynetwork(family: str, loop: str, style: str) -> Contender:
    requires = ("easynetwork",) if loop == "asyncio" else ("easynetwork", loop)
    name = f"easynetwork-{'udp-' if family == 'udp' else ''}{loop}-{style}"
    return Contender(name, family, f"easynetwork_{family}.py", (loop, style), requires)


def _formats() -> Iterator[Contender]:
    for name in FORMATS:
        library = ("msgpack",) if name == "msgpack" else ()
        yield Contender(
            f"easynetwork-asyncio-{name}",
            name,
            "easynetwork_formats.py",
            (name,),
            ("easynetwork", *library),
        )
        yield Contender(f"asyncio-streams-{name}", name, "asyncio_formats.py", (name,), library)


def _easynetwork_tls(loop: str) -> Contender:
    requires = ("easynetwork", "trustme") if loop == "asyncio" else ("easynetwork", "trustme", loop)
    arguments = (loop, "loop")
    return Contender(f"easynetwork-{loop}-tls", "tls", "easynetwork_tcp.py", arguments, requires)


def _easynetwork_socketserver(family: str) -> Contender:
    name = f"easynetwork-socketserver-{family}"
    return Contender(name, family, "easynetwork_socketserver.py", (family,), ("easynetwork",))


def _unix(kind: str) -> Iterator[Contender]:
    """Return the contenders over Unix sockets: "streams" or "datagrams"."""
    family = f"unix-{kind}"
    for loop in "asyncio", "uvloop", "trio":
        requires = ("easynetwork",) if loop == "asyncio" else ("easynetwork", loop)
        name = f"easynetwork-{family}-{loop}"
        yield Contender(name, family, "easynetwork_unix.py", (loop, kind), requires)
    # uvloop sends no datagrams to Unix sockets.
    for loop in ("asyncio", "uvloop") if kind == "streams" else ("asyncio",):
        needed = () if loop == "asyncio" else (loop,)
        yield Contender(f"{loop}-{family}", family, "asyncio_unix.py", (loop, kind), needed)
    yield Contender(f"socketserver-{family}", family, "socketserver_unix.py", (kind,))


CONTENDERS = (
    _easynetwork("tcp", "asyncio", "loop"),
    _easynetwork("tcp", "asyncio", "request"),
    _easynetwork("tcp", "asyncio", "helper"),
    _easynetwork("tcp", "uvloop", "loop"),
    _easynetwork("tcp", "uvloop", "request"),
    _easynetwork("tcp", "trio", "loop"),
    _easynetwork("tcp", "trio", "request"),
    Contender("asyncio-streams", "tcp", "asyncio_streams.py", ("asyncio",)),
    Contender("asyncio-protocol", "tcp", "asyncio_protocol.py", ("asyncio",)),
    Contender("uvloop-streams", "tcp", "asyncio_streams.py", ("uvloop",), ("uvloop",)),
    Contender("uvloop-protocol", "tcp", "asyncio_protocol.py", ("uvloop",), ("uvloop",)),
    Contender("trio-streams", "tcp", "trio_streams.py", (), ("trio",)),
    Contender("socketserver", "tcp", "socketserver_tcp.py"),
    _easynetwork_socketserver("tcp"),
    Contender("gevent", "tcp", "gevent_streams.py", (), ("gevent",)),
    Contender("twisted", "tcp", "twisted_lines.py", (), ("twisted",)),
    Contender("epoll-floor", "tcp", "epoll_loop.py"),
    Contender(
        "easynetwork-broadcast", "broadcast", "easynetwork_broadcast.py", (), ("easynetwork",)
    ),
    Contender("epoll-broadcast", "broadcast", "epoll_broadcast.py"),
    _easynetwork_tls("asyncio"),
    _easynetwork_tls("uvloop"),
    _easynetwork_tls("trio"),
    Contender("asyncio-streams-tls", "tls", "asyncio_streams.py", ("asyncio",), ("trustme",)),
    Contender(
        "uvloop-streams-tls", "tls", "asyncio_streams.py", ("uvloop",), ("uvloop", "trustme")
    ),
    Contender("trio-streams-tls", "tls", "trio_streams.py", (), ("trio", "trustme")),
    _easynetwork("udp", "asyncio", "loop"),
    _easynetwork("udp", "asyncio", "request"),
    _easynetwork("udp", "uvloop", "loop"),
    _easynetwork("udp", "uvloop", "request"),
    _easynetwork("udp", "trio", "loop"),
    _easynetwork("udp", "trio", "request"),
    Contender("asyncio-datagrams", "udp", "asyncio_datagrams.py", ("asyncio",)),
    Contender("uvloop-datagrams", "udp", "asyncio_datagrams.py", ("uvloop",), ("uvloop",)),
    Contender("socketserver-udp", "udp", "socketserver_udp.py"),
    _easynetwork_socketserver("udp"),
    Contender("socket-floor", "udp", "socket_udp.py"),
    *_unix("streams"),
    *_unix("datagrams"),
    *_formats(),
    Contender(
        "import-easynetwork",
        "import",
        "from easynetwork.servers import AsyncTCPNetworkServer",
        (),
        ("easynetwork",),
    ),
    Contender("import-asyncio", "import", "import asyncio, anyio", (), ("anyio",)),
    Contender("import-trio", "import", "import trio", (), ("trio",)),
    Contender("import-socketserver", "import", "import socketserver"),
    Contender("import-gevent", "import", "import gevent.server", (), ("gevent",)),
    Contender(
        "import-twisted",
        "import",
        "import twisted.internet.reactor, twisted.protocols.basic",
        (),
        ("twisted",),
    ),
)

REFERENCES = {
    "tcp": "asyncio-streams",
    "broadcast": "epoll-broadcast",
    "tls": "asyncio-streams-tls",
    "udp": "asyncio-datagrams",
    "unix-streams": "asyncio-unix-streams",
    "unix-datagrams": "asyncio-unix-datagrams",
    **{name: f"asyncio-streams-{name}" for name in FORMATS},
    "import": "import-asyncio",
}
"""By family: the contender that ratios are relative to, unless `--against` names another one."""
