from __future__ import annotations

from jupyter_aistack.hostbroker.abilities import HIDDEN, LACKS, missing_abilities
from jupyter_aistack.system.capabilities import Capability


def test_root_lacks_nothing_and_a_system_user_is_told_line_by_line() -> None:
    assert missing_abilities(frozenset(Capability), hides_processes=False) == ()
    every = tuple(text for _, text in LACKS)
    assert missing_abilities((), hides_processes=True) == (*every, HIDDEN)


def test_a_right_that_a_system_user_was_given_is_not_missed() -> None:
    lacks = missing_abilities({Capability.KILL}, hides_processes=False)
    assert len(lacks) == len(LACKS) - 1
    assert not any("end processes" in text for text in lacks)
