"""Who may do and see what: admins, members of queues, and everybody else."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.core.accounting.charges import UsageRecord, UsageSummary
from jupyter_aistack.core.model.policy import Policy, Queue, UserLimits
from jupyter_aistack.core.model.roles import RoleSettings
from jupyter_aistack.core.wire.visibility import ANONYMOUS
from jupyter_aistack.exceptions import (
    InvalidRequest,
    LeaseNotFound,
    PermissionDenied,
    QueueClosed,
    QuotaExceeded,
    Refused,
)
from jupyter_aistack.testing import ManualClock, simulated_broker

ANN = Caller(
    user="ann",
    uid=1000,
    pid=100,
    kernel_id="kernel-1",
    kernel_pid=99,
    label="work/tour.ipynb",
)
BOB = Caller(user="bob", uid=1001, pid=200, kernel_id="kernel-2", kernel_pid=199)
PROF = Caller(user="prof", uid=1002, pid=300)
ROOT = Caller(user="root", uid=0, pid=1, is_admin=True)
SERVER = Caller(user="root", uid=0, pid=2)
GROUPS = {"ann": frozenset({"students"}), "prof": frozenset({"staff"})}

ROLES = ("admins", "operators", "managers")

CLOCK = ManualClock()
CLASS = {
    "name": "deep learning class",
    "spec": "1/8",
    "count": 4,
    "queue": "class",
    "starts_at": CLOCK.now + 3600,
    "ends_at": CLOCK.now + 7200,
}


def service(**options: Any) -> Service:
    roles = RoleSettings(
        **{name: options.pop(name) for name in ROLES if name in options}
    )
    policy = Policy(
        queues=(
            Queue(name="class", members=frozenset({"@students"}), quota=Fraction(1, 2)),
            Queue(name="default"),
        ),
        limits={"bob": UserLimits(slices=1)},
    )
    broker = simulated_broker("1xH100-80GB", policy=policy)
    return Service(
        broker,
        roles=roles,
        groups=lambda user: GROUPS.get(user, frozenset()),
        **options,
    )


def ask(
    desk: Service, caller: Caller, spec: str = "1/4", **more: Any
) -> dict[str, Any]:
    return desk.call("request", {"spec": spec, **more}, caller)


@pytest.mark.parametrize(
    ("admins", "caller", "is_admin"),
    [
        ((), ROOT, True),
        ((), SERVER, False),
        (("root",), SERVER, True),
        ((), PROF, False),
        (("prof",), PROF, True),
        (("@staff",), PROF, True),
        (("@staff",), ANN, False),
        (("staff",), PROF, False),
    ],
)
def test_admins_are_root_and_who_is_listed(
    admins: tuple[str, ...], caller: Caller, is_admin: bool
) -> None:
    desk = service(admins=frozenset(admins))
    if is_admin:
        made = desk.call("reserve", CLASS, caller)
        assert made["created_by"] == caller.user
        return
    with pytest.raises(
        PermissionDenied, match=r"admins only.*AIStack\.admins"
    ) as caught:
        desk.call("reserve", CLASS, caller)
    assert caught.value.http_status == 403
    assert desk.call("reservations", {}, caller) == {"reservations": []}


def test_a_reservation_is_made_shown_and_taken_back() -> None:
    desk = service()
    made = desk.call("reserve", {**CLASS, "weekly": True}, ROOT)
    assert {name: made[name] for name in CLASS} == CLASS
    assert (made["is_weekly"], made["is_running"], made["next_starts_at"]) == (
        True,
        False,
        CLASS["starts_at"],
    )
    assert desk.call("host", {}, ANN)["reservations"] == [made]
    assert desk.call("reservations", {}, BOB) == {"reservations": [made]}
    with pytest.raises(PermissionDenied):
        desk.call("unreserve", {"reservation_id": made["id"]}, ANN)
    assert (
        desk.call("unreserve", {"reservation_id": made["id"]}, ROOT)["id"] == made["id"]
    )
    assert desk.call("host", {}, ANN)["reservations"] == []
    with pytest.raises(LeaseNotFound):
        desk.call("unreserve", {"reservation_id": made["id"]}, ROOT)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"spec": "a lot"}, "spec"),
        ({"count": 0}, "count"),
        ({"count": 1.5}, "count"),
        ({"queue": "nowhere"}, "queue"),
        ({"starts_at": None}, "starts_at"),
        ({"starts_at": "ten"}, "starts_at"),
        ({"ends_at": 0}, "ends_at"),
        ({"ends_at": CLASS["starts_at"]}, "ends_at"),
        ({"ends_at": float("inf")}, "ends_at"),
        ({"weekly": "yes"}, "weekly"),
        ({"weekly": True, "ends_at": CLOCK.now + 9 * 86400}, "ends_at"),
    ],
)
def test_a_reservation_that_makes_no_sense_names_the_field_and_changes_nothing(
    change: dict[str, Any], field: str
) -> None:
    desk = service()
    with pytest.raises(InvalidRequest) as caught:
        desk.call("reserve", {**CLASS, **change}, ROOT)
    assert caught.value.facts["field"] == field
    assert not desk.broker.events()


def test_reservations_that_cannot_both_be_held_are_refused() -> None:
    desk = service()
    desk.call("reserve", CLASS, ROOT)
    with pytest.raises(Refused, match="overlaps the reservation 'deep learning class'"):
        desk.call(
            "reserve",
            {**CLASS, "name": "another", "starts_at": CLASS["starts_at"] + 60},
            ROOT,
        )  # type: ignore[operator]
    with pytest.raises(Refused, match="do not fit this host"):
        desk.call(
            "reserve",
            {**CLASS, "queue": "default", "name": "too much", "count": 9},
            ROOT,
        )


def test_who_names_no_queue_gets_their_own_and_groups_open_queues() -> None:
    desk = service()
    assert ask(desk, ANN)["request"]["queue"] == "class"
    assert ask(desk, BOB)["request"]["queue"] == "default"
    with pytest.raises(QueueClosed, match="class is for @students, not for bob"):
        ask(desk, BOB, queue="class")


def test_a_limit_is_named_with_when_it_frees_up() -> None:
    desk = service()
    ask(desk, BOB, lease_seconds=600)
    waiting = ask(desk, BOB)["request"]
    assert "bob holds 1 of the 1 slices a user may hold at once" in waiting["reason"]
    assert waiting["eta_at"] == CLOCK.now + 600


def test_a_request_above_a_users_limit_is_refused() -> None:
    broker = simulated_broker(
        "2xH100-80GB", policy=Policy(limits={"*": UserLimits(slices=1)})
    )
    with pytest.raises(QuotaExceeded, match="a user may hold 1 slices at once"):
        ask(Service(broker), BOB, "1/4x2")


def test_who_waits_has_a_position_a_reason_and_an_expected_time() -> None:
    desk = service()
    ask(desk, ANN, "3/4", lease_seconds=720)
    ask(desk, PROF, "1")
    (waiting,) = desk.call("queue", {}, BOB)["queue"]
    assert waiting["position"] == 1
    assert (
        waiting["reason"]
        == "needs a whole GPU; the next one frees in about 12 min when ann's lease ends"
    )
    assert waiting["eta_at"] == CLOCK.now + 720
    assert (
        desk.call("wait_for", {"request_id": waiting["id"]}, PROF)["request"] == waiting
    )


def test_names_of_others_are_hidden_where_the_settings_say_so() -> None:
    desk = service(show_names=False, admins=frozenset({"prof"}))
    lease = ask(desk, ANN, "3/4", lease_seconds=720)["lease"]
    ask(desk, ANN, "1", holder={"label": "ann's secret plan"})

    def seen_by(caller: Caller) -> str:
        return str(
            [
                desk.call(verb, {}, caller)
                for verb in ("leases", "queue", "events", "host", "mine")
            ]
        )

    for caller in (ANN, PROF, ROOT):
        assert "'user': 'ann'" in seen_by(caller)
    assert "ann's secret plan" in seen_by(PROF)
    assert "ann" not in seen_by(BOB).replace("cannot", "")
    (shown,) = desk.call("leases", {}, BOB)["leases"]
    assert (
        shown["holder"]["user"],
        shown["holder"]["label"],
        shown["holder"]["pid"],
    ) == (ANONYMOUS, "", None)
    with pytest.raises(PermissionDenied, match="belongs to another user"):
        desk.call("release", {"lease_id": lease["id"]}, BOB)


def test_a_limit_of_another_user_does_not_tell_who_that_is() -> None:
    desk = service(show_names=False)
    ask(desk, BOB)
    ask(desk, BOB)
    assert [each["reason"] for each in desk.call("queue", {}, ANN)["queue"]] == [
        "a limit of its user is reached"
    ]
    assert "bob holds 1" in desk.call("queue", {}, BOB)["queue"][0]["reason"]


def test_quotas_the_host_cannot_keep_are_among_its_problems() -> None:
    broker = simulated_broker(
        "1xH100-80GB", policy=Policy(queues=(Queue(name="a", quota=Fraction(2)),))
    )
    problems = Service(broker).call("host", {}, ANN)["problems"]
    assert problems == ["queues: 'a': quota is 2 devices, and this host has 1 device"]


def test_queues_say_what_they_are_owed_and_what_they_hold() -> None:
    desk = service()
    ask(desk, ANN)
    first = desk.call("host", {}, ANN)["queues"][0]
    assert (first["name"], first["quota"], first["held"], first["members"]) == (
        "class",
        "1/2",
        "1/4",
        ["@students"],
    )
    assert first["idle"] == {
        "badge_seconds": 1800,
        "notice_seconds": 3300,
        "reclaim_seconds": 3600,
    }


MANAGED = {"managers": {"class": frozenset({"@staff"})}}


def test_a_manager_reserves_for_their_queue_and_no_other() -> None:
    desk = service(**MANAGED)
    made = desk.call("reserve", CLASS, PROF)
    assert made["created_by"] == "prof"
    for queue in ("default", "nowhere"):
        with pytest.raises(PermissionDenied, match=r"AIStack\.managers"):
            desk.call("reserve", {**CLASS, "queue": queue}, PROF)
    other = desk.call("reserve", {**CLASS, "queue": "default", "count": 1}, ROOT)
    with pytest.raises(PermissionDenied):
        desk.call("unreserve", {"reservation_id": other["id"]}, PROF)
    assert desk.call("unreserve", {"reservation_id": made["id"]}, PROF)


def test_a_manager_sees_names_and_releases_in_their_queue_alone() -> None:
    desk = service(show_names=False, **MANAGED)
    of_class = ask(desk, ANN)["lease"]
    of_default = ask(desk, BOB)["lease"]
    ask(desk, ANN, "1")
    shown = desk.call("leases", {}, PROF)["leases"]
    assert {lease["queue"]: lease["holder"]["user"] for lease in shown} == {
        "class": "ann",
        "default": ANONYMOUS,
    }
    (waiting,) = desk.call("queue", {}, PROF)["queue"]
    assert waiting["holder"]["user"] == "ann"
    assert desk.call("cancel", {"request_id": waiting["id"]}, PROF)
    with pytest.raises(PermissionDenied, match="belongs to another user"):
        desk.call("release", {"lease_id": of_default["id"]}, PROF)
    with pytest.raises(PermissionDenied, match="belongs to ann"):
        desk.call("extend", {"lease_id": of_class["id"], "seconds": 60}, PROF)
    ended = desk.call("release", {"lease_id": of_class["id"]}, PROF)
    assert ended["state"] == "ended"


def test_a_manager_is_told_what_was_used_in_their_queue_alone() -> None:
    desk = service(show_names=False, **MANAGED)
    used = {"host": desk.broker.host, "device_id": "GPU-0", "day": 1, "seconds": 60.0}
    charges = (
        UsageRecord(**used, lease_id="l-1", user="ann", queue="class"),
        UsageRecord(**used, lease_id="l-2", user="bob", queue="default"),
    )
    desk.broker.ledger.settle(UsageSummary(charges=charges))

    def users(caller: Caller, **options: Any) -> set[str]:
        lines = desk.call("report", options, caller)["lines"]
        return {line["user"] for line in lines if line["user"]}

    assert users(PROF, all=True) == {"ann", ANONYMOUS}
    assert users(PROF, user="ann") == {"ann"}
    assert users(PROF, user="bob") == set(), "what bob used was in another queue"
    with pytest.raises(PermissionDenied, match="managers, operators and admins"):
        users(BOB, user="ann")


def test_an_operator_sees_all_and_frees_devices_but_owns_nothing() -> None:
    desk = service(show_names=False, operators=frozenset({"@staff"}))
    lease = ask(desk, ANN)["lease"]
    (shown,) = desk.call("leases", {}, PROF)["leases"]
    assert shown["holder"]["user"] == "ann"
    for verb, more in (("extend", {"seconds": 9}), ("pin", {}), ("begin_cell", {})):
        with pytest.raises(PermissionDenied):
            desk.call(verb, {"lease_id": lease["id"], **more}, PROF)
    with pytest.raises(PermissionDenied, match="admins only"):
        desk.call("mig_apply", {}, PROF)
    assert desk.call("release", {"lease_id": lease["id"]}, PROF)["state"] == "ended"


def test_the_groups_that_a_transport_vouches_for_go_before_those_of_the_login() -> None:
    desk = service(admins=frozenset({"@staff"}))
    with pytest.raises(PermissionDenied):
        desk.call("reserve", CLASS, replace(PROF, groups=frozenset()))
    assert desk.call("reserve", CLASS, replace(ANN, groups=frozenset({"staff"})))


def test_an_operator_takes_a_device_out_of_placement_and_back() -> None:
    desk = service(operators=frozenset({"prof"}))
    until = desk.broker.clock() + 7200.0
    drained = desk.call(
        "drain", {"device": "0", "seconds": 7200, "reason": "fan"}, PROF
    )
    assert drained["drain"] == {
        "kind": "drain",
        "reason": "fan",
        "until": until,
        "since": desk.broker.clock(),
        "created_by": "prof",
    }
    (shown,) = desk.call("host", {}, ANN)["devices"]
    assert shown == drained
    assert "is being drained until" in ask(desk, ANN)["request"]["reason"]
    sick = desk.call("quarantine", {"device": "0"}, PROF)["drain"]
    assert (sick["kind"], sick["until"]) == ("quarantine", None)
    assert desk.call("undrain", {"device": "0"}, PROF)["drain"] is None
    assert desk.call("mine", {}, ANN)["leases"], "who waited is served"


@pytest.mark.parametrize(
    ("verb", "fields", "sentence"),
    [
        ("drain", {"seconds": 0}, "seconds: expected a number"),
        ("drain", {"seconds": 60, "until": 4e9}, "seconds: give either until or"),
        ("drain", {"until": 1.0}, "until: that time is over already"),
        ("drain", {"reason": 7}, "reason: expected text"),
        ("quarantine", {"until": 4e9}, "until: a quarantine lasts until the device"),
        ("undrain", {"device": "9"}, "device: none is called '9'"),
    ],
)
def test_a_drain_that_makes_no_sense_names_the_field_and_changes_nothing(
    verb: str, fields: dict[str, Any], sentence: str
) -> None:
    desk = service()
    with pytest.raises(InvalidRequest) as caught:
        desk.call(verb, {"device": "0", **fields}, ROOT)
    assert caught.value.message.startswith(sentence)
    assert not desk.broker.events()
