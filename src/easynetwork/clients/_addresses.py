"""What clients say of the addresses of their sockets, by the kind of these."""

from __future__ import annotations

from abc import ABC, abstractmethod

from easynetwork.addresses import SocketAddress, SocketProxy, UnixCredentials, UnixSocketAddress
from easynetwork.addresses._unix import get_peer_credentials


class INETAddresses(ABC):
    """A client over IP."""

    __slots__ = ()

    @abstractmethod
    def _addresses(self) -> tuple[SocketAddress, SocketAddress]:
        """Return this end's address and the peer's."""

    def get_local_address(self) -> SocketAddress:
        """Return this end's address.

        Raises:
            ClientClosedError: The client is closed.
            OSError: The client is not connected yet.
        """
        return self._addresses()[0]

    def get_remote_address(self) -> SocketAddress:
        """Return the peer's address. Raises what `get_local_address()` raises."""
        return self._addresses()[1]


class UnixNames(ABC):
    """A client over a Unix socket."""

    __slots__ = ()

    @abstractmethod
    def _addresses(self) -> tuple[UnixSocketAddress, UnixSocketAddress]:
        """Return this end's address and the peer's."""

    def get_local_name(self) -> UnixSocketAddress:
        """Return this end's name; it has none, most often.

        Raises:
            ClientClosedError: The client is closed.
            OSError: The client is not connected yet.
        """
        return self._addresses()[0]

    def get_peer_name(self) -> UnixSocketAddress:
        """Return the server's name. Raises what `get_local_name()` raises."""
        return self._addresses()[1]


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
