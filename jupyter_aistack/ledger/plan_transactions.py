"""How plans are carried out, alone or with the changes that they were made for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.plan import Plan
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerConflict

from .actor import acting
from .apply_plan import (
    apply_action,
    check_actions,
    named_leases,
    named_requests,
)
from .changes import Answer, Change, Finish, Submission, Written
from .lease_end import expire_due
from .lease_steps import step_lease
from .request_transactions import submit_request
from .rows import Rows, guarded_lease
from .transactions import REFUSALS, Transactions


class PlanTransactions(Transactions):
    """The part of the port that cycles are written down with."""

    def apply(self, plan: Plan, now: float) -> tuple[Event, ...]:
        written = self.write((), plan, now)
        if written.conflict is not None:
            raise written.conflict
        return written.events

    def write(self, changes: Sequence[Change], plan: Plan, now: float) -> Written:
        with self._writing() as rows:
            submissions, finishes = _parts(changes)
            new = {request.id for request in submissions}
            rows.expect(
                due_at=now,
                leases=[*named_leases(plan), *(each.lease_id for each in finishes)],
                requests=[name for name in named_requests(plan) if name not in new],
                named=[(each.id, each.idempotency_key) for each in submissions],
            )
            conflict = _version_conflict(rows, plan)
            events = expire_due(rows, now, self.half_life_seconds)
            answers = [self._answer(rows, change, now) for change in changes]
            if not all(map(_is_as_planned, changes, answers)):
                conflict = conflict or LedgerConflict("a change was made before")
            conflict = conflict or _conflict(rows, plan, now)
            if conflict is None:
                events += self._apply_actions(rows, plan, now)
            return Written(
                answers=tuple(_latest(rows, answer) for answer in answers),
                events=tuple(events),
                conflict=conflict,
            )

    def _answer(self, rows: Rows, change: Change, now: float) -> Answer:
        """Write one change down. What is refused has changed nothing."""
        try:
            with acting(change.actor):
                return self._write_change(rows, change, now)
        except REFUSALS as refusal:
            return refusal

    def _write_change(self, rows: Rows, change: Change, now: float) -> Request | Lease:
        if isinstance(change, Submission):
            return submit_request(rows, change.request)
        lease = guarded_lease(rows, change.lease_id, change.token)
        finish = LeaseTransition.FINISH
        return step_lease(rows, lease, finish, now, self.half_life_seconds)

    def _apply_actions(self, rows: Rows, plan: Plan, now: float) -> list[Event]:
        """Carry out a plan that was checked."""
        half_life = self.half_life_seconds
        return [
            event
            for action in plan.actions
            for event in apply_action(rows, action, now, half_life)
        ]


def _parts(changes: Iterable[Change]) -> tuple[list[Request], list[Finish]]:
    submissions: list[Request] = []
    finishes: list[Finish] = []
    for change in changes:
        if isinstance(change, Submission):
            submissions.append(change.request)
        else:
            finishes.append(change)
    return submissions, finishes


def _is_as_planned(change: Change, answer: Answer) -> bool:
    """Whether a change is what the plan was made with, and not one written before."""
    if isinstance(change, Submission):
        return isinstance(answer, Request) and answer.id == change.request.id
    return isinstance(answer, Lease)


def _version_conflict(rows: Rows, plan: Plan) -> LedgerConflict | None:
    if plan.version == rows.version:
        return None
    return LedgerConflict(version=rows.version, planned_for=plan.version)


def _conflict(rows: Rows, plan: Plan, now: float) -> LedgerConflict | None:
    try:
        check_actions(rows, plan, now)
    except LedgerConflict as conflict:
        return conflict
    return None


def _latest(rows: Rows, answer: Answer) -> Answer:
    """An answer as it is at the end of the transaction."""
    if isinstance(answer, Request):
        return rows.request(answer.id) or answer
    return answer
