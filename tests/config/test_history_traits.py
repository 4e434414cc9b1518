"""Settings about for how long what has happened is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_aistack.broker.history import HistoryOptions
from jupyter_aistack.config import AIStack
from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention
from jupyter_aistack.exceptions import InvalidRequest


def built(settings: AIStack) -> HistoryOptions:
    folder = Path("/var/lib/aistack")
    return settings.build_history(f"sqlite:///{folder}/ledger.sqlite", beside=folder)


def test_by_default_what_is_older_than_a_season_goes_beside_the_ledger() -> None:
    options = built(AIStack())
    assert options.retention == Retention(seconds=90 * DAY_SECONDS)
    assert options.folder == Path("/var/lib/aistack/archive")
    assert options.key_folder == Path("/var/lib/aistack")


def test_the_settings_are_read() -> None:
    settings = AIStack(
        retention="2d", archive_folder="/srv/old", pseudonymize_after="0"
    )
    options = built(settings)
    assert options.folder == Path("/srv/old")
    assert options.retention == Retention(seconds=2 * DAY_SECONDS, pseudonym_seconds=0)


def test_all_is_kept_where_that_is_wanted_or_where_there_is_no_place() -> None:
    assert built(AIStack(retention=None)).retention == Retention()
    elsewhere = AIStack(archive_folder="/srv/old")
    assert elsewhere.build_history("memory:", beside=Path("/var/lib")).folder is None


@pytest.mark.parametrize("name", ["retention", "pseudonymize_after"])
def test_a_setting_that_makes_no_sense_is_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a duration") as refused:
        built(AIStack(**{name: "soon"}))
    assert refused.value.facts["field"] == name


def test_the_archive_of_a_ledger_in_a_file_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{tmp_path}/ledger.sqlite")
    broker = AIStack().build_broker()
    folder = broker.history.archiver.folder
    broker.close()
    assert folder is not None
    assert folder.path == tmp_path / "archive"


def test_who_shares_a_ledger_that_others_own_archives_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 23001)
    server = "postgresql+psycopg://db/aistack"
    folder = Path("/var/lib/aistack")
    assert AIStack().build_history(server, beside=folder).folder is None
    options = AIStack().build_history(server, beside=folder, archives_all=True)
    assert options.folder == folder / "archive"


def test_a_ledger_in_memory_is_not_archived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setenv("AISTACK_LEDGER", "memory:")
    broker = AIStack().build_broker()
    assert broker.history.archiver.folder is None
    broker.close()
