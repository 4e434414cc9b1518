"""Creating MIG instances: the real nvidia-ml-py over a fake driver that can be cut, and
refuses as the real one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.core.placement.mig_plan import MIGAction, MIGPermission
from jupyter_aistack.exceptions import ProviderError, Refused, UnknownProfile

GPU = f"gpu uuid=GPU-a name=NVIDIA_H200 memory={143771 * MIB} cores=16896 mig=1\n"
PLAIN = f"gpu uuid=GPU-b name=NVIDIA_H200 memory={143771 * MIB} cores=16896\n"
SHAPES = (
    "shape profile=0 id=19 name=MIG_1g.18gb slices=1 memory_mb=16384 sms=16 starts=0:1:2:3:4:5:6 size=1\n"
    "shape profile=1 id=14 name=MIG_2g.35gb slices=2 memory_mb=33280 sms=32 starts=0:2:4 size=2\n"
    "shape profile=2 id=9 name=MIG_3g.71gb slices=3 memory_mb=71424 sms=60 starts=0:4 size=4\n"
)
SETUP = """
from jupyter_aistack.core.placement.mig_plan import MIGPermission
from jupyter_aistack.providers.nvidia.provider import GPUProvider
def made(permission=MIGPermission(everywhere=True)):
    provider = GPUProvider(mig_create=permission)
    provider.discover("box")
    return provider
