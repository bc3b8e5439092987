from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork.addresses import (
    SCMCredentials,
    SCMRights,
    SocketAncillary,
    SocketCredential,
    _ancillary as module,
)
from easynetwork.addresses._ancillary import (
    DEFAULT_ANCILLARY_BUFSIZE,
    RawAncillary,
    close_descriptors,
    count_descriptors,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="credentials are Linux's")

SOL_SOCKET = socket.SOL_SOCKET
RIGHTS = socket.SCM_RIGHTS
CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)
ME = SocketCredential(os.getpid(), os.getuid(), os.getgid())


def packed(*numbers: int) -> bytes:
    return array.array("i", numbers).tobytes()


def contents(ancillary: SocketAncillary) -> list[Any]:
    """Return what `messages()` yields, as lists."""
    found: list[Any] = []
    for message in ancillary.messages():
        match message:
            case SCMRights(fds):
                found.append(list(fds))
            case SCMCredentials(credentials):
                found.append(list(credentials))
    return found


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    """Three descriptors; those that are still open in the end are closed."""
    numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    yield numbers
    for number in numbers:
        with contextlib.suppress(OSError):
            os.close(number)


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


# -- What is in it -----------------------------------------------------------------------------


def test_empty() -> None:
    """There is nothing in a new one."""
    ancillary = SocketAncillary()
    assert contents(ancillary) == []
    assert list(ancillary.iter_fds()) == []
    assert ancillary.as_raw() == []


def test_descriptors() -> None:
    """Descriptors are kept in order, and packed into one message."""
    ancillary = SocketAncillary()
    ancillary.add_fds([3, 5])
    for wrong in "x", 1.0, sys.stdout:
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            ancillary.add_fds([6, wrong])  # type: ignore[list-item]
    ancillary.add_fds(iter([4]))
    assert contents(ancillary) == [[3, 5, 4]]
    assert list(ancillary.iter_fds()) == [3, 5, 4]
    assert ancillary.as_raw() == [(SOL_SOCKET, RIGHTS, packed(3, 5, 4))]


@linux_only
def test_credentials() -> None:
    """Credentials are kept in order, each in a message of its own."""
    ancillary = SocketAncillary()
    ancillary.add_creds([SocketCredential(1, 2, 3)])
    ancillary.add_creds(iter([SocketCredential(4, 5, 6)]))
    assert contents(ancillary) == [[(1, 2, 3), (4, 5, 6)]]
    assert ancillary.as_raw() == [
        (SOL_SOCKET, CREDENTIALS, struct.pack("iII", 1, 2, 3)),
        (SOL_SOCKET, CREDENTIALS, struct.pack("iII", 4, 5, 6)),
    ]


@linux_only
def test_credentials_of_this_process() -> None:
    """A process number of 0 becomes that of the process when the message is packed."""
    ancillary = SocketAncillary()
    ancillary.add_creds([SocketCredential()])
    assert contents(ancillary) == [[(0, 0, 0)]]
    assert ancillary.as_raw() == [(SOL_SOCKET, CREDENTIALS, struct.pack("iII", os.getpid(), 0, 0))]


@linux_only
def test_both() -> None:
    """Descriptors come before credentials."""
    ancillary = SocketAncillary()
    ancillary.add_creds([ME])
    ancillary.add_fds([3])
    assert contents(ancillary) == [[3], [ME]]
    assert [kind for _, kind, _ in ancillary.as_raw()] == [RIGHTS, CREDENTIALS]


