from __future__ import annotations

import copy
import errno
import os
import pathlib
import pickle
import socket
import sys
import weakref
from typing import Any

import pytest

from easynetwork.addresses import (
    IPv4SocketAddress,
    SocketAttribute,
    UnixCredentials,
    UnixSocketAddress,
    UNIXSocketAttribute,
)
from easynetwork.addresses._unix import get_peer_credentials, typed_address

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")

UNNAMED = UnixSocketAddress()
PATH = UnixSocketAddress.from_pathname("/run/server.sock")


def abstract(name: str | bytes) -> UnixSocketAddress:
    return UnixSocketAddress.from_raw(b"\0" + os.fsencode(name))


EACH = [UNNAMED, PATH] + ([abstract("server"), abstract("")] if sys.platform == "linux" else [])
each_address = pytest.mark.parametrize("address", EACH, ids=repr)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"/run/server.sock"


# -- Making addresses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        UnixSocketAddress(),
        UnixSocketAddress.from_pathname(""),
        UnixSocketAddress.from_raw(""),
        UnixSocketAddress.from_raw(b""),
    ],
)
def test_unnamed(address: UnixSocketAddress) -> None:
    """No name is empty, and the same however it is said."""
    assert address == UNNAMED
    assert hash(address) == hash(UNNAMED)
    assert address.is_unnamed()
    assert address.as_raw() == ""
    assert address.as_pathname() is None
    assert str(address) == "<unnamed>"
    assert repr(address) == "UnixSocketAddress(<unnamed>)"


@pytest.mark.parametrize(
    "address",
    [
        UnixSocketAddress.from_pathname("/run/server.sock"),
        UnixSocketAddress.from_pathname(pathlib.Path("/run/server.sock")),
        UnixSocketAddress.from_raw("/run/server.sock"),
        UnixSocketAddress.from_raw(b"/run/server.sock"),
    ],
)
def test_pathname(address: UnixSocketAddress) -> None:
    """A path is the same, whether text, a path object or bytes."""
    assert address == PATH
    assert hash(address) == hash(PATH)
    assert not address.is_unnamed()
    assert address.as_raw() == "/run/server.sock"
    assert address.as_pathname() == pathlib.Path("/run/server.sock")
    assert str(address) == "/run/server.sock"
    assert repr(address) == "UnixSocketAddress('/run/server.sock' <pathname>)"


def test_relative_path() -> None:
    """A path is left as it is."""
    address = UnixSocketAddress.from_pathname("./server.sock")
    assert address.as_raw() == "./server.sock"
    assert address != UnixSocketAddress.from_pathname("server.sock")


def test_path_that_is_no_text() -> None:
    """Bytes of a path that are not in the file system's encoding come back as they were."""
    address = UnixSocketAddress.from_raw(b"/run/\xff.sock")
    assert os.fsencode(address.as_raw()) == b"/run/\xff.sock"


@pytest.mark.parametrize("path", [b"/run/server.sock", BytesPath()])
def test_bytes_are_no_pathname(path: Any) -> None:
    """A path is text."""
    with pytest.raises(TypeError, match="^Expected a str object or an os.PathLike object returnin"):
        UnixSocketAddress.from_pathname(path)


@pytest.mark.parametrize("path", [None, 3, ("host", 80)])
def test_no_pathname(path: Any) -> None:
    """Anything else is not one."""
    with pytest.raises(TypeError):
        UnixSocketAddress.from_pathname(path)


@pytest.mark.parametrize("path", ["/run\0server", "server\0", "\0server", "\0"])
def test_null_in_a_path(path: str) -> None:
    """The kernel would cut a path off at a null character, so it is refused."""
    with pytest.raises(ValueError, match="^paths must not contain interior null bytes$"):
        UnixSocketAddress.from_pathname(path)


@pytest.mark.parametrize("raw", ["a\0b", b"a\0b", "/run/server\0"])
def test_null_in_a_raw_path(raw: str | bytes) -> None:
    """The same holds for what the socket module says."""
    with pytest.raises(ValueError, match="^paths must not contain interior null bytes$"):
        UnixSocketAddress.from_raw(raw)


