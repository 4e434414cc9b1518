"""Tests use what a user of a class can use: names with an underscore are a class's own.

Where a fact cannot be seen from outside (that a thread has ended, that nothing is kept),
the file is listed with the private names it reads. The list may only become shorter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house import tree_of
from tests.paths import ROOT

HOOKS = {
    "_exit",
    "_ipython_display_",
    "_render_traceback_",
    "_repr_html_",
    "_repr_mimebundle_",
}
"""Names with an underscore that others publish: Python's, IPython's."""

READ: dict[str, set[str]] = {
    "tests/benchmarks/gpu/probes/child.py": {"_C", "_host_emptyCache"},
    "tests/benchmarks/test_gpu_sections.py": {"_row"},
    "tests/broker/test_batches.py": {"_changed", "_waiting"},
    "tests/broker/test_broker_cost.py": {"_calls", "_waiting"},
    "tests/broker/test_processes.py": {"_reading"},
    "tests/broker/test_suspension.py": {"_users_past"},
    "tests/cli/simulate/test_replay.py": {"_resume", "_run", "_start"},
    "tests/cli/test_process.py": {"_broker", "_transport"},
    "tests/client/offload/test_offload.py": {"_C", "_arena", "_cdata", "_parked"},
    "tests/client/test_notices.py": {"_hooks"},
    "tests/client/test_process_leases.py": {"_transport"},
    "tests/compute/clusters/test_cluster.py": {"_created"},
    "tests/compute/clusters/test_cluster_deploy.py": {
        # Dask's own, by which its widget and its clients know a cluster.
        "_adaptive",
        "_scaling_status",
        "_supports_scaling",
        "_sync_interval",
    },
    "tests/compute/training/test_lookout.py": {"_file", "_heartbeat"},
    "tests/compute/training/test_rank.py": {"_keep_to_loopback"},
    "tests/compute/training/test_train.py": {"_hooks"},
    "tests/conftest.py": {"_connected"},
    "tests/fakes/kernel_server.py": {"_create_connected_socket"},
    "tests/fakes/ledgers.py": {"_reading", "_writing"},
    "tests/flows/test_lease_life.py": {"_pending_kernels"},
    "tests/flows/test_reclaim.py": {"_bus", "_kernels", "_sampler"},
    "tests/flows/test_refused_launches.py": {"_pending_kernels"},
    "tests/kernel/test_verify.py": {"_interpreter"},
    "tests/ledger/sql/test_known.py": {"_writing"},
    "tests/ledger/sql/test_cache.py": {"_url"},
    "tests/ledger/sql/test_ledger.py": {"_reading"},
    "tests/notebook/magics/test_gpu.py": {
        "_broker",
        "_is_waiting_told",
        "_transport",
    },
    "tests/notebook/magics/test_gpu_accounting.py": {"_broker", "_transport"},
    "tests/notebook/widgets/test_resource_monitor.py": {"_STATIC"},
    "tests/notebook/widgets/test_training_curve.py": {"_points", "_redraw"},
    "tests/providers/nvidia/checkpoint/test_refusals.py": {"_call_driver"},
    "tests/server/realtime/test_sampler.py": {"_pause", "_watches"},
    "tests/server/realtime/test_websocket.py": {
        "_is_sending",
        "_loop",
        "_sampler",
        "_show",
        "_watches",
    },
    "tests/server/suspend/test_executor.py": {"_listed"},
    "tests/server/suspend/test_selftest.py": {"_process"},
    "tests/server/test_context.py": {
        "_link_jupyter_server_extension",
        "_start_jupyter_server_extension",
    },
    "tests/server/test_kernels.py": {"_kernels", "_known", "_missing_since"},
    "tests/system/test_processes.py": {"_members_of"},
    "tests/system/test_users.py": {"_outside"},
    "tests/test_docs.py": {"_group_actions", "_subparsers"},
    "tests/test_exported_members.py": {"_HOMES"},
    "tests/tracking/test_run.py": {"_begun"},
}


def private_names(tree: ast.AST) -> Iterator[str]:
    """The private attributes of others that a module reads or sets."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        is_private = node.attr.startswith("_") and not node.attr.startswith("__")
        if is_private and not is_own and node.attr not in HOOKS:
            yield node.attr


def test_tests_read_few_private_names() -> None:
    read = {
        path.relative_to(ROOT).as_posix(): set(private_names(tree_of(path)))
        for path in sorted((ROOT / "tests").rglob("*.py"))
    }
    assert {file: names for file, names in read.items() if names} == READ


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("self._own", []),
        ("other._own.public", ["_own"]),
        ("cell._repr_html_()", []),
        ("module.__name__", []),
        ("_helper()", []),
    ],
)
def test_what_is_private(code: str, names: list[str]) -> None:
    assert list(private_names(ast.parse(code))) == names
