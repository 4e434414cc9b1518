"""Commands about what has happened: the audit trail, its verification, the archive."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from jupyter_aistack.client.text import aligned
from jupyter_aistack.core.audit import exported
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.files import replacing

from .connection import connect
from .output import JSON, moment, show
from .queues import read_past_moment

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FLAW = 1
ARCHIVE_ADVICE = "nothing is that old"


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add ``audit`` and ``archive``; `add` adds a command by name, function and
    help.
    """
    trail = add(
        "audit",
        audit,
        "Show who has changed what, or with verify whether anybody has changed that.",
    )
    trail.add_argument(
        "action", nargs="?", choices=("show", "verify"), default="show", help="(show)"
    )
    trail.add_argument(
        "--since",
        metavar="WHEN",
        help='from then on, e.g. "2026-11-01", or "7d" for seven days ago',
    )
    trail.add_argument(
        "--user", default="", metavar="U", help="what U did, and what was done to U's"
    )
    trail.add_argument(
        "--output",
        metavar="FILE",
        help="write the events as JSON lines; - is the standard output",
    )
    trail.add_argument(
        "--input", metavar="FILE", help="with verify: check such a file instead"
    )
    archive = add(
        "archive",
        archive_now,
        "Move what is old from the ledger to files; for admins only.",
    )
    archive.add_argument(
        "--dry-run", action="store_true", help="say how much is old; move nothing"
    )
    archive.add_argument(
        "--before",
        metavar="WHEN",
        help='what ended before then, e.g. "2026-11-01" or "7d" (what the setting retention says)',
    )


def audit(options: argparse.Namespace) -> int:
    """Show, export or verify the audit trail."""
    if options.action == "verify":
        return _verify_file(options) if options.input else _verify(options)
    if options.output is not None:
        return _export(options)
    events = list(_events(options))
    lines = ["nothing has happened"]
    if events:
        lines = aligned([_HEADINGS, *map(_row, events)])
    show(options, {"events": events}, lines)
    return 0


_HEADINGS = ("", "when", "who", "process", "what", "of", "before", "after", "why")


def _events(options: argparse.Namespace) -> Iterator[JSON]:
    question: JSON = {"user": options.user}
    if options.since is not None:
        question["since"] = read_past_moment(options.since, field="since")
    client = connect()
    after = 0
    while after is not None:
        answer = client.call("audit", **question, after=after)
        yield from answer["events"]
        after = answer["after"]


def _row(event: JSON) -> tuple[str, ...]:
    what = event["lease_id"] or event["request_id"] or event["device_id"]
    process = "" if event["pid"] is None else f"{event['pid']} {event['command']}"
    return (
        f"{event['sequence']}",
        moment(event["at"]),
        event["user"] or "the broker",
        process[:40],
        event["kind"],
        f"{event['owner']} {what}".strip(),
        _facts(event["before"]),
        _facts(event["after"]),
        event["detail"],
    )


def _facts(facts: Any) -> str:
    if not isinstance(facts, dict):
        return facts or ""
    return ", ".join(f"{name}={value}" for name, value in facts.items())


def _export(options: argparse.Namespace) -> int:
    count = 0
    with _written(options.output) as file:
        for event in _events(options):
            file.write(json.dumps(event, sort_keys=True) + "\n")
            count += 1
    # The standard output has the events: lines for people would spoil it.
    if options.output != "-" or options.json:
        line = f"{count} events are in {options.output}"
        show(options, {"count": count, "file": options.output}, [line])
    return 0


@contextmanager
def _written(path: str) -> Iterator[IO[str]]:
    if path == "-":
        yield sys.stdout
        return
    try:
        with replacing(Path(path)) as part, part.open("w", encoding="utf-8") as file:
            part.chmod(0o600)
            yield file
    except OSError as error:
        raise InvalidRequest(
            f"output: {path} cannot be written: {error.strerror}", field="output"
        ) from error


# -- verification ----------------------------------------------------------------------


def _verify(options: argparse.Namespace) -> int:
    client = connect()
    report: JSON = {"count": 0, "pseudonymous": 0, "elsewhere": [], "flaw": None}
    position = None
    is_over = False
    while not is_over:
        page = client.call("audit_verify", position=position)
        report["count"] += page["count"]
        report["pseudonymous"] += page["pseudonymous"]
        report["elsewhere"] += [page["elsewhere"]] if page["elsewhere"] else []
        report["flaw"] = page["flaw"]
        report["end"] = page["link"]
        report.setdefault("chained_after", page["chained_after"])
        position = page["position"]
        is_over = position is None
    return _tell(options, report)


def _verify_file(options: argparse.Namespace) -> int:
    try:
        with open(options.input, encoding="utf-8") as file:
            verdict = exported.verify(file)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"input: {options.input} cannot be read as JSON lines: {error}",
            field="input",
        ) from error
    flaw = verdict.flaw
    report: JSON = {
        "count": verdict.count,
        "pseudonymous": verdict.pseudonymous,
        "elsewhere": [],
        "flaw": None if flaw is None else vars(flaw),
        "end": vars(verdict.link),
        "chained_after": verdict.link.sequence - verdict.count,
    }
    return _tell(options, report)


def _tell(options: argparse.Namespace, report: JSON) -> int:
    show(options, {"is_whole": report["flaw"] is None, **report}, _told(report))
    return 0 if report["flaw"] is None else EXIT_FLAW


def _told(report: JSON) -> Iterable[str]:
    first = report["chained_after"] + 1
    if report["chained_after"]:
        yield f"events before {first} were written by a version that did not chain them"
    if report["pseudonymous"]:
        yield (
            f"{report['pseudonymous']} events name nobody any more: all but their names "
            "was checked"
        )
    for file in report["elsewhere"]:
        yield f"not checked: {printable(file)}"
    flaw = report["flaw"]
    if flaw is not None:
        yield f"{flaw['message']}; {report['count']} events before it are whole"
        return
    end = report["end"]
    if not report["count"]:
        yield "there is no event to check"
        return
    yield f"{report['count']} events are as they were written, from event {first} on"
    yield f"the last is event {end['sequence']}, {end['digest']}"


# -- archive ---------------------------------------------------------------------------


def archive_now(options: argparse.Namespace) -> int:
    """Move what is old to the archive, or say how much is old."""
    question: JSON = {"dry_run": options.dry_run}
    if options.before is not None:
        question["before"] = read_past_moment(options.before, field="before")
    answer = connect().call("archive", **question)
    show(options, answer, _archive_lines(options, answer))
    return 0


def _archive_lines(options: argparse.Namespace, answer: JSON) -> Iterable[str]:
    counts = {kind: count for kind, count in answer["counts"].items() if count}
    if not counts:
        yield ARCHIVE_ADVICE
        return
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    yield f"{told} would leave the ledger" if options.dry_run else f"archived: {told}"
    yield from answer["files"]