@pytest.mark.parametrize("raw", [None, 3, ("host", 80), bytearray(b"/run")])
def test_no_raw_address(raw: Any) -> None:
    """What the socket module does not say of a Unix socket is refused, and shown."""
    with pytest.raises(TypeError, match="^Cannot convert .* to a UnixSocketAddress$") as caught:
        UnixSocketAddress.from_raw(raw)
    assert repr(raw) in str(caught.value)


if sys.platform == "linux":

    @pytest.mark.parametrize(
        "address",
        [
            UnixSocketAddress.from_abstract_name("server"),
            UnixSocketAddress.from_abstract_name(b"server"),
            UnixSocketAddress.from_raw("\0server"),
            UnixSocketAddress.from_raw(b"\0server"),
        ],
    )
    def test_abstract_name(address: UnixSocketAddress) -> None:
        """An abstract name is bytes, the same whether given as text or bytes."""
        assert address == abstract("server")
        assert hash(address) == hash(abstract("server"))
        assert not address.is_unnamed()
        assert address.as_raw() == b"\0server"
        assert address.as_abstract_name() == b"server"
        assert address.as_pathname() is None
        assert str(address) == "@server"
        assert repr(address) == "UnixSocketAddress(b'server' <abstract>)"

    @pytest.mark.parametrize("name", [None, 3, bytearray(b"server"), pathlib.Path("server")])
    def test_no_abstract_name(name: Any) -> None:
        """Anything but text and bytes is refused."""
        with pytest.raises(TypeError, match="^Expected a str object or a bytes object, got "):
            UnixSocketAddress.from_abstract_name(name)

    def test_bytes_of_an_abstract_name() -> None:
        """All bytes may be in it, null bytes and what is no text among them (unix(7))."""
        address = UnixSocketAddress.from_abstract_name(b"\0a\0\xff\n")
        assert address.as_abstract_name() == b"\0a\0\xff\n"
        assert address.as_raw() == b"\0\0a\0\xff\n"
        assert str(address) == r"@\x00a\x00\udcff\n"
        assert repr(address) == r"UnixSocketAddress(b'\x00a\x00\xff\n' <abstract>)"

    def test_empty_abstract_name() -> None:
        """An abstract name without a letter is a name."""
        address = UnixSocketAddress.from_abstract_name("")
        assert not address.is_unnamed()
        assert address != UNNAMED
        assert address.as_abstract_name() == b""
        assert str(address) == "@"

    @pytest.mark.parametrize("address", [UNNAMED, PATH])
    def test_not_abstract(address: UnixSocketAddress) -> None:
        """Others have no abstract name."""
        assert address.as_abstract_name() is None


@linux_only
def test_names_of_sockets() -> None:
    """What the kernel says of a socket is its address, and what it takes as well."""
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as other:
        assert UnixSocketAddress.from_raw(sock.getsockname()) == UNNAMED
        sock.bind(UNNAMED.as_raw())
        address = UnixSocketAddress.from_raw(sock.getsockname())
        assert address.as_abstract_name()
        sock.listen()
        other.connect(address.as_raw())
        assert UnixSocketAddress.from_raw(other.getpeername()) == address


# -- Comparing, copying and showing them -------------------------------------------------------


@linux_only
def test_a_path_is_no_abstract_name() -> None:
    """Names of different kinds differ, though they are made of the same letters."""
    names = {UnixSocketAddress.from_pathname("server"), abstract("server"), UNNAMED}
    assert len(names) == 3


@each_address
def test_equal_only_to_its_type(address: UnixSocketAddress) -> None:
    """Neither what the socket module takes nor a path is equal to an address."""
    assert address == UnixSocketAddress.from_raw(address.as_raw())
    for other in (address.as_raw(), address.as_pathname(), str(address), None, ("host", 80)):
        assert address != other
        assert other not in {address}


def test_no_order() -> None:
    """Addresses have no order."""
    with pytest.raises(TypeError):
        _ = UNNAMED < PATH  # type: ignore[operator]  # That is the point.


