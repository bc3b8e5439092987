import asyncio

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(JSONSerializer())  # a JSON document per line


class Greeter(AsyncStreamRequestHandler):
    async def handle(self, client):
        request = yield  # wait for the next request of this client
        await client.send_packet({"hello": request})


async def main():
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, Greeter()) as server:
        serving = asyncio.create_task(server.serve_forever())
        async with AsyncTCPNetworkClient(ADDRESS, PROTOCOL) as client:
            for name in ["Ada", "Grace"]:
                await client.send_packet(name)
                print(await client.recv_packet())
        await server.shutdown()
        await serving


if __name__ == "__main__":
    asyncio.run(main())
