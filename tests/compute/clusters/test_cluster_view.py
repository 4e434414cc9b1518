"""What a cluster shows of its start and of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_aistack.compute.clusters import cluster_view
from jupyter_aistack.compute.clusters.cluster_view import (
    StartProgress,
    as_html,
    as_text,
    rows,
)


def worker(name: object, stage: str) -> Any:
    plan = SimpleNamespace(leases=SimpleNamespace(spec="1/4"))
    return SimpleNamespace(name=name, stage=stage, lease=None, plan=plan)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cluster_view, "QUIET_SECONDS", 0.0)
    return []


def test_a_slow_start_is_told_once_for_each_change(shown: list[str]) -> None:
    progress = StartProgress(shown.append)
    waiting = [worker(0, "ready"), worker(1, "waits: no slice is free")]
    for _ in range(2):
        progress.update(waiting, 2)
    progress.update([worker(0, "ready"), worker(1, "ready")], 2)
    assert shown == [
        "1 of 2 workers ready; worker 1 waits: no slice is free",
        "2 of 2 workers ready",
    ]


def test_a_quick_start_says_nothing(shown: list[str]) -> None:
    StartProgress(shown.append).update([worker(0, "ready")], 1)
    assert shown == []


def test_nothing_is_told_before_it_takes_long() -> None:
    shown: list[str] = []
    StartProgress(shown.append).update([worker(0, "starting")], 1)
    assert shown == []


def test_workers_that_have_ended_are_not_shown() -> None:
    workers = [worker(1, "starting"), worker(0, "closed"), worker(2, "failed")]
    assert rows(workers) == [("1", "starting", "", "1/4", "", "", "")]


def test_text_ends_with_the_problem_or_the_dashboard() -> None:
    table = [("0", "ready")]
    assert as_text("c", table, "it broke", "http://d") == "c\n  0  ready\n  it broke"
    assert as_text("c", [], "", "http://d") == "c\n  http://d"
    assert "install bokeh" in as_text("c", [], "", "")


def test_html_is_escaped_and_has_both() -> None:
    html = as_html("<c>", [("<0>",)], "<broke>", "http://d?a&b")
    assert "<c>" not in html
    assert "&lt;0&gt;" in html
    assert "&lt;broke&gt;" in html
    assert 'href="http://d?a&amp;b"' in html
