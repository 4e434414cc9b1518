"""``jupyter aistack``: what an admin and a shell script need."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .core.units import format_bytes
from .exceptions import AIStackError

JSON = dict[str, Any]
EXIT_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Errors are one line on stderr and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except AIStackError as error:
        if options.json:
            print(json.dumps({"error": error.as_dict()}))
        print(f"jupyter aistack: {error.message}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jupyter aistack", description="Slices of GPUs for notebooks.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        verb.set_defaults(run=run)
        return verb

    demo = add("demo", _demo, "Open the tour in JupyterLab, or run it without a browser with --json.")
    demo.add_argument("--dir", type=Path, default=Path("aistack-demo"), help="folder the tour is copied to")
    demo.add_argument("--no-browser", action="store_true", help="start JupyterLab, open no browser")
    demo.add_argument("--notebook", type=Path, help="with --json: run this notebook instead of the tour")
    add("doctor", _doctor, "Show what this host can grant, what would enforce it, and what is wrong.")
    add("status", _status, "Show devices and who holds what.")
    add("queue", _queue, "Show who waits, and why.")
    add("usage", _usage, "Show what is in use now.")
    request = add("request", _request, "Run a command on a slice: jupyter aistack request 1/4 -- python train.py")
    request.add_argument("spec", metavar="SPEC", help="1/4, 20GiB, 2, 1/2x2, 1g.18gb, cpu:2, gpu:1/4")
    request.add_argument("--for", dest="duration", help="how long at most, e.g. 2h")
    request.add_argument("--queue", default="default", help="queue to wait in")
    request.add_argument("--timeout", type=float, help="seconds to wait at most")
    request.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, after --")
    release = add("release", _release, "End one of your leases.")
    release.add_argument("lease", metavar="LEASE", help="its id, as status shows it")
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .demo import open_lab, run_headless

    if not options.json:
        return open_lab(options.dir.resolve(), browser=not options.no_browser)
    result = run_headless(lambda line: print(line, file=sys.stderr, flush=True), notebook=options.notebook)
    print(json.dumps(result))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """What is wrong is shown, and makes the exit code 1."""
    from .client import connect

    client = connect()
    host = client.host()
    report = {
        "version": __version__,
        "transport": client.transport,
        "host": host["host"],
        "problems": [*host["problems"], *(d["problem"] for d in host["devices"] if d["problem"])],
        "devices": [{**device, "enforcement": _enforcement(device)} for device in host["devices"]],
    }
    _show(options, report, _doctor_lines(report))
    return 1 if report["problems"] else 0


def _doctor_lines(report: JSON) -> Iterable[str]:
    yield f"jupyter_aistack {report['version']} on {report['host']}, by {report['transport']}"
    for device in report["devices"]:
        yield f"{_device_name(device)}: {format_bytes(device['memory_bytes'])}"
        yield from (f"  {what}: {by}" for what, by in device["enforcement"].items())
    yield from (f"problem: {problem}" for problem in report["problems"])
    if not report["problems"]:
        yield "no problems found"


def _enforcement(device: JSON) -> dict[str, str]:
    """What would hold each kind of slice of a device to its size."""
    from .core.device import Enforcement
    from .providers import mig

    if device["simulated"]:
        return {"any slice": Enforcement.SIMULATED.label}
    if device["kind"] == "cpu":
        return {"share": Enforcement.CPU.label}
    if device["mig_enabled"]:
        return {m["profile"]: mig.enforcement(m["profile"]).label for m in device["mig"]}
    return {"whole": Enforcement.WHOLE.label, "share": Enforcement.L0.label}


def _status(options: argparse.Namespace) -> int:
    from .client import connect

    client = connect()
    report = {"host": client.host(), "leases": client.leases()}
    _show(options, report, _status_lines(report))
    return 0


def _status_lines(report: JSON) -> Iterable[str]:
    names = {device["id"]: _device_name(device) for device in report["host"]["devices"]}
    for device in report["host"]["devices"]:
        problem = f", {device['problem']}" if device["problem"] else ""
        yield f"{names[device['id']]}: {format_bytes(device['memory_bytes'])}, {device['free_fraction']} free{problem}"
        for lease in report["leases"]:
            yield from (f"  {line}" for line in _lease_lines(lease, device["id"]))
    yield from (f"problem: {problem}" for problem in report["host"]["problems"])


def _lease_lines(lease: JSON, device_id: str) -> Iterable[str]:
    holder = lease["holder"]
    who = f"{holder['label'] or holder['kind'] + ' ' + holder['id']} ({holder['user']})"
    for piece in lease["slices"]:
        if piece["device_id"] == device_id:
            size = f"{piece['fraction']}, {format_bytes(piece['memory_bytes'])}"
            yield f"{lease['id']}  {size}  {lease['state']}  {who}  {lease['note'] or lease['enforcement']}"


def _queue(options: argparse.Namespace) -> int:
    from .client import connect

    waiting = connect().queue()
    lines = [f"{r['position']}  {r['spec']}  {r['holder']['user']}  {r['queue']}  {r['reason']}" for r in waiting]
    _show(options, {"queue": waiting}, lines or ["nobody waits"])
    return 0


def _usage(options: argparse.Namespace) -> int:
    from .client import connect

    usage = connect().usage()
    lines = [f"{name}  {_use_text(use)}" for part in ("devices", "leases") for name, use in usage[part].items()]
    _show(options, usage, lines)
    return 0


def _use_text(use: JSON) -> str:
    memory = "memory n/a" if use["memory_bytes"] is None else format_bytes(use["memory_bytes"])
    busy = "busy n/a" if use["utilization"] is None else f"{use['utilization']:.0%} busy"
    return f"{memory}  {busy}"


def _request(options: argparse.Namespace) -> int:
    from .client import connect

    def waiting(position: int | None, reason: str) -> None:
        print(f"waiting, number {position}: {reason}", file=sys.stderr)

    with connect().request(
        options.spec,
        timeout=options.timeout,
        queue=options.queue,
        duration=options.duration,
        label=" ".join(options.command)[:80],
        on_wait=waiting,
    ) as lease:
        print(repr(lease), file=sys.stderr)
        try:
            code = subprocess.run(options.command, env=os.environ, check=False).returncode
        except OSError as error:
            raise AIStackError(f"command: {options.command[0]} cannot be run: {error.strerror}") from error
        if options.json:
            print(json.dumps({"lease": lease.lease, "exit_code": code}))
    return code


def _release(options: argparse.Namespace) -> int:
    from .client import connect

    lease = connect().call("release", lease_id=options.lease)
    _show(options, lease, [f"{lease['id']} {lease['outcome']}"])
    return 0


def _device_name(device: JSON) -> str:
    simulated = " (simulated)" if device["simulated"] and "simulated" not in device["name"] else ""
    number = f"GPU {device['index']}: " if device["kind"] == "gpu" else ""
    return f"{number}{device['name']}{simulated}"


def _show(options: argparse.Namespace, report: JSON, lines: Iterable[str]) -> None:
    if options.json:
        print(json.dumps(report))
        return
    for line in lines:
        print(line)


if __name__ == "__main__":
    sys.exit(main())
