"""``jupyter aistack``: what an admin and a shell script need.

Each command lives in the module of what it is about, and is imported when it is used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from jupyter_aistack._version import __version__
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.exceptions import AIStackError, PermissionDenied
from jupyter_aistack.system.standard_streams import tell

from . import accounting, audit, broker, devices, host, leases, mig, queues, status
from .process import EXIT_ERROR, EXIT_REFUSED, run_to_exit_code

if TYPE_CHECKING:
    Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

SPEC_HELP = "1/4, 20GiB, 2, 1/2x2, 1g.18gb, cpu:2, gpu:1/4; after a comma what goes with it: 1,cpu:8,mem:64GiB"
Run = Callable[[argparse.Namespace], int]
"""A command; what it returns is the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Errors are one line on stderr and exit code 2, or 1 where it is not
    the user's to do.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_to_exit_code(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    options = _parser(words).parse_args(words)
    try:
        return int(options.run(options))
    except AIStackError as error:
        if options.json:
            print(json.dumps({"error": error.as_dict()}))
        tell(f"jupyter aistack: {printable(error.message)}")
        is_refused = isinstance(error, PermissionDenied)
        return EXIT_REFUSED if is_refused else EXIT_ERROR


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter aistack", description="Slices of GPUs for notebooks."
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_host(verbs)
    _add_leases(verbs)
    _add_queues(verbs)
    _add_devices(verbs)
    _add_mig(verbs)
    broker.add_commands(verbs)
    audit.add_commands(lambda *command: _add(verbs, *command))
    _add_simulate(verbs, words)
    return parser


