"""The parts of a broker that look after what has happened."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jupyter_aistack.broker.history import HistoryOptions
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention
from jupyter_aistack.testing import ManualClock, simulated_broker


def test_a_turn_of_the_broker_archives_what_is_old(tmp_path: Path) -> None:
    clock = ManualClock()
    options = HistoryOptions(
        folder=tmp_path / "archive",
        key_folder=tmp_path,
        retention=Retention(seconds=DAY_SECONDS),
    )
    broker = simulated_broker("1xH100-80GB", clock=clock, history=options)
    broker.history.settings_changed("/etc/a.py", {"age": 1}, {"age": 2})
    broker.maintain()
    assert len(broker.events()) == 1
    clock.advance(3 * DAY_SECONDS)
    for _ in range(3):
        broker.maintain()
    kinds = [event.kind for event in broker.events()]
    assert kinds == [EventKind.HISTORY_ARCHIVED]
    assert broker.events()[0].user == "", "the broker did it by itself"


def test_what_fails_is_said_once_and_the_turn_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    (tmp_path / "archive").write_text("a file")
    options = HistoryOptions(
        folder=tmp_path / "archive",
        key_folder=tmp_path,
        retention=Retention(seconds=DAY_SECONDS),
    )
    broker = simulated_broker("1xH100-80GB", clock=clock, history=options)
    broker.history.settings_changed("/etc/a.py", {}, {"age": 2})
    clock.advance(3 * DAY_SECONDS)
    with caplog.at_level(logging.WARNING):
        broker.maintain()
        broker.maintain()
    told = [r.message for r in caplog.records if "archive_folder" in r.message]
    assert len(told) == 1


def test_what_admins_do_outside_leases_is_an_event() -> None:
    broker = simulated_broker("1xH100-80GB")
    broker.history.settings_changed("/etc/a.py", {"age": 1}, {"age": 2})
    broker.history.device_cut("create 1g.10gb on GPU 0")
    changed, cut = broker.events()
    assert (changed.kind, changed.detail) == (EventKind.SETTINGS_CHANGED, "/etc/a.py")
    assert (changed.before, changed.after) == ('{"age":1}', '{"age":2}')
    assert (cut.kind, cut.detail) == (EventKind.DEVICE_CUT, "create 1g.10gb on GPU 0")
