"""Sockets that other code has bound: what is refused, and what becomes of the others."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from easynetwork.sockets.adopting import INET_FAMILIES, AdoptedSockets, check_adopting_options
from tests.adopting import new_bound_socket
from tests.conftest import descriptors

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM

each_kind = pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes the sockets of a test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def good(kind: socket.SocketKind, stack: ExitStack) -> socket.socket:
    """A socket that can be adopted."""
    return stack.enter_context(new_bound_socket(kind))


def adopt(kind: socket.SocketKind, *sockets: Any) -> AdoptedSockets:
    return AdoptedSockets(sockets, kind, INET_FAMILIES)


def check_refusal(
    kind: socket.SocketKind, good: socket.socket, bad: Any, text: str, error: Any = ValueError
) -> None:
    """Check that a socket is refused, and that neither it nor the good ones around it change."""
    sockets = [good, bad] if isinstance(bad, socket.socket) else [good]
    for sock in sockets:
        if sock.fileno() >= 0:
            sock.set_inheritable(True)
            sock.settimeout(7)
    for arguments in (good, bad), (bad, good):
        with pytest.raises(error, match=re.escape(text)) as caught:
            adopt(kind, *arguments)
        # Not its whole repr(): the address is random if the socket is not of the claimed family.
        name = f" fd={bad.fileno()}, " if isinstance(bad, socket.socket) else repr(bad)
        assert name in str(caught.value)
    for sock in sockets:
        assert sock.gettimeout() == 7 or sock.fileno() < 0
        assert sock.fileno() < 0 or sock.get_inheritable()
    assert good.getsockname()


# -- adopted


@each_kind
@pytest.mark.asyncio
async def test_adopted(kind: socket.SocketKind, good: socket.socket, stack: ExitStack) -> None:
    """Sockets become non-blocking and non-inheritable, are handed out, and closed in the end."""
    other = stack.enter_context(new_bound_socket(kind, "::1"))
    for sock in good, other:
        sock.set_inheritable(True)
    adopted = AdoptedSockets(iter([good, other]), kind, INET_FAMILIES)
    for sock in good, other:
        assert sock.gettimeout() == 0
        assert not sock.get_inheritable()
    for _ in range(2):
        assert await adopted.open() == [good, other]
    for _ in range(2):
        adopted.close()
        assert good.fileno() == other.fileno() == -1
    with pytest.raises(OSError, match=r"from_sockets\(\) has been closed") as caught:
        await adopted.open()
    assert caught.value.errno == errno.EBADF


@each_kind
@pytest.mark.asyncio
async def test_copies(kind: socket.SocketKind, good: socket.socket) -> None:
    """Copies are other descriptors of the same sockets; closing the copies leaves the originals."""
    before = descriptors()
    adopted = adopt(kind, good)
    for _ in range(2):
        source = adopted.new_copies()
        [copy] = await source.open()
        assert copy.fileno() != good.fileno()
        assert copy.getsockname() == good.getsockname()
        assert copy.gettimeout() == 0
        assert not copy.get_inheritable()
        copy.close()
        source.close()
    assert descriptors() == before
    adopted.close()
    with pytest.raises(OSError, match=r"from_sockets\(\) has been closed"):
        await adopted.new_copies().open()


@pytest.mark.asyncio
async def test_no_copy(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one socket cannot be duplicated, no copy of the others stays open."""
    sockets = [stack.enter_context(new_bound_socket(STREAM)) for _ in range(2)]
    source = adopt(STREAM, *sockets).new_copies()
    before = descriptors()
    real = socket.socket.dup

    def dup(sock: socket.socket) -> socket.socket:
        if sock is sockets[1]:
            raise OSError(errno.EMFILE, "forced")
        return real(sock)

    monkeypatch.setattr(socket.socket, "dup", dup)
    with pytest.raises(OSError, match="forced"):
        await source.open()
    assert descriptors() == before


# -- refused


@each_kind
@pytest.mark.parametrize("sockets", [None, 3])
def test_not_iterable(kind: socket.SocketKind, sockets: Any) -> None:
    """Several sockets are expected."""
    with pytest.raises(TypeError, match=f"^Expected several sockets, got {sockets}$"):
        AdoptedSockets(sockets, kind, INET_FAMILIES)


@each_kind
def test_one_socket(kind: socket.SocketKind, good: socket.socket) -> None:
    """One socket alone is not several."""
    with pytest.raises(TypeError, match="^Expected several sockets, got <socket.socket"):
        AdoptedSockets(good, kind, INET_FAMILIES)  # type: ignore[arg-type]


@each_kind
def test_none(kind: socket.SocketKind) -> None:
    """No socket is no server."""
    with pytest.raises(ValueError, match="^Expected at least one socket, got none$"):
        adopt(kind)


@each_kind
@pytest.mark.parametrize("item", [3, "unknown", None])
def test_not_a_socket(kind: socket.SocketKind, good: socket.socket, item: Any) -> None:
    """A descriptor, or a name, is not a socket."""
    check_refusal(kind, good, item, "Expected a socket, got ", TypeError)


