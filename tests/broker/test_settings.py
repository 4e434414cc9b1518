from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from traitlets.config import Config

from jupyter_aistack.broker.settings import (
    read_limits,
    read_mig_create,
    read_queues,
    read_suspend,
)
from jupyter_aistack.config import AIStack
from jupyter_aistack.core.model.policy import (
    IdlePolicy,
    Policy,
    Queue,
    SuspendPolicy,
    UserLimits,
)
from jupyter_aistack.core.scheduling.admission import problems
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.testing import simulated_broker
from tests.paths import ROOT


def test_queues_are_read_and_there_is_always_a_default() -> None:
    assert read_queues({"class": {"limit": "3/2", "priority": 1}}) == (
        Queue(name="class", limit=Fraction(3, 2), priority=1),
        Queue(name="default"),
    )


def test_every_field_of_a_queue_is_read() -> None:
    entry = {
        "quota": "1/2", "limit": 2, "weight": 0.5, "priority": -1, "is_open": False, "is_batch": True,
        "members": ["ann", "@class"], "idle": {"badge": "5min", "notice": 600, "reclaim": "1h"},
    }  # fmt: skip
    assert read_queues({"default": entry}) == (
        Queue(
            name="default",
            quota=Fraction(1, 2),
            limit=Fraction(2),
            weight=Fraction(1, 2),
            priority=-1,
            is_open=False,
            is_batch=True,
            members=frozenset({"ann", "@class"}),
            idle=IdlePolicy(
                badge_seconds=300, notice_seconds=600, reclaim_seconds=3600
            ),
        ),
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [(False, None), (None, None), (True, IdlePolicy()), ({}, IdlePolicy())],
)
def test_idle_is_never_by_default_or_by_a_table(
    text: Any, meant: IdlePolicy | None
) -> None:
    assert read_queues({"default": {"idle": text}})[0].idle == meant


@pytest.mark.parametrize(
    ("entry", "field", "words"),
    [
        ({"limit": "many"}, "limit", "expected a number"),
        ({"limit": 0}, "limit", "above 0"),
        ({"limit": "1/0"}, "limit", "expected a number"),
        ({"quota": -1}, "quota", "0 or more"),
        ({"quota": float("nan")}, "quota", "expected a number"),
        ({"quota": 3, "limit": 2}, "quota", "above the queue's limit, 2"),
        ({"weight": 0}, "weight", "above 0"),
        ({"weight": -2}, "weight", "above 0"),
        ({"weight": True}, "weight", "expected a number"),
        ({"priority": "high"}, "priority", "whole number"),
        ({"priority": 1.5}, "priority", "whole number"),
        ({"is_open": "yes"}, "is_open", "true or false"),
        ({"members": "ann"}, "members", "list of logins"),
        ({"members": [7]}, "members", "list of logins"),
        ({"members": ["@"]}, "members", "list of logins"),
        ({"wait": 1}, "wait", "there is quota, limit, weight"),
        ({"idle": "1h"}, "idle", "badge, notice, reclaim"),
        ({"idle": {"after": "1h"}}, "idle", "badge, notice, reclaim"),
        ({"idle": {"badge": "soon"}}, "idle", "badge: expected a duration"),
        ({"idle": {"badge": "-1min"}}, "idle", "badge: expected a duration"),
        ({"idle": {"reclaim": float("nan")}}, "idle", "reclaim: expected a duration"),
        ({"idle": {"badge": "2h"}}, "idle", "badge comes first, then notice"),
        ({"idle": {"reclaim": "50min"}}, "idle", "then notice, then reclaim"),
    ],
)
def test_a_queue_that_makes_no_sense_is_named_with_its_field(
    entry: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_queues({"a": entry})
    assert caught.value.message.startswith(f"queues: 'a': {field}: ")
    assert words in caught.value.message
    assert caught.value.facts == {"field": "queues", "entry": "a", "entry_field": field}


@pytest.mark.parametrize("table", [{"a": 3}, {"": {}}, {7: {}}])
def test_an_entry_that_is_no_queue_is_named(table: dict[Any, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"queues: ('a'|''|7): ") as caught:
        read_queues(table)
    assert caught.value.facts["field"] == "queues"


def test_limits_are_read_for_users_and_for_everybody_else() -> None:
    table = {
        "*": {"slices": 4, "devices": "3/2", "hours_per_week": 40, "queued": 10},
        "ann": {"slices": None},
    }
    assert read_limits(table) == {
        "*": UserLimits(
            slices=4, devices=Fraction(3, 2), hours_per_week=40.0, queued=10
        ),
        "ann": UserLimits(),
    }


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"slices": -1}, "slices"),
        ({"slices": "4"}, "slices"),
        ({"devices": "x"}, "devices"),
        ({"hours_per_week": -1}, "hours_per_week"),
        ({"hours_per_week": float("inf")}, "hours_per_week"),
        ({"queued": 1.5}, "queued"),
        ({"gpus": 1}, "gpus"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named_with_its_user(
    entry: dict[str, Any], field: str
) -> None:
    with pytest.raises(
        InvalidRequest, match=f"user_limits: 'ann': {field}: "
    ) as caught:
        read_limits({"ann": entry})
    assert caught.value.facts["field"] == "user_limits"


def test_all_settings_make_one_policy() -> None:
    stack = AIStack(
        half_life="1d",
        batch_share=0.25,
        notice_seconds="2min",
        min_runtime=0,
        age="2h",
        user_limits={"*": {"slices": 1}},
    )
    assert stack.build_policy() == Policy(
        queues=(Queue(name="default"),),
        limits={"*": UserLimits(slices=1)},
        half_life_seconds=86400,
        batch_share=Fraction(1, 4),
        notice_seconds=120,
        min_runtime_seconds=0,
        age_seconds=7200,
    )
    assert AIStack().build_policy() == Policy()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("half_life", "0"),
        ("half_life", "soon"),
        ("batch_share", 1.5),
        ("batch_share", "half"),
        ("notice_seconds", -1.0),
        ("min_runtime", "-5min"),
        ("age", 0.0),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(setting: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"^{setting}: expected ") as caught:
        AIStack(**{setting: value}).build_policy()
    assert caught.value.facts["field"] == setting


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("off", None),
        ("auto", SuspendPolicy()),
        ({}, SuspendPolicy()),
        ({"host_memory": "128GB"}, SuspendPolicy(host_bytes=128 * 10**9)),
        ({"warm": 0, "hard": "2h"}, SuspendPolicy(warm_seconds=0.0, hard_seconds=7200.0)),
        (
            {"host_share": "1/2", "context": "600MB", "margin": 0.1, "lock": 2, "retry": "5s", "longest_retry": "1min"},
            SuspendPolicy(
                host_share=0.5, context_bytes=600_000_000, margin_share=0.1, lock_seconds=2.0, retry_seconds=5.0,
                longest_retry_seconds=60.0,
            ),
        ),
    ],
)  # fmt: skip
def test_when_kernels_are_suspended_is_off_auto_or_a_table(
    text: Any, meant: SuspendPolicy | None
) -> None:
    assert read_suspend(text) == meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("on", 'suspend: expected "off", "auto", or a table with warm, hard'),
        (True, "suspend: expected"),
        ({"cold": 1}, "suspend: cold: there is no such field; there is warm, hard"),
        ({"warm": "soon"}, "suspend: warm: expected a duration"),
        ({"host_share": 2}, "suspend: host_share: expected a share from 0 to 1"),
        ({"context": -1}, "suspend: context: expected an amount of memory"),
        ({"context": "much"}, "suspend: context: expected an amount of memory"),
        ({"warm": "2h"}, "suspend: hard: 1800 s is less than warm, 7200 s"),
        (
            {"longest_retry": "1s"},
            "suspend: longest_retry: 1 s is less than retry, 10 s",
        ),
    ],
)
def test_a_way_to_suspend_that_makes_no_sense_is_named_with_its_field(
    text: Any, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)) as refused:
        read_suspend(text)
    assert refused.value.facts["field"] == "suspend"


