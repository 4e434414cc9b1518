"""Several leases of one kernel as one preparation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from jupyter_aistack.core.enforcement.device_visibility import Visibilities, united
from jupyter_aistack.core.enforcement.memory_caps import combine_caps
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation

from .environment import THREAD_SUFFIXES

T = TypeVar("T")
Total = Callable[[list[int]], int]


def combine_preparations(parts: Sequence[Preparation]) -> Preparation:
    """Several leases of one kernel as one preparation: devices and cores side by side,
    thread counts added up.
    """
    total = parts[0]
    for part in parts[1:]:
        visibility = united(total.visibility, part.visibility)
        total = replace(
            total,
            environment=_combine_environments(
                total.environment, part.environment, visibility
            ),
            visibility=visibility,
            cores=tuple(sorted({*total.cores, *part.cores})),
            memory_limit_bytes=total.memory_limit_bytes + part.memory_limit_bytes,
            expects=_combine_expectations(total.expects, part.expects),
        )
    return total


def _combine_environments(
    first: Mapping[str, str], second: Mapping[str, str], visibilities: Visibilities
) -> dict[str, str]:
    both = {**first, **second, **combine_caps(first, second)}
    lists = {"AISTACK_LEASE"}
    for visibility in visibilities:
        lists.update(visibility.lists)
    for name in first.keys() & second.keys():
        if name in lists:
            items = _side_by_side(first[name].split(","), second[name].split(","))
            both[name] = ",".join(items)
        elif name.endswith(THREAD_SUFFIXES):
            both[name] = _sum_counts(first[name], second[name])
    for visibility in visibilities:
        _renumber(both, visibility.counted)
    return both


def _sum_counts(first: str, second: str) -> str:
    is_count = first.isdigit() and second.isdigit()
    return str(int(first) + int(second)) if is_count else second


def _renumber(environment: dict[str, str], counted: Mapping[str, str]) -> None:
    """Number anew the devices that another variable leaves."""
    for name, source in counted.items():
        if name in environment:
            count = len(environment[source].split(","))
            environment[name] = ",".join(map(str, range(count)))


def _combine_expectations(first: Expectation, second: Expectation) -> Expectation:
    total = _total_of_limits(first, second)

    def limit(left: int | None, right: int | None) -> int | None:
        """A figure over all devices a process sees: what one lease leaves open is open
        for all of them, unless only one of the leases shows devices.
        """
        if total is None:
            return left if first.visible and left is not None else _either(right, left)
        return None if left is None or right is None else total([left, right])

    return Expectation(
        visible=_united(first.visible, second.visible),
        cores=_united(first.cores, second.cores),
        threads=_added(first.threads, second.threads),
        memory_total=limit(first.memory_total, second.memory_total),
        memory_free=limit(first.memory_free, second.memory_free),
        multiprocessors=limit(first.multiprocessors, second.multiprocessors),
        mps=_either(second.mps, first.mps),
    )


def _total_of_limits(first: Expectation, second: Expectation) -> Total | None:
    """How limits over all devices come together; None where only one of the leases
    shows devices.
    """
    if not first.visible or not second.visible:
        return None
    visible = _side_by_side(first.visible, second.visible)
    # Both leases limit a device that they share, and the limit on a device that a
    # MIG instance hides means nothing: limits add up only where every device is seen.
    are_all_seen = len(visible) == len(first.visible) + len(second.visible)
    return sum if are_all_seen else max


def _either(value: T | None, other: T | None) -> T | None:
    return other if value is None else value


def _united(
    first: tuple[T, ...] | None, second: tuple[T, ...] | None
) -> tuple[T, ...] | None:
    if first is None or second is None:
        return _either(first, second)
    return tuple(_side_by_side(first, second))


def _added(first: str | None, second: str | None) -> str | None:
    if first is None or second is None:
        return _either(first, second)
    return str(int(first) + int(second))


def _side_by_side(first: Sequence[T], second: Sequence[T]) -> list[T]:
    """Each item of both once. Beside a MIG instance a process sees no other device: the
    first that it was given stays alone.
    """
    both = [item for item in dict.fromkeys([*first, *second]) if item != ""]
    has_instance = any(str(item).startswith("MIG-") for item in both)
    return both[:1] if has_instance else both
