"""The tests of this suite that do not run in memory, each with its reason.

The keys are files, or "file::function", in this folder.
"""

from __future__ import annotations

_DESCRIPTORS = "A socket in memory has no descriptor that could run out, or be closed by others."
_ADDRESSES = "A server in memory has one address, which is made up, whatever it asks for."

_TASKS = "It is about tasks, and never reaches the transport."
_HANDLERS = "It is about the threads of handlers, whatever their clients are connected by."

DIFFERENCES: dict[str, str] = {
    "test_accepting.py": _DESCRIPTORS,
    "test_arguments.py::test_forgotten_after_its_socket": _DESCRIPTORS,
    "test_misbehaviour.py::test_descriptor_closed_and_used": _DESCRIPTORS,
    "test_misbehaviour.py::test_descriptor_closed_and_taken_over": _DESCRIPTORS,
    "test_misbehaviour.py::test_descriptor_closed_when_the_server_stops": _DESCRIPTORS,
    "test_life_cycle.py::test_addresses": _ADDRESSES,
    "test_life_cycle.py::test_activate_concurrently": _ADDRESSES,
    "test_logs.py::test_several_addresses": _ADDRESSES,
    "test_arguments.py::test_forgotten_server": (
        "Peers in memory connect by their server's network, and here the server is gone."
    ),
    "test_sending.py::test_broadcast": (
        "The peer sends a megabyte before it reads. Linux lets buffers grow to more than that;"
        " those in memory hold 128 KiB, so that back-pressure is felt."
    ),
    "test_stopping.py::test_broken_listener": "There is no accept(2) that could fail.",
    "datagrams/test_life_cycle.py::test_several_sockets": _ADDRESSES,
    "datagrams/test_bounds.py::test_peers_of_all_sockets": _ADDRESSES,
    "datagrams/test_client.py::test_equality": _ADDRESSES,
    "datagrams/test_arguments.py::test_port_in_use": _ADDRESSES,
    "datagrams/test_client_for.py::test_first_listener_of_the_family": _ADDRESSES,
    "datagrams/test_client_for.py::test_wildcard": _ADDRESSES,
    "datagrams/test_client_for.py::test_not_serving": _ADDRESSES,
    "datagrams/test_driving.py::test_datagrams_are_forgotten": _ADDRESSES,
    "datagrams/test_blocking_handlers.py::test_many_peers": (
        "A peer sends in another thread, and sockets in memory belong to the event loop's."
    ),
    "datagrams/test_blocking_handlers.py::test_flood": (
        "An answer in memory is there before the thread that sent it is free for the next one,"
        " so there may be more threads than the test allows for."
    ),
    "datagrams/test_client.py::test_full_buffer": (
        "The backend is replaced by one whose sockets are full; memory does without a backend's."
    ),
}

# Those that run over TCP alone, unless ``CONFORMANCE`` is ``all``: they take long.
REPETITIONS: dict[str, str] = {
    "test_misbehaviour.py::test_misbehaviour": _TASKS,
    "test_uncooperative.py::test_shutdown_returns": _TASKS,
    "test_uncooperative.py::test_shutdown_returns_before_the_exit_stack_is_unwound": _TASKS,
    "test_blocking_stopping.py::test_stubborn_handler": _HANDLERS,
    "test_blocking_handlers.py::test_slow_handler": _HANDLERS,
}

_THREADS = "Threads wait for the test by other means than the event loop, or the test for them."

# Those that run in memory, but not in virtual time.
REAL_TIME: dict[str, str] = {
    "test_blocking_crashes.py": _THREADS,
    "test_blocking_crowds.py": _THREADS,
    "test_blocking_handlers.py": _THREADS,
    "test_blocking_limits.py": _THREADS,
    "test_blocking_stopping.py": _THREADS,
    "datagrams/test_blocking_handlers.py": _THREADS,
    "test_closing.py::test_peer_that_goes_on_sending": (
        "The peer never waits, so the clock would never jump to the end of lingering."
    ),
    "test_uncooperative.py": (
        "A task that ignores its cancellation gets another one at each turn of the loop, so the"
        " clock would never jump to the end of the time to stop."
    ),
}

_TIMES = "It takes long, or compares times: without a clock that can jump, that shows nothing more."

# Those that run in memory in virtual time only, which uvloop has not.
VIRTUAL_TIME: dict[str, str] = {
    "test_draining.py": _TIMES,
    "test_limits.py::test_idle_for_an_hour": _TIMES,
    "test_limits.py::test_large_answer": _TIMES,
    "test_limits.py::test_receiving_for_an_hour": _TIMES,
    "test_limits_attacked.py": _TIMES,
    "datagrams/test_draining.py": _TIMES,
}


def keys_of(path: str, item_name: str) -> set[str]:
    """Return the keys that are for a test.

    Args:
        path: That of its file, in this folder.
        item_name: The name of its function, with parameters.
    """
    function, _, _ = item_name.partition("[")
    return {path, f"{path}::{function}"}
