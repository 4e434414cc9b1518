"""All that can be measured on a GPU machine only, in one call of at most nine minutes,
offline. What the driver itself does there `gpu_probe` tells, which runs first.

Each section is a process of its own with a time of its own: one that fails or overruns
costs its rows and no others. Compute mode, MIG layout, persistence and clocks stay as
they are. Without a GPU it says so and measures nothing, unless
it is told to rehearse: ``--device cpu --small`` walks through all sections with the CPU
and a fake driver, so that a
fault of the script is found before a GPU machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.providers.nvidia.nvml import NVML
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
)
from tests.benchmarks.gpu.processes import kept, search_path
from tests.benchmarks.gpu.running import run_section
from tests.benchmarks.gpu.units import GIB
from tests.paths import ROOT

SECTIONS = (
    "warmup",
    "levels",
    "product",
    "caps",
    "grants",
    "energy",
    "teardown",
    "tenants",
    "suspend",
    "notebooks",
)
"""In this order: what is short and says whether the rest can be right comes first."""
BUDGET_SECONDS = 500.0
"""For all together, with what it takes to tidy up after a section that was cut."""
LEAST_SECONDS = 8.0
"""A section that would get less is left out."""
REHEARSAL = "dry run on the CPU: figures mean nothing"
DOUBLE = "gpu uuid=GPU-a name=NVIDIA_H200_(fake) memory=150754820096 cc=9.0 cores=16896 energy_mj=1000 power_mw=400000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 unless the arguments make no sense."""
    options = parsed(arguments)
    if options.list:
        print(
            *(
                f"{name:<12}{section(name).SECONDS:>6.0f} s  {summary(name)}"
                for name in SECTIONS
            ),
            sep="\n",
        )
        return 0
    if options.section:
        return run_here(options)
    why = why_not(options.device)
    if why:
        print(f"gpu_suite: {why}", file=sys.stderr if options.json else sys.stdout)
        if options.json:
            print(json.dumps({"ratios": {}, "figures": {}, "skipped": why}))
        return 0
    out = sys.stderr if options.json else sys.stdout
    print(headline(options.device), file=out, flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="gpu-suite-") as folder,
        environment(options.device, folder) as given,
    ):
        result = measure(options, Path(folder), given, out)
    if options.json:
        print(json.dumps(as_json(result)))
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_suite")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    parser.add_argument(
        "--list", action="store_true", help="name the sections and their times, and end"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=SECTIONS,
        default=[],
        help="this section (may be repeated)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET_SECONDS,
        help=f"seconds for all together ({BUDGET_SECONDS:.0f})",
    )
    parser.add_argument(
        "--host-gib",
        type=float,
        help="memory of the host in GiB, where it grows as it is used",
    )
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu rehearses without a GPU",
    )
    parser.add_argument("--small", action="store_true", help="little of everything")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path(), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def section(name: str) -> Any:
    """The module of one section: ``SECONDS``, and ``rows(bench)``."""
    return import_module(f"tests.benchmarks.gpu.{name}")


def summary(name: str) -> str:
    """What a section is about, in a line."""
    return str(section(name).__doc__).splitlines()[0]


def run_here(options: argparse.Namespace) -> int:
    """Be one section: print each row as a line of JSON."""
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(1)
    )  # leases, tenants and servers are given back then
    ends_at = time.monotonic() + options.seconds
    bench = Bench(
        device=options.device,
        small=options.small,
        ends_at=ends_at,
        folder=options.folder,
        host_bytes=None if options.host_gib is None else int(options.host_gib * GIB),
    )
    try:
        for row in section(options.section).rows(bench):
            print(json.dumps(row.as_dict()), flush=True)
    except (
        Exception
    ) as error:  # whatever goes wrong here must not cost the other sections
        first = (str(error).splitlines() or [""])[0]
        print(
            json.dumps(
                Row(
                    name="failed", says=f"failed: {type(error).__name__}: {first}"
                ).as_dict()
            ),
            flush=True,
        )
    return 0


def why_not(device: str) -> str:
    """Why nothing can be measured here; empty when it can."""
    if device == "cpu":
        return (
            ""
            if shutil.which("gcc") or shutil.which("cc")
            else "a dry run needs a C compiler, for the fake driver"
        )
    provider = GPUProvider()
    try:
        return (
            ""
            if provider.discover("here")
            else "there is no GPU on this machine; --device cpu --small rehearses"
        )
    except AIStackError as error:
        return f"there is no GPU on this machine ({error.message}); --device cpu --small rehearses"
    finally:
        provider.close()


