"""A server of `socketserver` in a program of its own, which may fork and can be measured.

It prints its port, logs to standard error, and closes the server when its standard input ends. Its
exit status is 0 if no child is left then.

A packet is a command:

* ``pid`` is answered by the number of the process that handles it;
* ``pause`` by itself, and then nothing happens any more;
* ``ignore`` likewise, and SIGTERM is ignored;
* ``crash`` raises an exception;
* everything else is sent back.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import socketserver as standard
import sys
import threading
from typing import Any

import easynetwork.socketserver as ours
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer


class StdinEndError(Exception):
    """Standard input has ended."""


class Handler:
    """Does what it is told."""

    def obey(self: Any, command: str) -> None:
        match command:
            case "pid":
                self.send_packet(str(os.getpid()))
            case "pause" | "ignore":
                if command == "ignore":
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self.send_packet(command)
                threading.Event().wait()
            case "crash":
                raise LookupError("on demand")
            case _:
                self.send_packet(command)


class StreamHandler(Handler, ours.StreamPacketHandler[str, str]):
    protocol = StreamProtocol(StringLineSerializer())
    idle_time: float | None = None

    def handle(self) -> None:
        for command in self.packets(timeout=self.idle_time):
            self.obey(command)


class DatagramHandler(Handler, ours.DatagramPacketHandler[str, str]):
    protocol = DatagramProtocol(StringLineSerializer())

    def handle(self) -> None:
        self.obey(self.packet)


def new_server(options: argparse.Namespace) -> Any:
    class Server(getattr(ours if options.module == "ours" else standard, options.name)):  # type: ignore[misc]
        request_queue_size = 4096  # as many clients as a test has
        max_children = options.max_children
        block_on_close = not options.no_block

        def service_actions(self) -> None:
            super().service_actions()
            if select.select([sys.stdin], [], [], 0)[0]:
                raise StdinEndError

    StreamHandler.idle_time = options.idle_time
    arguments: dict[str, Any] = {}
    if options.close_timeout is not None:
        arguments["close_timeout"] = options.close_timeout
    if options.max_threads is not None:
        arguments["max_threads"] = options.max_threads
    handler = DatagramHandler if "UDP" in options.name else StreamHandler
    return Server(("127.0.0.1", 0), handler, **arguments)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", help="of the server class")
    parser.add_argument("--module", choices=["ours", "standard"], default="ours")
    parser.add_argument("--max-children", type=int, default=40)
    parser.add_argument("--max-threads", type=int)
    parser.add_argument("--close-timeout", type=float)
    parser.add_argument("--idle-time", type=float, help="seconds that a client may be silent")
    parser.add_argument("--no-block", action="store_true", help="block_on_close = False")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    server = new_server(options)
    try:
        print(server.server_address[1], flush=True)
        server.serve_forever(poll_interval=0.01)
    except StdinEndError:
        server.server_close()
    if not options.no_block:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            sys.exit(0)
        sys.exit("a child is left")


if __name__ == "__main__":
    main()
