"""What clients say of the addresses of their sockets, by the kind of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from easynetwork.addresses import SocketAddress, SocketProxy, UnixCredentials, UnixSocketAddress
from easynetwork.addresses._unix import get_peer_credentials


class INETAddresses(ABC):
    """A client over IP."""

    __slots__ = ()

    @abstractmethod
    def _addresses(self) -> tuple[Any, Any]:
        """Return this end's address and the peer's."""

    def get_local_address(self) -> SocketAddress:
        """Return this end's address.

        Raises:
            ClientClosedError: The client is closed.
            OSError: The client is not connected yet.
        """
        address: SocketAddress = self._addresses()[0]
        return address

    def get_remote_address(self) -> SocketAddress:
        """Return the peer's address. Raises what `get_local_address()` raises."""
        address: SocketAddress = self._addresses()[1]
        return address


class UnixNames(ABC):
    """A client over a Unix socket."""

    __slots__ = ()

    @abstractmethod
    def _addresses(self) -> tuple[Any, Any]:
        """Return this end's address and the peer's."""

    def get_local_name(self) -> UnixSocketAddress:
        """Return this end's name; it has none, most often.

        Raises:
            ClientClosedError: The client is closed.
            OSError: The client is not connected yet.
        """
        name: UnixSocketAddress = self._addresses()[0]
        return name

    def get_peer_name(self) -> UnixSocketAddress:
        """Return the server's name. Raises what `get_local_name()` raises."""
        name: UnixSocketAddress = self._addresses()[1]
        return name


class UnixStreamNames(UnixNames):
    """A client with a connection over a Unix socket."""

    __slots__ = ()

    _credentials: UnixCredentials | None  # a subclass has the slot

    @property
    @abstractmethod
    def socket(self) -> SocketProxy:
        """The socket."""

    def get_peer_credentials(self) -> UnixCredentials:
        """Return the process, user and group of the server when it began to listen (Linux).

        Raises:
            ClientClosedError: The client is closed.
            OSError: The client is not connected yet.
            NotImplementedError: The platform cannot tell.
        """
        self._addresses()
        if self._credentials is None:
            self._credentials = get_peer_credentials(self.socket)  # type: ignore[misc]  # a slot
        return self._credentials
