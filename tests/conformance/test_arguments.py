"""The constructor says at once what is wrong; and what kind of object it makes."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from easynetwork.backends import new_builtin_backend
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamRequestHandler, BaseRequestHandler, RecvParams
from tests.conformance.peers import Peer
from tests.conformance.support import REFUSED, NewServer, Recorder, serving
from tests.tls_peers import client_context, server_context


@pytest.fixture
def make(protocol_class: Any) -> Callable[..., Any]:
    """Return a constructor with good arguments, each of which may be replaced."""

    def make(**changes: Any) -> Any:
        arguments: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": protocol_class(StringLineSerializer()),
            "request_handler": Recorder(),
            "backend": "asyncio",
        }
        return AsyncTCPNetworkServer(**{**arguments, **changes})

    return make


class OtherHandler(BaseRequestHandler):
    """A handler of something else."""


# -- wrong arguments


@pytest.mark.parametrize("wrong", [None, "lines", StreamProtocol, StringLineSerializer()])
def test_protocol(make: Callable[..., Any], wrong: Any) -> None:
    """The protocol is a stream protocol object."""
    with pytest.raises(TypeError, match="^Expected a StreamProtocol or a BufferedStreamProtocol"):
        make(protocol=wrong)


def test_protocol_of_no_use(make: Callable[..., Any], protocol_class: Any) -> None:
    """A parser that cannot work is refused before any client has to wait for it."""

    class Wrong(StringLineSerializer):
        def framing(self) -> Any:
            return b"\n"

    class Forgetful(protocol_class):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"^Wrong\.framing\(\) must return a SeparatorFraming"):
        make(protocol=protocol_class(Wrong()))
    with pytest.raises(TypeError, match=r"^Forgetful\.__init__\(\) did not call super\(\)"):
        make(protocol=Forgetful())


def test_datagram_protocol(make: Callable[..., Any]) -> None:
    """A protocol for datagrams is not one."""
    with pytest.raises(TypeError, match="^Expected a StreamProtocol or a BufferedStreamProtocol"):
        make(protocol=DatagramProtocol(StringLineSerializer()))


@pytest.mark.parametrize("wrong", [None, Recorder, OtherHandler(), object()])
def test_handler(make: Callable[..., Any], wrong: Any) -> None:
    """The handler is an object, and one for streams."""
    with pytest.raises(TypeError, match="^Expected an AsyncStreamRequestHandler object, got "):
        make(request_handler=wrong)


@pytest.mark.parametrize("wrong", [socket.socket, lambda: 80, lambda: [80], lambda: b"localhost"])
def test_host(make: Callable[..., Any], wrong: Callable[[], Any]) -> None:
    """A host is a name, or several; a socket, for example, is none."""
    with contextlib.ExitStack() as stack:
        host = wrong()
        if isinstance(host, socket.socket):
            stack.enter_context(host)
        with pytest.raises(TypeError, match="^Expected a host name or a sequence of host names, "):
            make(host=host)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "1024", b"1"])
def test_max_recv_size(make: Callable[..., Any], wrong: Any) -> None:
    """The most bytes to receive is a positive number."""
    with pytest.raises(ValueError, match=r"^'max_recv_size' must be a strictly positive integer$"):
        make(max_recv_size=wrong)


@pytest.mark.parametrize(
    "option", ["ssl_handshake_timeout", "ssl_shutdown_timeout", "ssl_standard_compatible"]
)
def test_option_of_tls(make: Callable[..., Any], option: str) -> None:
    """Options of TLS go with TLS."""
    with pytest.raises(ValueError, match=f"^{option} is only meaningful with ssl$"):
        make(**{option: 1.0})


@pytest.mark.parametrize("wrong", [True, False, "certificate.pem", object()])
def test_tls_context(make: Callable[..., Any], wrong: Any) -> None:
    """There is no such thing as a default certificate of a server."""
    with pytest.raises(TypeError, match="^Expected an ssl.SSLContext object, got "):
        make(ssl=wrong)


def test_tls_context_of_a_client(make: Callable[..., Any]) -> None:
    """A context that no server can use is refused."""
    with pytest.raises(ValueError, match="Cannot create a server socket"):
        make(ssl=client_context())


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_tls_timeouts(make: Callable[..., Any], option: str, wrong: float) -> None:
    """A time-out is a number of seconds."""
    with pytest.raises(ValueError, match="^Invalid delay: "):
        make(ssl=server_context(), **{option: wrong})


@pytest.mark.parametrize("wrong", [0, -5])
def test_backlog(make: Callable[..., Any], wrong: Any) -> None:
    """The backlog is a positive number."""
    with pytest.raises(ValueError, match="^backlog should be strictly positive$"):
        make(backlog=wrong)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"host": 5}, TypeError),
        ({"host": ["127.0.0.1", 5]}, TypeError),
        ({"host": b"127.0.0.1"}, TypeError),
        ({"port": "80"}, TypeError),
        ({"port": None}, TypeError),
        ({"port": -1}, ValueError),
        ({"port": 65536}, ValueError),
        ({"backlog": "many"}, TypeError),
        ({"unknown": 1}, TypeError),
        ({"ssl_handshake_timeout": 1}, (TypeError, ValueError)),
    ],
)
def test_other_arguments(make: Callable[..., Any], changes: dict[str, Any], error: Any) -> None:
    """What else is wrong is found out at construction as well."""
    with pytest.raises(error):
        make(**changes)


def test_unknown_backend(make: Callable[..., Any]) -> None:
    """A backend that does not exist is named."""
    with pytest.raises(NotImplementedError, match="tornado"):
        make(backend="tornado")


def test_wrong_backend(make: Callable[..., Any]) -> None:
    """A backend is a name or an object."""
    message = "^Expected either a string literal or a backend instance, got "
    with pytest.raises(TypeError, match=message):
        make(backend=5)


def test_no_backend(make: Callable[..., Any]) -> None:
    """Without a backend, there has to be an event loop that runs."""
    with pytest.raises(RuntimeError):
        make(backend=None)


def test_reuse_port_unsupported(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`reuse_port` is refused where the system does not have it."""
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    with pytest.raises(ValueError, match="^reuse_port not supported by socket module"):
        make(reuse_port=True)
    make(reuse_port=False)


