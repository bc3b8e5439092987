from __future__ import annotations

import logging
import threading
from typing import Any

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import StreamPacketHandler, TCPServer

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class EchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back one packet."""

    protocol = PROTOCOL
    logger = logging.getLogger("EchoRequestHandler")

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.logger.debug("__init__")
        super().__init__(request, client_address, server)

    def setup(self) -> None:
        self.logger.debug("setup")
        super().setup()

    def handle(self) -> None:
        self.logger.debug("handle")
        packet = self.recv_packet()
        self.logger.debug('recv_packet() -> "%s"', packet)
        self.send_packet(packet)

    def finish(self) -> None:
        self.logger.debug("finish")
        super().finish()


class EchoServer(TCPServer):
    """Logs the methods that are called."""

    logger = logging.getLogger("EchoServer")

    def __init__(self, server_address: Any, handler_class: Any) -> None:
        self.logger.debug("__init__")
        super().__init__(server_address, handler_class)

    def server_bind(self) -> None:
        self.logger.debug("server_bind")
        super().server_bind()

    def server_activate(self) -> None:
        self.logger.debug("server_activate")
        super().server_activate()

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        self.logger.debug("serve_forever")
        super().serve_forever(poll_interval)

    def handle_request(self) -> None:
        self.logger.debug("handle_request")
        super().handle_request()

    def get_request(self) -> Any:
        self.logger.debug("get_request")
        return super().get_request()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.logger.debug("verify_request")
        return super().verify_request(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.logger.debug("process_request")
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.logger.debug("finish_request")
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.logger.debug("shutdown_request")
        super().shutdown_request(request)

    def close_request(self, request: Any) -> None:
        self.logger.debug("close_request")
        super().close_request(request)

    def shutdown(self) -> None:
        super().shutdown()
        self.logger.debug("shutdown")

    def server_close(self) -> None:
        self.logger.debug("server_close")
        super().server_close()


def main() -> None:
    logger = logging.getLogger("client")

    with EchoServer(("127.0.0.1", 0), EchoRequestHandler) as server:
        address: Any = server.server_address
        thread = threading.Thread(target=server.serve_forever, daemon=True)

        logger.debug("connecting")
        with TCPNetworkClient(address, PROTOCOL) as client:
            logger.debug('send_packet("Hello, world")')
            client.send_packet("Hello, world")
            thread.start()
            response = client.recv_packet()
            server.shutdown()
            logger.debug('response from server: "%s"', response)

        logger.debug("connecting")
        with TCPNetworkClient(address, PROTOCOL) as client:
            logger.debug('send_packet("Hello again")')
            client.send_packet("Hello again")
            server.handle_request()
            logger.debug('response from server: "%s"', client.recv_packet())


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    main()
