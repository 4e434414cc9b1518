"""Where a module is tested can be told from its path.

``jupyter_aistack/core/model/lease.py`` is tested in ``tests/core/model/test_lease.py``,
and in files beside it whose names go on (``test_lease_….py``). A module without such a
file is listed here under the test that drives it.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.house import (
    MODULES,
    NAMES,
    PACKAGE,
    PACKAGE_ROOT,
    imported,
    module_name,
    module_of,
    own_imports,
    tree_of,
)
from tests.paths import ROOT

TESTS = ROOT / "tests"
FILES = set(TESTS.rglob("*.py"))
DOTTED = re.compile(rf"{PACKAGE}[.\w]*")

DRIVEN_BY: dict[str, set[str]] = {
    "broker/remote/test_port.py": {
        "broker.api.kernel_verbs",
        "broker.remote",
        "broker.remote.embedded",
        "broker.remote.records",
        "broker.remote.remote",
    },
    "kernel/test_provisioner.py": {"kernel.allocation", "kernel.kernel_leases"},
    "server/maintenance/test_memory_enforcer.py": {"kernel.process_control"},
    "broker/test_kernel_reports.py": {"core.model.kernel_report"},
    "cli/test_demo.py": {"cli.demo_server"},
    "config/test_settings.py": {"config", "config.files", "config.loading"},
    "core/wire/test_records.py": {"core.wire.formats", "core.wire.preparations"},
    "ledger/test_host_transactions.py": {"core.model.host", "ledger.host_base"},
    "system/test_processes.py": {"core.model.process"},
    "test_exported_members.py": {"", "_version"},
    "broker/api/test_reports.py": {
        "broker.api.accounting_verbs",
        "broker.api.advice",
        "broker.api.figures",
    },
    "broker/test_archiver.py": {"core.model.archive"},
    "broker/test_usage_meter.py": {"broker.charged_totals"},
    "broker/api/test_service.py": {
        "broker.api.base",
        "broker.api.caller",
        "broker.api.host_verbs",
        "broker.api.lease_verbs",
        "broker.api.request_verbs",
        "core.wire.values",
    },
    "broker/api/test_service_admins.py": {
        "broker.api.admin_verbs",
        "broker.api.device_verbs",
        "core.wire.visibility",
    },
    "core/enforcement/test_strays.py": {"core.model.stray"},
    "broker/test_broker.py": {
        "broker.cycle",
        "broker.devices",
        "broker.host_state",
        "broker.leases",
        "broker.maintenance",
        "broker.requests",
        "broker.watchdogs",
    },
    "broker/test_broker_sharing.py": {"broker.reservations"},
    "broker/test_fault_monitor.py": {"core.enforcement.faults"},
    "broker/test_settings.py": {
        "broker.setting_values",
        "core.model.policy",
        "core.scheduling.admission",
    },
    "broker/test_suspension.py": {
        "broker.api.suspend_verbs",
        "broker.suspend_support",
        "core.suspend.capability",
    },
    "cli/simulate/test_commands.py": {"cli.simulate.session_options"},
    "cli/simulate/test_place.py": {"cli.simulate.csv_io", "cli.simulate.output"},
    "cli/simulate/test_sessions.py": {
        "cli.simulate.assumptions",
        "cli.simulate.baselines",
        "cli.simulate.costs",
        "cli.simulate.hosts",
        "cli.simulate.metrics",
        "cli.simulate.scenario",
    },
    "cli/test_process.py": {"system.command_guard"},
    "cli/test_cli.py": {
        "cli.__main__",
        "cli.connection",
        "cli.devices",
        "cli.leases",
        "cli.output",
        "cli.queues",
        "cli.status",
    },
    "client/offload/test_offload.py": {
        "client.offload.cuda",
        "client.offload.host_arena",
        "client.offload.tensor_state",
        "client.offload.tensors",
    },
    "client/runtime/test_memory_caps.py": {"client.runtime.frameworks"},
    "client/test_client.py": {
        "client.durations",
        "client.lease_guard",
        "client.lease_handle",
        "client.transports",
        "client.wire",
    },
    "compute/clusters/test_cluster_interrupts.py": {"compute.clusters.interruptible"},
    "compute/clusters/test_worker_spec.py": {
        "compute.clusters.worker_plugins",
        "system.parent_death",
    },
    "compute/training/test_train.py": {
        "compute.training.log_tail",
        "compute.training.rank_task",
        "compute.training.supervisor",
    },
    "core/accounting/test_attribution.py": {
        "core.accounting.charges",
        "core.accounting.intervals",
    },
    "core/placement/test_packing.py": {
        "core.placement.cluster_state",
        "core.placement.demand",
        "core.placement.fragmentation",
        "core.placement.scarcity",
        "core.placement.slots",
    },
    "core/placement/test_placement.py": {
        "core.placement.device_capacity",
        "core.placement.instances",
        "core.placement.refusals",
        "core.placement.sizing",
        "core.placement.topology",
        "core.placement.verdict",
    },
    "core/scheduling/test_cycle.py": {"core.model.plan"},
    "core/scheduling/test_forecast.py": {
        "core.scheduling.capacity_holds",
        "core.scheduling.spec_words",
        "core.scheduling.start_times",
    },
    "core/placement/test_placement_drained.py": {"core.scheduling.reasons"},
    "core/scheduling/test_queue_pass.py": {
        "core.scheduling.freeing",
        "core.scheduling.grants",
        "core.scheduling.pass_state",
    },
    "core/scheduling/test_reservations.py": {"core.model.reservation"},
    "core/suspend/test_feasibility.py": {"core.suspend.model"},
    "core/suspend/test_transfers.py": {
        "core.suspend.build",
        "core.suspend.placement",
        "core.suspend.victims",
    },
    "flows/test_gpu_broker.py": {"broker.device_processes", "testing"},
    "flows/test_lease_life.py": {},
    "flows/test_one_sample.py": {"core.model.sample"},
    "flows/test_without_server.py": {
        "kernel.launch_rejected",
        "kernel.lease_monitor",
        "kernel.settings",
        "kernel.standalone",
    },
    "hostbroker/test_daemon.py": {
        "cli.broker",
        "hostbroker.calls",
        "hostbroker.ledger_place",
        "hostbroker.maintenance",
        "hostbroker.policy_reload",
    },
    "hub/test_page.py": {"hub.host_view"},
    "hub/test_shared_account.py": {"hub.__main__", "hub.app"},
    "hostbroker/test_installation.py": {"hostbroker.service_units"},
    "kernel/test_environment.py": {
        "core.enforcement.device_visibility",
        "providers.amd.visibility",
        "providers.nvidia.visibility",
        "core.enforcement.preparation",
        "kernel.combine",
    },
    "ledger/sql/test_ledger.py": {
        "ledger.sql.migrations",
        "ledger.sql.database",
        "ledger.sql.explained",
        "ledger.sql.failures",
        "ledger.sql.host_rows",
        "ledger.sql.rows",
        "ledger.sql.statements",
        "ledger.sql.url",
        "ledger.sql.usage_rows",
    },
    "ledger/test_plan_transactions.py": {
        "ledger.changes",
        "ledger.lease_steps",
        "ledger.request_transactions",
        "ledger.state",
    },
    "ledger/test_base.py": {
        "ledger.reservation_transactions",
        "ledger.sql.compiled",
        "ledger.sql.history_rows",
        "ledger.sql.history_statements",
        "core.model.events",
        "ledger.apply_plan",
        "ledger.lease_end",
        "ledger.rows",
        "ledger.transactions",
        "ledger.usage_transactions",
    },
    "notebook/magics/test_gpu.py": {
        "client.display",
        "magics",
        "notebook.magics.arguments",
        "notebook.magics.cluster",
        "notebook.magics.commands",
        "notebook.magics.completion",
        "notebook.magics.gpu_cell",
        "notebook.magics.requests",
        "notebook.panels.views",
        "notebook.panels.wait_progress",
        "notebook.session.cell_runner",
        "notebook.session.launch_lease",
        "notebook.session.kernelspec_slice",
        "notebook.session.lease_sync",
    },
    "notebook/magics/test_gpu_accounting.py": {
        "notebook.panels.accounting",
        "notebook.session.cell_timing",
    },
    "notebook/widgets/test_resource_monitor.py": {
        "notebook.widgets",
        "notebook.widgets.base",
    },
    "notebook/widgets/test_training_curve.py": {"notebook.widgets.plot"},
    "packaging/test_generated_wire.py": {"core.wire.schemas"},
    "providers/amd/test_provider.py": {"providers.amd.amdsmi"},
    "providers/nvidia/checkpoint/test_helper.py": {
        "providers.nvidia.checkpoint",
        "providers.nvidia.checkpoint.client",
    },
    "providers/nvidia/dmem/test_helper.py": {
        "providers.nvidia.dmem",
        "providers.nvidia.dmem.__main__",
        "providers.nvidia.dmem.client",
        "providers.nvidia.dmem.groups",
        "providers.nvidia.dmem.listener",
    },
    "providers/nvidia/mps/test_manager.py": {
        "providers.nvidia.mps",
        "providers.nvidia.mps.daemon",
        "providers.nvidia.mps.lifecycle",
        "providers.nvidia.mps.protocol2",
        "providers.nvidia.mps.protocol3",
    },
    "providers/nvidia/test_health.py": {
        "providers.nvidia.health_conditions",
        "providers.nvidia.health_readings",
    },
    "providers/nvidia/test_mig_reconfigure.py": {"broker.mig", "cli.mig"},
    "providers/nvidia/test_provider.py": {
        "providers.base",
        "providers.nvidia.discovery",
        "providers.nvidia.slices",
        "providers.nvidia.version",
    },
    "providers/nvidia/test_sampler.py": {"providers.nvidia.gpm"},
    "server/rest/test_openapi.py": {"core.wire.json_body", "server.rest.base"},
    "server/suspend/test_executor.py": {
        "server.suspend",
        "server.suspend.driver_checkpoint",
        "server.suspend.kernel_agent",
        "server.suspend.lease_lock",
        "server.suspend.memory_probe",
        "server.suspend.outcomes",
        "server.suspend.worker",
    },
    "server/suspend/test_preflight.py": {"providers.nvidia.checkpoint.inspection"},
    "server/suspend/test_selftest.py": {"providers.nvidia.checkpoint.selftest_child"},
    "server/test_app.py": {
        "server.suspend.coordinator",
        "server.suspend.kernel_activity",
    },
    "tracking/test_run.py": {
        "tracking.mlflow",
        "tracking.run_panel",
    },
    "tracking/test_writer.py": {"tracking.store"},
}
"""Modules by the test that drives them; names as seen from the package, "" for the
package itself."""

DRIVERS = {
    f"{PACKAGE}.{module}".rstrip("."): file
    for file, modules in DRIVEN_BY.items()
    for module in modules
}

ELSEWHERE = {"benchmarks", "browser", "fakes", "flows", "hub", "packaging"}
"""Folders of tests that mirror no room."""


def has_code(path: Path) -> bool:
    """Whether a file is more than a docstring."""
    return not all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for node in tree_of(path).body
    )


def has_mirror(path: Path) -> bool:
    relative = path.relative_to(PACKAGE_ROOT)
    name = relative.parent.name if path.stem == "__init__" else path.stem
    folder = TESTS / relative.parent
    beside = folder.glob(f"test_{name}_*.py")
    return (folder / f"test_{name}.py").exists() or any(beside)


@functools.cache
def names_imported(test: Path) -> frozenset[str]:
    """Dotted names that a file of the tests imports."""
    package = ("tests", *test.relative_to(TESTS).parts[:-1])
    return frozenset(imported(tree_of(test), package))


@functools.cache
def named(test: Path) -> set[str]:
    """Modules of the package that a test imports, or names in code it runs as text."""
    names = names_imported(test) | set(DOTTED.findall(test.read_text()))
    return {module for name in names if (module := module_of(name))}


def started(module: str) -> set[str]:
    """Modules that a module starts as programs: beside it, by file name, or as its
    package's own.
    """
    path = NAMES[module]
    text = path.read_text()
    beside = {name for name in NAMES if NAMES[name].parent == path.parent}
    by_file = {name for name in beside if f'"{NAMES[name].name}"' in text}
    return by_file | ({f"{module}.__main__"} & NAMES.keys())


def fakes_of(test: Path) -> set[Path]:
    """Files of the tests that a test imports, its conftests included."""
    names = names_imported(test)
    files = {
        ROOT / (name.rpartition(".")[0].replace(".", "/") + ".py") for name in names
    }
    conftests = {folder / "conftest.py" for folder in test.parents}
    return {file for file in files | conftests if file.is_relative_to(TESTS)} & FILES


def reached(test: Path) -> set[str]:
    """Modules that a test can come to: those that it or its fixtures name, and all that
    these import.
    """
    files = {test}
    while fresh := set().union(*map(fakes_of, files)) - files:
        files |= fresh
    modules = set().union(*map(named, files))
    while fresh_modules := set().union(*map(led_to, modules)) - modules:
        modules |= fresh_modules
    return modules


@functools.cache
def led_to(module: str) -> set[str]:
    """Modules that a module imports or starts; the face of the package imports nothing
    before it is asked to.
    """
    if module == PACKAGE:
        return {f"{PACKAGE}._version"}
    package = module.rpartition(".")[0]
    return own_imports(NAMES[module]) | started(module) | {package}


def test_a_module_has_a_mirror_or_a_test_that_drives_it() -> None:
    mirrors = {module_name(path) for path in MODULES if has_mirror(path)}
    modules = {module_name(path) for path in MODULES if has_code(path)}
    untested = modules - mirrors - DRIVERS.keys()
    assert untested == set(), "write their tests, or name what drives them"
    assert mirrors & DRIVERS.keys() == set(), "they have mirrors: take them off"
    assert DRIVERS.keys() - NAMES.keys() == set(), "there are no such modules"


@pytest.mark.parametrize("file", sorted(DRIVEN_BY))
def test_who_is_said_to_drive_a_module_can_come_to_it(file: str) -> None:
    modules = {module for module, driver in DRIVERS.items() if driver == file}
    assert modules - reached(TESTS / file) == set()


def mirrored(test: Path) -> bool:
    """Whether the file a test is named after is in the package."""
    folder = PACKAGE_ROOT / test.parent.relative_to(TESTS)
    words = test.stem.removeprefix("test_").split("_")
    names = ("_".join(words[:count]) for count in range(1, len(words) + 1))
    return any(
        (folder / f"{name}.py").exists() or folder.name == name for name in names
    )


def test_every_test_of_a_room_is_named_after_a_module() -> None:
    tests = [
        path
        for path in TESTS.rglob("test_*.py")
        if path.parent != TESTS and path.relative_to(TESTS).parts[0] not in ELSEWHERE
    ]
    assert [str(path) for path in tests if not mirrored(path)] == []
