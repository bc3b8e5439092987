from __future__ import annotations

import os

import pytest

from benchmarks.options import parse
from benchmarks.scenarios import SCENARIOS
from benchmarks.settings import FULL, QUICK


def test_everything_by_default():
    """Without arguments everything is measured at full size."""
    options = parse([])

    assert options.scenarios == list(SCENARIOS)
    assert options.settings.duration == FULL.duration
    assert {options.settings.server_core, options.settings.load_core} <= os.sched_getaffinity(0)


def test_quick():
    """A quick run leaves scenarios out and is short."""
    options = parse(["--quick"])

    assert 0 < len(options.scenarios) < len(SCENARIOS)
    assert options.settings.rounds == QUICK.rounds == 1


def test_what_is_named_is_measured_even_if_quick():
    """Naming a scenario selects it, in a quick run as well."""
    options = parse(["--quick", "--scenarios", "tcp-1x64x1,udp-*", "--contenders", "asyncio-*"])

    assert [s.name for s in options.scenarios] == ["tcp-1x64x1", "udp-50x64x1", "udp-50x64x8"]
    assert "asyncio-streams" in [contender.name for contender in options.contenders]


def test_sizes_and_cores():
    """Sizes and cores given on the command line win over the preset."""
    core = min(os.sched_getaffinity(0))
    arguments = "--rounds 5 --duration 1.5 --rate 100 --against twisted".split()
    options = parse([*arguments, "--cores", f"{core},{core}"])

    assert (options.settings.rounds, options.settings.duration) == (5, 1.5)
    assert (options.settings.rate, options.settings.warm_up) == (100, FULL.warm_up)
    assert (options.settings.server_core, options.settings.load_core) == (core, core)
    assert options.references["tcp"] == "twisted"
    assert options.references["udp"] == "asyncio-datagrams"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenarios", "sctp-*"], "nothing is called 'sctp-*'; --list shows the names"),
        (["--rounds", "0"], "0 is not 1 or more"),
        (["--duration", "-1"], "-1 is not a number above zero"),
        (["--duration", "nan"], "nan is not a number above zero"),
        (["--cores", "one"], "invalid"),
        (["--cores", "100000,0"], "100000,0: the cores are ["),
        (["--json", "no/such/folder/x.json"], "there is no folder no/such/folder"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    """Wrong arguments end with a message that names what was wrong."""
    with pytest.raises(SystemExit, match="2"):
        parse(arguments)

    assert message in capsys.readouterr().err


def test_help(capsys):
    """The help shows whole commands."""
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])

    assert "python -m benchmarks --quick" in capsys.readouterr().out
