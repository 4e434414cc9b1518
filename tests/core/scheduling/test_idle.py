from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_aistack.core.model.lease import NoticeKind, Outcome
from jupyter_aistack.core.model.plan import End, Notify, WithdrawNotice
from jupyter_aistack.core.model.policy import IdlePolicy, Policy, Queue
from jupyter_aistack.core.scheduling.idle import idle_seconds, idle_stage
from tests.fakes.world import World, ask, gpus

MINUTE = 60.0


def box_with_lease(**queue: object) -> World:
    box = World(gpus(1), Policy(queues=(Queue(name="default", **queue),)))  # type: ignore[arg-type]
    box.submit(ask("a", "1/2"))
    box.turn()
    box.use("a")
    return box


def test_an_idle_lease_gets_a_badge_a_notice_and_is_reclaimed() -> None:
    box = box_with_lease()
    seen = {}
    for minute in range(1, 62):
        todo = box.turn(MINUTE)
        if "a" in box.holds():
            seen[minute] = idle_stage(
                box.lease_of("a"), box.policy.queue("default"), box.now
            )
        for action in todo.actions:
            if isinstance(action, Notify):
                assert (minute, action.notice.kind, action.notice.ends_at) == (
                    55,
                    NoticeKind.IDLE,
                    60 * MINUTE,
                )
                assert action.detail == "idle for 55 min"
            if isinstance(action, End):
                assert (minute, action.outcome) == (60, Outcome.RECLAIMED)
    assert (seen[29], seen[30], seen[54], seen[55]) == ("", "idle", "idle", "noticed")
    assert box.lease_of("a").outcome is Outcome.RECLAIMED


def test_use_after_the_notice_keeps_the_lease() -> None:
    box = box_with_lease()
    box.turn(56 * MINUTE)
    box.turn(MINUTE)
    box.use("a")
    assert [type(action) for action in box.turn(MINUTE).actions] == [WithdrawNotice]
    assert box.turn(30 * MINUTE).is_empty


def test_a_lease_that_is_in_use_or_that_nobody_watches_is_never_idle() -> None:
    box = box_with_lease()
    for _ in range(30):
        box.now += 10 * MINUTE
        box.use("a")
        assert box.turn().is_empty
    unwatched = replace(box.lease_of("a"), active_at=None)
    assert idle_seconds(unwatched, box.now) is None
    assert idle_stage(unwatched, box.policy.queue("default"), box.now + 1e6) == ""


def test_a_server_that_was_away_gives_the_whole_notice_before_it_reclaims() -> None:
    box = box_with_lease()
    box.turn(600 * MINUTE)
    notice = box.lease_of("a").notice
    assert notice is not None
    assert notice.ends_at == box.now + 5 * MINUTE


@pytest.mark.parametrize(
    "idle", [None, IdlePolicy(badge_seconds=1, notice_seconds=2, reclaim_seconds=3)]
)
def test_each_queue_has_idle_times_of_its_own(idle: IdlePolicy | None) -> None:
    box = box_with_lease(idle=idle)
    box.turn(2)
    box.turn(2)
    assert ("a" in box.holds()) is (idle is None)
