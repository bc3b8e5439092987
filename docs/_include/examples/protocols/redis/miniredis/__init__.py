"""A subset of Redis: strings, lists, expiry, transactions, publish and subscribe."""
