from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator

from easynetwork.addresses import TLSAttribute
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


def context_from_files() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("fullchain.pem", "privkey.pem")
    return context


def context_that_asks_for_certificates() -> ssl.SSLContext:
    context = context_from_files()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations("employees-ca.pem")
    return context


class EmployeeRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def handle(
        self,
        client: AsyncStreamClient[str],
    ) -> AsyncGenerator[None, str]:
        request = yield

        certificate = client.extra(TLSAttribute.peercert)
        names = dict(certificate.get("subjectAltName", ()))
        name = names.get("email", "unknown")

        await client.send_packet(f"{name} asked: {request}")


def client_context_with_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_cert_chain("employee.pem")
    return context


def context_for_recent_clients() -> ssl.SSLContext:
    context = context_from_files()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def context_with_alpn() -> ssl.SSLContext:
    context = context_from_files()
    context.set_alpn_protocols(["chat/2", "chat/1"])
    return context


class VersionRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def handle(
        self,
        client: AsyncStreamClient[str],
    ) -> AsyncGenerator[None, str]:
        version = client.extra(TLSAttribute.alpn_protocol, "chat/1")

        request = yield

        await client.send_packet(f"{version}: {request}")


def context_for_two_names(
    example_com: ssl.SSLContext,
    example_org: ssl.SSLContext,
) -> ssl.SSLContext:
    contexts = {"example.com": example_com, "example.org": example_org}

    def choose(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        if name not in contexts:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        tls.context = contexts[name]
        return None

    example_com.sni_callback = choose
    return example_com
