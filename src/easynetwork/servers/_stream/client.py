"""A connected client: what its handler sees of it, and what its session needs beyond that.

It changes here: its protocol, TLS, its tasks, its end. `PacketClient` is what each packet passes.
"""

from __future__ import annotations

import math
import ssl as _ssl  # the parameters of this name hide the module
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import anyio.lowlevel

from easynetwork._tls_options import required_server_tls
from easynetwork._typevars import _Ts
from easynetwork.addresses._ancillary import AncillaryCallback, RawAncillary
from easynetwork.backends.abc import (
    Cancellable,
    Incoming,
    SessionTasks,
    discard,
)
from easynetwork.backends.ancillary import encode_in_clear
from easynetwork.backends.tls_transport import Received, TLSStreamTransport, start_tls
from easynetwork.codec import codec_of
from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import (
    ClientClosedError,
    UnsupportedOperation,
)
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.servers._core.verdict import without
from easynetwork.servers._stream.background import Background
from easynetwork.servers._stream.census import Traffic
from easynetwork.servers._stream.drain import Stage
from easynetwork.servers._stream.errors import (
    DisconnectedError,
    busy,
    came_from_client,
    tag_with_client,
)
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.packets import PacketClient, nothing_at_hand
from easynetwork.servers._stream.watch import Watch
from easynetwork.servers.limits import changed_limits
from easynetwork.servers.statistics import ClientStatistics, CloseReason


