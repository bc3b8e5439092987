from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator

from easynetwork.addresses import TLSAttribute
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class MailRequestHandler(AsyncStreamRequestHandler[str, str]):
    """The beginning of an SMTP server: STARTTLS, and commands that need it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        await client.send_packet("220 localhost ready")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        line: str = yield

        command = line.upper().partition(" ")[0]
        is_encrypted = client.extra(TLSAttribute.tls_version, None) is not None
        if command == "EHLO":
            await client.send_packet("250-localhost")
            if not is_encrypted:
                await client.send_packet("250-STARTTLS")
            await client.send_packet("250 HELP")
        elif command == "QUIT":
            await client.send_packet("221 Bye")
            await client.aclose()
        elif command == "STARTTLS" and not is_encrypted:
            await client.send_packet("220 Ready to start TLS")
            await client.start_tls(self.context)
        elif not is_encrypted:
            await client.send_packet("530 Must issue a STARTTLS command first")
        elif command == "NOOP":
            await client.send_packet("250 OK")
        else:
            await client.send_packet("502 Command not implemented")


async def main() -> None:
    protocol = StreamProtocol(StringLineSerializer("CRLF"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("cert.pem", "key.pem")
    handler = MailRequestHandler(context)

    async with AsyncTCPNetworkServer("localhost", 9000, protocol, handler) as server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
