from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STALE = 3600.0  # seconds; no message takes so long to arrive


class QueueError(Exception):
    """A message cannot be written to the disk."""


class MailQueue:
    """A folder with one file for each message: a line of JSON, then what the client sent."""

    def __init__(self, folder: Path) -> None:
        self.complete = folder / "new"
        self.incomplete = folder / "tmp"
        for path in self.complete, self.incomplete:
            path.mkdir(parents=True, exist_ok=True)
        sync_folder(folder)
        # What a crash has left behind was never acknowledged.
        for path in self.incomplete.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - STALE:
                    path.unlink()

    @contextlib.contextmanager
    def new_mail(self, envelope: dict[str, Any]) -> Iterator[NewMail]:
        """Begin a message. Unless it is committed in the block, it is gone afterwards."""
        try:
            mail = NewMail(self)
        except OSError as exc:
            raise QueueError(str(exc)) from exc
        try:
            mail.write(json.dumps(envelope).encode())
            yield mail
        finally:
            mail.close()

    def messages(self) -> list[Path]:
        """Return the messages that are complete, the oldest one first."""
        return sorted(self.complete.glob("*.mail"))


class NewMail:
    """A message that is being received."""

    def __init__(self, queue: MailQueue) -> None:
        self.id = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        self.path = queue.complete / f"{self.id}.mail"
        self.temporary_path = queue.incomplete / f"{self.id}.mail"
        self.file = self.temporary_path.open("xb", buffering=65_536)

    def write(self, line: bytes) -> None:
        try:
            self.file.write(line + b"\r\n")
        except OSError as exc:
            raise QueueError(str(exc)) from exc

    def commit(self) -> None:
        """Return when the message would survive a power failure. This takes time: use a thread."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.temporary_path.rename(self.path)
            sync_folder(self.path.parent)
        except OSError as exc:
            raise QueueError(str(exc)) from exc

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the disk is full: what is lost was not wanted
            self.file.close()
        self.temporary_path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names of the files in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_mail(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the envelope and the content of a message in the queue."""
    envelope, _, content = path.read_bytes().partition(b"\r\n")
    return json.loads(envelope), content


if __name__ == "__main__":
    for path in MailQueue(Path(sys.argv[1])).messages():
        envelope, content = read_mail(path)
        recipients = ", ".join(envelope["recipients"])
        print(f"{path.stem}: {envelope['sender']} to {recipients}, {len(content)} bytes")
