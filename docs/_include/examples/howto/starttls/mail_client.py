from __future__ import annotations

import asyncio
import ssl

from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer

ADDRESS = ("localhost", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer("CRLF"))


async def check_async(context: ssl.SSLContext) -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client:
        print(await client.recv_packet())

        await client.send_packet("EHLO client.example.com")
        features = [await client.recv_packet()]
        while features[-1].startswith("250-"):
            features.append(await client.recv_packet())
        if "250-STARTTLS" not in features:
            raise ConnectionError("The server does not offer STARTTLS")

        await client.send_packet("STARTTLS")
        response = await client.recv_packet()
        if not response.startswith("220"):
            raise ConnectionError(f"The server refuses STARTTLS: {response}")

        await client.start_tls(context)
        print("The connection is encrypted")

        await client.send_packet("NOOP")
        print(await client.recv_packet())


def check_blocking(context: ssl.SSLContext) -> None:
    with TCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client:
        print(client.recv_packet(timeout=5))

        client.send_packet("EHLO client.example.com")
        features = [client.recv_packet(timeout=5)]
        while features[-1].startswith("250-"):
            features.append(client.recv_packet(timeout=5))
        if "250-STARTTLS" not in features:
            raise ConnectionError("The server does not offer STARTTLS")

        client.send_packet("STARTTLS")
        response = client.recv_packet(timeout=5)
        if not response.startswith("220"):
            raise ConnectionError(f"The server refuses STARTTLS: {response}")

        client.start_tls(context)
        print("The connection is encrypted")

        client.send_packet("NOOP")
        print(client.recv_packet(timeout=5))


if __name__ == "__main__":
    # The certificate of the server signs itself. For a server on the internet, trust the
    # authorities that the operating system trusts: omit cafile.
    context = ssl.create_default_context(cafile="cert.pem")
    asyncio.run(check_async(context))
    check_blocking(context)
