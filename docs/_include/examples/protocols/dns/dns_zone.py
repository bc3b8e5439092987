from __future__ import annotations

import enum
from collections.abc import Iterator

import dns.name
import dns.rrset
import dns.zone
from dns.name import Name
from dns.rdataclass import IN
from dns.rdatatype import AAAA, ANY, CNAME, DS, HINFO, MX, NS, SOA, SRV, A, RdataType
from dns.rrset import RRset


class Kind(enum.Enum):
    FOUND = "the records"
    ALIAS = "a CNAME record"
    DELEGATION = "the NS records of a zone below this one"
    NO_DATA = "the SOA record: the name has no such records"
    NO_NAME = "the SOA record: there is no such name"


class Zone:
    """The records of a zone file."""

    def __init__(self, path: str) -> None:
        self._zone = dns.zone.from_file(path, relativize=False)
        assert self._zone.origin is not None
        self.origin = self._zone.origin
        # Names that have no records, but names below them do, exist as well (RFC 4592).
        self._names = {parent for name in self._zone for parent in self._path_to(name)}

    def _path_to(self, name: Name) -> Iterator[Name]:
        """Yield the names from the origin down to `name`."""
        for depth in range(len(self.origin), len(name) + 1):
            yield name.split(depth)[1]

    def _get(self, name: Name, rdtype: RdataType, owner: Name) -> RRset | None:
        """Return records of `name` as if they were those of `owner`."""
        found = self._zone.get_rdataset(name, rdtype)
        if found is None:
            return None
        records = RRset(owner, IN, rdtype)
        records.update(found)
        return records

    def find(self, name: Name, rdtype: RdataType) -> tuple[Kind, RRset]:
        """Look up a name that is not outside the zone (RFC 1034, section 4.3.2)."""
        closest = self.origin
        for parent in self._path_to(name):
            if parent not in self._names:
                break
            closest = parent
            if parent == name and rdtype == DS:  # in the zone above (RFC 4035, section 3.1.4.1)
                break
            servers = self._get(parent, NS, parent)
            if servers is not None and parent != self.origin:
                return Kind.DELEGATION, servers
        source = name if closest == name else Name((b"*", *closest.labels))
        if source not in self._names:
            return Kind.NO_NAME, self.negative_soa()
        if rdtype == ANY:  # RFC 8482
            return Kind.FOUND, dns.rrset.from_text(name, 3600, IN, HINFO, '"RFC8482" ""')
        if (records := self._get(source, rdtype, name)) is not None:
            return Kind.FOUND, records
        if (records := self._get(source, CNAME, name)) is not None:
            return Kind.ALIAS, records
        return Kind.NO_DATA, self.negative_soa()

    def negative_soa(self) -> RRset:
        """Return the SOA record, which says how long "no" may be cached (RFC 2308, section 3)."""
        records = self._get(self.origin, SOA, self.origin)
        assert records is not None
        records.ttl = min(records.ttl, records[0].minimum)
        return records

    def addresses_for(self, records: RRset) -> list[RRset]:
        """Return the addresses of the hosts that records name."""
        if records.rdtype not in (MX, NS, SRV):
            return []
        hosts = {record.exchange if records.rdtype == MX else record.target for record in records}
        found = [self._get(host, rdtype, host) for host in sorted(hosts) for rdtype in (A, AAAA)]
        return [addresses for addresses in found if addresses is not None]