provider = made()
"""


def cut(
    number: int,
    start: int,
    shape: int = 19,
    size: int = 1,
    slices: int = 1,
    memory_mb: int = 16384,
) -> str:
    """A GPU instance with its compute instance."""
    instance = f"gi gpu=0 id={number} shape={shape} start={start} size={size}\n"
    part = f"mig gpu=0 uuid=MIG-{number} gi={number} slot={start} slices={slices} memory_mb={memory_mb} sms=16\n"
    return instance + part


# -- the steps -------------------------------------------------------------------------


def test_a_plan_changes_nothing(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES + cut(7, 6), SETUP)
    steps = child("provider.plan_room(['3g.71gb', '1g.18gb'], {}).steps")
    assert [(step.action, step.profile, step.span.start) for step in steps] == [
        (MIGAction.CREATE, "3g.71gb", 0)
    ]
    assert [each.uuid for each in child("provider.discover('box')[0].mig")] == ["MIG-7"]


def test_an_instance_is_created_with_a_compute_instance_that_has_all_of_it(
    fake_nvml,
) -> None:
    child = fake_nvml.python(GPU + SHAPES, SETUP)
    assert child("provider.make_room(['2g.35gb', '1g.18gb'], {})") == (
        "create 2g.35gb at slice 4 of GPU 0",
        "create 1g.18gb at slice 6 of GPU 0",
    )
    result = child("provider.discover('box')[0].mig")
    assert [
        (m.profile, m.memory_bytes, m.gpu_slices, m.compute_slices) for m in result
    ] == [
        ("2g.35gb", 33280 * MIB, 2, 2),
        ("1g.18gb", 16 * GIB, 1, 1),
    ]


def test_unused_instances_give_way_and_what_is_leased_stays(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES + cut(7, 0) + cut(8, 6), SETUP)
    assert child("provider.make_room(['3g.71gb'], {'MIG-7': 'l-1'})") == (
        "destroy 1g.18gb at slice 6 of GPU 0",
        "create 3g.71gb at slice 4 of GPU 0",
    )
    assert [m.profile for m in child("provider.discover('box')[0].mig")] == [
        "1g.18gb",
        "3g.71gb",
    ]


def test_an_instance_that_a_process_uses_stays_and_the_process_is_named(
    fake_nvml,
) -> None:
    state = (
        GPU
        + SHAPES
        + cut(7, 0)
        + cut(8, 6)
        + "process gpu=0 pid=4242 memory=1048576 gi=8\n"
    )
    child = fake_nvml.python(state, SETUP)
    ((profile, reason),) = child(
        "provider.plan_room(['3g.71gb'], {'MIG-7': 'l-1'}).refused"
    )
    assert profile == "3g.71gb"
    assert "lease l-1 has it" in reason
    assert "process 4242 uses it" in reason


def test_an_instance_whose_processes_are_secret_counts_as_used(fake_nvml) -> None:
    kinds = ("Compute", "Graphics", "MPSCompute")
    hidden = "".join(
        f"fail nvmlDeviceGet{kind}RunningProcesses_v3 4\n" for kind in kinds
    )
    child = fake_nvml.python(GPU + SHAPES + cut(7, 0) + cut(8, 4) + hidden, SETUP)
    ((_, reason),) = child("provider.plan_room(['3g.71gb'], {}).refused")
    assert "its processes cannot be read" in reason


def test_a_process_that_starts_between_plan_and_step_keeps_its_instance(
    fake_nvml,
) -> None:
    state = GPU + SHAPES + cut(7, 0) + cut(8, 4)
    child = fake_nvml.python(state, SETUP)
    child.run(
        "plan = provider._cutter.plan; old = plan(provider._discovery.known.values(), ['3g.71gb'], {})"
    )
    child.run("provider._cutter.plan = lambda *given: old")
    fake_nvml.change(state + "process gpu=0 pid=4242 memory=1048576 gi=8\n")
    with pytest.raises(
        ProviderError,
        match=r"destroy 1g\.18gb at slice 4 of GPU 0: process 4242 uses it",
    ):
        child("provider.make_room(['3g.71gb'], {})")
    assert len(child("provider.discover('box')[0].mig")) == 2


def test_a_gpu_instance_without_its_compute_instance_is_taken_back(fake_nvml) -> None:
    child = fake_nvml.python(
        GPU + SHAPES + "fail nvmlGpuInstanceCreateComputeInstance 999\n", SETUP
    )
    with pytest.raises(ProviderError, match=r"create 1g\.18gb at slice 6 of GPU 0"):
        child("provider.make_room(['1g.18gb'], {})")
    assert "gi gpu" not in (fake_nvml.folder / "nvml.state").read_text()


def test_a_compute_instance_comes_back_when_its_gpu_instance_cannot_go(
    fake_nvml,
) -> None:
    state = GPU + SHAPES + cut(7, 0) + cut(8, 4) + "fail nvmlGpuInstanceDestroy 19\n"
    child = fake_nvml.python(state, SETUP)
    with pytest.raises(
        ProviderError, match="the driver says that it is in use"
    ) as caught:
        child("provider.make_room(['3g.71gb'], {})")
    assert caught.value.facts["done"] == []
    assert len(child("provider.discover('box')[0].mig")) == 2


def test_steps_before_one_that_fails_are_told(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES + cut(7, 0) + cut(8, 4), SETUP)
    child.run("from jupyter_aistack.exceptions import ProviderError")
    child.run("def refuse(gpu, step):\n    raise ProviderError('no', nvml_code=23)")
    child.run("provider._cutter._create = refuse")
    with pytest.raises(ProviderError, match="no room for it any more") as caught:
        child("provider.make_room(['3g.71gb'], {})")
    assert caught.value.facts["done"] == ["destroy 1g.18gb at slice 4 of GPU 0"]


@pytest.mark.parametrize(
    "function",
    ["nvmlDeviceGetGpuInstances", "nvmlDeviceCreateGpuInstanceWithPlacement"],
)
def test_who_is_not_root_is_told_so(fake_nvml, function) -> None:
    child = fake_nvml.python(GPU + SHAPES + f"fail {function} 4\n", SETUP)
    with pytest.raises(ProviderError, match="run this as root"):
        child("provider.make_room(['1g.18gb'], {})")


def test_nothing_is_created_unless_the_administrator_allows_it(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES, SETUP)
    with pytest.raises(Refused, match="mig_create: it is off"):
        child("made(None).make_room(['1g.18gb'], {})")
    assert child("made(None).plan_room(['1g.18gb'], {}).steps") != ()
    assert child("made(None).discover('box')[0].mig_offers") == ()


@pytest.mark.parametrize("gpu", ["0", "GPU-a"])
def test_what_may_be_created_where_is_the_administrators(fake_nvml, gpu) -> None:
    child = fake_nvml.python(GPU + PLAIN + SHAPES, SETUP)
    child.run(
        "some = made(allowed)",
        allowed=MIGPermission(profiles={gpu: frozenset({"1g.18gb"})}),
    )
    assert [d.mig_offers for d in child("some.discover('box')")] == [("1g.18gb",), ()]
    ((_, reason),) = child("some.plan_room(['2g.35gb'], {}).refused")
    assert reason == "no GPU here may be cut into 2g.35gb; there may be 1g.18gb"


def test_a_drained_gpu_is_not_cut(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES, SETUP)
    assert child("provider.plan_room(['1g.18gb'], {}).steps")
    ((_, reason),) = child("provider.plan_room(['1g.18gb'], {}, ['GPU-a']).refused")
    assert "no GPU here is in MIG mode" in reason
    assert child("provider.make_room(['1g.18gb'], {}, ['GPU-a'])") == ()


def test_a_gpu_that_is_not_in_mig_mode_is_never_cut(fake_nvml) -> None:
    child = fake_nvml.python(PLAIN + SHAPES, SETUP)
    ((_, reason),) = child("provider.plan_room(['1g.18gb'], {}).refused")
    assert "no GPU here is in MIG mode" in reason


# -- for those who wait ----------------------------------------------------------------

BROKER = """
import os
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.placement.mig_plan import MIGPermission
from jupyter_aistack.core.model.policy import Policy, Queue, UserLimits
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.testing import ManualClock, holder
clock = ManualClock()
def build(permission, policy=Policy()):
    provider = GPUProvider(mig_create=permission)
    return Broker(MemoryLedger(), [provider], policy=policy, host="testbox", clock=clock, ttl_seconds=3600.0)
