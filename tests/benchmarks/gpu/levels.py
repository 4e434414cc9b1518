"""Which levels each GPU reaches, and why no stronger one: what ``jupyter aistack doctor
--json`` says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jupyter_aistack.config import AIStack
from tests.benchmarks.gpu.bench import Bench, Row

SECONDS = 10.0
LEVELS = {"L0": 0.0, "L1": 1.0, "L2": 2.0, "L3": 3.0, "L4": 4.0}


def rows(bench: Bench) -> Iterator[Row]:
    if "suspend" in AIStack.class_trait_names():
        (bench.folder / "jupyter_aistack_config.json").write_text(
            json.dumps({"AIStack": {"suspend": "auto"}})
        )
    command = [sys.executable, "-m", "jupyter_aistack.cli", "doctor", "--json"]
    given = {**os.environ, "JUPYTER_CONFIG_DIR": str(bench.folder)}
    done = subprocess.run(
        command,
        env=given,
        capture_output=True,
        text=True,
        timeout=bench.left,
        check=False,
    )
    yield from described(json.loads(done.stdout.splitlines()[-1]))


def described(report: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a doctor's report; keys it does not have are said to be missing."""
    gpus = [
        device for device in report["devices"] if device.get("kind", "gpu") == "gpu"
    ]
    yield Row(
        name="gpus",
        value=float(len(gpus)),
        says="; ".join(str(device["name"]) for device in gpus),
    )
    for number, device in enumerate(gpus):
        level = device.get("level")
        says = (
            str(level)
            if level
            else f"n/a: {device.get('problem') or 'doctor names no level'}"
        )
        yield Row(name=f"gpu{number}.level", value=LEVELS.get(level or ""), says=says)
        why_not: Mapping[str, str] = device.get("why_not") or {}
        yield from (
            Row(name=f"gpu{number}.{name}", says=f"not reached: {why}")
            for name, why in why_not.items()
        )
    suspend = report.get("suspend") or {}
    says = " ".join(
        str(suspend[key])
        for key in ("tier", "why")
        if suspend.get(key) not in (None, "")
    )
    yield Row(name="suspend.tier", says=says or "doctor names no tier")
    yield from (
        Row(name="problem", says=str(problem)) for problem in report.get("problems", ())
    )
