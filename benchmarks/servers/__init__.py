"""The contenders: each file is one server, written as its own documentation would write it.

All do the same work on lines that end in a newline: split, decode ASCII to `str`, encode, answer.
Those named after formats do it with packets in one of several formats, which is their VARIANT.
All switch Nagle's algorithm off (asyncio and trio do it unasked). Each is started as
``python FILE LIMIT [VARIANT...]``, where LIMIT is the longest line in bytes that it has to accept,
binds port 0 on 127.0.0.1, prints the port when it is ready, and ends on SIGTERM.
"""
