"""What tests of blocking clients in several threads share: calls in threads, and forks."""

from __future__ import annotations

import linecache
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

from easynetwork.converter import AbstractPacketConverter
from tests.times import MS, PATIENCE


class InThread:
    """A call in a thread of its own.

    Args:
        function: What to call.
        *args: Its arguments.
        **kwargs: Its keyword arguments.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._call, args=(function, args, kwargs))
        self._thread.start()

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            self._outcome = function(*args, **kwargs)
        except BaseException as exc:
            self._error = exc

    def result(self) -> Any:
        """Wait for the call; return what it returned or raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._outcome

    def waits_in(self, *functions: str) -> InThread:
        """Wait until the thread is in one of some functions."""
        wait_until(lambda: self._current_function() in functions)
        return self

    def waits_for_socket(self) -> InThread:
        """Wait until the thread is in poll(2), or in a recv(2) that waits."""
        wait_until(lambda: self._current_function() == "select" or ".recv," in self._current_line())
        return self

    def waits_for_lock(self) -> InThread:
        """Wait until the thread is blocked in the ``acquire()`` of a lock."""
        wait_until(self._is_blocked_in_acquire)
        return self

    def _current_frame(self) -> FrameType | None:
        """Return the innermost frame: that of the caller, if the thread is in a C function."""
        return sys._current_frames().get(self._thread.ident or 0)

    def _current_function(self) -> str:
        frame = self._current_frame()
        return "" if frame is None else frame.f_code.co_name

    def _current_line(self) -> str:
        frame = self._current_frame()
        return "" if frame is None else linecache.getline(frame.f_code.co_filename, frame.f_lineno)

    def _is_blocked_in_acquire(self) -> bool:
        frame = self._current_frame()
        if frame is None:
            return False
        position = frame.f_lasti
        if ".acquire(" not in self._current_line():
            return False
        # An attempt that does not block looks the same, but not for long.
        time.sleep(2 * MS)
        return self._current_frame() is frame and frame.f_lasti == position

    def is_waiting(self) -> bool:
        return self._thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waits_for_socket(function: Callable[..., Any], *args: Any, **kwargs: Any) -> InThread:
    """Call a function in a thread, and wait until that one waits for the socket."""
    return InThread(function, *args, **kwargs).waits_for_socket()


def waits_for_lock(function: Callable[..., Any], *args: Any, **kwargs: Any) -> InThread:
    """Call a function in a thread, and wait until that one waits for another thread."""
    return InThread(function, *args, **kwargs).waits_for_lock()


class BlockingConverter(AbstractPacketConverter[str, str]):
    """Makes the packet `block` wait, both ways."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def create_from_dto_packet(self, packet: str, /) -> str:
        if packet == "block":
            self.wait()
        return packet

    def wait(self) -> None:
        assert self.go_on.wait(PATIENCE)

    convert_to_dto_packet = create_from_dto_packet


def fork(function: Callable[..., object], *args: object) -> int:
    """Call a function in a child; its exit code says whether that went well."""
    with warnings.catch_warnings():
        # Python warns that the child of a process with threads may wait for them. Not this one.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            function(*args)
            os._exit(0)
        finally:
            os._exit(1)
    return child