# -- right arguments


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_backend(make: Callable[..., Any], name: Any) -> None:
    """The backend may be given by name or as an object."""
    backend = new_builtin_backend(name)
    assert make(backend=name).backend().name == name
    assert make(backend=backend).backend() is backend


def test_logger(make: Callable[..., Any]) -> None:
    """The logger is the module's by default, or the one given."""
    assert make().logger is logging.getLogger("easynetwork.servers.async_tcp")
    own = logging.getLogger("my.server")
    assert make(logger=own).logger is own


# -- the objects


def test_server_object(make: Callable[..., Any]) -> None:
    """A server can be referred to weakly, and has no `__dict__`."""
    server = make()
    assert weakref.ref(server)() is server
    assert not hasattr(server, "__dict__")
    assert repr(server).startswith("<AsyncTCPNetworkServer ")


def test_handler_object() -> None:
    """A handler has slots if it wants them; it can be referred to weakly."""

    class Slotted(AsyncStreamRequestHandler[str, str]):
        __slots__ = ()

        async def handle(self, client: Any) -> Any:
            yield

    handler = Slotted()
    assert weakref.ref(handler)() is handler
    assert not hasattr(handler, "__dict__")


def test_abstract_handler() -> None:
    """`handle()` has to be written."""
    with pytest.raises(TypeError, match="abstract"):
        AsyncStreamRequestHandler()  # type: ignore[abstract]  # that is the point


def test_recv_params() -> None:
    """`RecvParams` is a value, whose arguments have names."""
    assert RecvParams().timeout is None
    assert RecvParams(timeout=5) == RecvParams(timeout=5)
    assert hash(RecvParams(timeout=5)) == hash(RecvParams(timeout=5))
    with pytest.raises(TypeError):
        RecvParams(5)  # type: ignore[call-arg]  # that is the point


@pytest.mark.anyio
async def test_forgotten_server(new_server: NewServer) -> None:
    """A server that is collected while it listens complains, and its sockets are closed."""
    server = new_server(Recorder())
    await server.server_activate()
    address = server.get_addresses()[0]
    forgotten = [server]
    del server
    with pytest.warns(ResourceWarning, match=r"unclosed server <Async\w+Server on .*>"):
        forgotten.clear()
    with pytest.raises(REFUSED):
        Peer(address)


@pytest.mark.anyio
async def test_forgotten_after_its_socket(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for one whose descriptor was closed by other code: nothing is raised."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    server: Any = new_server(Recorder())
    await server.server_activate()
    os.close(server.get_sockets()[0].fileno())
    forgotten = [server]
    del server
    with pytest.warns(ResourceWarning, match=r"unclosed server <.* on [(/]"):
        forgotten.clear()
    assert unraisable == []


@pytest.mark.anyio
async def test_server_that_is_done_with(new_server: NewServer) -> None:
    """One that was never activated, or is closed, says nothing when it is collected."""
    server: Any = new_server(Recorder())
    known = weakref.ref(server)
    del server
    gc.collect()
    assert known() is None
    server = new_server(Recorder())
    async with serving(server) as service:
        await (await service.connect()).ask("hello")
    known = weakref.ref(server)
    del server, service
    gc.collect()
    await anyio.wait_all_tasks_blocked()
    assert known() is None
