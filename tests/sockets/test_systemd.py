"""What systemd passes to a service, and what the service tells it, without systemd.

The tests use descriptors of this process as a child would use 3, 4, ...; see also
``tests/test_supervised.py``, where these are descriptors of a child.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from easynetwork.sockets import inherited_sockets, notify_systemd
from tests.adopting import new_bound_socket
from tests.conftest import descriptors
from tests.times import PATIENCE

FIRST = 200  # no other descriptor of this process is there
VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")

PID = "this process"  # in test identifiers, which are the same in each process of a run


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is passed, unless a test does it."""
    for variable in (*VARIABLES, "NOTIFY_SOCKET"):
        # Set before it is deleted, so that it is also deleted after the test.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


Put = Callable[..., None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    """Return a function that passes descriptors to this process, and sets variables."""
    monkeypatch.setattr("easynetwork.sockets.systemd._FIRST_DESCRIPTOR", FIRST)
    with ExitStack() as stack:

        def put(*passed: int, **variables: str) -> None:
            for number, descriptor in enumerate(passed, FIRST):
                os.dup2(descriptor, number, inheritable=True)
                stack.callback(close, number)
            for name, value in variables.items():
                value = str(os.getpid()) if value == PID else value
                monkeypatch.setenv(f"LISTEN_{name}", value)

        yield put


def close(descriptor: int) -> None:
    """Close a descriptor, unless the test has closed it."""
    with suppress(OSError):
        os.close(descriptor)


@pytest.fixture
def passed() -> Iterator[list[socket.socket]]:
    """The sockets of the supervisor."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(new_bound_socket(socket.SOCK_STREAM)),
            stack.enter_context(new_bound_socket(socket.SOCK_DGRAM, "::1")),
            stack.enter_context(new_bound_socket(socket.SOCK_STREAM, "::1")),
        ]


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"FDNAMES": "web:dns:web"}, ["web", "dns", "web"]),
        ({"FDNAMES": "web::"}, ["web", "unknown", "unknown"]),
        ({"FDNAMES": "web"}, ["web", "unknown", "unknown"]),
        ({"FDNAMES": ""}, ["unknown"] * 3),
        ({}, ["unknown"] * 3),
    ],
    ids=str,
)
def test_inherited(
    put: Put, passed: list[socket.socket], variables: dict[str, str], names: list[str]
) -> None:
    """The sockets come by name, in order, ready for a server, and only once."""
    put(*(sock.fileno() for sock in passed), PID=PID, FDS="3", PIDFDID="7", **variables)
    inherited = inherited_sockets()
    found = [(name, sock) for name in inherited for sock in inherited[name]]
    with ExitStack() as stack:
        for _, sock in found:
            stack.enter_context(sock)
        assert [sock.fileno() for _, sock in sorted(found, key=lambda item: item[1].fileno())] == [
            *range(FIRST, FIRST + 3)
        ]
        for name, sock in found:
            number = sock.fileno() - FIRST
            assert name == names[number]
            assert sock.getsockname() == passed[number].getsockname()
            assert (sock.family, sock.type) == (passed[number].family, passed[number].type)
            assert sock.gettimeout() == 0
            assert not os.get_blocking(sock.fileno())
            assert not sock.get_inheritable()
        assert list(inherited) == list(dict.fromkeys(names))
        assert not any(variable in os.environ for variable in VARIABLES)
        assert inherited_sockets() == {}
        assert all(sock.fileno() >= 0 for _, sock in found)


@pytest.mark.parametrize(
    "variables",
    [{}, {"PID": PID}, {"FDS": "1"}, {"PID": "1", "FDS": "1"}],
    ids=["nothing", "no count", "no process", "another process"],
)
def test_nothing(put: Put, passed: list[socket.socket], variables: dict[str, str]) -> None:
    """Nothing is taken that is not for this process, and the variables stay for the other one."""
    put(passed[0].fileno(), **variables)
    assert inherited_sockets() == {}
    assert {f"LISTEN_{name}" for name in variables} == {*VARIABLES} & {*os.environ}
    assert os.get_inheritable(FIRST)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"PID": "me", "FDS": "1"}, "LISTEN_PID is 'me': expected a number"),
        ({"PID": PID, "FDS": "one"}, "LISTEN_FDS is 'one': expected a number"),
        ({"PID": PID, "FDS": ""}, "LISTEN_FDS is '': expected a number"),
        ({"PID": PID, "FDS": "-1"}, "LISTEN_FDS is '-1': expected a number"),
        ({"PID": PID, "FDS": "1_0"}, "LISTEN_FDS is '1_0': expected a number"),
        ({"PID": PID, "FDS": "1" * 5000}, "expected a number"),
        ({"PID": PID, "FDS": "0"}, "LISTEN_FDS is '0': expected the number of descriptors"),
        (
            {"PID": PID, "FDS": "2", "FDNAMES": "a:b:c"},
            "LISTEN_FDNAMES is 'a:b:c', but LISTEN_FDS is '2'",
        ),
        (
            {"PID": PID, "FDS": "4"},
            f"LISTEN_FDS is '4', but descriptor {FIRST + 3} is not open: Bad file descriptor",
        ),
        ({"PID": PID, "FDS": "999999999"}, f"but descriptor {FIRST + 3} is not open"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_nonsense(
    put: Put, passed: list[socket.socket], variables: dict[str, str], text: str
) -> None:
    """Variables that make no sense are an error, and nothing is touched."""
    put(*(sock.fileno() for sock in passed), **variables)
    check_error(text)


def test_not_a_socket(put: Put, passed: list[socket.socket], tmp_path: Path) -> None:
    """A descriptor that is not a socket is an error before any socket is taken."""
    with (tmp_path / "file").open("w") as file:
        put(passed[0].fileno(), file.fileno(), passed[1].fileno(), PID=PID, FDS="3")
        check_error(f"LISTEN_FDS is '3', but descriptor {FIRST + 1} is not a socket")


def check_error(text: str) -> None:
    """Check that nothing is inherited, for a reason, and that all stays as it is."""
    before = descriptors(), {name: os.environ.get(name) for name in VARIABLES}
    with pytest.raises(ValueError, match=re.escape(text)):
        inherited_sockets()
    assert (descriptors(), {name: os.environ.get(name) for name in VARIABLES}) == before
    assert os.get_inheritable(FIRST)
    assert os.get_blocking(FIRST)


# -- notifications


@pytest.fixture(params=["path", "abstract"])
def notifications(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, unix_path: str
) -> Iterator[socket.socket]:
    """Return the socket on which a supervisor waits for what it is told."""
    name = unix_path if request.param == "path" else f"@easynetwork-{os.getpid()}"
    if request.param == "abstract" and not os.path.isdir("/proc/self"):
        pytest.skip("abstract addresses are Linux's")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_notify(notifications: socket.socket) -> None:
    """The supervisor gets the state, as one datagram, and whenever it changes."""
    before = descriptors()
    for state in "READY=1", "STOPPING=1\nSTATUS=Zoë left":
        assert notify_systemd(state)
        assert notifications.recv(1000) == state.encode()
    assert descriptors() == before
    assert "NOTIFY_SOCKET" in os.environ


@pytest.mark.parametrize("value", [None, ""])
def test_no_supervisor(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a supervisor that wants to know, nothing happens."""
    if value is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    assert not notify_systemd("READY=1")


def test_no_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it where there are no Unix sockets."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.delattr(socket, "AF_UNIX")
    assert not notify_systemd("READY=1")


def test_state_of_other_type() -> None:
    """A state that is not text is an error, supervisor or not."""
    with pytest.raises(TypeError, match="^Expected a string, got b'READY=1'$"):
        notify_systemd(b"READY=1")  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["notify", "vsock:2:1234"])
def test_other_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is neither a path nor abstract is an error."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(ValueError, match=f"^NOTIFY_SOCKET is '{address}': expected an absolute"):
        notify_systemd("READY=1")


def test_supervisor_is_gone(monkeypatch: pytest.MonkeyPatch, unix_path: str) -> None:
    """A supervisor that cannot be reached is an error."""
    before = descriptors()
    monkeypatch.setenv("NOTIFY_SOCKET", unix_path)
    with pytest.raises(FileNotFoundError):
        notify_systemd("READY=1")
    assert descriptors() == before


def test_supervisor_is_busy(notifications: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that does not read does not hold up the service for long."""
    monkeypatch.setattr("easynetwork.sockets.systemd._NOTIFY_TIMEOUT", 0.01)
    with pytest.raises(TimeoutError):
        for _ in range(10_000):
            notify_systemd("READY=1")
