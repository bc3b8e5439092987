from __future__ import annotations

from datetime import UTC, datetime

import dns.flags
import dns.name
import dns.rrset
from dns.message import Message
from dns.rdatatype import TXT
from dns_handler import DNSRequestHandler


class ClockRequestHandler(DNSRequestHandler):
    """Also answers with the time of day."""

    clock_name = dns.name.from_text("clock.example.com.")

    def look_up(self, response: Message) -> None:
        [question] = response.question
        if question.name != self.clock_name or question.rdtype != TXT:
            super().look_up(response)
            return
        response.flags |= dns.flags.AA
        time = f"{datetime.now(UTC):%H:%M}"
        response.answer.append(dns.rrset.from_text(question.name, 0, "IN", "TXT", time))
