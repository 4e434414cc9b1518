"""What every test gets: a Jupyter of its own, a ledger of its own, and nothing of the
machine's.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from jupyter_aistack.client import client

pytest_plugins = (
    "tests.fakes.nvml.plugin",
    "tests.fakes.amdsmi.plugin",
    "tests.fakes.cuda.plugin",
    "tests.fakes.mps.plugin",
)

# Before torch is imported, and for all processes that tests start: threads of OpenMP that
# wait for one another let others have the core. They would spin, and where there are more
# of them than cores a step of a tiny model takes a hundred times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Before fixtures of several tests start servers: not that of this machine, should it have
# one.
os.environ["AISTACK_BROKER"] = "off"

# As in a terminal: who is started in the background or by nohup ignores some of them, and
# so would all that tests start and signal.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        is_interrupt = number is signal.SIGINT
        signal.signal(
            number, signal.default_int_handler if is_interrupt else signal.SIG_DFL
        )

SERVICES = (
    "benchmarks/",
    "browser/",
    "cli/test_demo.py",
    "cli/test_process.py",
    "client/offload/",
    "compute/",
    "flows/",
    "hostbroker/",
    "hub/",
    "kernel/",
    "packaging/",
    "providers/nvidia/checkpoint/",
    "server/",
    "system/test_launched_command.py",
    "tracking/",
)
"""Folders and files whose tests start something real; the others are done in about a
minute.
"""

LONGEST = (
    "flows/test_tour.py",
    "flows/test_mps_kernels.py",
    "flows/test_suspend_chaos.py",
    "hostbroker/test_daemon_killed.py",
    "compute/clusters/test_cluster_interrupts.py",
    "hub/",
    "compute/training/",
    "flows/",
    "compute/",
    "tracking/",
    "browser/test_hub.py",
    "browser/test_standing.py",
    "browser/test_notices.py",
    "browser/test_suspend.py",
    "browser/test_widgets.py",
)
"""Those that are begun first, so that no worker is left alone with one of them at the
end.
"""

ON_GPU = "test_provider_on_gpu.py"
"""The file of ``providers/nvidia`` whose tests need a GPU."""

NO_SERVICES = ("flows/test_gpu_broker.py", "flows/test_ledger_stress.py")


@functools.cache
def place_of(path: Path) -> str:
    """A file or folder as it is named here."""
    place = path.relative_to(Path(__file__).parent).as_posix()
    return f"{place}/" if path.is_dir() else place


def starts_services(path: Path) -> bool:
    """Whether all tests of a file or folder start something real."""
    place = place_of(path)
    has_others = any(other.startswith(place) for other in NO_SERVICES)
    return place.startswith(SERVICES) and not has_others


def turn_of(path: Path) -> int:
    """When a file is begun: the lower, the earlier."""
    place = place_of(path)
    turns = (turn for turn, long in enumerate(LONGEST) if place.startswith(long))
    return next(turns, len(LONGEST))


def leaves_out_services(config: pytest.Config) -> bool:
    """Whether this run is of tests without services alone."""
    return "not service" in config.option.markexpr


def is_on_gpu_alone(config: pytest.Config) -> bool:
    """Whether this run is of tests on a GPU alone: a machine that has one may have no
    more than the package needs, and no network to get it.
    """
    markers: str = config.option.markexpr
    return markers.strip() == "gpu"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the setting of pytest-timeout also where that is missing: unknown settings
    are errors.
    """
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "seconds of a test, which nothing limits here")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many tests ``-n logical`` runs at once: a third of its time a test waits for a
    process to start or to end, one of services longer.
    """
    cores = os.cpu_count() or 1
    return cores + (cores + 1) // 2


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures of Jupyter servers where servers are tested, else those of
    Jupyter alone: the import of a server takes two seconds, mostly for the grammar of a
    validator. Tests on a GPU need neither.
    """
    if is_on_gpu_alone(config):
        return
    part = "jupyter_core" if leaves_out_services(config) else "jupyter_server"
    config.pluginmanager.import_plugin(f"pytest_jupyter.{part}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import files of services where those are left out: torch, Dask and
    MLflow take longer than many tests. On a GPU machine they may be missing.
    """
    if is_on_gpu_alone(config):
        file = Path(__file__).with_name("providers") / "nvidia" / ON_GPU
        return not file.is_relative_to(collection_path) or None
    return (leaves_out_services(config) and starts_services(collection_path)) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a service, so that `make test-unit` can leave it for later, and
    begin with what takes long.
    """
    for item in items:
        if starts_services(item.path) or item.get_closest_marker("postgres"):
            item.add_marker("service")
    items.sort(key=lambda item: turn_of(item.path))


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger in the test's own folder, and thread counts nobody has chosen, whatever
    the environment says.
    """
    foreign = (
        "AISTACK_SOCKET",
        "AISTACK_PROVIDERS",
        "AISTACK_LEASE",
        "AISTACK_KERNEL",
        "MLFLOW_TRACKING_URI",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
    )
    for name in (*foreign, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(
        "AISTACK_ENFORCEMENT", "advisory"
    )  # where there is a real MPS, fake GPUs are none of its business
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    monkeypatch.setenv("AISTACK_LEDGER", url)
    monkeypatch.setenv("AISTACK_BROKER", "off")
    return url


@pytest.fixture(autouse=True)
def no_client_left(own_ledger: str) -> Iterator[None]:
    """Close the client that a test has opened for this process: the thread that renews
    its leases would use SQLite amid other tests, and whoever forks just then inherits
    SQLite's lock and hangs.
    """
    before = client._connected
    yield
    after = client._connected
    if after is not None and after is not before:
        after[1].close()
