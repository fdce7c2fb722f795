# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

    from trine.tally import Tally

# Seconds: from a short text in a cache-warm model to a long generation.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        to = self._registry
        self._requests = Counter(
            "trine_requests", "Requests that were answered.", ["route", "status"], registry=to
        )
        self._duration = Histogram(
            "trine_request_duration_seconds",
            "From the request's head to the answer's end.",
            ["route"],
            buckets=_BUCKETS,
            registry=to,
        )
        self._model_duration = Histogram(
            "trine_model_duration_seconds",
            "Time of a request in the model, waiting for its turn there included.",
            ["model"],
            buckets=_BUCKETS,
            registry=to,
        )
        self._read = Counter("trine_input_tokens", "Tokens that were read.", ["model"], registry=to)
        self._written = Counter(
            "trine_output_tokens", "Tokens that were written.", ["model"], registry=to
        )
        self._truncated = Counter(
            "trine_truncated_inputs",
            "Texts of which something was cut away.",
            ["model"],
            registry=to,
        )
        self._in_flight = Gauge("trine_requests_in_flight", "Requests under way.", registry=to)
        self._queue = Gauge("trine_queue_size", "Requests that wait for a thread.", registry=to)

    def watch(self, in_flight: Callable[[], float], queue: Callable[[], float]) -> None:
        """Say where the gauges are read."""
        self._in_flight.set_function(in_flight)
        self._queue.set_function(queue)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request, once, when it is over."""
        self._requests.labels(route, str(status)).inc()
        self._duration.labels(route).observe(seconds)

    def worked(self, model: str, tally: Tally) -> None:
        """Count what a request had done by a model."""
        self._model_duration.labels(model).observe(tally.seconds)
        self._read.labels(model).inc(tally.tokens)
        self._written.labels(model).inc(tally.written)
        self._truncated.labels(model).inc(tally.truncated)

    def text(self) -> bytes:
        """Return Prometheus' text format."""
        return generate_latest(self._registry)
