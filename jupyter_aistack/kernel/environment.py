"""The environment a kernel is launched with. Pure functions: a mapping in,
a new mapping out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from jupyter_aistack.core.enforcement import memory_caps
from jupyter_aistack.core.enforcement.device_visibility import forced_prefixes
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation

from .allocation import KernelAllocation

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

OURS = (
    "AISTACK_LEASE",
    "AISTACK_REQUEST",
    "AISTACK_KERNEL",
    "AISTACK_SOCKET",
    "AISTACK_SLICE",
    "AISTACK_UP_TO",
)
"""Variables of ours: a kernel launched by another kernel must not inherit them, and what
a kernelspec says to kernels that no provisioner launches is not for this kernel."""

THREAD_SUFFIXES = ("_NUM_THREADS", "_MAXIMUM_THREADS", "_MAX_THREADS")
"""How names of variables end that limit the threads of a library."""


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
    caps = memory_caps.merge_caps(env, prepared.environment, forced=forced)
    changed = {**env, **caps}
    for name, value in prepared.environment.items():
        if name.endswith(THREAD_SUFFIXES) and name in env:
            changed[name] = _lower_count(env[name], value)
    return changed


def _lower_count(own: str, granted: str) -> str:
    """The lower of two thread counts; `granted` where the user's is no count."""
    if not own.isdigit() or not granted.isdigit():
        return granted
    return own if 0 < int(own) <= int(granted) else granted


def expected(prepared: Preparation, env: Mapping[str, str]) -> Expectation:
    """What a process with `env` must find: what was promised, with the thread count the
    user chose.
    """
    expects = prepared.expects
    if expects.threads is None or "OMP_NUM_THREADS" not in env:
        return expects
    return replace(expects, threads=env["OMP_NUM_THREADS"])
