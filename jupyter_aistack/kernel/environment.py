"""The environment a kernel is launched with. Pure functions: a mapping in, a new one
out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from jupyter_aistack.core.enforcement import memory_caps
from jupyter_aistack.core.enforcement.device_visibility import (
    Visibilities,
    forced_prefixes,
    united,
)
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation

from .allocation import KernelAllocation

T = TypeVar("T")

SECRETS = {
    "JUPYTERHUB_API_TOKEN": "acts for the user, and for their server, on the hub",
    "JPY_API_TOKEN": "the same, under its old name",
    "JUPYTERHUB_CLIENT_SECRET": "lets one pose as the server when users log in",
    "JUPYTERHUB_CRYPT_KEY": "opens what the hub has encrypted",
    "JPY_COOKIE_SECRET": "forges login cookies",
    "JUPYTER_TOKEN": "full access to this server, terminals included",
    "JUPYTER_GATEWAY_AUTH_TOKEN": "starts kernels on the gateway",
    "CONFIGPROXY_AUTH_TOKEN": "re-routes everybody's traffic in the hub's proxy",
    "PGPASSWORD": "opens the database of the ledger, where every user's leases are",
}
"""What a kernel must not inherit from the server, and why: whatever runs in a notebook
can read its environment.
"""

OURS = ("AISTACK_LEASE", "AISTACK_REQUEST", "AISTACK_KERNEL", "AISTACK_SOCKET")
_THREADS = ("_NUM_THREADS", "_MAXIMUM_THREADS", "_MAX_THREADS")


def launch_environment(
    env: Mapping[str, str],
    allocation: KernelAllocation,
    *,
    kernel_id: str,
    socket_path: str,
    drop: Collection[str],
    keeps_lease: bool,
) -> dict[str, str]:
    """The environment a kernel is launched with.

    Args:
        env: what it would be launched with otherwise.
        allocation: what the kernel has.
        kernel_id: the kernel.
        socket_path: where it reaches the server; empty for nowhere.
        drop: names of the variables it must not get.
        keeps_lease: a lease that `env` names already is shared, and not exchanged.
    """
    changed = without_secrets(env, drop, has_socket=bool(socket_path))
    if keeps_lease and env.get("AISTACK_LEASE"):
        return changed
    changed = {name: value for name, value in changed.items() if name not in OURS}
    changed["AISTACK_KERNEL"] = kernel_id
    if socket_path:
        changed["AISTACK_SOCKET"] = socket_path
    if allocation.request is not None:
        changed["AISTACK_REQUEST"] = allocation.request.id
    # All devices are hidden first: a slice shows its own again.
    changed |= allocation.hidden
    if allocation.prepared is None:
        return changed
    return with_slice(changed, allocation.prepared)


def without_secrets(
    env: Mapping[str, str], names: Collection[str], *, has_socket: bool
) -> dict[str, str]:
    """`env` without the variables in `names`.

    The address of a database server goes too, as it may carry a password in more than
    one place, unless it is the kernel's only way to the ledger.
    """
    kept = {name: value for name, value in env.items() if name not in names}
    if has_socket and not kept.get("AISTACK_LEDGER", "").startswith("sqlite"):
        kept.pop("AISTACK_LEDGER", None)
    return kept


def with_slice(env: Mapping[str, str], prepared: Preparation) -> dict[str, str]:
    """`env` with a slice in it: devices are set, a framework's setting is kept where
    the user has made it.

    The lower memory cap wins, and the lower thread count, so that a user's
    ``OMP_NUM_THREADS=1`` stands and an image's ``=64`` does not.
    """
    forced = ("AISTACK_", *forced_prefixes(prepared.visibility))
    changed = {
        **env,
        **memory_caps.merge_caps(env, prepared.environment, forced=forced),
    }
    for name, value in prepared.environment.items():
        if name.endswith(_THREADS) and name in env:
            changed[name] = _lower(env[name], value)
    return changed


def _lower(own: str, granted: str) -> str:
    return (
        own
        if own.isdigit() and granted.isdigit() and 0 < int(own) <= int(granted)
        else granted
    )


def expected(prepared: Preparation, env: Mapping[str, str]) -> Expectation:
    """What a process with `env` must find: what was promised, with the thread count the
    user chose.
    """
    expects = prepared.expects
    if expects.threads is None or "OMP_NUM_THREADS" not in env:
        return expects
    return replace(expects, threads=env["OMP_NUM_THREADS"])


def combined(parts: Sequence[Preparation]) -> Preparation:
    """Several leases of one kernel as one preparation: devices and cores side by side,
    thread counts added up.
    """
    total = parts[0]
    for part in parts[1:]:
        total = replace(
            total,
            environment=_together(
                total.environment,
                part.environment,
                united(total.visibility, part.visibility),
            ),
            visibility=united(total.visibility, part.visibility),
            cores=tuple(sorted({*total.cores, *part.cores})),
            memory_limit_bytes=total.memory_limit_bytes + part.memory_limit_bytes,
            expects=_expected_together(total.expects, part.expects),
        )
    return total


def _together(
    one: Mapping[str, str], other: Mapping[str, str], visibilities: Visibilities
) -> dict[str, str]:
    both = {**one, **other, **memory_caps.sum_caps(one, other)}
    lists = {"AISTACK_LEASE", *(name for each in visibilities for name in each.lists)}
    for name in one.keys() & other.keys():
        if name in lists:
            both[name] = ",".join(
                _side_by_side(one[name].split(","), other[name].split(","))
            )
        elif name.endswith(_THREADS) and one[name].isdigit() and other[name].isdigit():
            both[name] = str(int(one[name]) + int(other[name]))
    counted = [pair for each in visibilities for pair in each.counted.items()]
    for name, source in counted:
        if name in both:
            count = len(both[source].split(","))
            both[name] = ",".join(map(str, range(count)))
    return both


def _expected_together(first: Expectation, second: Expectation) -> Expectation:
    if not (first.visible and second.visible):
        limits = first if first.visible else second
        fallback = second if first.visible else first
        memory_total = _either(limits.memory_total, fallback.memory_total)
        memory_free = _either(limits.memory_free, fallback.memory_free)
        multiprocessors = _either(limits.multiprocessors, fallback.multiprocessors)
    else:
        visible = _side_by_side(first.visible, second.visible)
        # What the leases say of a device that they share is said twice, and of one that
        # a MIG instance hides it is said in vain: the limits add up only where every
        # device is seen.
        are_all_seen = len(visible) == len(first.visible) + len(second.visible)
        total = sum if are_all_seen else max
        memory_total = _limit(total, first.memory_total, second.memory_total)
        memory_free = _limit(total, first.memory_free, second.memory_free)
        multiprocessors = _limit(total, first.multiprocessors, second.multiprocessors)
    return Expectation(
        visible=_united(first.visible, second.visible),
        cores=_united(first.cores, second.cores),
        threads=_added(first.threads, second.threads),
        memory_total=memory_total,
        memory_free=memory_free,
        multiprocessors=multiprocessors,
        mps=_either(second.mps, first.mps),
    )


def _either(value: T | None, other: T | None) -> T | None:
    return other if value is None else value


def _limit(
    total: Callable[[list[int]], int], first: int | None, second: int | None
) -> int | None:
    """A figure over all devices a process sees: what one lease leaves open is open for
    all of them.
    """
    if first is None or second is None:
        return None
    return total([first, second])


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


def _side_by_side(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    """Each of both once. Beside a MIG instance a process sees nothing: the first that
    it was given stays alone.
    """
    both = [item for item in dict.fromkeys([*one, *other]) if item != ""]
    return both[:1] if any(str(item).startswith("MIG-") for item in both) else both
