"""easynetwork: servers and clients over TCP, UDP and Unix sockets that exchange packets.

The modules, in import order: each one imports only those above it. (A received byte goes another
way: `backends`, `tls`, `decoder`, `serializers`, `converter`, `servers`, your request handler.)

* `easynetwork.exceptions`: every error on one page, grouped by the side at fault.
* `easynetwork.addresses`: socket addresses, the socket proxy, socket options, typed attributes,
  ancillary data.
* `easynetwork.serializers`: bytes <-> plain objects, one packet at a time; `framing` splits a
  stream into frames.
* `easynetwork.converter`: plain object <-> your object.
* `easynetwork.protocol`: serializer + converter = what a client or a server works with.
* `easynetwork.parsers`: drives the generators of protocol objects, and checks them.
* `easynetwork.decoder`: bytes in, packets out, whatever the network.
* `easynetwork.codec`: drives a protocol object by whole frames, or by its generators.
* `easynetwork.tls`: ciphertext to plaintext and back.
* `easynetwork.sockets`: plain sockets: names resolved, connected, bound, accepted, adopted.
* `easynetwork.backends`: the event loop, asyncio or trio. `abc` holds the contracts: a new kind of
  connection is a `Listener` and a `StreamTransport`.
* `easynetwork.servers`: the request handlers you write, and what serves them: `_stream` takes a
  connection from its listener to the end of its session, `_datagram` the same for datagrams,
  `_core` is life cycle, log and faults.
* `easynetwork.clients`: the other end.
* `easynetwork.socketserver`: packets for programs on the standard module of that name.
* `easynetwork.testing`: for your tests: checks that a serializer keeps its promises.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
