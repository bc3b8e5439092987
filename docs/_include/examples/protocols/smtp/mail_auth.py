from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import hmac
import json
import os
import sys
from collections.abc import Mapping

from mail_protocol import Reply

from easynetwork.servers.handlers import AsyncStreamClient


class LoginError(Exception):
    """The client did not send credentials. The argument is the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


async def receive_credentials(
    client: AsyncStreamClient[Reply], argument: str, timeout: float
) -> tuple[str, str]:
    """Return the name and the password of a client that has sent "AUTH argument"."""
    mechanism, _, initial = argument.partition(" ")

    async def ask(prompt: str) -> str:
        await client.send_packet(Reply(334, base64.b64encode(prompt.encode()).decode()))
        line: str = await client.recv_packet(timeout=timeout)
        return line

    if mechanism.upper() == "PLAIN":
        fields = decode(initial or await ask("")).split("\0")
        if len(fields) != 3 or fields[0] not in ("", fields[1]):
            raise LoginError(Reply(501, "5.5.2 Malformed credentials"))
        return fields[1], fields[2]
    name = decode(initial or await ask("Username:"))
    return name, decode(await ask("Password:"))


def decode(line: str) -> str:
    if line == "*":
        raise LoginError(Reply(501, "5.7.0 Login cancelled"))
    try:
        # A single "=" stands for an empty initial response.
        return base64.b64decode("" if line == "=" else line, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise LoginError(Reply(501, "5.5.2 Malformed credentials")) from None


class Users:
    """Names and hashes of passwords."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self.hashes = dict(hashes)
        self.no_hash = hash_password(os.urandom(16).hex())

    def check(self, name: str, password: str) -> bool:
        """Return whether the password is right. This takes time: use a thread."""
        # An unknown name takes as long as a wrong password, so the time does not tell them apart.
        expected = self.hashes.get(name, self.no_hash)
        return hmac.compare_digest(hash_password(password, expected.partition("$")[0]), expected)


def hash_password(password: str, salt: str | None = None) -> str:
    salt = salt or os.urandom(16).hex()
    digest = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=16_384, r=8, p=1)
    return f"{salt}${digest.hex()}"


if __name__ == "__main__":
    # Print a file of users: one line of JSON.
    print(json.dumps({name: hash_password(getpass.getpass(f"{name}: ")) for name in sys.argv[1:]}))
