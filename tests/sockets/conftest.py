from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.sockets.names import IPV4, IPV6


@pytest.fixture
def known_names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names that the resolver knows besides all others, with their addresses."""
    names: dict[str, list[str]] = {}
    getaddrinfo = socket.getaddrinfo

    def ask(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host not in names:
            return getaddrinfo(host, port, *args, **options)
        return [
            (*IPV6, (address, port, 0, 0)) if ":" in address else (*IPV4, (address, port))
            for address in names[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    return names
