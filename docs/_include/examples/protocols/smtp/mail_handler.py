from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from anyio.to_thread import run_sync
from mail_auth import LoginError, receive_credentials
from mail_content import CONTENT, receive_content
from mail_protocol import (
    COMMANDS,
    GO_AHEAD,
    NOT_A_COMMAND,
    NOT_STORED,
    SHUTTING_DOWN,
    TIMEOUT,
    TOO_MANY_ERRORS,
    Reply,
)
from mail_queue import MailQueue, QueueError
from mail_session import Session, Settings, split_command

from easynetwork.addresses import TLSAttribute
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)

logger = logging.getLogger("mail")


class MailRequestHandler(AsyncStreamRequestHandler[str, Reply]):
    def __init__(self, settings: Settings, queue: MailQueue) -> None:
        self.settings = settings
        self.queue = queue
        self.logins = anyio.CapacityLimiter(2)  # threads that hash passwords

    def new_session(self, client: AsyncStreamClient[Reply]) -> Session:
        tls_version = client.extra(TLSAttribute.tls_version, None)
        return Session(self.settings, is_encrypted=tls_version is not None)

    async def on_connection(self, client: AsyncStreamClient[Reply]) -> None:
        await client.send_packet(Reply(220, f"{self.settings.hostname} ESMTP ready"))

    async def handle(self, client: AsyncStreamClient[Reply]) -> AsyncGenerator[float, str]:
        session = self.new_session(client)
        errors = 0
        while True:
            try:
                line = yield self.settings.command_timeout
                reply = await self.answer(client, session, line)
            except StreamProtocolParseError:
                reply = NOT_A_COMMAND
            except TimeoutError:
                reply = TIMEOUT
            except GeneratorExit:
                if client.is_draining():
                    await client.send_packet(SHUTTING_DOWN)
                raise
            errors += reply.code >= 500
            if errors > self.settings.max_errors:
                reply = TOO_MANY_ERRORS
            await client.send_packet(reply)
            if reply.code == 220:
                assert self.settings.tls is not None
                await client.start_tls(self.settings.tls)
                session = self.new_session(client)  # nothing said in clear text counts
            elif reply.code in (221, 421):
                await client.aclose()
                return

    async def answer(self, client: AsyncStreamClient[Reply], session: Session, line: str) -> Reply:
        """Return the last reply to a command, after the dialogue that it begins."""
        verb, argument = split_command(line)
        if verb == "MAIL" and client.is_draining():
            return SHUTTING_DOWN
        reply = session.reply_to(verb, argument)
        if reply.code == 334:
            return await self.log_in(client, session, argument)
        if reply.code == 354:
            return await self.receive_mail(client, session)
        return reply

    async def log_in(
        self, client: AsyncStreamClient[Any], session: Session, argument: str
    ) -> Reply:
        timeout, users = self.settings.command_timeout, self.settings.users
        assert users is not None
        try:
            name, password = await receive_credentials(client, argument, timeout)
        except LoginError as exc:
            return exc.reply
        if not await run_sync(users.check, name, password, limiter=self.logins):
            logger.info("Wrong password: %r at %r", name, client)
            return Reply(535, "5.7.8 Wrong name or password")
        session.user = name
        return Reply(235, "2.7.0 Welcome")

    async def receive_mail(self, client: AsyncStreamClient[Any], session: Session) -> Reply:
        assert session.envelope is not None
        envelope, session.envelope = session.envelope, None
        host = client.extra(INETClientAttribute.remote_address).host
        try:
            with self.queue.new_mail(vars(envelope)) as mail:
                mail.write(session.trace(host, mail.id).encode())
                await client.send_packet(GO_AHEAD)
                client.set_protocol(CONTENT)
                problem = await receive_content(client, mail, self.settings)
                client.set_protocol(COMMANDS)
                if problem is not None:
                    return problem
                await run_sync(mail.commit)
        except QueueError as exc:
            logger.error("A message cannot be stored: %s", exc)
            return NOT_STORED
        logger.info("%s: from <%s> at %s", mail.id, envelope.sender, host)
        return Reply(250, f"2.0.0 Queued as {mail.id}")
