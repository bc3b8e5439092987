"""What the resolver says of addresses."""

from __future__ import annotations

import socket

STREAM = socket.SOCK_STREAM
IPV4 = (socket.AF_INET, STREAM, socket.IPPROTO_TCP, "")
IPV6 = (socket.AF_INET6, STREAM, socket.IPPROTO_TCP, "")
