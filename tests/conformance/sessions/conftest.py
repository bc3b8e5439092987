"""The fixture that runs a test of the contract of sessions for each kind of session."""

from __future__ import annotations

import ssl

import pytest

from tests.conformance.peers import Peer
from tests.conformance.sessions.kinds import KINDS, Kind, TLSKind
from tests.conformance.support import Records
from tests.tls_peers import client_context


@pytest.fixture(params=KINDS)
def kind(
    request: pytest.FixtureRequest,
    tls_version: ssl.TLSVersion,
    monkeypatch: pytest.MonkeyPatch,
    log: Records,
) -> Kind:
    """Return a kind of session."""
    kind = KINDS[request.param](tls_version)
    if isinstance(kind, TLSKind):
        monkeypatch.setattr(Peer, "tls", client_context(tls_version))
    return kind
