"""Commands that cut GPUs into MIG instances, or say how they would."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from .showing import JSON, show


def plan(options: argparse.Namespace) -> int:
    """What would be created and destroyed; what cannot be had makes the exit code 1."""
    from ..client import connect

    report = connect().call("mig_plan", profiles=options.profiles)
    show(options, report, [*(f"would {step['text']}" for step in report["steps"]), *_rest(report, report["steps"])])
    return 1 if report["refused"] else 0


def apply(options: argparse.Namespace) -> int:
    """Create them."""
    from ..client import connect

    report = connect().call("mig_apply", profiles=options.profiles)
    show(options, report, [*(f"done: {step}" for step in report["done"]), *_rest(report, report["done"])])
    return 1 if report["refused"] else 0


def _rest(report: JSON, steps: Iterable[object]) -> Iterable[str]:
    yield from (f"{one['profile']}: {one['reason']}" for one in report["refused"])
    if not report["refused"] and not steps:
        yield "nothing to do: what is wanted is there, or nobody waits for a MIG instance"
