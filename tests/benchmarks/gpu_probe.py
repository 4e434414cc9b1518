"""What only hardware can tell, as small experiments: ``python -m
tests.benchmarks.gpu_probe [--budget SECONDS] [--only NAME]``.

Each probe is a process of its own with a time of its own; each finding is one line of
JSON at once, and a table of all is the end. Nothing but ``product`` needs the package
to work. What may harm the machine (a process that
ends once it was restored, a restore without room) comes last. It changes no compute
mode, clock, persistence or MIG layout. Without a GPU it says so, and ends with 0.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tests.benchmarks.gpu.probes.cuda import retire_all
from tests.benchmarks.gpu.probes.nvml import why_no_gpu
from tests.benchmarks.gpu.probes.reporting import Finding, Limits, Probe, finding_of
from tests.benchmarks.gpu.processes import kept, run_marked, search_path
from tests.paths import ROOT

BUDGET_SECONDS = 450.0
LEAST_SECONDS = 12.0
"""A probe that would get less is left out."""
RETIRE_SECONDS = 25.0
"""What a probe gets to take out again what it has restored, before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One probe: its seconds, and the module that has a function of its name."""

    name: str
    seconds: float
    module: str

    @property
    def run(self) -> Probe:
        module: Any = import_module(f"tests.benchmarks.gpu.probes.{self.module}")
        probe: Probe = getattr(module, self.name)
        return probe

    @property
    def summary(self) -> str:
        """What it looks at, in a line."""
        return " ".join(str(self.run.__doc__).split())


EXPERIMENTS = (
    Experiment(name="facts", seconds=20, module="machine"),
    Experiment(name="start", seconds=45, module="machine"),
    Experiment(name="mps", seconds=120, module="mps"),
    Experiment(name="usage", seconds=30, module="usage"),
    Experiment(name="host", seconds=30, module="machine"),
    Experiment(name="product", seconds=60, module="product"),
    Experiment(name="checkpoint", seconds=70, module="checkpoint"),
    Experiment(name="speed", seconds=80, module="moves"),
    Experiment(name="frameworks", seconds=80, module="moves"),
    Experiment(name="oom", seconds=40, module="checkpoint"),
)
"""The most valuable first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 unless the arguments make no sense."""
    options = parsed(arguments)
    if options.list:
        for each in EXPERIMENTS:
            print(f"{each.name:<12}{each.seconds:>6.0f} s  {each.summary}")
        return 0
    if options.probe:
        return run_here(options.probe, options.seconds)
    why = why_no_gpu()
    if why:
        print(f"gpu_probe: {why}")
        return 0
    findings = measure(options.only, options.budget, tell)
    print("", *(finding.row() for finding in findings), sep="\n")
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [each.name for each in EXPERIMENTS]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_probe")
    parser.add_argument(
        "--list", action="store_true", help="name the probes and their times, and end"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        default=[],
        help="this probe (may be repeated)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET_SECONDS,
        help=f"seconds for all together ({BUDGET_SECONDS:.0f})",
    )
    parser.add_argument("--probe", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def tell(finding: Finding) -> None:
    print(finding.line(), flush=True)


def measure(
    only: Sequence[str], budget: float, tell: Callable[[Finding], None]
) -> list[Finding]:
    """All probes that were asked for, as long as the time lasts."""
    begin = time.monotonic()
    result: list[Finding] = []

    def take(finding: Finding) -> None:
        result.append(finding)
        tell(finding)

    for each in EXPERIMENTS:
        if only and each.name not in only:
            continue
        left = budget - kept(budget) - (time.monotonic() - begin)
        if left < LEAST_SECONDS:
            values = {"left_out": f"{max(0.0, left):.0f} s were left"}
            take(Finding(probe=each.name, name="end", values=values))
            continue
        run_apart(each, min(each.seconds, left), take, latest=begin + budget)
    return result


def run_apart(
    experiment: Experiment,
    seconds: float,
    take: Callable[[Finding], None],
    *,
    latest: float,
) -> None:
    """One probe as a process of its own; its last finding says how it ended."""

    def read(line: str) -> None:
        finding = finding_of(line)
        if finding is not None:
            take(finding)

    begin = time.monotonic()
    command = [sys.executable, "-m", "tests.benchmarks.gpu_probe"]
    options = [f"--probe={experiment.name}", f"--seconds={seconds:.0f}"]
    ending = run_marked(
        [*command, *options],
        seconds,
        environment(),
        read,
        tidy_seconds=RETIRE_SECONDS,
        latest=latest,
    )
    how = f"cut after {seconds:.0f} s" if ending.is_cut else f"status {ending.status}"
    values = {"how": how, "s": time.monotonic() - begin, "left": list(ending.left)}
    take(Finding(probe=experiment.name, name="end", values=values))


def environment() -> dict[str, str]:
    """Ours, with this checkout's code and the folders of the driver's programs."""
    searched = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(searched),
        "PATH": search_path(),
    }


def run_here(name: str, seconds: float) -> int:
    """Be one probe. However it ends, what it restored is taken out again."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    experiment = next(each for each in EXPERIMENTS if each.name == name)
    limits = Limits(seconds=seconds, begin=time.monotonic())
    try:
        for finding in experiment.run(limits):
            tell(finding)
    except Exception as error:  # a driver may fail in any way; the next probe runs
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {error}"
        values = {"failed": words, "at": f"{where.name}:{where.lineno}"}
        tell(Finding(probe=name, name="failed", values=values))
    finally:
        retire_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
