from __future__ import annotations

import pytest
from anyio import TypedAttributeSet

from easynetwork.addresses import (
    INETSocketAttribute,
    SocketAttribute,
    TLSAttribute,
)


def test_inet_attributes_are_socket_attributes() -> None:
    """What is asked by one set of keys is found by the other."""
    for name in ("socket", "family", "sockname", "peername"):
        assert getattr(INETSocketAttribute, name) is getattr(SocketAttribute, name)


@pytest.mark.parametrize("attributes", [SocketAttribute, INETSocketAttribute, TLSAttribute])
def test_attribute_sets_are_those_of_anyio(attributes: type) -> None:
    """Anything that knows anyio's typed attributes knows ours."""
    assert issubclass(attributes, TypedAttributeSet)


def test_tls_attributes() -> None:
    """There is one key for each thing to know of a TLS connection."""
    keys = {
        TLSAttribute.sslcontext,
        TLSAttribute.peercert,
        TLSAttribute.cipher,
        TLSAttribute.compression,
        TLSAttribute.alpn_protocol,
        TLSAttribute.standard_compatible,
        TLSAttribute.tls_version,
    }

    assert len(keys) == 7
