"""Which ledger a URL names, and whose rules hold for those who share it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_aistack.ledger import opening
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.opening import open_ledger, rule_makers


def test_who_shares_nothing_makes_its_own_rules(tmp_path: Path) -> None:
    assert isinstance(open_ledger("memory:"), MemoryLedger)
    assert rule_makers("memory:") is None
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    assert rule_makers(url) is None, "it will be this user's own"
    ledger = open_ledger(url)
    ledger.read("box", 0.0)
    ledger.close()
    assert rule_makers(url) is None


def test_the_rules_of_a_shared_file_are_its_owners_and_roots(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    file.touch()
    file.chmod(0o660)
    url = f"sqlite:///{file}"
    assert rule_makers(url) == {0, os.getuid()}


def test_a_folder_of_a_group_will_share_what_is_made_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "srv"
    folder.mkdir()
    folder.chmod(0o2770)
    assert rule_makers(f"sqlite:///{folder}/ledger.sqlite") == {0, os.getuid()}


def test_a_file_of_another_user_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ledger.sqlite"
    file.touch(mode=0o600)
    owner = file.stat().st_uid
    monkeypatch.setattr(opening.os, "getuid", lambda: owner + 1)
    assert rule_makers(f"sqlite:///{file}") == {0, owner}


def test_a_database_is_shared_and_its_rules_are_roots() -> None:
    assert rule_makers("postgresql+psycopg://ann@db/aistack") == {0}
