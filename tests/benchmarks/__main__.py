"""All benchmarks, one after the other, and a table of their ratios."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tests import benchmarks

NOT_BENCHMARKS = {
    "__main__",
    "gpu",
    "gpu_probe",
    "harness",
    "peers",
    "user_process",
}


def is_benchmark(name: str) -> bool:
    """Whether a module is one: neither a part of others nor their test."""
    return name not in NOT_BENCHMARKS and not name.startswith("test_")


def run(name: str) -> dict[str, Any] | None:
    """What one benchmark found out, its own table shown meanwhile; None when it
    failed.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    result: dict[str, Any] | None = (
        json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    )
    return result


def table(result: Mapping[str, dict[str, Any] | None]) -> Iterator[str]:
    """The ratios of all benchmarks; one that failed or could not be run here says
    so.
    """
    yield f"{'benchmark':<16}{'ratio':<32}{'median':>10}"
    for name, report in result.items():
        if report is not None and "skipped" in report:
            yield f"{name:<16}skipped: {report['skipped']}"
            continue
        for ratio, value in (
            {"FAILED": float("nan")} if report is None else report["ratios"]
        ).items():
            yield f"{name:<16}{ratio:<32}{'missing' if value is None else f'{value:.3f}':>10}"


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    result = {name: run(name) for name in names if is_benchmark(name)}
    print("", *table(result), sep="\n")
    return 1 if None in result.values() else 0


if __name__ == "__main__":
    sys.exit(main())
