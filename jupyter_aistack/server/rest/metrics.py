"""The host's figures for Prometheus. What cannot be known is left out, never shown as
zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jupyter_aistack.broker.usage_meter import ChargedTotals
from jupyter_aistack.core.accounting.usage_report import SYSTEM_USER, Rates
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import LIVE_STATES
from jupyter_aistack.server.maintenance.activity import idle_leases

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DEVICE_LABELS = ("host", "device", "index", "kind", "name", "simulated")
LEASE_LABELS = ("host", "lease", "user", "queue")
QUEUE_LABELS = ("host", "queue")
USER_LABELS = ("host", "user")


COUNTED = (EventKind.LEASE_PREEMPTED, EventKind.LEASE_RECLAIMED)


def exposition(
    snapshot: dict[str, Any],
    happened: Mapping[str, int],
    charged: Sequence[ChargedTotals] = (),
    rates: Rates | None = None,
) -> bytes:
    """A snapshot, as the stream sends it, in Prometheus's text format.

    Args:
        snapshot: what the host looks like.
        happened: how many events of each kind there were since the server started.
        charged: what this server has charged since then; a server that does not keep
            the books has charged nothing.
        rates: for carbon.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot, happened))
    registry.register(_Charges(snapshot, charged, rates or Rates()))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, snapshot: dict[str, Any], happened: Mapping[str, int]) -> None:
        self._happened = happened
        self._host = snapshot["host"]
        self._usage = snapshot["usage"]
        self._leases = snapshot["leases"]
        self._queue = snapshot["queue"]

    def collect(self) -> Iterator[Metric]:
        yield from self._devices()
        yield from self._waiting()
        yield from self._held()
        yield from self._taken_back()

    def _devices(self) -> Iterator[Metric]:
        devices = self._host["devices"]
        rows = [
            (
                _device_labels(self._host["host"], d),
                d,
                self._usage["devices"].get(d["id"], {}),
            )
            for d in devices
        ]
        total = [(labels, device["memory_bytes"]) for labels, device, _ in rows]
        granted = [
            (labels, 1 - float(Fraction(device["free_fraction"])))
            for labels, device, _ in rows
        ]
        foreign = [
            (labels, device["foreign_memory_bytes"]) for labels, device, _ in rows
        ]
        yield _gauge(
            "aistack_device_memory_bytes", "Memory of a device.", DEVICE_LABELS, total
        )
        yield _gauge(
            "aistack_device_granted_ratio",
            "Leased share of a device, 0 to 1.",
            DEVICE_LABELS,
            granted,
        )
        yield _gauge(
            "aistack_device_foreign_memory_bytes",
            "Memory held outside any lease.",
            DEVICE_LABELS,
            foreign,
        )
        for name, text, key in (
            (
                "aistack_device_memory_used_bytes",
                "Memory in use on a device.",
                "memory_bytes",
            ),
            (
                "aistack_device_utilization_ratio",
                "Busy share of a device, 0 to 1.",
                "utilization",
            ),
            ("aistack_device_power_watts", "Power drawn by a device.", "power_watts"),
        ):
            yield _gauge(
                name,
                text,
                DEVICE_LABELS,
                [(labels, use.get(key)) for labels, _, use in rows],
            )

    def _waiting(self) -> Iterator[Metric]:
        host = self._host["host"]
        now = self._usage["at"]
        since: dict[str, list[float]] = {
            queue["name"]: [] for queue in self._host["queues"]
        }
        for request in self._queue:
            since.setdefault(request["queue"], []).append(request["submitted_at"])
        rows = [((host, name), len(times)) for name, times in since.items()]
        longest = [
            ((host, name), max(0.0, now - min(times, default=now)))
            for name, times in since.items()
        ]
        held = [
            ((host, queue["name"]), float(Fraction(queue["held"])))
            for queue in self._host["queues"]
        ]
        yield _gauge(
            "aistack_requests_waiting",
            "Requests that wait in a queue.",
            QUEUE_LABELS,
            rows,
        )
        text = "How long the oldest request of a queue has waited; 0 when none does."
        yield _gauge("aistack_queue_longest_wait_seconds", text, QUEUE_LABELS, longest)
        yield _gauge(
            "aistack_queue_held_devices",
            "Device equivalents a queue's leases hold.",
            QUEUE_LABELS,
            held,
        )

    def _taken_back(self) -> Iterator[Metric]:
        host = self._host["host"]
        idle = idle_leases(self._leases, self._host["queues"], self._usage["at"])
        yield _gauge(
            "aistack_leases_idle",
            "Leases that nobody uses.",
            ("host",),
            [((host,), idle)],
        )
        text = "Leases taken back since the server started, by reason."
        family = CounterMetricFamily(
            "aistack_leases_taken_back", text, labels=("host", "reason")
        )
        for kind in COUNTED:
            family.add_metric(
                (host, kind.value.removeprefix("Lease").lower()),
                self._happened.get(kind.value, 0),
            )
        yield family

    def _held(self) -> Iterator[Metric]:
        host = self._host["host"]
        states = Counter(lease["state"] for lease in self._leases)
        rows = [
            ((host, state), states[state])
            for state in sorted(state.value for state in LIVE_STATES)
        ]
        yield _gauge("aistack_leases", "Live leases by state.", ("host", "state"), rows)
        for name, text, key in (
            (
                "aistack_lease_memory_used_bytes",
                "Memory in use by a lease's processes.",
                "memory_bytes",
            ),
            (
                "aistack_lease_utilization_ratio",
                "Busy share of a lease's slice, 0 to 1.",
                "utilization",
            ),
        ):
            used = [
                (_lease_labels(host, lease), self._use(lease).get(key))
                for lease in self._leases
            ]
            yield _gauge(name, text, LEASE_LABELS, used)

    def _use(self, lease: dict[str, Any]) -> dict[str, Any]:
        use: dict[str, Any] = self._usage["leases"].get(lease["id"], {})
        return use