class ServedClient(PacketClient):
    """A connected client as its handler sees it, and what its session needs beyond that.

    Attributes:
        background: The tasks that its handler has started; None if there are none.
        conversation: Cancels the session's part of the conversation.
    """

    __slots__ = ("_attributes", "background", "conversation")

    def __init__(
        self,
        options: StreamOptions,
        tasks: SessionTasks,
        incoming: Incoming,
        decoder: StreamDecoder,
    ) -> None:
        super().__init__(options, tasks, incoming, decoder)
        self._attributes = incoming.attributes
        self.background: Background | None = None
        self.conversation: Cancellable | None = None

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {**self.transport.extra_attributes, **self._attributes}

    def check_ancillary(self) -> None:
        """Make sure that ancillary data can be received.

        Raises:
            UnsupportedOperation: There is none, or it was read without: see `wait_disconnected()`.
            BusyResourceError: A task is receiving.
        """
        if self.is_receiving:
            raise busy()
        if self.watch is not None or isinstance(self.transport, TLSStreamTransport):
            raise UnsupportedOperation("This transport does not have ancillary data support.")

    async def receive_with_ancillary(
        self, bufsize: int, received: AncillaryCallback, timeout: float | None, stage: Stage
    ) -> None:
        """Read once, for a packet that is not at hand.

        Args:
            bufsize: The most bytes of ancillary data.
            received: Called with the ancillary data.
            timeout: How many seconds to wait.
            stage: What the packet is.

        Raises:
            DisconnectedError: Nothing more will arrive.
            TimeoutError: The time is up.
            Exception: What `check_ancillary()` raises.
        """
        self.check_ancillary()  # again: `take_received()` may have let other tasks run
        self.stage = stage
        if self.is_over or self.tasks.is_ending:
            self.check_may_wait()
        deadline = math.inf
        if timeout is not None:
            deadline = self.tasks.clock() + timeout
        if self.waiting_since is None:
            self.waiting_since, self.sent_before = self.tasks.clock(), self.bytes_sent
        self.is_receiving = True
        try:
            self.flush()
            await self.transport.receive_with_ancillary(bufsize, received, deadline)
        except EOFError:
            raise DisconnectedError from None
        except ConnectionError:
            self.end_by(CloseReason.PEER_RESET)
            raise DisconnectedError from None
        finally:
            self.stop_receiving()

    # -- a conversation that changes

    def set_protocol(self, protocol: AnyStreamProtocolType[Any, Any], /) -> None:
        self._check_changeable()
        codec = codec_of(protocol, self._options.max_recv_size)
        decoder = codec.new_decoder()
        decoder.succeed(self.decoder)
        self.decoder, self.protocol, self.encode = decoder, protocol, codec.encode
        self.transport.feed = decoder.feed
        self.renew_take()

    async def start_tls(
        self,
        ssl: _ssl.SSLContext,
        /,
        *,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
    ) -> None:
        self._check_changeable()
        options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
        tls = required_server_tls(ssl, options)
        if isinstance(self.transport, TLSStreamTransport):
            raise RuntimeError("The connection uses TLS already")
        self.decoder.unread()  # it raises an exception, or will not later
        self.is_receiving, self.take, self.stage = True, nothing_at_hand, Stage.HANDSHAKE
        try:
            self.flush()
            if self.watch is not None:
                await self.watch.hold()
            await start_tls(self.transport, tls, self._begin_tls)
            self._options.tls_log.completed += 1
        except OSError as exc:
            if self.is_closed and isinstance(exc, ConnectionError):
                raise self._explained(exc) from exc
            self.end_by(CloseReason.TLS_FAILED)
            self.abort()  # does nothing more to a connection that is closed
            self._options.tls_log.report_failure(exc, self.address)
            tag_with_client(self, exc)
            raise
        except BaseException:
            self.abort()
            raise
        finally:
            self.stop_receiving()
            self.renew_take()

    def _begin_tls(self, transport: TLSStreamTransport) -> Received:
        self.flush()  # what was gathered while the watch was held
        self.transport = transport
        received = self.decoder.hand_over()
        if self.supervision is not None:
            self.supervision.note_partial()  # there is none any more
        return received

    def _check_changeable(self) -> None:
        self.tasks.check_thread()
        if self.is_closed:
            raise tag_with_client(self, ClientClosedError("Closed client"))
        if self.is_over:
            raise RuntimeError("The conversation with this client is over")
        if self.is_receiving:
            raise busy()

    def set_limits(self, **timeouts: float | None) -> None:
        self.tasks.check_thread()
        if self.supervision is None:
            raise RuntimeError("The conversation with this client is over")
        self.supervision.change(changed_limits(self.supervision.limits, timeouts))
        if "close_timeout" in timeouts:
            self.transport.close_timeout = self.supervision.limits.seconds_to_close

    def get_statistics(self) -> ClientStatistics:
        now = self._options.backend.current_time()
        waits_since = self.waiting_since if self.is_receiving else None
        return ClientStatistics(
            state=self._state(),
            seconds=now - self.connected,
            idle=0.0 if waits_since is None else now - waits_since,
            unsent=self.get_unsent_size(),
            **Traffic().plus(self)._asdict(),
        )

    def _state(self) -> str:
        if self.is_over:
            return "closing"
        if self.is_receiving:
            return "waiting"
        if self.transport.congested:
            return "sending"
        return "working" if self.is_greeted else "greeting"

    # -- tasks

    def start_soon(
        self,
        func: Callable[[*_Ts], Coroutine[Any, Any, object]],
        /,
        *args: *_Ts,
        name: str | None = None,
    ) -> None:
        self.tasks.check_thread()
        if self.conversation is None or (self.is_over and not self.is_closed):
            raise RuntimeError("The conversation with this client is over")
        if self.background is None:
            self.background = Background(self.tasks, self._options.log, self._fail)
        self.background.start(partial(func, *args), name or f"task of client {self.address}")

    def _fail(self, error: BaseException) -> bool:
        if without(error, self._is_use_after_close) is None:
            return False  # no task can know that others are closing the client
        if self.conversation is not None:
            self.conversation.cancel()
        return True

    def _is_use_after_close(self, error: BaseException) -> bool:
        return isinstance(error, ClientClosedError) and came_from_client(self, error)

    # -- closing

    def discard_input(self) -> None:
        """Drop received data, now and from now on."""
        self.transport.feed = discard
        self.decoder.clear()
        if self.watch is not None:
            self.watch.resume()  # to see the end

    async def wait_disconnected(self) -> None:
        self.tasks.check_thread()
        if self.is_closing() or self.is_over:
            return await anyio.lowlevel.checkpoint()
        if self.watch is None:
            self.watch = Watch(self.tasks, self)
            self.renew_take()
        await self.watch.wait()

    async def send_packet_with_ancillary(
        self, packet: Any, ancillary_data: RawAncillary, /
    ) -> None:
        if self._options.ancillary_bufsize is None:
            await super().send_packet_with_ancillary(packet, ancillary_data)
        if self.is_closed:
            raise tag_with_client(self, ClientClosedError("Closed client"))
        encode = encode_in_clear(partial(self.encode, packet), lambda: self.transport)
        try:
            self.flush()
            size = await self.transport.send_with_ancillary(encode, ancillary_data)
            self.bytes_sent += size
            self.packets_sent += 1
        except ConnectionError as exc:
            raise self._explained(exc) from exc.__cause__

    async def aclose(self) -> None:
        with suppress(ConnectionError):
            self.flush()
        self.end_by(CloseReason.CLOSED)
        self.is_closed = self.is_over = True
        has_unread = bool(self.decoder)
        self.discard_input()
        await self.transport.aclose(linger=has_unread)

    def abort(self) -> None:
        self.tasks.check_thread()
        self.end_by(CloseReason.ABORTED)
        self.is_closed = self.is_over = True
        self.count_gathered(self.gathered_size())
        self.discard_input()
        self.transport.abort()
