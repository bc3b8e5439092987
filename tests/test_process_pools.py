"""Serializers and errors go to another process and come back, as in a pool of processes."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from typing import Any

from easynetwork.exceptions import DeserializeError
from tests.serializers.catalogue import ENTRIES
from tests.test_exceptions import Unpicklable, attributes, new_errors

# Its pipe stays open as long as this process: so it is there before the test begins.
resource_tracker.ensure_running()


def new_pool() -> ProcessPoolExecutor:
    """Return a pool of one process that imports everything anew."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def sent(serializers: list[Any]) -> list[bytes]:
    """Serialize in another process."""
    packets = [entry.packets[0] for entry in ENTRIES]
    return [one.serialize(packet) for one, packet in zip(serializers, packets, strict=True)]


def test_serializers() -> None:
    """All of them can be given to another process."""
    with new_pool() as pool:
        found = pool.submit(sent, [entry.serializer for entry in ENTRIES]).result(timeout=60)

    for data, entry in zip(found, ENTRIES, strict=True):
        assert entry.serializer.deserialize(data) == entry.packets[0]


def fail(index: int) -> None:
    """Raise one of the errors, in another process."""
    raise [*new_errors(), DeserializeError("message", Unpicklable("a text"))][index]


def test_errors() -> None:
    """None of them breaks a pool."""
    errors = list(new_errors())
    with new_pool() as pool:
        futures = [pool.submit(fail, index) for index in range(len(errors) + 1)]
        found = [future.exception(timeout=60) for future in futures]

    assert [attributes(error)[:3] for error in found[:-1]] == [
        attributes(error)[:3] for error in errors
    ]
    assert isinstance(found[-1], DeserializeError)
    assert found[-1].error_info == "a text"