def headline(device: str) -> str:
    """What the figures are of: GPU, driver, date. Without them figures are worth
    nothing.
    """
    if device == "cpu":
        return f"gpu_suite, {REHEARSAL}"
    nvml, provider = NVML(), GPUProvider()
    try:
        names = ", ".join(each.name for each in provider.discover("here"))
        driver = nvml.query("nvmlSystemGetDriverVersion")
    finally:
        provider.close()
        nvml.close()
    return f"gpu_suite: {names}, driver {driver}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


@contextmanager
def environment(device: str, folder: str) -> Iterator[Mapping[str, str]]:
    """What sections are started with: this checkout's code, books of their own, and in
    a dry run the fake driver.
    """
    path = os.pathsep.join(
        filter(
            None,
            [str(ROOT), os.environ.get("PYTHONPATH"), registered(Path(folder))],
        )
    )
    given = {
        **os.environ,
        "PYTHONPATH": path,
        "PATH": search_path(),
        "AISTACK_LEDGER": "memory:",
        "AISTACK_PROVIDERS": "gpu",
    }
    for name in ("AISTACK_SOCKET", "AISTACK_LEASE", "AISTACK_KERNEL"):
        given.pop(name, None)
    if device == "cpu":
        from tests.fakes.nvml.plugin import fake_nvml_environment

        given |= fake_nvml_environment(Path(folder), DOUBLE + "\n")
    yield given


def registered(folder: Path) -> str:
    """A folder that tells Jupyter of our provisioner as an installation would: there
    may be the code alone.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    site = folder / "site"
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [
            f"[{group}]",
            *(f"{name} = {target}" for name, target in points.items()),
        ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return str(site)


def measure(
    options: argparse.Namespace, folder: Path, given: Mapping[str, str], out: Any
) -> dict[str, list[Row]]:
    """All sections that were asked for, within the time for all."""
    names = [name for name in SECTIONS if not options.only or name in options.only]
    begin, result = time.monotonic(), dict[str, list[Row]]()
    ends_at = begin + options.budget - kept(options.budget)

    def show(row: Row) -> None:
        print(line_of(row, is_real=options.device == "cuda"), file=out, flush=True)

    for number, name in enumerate(names):
        seconds = share_of(name, names[number:], ends_at - time.monotonic())
        print(f"\n{name}", file=out, flush=True)
        if seconds < LEAST_SECONDS:
            result[name] = [
                Row(
                    name="left_out",
                    says=f"left out: {max(0.0, seconds):.0f} s were left",
                )
            ]
            show(result[name][0])
            continue
        own = folder / name
        own.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.gpu_suite",
            f"--section={name}",
            f"--device={options.device}",
        ]
        command += [
            f"--seconds={seconds - 2:.0f}",
            f"--folder={own}",
            *(["--small"] if options.small else []),
            *([] if options.host_gib is None else [f"--host-gib={options.host_gib}"]),
        ]
        latest = begin + options.budget
        result[name] = run_section(command, seconds, given, show, latest=latest)
    return result


def share_of(name: str, left_names: Sequence[str], left: float) -> float:
    """Seconds of a section: what is left is shared out among those that are left as
    they need it, and a short one gets enough to begin. So what one saves the next may
    use, and what one overruns all give.
    """
    needs = {each: section(each).SECONDS for each in left_names}
    share: float = left * needs[name] / sum(needs.values())
    return max(share, min(LEAST_SECONDS, left))


def line_of(row: Row, *, is_real: bool = True) -> str:
    """A row of the table; a rehearsal meets no goal and misses none."""
    value = "" if row.value is None else f"{row.value:.4g}"
    words = [row.verdict if is_real else "", row.says]
    return f"  {row.name:<44}{value:>10}  {'  '.join(filter(None, words))}".rstrip()


def as_json(result: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """All rows as the other benchmarks give theirs, and what was said where there is no
    figure.
    """
    named = [
        (f"{name}.{row.name}", row) for name, rows in result.items() for row in rows
    ]
    return {
        "ratios": {key: row.value for key, row in named if row.is_ratio},
        "figures": {
            key: row.value
            for key, row in named
            if row.value is not None and not row.is_ratio
        },
        "said": {key: row.says for key, row in named if row.says},
    }


if __name__ == "__main__":
    sys.exit(main())
