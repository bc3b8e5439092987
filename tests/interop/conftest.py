from __future__ import annotations

from pathlib import Path

import pytest

from tests.tls_peers import authority


@pytest.fixture
def authority_file(tmp_path: Path) -> str:
    """Return a file that says whom to trust."""
    path = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(str(path))
    return str(path)
