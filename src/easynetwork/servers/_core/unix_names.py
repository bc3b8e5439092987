"""What a handler can ask of the client at the other end of a Unix socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from easynetwork.addresses import UnixCredentials, UnixSocketAddress, UNIXSocketAttribute
from easynetwork.addresses._unix import get_peer_credentials
from easynetwork.exceptions import TypedAttributeLookupError
from easynetwork.servers.handlers import UNIXClientAttribute


class UnixPeer:
    """The client of one connection.

    It may bind its socket to a name after it has connected, so an unnamed one is asked again. Its
    credentials are those at the time of ``connect()``: they never change.
    """

    __slots__ = ("_credentials", "_name", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._name = UnixSocketAddress()
        self._credentials: UnixCredentials | None = None
        self.get_name()

    def attributes(self, local_name: UnixSocketAddress) -> Mapping[Any, Callable[[], Any]]:
        """Return the attributes of a client."""
        return {
            **unix_names(local_name, self.get_name),
            UNIXClientAttribute.peer_credentials: self.get_credentials,
        }

    def get_name(self) -> UnixSocketAddress:
        """Return the client's name."""
        if self._name.is_unnamed():
            with contextlib.suppress(OSError):  # the connection is closed
                self._name = UnixSocketAddress.from_raw(self._socket.getpeername())
        return self._name

    def get_credentials(self) -> UnixCredentials:
        """Return the client's credentials.

        Raises:
            TypedAttributeLookupError: The connection is closed, or the platform cannot tell.
        """
        if self._credentials is None:
            try:
                self._credentials = get_peer_credentials(self._socket)
            except (OSError, NotImplementedError) as exc:
                raise TypedAttributeLookupError("credentials not available") from exc
        return self._credentials


def unix_names(
    local_name: UnixSocketAddress, peer_name: Callable[[], Any]
) -> Mapping[Any, Callable[[], Any]]:
    """Return the attributes of the names of a client."""
    return {
        UNIXSocketAttribute.sockname: lambda: local_name,
        UNIXClientAttribute.local_name: lambda: local_name,
        UNIXClientAttribute.peer_name: peer_name,
    }
