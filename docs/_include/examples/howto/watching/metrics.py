from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, run
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.statistics import CloseReason, StreamStatistics

DIRECTION = "network_io_direction"


class ServerCollector(Collector):
    """Asks a server for its statistics whenever Prometheus asks for them.

    Args:
        get_statistics: Returns the statistics. Called in the threads of Prometheus.
    """

    def __init__(self, get_statistics: Callable[[], StreamStatistics]) -> None:
        self.get_statistics = get_statistics

    def describe(self) -> Iterator[Metric]:
        return metrics_of(StreamStatistics())

    def collect(self) -> Iterator[Metric]:
        return metrics_of(self.get_statistics())


def metrics_of(found: StreamStatistics) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "server_network_connection_count", "Connections at this moment", found.clients
    )
    yield CounterMetricFamily(
        "server_network_connection_accepted", "Connections accepted", found.accepted
    )
    yield counters(
        "server_network_connection_closed",
        "Connections that have ended",
        "reason",
        {reason.name.lower(): found.closed.get(reason, 0) for reason in CloseReason},
    )
    yield counters(
        "server_network_io_bytes",
        "Bytes of packets",
        DIRECTION,
        {"receive": found.bytes_received, "transmit": found.bytes_sent},
    )
    yield counters(
        "server_network_packet_count",
        "Packets",
        DIRECTION,
        {"receive": found.packets_received, "transmit": found.packets_sent},
    )
    yield counters(
        "server_network_errors",
        "Errors of clients and of the request handler",
        "error_type",
        {
            "invalid_packet": found.invalid_packets,
            "handler_error": found.handler_errors,
            "tls_handshake": found.tls_failures,
        },
    )
    yield CounterMetricFamily(
        "server_tls_handshakes", "TLS handshakes completed", found.tls_handshakes
    )
    yield CounterMetricFamily(
        "server_log_suppressed", "Log lines left out", found.suppressed_log_lines
    )


def counters(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


class EchoRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncTCPNetworkServer[str, str],
    ) -> None:
        portal = await exit_stack.enter_async_context(server.backend().create_threads_portal())
        collector = ServerCollector(lambda: portal.call(server.get_statistics))
        REGISTRY.register(collector)
        exit_stack.callback(REGISTRY.unregister, collector)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


def new_server() -> AsyncTCPNetworkServer[str, str]:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    return AsyncTCPNetworkServer("localhost", 9000, protocol, EchoRequestHandler())


if __name__ == "__main__":
    start_http_server(9464, addr="127.0.0.1")
    run(new_server)