def _add(verbs: Verbs, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A command, with its help and ``--json``."""
    verb = verbs.add_parser(name, help=text, description=text)
    verb.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    verb.set_defaults(run=run)
    return verb


def _add_host(verbs: Verbs) -> None:
    demo = _add(
        verbs,
        "demo",
        _demo,
        "Open the tour in JupyterLab, or run it without a browser with --json.",
    )
    _add_demo_options(demo)
    _add(
        verbs,
        "doctor",
        host.doctor,
        "Show what this host can grant, what would enforce it, and what is wrong.",
    )
    shown = _add(verbs, "status", status.status, "Show devices and who holds what.")
    shown.add_argument(
        "--all-hosts",
        action="store_true",
        help="of all hosts that share the ledger, and who waits there",
    )
    usage = _add(
        verbs,
        "usage",
        host.usage,
        "Show what is in use now, or with --report what was used.",
    )
    accounting.add_report_options(usage)
    _add(
        verbs,
        "advise",
        accounting.advise,
        "Say which size would have done for your notebooks.",
    )


def _add_leases(verbs: Verbs) -> None:
    request = _add(
        verbs,
        "request",
        leases.request,
        "Run a command on a slice: jupyter aistack request 1/4 -- python a.py",
    )
    _add_request_options(request)
    extend = _add(
        verbs,
        "extend",
        leases.extend,
        "Move the end of one of your leases, and keep it when it is idle.",
    )
    _add_lease_id(extend)
    extend.add_argument(
        "duration", metavar="TIME", help="how much longer, e.g. 30min or 2h"
    )
    _add_lease_id(_add(verbs, "release", leases.release, "End one of your leases."))
    for name, text in leases.DEVICE_STATE_VERBS.items():
        verb = _add(verbs, name, leases.change_device_state, text)
        verb.set_defaults(verb=name)
        _add_lease_id(verb)


def _add_lease_id(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("lease", metavar="LEASE", help="its id, as status shows it")


def _add_queues(verbs: Verbs) -> None:
    _add(verbs, "queue", queues.queue, "Show who waits, why, and until when.")
    _add(
        verbs,
        "reservations",
        queues.reservations,
        "Show what is reserved for which queue, now and later.",
    )
    reserve = _add(
        verbs,
        "reserve",
        queues.reserve,
        "Reserve slices for the members of a queue; for its managers and admins.",
    )
    _add_reserve_options(reserve)
    unreserve = _add(
        verbs,
        "unreserve",
        queues.unreserve,
        "Cancel a reservation; for managers and admins.",
    )
    unreserve.add_argument(
        "reservation", metavar="ID", help="its id, as reservations shows it"
    )


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--dir",
        type=Path,
        default=Path("aistack-demo"),
        help="folder the tour is copied to",
    )
    demo.add_argument(
        "--no-browser", action="store_true", help="start JupyterLab, open no browser"
    )
    demo.add_argument(
        "--notebook",
        type=Path,
        help="with --json: run this notebook instead of the tour",
    )


def _add_request_options(request: argparse.ArgumentParser) -> None:
    request.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    request.add_argument(
        "--for", dest="duration", metavar="TIME", help="how long at most, e.g. 2h"
    )
    request.add_argument(
        "--queue", default="", metavar="NAME", help="queue to wait in (your own)"
    )
    request.add_argument(
        "--preemptible",
        action="store_true",
        help="may be ended, after a notice, for others",
    )
    request.add_argument(
        "--up-to",
        default="",
        metavar="SHARE",
        help="share of each device that it may use while nobody else needs it, e.g. 1/1",
    )
    request.add_argument(
        "--timeout",
        metavar="TIME",
        help="how long to wait at most, e.g. 5min (for ever)",
    )
    request.add_argument(
        "command",
        nargs="+",
        metavar="COMMAND",
        help="what to run, after --; it hears our signals, and its exit code is ours",
    )


def _add_reserve_options(reserve: argparse.ArgumentParser) -> None:
    reserve.add_argument(
        "name",
        metavar="NAME",
        help='what people know it by, e.g. "deep learning class"',
    )
    reserve.add_argument(
        "--spec", required=True, metavar="SPEC", help=f"what each gets: {SPEC_HELP}"
    )
    reserve.add_argument(
        "--count", type=int, default=1, metavar="N", help="how many slices (1)"
    )
    reserve.add_argument(
        "--queue",
        default="default",
        metavar="NAME",
        help="whose members use them (default)",
    )
    reserve.add_argument(
        "--from",
        dest="start",
        required=True,
        metavar="WHEN",
        help='when it starts, local time: "2026-11-24 10:00"',
    )
    reserve.add_argument(
        "--for",
        dest="duration",
        required=True,
        metavar="TIME",
        help="how long, e.g. 2h",
    )
    reserve.add_argument(
        "--weekly", action="store_true", help="again every week at that time"
    )


def _add_devices(verbs: Verbs) -> None:
    drain = _add(
        verbs,
        "drain",
        devices.drain,
        "Grant nothing new on a device, until a time or until undrain; for operators.",
    )
    drain.add_argument(
        "--until", metavar="WHEN", help='local time: "2026-11-24 10:00" (undrain)'
    )
    drain.add_argument(
        "--for", dest="duration", metavar="TIME", help="how long, e.g. 2h (undrain)"
    )
    quarantine = _add(
        verbs,
        "quarantine",
        devices.quarantine,
        "Grant nothing new on a device that is not trusted, until undrain; for"
        " operators.",
    )
    undrain = _add(
        verbs, "undrain", devices.undrain, "Grant a device again; for operators."
    )
    for verb in (drain, quarantine, undrain):
        verb.add_argument(
            "device",
            metavar="DEVICE",
            help="the number of a GPU, its id or the beginning of that, or cpu",
        )
    for verb in (drain, quarantine):
        verb.add_argument(
            "--reason", default="", metavar="TEXT", help="why, for those who wait"
        )


def _add_mig(verbs: Verbs) -> None:
    text = "Create MIG instances for those who wait, or see first what would be done."
    group = verbs.add_parser("mig", help=text, description=text)
    kinds = group.add_subparsers(title="what to do", required=True, metavar="WHAT")
    plan = _add(
        kinds,
        "plan",
        mig.plan,
        "Show what would be created and destroyed; nothing is.",
    )
    apply = _add(
        kinds,
        "apply",
        mig.apply,
        "Do it; for admins, as root, and where the setting mig_create allows it.",
    )
    for verb in (plan, apply):
        verb.add_argument(
            "profiles",
            nargs="*",
            metavar="PROFILE",
            help="e.g. 1g.18gb (what waiting requests lack)",
        )


def _add_simulate(verbs: Verbs, words: Sequence[str]) -> None:
    """The simulator needs numpy: it is imported when it is asked for, and not to parse
    another command.
    """
    text = "Try a policy on a trace before switching it on."
    group = verbs.add_parser("simulate", help=text, description=text)
    if list(words[:1]) != ["simulate"]:
        return
    from .simulate import commands

    kinds = group.add_subparsers(
        title="what to simulate", required=True, metavar="WHAT"
    )
    for name in commands.__all__:
        getattr(commands, name)(kinds)


def _demo(options: argparse.Namespace) -> int:
    from .demo import open_lab, run_headless

    if not options.json:
        return open_lab(options.dir.resolve(), browser=not options.no_browser)
    result = run_headless(tell, notebook=options.notebook)
    print(json.dumps(result))
    return 0
