"""What systemd and its service have to say to each other: sockets one way, states the other.

Both use environment variables that other supervisors set as well. See sd_listen_fds(3) and
sd_notify(3).
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Final

_FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START."""

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")

_NOTIFY_TIMEOUT: Final = 1.0
"""Seconds. systemd reads at once, and an event loop may wait for this."""


def inherited_sockets() -> dict[str, list[socket.socket]]:
    """Return the sockets that systemd, or another supervisor, passes to this process, by name.

    A name is what `FileDescriptorName=` says in the `.socket` unit (by default, the name of the
    unit), or "unknown" if the supervisor names nothing.

    The caller owns the sockets, which are non-blocking and not inherited by child processes. Then
    the variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are removed from `os.environ`, so that
    no child, and no second call, takes the same descriptors: a second call returns nothing.

    Returns:
        A list of sockets for each name, in the order of their descriptors; an empty dictionary if
        nothing is passed, or only to another process (LISTEN_PID).

    Raises:
        ValueError: A variable makes no sense, or a descriptor is not a socket. All is left as it
            is.
    """
    if _parse_number("LISTEN_PID") != os.getpid():
        return {}
    count = _parse_number("LISTEN_FDS")
    if count is None:
        return {}
    if count == 0:
        raise ValueError("LISTEN_FDS is '0': expected the number of descriptors")
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count)
    for descriptor in descriptors:
        _check_descriptor(descriptor, count)
    names = _parse_names(count)
    sockets: dict[str, list[socket.socket]] = {}
    for name, descriptor in zip(names, descriptors, strict=True):
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        sock.set_inheritable(False)
        sockets.setdefault(name, []).append(sock)
    for variable in _VARIABLES:
        os.environ.pop(variable, None)
    return sockets


def _parse_number(variable: str) -> int | None:
    """Return the number in an environment variable; None if it is not set."""
    text = os.environ.get(variable)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{variable} is {text!r}: expected a number")
    return int(text)


def _parse_names(count: int) -> list[str]:
    text = os.environ.get("LISTEN_FDNAMES")
    names = text.split(":") if text else []
    if len(names) > count:
        raise ValueError(f"LISTEN_FDNAMES is {text!r}, but LISTEN_FDS is '{count}'")
    names += [""] * (count - len(names))
    return [name or "unknown" for name in names]


def _check_descriptor(descriptor: int, count: int) -> None:
    """Raise ValueError if a descriptor is not a socket."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError as exc:
        raise ValueError(
            f"LISTEN_FDS is '{count}', but descriptor {descriptor} is not open: {exc.strerror}"
        ) from exc
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"LISTEN_FDS is '{count}', but descriptor {descriptor} is not a socket")


def notify_systemd(state: str) -> bool:
    """Tell systemd, or another supervisor, about a change of state of this service.

    Args:
        state: Assignments, one a line, as in sd_notify(3): `"READY=1"`, for example, when a server
            accepts clients.

    Returns:
        Whether the state was sent. Nothing happens if the supervisor does not expect it (then
        NOTIFY_SOCKET is not set), or if the platform has no Unix sockets.

    Raises:
        TypeError: `state` is not a string.
        ValueError: NOTIFY_SOCKET is neither a path nor an abstract address (`@name`).
        OSError: The supervisor cannot be reached, or does not read.
    """
    if not isinstance(state, str):
        raise TypeError(f"Expected a string, got {state!r}")
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return False
    if not address.startswith(("/", "@")):
        raise ValueError(f"NOTIFY_SOCKET is {address!r}: expected an absolute path, or '@name'")
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_NOTIFY_TIMEOUT)
        sock.connect(address)
        sock.sendall(state.encode())
    return True
