from __future__ import annotations

import pytest

from easynetwork import serializers
from easynetwork.testing import check_serializer
from tests.serializers.catalogue import ENTRIES, Entry


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_conformance(entry: Entry) -> None:
    """Each serializer, with each set of options, does what a serializer promises."""
    check_serializer(
        entry.serializer, entry.packets, malformed=entry.malformed, oversized=entry.oversized
    )


def test_complete() -> None:
    """No serializer is missing in the catalogue."""
    checked = {cls.__name__ for entry in ENTRIES for cls in type(entry.serializer).__mro__}

    assert set(serializers.__all__) <= checked
