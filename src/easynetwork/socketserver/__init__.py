"""Packets for the standard library's `socketserver`.

The handlers work with every server class of `socketserver`. The server classes here are subclasses
of those in `socketserver`: you create them and override their methods in the same way. They add
TLS, a limit of threads, a deadline for `server_close()`, and a log that no client can fill. As in
the standard module, Windows has no `Forking…` and no `Unix…` classes. The other classes of the
standard module can be imported from here, too: to move a program here, change its imports only.
"""

from __future__ import annotations

import socketserver
from socketserver import (
    BaseRequestHandler,
    BaseServer,
    DatagramRequestHandler,
    StreamRequestHandler,
)

from easynetwork.socketserver._handlers import DatagramPacketHandler, StreamPacketHandler
from easynetwork.socketserver._mixins import ThreadingMixIn, ThreadingTCPServer, ThreadingUDPServer
from easynetwork.socketserver._servers import TCPServer, UDPServer

__all__ = [
    "BaseRequestHandler",
    "BaseServer",
    "DatagramPacketHandler",
    "DatagramRequestHandler",
    "StreamPacketHandler",
    "StreamRequestHandler",
    "TCPServer",
    "ThreadingMixIn",
    "ThreadingTCPServer",
    "ThreadingUDPServer",
    "UDPServer",
]

if hasattr(socketserver, "ForkingMixIn"):
    from easynetwork.socketserver._mixins import ForkingMixIn, ForkingTCPServer, ForkingUDPServer

    __all__ += ["ForkingMixIn", "ForkingTCPServer", "ForkingUDPServer"]

if hasattr(socketserver, "UnixStreamServer"):
    from easynetwork.socketserver._mixins import (
        ForkingUnixDatagramServer,
        ForkingUnixStreamServer,
        ThreadingUnixDatagramServer,
        ThreadingUnixStreamServer,
    )
    from easynetwork.socketserver._servers import UnixDatagramServer, UnixStreamServer

    __all__ += [
        "ForkingUnixDatagramServer",
        "ForkingUnixStreamServer",
        "ThreadingUnixDatagramServer",
        "ThreadingUnixStreamServer",
        "UnixDatagramServer",
        "UnixStreamServer",
    ]
