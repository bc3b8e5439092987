"""A program that serves in its only thread, so that its server may fork.

Prints its address, and ends at Control-C. SIGUSR1 has it print whether it has child processes.

    python -m tests.docs.socketserver_program SERVER HANDLER ADDRESS OPTIONS

The first two are a module, a colon and a name in it; the others are Python literals. What only
tests need is not imported here: it takes longer than all that such a program does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socketserver
import sys
import threading
from ast import literal_eval
from pkgutil import resolve_name
from typing import Any

from docs._include.examples.howto.socketserver import four_servers
from easynetwork.socketserver import StreamPacketHandler

POLL_INTERVAL = 0.01
"""How long a server of a test takes to notice `shutdown()`, in seconds."""


def server_class(name: str) -> Any:
    """Return a class of servers; before Python 3.12, two of them are for the user to combine.

    Args:
        name: Its module, a colon, and its name there.
    """
    module_name, _, class_name = name.partition(":")
    module = importlib.import_module(module_name)
    if module is socketserver and not hasattr(module, class_name):
        mix_in, base = "ForkingMixIn", class_name.removeprefix("Forking")
        return type(class_name, (getattr(module, mix_in), getattr(module, base)), {})
    return getattr(module, class_name)


class SignalledRequestHandler(StreamPacketHandler[str, str]):
    """Sends its process ID, then tells of SIGTERM, and waits for the next signal."""

    protocol = four_servers.STREAM

    def handle(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.send_packet("SIGTERM"))
        self.send_packet(str(os.getpid()))
        while True:
            signal.pause()


class ReportingRequestHandler(StreamPacketHandler[str, str]):
    """Sends its process ID and the packet back, or crashes."""

    protocol = four_servers.STREAM

    def handle(self) -> None:
        for packet in self.packets():
            if packet == "crash":
                raise LookupError("on demand")
            self.send_packet(f"{os.getpid()} {packet}")


def report(*_: Any) -> None:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        print("no children", flush=True)
    else:
        print("children", flush=True)


def stop_between_requests(server: Any) -> None:
    """Have Control-C end the server's loop, but not while a request is being processed.

    Between `os.fork()` and the next statement, the server would not know its child.
    """
    interrupts: list[object] = []
    service_actions = server.service_actions

    def service_actions_and_end() -> None:
        service_actions()
        if interrupts:
            raise KeyboardInterrupt

    server.service_actions = service_actions_and_end
    signal.signal(signal.SIGINT, lambda *_: interrupts.append(None))


def main() -> None:
    server_name, handler_name, address, options = sys.argv[1:]
    signal.signal(signal.SIGUSR1, report)
    handler = resolve_name(handler_name)
    server = server_class(server_name)(literal_eval(address), handler, **literal_eval(options))
    stop_between_requests(server)
    with contextlib.suppress(KeyboardInterrupt), server:
        print(f"serving at {server.server_address!r}", flush=True)
        server.serve_forever(POLL_INTERVAL)
    assert threading.active_count() == 1


if __name__ == "__main__":
    main()
