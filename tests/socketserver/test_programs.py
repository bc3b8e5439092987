"""Programs for the standard module run with the classes here, and only their imports change."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.times import PATIENCE

ECHO = """
import logging
import socket
import sys
import threading

IMPORT

logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stdout)


class EchoRequestHandler(socketserver.BaseRequestHandler):

    def __init__(self, request, client_address, server):
        self.logger = logging.getLogger("EchoRequestHandler")
        self.logger.debug("__init__")
        socketserver.BaseRequestHandler.__init__(self, request, client_address, server)

    def setup(self):
        self.logger.debug("setup")
        return socketserver.BaseRequestHandler.setup(self)

    def handle(self):
        self.logger.debug("handle")
        data = self.request.recv(1024)
        self.logger.debug("recv()->%r", data)
        self.request.sendall(data)

    def finish(self):
        self.logger.debug("finish")
        return socketserver.BaseRequestHandler.finish(self)


class EchoServer(socketserver.TCPServer):

    def __init__(self, server_address, handler_class=EchoRequestHandler):
        self.logger = logging.getLogger("EchoServer")
        self.logger.debug("__init__")
        socketserver.TCPServer.__init__(self, server_address, handler_class)

    def server_activate(self):
        self.logger.debug("server_activate")
        socketserver.TCPServer.server_activate(self)

    def serve_forever(self):
        self.logger.debug("waiting for request")
        self.handle_request()

    def handle_request(self):
        self.logger.debug("handle_request")
        return socketserver.TCPServer.handle_request(self)

    def verify_request(self, request, client_address):
        self.logger.debug("verify_request(%s)", client_address[0])
        return socketserver.TCPServer.verify_request(self, request, client_address)

    def process_request(self, request, client_address):
        self.logger.debug("process_request(%s)", client_address[0])
        return socketserver.TCPServer.process_request(self, request, client_address)

    def server_close(self):
        self.logger.debug("server_close")
        return socketserver.TCPServer.server_close(self)

    def finish_request(self, request, client_address):
        self.logger.debug("finish_request(%s)", client_address[0])
        return socketserver.TCPServer.finish_request(self, request, client_address)

    def close_request(self, request):
        self.logger.debug("close_request")
        return socketserver.TCPServer.close_request(self, request)


if __name__ == "__main__":
    server = EchoServer(("localhost", 0))
    thread = threading.Thread(target=server.serve_forever)
    with socket.create_connection(server.server_address) as s:
        s.sendall(b"Hello, world")
        thread.start()
        response = s.recv(1024)
        thread.join()
    server.server_close()
    logging.getLogger("client").debug("response from server: %r", response)
"""

THREADED = """
import socket
import threading

IMPORT


class ThreadedEchoRequestHandler(socketserver.BaseRequestHandler):

    def handle(self):
        data = self.request.recv(1024)
        self.request.sendall(b"%s: %s" % (threading.current_thread().name.encode(), data))


class ThreadedEchoServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    pass


if __name__ == "__main__":
    server = ThreadedEchoServer(("localhost", 0), ThreadedEchoRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.daemon = True
    thread.start()
    print("Server loop running in thread:", thread.name)
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.connect(server.server_address)
    s.send(b"Hello, world")
    print("Received:", s.recv(1024))
    s.close()
    server.shutdown()
    server.socket.close()
"""

FORKING = """
import os
import socket
import threading

IMPORT


class ForkingEchoRequestHandler(socketserver.StreamRequestHandler):

    def handle(self):
        data = self.rfile.readline()
        self.wfile.write(b"%s: %s" % (b"child" if os.getpid() != PID else b"parent", data))


class ForkingEchoServer(socketserver.ForkingMixIn, socketserver.TCPServer):
    pass


if __name__ == "__main__":
    PID = os.getpid()
    server = ForkingEchoServer(("localhost", 0), ForkingEchoRequestHandler)
    with socket.create_connection(server.server_address) as s:
        s.sendall(b"Hello, world\\n")
        server.handle_request()
        print("Received:", s.recv(1024))
    server.server_close()
"""


def output_of(program: str, statement: str) -> str:
    """Return what a program prints, with another import."""
    done = subprocess.run(
        [sys.executable, "-c", program.replace("IMPORT", statement)],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", [ECHO, THREADED, FORKING], ids=["echo", "threads", "forks"])
def test_only_the_import_changes(program: str) -> None:
    """The same calls in the same order, and the same output."""
    output = output_of(program, "from easynetwork import socketserver")
    assert output == output_of(program, "import socketserver")
    assert re.search(r"Hello, world", output)