@pytest.mark.parametrize("kind", [STREAM])
def test_tls_socket(kind: socket.SocketKind, good: socket.socket, stack: ExitStack) -> None:
    """TLS is the server's business."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = context.wrap_socket(new_bound_socket(STREAM), server_side=True)
    stack.enter_context(listener)
    check_refusal(kind, good, listener, "Expected a plain socket, got <ssl.SSLSocket", TypeError)


@each_kind
def test_other_type(kind: socket.SocketKind, good: socket.socket, stack: ExitStack) -> None:
    """A server of streams has no use for datagrams, nor the other way round."""
    other = stack.enter_context(new_bound_socket(DATAGRAM if kind == STREAM else STREAM))
    text = f"is of type {other.type.name}, expected {kind.name}"
    check_refusal(kind, good, other, text)


@each_kind
def test_other_family(
    kind: socket.SocketKind, good: socket.socket, stack: ExitStack, unix_path: str
) -> None:
    """A family that the server cannot serve is named, with those that it can."""
    other = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    other.bind(unix_path)
    text = "is of family AF_UNIX, expected AF_INET or AF_INET6"
    check_refusal(kind, good, other, text)


@each_kind
@pytest.mark.asyncio
async def test_families(kind: socket.SocketKind, stack: ExitStack, unix_path: str) -> None:
    """The server says which families it serves."""
    unix = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    with pytest.raises(ValueError, match=r"does not listen|is not bound"):
        AdoptedSockets([unix], kind, [socket.AF_UNIX])
    unix.bind(unix_path)
    if kind == STREAM:
        unix.listen()
    adopted = AdoptedSockets([unix], kind, [socket.AF_UNIX])
    assert await adopted.open() == [unix]
    adopted.close()


@pytest.mark.skipif(not hasattr(socket, "SO_DOMAIN"), reason="SO_DOMAIN is Linux's")
@each_kind
def test_wrong_claim(kind: socket.SocketKind, good: socket.socket, stack: ExitStack) -> None:
    """`socket.fromfd()` believes what it is told of a descriptor; a server does not."""
    real = stack.enter_context(new_bound_socket(kind, "::1"))
    other = stack.enter_context(socket.fromfd(real.fileno(), socket.AF_INET, kind))
    text = f"has the descriptor of another kind of socket, AF_INET6 and {kind.name}"
    check_refusal(kind, good, other, text)


@pytest.mark.parametrize("kind", [STREAM])
@pytest.mark.parametrize("is_bound", [True, False], ids=["bound", "new"])
def test_not_listening(
    kind: socket.SocketKind, good: socket.socket, stack: ExitStack, is_bound: bool
) -> None:
    """A stream socket listens already."""
    other = stack.enter_context(socket.socket())
    if is_bound:
        other.bind(("127.0.0.1", 0))
    check_refusal(kind, good, other, "does not listen: call its listen() before")


@pytest.mark.parametrize("kind", [STREAM])
def test_connected_stream(kind: socket.SocketKind, good: socket.socket, stack: ExitStack) -> None:
    """A connection is not a listener: a service with `Accept=yes` gets one."""
    other = stack.enter_context(socket.create_connection(good.getsockname()))
    check_refusal(kind, good, other, "does not listen: call its listen() before")


@pytest.mark.parametrize("missing", [None, 99999], ids=["module", "kernel"])
def test_unknown_state(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, missing: int | None
) -> None:
    """Where the platform cannot tell whether a socket listens, it is believed."""
    monkeypatch.setattr("easynetwork.sockets.adopting._SO_ACCEPTCONN", missing)
    adopt(STREAM, stack.enter_context(socket.socket()))


@pytest.mark.parametrize("kind", [DATAGRAM])
@pytest.mark.parametrize("family", INET_FAMILIES)
def test_not_bound(
    kind: socket.SocketKind, good: socket.socket, stack: ExitStack, family: int
) -> None:
    """A datagram socket is bound already."""
    other = stack.enter_context(socket.socket(family, DATAGRAM))
    check_refusal(kind, good, other, "is not bound: call its bind() before")


@pytest.mark.parametrize("kind", [DATAGRAM])
def test_connected_datagrams(
    kind: socket.SocketKind, good: socket.socket, stack: ExitStack
) -> None:
    """A connected datagram socket has one peer only."""
    other = stack.enter_context(new_bound_socket(DATAGRAM))
    other.connect(good.getsockname())
    check_refusal(kind, good, other, f"is connected to {good.getsockname()!r}")


@each_kind
def test_closed(kind: socket.SocketKind, good: socket.socket) -> None:
    """A closed socket is no use."""
    other = new_bound_socket(kind)
    other.close()
    check_refusal(kind, good, other, "is closed")


@each_kind
def test_closed_descriptor(kind: socket.SocketKind, good: socket.socket) -> None:
    """Nor is a socket whose descriptor other code has closed."""
    other = new_bound_socket(kind)
    os.close(other.fileno())
    try:
        with pytest.raises(ValueError, match="cannot be used: Bad file descriptor"):
            adopt(kind, good, other)
    finally:
        other.detach()


@each_kind
def test_twice(kind: socket.SocketKind, good: socket.socket) -> None:
    """One descriptor is one socket, however many objects there are for it."""
    good.settimeout(7)
    with pytest.raises(ValueError, match="is given twice"):
        adopt(kind, good, good)
    second = socket.socket(fileno=good.fileno())
    try:
        with pytest.raises(ValueError, match="is given twice"):
            adopt(kind, good, second)
    finally:
        second.detach()
    assert good.gettimeout() == 7


@pytest.mark.parametrize("name", ["host", "port", "backlog", "reuse_port"])
def test_binding_options(name: str) -> None:
    """What is about binding is refused, whatever the value."""
    with pytest.raises(TypeError, match=rf"^from_sockets\(\) does not take '{name}': the sockets"):
        check_adopting_options({"logger": None, name: None})
    check_adopting_options({"logger": None})
