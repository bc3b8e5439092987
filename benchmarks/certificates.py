"""The certificate of servers with TLS: made once for each run, and deleted at its end."""

from __future__ import annotations

import atexit
import functools
import shutil
import ssl
import tempfile
from pathlib import Path

__all__ = ["certificate", "client_context"]


@functools.cache
def _folder() -> Path:
    """Return a folder with an authority, and with a certificate that it has signed."""
    import trustme

    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder


def certificate() -> str:
    """Return the file with the servers' certificate and its key."""
    return str(_folder() / "server.pem")


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return the TLS context of clients, which trusts that authority."""
    return ssl.create_default_context(cafile=str(_folder() / "authority.pem"))
