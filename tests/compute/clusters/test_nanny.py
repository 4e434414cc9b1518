"""The environment of a notebook survives the starts of its workers."""

from __future__ import annotations

import os

import pytest

from jupyter_aistack.compute.clusters.nanny import _RestoredEnvironment

NAME = "AISTACK_TEST_NUM_THREADS"


@pytest.mark.parametrize("before", [None, "7"])
def test_variables_are_restored_after_the_last_start(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NAME, raising=False)
    if before is not None:
        monkeypatch.setenv(NAME, before)
    restored = _RestoredEnvironment()
    with restored.after([NAME]):
        os.environ[NAME] = "1"
        with restored.after([NAME]):
            os.environ[NAME] = "2"
        assert os.environ[NAME] == "2", "another start still needs it"
    assert os.environ.get(NAME) == before
