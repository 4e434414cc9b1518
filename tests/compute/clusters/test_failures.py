"""Causes that Dask does not name."""

from __future__ import annotations

import pytest

from jupyter_aistack.compute.clusters.failures import reasons


def fail(cause: BaseException | None) -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("Nanny failed to start.") from cause
    return caught.value


def test_causes_are_told_after_what_went_wrong() -> None:
    assert reasons(fail(None)) == "Nanny failed to start"
    cause = ModuleNotFoundError("No module named 'x'")
    assert reasons(fail(cause)) == "Nanny failed to start: No module named 'x'"


def test_a_cause_is_told_once_and_an_empty_text_by_its_type() -> None:
    assert reasons(fail(fail(OSError()))) == "Nanny failed to start: OSError"
