"""The constructor says at once what is wrong; and where the server listens."""

from __future__ import annotations

import errno
import gc
import os
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler
from tests.conformance.datagrams.support import Recorder, on_ip, server_on, serving
from tests.conformance.support import Recorder as StreamRecorder


@pytest.fixture
def make() -> Callable[..., Any]:
    """Return a constructor with good arguments, each of which may be replaced."""

    def make(**changes: Any) -> Any:
        arguments: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": DatagramProtocol(StringLineSerializer()),
            "request_handler": Recorder(),
            "backend": "asyncio",
        }
        return AsyncUDPNetworkServer(**{**arguments, **changes})

    return make


@pytest.mark.parametrize(
    "wrong", [None, "lines", DatagramProtocol, StreamProtocol(StringLineSerializer())]
)
def test_protocol(make: Callable[..., Any], wrong: Any) -> None:
    """The protocol is a datagram protocol object."""
    with pytest.raises(TypeError, match="^Expected a DatagramProtocol object, got "):
        make(protocol=wrong)


@pytest.mark.parametrize("wrong", [None, Recorder, StreamRecorder(), object()])
def test_handler(make: Callable[..., Any], wrong: Any) -> None:
    """The handler is an object, and one for datagrams."""
    with pytest.raises(TypeError, match="^Expected an AsyncDatagramRequestHandler object, got "):
        make(request_handler=wrong)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"host": 5}, TypeError),
        ({"host": ["127.0.0.1", 5]}, TypeError),
        ({"port": "80"}, TypeError),
        ({"port": -1}, ValueError),
        ({"port": 65536}, ValueError),
        ({"unknown": 1}, TypeError),
        ({"backlog": 5}, TypeError),
        ({"backend": "tornado"}, NotImplementedError),
        ({"backend": 5}, TypeError),
        ({"backend": None}, RuntimeError),
    ],
)
def test_other_arguments(make: Callable[..., Any], changes: dict[str, Any], error: Any) -> None:
    """What else is wrong is found out at construction as well."""
    with pytest.raises(error):
        make(**changes)


def test_reuse_port_unsupported(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`reuse_port` is refused where the system does not have it."""
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    with pytest.raises(ValueError, match="^reuse_port not supported by socket module"):
        make(reuse_port=True)


def test_abstract_handler() -> None:
    """A handler without `handle()` cannot be made; one with it needs no `__dict__`."""
    with pytest.raises(TypeError, match="abstract"):
        AsyncDatagramRequestHandler()  # type: ignore[abstract] # that is the point

    class Handler(AsyncDatagramRequestHandler[str, str]):
        __slots__ = ()

        handle = Recorder.handle

    assert not hasattr(Handler(), "__dict__")


def test_memory(make: Callable[..., Any]) -> None:
    """A server has no `__dict__`, can be referred to weakly, and goes when it is forgotten."""
    server = make()
    assert not hasattr(server, "__dict__")
    reference = weakref.ref(server)
    del server
    gc.collect()
    assert reference() is None


# -- where it listens


@pytest.mark.anyio
@pytest.mark.parametrize("everywhere", [None, "", ["", "0.0.0.0", "::"]])
async def test_all_interfaces(everywhere: Any) -> None:
    """None or "" stands for all interfaces, of both families, on one port."""
    async with serving(server_on(everywhere)) as service:
        addresses = service.server.get_addresses()
        assert {address.host for address in addresses} == {"0.0.0.0", "::"}
        assert len({address.port for address in addresses}) == 1


@pytest.mark.anyio
async def test_reuse_port() -> None:
    """With `reuse_port`, a second server may listen on the port; without it, it may not."""
    async with server_on("127.0.0.1", reuse_port=True) as server:
        port = server.get_addresses()[0].port
        async with server_on("127.0.0.1", port, reuse_port=True) as second:
            assert second.get_addresses() == server.get_addresses()
        with pytest.raises(OSError, match="already in use"):
            await server_on("127.0.0.1", port).server_activate()


@on_ip
@pytest.mark.anyio
async def test_port_in_use(host: str) -> None:
    """A port in use: an error with the address and the reason; it may be tried again later."""
    async with server_on(host) as other:
        port = other.get_addresses()[0].port
        server = server_on(host, port)
        with pytest.raises(OSError, match="already in use") as info:
            await server.serve_forever()
        assert str(info.value) == (
            f"[Errno {errno.EADDRINUSE}] error while attempting to bind on address "
            f"('{host}', {port}): {os.strerror(errno.EADDRINUSE)}"
        )
        assert not server.is_listening()
    async with server:
        assert server.get_addresses()[0].port == port


@pytest.mark.anyio
async def test_no_host() -> None:
    """An empty sequence is no place to listen."""
    with pytest.raises(OSError, match="^empty listeners list$"):
        await server_on([]).server_activate()
