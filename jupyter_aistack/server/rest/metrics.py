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

from jupyter_aistack.broker.api.figures import HostFigures
from jupyter_aistack.broker.charged_totals import ChargedTotals
from jupyter_aistack.core.accounting.usage_report import SYSTEM_USER, Rates
from jupyter_aistack.core.model.device import Device, Inventory
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import LIVE_STATES, Lease
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import free_share
from jupyter_aistack.core.scheduling.activity import idle_leases

from .health_metrics import CONDITION_LABELS, HEALTH_FIGURES, condition_rows
from .stray_metrics import STRAY_FIGURES, STRAY_LABELS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DEVICE_LABELS = ("host", "device", "index", "kind", "name", "simulated")
LEASE_LABELS = ("host", "lease", "user", "queue")
QUEUE_LABELS = ("host", "queue")
USER_LABELS = ("host", "user")


Rows = list[tuple[tuple[str, ...], Any]]

COUNTED = (EventKind.LEASE_PREEMPTED, EventKind.LEASE_RECLAIMED)


def exposition(
    figures: HostFigures,
    happened: Mapping[str, int],
    charged: Sequence[ChargedTotals] = (),
    rates: Rates | None = None,
) -> bytes:
    """The host in Prometheus's text format.

    Args:
        figures: what the host looks like.
        happened: how many events of each kind there were since the server started.
        charged: what this server has charged since then; a server that does not record
            the usage of this host has charged nothing.
        rates: for carbon.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_HostCollector(figures, happened))
    registry.register(_ChargeCollector(figures, charged, rates or Rates()))
    return generate_latest(registry)


class _HostCollector(Collector):
    """Devices, queues and leases as they are now."""

    def __init__(self, figures: HostFigures, happened: Mapping[str, int]) -> None:
        self._happened = happened
        self._figures = figures
        self._inventory = figures.inventory
        self._host = figures.inventory.name_of(figures.inventory.host)

    def collect(self) -> Iterator[Metric]:
        yield from self._devices()
        yield from self._queues()
        yield from self._leases()
        yield from self._withdrawn()
        refused = sorted(self._figures.refused.items())
        yield _counter(
            "aistack_refused",
            "Calls refused because they are not their caller's to make.",
            ("host", "verb"),
            [((self._host, verb), count) for verb, count in refused],
        )

    def _devices(self) -> Iterator[Metric]:
        taken = [slice_ for lease in self._figures.leases for slice_ in lease.occupied]
        devices = [
            (_device_labels(self._inventory, d), d) for d in self._inventory.devices
        ]
        granted = [(labels, 1 - float(free_share(d, taken))) for labels, d in devices]
        yield _gauge(
            "aistack_device_memory_bytes",
            "Memory of a device.",
            DEVICE_LABELS,
            [(labels, device.memory_bytes) for labels, device in devices],
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
            [(labels, device.foreign_memory_bytes) for labels, device in devices],
        )
        for name, text, figure in HEALTH_FIGURES:
            rows = [(labels, figure(device)) for labels, device in devices]
            yield _gauge(f"aistack_device_{name}", text, DEVICE_LABELS, rows)
        yield _gauge(
            "aistack_device_health_condition",
            "1 for each condition of a device's health that holds.",
            (*DEVICE_LABELS, *CONDITION_LABELS),
            condition_rows(devices),
        )
        yield from self._device_usage()
        for name, text, counted in STRAY_FIGURES:
            labelled = counted(self._host, self._figures.strays)
            yield _gauge(f"aistack_stray_{name}", text, STRAY_LABELS, labelled)

    def _device_usage(self) -> Iterator[Metric]:
        devices = self._figures.inventory.devices
        usage = [
            (
                _device_labels(self._inventory, device),
                self._figures.device_usage.get(device.id, Usage()),
            )
            for device in devices
        ]
        yield _gauge(
            "aistack_device_memory_used_bytes",
            "Memory in use on a device.",
            DEVICE_LABELS,
            [(labels, use.memory_bytes) for labels, use in usage],
        )
        yield _gauge(
            "aistack_device_utilization_ratio",
            "Busy share of a device, 0 to 1.",
            DEVICE_LABELS,
            [(labels, use.utilization) for labels, use in usage],
        )
        yield _gauge(
            "aistack_device_power_watts",
            "Power drawn by a device.",
            DEVICE_LABELS,
            [(labels, use.power_watts) for labels, use in usage],
        )

    def _queues(self) -> Iterator[Metric]:
        since: dict[str, list[float]] = {
            queue.name: [] for queue in self._figures.queues
        }
        for request in self._figures.requests:
            since.setdefault(request.queue, []).append(request.submitted_at)
        now = self._figures.at
        yield _gauge(
            "aistack_requests_waiting",
            "Requests that wait in a queue.",
            QUEUE_LABELS,
            [((self._host, name), len(times)) for name, times in since.items()],
        )
        yield _gauge(
            "aistack_queue_longest_wait_seconds",
            "How long the oldest request of a queue has waited; 0 when none does.",
            QUEUE_LABELS,
            [
                ((self._host, name), max(0.0, now - min(times, default=now)))
                for name, times in since.items()
            ],
        )
        yield _gauge(
            "aistack_queue_held_devices",
            "Device equivalents a queue's leases hold.",
            QUEUE_LABELS,
            [
                ((self._host, queue.name), float(self._held_by(queue.name)))
                for queue in self._figures.queues
            ],
        )

    def _held_by(self, queue: str) -> Fraction:
        held = [lease for lease in self._figures.leases if lease.queue == queue]
        return sum((equivalents(lease.occupied) for lease in held), Fraction(0))

    def _leases(self) -> Iterator[Metric]:
        states = Counter(lease.state for lease in self._figures.leases)
        yield _gauge(
            "aistack_leases",
            "Live leases by state.",
            ("host", "state"),
            [((self._host, state.value), states[state]) for state in _STATES],
        )
        usage = [
            (
                self._lease_labels(lease),
                self._figures.lease_usage.get(lease.id, Usage()),
            )
            for lease in self._figures.leases
        ]
        yield _gauge(
            "aistack_lease_memory_used_bytes",
            "Memory in use by a lease's processes.",
            LEASE_LABELS,
            [(labels, use.memory_bytes) for labels, use in usage],
        )
        yield _gauge(
            "aistack_lease_utilization_ratio",
            "Busy share of a lease's slice, 0 to 1.",
            LEASE_LABELS,
            [(labels, use.utilization) for labels, use in usage],
        )

    def _withdrawn(self) -> Iterator[Metric]:
        queues = {queue.name: queue for queue in self._figures.queues}
        idle = idle_leases(self._figures.leases, queues, self._figures.at)
        yield _gauge(
            "aistack_leases_idle",
            "Leases that are idle.",
            ("host",),
            [((self._host,), idle)],
        )
        family = CounterMetricFamily(
            "aistack_leases_taken_back",
            "Leases reclaimed since the server started, by reason.",
            labels=("host", "reason"),
        )
        for kind in COUNTED:
            reason = kind.value.removeprefix("Lease").lower()
            family.add_metric((self._host, reason), self._happened.get(kind.value, 0))
        yield family

    def _lease_labels(self, lease: Lease) -> tuple[str, ...]:
        return _lease_labels(self._host, lease)


_STATES = sorted(LIVE_STATES, key=lambda state: state.value)


class _ChargeCollector(Collector):
    """Counters of energy: of each device its own, of users and live leases what was
    charged to them.
    """

    def __init__(
        self, figures: HostFigures, charged: Sequence[ChargedTotals], rates: Rates
    ) -> None:
        self._figures = figures
        self._inventory = figures.inventory
        self._host = figures.inventory.name_of(figures.inventory.host)
        self._charged = charged
        self._rates = rates

    def collect(self) -> Iterator[Metric]:
        yield self._devices()
        yield from self._leases()
        yield from self._users()

    def _devices(self) -> Metric:
        usage = self._figures.device_usage
        real = [d for d in self._figures.inventory.devices if not d.simulated]
        return _counter(
            "aistack_device_energy_joules",
            "Energy a device has drawn, by its counter.",
            DEVICE_LABELS,
            [
                (
                    _device_labels(self._inventory, device),
                    usage.get(device.id, Usage()).energy_joules,
                )
                for device in real
            ],
        )

    def _leases(self) -> Iterator[Metric]:
        leases = {lease.id: lease for lease in self._figures.leases}
        live = [total for total in self._charged if total.lease_id in leases]
        labels = [_lease_labels(self._host, leases[each.lease_id]) for each in live]
        yield _counter(
            "aistack_lease_energy_joules",
            "Energy charged to a live lease.",
            LEASE_LABELS,
            list(zip(labels, map(_joules, live), strict=True)),
        )
        yield _counter(
            "aistack_lease_energy_estimated_joules",
            "Of that energy, what is an estimate: work of several leases, divided by "
            "granted share.",
            LEASE_LABELS,
            list(zip(labels, map(_estimated_joules, live), strict=True)),
        )

    def _users(self) -> Iterator[Metric]:
        by_user: dict[str, list[ChargedTotals]] = {}
        for total in sorted(self._charged, key=lambda total: total.user):
            by_user.setdefault(total.user, []).append(total)

        seconds: Rows = []
        joules: Rows = []
        estimated: Rows = []
        for user, totals in by_user.items():
            labels = (self._host, user or SYSTEM_USER)
            joules.append((labels, _sum_known(map(_joules, totals))))
            if user:
                parts = map(_estimated_joules, totals)
                estimated.append((labels, _sum_known(parts)))
                seconds.append((labels, sum(total.gpu_seconds for total in totals)))

        yield _counter(
            "aistack_user_gpu_seconds",
            "Share of GPUs a user was granted, times time.",
            USER_LABELS,
            seconds,
        )
        yield _counter(
            "aistack_user_energy_joules",
            "Energy charged to a user; what no lease can be shown to have used is the "
            "system's.",
            USER_LABELS,
            joules,
        )
        yield _counter(
            "aistack_user_energy_estimated_joules",
            "Of that energy, what is an estimate: work of several leases, divided by "
            "granted share.",
            USER_LABELS,
            estimated,
        )
        rate = self._rates.carbon_g_per_kwh
        if rate is not None:
            yield _counter(
                "aistack_user_co2e_grams",
                "Carbon of that energy, by the grid's rate.",
                USER_LABELS,
                [(labels, _grams(energy, rate)) for labels, energy in joules],
            )


def _grams(joules: float | None, rate: float) -> float | None:
    return None if joules is None else joules / 3.6e6 * rate


def _joules(total: ChargedTotals) -> float | None:
    return None if total.millijoules is None else total.millijoules / 1000


def _estimated_joules(total: ChargedTotals) -> float | None:
    """Unknown where the energy is."""
    return None if total.millijoules is None else total.estimated_millijoules / 1000


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


def _device_labels(inventory: Inventory, device: Device) -> tuple[str, ...]:
    return (
        inventory.name_of(device.host),
        device.id,
        str(device.index),
        device.kind.value,
        device.name,
        "true" if device.simulated else "false",
    )


def _lease_labels(host: str, lease: Lease) -> tuple[str, ...]:
    return (host, lease.id, lease.holder.user, lease.queue)
