"""
`/metrics`, for Prometheus: what this process has counted, and what the store holds now.

Counters are this process's own: of several on one store, each tells its share, and the sum is
the store's.  The gauges are the whole store's, and every process tells the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request

    from holdfast._runtime.meter import Meter
    from holdfast._runtime.pulse import LoopDelay
    from holdfast.gateway.app import Gateway
    from holdfast.types import Counts, HoldStatistics

__all__ = ["show"]


async def show(request: Request) -> Response:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry  # noqa: PLC0415
    from prometheus_client.exposition import generate_latest  # noqa: PLC0415

    gateway: Gateway = request.app.state.gateway
    hf = gateway.hf
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        _Collected(
            hf.meter, hf.store.hold_statistics(), await hf.store.control.counts(), hf.loop_delay
        )
    )
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Collected:
    """One moment, in Prometheus' terms."""

    def __init__(
        self, meter: Meter, holds: HoldStatistics, counts: Counts, delay: LoopDelay
    ) -> None:
        self._meter, self._holds, self._counts = meter, holds, counts
        self._delay = delay

    def collect(self) -> Iterator[Metric]:
        yield from self._turns()
        yield from self._locks()
        yield from self._store()

    def _turns(self) -> Iterator[Metric]:
        from prometheus_client.core import (  # noqa: PLC0415
            CounterMetricFamily,
            HistogramMetricFamily,
        )

        accepted = CounterMetricFamily(
            "holdfast_accepted", "Messages that this process accepted.", labels=["lane"]
        )
        meter = self._meter
        for lane, count in sorted(meter.accepted().items()):
            accepted.add_metric([lane], count)
        yield accepted
        outcomes = CounterMetricFamily(
            "holdfast_outcomes",
            "Turns that this process gave their outcome.",
            labels=["lane", "outcome"],
        )
        for labels, count in sorted(meter.outcomes().items()):
            outcomes.add_metric(labels, count)
        yield outcomes
        for name, help_, by_lane in (
            ("wait", "From acceptance to the first start, at the turn's end.", meter.waits()),
            ("turn", "From the first start to the outcome.", meter.runs()),
        ):
            found = HistogramMetricFamily(f"holdfast_{name}_seconds", help_, labels=["lane"])
            for lane, (buckets, count, seconds) in sorted(by_lane.items()):
                bounds = [*((str(b), n) for b, n in buckets), ("+Inf", count)]
                found.add_metric([lane], bounds, seconds)
            yield found

    def _locks(self) -> Iterator[Metric]:
        from prometheus_client.core import (  # noqa: PLC0415
            CounterMetricFamily,
            HistogramMetricFamily,
        )

        holds = HistogramMetricFamily(
            "holdfast_write_lock_hold_seconds", "How long this process held a write lock."
        )
        inf = ("+Inf", self._holds.acquired)
        buckets = [*((str(b), n) for b, n in self._holds.buckets), inf]
        holds.add_metric([], buckets, self._holds.held_s)
        yield holds
        for name, told, count in (
            ("contended", "Write locks that were not had at once.", self._holds.contended),
            ("timeouts", "Write locks that were not had in time.", self._holds.timeouts),
            ("reclaimed", "Claims of dead owners, replaced.", self._holds.reclaimed),
            (
                "watchdog_aborts",
                "Holds that were ended because they passed max_hold_ms.",
                self._holds.watchdog_aborts,
            ),
            ("long_holds", "Write locks held for more than 1 s.", self._holds.long_holds),
            ("stale_reports", "Waiters told of a stale lock.", self._holds.stale_reports),
        ):
            yield CounterMetricFamily(f"holdfast_write_lock_{name}", told, value=count)

    def _store(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        delay = GaugeMetricFamily(
            "holdfast_loop_delay_seconds",
            "How long this process's event loop made a callback wait, in the last minute.",
            labels=["of"],
        )
        delay.add_metric(["max"], self._delay.max_s)
        delay.add_metric(["p99"], self._delay.p99_s)
        yield delay
        for name, told, value in (
            ("turns_waiting", "Turns that wait, in the whole store.", self._counts.waiting),
            ("turns_running", "Turns that run, in the whole store.", self._counts.running),
            ("leases", "Sessions that are leased, in the whole store.", self._counts.leases),
            ("sessions", "Sessions there are, in the whole store.", self._counts.sessions),
        ):
            yield GaugeMetricFamily(f"holdfast_{name}", told, value=value)