broker = build(MIGPermission(everywhere=True))
def submit(spec, name="kernel-1"):
    return broker.submit(spec, holder(name, pid=os.getpid()))
def turn(seconds=10):
    clock.advance(seconds)
    broker.maintain()
"""


def test_a_waiting_request_gets_an_instance_created_and_then_granted(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES, BROKER)
    child.run("waiting = submit('1g.18gb')")
    assert child("waiting.state") is RequestState.QUEUED
    assert "waits for an instance 1g.18gb to be created" in child(
        "broker.queue()[0].reason"
    )
    child.run("turn()")
    assert child("broker.request(waiting.id).state") is RequestState.GRANTED
    child.run("held = broker.lease(broker.request(waiting.id).lease_id)")
    assert (
        child("broker.prepare(held).environment['CUDA_VISIBLE_DEVICES']")
        == "MIG-new-0-26"
    )
    assert child("broker.lease(held.id).enforced_by.value") == "L4"


def test_with_the_setting_off_such_a_request_is_refused_as_before(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES, BROKER + "broker = build(None)\n")
    with pytest.raises(UnknownProfile, match="no GPU of this host has MIG instances"):
        child("submit('1g.18gb')")
    child.run("turn()")
    assert child("broker.inventory().devices[0].mig") == ()


def test_what_a_lease_has_is_not_given_up_for_those_who_wait(fake_nvml) -> None:
    child = fake_nvml.python(GPU + SHAPES + cut(7, 0) + cut(8, 4), BROKER)
    child.run(
        "first, second = submit('1g.18gb'), submit('1g.18gb', 'kernel-2'); waiting = submit('3g.71gb', 'kernel-3')"
    )
    child.run("turn()")
    assert child("broker.request(waiting.id).state") is RequestState.QUEUED
    child.run(
        "lease = broker.lease(first.lease_id); broker.release(lease.id, lease.token); turn()"
    )
    assert child("broker.request(waiting.id).state") is RequestState.GRANTED
    assert sorted(m.profile for m in child("broker.inventory().devices[0].mig")) == [
        "1g.18gb",
        "3g.71gb",
    ]


def test_one_that_a_limit_holds_back_has_nothing_created(fake_nvml) -> None:
    limits = "Policy(limits={'*': UserLimits(slices=1)})"
    child = fake_nvml.python(
        GPU + SHAPES,
        BROKER + f"broker = build(MIGPermission(everywhere=True), {limits})\n",
    )
    child.run(
        "first = submit('1g.18gb'); clock.advance(1); second = submit('1g.18gb', 'kernel-2'); turn(); turn()"
    )
    assert child("broker.request(first.id).state") is RequestState.GRANTED
    assert child("broker.request(second.id).state") is RequestState.QUEUED
    assert len(child("broker.inventory().devices[0].mig")) == 1


def test_a_step_that_fails_is_not_tried_again_for_a_minute(fake_nvml) -> None:
    broken = "fail nvmlDeviceCreateGpuInstanceWithPlacement 999\n"
    child = fake_nvml.python(GPU + SHAPES + broken, BROKER)
    child.run("waiting = submit('1g.18gb'); turn()")
    fake_nvml.change(GPU + SHAPES)
    child.run("turn()")
    assert child("broker.request(waiting.id).state") is RequestState.QUEUED
    child.run("turn(60)")
    assert child("broker.request(waiting.id).state") is RequestState.GRANTED


def test_shares_of_a_plain_gpu_are_granted_beside_a_gpu_that_is_cut(fake_nvml) -> None:
    child = fake_nvml.python(GPU + PLAIN + SHAPES + cut(7, 0), BROKER)
    child.run("mig, share = submit('1g.18gb'), submit('1/2', 'kernel-2')")
    result = child("[broker.lease(r.lease_id).slices[0] for r in (mig, share)]")
    assert [(slice_.device_id, slice_.uuid) for slice_ in result] == [
        ("GPU-a", "MIG-7"),
        ("GPU-b", "GPU-b"),
    ]


# -- the command -----------------------------------------------------------------------

CLI = """
import contextlib, io
from jupyter_aistack.cli import main
def run(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(["mig", *words])
    return code, out.getvalue()
"""


@pytest.fixture
def admins_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AISTACK_PROVIDERS", "gpu")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    file = tmp_path / "jupyter_aistack_config.py"
    file.write_text(
        "c.AIStack.mig_create = True\nimport getpass\nc.AIStack.admins = [getpass.getuser()]\n"
    )
    return file


def test_the_command_shows_a_plan_then_carries_it_out(
    fake_nvml, admins_config: Path
) -> None:
    child = fake_nvml.python(GPU + SHAPES, CLI)
    code, text = child("run('plan', '1g.18gb')")
    assert code == 0
    # That the ledger is new is said before it.
    assert text.splitlines()[-1] == "would create 1g.18gb at slice 6 of GPU 0"
    code, text = child("run('plan', '--json', '3g.71gb', '9g.1gb'.replace('9', '4'))")
    report = json.loads(text.splitlines()[-1])
    assert code == 1
    assert [(step["action"], step["profile"]) for step in report["steps"]] == [
        ("create", "3g.71gb")
    ]
    assert [each["profile"] for each in report["refused"]] == ["4g.1gb"]
    assert child("run('apply', '1g.18gb')") == (
        0,
        "done: create 1g.18gb at slice 6 of GPU 0\n",
    )
    assert child("run('apply')") == (
        0,
        "nothing to do: no request waits for an instance that is missing\n",
    )
    assert child("run('plan', '1g.18gb')") == (
        0,
        "nothing to do: such instances are there\n",
    )


def test_the_command_says_what_is_not_allowed(fake_nvml, admins_config: Path) -> None:
    admins_config.write_text("")
    child = fake_nvml.python(GPU + SHAPES, CLI)
    code, text = child("run('apply', '1g.18gb')")
    assert code == 2
    assert "mig_create: it is off" in text or "GPUs are cut by admins only" in text
    code, text = child("run('plan', '20GiB')")
    assert (code, "profiles: expected names such as 1g.18gb" in text) == (2, True)
