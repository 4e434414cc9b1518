"""Commands that take a lease, extend it, move its device state and release it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.standard_streams import tell

from .connection import connect
from .output import JSON, device_state_text, moment, show

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client
    from jupyter_aistack.client.lease_handle import LeaseHandle
    from jupyter_aistack.system.command_guard import CommandGuard

    from .lease_watch import LeaseWatch

SHOWN_LABEL = 80
"""Characters of the command that other users see as the holder's name."""

DEVICE_STATE_VERBS = {
    "suspend": "Move the GPU state of one of your idle leases to host memory, so that others may have the capacity.",
    "resume": "Move it back once there is capacity; the notebook's next cell does so by itself.",
    "pin": "Keep one of your leases on its GPU even if others need the capacity.",
    "unpin": "Let it be suspended again while it is idle.",
}
"""What each does, for its help."""


def request(options: argparse.Namespace) -> int:
    """Run a command on a slice; its exit code is ours, and signals reach it."""
    from jupyter_aistack.client.durations import lease_seconds
    from jupyter_aistack.system.command_guard import CommandGuard
    from jupyter_aistack.system.launched_command import check_program

    duration = options.duration
    if duration is not None:
        duration = lease_seconds(duration, field="for")
    with _told_of(options.command):
        # Before it waits its turn, for hours maybe, and for nothing.
        check_program(options.command[0], os.environ)

    def on_wait(position: int | None, reason: str) -> None:
        tell(f"waiting, number {position}: {printable(reason)}")

    is_told: list[bool] = []

    def on_check(seconds: float) -> None:
        if not is_told:
            is_told.append(True)
            tell("granted, and being checked: the driver takes long to start")

    with CommandGuard() as guard:
        client = connect()
        handle = client.request(
            options.spec,
            timeout=options.timeout,
            queue=options.queue,
            duration=duration,
            preemptible=options.preemptible,
            up_to=options.up_to,
            label=" ".join(options.command)[:SHOWN_LABEL],
            on_wait=on_wait,
            on_check=on_check,
        )
        with handle:
            handle.bind(os.getpid(), pid=guard.pid)
            tell(printable(repr(handle)))
            with _watched(client, handle):
                exit_code = _run(options.command, guard)
        if options.json:
            print(json.dumps({"lease": handle.lease, "exit_code": exit_code}))
    return exit_code


def _watched(client: Client, handle: LeaseHandle) -> LeaseWatch:
    """What tells of an end of the lease that is none of this process's doing."""
    from .lease_watch import LeaseWatch

    request_id = handle.request["id"]

    def read() -> JSON:
        answer = client.call("wait_for", request_id=request_id)
        lease: JSON = answer["lease"]
        return lease

    return LeaseWatch(read, lambda line: tell(printable(line)))


def _run(command: list[str], guard: CommandGuard) -> int:
    from jupyter_aistack.system.launched_command import run_command

    with _told_of(command):
        return run_command(command, os.environ, on_start=guard.watch)


@contextlib.contextmanager
def _told_of(command: list[str]) -> Iterator[None]:
    """Say in a sentence that a command cannot be run."""
    try:
        yield
    except OSError as error:
        raise AIStackError(
            f"command: {command[0]} cannot be run: {error.strerror}"
        ) from error


def extend(options: argparse.Namespace) -> int:
    """Move the end of a lease."""
    from jupyter_aistack.client.durations import lease_seconds

    seconds = lease_seconds(options.duration, field="time")
    lease = connect().call("extend", lease_id=options.lease, seconds=seconds)
    ends_at = lease["ends_at"]
    end = "until it is released" if ends_at is None else f"until {moment(ends_at)}"
    show(options, lease, [f"{lease['id']} {lease['spec']}: {end}"])
    return 0


def release(options: argparse.Namespace) -> int:
    """End a lease."""
    lease = connect().call("release", lease_id=options.lease)
    show(options, lease, [f"{lease['id']} {lease['outcome']}"])
    return 0


def change_device_state(options: argparse.Namespace) -> int:
    """Have a lease suspended, resumed, pinned or unpinned."""
    lease = connect().call(options.verb, lease_id=options.lease)
    show(options, lease, [f"{lease['id']} {device_state_text(lease)}"])
    return 0
