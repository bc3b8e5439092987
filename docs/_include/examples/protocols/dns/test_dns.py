from __future__ import annotations

from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest
from dns.message import Message
from dns_handler import DNSRequestHandler
from dns_messages import tcp_protocol, udp_protocol
from dns_zone import Zone

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import LengthPrefixedSerializer
from easynetwork.serializers.abc import AbstractPacketSerializer
from easynetwork.testing import serve

pytestmark = pytest.mark.anyio

handler = DNSRequestHandler(Zone(str(Path(__file__).with_name("example.com.zone"))))


class ClientSerializer(AbstractPacketSerializer[Message, Message]):
    def serialize(self, packet: Message) -> bytes:
        return packet.to_wire()

    def deserialize(self, data: bytes) -> Message:
        return dns.message.from_wire(data)


async def ask_udp(handler: DNSRequestHandler, query: Message) -> Message:
    async with serve(handler, udp_protocol) as served:
        client = await served.connect(protocol=DatagramProtocol(ClientSerializer()))
        await client.send_packet(query)
        response: Message = await client.recv_packet()
        return response


async def ask_tcp(handler: DNSRequestHandler, *queries: Message) -> list[Message]:
    protocol = StreamProtocol(LengthPrefixedSerializer(ClientSerializer(), "u16"))
    async with serve(handler, tcp_protocol) as served:
        client = await served.connect(protocol=protocol)
        for query in queries:
            await client.send_packet(query)
        return [await client.recv_packet() for _ in queries]


@pytest.mark.parametrize(
    ("name", "rdtype", "answer"),
    [
        ("mail.example.com", "A", ["192.0.2.25"]),
        ("www.example.com", "AAAA", ["web.example.com.", "2001:db8::80"]),
        ("Ada.Users.example.com", "A", ["192.0.2.81"]),
        ("mail.example.com", "AAAA", []),
        ("example.com", "ANY", ['"RFC8482" ""']),
    ],
)
async def test_answer(name: str, rdtype: str, answer: list[str]) -> None:
    response = await ask_udp(handler, dns.message.make_query(name, rdtype))
    assert response.rcode() == dns.rcode.NOERROR
    assert [str(record) for records in response.answer for record in records] == answer


async def test_unknown_name() -> None:
    response = await ask_udp(handler, dns.message.make_query("nobody.example.com", "A"))
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert response.authority[0].ttl == 300


async def test_truncation() -> None:
    query = dns.message.make_query("pool.example.com", "A", use_edns=0)
    response = await ask_udp(handler, query)
    assert response.flags & dns.flags.TC
    assert not response.answer
    [response] = await ask_tcp(handler, query)
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 100


async def test_several_queries() -> None:
    names = ["mail.example.com", "nobody.example.com", "web.example.com"]
    queries = [dns.message.make_query(name, "A") for name in names]
    responses = await ask_tcp(handler, *queries)
    assert [response.id for response in responses] == [query.id for query in queries]


async def test_response_instead_of_query() -> None:
    response = dns.message.make_response(dns.message.make_query("example.com", "A"))
    async with serve(handler, tcp_protocol) as served:
        raw = await served.connect(raw=True)
        await raw.send(response.to_wire(prepend_length=True))
        assert await raw.receive() == b""