def test_the_broker_suspends_as_its_settings_say() -> None:
    settings = AIStack(providers="simulated:1xH100-80GB", suspend={"warm": "5min"})
    assert settings.build_broker().suspend == SuspendPolicy(warm_seconds=300.0)
    assert AIStack(providers="simulated:1xH100-80GB").build_broker().suspend is None


def test_the_ledger_decays_use_as_the_policy_says() -> None:
    broker = AIStack(
        providers="simulated:1xH100-80GB", ledger_url="memory:", half_life="2d"
    ).build_broker()
    assert broker.ledger.half_life_seconds == 2 * 86400
    broker.close()


def test_quotas_above_the_host_are_a_problem_of_the_host() -> None:
    inventory = simulated_broker("2xH100-80GB").inventory()

    def told(*quotas: int) -> list[str]:
        queues = tuple(
            Queue(name=f"q{n}", quota=Fraction(quota)) for n, quota in enumerate(quotas)
        )
        return list(problems(Policy(queues=queues), inventory))

    assert told(1, 1) == []
    assert told(3, 1) == [
        "queues: 'q0': quota is 3 devices, and this host has 2 devices"
    ]
    assert told(2, 1) == [
        "queues: the quotas together are 3 devices, and this host has 2 devices"
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/sharing.md"])
def test_settings_shown_in_the_documentation_are_understood(page: str) -> None:
    text = (ROOT / page).read_text()
    config = Config()
    blocks = [
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "c.AIStack" in block
    ]
    assert blocks
    for block in blocks:
        exec(block, {"c": config})
    policy = AIStack(config=config).build_policy()
    assert {queue.name for queue in policy.queues} >= {"default", "class"}
    assert policy.limits["*"].slices == 4


def test_what_may_be_cut_is_read_from_the_setting() -> None:
    assert read_mig_create(False) is None
    assert read_mig_create({}) is None
    everywhere = read_mig_create(True)
    assert everywhere is not None
    assert everywhere.allows("GPU-a", 3, "1g.18gb")
    some = read_mig_create({"GPU-a": ["1g.18gb"], 1: ["2g.35gb"]})
    assert some is not None
    asked = [
        ("GPU-a", 0, "1g.18gb"),
        ("GPU-b", 1, "2g.35gb"),
        ("GPU-a", 0, "2g.35gb"),
        ("GPU-b", 1, "1g.18gb"),
    ]
    assert [some.allows(*each) for each in asked] == [True, True, False, False]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"nvidia": ["1g.18gb"]},
            "mig_create: 'nvidia': a GPU is named by its number or its UUID",
        ),
        ({"0": "1g.18gb"}, "mig_create: '0': expected a list of profiles"),
        ({"0": ["20GiB"]}, "mig_create: '0': expected a list of profiles"),
    ],
)
def test_a_permission_to_cut_that_makes_no_sense_names_the_gpu(
    value: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        read_mig_create(value)
