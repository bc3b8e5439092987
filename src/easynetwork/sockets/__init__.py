"""Plain sockets: names resolved, connected, bound, accepted, before a backend takes them."""
