"""trio: ``serve_tcp`` and lines split by hand, because trio has no ``readline``.

Usage: trio_streams.py LIMIT [CERTIFICATE]    (it has no limit of its own; with one: over TLS)
"""

from __future__ import annotations

import functools
import ssl
import sys
from typing import Any

import trio


async def handle(stream: trio.SocketStream | trio.SSLStream[Any]) -> None:
    """Answer one connection, line by line."""
    partial = b""
    try:
        async for data in stream:
            *lines, partial = (partial + data).split(b"\n")
            for line in lines:
                text = line.decode("ascii")
                await stream.send_all(text.encode("ascii") + b"\n")
    except trio.BrokenResourceError as exc:  # would otherwise end the whole server
        print("the peer broke the connection:", exc, file=sys.stderr)


async def main(certificates: list[str]) -> None:
    """Serve until the process is ended."""
    serve: Any = functools.partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
    for certificate in certificates:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        serve = functools.partial(trio.serve_ssl_over_tcp, handle, 0, context, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        listener: Any = (await nursery.start(serve))[0]
        while not hasattr(listener, "socket"):
            listener = listener.transport_listener
        print(listener.socket.getsockname()[1], flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[2:])
