from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeAlias

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
from dns.message import Message
from dns.rdataclass import IN
from dns.rdatatype import ANY
from dns_zone import Kind, Zone

from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)

Client: TypeAlias = AsyncStreamClient[Message] | AsyncDatagramClient[Message]

MAX_UDP_SIZE = 1232
MAX_TCP_SIZE = 65_535


class DNSRequestHandler(
    AsyncStreamRequestHandler[Message, Message], AsyncDatagramRequestHandler[Message, Message]
):
    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    async def handle(self, client: Client) -> AsyncGenerator[None, Message]:
        query = yield
        await self.answer(client, query)

    async def answer(self, client: Client, query: Message) -> None:
        response = self.respond(query)
        if isinstance(client, AsyncStreamClient):
            response.request_payload = MAX_TCP_SIZE
        else:
            response.request_payload = min(max(query.payload, 512), MAX_UDP_SIZE)
        await client.send_packet(response)

    def respond(self, query: Message) -> Message:
        response = dns.message.make_response(query, our_payload=MAX_UDP_SIZE, pad=0)
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif query.errors or len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
        elif query.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
        else:
            self.look_up(response)
        return response

    def look_up(self, response: Message) -> None:
        [question] = response.question
        name, rdtype = question.name, question.rdtype
        is_refused = dns.rdatatype.is_metatype(rdtype) and rdtype != ANY
        if is_refused or question.rdclass != IN or not name.is_subdomain(self.zone.origin):
            response.set_rcode(dns.rcode.REFUSED)
            return
        while name.is_subdomain(self.zone.origin):
            kind, records = self.zone.find(name, rdtype)
            if records in response.answer:  # the aliases form a loop
                break
            if kind is Kind.FOUND or kind is Kind.ALIAS:
                response.answer.append(records)
            else:
                response.authority.append(records)
            if kind is not Kind.DELEGATION:
                response.flags |= dns.flags.AA
            if kind is Kind.NO_NAME:
                response.set_rcode(dns.rcode.NXDOMAIN)
            if kind is not Kind.ALIAS:
                break
            name = records[0].target
        for records in (*response.answer, *response.authority):
            response.additional += self.zone.addresses_for(records)
