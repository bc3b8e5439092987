"""Drive one request handler, packet by packet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, Generic, Literal, NoReturn, overload

import anyio

from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.clients.abc import AbstractAsyncNetworkClient
from easynetwork.exceptions import BaseProtocolParseError, EndOfStreamError
from easynetwork.protocol import AnyStreamProtocolType, DatagramProtocol
from easynetwork.servers.blocking import AnyDatagramRequestHandler, AnyStreamRequestHandler
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._serving import serve

PATIENCE: Final = 1.0
"""Seconds that a conversation waits for what is expected."""

_LONGEST: Final = 200
"""Characters of one packet that are shown."""

_MOST_LINES: Final = 20
"""Lines of a conversation that are shown: the last ones."""

EndReason = Literal["closed", "reset"]

_ENDS: Final = {
    None: "the end of the connection",
    "closed": "the server to close the connection",
    "reset": "the server to reset the connection",
}


class Conversation(Generic[_T_Request, _T_Response]):
    """A client that says what it expects of a request handler.

    Each method raises `AssertionError` if something else happens. The message says what was
    expected, what happened instead, what was said before, and what the server has logged.

    Attributes:
        client: The client, for all other purposes.
        network: What lies between it and the server.
    """

    client: AbstractAsyncNetworkClient[_T_Request, _T_Response]
    network: MemoryNetwork

    def __init__(self, client: Any, network: MemoryNetwork, log: _Log) -> None:
        self.client = client
        self.network = network
        self._log = log
        self._lines: list[str] = []

    async def send(self, *packets: _T_Request) -> None:
        """Send packets, one after the other."""
        __tracebackhide__ = True
        for packet in packets:
            try:
                await self.client.send_packet(packet)
            except ConnectionError as exc:
                self._fail(f"could not send {_shown(packet)}: {exc}")
            self._lines.append(f"sent      {_shown(packet)}")

    async def send_eof(self) -> None:
        """Send nothing more, on a connection; receiving goes on."""
        client: Any = self.client
        await client.send_eof()
        self._lines.append("sent      the end of the stream")

    async def receive(self, *, timeout: float = PATIENCE) -> _T_Response:
        """Return the next packet.

        Args:
            timeout: Seconds that it may take, on the event loop's clock.
        """
        __tracebackhide__ = True
        received: _T_Response = await self._receive("a packet", timeout)
        return received

    async def expect(self, *packets: _T_Response, timeout: float = PATIENCE) -> None:
        """Receive packets that are equal to these, one after the other.

        Args:
            *packets: The packets.
            timeout: Seconds that each of them may take, on the event loop's clock.
        """
        __tracebackhide__ = True
        for packet in packets:
            received = await self._receive(_shown(packet), timeout)
            if received != packet:
                self._fail(f"expected {_shown(packet)}, but got {_shown(received)}")

    async def expect_nothing(self, *, timeout: float = PATIENCE) -> None:
        """Wait, and receive nothing meanwhile.

        Args:
            timeout: Seconds to wait, on the event loop's clock.
        """
        try:
            is_end, found = await self._next(timeout)
        except TimeoutError:
            return
        happened = f"the server has {found} the connection" if is_end else f"got {_shown(found)}"
        self._fail(f"expected nothing, but {happened}")

    async def expect_end(
        self, *, reason: EndReason | None = None, timeout: float = PATIENCE
    ) -> None:
        """Wait until the server ends the connection, without a further packet.

        Args:
            reason: "closed" if it must have closed the connection in order, "reset" if it must have
                cut it off, as it does when the handler raises an exception; None for either.
            timeout: Seconds that it may take, on the event loop's clock.

        Raises:
            TypeError: This is a conversation by datagrams.
            ValueError: There is no such reason.
        """
        if not hasattr(self.client, "send_eof"):
            raise TypeError("Datagrams have no connection whose end could be expected")
        expected = _ENDS.get(reason)
        if expected is None:
            raise ValueError(f'reason must be "closed", "reset" or None, not {reason!r}')
        __tracebackhide__ = True
        is_end, found = await self._next_in_time(expected, timeout)
        if not is_end:
            self._fail(f"expected {expected}, but got {_shown(found)}")
        if reason not in (None, found):
            self._fail(f"expected {expected}, but it has {found} it")
        self._log.forget_errors()

    def check_log(self) -> None:
        """Make sure that no handler has crashed, except as the reason of an expected end."""
        __tracebackhide__ = True
        if self._log.errors:
            self._fail("the server has logged an error")

    async def _receive(self, expected: str, timeout: float) -> Any:
        __tracebackhide__ = True
        is_end, found = await self._next_in_time(expected, timeout)
        if is_end:
            self._fail(f"expected {expected}, but the server has {found} the connection")
        return found

    async def _next_in_time(self, expected: str, timeout: float) -> tuple[bool, Any]:
        __tracebackhide__ = True
        try:
            return await self._next(timeout)
        except TimeoutError:
            self._fail(f"expected {expected}, but nothing came within {timeout} seconds")
        except BaseProtocolParseError as exc:
            self._fail(f"expected {expected}, but got something that is not a packet: {exc}")

    async def _next(self, timeout: float) -> tuple[bool, Any]:
        """Return whether the connection has ended, and how; or the next packet."""
        client: Any = self.client
        try:
            # Not a cancel scope: with a timeout of 0, it would not even look.
            received = await client._receive(anyio.current_time() + timeout)
        except BaseProtocolParseError as exc:
            self._lines.append(f"received  something that is not a packet: {exc}")
            raise
        except ConnectionError as exc:
            found = "closed" if isinstance(exc, EndOfStreamError) else "reset"
            self._lines.append(f"{found} by the server")
            return True, found
        self._lines.append(f"received  {_shown(received)}")
        return False, received

    def _fail(self, message: str) -> NoReturn:
        __tracebackhide__ = True  # pytest shows the line of the test
        said = self._lines[-_MOST_LINES:] or ["(nothing)"]
        left_out = len(self._lines) - len(said)
        more = [f"({left_out} lines before)"] if left_out > 0 else []
        parts = [message, "The conversation:", *_indented([*more, *said])]
        if self._log.lines:
            parts += ["The server's log:", *_indented(self._log.lines)]
        parts.append(f"The network: {self.network!r}")
        cause = self._log.errors[0] if self._log.errors else None
        self._log.forget_errors()
        raise AssertionError("\n".join(parts)) from cause


class _Log(logging.Logger):
    """The logger of a conversation: what the server logs from WARNING on, whatever is disabled.

    It is made anew each time; one of `getLogger()` would be there for ever.
    """

    def __init__(self) -> None:
        super().__init__("easynetwork.testing.conversation")
        self._shared = logging.getLogger("easynetwork.testing")
        self.parent: logging.Logger | None = self._shared
        self.lines: list[str] = []
        self.errors: list[BaseException | None] = []

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return level >= logging.WARNING or self._shared.isEnabledFor(level)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - likewise
        if record.levelno >= logging.WARNING:
            self._note(record)
        if self._shared.isEnabledFor(record.levelno):
            super().callHandlers(record)

    def _note(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self.lines[-1] += f": {error!r}"
        if record.levelno >= logging.ERROR:
            self.errors.append(error)

    def forget_errors(self) -> None:
        """Take note that the errors so far were expected, or are reported already."""
        self.errors.clear()


@overload
def converse(
    handler: AnyStreamRequestHandler[_T_Request, _T_Response],
    protocol: AnyStreamProtocolType[_T_Response, _T_Request],
    *,
    network: MemoryNetwork | None = None,
    **server_options: Any,
) -> contextlib.AbstractAsyncContextManager[Conversation[_T_Request, _T_Response]]: ...


@overload
def converse(
    handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
    protocol: DatagramProtocol[_T_Response, _T_Request],
    *,
    network: MemoryNetwork | None = None,
    **server_options: Any,
) -> contextlib.AbstractAsyncContextManager[Conversation[_T_Request, _T_Response]]: ...


def converse(
    handler: Any, protocol: Any, *, network: MemoryNetwork | None = None, **server_options: Any
) -> Any:
    """Serve a request handler, as `serve()` does, and talk to it while the block runs.

    For example::

        async with converse(EchoHandler(), protocol) as conversation:
            await conversation.send("hello")
            await conversation.expect("hello")

    The block ends with an `AssertionError` if the handler has crashed and nobody expected that.

    Args:
        handler: The request handler.
        protocol: The protocol object.
        network: What lies between the client and the server; a network without faults by default.
        **server_options: As for `serve()`, except `logger`, and `ssl`: for TLS, use `serve()`.

    Raises:
        TypeError: An argument is of the wrong type, or there is no such option.
        ValueError: An option has a value that cannot be used.
    """
    return _converse(handler, protocol, network or MemoryNetwork(), server_options)


@contextlib.asynccontextmanager
async def _converse(
    handler: Any, protocol: Any, network: MemoryNetwork, options: dict[str, Any]
) -> AsyncIterator[Conversation[Any, Any]]:
    log = _Log()
    if options.get("ssl") is not None:
        raise TypeError("A conversation is without TLS: use serve(), and connect(ssl=...)")
    async with serve(handler, protocol, network=network, logger=log, **options) as served:
        conversation = Conversation[Any, Any](await served.connect(), network, log)
        yield conversation
        with anyio.move_on_after(PATIENCE):  # what was sent last is handled before the log is read
            await anyio.wait_all_tasks_blocked()
    conversation.check_log()


def _shown(packet: object) -> str:
    try:
        text = repr(packet)
    except Exception as exc:
        text = f"<{type(packet).__name__} whose repr() raises {type(exc).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
