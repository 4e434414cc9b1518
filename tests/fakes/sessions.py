"""Small traces made by hand, and their replay."""

from __future__ import annotations

from dataclasses import replace

from jupyter_aistack.cli.simulate.scenario import Scenario
from jupyter_aistack.cli.simulate.sessions import simulate
from jupyter_aistack.cli.simulate.trace import (
    MINUTE,
    SessionModel,
    Task,
)

MODEL = SessionModel(
    head_seconds=0, tail_seconds=0, jitter_seconds=0, median_bytes=10e9, p90_bytes=10e9
)


ONE = Scenario(gpus=1, gpus_per_host=1, session_model=MODEL)


def tasks(
    *rows: tuple[str, float, float] | tuple[str, float, float, int],
) -> list[Task]:
    """Tasks of (session, submitted, minutes, GPUs), times in minutes."""
    return [
        Task(
            row=line,
            session=row[0],
            submitted_at=row[1] * MINUTE,
            seconds=row[2] * MINUTE,
            gpus=(*row, 1)[3],
        )
        for line, row in enumerate(rows, 2)
    ]


def run(rows: list[Task], policy: str, scenario: Scenario) -> dict:
    return simulate(rows, policy, scenario, is_scaled=False).report


TWO = tasks(("a", 0, 10), ("a", 120, 10), ("b", 60, 10))


def open_for(seconds: float) -> SessionModel:
    return replace(MODEL, tail_seconds=seconds)