def test_no_credentials_on_this_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such message, credentials cannot be added."""
    monkeypatch.setattr(module, "_SCM_CREDENTIALS", None)
    ancillary = SocketAncillary()
    with pytest.raises(NotImplementedError, match="^credentials cannot be sent on this platform$"):
        ancillary.add_creds([ME])
    assert ancillary.as_raw() == []


def test_clear(descriptors: list[int]) -> None:
    """To clear it forgets everything, and closes nothing."""
    ancillary = SocketAncillary()
    ancillary.add_fds(descriptors)
    if sys.platform == "linux":
        ancillary.add_creds([ME])
    ancillary.clear()
    assert contents(ancillary) == []
    assert ancillary.as_raw() == []
    assert all(map(is_open, descriptors))


def test_garbage(descriptors: list[int]) -> None:
    """Descriptors belong to the user: they outlive the object."""
    ancillary = SocketAncillary()
    ancillary.add_fds(descriptors)
    reference = weakref.ref(ancillary)
    del ancillary
    assert reference() is None
    assert all(map(is_open, descriptors))


def test_object() -> None:
    """It is small, can be referred to weakly, and cannot be subclassed."""
    assert not hasattr(SocketAncillary(), "__dict__")
    with pytest.raises(TypeError, match="^SocketAncillary is final: it cannot be subclassed$"):
        type("Sub", (SocketAncillary,), {})


def test_messages_are_frozen() -> None:
    """A message cannot be changed."""
    for message in (SCMRights(iter([3])), SCMCredentials(iter([ME]))):
        for name in message.__slots__:
            with pytest.raises(AttributeError):
                setattr(message, name, iter([]))


# -- What was received -------------------------------------------------------------------------


def test_update() -> None:
    """What is received is added to what is there; other messages are ignored."""
    ancillary = SocketAncillary()
    ancillary.add_fds([3])
    ancillary.update_from_raw(
        [
            (SOL_SOCKET, RIGHTS, packed(4, 5)),
            (SOL_SOCKET, 4242, packed(6)),
            (socket.IPPROTO_TCP, RIGHTS, packed(7)),
            (SOL_SOCKET, RIGHTS, b""),
            (SOL_SOCKET, RIGHTS, packed(8)),
        ]
    )
    assert contents(ancillary) == [[3, 4, 5, 8]]


@linux_only
def test_update_credentials() -> None:
    """Several credentials may come in one message."""
    ancillary = SocketAncillary()
    data = struct.pack("iIIiII", 1, 2, 3, 4, 5, 6)
    ancillary.update_from_raw([(SOL_SOCKET, CREDENTIALS, data)])
    assert contents(ancillary) == [[(1, 2, 3), (4, 5, 6)]]
    assert all(isinstance(item, SocketCredential) for item in contents(ancillary)[0])


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_descriptor_that_was_cut_off(missing: int) -> None:
    """An item that was cut off at the end of a message is dropped."""
    ancillary = SocketAncillary()
    ancillary.update_from_raw([(SOL_SOCKET, RIGHTS, packed(3, 4)[:-missing])])
    assert list(ancillary.iter_fds()) == [3]


@linux_only
@pytest.mark.parametrize("missing", [1, 11])
def test_credentials_that_were_cut_off(missing: int) -> None:
    """The same holds for credentials."""
    ancillary = SocketAncillary()
    data = struct.pack("iIIiII", 1, 2, 3, 4, 5, 6)[:-missing]
    ancillary.update_from_raw([(SOL_SOCKET, CREDENTIALS, data)])
    assert contents(ancillary) == [[(1, 2, 3)]]


def test_messages_that_cannot_be_parsed() -> None:
    """The others are added, and then all errors are raised in a group."""
    ancillary = SocketAncillary()
    messages: Any = [
        (SOL_SOCKET, RIGHTS, None),
        (SOL_SOCKET, RIGHTS, packed(3)),
        (SOL_SOCKET, RIGHTS, 4.2),
        (SOL_SOCKET, RIGHTS, packed(5)),
    ]
    with pytest.raises(ExceptionGroup, match="^Failed to parse some messages") as caught:
        ancillary.update_from_raw(messages)
    assert [type(error) for error in caught.value.exceptions] == [TypeError, TypeError]
    assert list(ancillary.iter_fds()) == [3, 5]


def test_over_a_socket(descriptors: list[int]) -> None:
    """What `as_raw()` returns can be sent, and what is received is read by `update_from_raw()`."""
    sent, received = SocketAncillary(), SocketAncillary()
    sent.add_fds(descriptors)
    if sys.platform == "linux":
        sent.add_creds([ME._replace(pid=0)])
    one, other = socket.socketpair()
    with one, other:
        if sys.platform == "linux":
            other.setsockopt(SOL_SOCKET, socket.SO_PASSCRED, 1)
        one.sendmsg([b"x"], sent.as_raw())
        received.update_from_raw(other.recvmsg(1, DEFAULT_ANCILLARY_BUFSIZE)[1])
    numbers = list(received.iter_fds())
    descriptors += numbers
    assert len(numbers) == 3
    for number in numbers:
        assert os.path.sameopenfile(number, descriptors[0])
    if sys.platform == "linux":
        assert contents(received)[1] == [ME]


def test_default_size() -> None:
    """By default there is room for as many descriptors as Linux sends at once (SCM_MAX_FD)."""
    assert socket.CMSG_SPACE(8192) == DEFAULT_ANCILLARY_BUFSIZE
    assert socket.CMSG_SPACE(253 * struct.calcsize("i")) <= DEFAULT_ANCILLARY_BUFSIZE


# -- What nothing has asked for ----------------------------------------------------------------


def test_close_descriptors(descriptors: list[int]) -> None:
    """Descriptors are counted and closed; those that are closed already are no error."""
    first, second, third = descriptors
    os.close(second)
    messages: RawAncillary = [
        (SOL_SOCKET, RIGHTS, packed(first, second)),
        (SOL_SOCKET, 4242, packed(third)),
        (socket.IPPROTO_TCP, RIGHTS, packed(third)),
    ]
    assert count_descriptors(messages) == 2
    close_descriptors(messages)
    assert not is_open(first)
    assert is_open(third)


def test_close_several_messages(descriptors: list[int]) -> None:
    """An item that was cut off at the end of a message is none."""
    messages = [
        (SOL_SOCKET, RIGHTS, packed(number) + packed(descriptors[0])[:2]) for number in descriptors
    ]
    assert count_descriptors(messages) == 3
    close_descriptors(messages)
    assert not any(map(is_open, descriptors))
