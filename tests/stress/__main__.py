"""All parts of the stress test, from the command line.

The last line printed is one JSON object; the exit status is 1 when anything was found.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.fakes.postgres_server import running_server

from .chaos import chaos
from .deaths import stress
from .hosts import Report, hosts, why_no_hosts
from .sabotage import SABOTAGES

PARTS = ("deaths", "chaos", "hosts")
LEDGERS = ("sqlite", "postgresql")
VIOLATIONS = (
    "double_grants",
    "alive_after_ttl",
    "above_limit",
    "lost",
    "lost_by_living",
    "held_by_dead",
    "problems",
)
REPORT_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit status."""
    options = _parser().parse_args(arguments)
    # Whoever ends it ends its workers too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    report = _reporter(is_quiet=options.json)
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        prefix = "aistack-stress-"
        top = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
        for part, ledger in _runs(options):
            name = f"{part} on {ledger}"
            report(f"{name} ...")
            folder = Path(top) / name.replace(" ", "-")
            folder.mkdir()
            size = (options.operations, options.processes, options.seed)
            if part == "deaths":
                figures[name] = stress(folder / "ledger.sqlite", *size, report)
                continue
            if part == "hosts":
                figures[name] = _hosts(stack, size, report)
                continue
            url = options.url or f"sqlite:///{folder}/ledger.sqlite"
            if ledger == "postgresql" and not options.url:
                url = stack.enter_context(running_server()).url
            journals = folder / "journals"
            journals.mkdir()
            figures[name] = chaos(url, journals, *size, report, options.sabotage)
    print(json.dumps(figures))
    return 1 if any(map(has_violation, figures.values())) else 0


def _hosts(stack: ExitStack, size: tuple[int, int, int], report: Report) -> Any:
    """The part of two hosts: its figures, or why it cannot be run here."""
    why = why_no_hosts()
    if why:
        return {"skipped": why}
    server = stack.enter_context(running_server())
    # Not below the other folder: the processes of other users go there.
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aistack-hosts-"))
    Path(folder).chmod(0o755)
    return hosts(server, Path(folder), *size, report)


def has_violation(figures: dict[str, Any]) -> bool:
    """Whether anything was found."""
    return any(figures.get(name) for name in VIOLATIONS)


def _runs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """The parts that are to be run, each with its ledger."""
    chaos_runs = (("chaos", ledger) for ledger in LEDGERS)
    runs = [("deaths", "sqlite"), *chaos_runs, ("hosts", "postgresql")]
    return [
        (part, ledger)
        for part, ledger in runs
        if options.part in (None, part) and options.ledger in (None, ledger)
    ]


def _reporter(*, is_quiet: bool) -> Callable[[str], None]:
    """Prints how far it is, every two seconds."""
    printed_at = float("-inf")

    def report(text: str) -> None:
        nonlocal printed_at
        is_due = time.monotonic() - printed_at >= REPORT_SECONDS
        if is_due and not is_quiet:
            printed_at = time.monotonic()
            print(text, flush=True)

    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress",
        description="Many processes, one ledger, sudden deaths.",
    )
    parser.add_argument(
        "--operations", type=int, default=10_000, help="operations of each part"
    )
    parser.add_argument(
        "--processes", type=int, default=8, help="how many workers at a time"
    )
    parser.add_argument("--seed", type=int, default=0, help="what chance starts from")
    parser.add_argument("--part", choices=PARTS, help="only this part")
    parser.add_argument("--ledger", choices=LEDGERS, help="only this kind of ledger")
    parser.add_argument(
        "--url", default="", help="an empty ledger for the chaos, of the kind named"
    )
    parser.add_argument(
        "--sabotage",
        choices=SABOTAGES,
        default="",
        help="let the brokers of the chaos break a rule, which must be found",
    )
    parser.add_argument(
        "--json", action="store_true", help="print nothing but the figures"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
