"""Sockets, transports and servers in memory."""