class _Charges(Collector):
    """Counters of energy: of each device its own, of users and live leases what was
    charged to them.
    """

    def __init__(
        self, snapshot: dict[str, Any], charged: Sequence[ChargedTotals], rates: Rates
    ) -> None:
        self._host = snapshot["host"]["host"]
        self._devices = snapshot["host"]["devices"]
        self._use = snapshot["usage"]["devices"]
        self._leases = {one["id"]: one for one in snapshot["leases"]}
        self._charged = charged
        self._rates = rates

    def collect(self) -> Iterator[Metric]:
        rows = [
            (_device_labels(self._host, d), self._use.get(d["id"], {}))
            for d in self._devices
        ]
        real = [
            (labels, use.get("energy_joules"))
            for labels, use in rows
            if labels[-1] == "false"
        ]
        yield _counter(
            "aistack_device_energy_joules",
            "Energy a device has drawn, by its counter.",
            DEVICE_LABELS,
            real,
        )
        live = [
            (one, self._leases[one.lease_id])
            for one in self._charged
            if one.lease_id in self._leases
        ]
        of_leases = [
            (_lease_labels(self._host, lease), _joules(one)) for one, lease in live
        ]
        yield _counter(
            "aistack_lease_energy_joules",
            "Energy charged to a live lease.",
            LEASE_LABELS,
            of_leases,
        )
        yield from self._users()

    def _users(self) -> Iterator[Metric]:
        users = sorted({one.user for one in self._charged})
        own = {
            user: [one for one in self._charged if one.user == user] for user in users
        }
        labels = {user: (self._host, user or SYSTEM_USER) for user in users}
        joules = {user: _sum_known(_joules(one) for one in own[user]) for user in users}
        hours = [
            (labels[user], sum(one.gpu_seconds for one in own[user]))
            for user in users
            if user
        ]
        yield _counter(
            "aistack_user_gpu_seconds",
            "Share of GPUs a user was granted, times time.",
            USER_LABELS,
            hours,
        )
        text = "Energy charged to a user; what no lease can be shown to have used is the system's."
        yield _counter(
            "aistack_user_energy_joules",
            text,
            USER_LABELS,
            [(labels[u], joules[u]) for u in users],
        )
        rate = self._rates.carbon_g_per_kwh
        if rate is not None:
            grams = [
                (
                    labels[user],
                    None if (j := joules[user]) is None else j / 3.6e6 * rate,
                )
                for user in users
            ]
            yield _counter(
                "aistack_user_co2e_grams",
                "Carbon of that energy, by the grid's rate.",
                USER_LABELS,
                grams,
            )


def _joules(one: ChargedTotals) -> float | None:
    return None if one.millijoules is None else one.millijoules / 1000


def _sum_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _counter(
    name: str,
    text: str,
    labels: tuple[str, ...],
    rows: Sequence[tuple[tuple[str, ...], Any]],
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
    return family


def _gauge(
    name: str,
    text: str,
    labels: tuple[str, ...],
    rows: Sequence[tuple[tuple[str, ...], Any]],
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
    return family


def _device_labels(host: str, device: dict[str, Any]) -> tuple[str, ...]:
    simulated = "true" if device["simulated"] else "false"
    return (
        host,
        device["id"],
        str(device["index"]),
        device["kind"],
        device["name"],
        simulated,
    )


def _lease_labels(host: str, lease: dict[str, Any]) -> tuple[str, ...]:
    return (host, lease["id"], lease["holder"]["user"], lease["queue"])
