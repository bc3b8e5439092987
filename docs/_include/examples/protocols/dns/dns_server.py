from __future__ import annotations

import argparse
import dataclasses
import logging

from dns_handler import DNSRequestHandler
from dns_messages import tcp_protocol, udp_protocol
from dns_zone import Zone

from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer, Limits, run

LIMITS = dataclasses.replace(Limits.public(), first_packet_timeout=10, idle_timeout=10)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("zone", help="the zone file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5300)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    arguments = parser.parse_args()
    host, port = arguments.host, arguments.port
    handler = DNSRequestHandler(Zone(arguments.zone))
    run(
        lambda: AsyncUDPNetworkServer(host, port, udp_protocol, handler),
        lambda: AsyncTCPNetworkServer(host, port, tcp_protocol, handler, limits=LIMITS),
        backend=arguments.backend,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
