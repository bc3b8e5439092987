"""What UDP clients have in common, those that wait and those that must not."""

from __future__ import annotations

import socket

from easynetwork.clients._target import check_family, check_target


def check_udp_target(
    target: object, local_address: tuple[str, int] | None, family: int
) -> tuple[str, int] | socket.socket:
    """Return the address to connect to, or the connected socket: see `check_target`.

    Raises:
        ValueError: Also if the family is not one of the Internet.
    """
    options = {"local_address": local_address, "family": family or None}
    given = [name for name, value in options.items() if value is not None]
    if family != socket.AF_UNSPEC:
        check_family(family)
    return check_target(target, given, socket.SOCK_DGRAM)
