"""A last line without its end, end to end: servers and clients take it, if they are to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import serve
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

LINES = StreamProtocol(StringLineSerializer(allow_unterminated=True))


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


@pytest.mark.anyio
async def test_server() -> None:
    """The line is answered: the client has only ended its side."""
    async with serve(Echo(), LINES) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"one\ntwo")
        raw.send_eof()
        answer = b""
        while data := await raw.receive():
            answer += data
        assert answer == b"one\ntwo\n"


@contextlib.contextmanager
def sending(*, tls: bool, is_cut: bool = False) -> Iterator[tuple[str, int]]:
    """Return where a peer sends two lines, the second one without its end, and ends the stream."""

    def run() -> None:
        sock, _ = listener.accept()
        with contextlib.closing(server_context().wrap_socket(sock, True) if tls else sock) as peer:
            peer.sendall(b"one\ntwo")
            if isinstance(peer, ssl.SSLSocket) and not is_cut:
                peer.unwrap().close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()
        thread.join(PATIENCE)


@pytest.mark.parametrize("tls", [False, True])
def test_blocking_client(tls: bool) -> None:
    """The line is received, and then the end."""
    options: dict[str, Any] = (
        {"ssl": client_context(), "server_hostname": "localhost"} if tls else {}
    )
    with sending(tls=tls) as address, TCPNetworkClient(address, LINES, **options) as client:
        assert [client.recv_packet(), client.recv_packet()] == ["one", "two"]
        for _ in range(2):
            with pytest.raises(EndOfStreamError):
                client.recv_packet()


@pytest.mark.anyio
@pytest.mark.parametrize("tls", [False, True])
async def test_async_client(tls: bool) -> None:
    """The same holds for a client that coroutines use."""
    options: dict[str, Any] = (
        {"ssl": client_context(), "server_hostname": "localhost"} if tls else {}
    )
    with sending(tls=tls) as address:
        async with AsyncTCPNetworkClient(address, LINES, **options) as client:
            assert [await client.recv_packet(), await client.recv_packet()] == ["one", "two"]
            for _ in range(2):
                with pytest.raises(EndOfStreamError):
                    await client.recv_packet()


def test_blocking_client_whose_stream_is_cut() -> None:
    """Without TLS's closing alert, a part of the line may be missing: it is none."""
    with (
        sending(tls=True, is_cut=True) as address,
        TCPNetworkClient(
            address, LINES, ssl=client_context(), server_hostname="localhost"
        ) as client,
    ):
        assert client.recv_packet() == "one"
        with pytest.raises(ConnectionAbortedError) as caught:
            client.recv_packet()
        assert not isinstance(caught.value, EndOfStreamError)


@pytest.mark.anyio
async def test_async_client_whose_stream_is_cut() -> None:
    """Nor for a client that coroutines use."""
    with sending(tls=True, is_cut=True) as address:
        options: dict[str, Any] = {"ssl": client_context(), "server_hostname": "localhost"}
        async with AsyncTCPNetworkClient(address, LINES, **options) as client:
            assert await client.recv_packet() == "one"
            with pytest.raises(ConnectionAbortedError) as caught:
                await client.recv_packet()
            assert not isinstance(caught.value, EndOfStreamError)
