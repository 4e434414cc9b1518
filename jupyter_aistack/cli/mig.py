"""Commands that cut GPUs into MIG instances, or say how they would."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from .output import JSON, show


def plan(options: argparse.Namespace) -> int:
    """What would be created and destroyed; what cannot be had makes the exit code 1."""
    from jupyter_aistack.client.client import connect

    report = connect().call("mig_plan", profiles=options.profiles)
    show(
        options,
        report,
        _lines(options, report, [f"would {step['text']}" for step in report["steps"]]),
    )
    return 1 if report["refused"] else 0


def apply(options: argparse.Namespace) -> int:
    """Create them."""
    from jupyter_aistack.client.client import connect

    report = connect().call("mig_apply", profiles=options.profiles)
    show(
        options,
        report,
        _lines(options, report, [f"done: {step}" for step in report["done"]]),
    )
    return 1 if report["refused"] else 0


def _lines(
    options: argparse.Namespace, report: JSON, steps: Sequence[str]
) -> Iterable[str]:
    yield from steps
    yield from (f"{one['profile']}: {one['reason']}" for one in report["refused"])
    if not report["refused"] and not steps:
        why = (
            "such instances are there"
            if options.profiles
            else "nobody waits for an instance that is not there"
        )
        yield f"nothing to do: {why}"
