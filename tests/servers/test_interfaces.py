"""Clients that request handlers talk to: what a client need not have."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from easynetwork.exceptions import UnsupportedOperation
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import handlers, interfaces
from easynetwork.servers.handlers import AsyncStreamClient


class Client(AsyncStreamClient[str]):
    """A user's own, from before the methods that are optional."""

    async def aclose(self) -> None:
        raise NotImplementedError

    async def send_packet(self, packet: str, /) -> None:
        raise NotImplementedError

    def is_closing(self) -> bool:
        raise NotImplementedError

    def backend(self) -> Any:
        raise NotImplementedError

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("recv_packet", ()),
        ("set_protocol", (StreamProtocol(StringLineSerializer()),)),
        ("start_tls", (ssl.create_default_context(),)),
        ("start_soon", (lambda: None,)),
        ("try_send_packet", ("packet",)),
        ("get_unsent_size", ()),
        ("abort", ()),
        ("wait_disconnected", ()),
        ("send_packet_with_ancillary", ("packet", [])),
    ],
)
@pytest.mark.anyio
async def test_optional_methods(method: str, arguments: tuple[Any, ...]) -> None:
    """A client that does not have them says so."""
    with pytest.raises(UnsupportedOperation, match=r"^This client does not have "):
        result = getattr(Client(), method)(*arguments)
        if inspect.isawaitable(result):
            await result


def test_where_they_are() -> None:
    """Users see them where handlers are, whatever module they are defined in."""
    for name in interfaces.__all__:
        cls = getattr(interfaces, name)
        assert cls is getattr(handlers, name)
        assert inspect.getsource(cls)
