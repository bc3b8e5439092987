"""easynetwork: TCP and UDP servers and clients that exchange packets, not bytes.

The modules, in import order: each one imports only those above it. (A received byte goes another
way: `backends`, `tls`, `decoder`, `serializers`, `converter`, `servers`, your request handler.)

* `easynetwork.exceptions`: every error on one page, grouped by the side at fault.
* `easynetwork.addresses`: socket addresses, the socket proxy, socket options, typed attributes.
* `easynetwork.serializers`: bytes <-> plain objects, one packet at a time.
* `easynetwork.converter`: plain object <-> your object.
* `easynetwork.protocol`: serializer + converter = what a client or a server works with.
* `easynetwork.parsers`: drives the generators of protocol objects, and checks them.
* `easynetwork.decoder`: bytes in, packets out; the only place that cuts a stream.
* `easynetwork.codec`: how a protocol object is driven, with or without shortcuts.
* `easynetwork.tls`: ciphertext to plaintext and back.
* `easynetwork.sockets`: plain sockets: names resolved, connected, bound, accepted.
* `easynetwork.backends`: the event loop, asyncio or trio.
* `easynetwork.servers`: listeners, the sessions of their clients, and the request handlers you
  write.
* `easynetwork.clients`: the other end.
* `easynetwork.testing`: for your tests: does a serializer keep its promises?
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
