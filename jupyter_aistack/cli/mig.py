"""Commands that create MIG instances on GPUs, or show what they would do."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from .connection import connect
from .output import JSON, show


def plan(options: argparse.Namespace) -> int:
    """What would be created and destroyed; what cannot be had makes the exit code 1."""
    report = connect().call("mig_plan", profiles=options.profiles)
    steps = [f"would {step['text']}" for step in report["steps"]]
    show(options, report, _lines(options, report, steps))
    return 1 if report["refused"] else 0


def apply(options: argparse.Namespace) -> int:
    """Create them."""
    report = connect().call("mig_apply", profiles=options.profiles)
    steps = [f"done: {step}" for step in report["done"]]
    show(options, report, _lines(options, report, steps))
    return 1 if report["refused"] else 0


def _lines(
    options: argparse.Namespace, report: JSON, steps: Sequence[str]
) -> Iterable[str]:
    yield from steps
    for refusal in report["refused"]:
        yield f"{refusal['profile']}: {refusal['reason']}"
    if steps or report["refused"]:
        return
    if options.profiles:
        yield "nothing to do: such instances are there"
    else:
        yield "nothing to do: no request waits for an instance that is missing"
