"""The TLS arguments that servers and clients have in common."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final, TypeAlias

from easynetwork._arguments import validated_delay
from easynetwork._tuning import CLOSE_TIMEOUT
from easynetwork.tls import TLSSession

_HANDSHAKE_TIMEOUT: Final = 60.0
"""Seconds. The default of asyncio, and of nginx."""

_NAMES: Final = (
    *("server_hostname", "ssl_handshake_timeout"),
    *("ssl_shutdown_timeout", "ssl_standard_compatible"),
)


@dataclass(frozen=True, slots=True)
class TLSOptions:
    """How connections get TLS.

    Attributes:
        context: Certificates, versions, and everything else that can be chosen.
        server_side: Whether this is the server's end.
        server_hostname: The host whose certificate a client expects; None if it does not say.
        handshake_timeout: Seconds that the handshake may take.
        shutdown_timeout: Seconds that the peer has, at the end, to take what waits for it; None for
            as many as without TLS.
        standard_compatible: Whether both sides say that nothing follows (RFC 8446, 6.1).
    """

    context: ssl.SSLContext
    server_side: bool
    server_hostname: str | None
    handshake_timeout: float
    shutdown_timeout: float | None
    standard_compatible: bool

    @property
    def seconds_to_close(self) -> float:
        """`shutdown_timeout`; what connections have without TLS for None."""
        return CLOSE_TIMEOUT if self.shutdown_timeout is None else self.shutdown_timeout

    def new_session(self) -> TLSSession:
        """Return the session of one more connection."""
        return TLSSession(
            self.context, server_side=self.server_side, server_hostname=self.server_hostname
        )


_Options: TypeAlias = tuple[float | None, float | None, bool | None]
"""The arguments `ssl_handshake_timeout`, `ssl_shutdown_timeout` and `ssl_standard_compatible`."""


def required_server_tls(context: ssl.SSLContext, options: _Options) -> TLSOptions:
    """Do what `new_server_tls()` does for a connection that is to get TLS."""
    return _new_options(context, True, None, options)


def new_server_tls(context: ssl.SSLContext | None, options: _Options) -> TLSOptions | None:
    """Return how a server's connections get TLS; None if they do not.

    Args:
        context: The argument `ssl`.
        options: The arguments `ssl_…`.

    Raises:
        TypeError: `context` is not an `ssl.SSLContext`.
        ValueError: It is a client's, or there is none for the options, or a timeout is negative or
            not a number.
    """
    if context is None:
        _check_unused(None, options)
        return None
    return required_server_tls(context, options)


def new_client_tls(
    context: ssl.SSLContext | bool | None,
    host: str | None,
    server_hostname: str | None,
    options: _Options,
) -> TLSOptions | None:
    """Return how a client's connection gets TLS; None if it does not.

    Args:
        context: The argument `ssl`.
        host: What the client connects to; None for a socket that is connected.
        server_hostname: The argument of that name.
        options: The arguments `ssl_…`.

    Raises:
        TypeError: `context` is neither an `ssl.SSLContext` nor a bool.
        ValueError: It is a server's, or there is none for the options, or a timeout is negative or
            not a number, or it is not known whose certificate to expect.
    """
    if context is None or context is False:
        _check_unused(server_hostname, options)
        return None
    return required_client_tls(context, host, server_hostname, options)


def required_client_tls(
    context: ssl.SSLContext | bool,
    host: str | None,
    server_hostname: str | None,
    options: _Options,
) -> TLSOptions:
    """Do what `new_client_tls()` does for a connection that is to get TLS."""
    if context is not True:
        _check_context(context)
    if server_hostname is None:
        if not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        server_hostname = host
    if context is True:
        context = ssl.create_default_context()
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if not server_hostname:
            context.check_hostname = False
    return _new_options(context, False, _name_to_verify(server_hostname) or None, options)


def _name_to_verify(host: str) -> str:
    """Return the name that a certificate has for a host.

    That is the name without the dot that ends a fully qualified one (RFC 6066, section 3), or the
    address without its zone, which means something on this machine only (RFC 4007, section 6).
    """
    address, _, _ = host.partition("%")
    return address if ":" in address else host.removesuffix(".")


def _check_unused(server_hostname: str | None, options: _Options) -> None:
    for name, value in zip(_NAMES, (server_hostname, *options), strict=True):
        if value is not None:
            raise ValueError(f"{name} is only meaningful with ssl")


def _check_context(context: object) -> ssl.SSLContext:
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"Expected an ssl.SSLContext object, got {context!r}")
    return context


def _new_options(
    context: object, server_side: bool, server_hostname: str | None, options: _Options
) -> TLSOptions:
    handshake_timeout, shutdown_timeout, standard_compatible = options
    context = _check_context(context)
    if context.check_hostname and not server_side and server_hostname is None:
        # OpenSSL would not mind: it would not check anything.
        raise ValueError("check_hostname requires server_hostname")
    tls = TLSOptions(
        context,
        server_side,
        server_hostname,
        _HANDSHAKE_TIMEOUT if handshake_timeout is None else validated_delay(handshake_timeout),
        None if shutdown_timeout is None else validated_delay(shutdown_timeout),
        standard_compatible is not False,
    )
    try:
        tls.new_session()
    except ssl.SSLError as exc:  # the context is one for the other side
        raise ValueError(f"ssl: {exc}") from exc
    return tls
