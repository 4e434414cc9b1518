"""What every benchmark shares: interleaved runs, medians, a table, and one JSON object
as the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark found out.

    Attributes:
        ratios: ours over the peer's, by name; below 1 is better than the peer. None
            where the peer is missing.
        figures: plain numbers, the unit in the name.
        goals: the most a ratio or a figure may be, by its name; a goal missed is
            marked, and fails nothing.
        floors: the least it may be, for those of which more is better.
    """

    ratios: Mapping[str, float | None] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    goals: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report as a table."""
        rows = [
            (
                name,
                "missing" if value is None else f"{value:.3g}",
                self._verdict(name, value),
            )
            for name, value in {**self.figures, **self.ratios}.items()
        ]
        width = max((len(name) for name, _, _ in rows), default=0)
        return [
            f"  {name:<{width}}  {value:>8}  {verdict}".rstrip()
            for name, value, verdict in rows
        ]

    def _verdict(self, name: str, value: float | None) -> str:
        if value is None:
            return ""
        if name in self.floors:
            return f"goal {self.floors[name]:g} or more: {'met' if value >= self.floors[name] else 'MISSED'}"
        if name in self.goals:
            return f"goal {self.goals[name]:g}: {'met' if value <= self.goals[name] else 'MISSED'}"
        return ""


def main(
    name: str,
    measure: Callable[[int], Report],
    *,
    rounds: int,
    install: Callable[[], None] | None = None,
) -> None:
    """Run one benchmark from the command line.

    Args:
        name: its name.
        measure: does it, given how many rounds.
        rounds: how many by default.
        install: installs what it is measured beside, when asked to.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=rounds,
        help=f"rounds of each contender (default {rounds})",
    )
    if install is not None:
        parser.add_argument(
            "--install", action="store_true", help="install the peers first"
        )
    options = parser.parse_args()
    if install is not None and options.install:
        install()
    report = measure(options.rounds)
    print(
        name, *report.lines(), sep="\n", file=sys.stderr if options.json else sys.stdout
    )
    if options.json:
        print(
            json.dumps({"ratios": dict(report.ratios), "figures": dict(report.figures)})
        )


def interleaved(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Run the contenders in turn, so that what else the machine does hits all alike.

    Each is called once unmeasured, to warm caches, and then `rounds` times; it returns
    its own measurement.
    """
    for run in contenders.values():
        run()
    result: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            result[name].append(contenders[name]())
    return result


def paired_ratio(ours: list[float], peers: list[float]) -> float:
    """The median over rounds of ours to the peer's in the same round: drift of the
    machine cancels out.
    """
    return statistics.median(
        each / other for each, other in zip(ours, peers, strict=True)
    )


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
