"""trio: ``serve_tcp`` with the lines cut by hand, for trio has no ``readline``.

Usage: trio_streams.py LIMIT    (it has no limit of its own)
"""

from __future__ import annotations

import functools
import sys

import trio


async def handle(stream: trio.SocketStream) -> None:
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


async def main() -> None:
    """Serve until the process is ended."""
    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        print(listeners[0].socket.getsockname()[1], flush=True)


if __name__ == "__main__":
    trio.run(main)
