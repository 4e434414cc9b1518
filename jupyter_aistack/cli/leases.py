"""Commands that take a lease, extend it and give it back."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from jupyter_aistack.exceptions import AIStackError

from .output import moment, residence_text, show

MOVES = {
    "suspend": "Move the GPU state of one of your idle leases to host memory, so that others may have the room.",
    "resume": "Move it back once there is room; the notebook's next cell does so by itself.",
    "pin": "Keep one of your leases on its GPU whoever needs the room.",
    "unpin": "Let it be suspended again while it is idle.",
}


def request(options: argparse.Namespace) -> int:
    """Run a command on a slice; its exit code is ours."""
    from jupyter_aistack.client.client import connect

    def waiting(position: int | None, reason: str) -> None:
        print(f"waiting, number {position}: {reason}", file=sys.stderr)

    with connect().request(
        options.spec,
        timeout=options.timeout,
        queue=options.queue,
        duration=options.duration,
        preemptible=options.preemptible,
        label=" ".join(options.command)[:80],
        on_wait=waiting,
    ) as lease:
        print(repr(lease), file=sys.stderr)
        try:
            code = subprocess.run(
                options.command, env=os.environ, check=False
            ).returncode
        except OSError as error:
            raise AIStackError(
                f"command: {options.command[0]} cannot be run: {error.strerror}"
            ) from error
        if options.json:
            print(json.dumps({"lease": lease.lease, "exit_code": code}))
    return code


def extend(options: argparse.Namespace) -> int:
    """Move the end of a lease."""
    from jupyter_aistack.client.client import connect
    from jupyter_aistack.client.durations import lease_seconds

    seconds = lease_seconds(options.duration, field="time")
    lease = connect().call("extend", lease_id=options.lease, seconds=seconds)
    end = (
        "until it is released"
        if lease["ends_at"] is None
        else f"until {moment(lease['ends_at'])}"
    )
    show(options, lease, [f"{lease['id']} {lease['spec']}: {end}"])
    return 0


def release(options: argparse.Namespace) -> int:
    """Give a lease back."""
    from jupyter_aistack.client.client import connect

    lease = connect().call("release", lease_id=options.lease)
    show(options, lease, [f"{lease['id']} {lease['outcome']}"])
    return 0


def move(options: argparse.Namespace) -> int:
    """Have a lease suspended, brought back, kept where it is, or no longer kept."""
    from jupyter_aistack.client.client import connect

    lease = connect().call(options.verb, lease_id=options.lease)
    show(options, lease, [f"{lease['id']} {residence_text(lease)}"])
    return 0
