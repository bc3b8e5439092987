from __future__ import annotations

import logging

import pytest

from easynetwork.servers._core.fault_log import ServerLog, printable

LOGGER = logging.getLogger("tests.reports")


class Clock:
    """Time, as a test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


@pytest.fixture
def faults(clock: Clock, caplog: pytest.LogCaptureFixture) -> ServerLog:
    caplog.set_level(logging.WARNING, LOGGER.name)
    return ServerLog(LOGGER)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.name == LOGGER.name]
    caplog.clear()
    return found


def test_warning(faults: ServerLog, caplog: pytest.LogCaptureFixture) -> None:
    """A peer's fault is one WARNING line without traceback."""
    faults.fault("%s sent %d bytes", "somebody", 5)

    (record,) = caplog.records
    assert record.getMessage() == "somebody sent 5 bytes"
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert faults.count == 1


def test_rate(faults: ServerLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Three lines a second are enough; the others are counted, and their number is told later."""
    for number in range(10):
        faults.fault("fault %d", number)
    assert lines(caplog) == ["fault 0", "fault 1", "fault 2"]

    clock.now = 1.0
    faults.fault("fault %d", 10)

    assert lines(caplog) == ["7 more problems with clients were not logged", "fault 10"]
    assert faults.count == 11


def test_flood(faults: ServerLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Ten thousand faults in ten seconds are a few dozen lines."""
    for number in range(10_000):
        clock.now = number / 1000
        faults.fault("fault")
    faults.flush()

    found = lines(caplog)
    assert len(found) == 10 * (3 + 1)
    assert found[-1] == "997 more problems with clients were not logged"


def test_flush(faults: ServerLog, caplog: pytest.LogCaptureFixture) -> None:
    """When there is nothing to tell, nothing is told."""
    faults.flush()
    for _ in range(4):
        faults.fault("fault")
    faults.flush()
    faults.flush()
    assert lines(caplog) == ["fault"] * 3 + ["1 more problems with clients were not logged"]


@pytest.mark.parametrize("reports", ["limit", "fault"])
def test_level_of_the_sum(
    faults: ServerLog, caplog: pytest.LogCaptureFixture, reports: str
) -> None:
    """Lines that were left out are summed up by a WARNING, unless all of them were at INFO."""
    caplog.set_level(logging.INFO, LOGGER.name)
    for _ in range(4):
        faults.limit("limit")
    getattr(faults, reports)("another one")
    faults.flush()
    level = logging.INFO if reports == "limit" else logging.WARNING
    assert caplog.records[-1].getMessage() == "2 more problems with clients were not logged"
    assert caplog.records[-1].levelno == level


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("wrong"), "ValueError: wrong"),
        (EOFError(), "EOFError"),
        (ValueError("a\nb\x1b[31m\0"), r"ValueError: a\nb\x1b[31m\x00"),
        (ValueError("é\u2028\U0001f600\udc80"), r"ValueError: \xe9\u2028\U0001f600\udc80"),
    ],
)
def test_printable(error: Exception, text: str) -> None:
    """Whatever an error quotes, its text is one line of ASCII."""
    assert printable(error) == text


def test_printable_is_short() -> None:
    """An error that quotes a lot is cut."""
    text = printable(ValueError("\n" * 100_000))
    assert len(text) == 203
    assert text.endswith("...")
