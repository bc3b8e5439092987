from __future__ import annotations

import contextlib
import socketserver


class GreetingRequestHandler(socketserver.StreamRequestHandler):
    """Responds to names with greetings."""

    def handle(self) -> None:
        for line in self.rfile:
            name = line.decode("utf-8").removesuffix("\n")
            self.wfile.write(f"Hello, {name}!\n".encode())


class GreetingServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


def main() -> None:
    with GreetingServer(("localhost", 9000), GreetingRequestHandler) as server:
        server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
