"""The tests that run in WebAssembly, and those among them that cannot, with the reason.

There are no sockets that reach anything, no threads and no other processes, and OpenSSL is a stub.
Whatever needs none of them belongs in `SELECTED`.
"""

from __future__ import annotations

SELECTED = (
    "tests/addresses",
    "tests/backends/asyncio/test_shields.py",
    "tests/backends/test_abc.py",
    "tests/serializers",
    "tests/servers/test_reports.py",
    "tests/servers/test_statistics.py",
    "tests/test_codec.py",
    "tests/test_codec_datagrams.py",
    "tests/test_converter.py",
    "tests/test_decoder.py",
    "tests/test_decoder_generators.py",
    "tests/test_episode.py",
    "tests/test_exceptions.py",
    "tests/test_extras.py",
    "tests/test_lazy.py",
    "tests/test_oversized.py",
    "tests/test_parsers.py",
    "tests/test_protocol.py",
    "tests/test_testing.py",
    "tests/testing/test_conversation.py",
    "tests/testing/test_serving.py",
)

# What is missing, and regular expressions for the tests that need it.
MISSING = {
    "threads": (
        r"test_abc\.py::test_create_threads_portal",
        r"test_abc\.py::test_run_in_thread",
        r"test_shields\.py::.*\[.*\bthread\b",
        r"test_shields\.py::test_(no_thread_is_free|check_cancelled)",
        r"test_serving\.py::test_blocking_handler",
    ),
    "processes": (r"test_lazy\.py::test_only_that",),
    "socket.socketpair()": (
        r"test_ancillary\.py::test_over_a_socket",
        r"test_proxies\.py::test_proxy_(forwards|options|lock_and_runner|repr)",
        r"test_unix\.py::test_platform_without_credentials",
    ),
    "Unix sockets": (r"test_unix\.py::test_typed_address",),
    "socket options": (r"test_options\.py::test_(tcp_option|linger)",),
    "network interfaces": (r"test_inet\.py::test_ipv6_zone",),
    "Twisted, part of which has no wheel for WebAssembly": (r"test_twisted\.py::",),
}