@each_address
def test_immutable(address: UnixSocketAddress) -> None:
    """Nothing of an address can be changed, or added."""
    raw = address.as_raw()
    for name in ("_raw", "other"):
        with pytest.raises((AttributeError, TypeError)):  # what frozen dataclasses raise
            setattr(address, name, "other")
        with pytest.raises((AttributeError, TypeError)):
            delattr(address, name)
    assert address.as_raw() == raw
    assert not hasattr(address, "__dict__")
    assert weakref.ref(address)() is address


def test_final() -> None:
    """An address cannot be subclassed."""
    with pytest.raises(TypeError, match="^UnixSocketAddress is final: it cannot be subclassed$"):
        type("Sub", (UnixSocketAddress,), {})


@each_address
def test_pickle(address: UnixSocketAddress) -> None:
    """An address can be sent to another process, by each version of pickle."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(address, protocol))
        assert type(again) is UnixSocketAddress
        assert again == address
        assert again.as_raw() == address.as_raw()


@each_address
def test_copy(address: UnixSocketAddress) -> None:
    """A copy is the same name."""
    assert copy.copy(address) == copy.deepcopy(address) == address


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/run/\n2026 ERROR forged", r"/run/\n2026 ERROR forged"),
        ("/run/\x1b[2J\r", r"/run/\x1b[2J\r"),
        ("/run/\u2028\u202e", r"/run/\u2028\u202e"),
        ("/run/\udcff", r"/run/\udcff"),
        ("/run/Straße", "/run/Straße"),
        ("/run/a b", "/run/a b"),
    ],
)
def test_name_is_escaped(name: str, shown: str) -> None:
    """A peer chooses its name: it cannot forge a line of the log, or write to a terminal."""
    address = UnixSocketAddress.from_pathname(name)
    assert str(address) == f"{address}" == shown
    assert str(address).isprintable()
    assert repr(address).isprintable()
    assert address.as_raw() == name
    if sys.platform == "linux":
        assert str(abstract(name)) == "@" + shown
        assert repr(abstract(name)).isprintable()


# -- Addresses of any family -------------------------------------------------------------------


@pytest.mark.parametrize("address", [None, "", b""])
def test_typed_address_of_an_unnamed_socket(address: Any) -> None:
    """`recvfrom()` says None of a sender without a name."""
    assert typed_address(address, socket.AF_UNIX) == UNNAMED


def test_typed_address() -> None:
    """The family says what an address is."""
    assert typed_address("/run/server.sock", socket.AF_UNIX) == PATH
    address = typed_address(("127.0.0.1", 80), socket.AF_INET)
    assert isinstance(address, IPv4SocketAddress)
    with pytest.raises(ValueError, match="^Unsupported address family"):
        typed_address("/run/server.sock", -1)


def test_attributes() -> None:
    """What is asked by one set of keys is found by the other."""
    for name in ("socket", "family", "sockname", "peername"):
        assert getattr(UNIXSocketAttribute, name) is getattr(SocketAttribute, name)


# -- Credentials -------------------------------------------------------------------------------


@linux_only
def test_peer_credentials() -> None:
    """The other end of a socket pair is this process."""
    one, other = socket.socketpair()
    with one, other:
        credentials = get_peer_credentials(one)
    assert credentials == UnixCredentials(os.getpid(), os.geteuid(), os.getegid())
    pid, uid, gid = credentials
    assert (credentials.pid, credentials.uid, credentials.gid) == (pid, uid, gid)


@linux_only
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_credentials_without_a_peer(kind: socket.SocketKind) -> None:
    """Linux gives the credentials of nothing; here, that is an error."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)) as caught:
            get_peer_credentials(sock)
    assert caught.value.errno == errno.EINVAL


@linux_only
def test_credentials_of_a_closed_socket() -> None:
    """A closed socket has no peer."""
    one, other = socket.socketpair()
    one.close()
    with other, pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        get_peer_credentials(one)
    assert caught.value.errno == errno.EBADF


def test_platform_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform cannot tell, that is another error."""
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    one, other = socket.socketpair()
    with one, other, pytest.raises(NotImplementedError, match="credentials are not supported on "):
        get_peer_credentials(one)
