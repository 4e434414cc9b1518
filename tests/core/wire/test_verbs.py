"""The lists of verbs name verbs, and do not contradict one another."""

from __future__ import annotations

from jupyter_aistack.core.model.roles import REACHES
from jupyter_aistack.core.wire.verbs import (
    CHANGING_VERBS,
    READING_VERBS,
    REPEATABLE_VERBS,
)

OF_TRANSPORTS = {"orders", "done"}


def test_lists_of_verbs_agree() -> None:
    """What only reads may be asked again, and nobody looks anew for it."""
    assert set(REACHES) >= READING_VERBS | REPEATABLE_VERBS | CHANGING_VERBS
    assert REPEATABLE_VERBS >= READING_VERBS - OF_TRANSPORTS
    assert READING_VERBS.isdisjoint(CHANGING_VERBS)
