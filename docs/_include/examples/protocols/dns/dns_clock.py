from __future__ import annotations

from datetime import UTC, datetime

import dns.name
import dns.rrset
from dns.name import Name
from dns.rdatatype import ANY, TXT, RdataType
from dns.rrset import RRset
from dns_zone import Kind, Zone


class ClockZone(Zone):
    """A zone file, and a name for the time of day."""

    clock_name = dns.name.from_text("clock.example.com.")

    def find(self, name: Name, rdtype: RdataType) -> tuple[Kind, RRset]:
        if name != self.clock_name:
            found: tuple[Kind, RRset] = super().find(name, rdtype)
            return found
        if rdtype not in (TXT, ANY):
            return Kind.NO_DATA, self.negative_soa()
        time = f"{datetime.now(UTC):%H:%M}"
        return Kind.FOUND, dns.rrset.from_text(name, 0, "IN", "TXT", time)
