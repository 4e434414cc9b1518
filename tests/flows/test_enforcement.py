"""Each thing that can be wrong with a slice, broken on purpose: it is found out from
inside, said, and acted on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.enforcement.verification import NotEnforcedAction
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.kernel.combine import combine_preparations
from jupyter_aistack.providers.nvidia.mps.limits import (
    multiprocessor_unit,
    multiprocessors_at_most,
)
from jupyter_aistack.system.verify.child import verify
from tests.fakes.kernel_server import (
    WITH_MAGICS,
    WriteKernel,
    active,
    client_of,
    evaluate,
)
from tests.fakes.scripted import exchange_providers
from tests.fakes.waiting import until

GPU, OTHER = (
    "GPU-11111111-1111-1111-1111-111111111111",
    "GPU-abababab-abab-abab-abab-abababababab",
)
PROMISE: dict[str, Any] = {
    "visible": (GPU,),
    "memory_total": 20 << 30,
    "memory_free": 5 << 30,
    "multiprocessors": 16,
    "mps": True,
}
Environment = Callable[..., dict[str, str]]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """The folder of a server of MPS that answers."""
    folder = tmp_path / "pipe"
    folder.mkdir()
    (folder / "control").touch()
    return folder


@pytest.fixture
def environment(driver: str, pipe: Path) -> Environment:
    """What a quarter under MPS is launched with."""

    def given(**changes: str) -> dict[str, str]:
        limits = {
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=5120M",
        }
        mps = {"CUDA_MPS_PIPE_DIRECTORY": str(pipe), **limits}
        return {"LD_LIBRARY_PATH": driver, "FAKE_CUDA_COUNT": "1", **mps, **changes}

    return given


def clients_in(pipe: Path) -> frozenset[int]:
    """The processes the fake driver has announced."""
    return frozenset(int(file.name) for file in pipe.iterdir() if file.name.isdigit())


def look(
    environment: Mapping[str, str], pipe: Path, **changes: Any
) -> tuple[bool | None, str]:
    """Whether the promise is kept, and what is said of that."""

    def asked(pid: int) -> bool:
        return pid in clients_in(pipe)

    verdict, condition = verify(
        Expectation(**{**PROMISE, **changes}),
        interpreter=sys.executable,
        environment=environment,
        is_client=asked,
    )
    return verdict, condition.text if condition else ""


def test_a_slice_that_holds_is_verified_and_its_child_is_a_client_until_it_was_seen(
    environment: Environment, pipe: Path
) -> None:
    assert look(environment(), pipe) == (True, "")
    assert clients_in(pipe) == frozenset(), "it has taken its leave"


BROKEN = [
    # A wrong pipe directory gives the whole GPU without a word; the same when the
    # server has died.
    (
        {"CUDA_MPS_PIPE_DIRECTORY": "/nowhere"},
        "the process may take 19.6 GiB of memory instead of 5.0 GiB",
    ),
    (
        {"FAKE_MPS_IGNORES": "memory"},
        "the process may take 19.6 GiB of memory instead of 5.0 GiB",
    ),
    (
        {"FAKE_MPS_IGNORES": "sms"},
        "the process may use 66 multiprocessors instead of 16",
    ),
    (
        {"FAKE_MPS_IGNORES": "clients"},
        "the process is no client of the MPS server that limits its slice",
    ),
    (
        {"FAKE_CUDA_COUNT": "2"},
        f"the process sees devices {GPU}, {OTHER} instead of {GPU}",
    ),
    ({"FAKE_CUDA": "none"}, f"the process sees devices none instead of {GPU}"),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN, ids=lambda value: str(value)[:40])
def test_what_is_broken_is_named(
    broken: dict[str, str], words: str, environment: Environment, pipe: Path
) -> None:
    assert look(environment(**broken), pipe) == (False, f"not enforced: {words}")


def test_another_device_than_the_promised_one_is_named(
    environment: Environment, pipe: Path
) -> None:
    verdict, note = look(environment(), pipe, visible=(OTHER,))
    assert (verdict, note) == (
        False,
        f"not enforced: the process sees devices {GPU} instead of {OTHER}",
    )


def test_a_driver_that_is_dead_is_not_called_a_slice_that_holds_nor_one_that_does_not(
    environment: Environment, pipe: Path
) -> None:
    verdict = look(environment(FAKE_CUDA="broken"), pipe)
    assert verdict == (
        None,
        "could not be verified: cuInit failed: unknown error (999)",
    )


def test_a_server_that_does_not_answer_leaves_the_question_open(
    environment: Environment,
) -> None:
    def mute(pid: int) -> bool:
        raise ProviderError("the control daemon does not answer")

    verdict, condition = verify(
        Expectation(**PROMISE),
        interpreter=sys.executable,
        environment=environment(),
        is_client=mute,
    )
    assert verdict is None
    assert condition is not None
    assert condition.text.startswith(
        "could not be verified: it is unknown whether the process is a client"
    )


def test_a_server_that_starts_or_ends_a_client_is_asked_again(
    environment: Environment, pipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "starting").touch()
    given = environment(FAKE_CUDA_NOT_READY=str(tmp_path / "starting"))
    assert look(given, pipe) == (True, "")


def test_a_limit_that_names_the_device_is_none(
    environment: Environment, pipe: Path
) -> None:
    verdict, text = look(
        environment(CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=f"{GPU}=5120M"), pipe
    )
    assert verdict is False
    assert "may take 19.6 GiB of memory instead of 5.0 GiB" in text


def test_multiprocessors_that_come_in_clusters_are_no_breach(
    environment: Environment, pipe: Path
) -> None:
    (pipe / "nvidia-cuda-mps-control.pid").touch()
    unit = multiprocessor_unit((9, 0))
    most = multiprocessors_at_most(66, 25, protocol=2, unit=unit)
    given = environment(FAKE_CUDA_SM_UNIT="16")
    assert look(given, pipe, multiprocessors=most) == (True, "")
    pairs = multiprocessors_at_most(66, 25, protocol=2)
    assert "may use 32 multiprocessors" in look(given, pipe, multiprocessors=pairs)[1]


def test_less_memory_in_all_than_promised_is_what_a_limit_of_the_control_group_makes_of_it(
    environment: Environment, pipe: Path
) -> None:
    assert look(environment(), pipe, memory_total=141 << 30) == (
        True,
        "",
    )


def test_what_one_of_two_leases_leaves_open_is_open_for_the_process() -> None:
    whole = Preparation(expects=Expectation(visible=(OTHER,), memory_total=80))
    share = Preparation(expects=Expectation(**PROMISE))
    assert combine_preparations([whole, share]).expects == Expectation(
        visible=(OTHER, GPU), memory_total=80 + (20 << 30), mps=True
    )
    cpu = Preparation(expects=Expectation(threads="2"))
    assert combine_preparations([cpu, share]).expects == Expectation(
        threads="2", **PROMISE
    )


# -- on a real server ------------------------------------------------------------------


class Behind:
    """A provider of CPU slices that promises what the fake driver of the kernel shows,
    or not.
    """

    def __init__(
        self, provider: Any, pipe: Path, promise: Mapping[str, object]
    ) -> None:
        self._provider, self._pipe, self._promise = provider, pipe, promise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def prepare(self, lease: Lease, devices: Any) -> Preparation:
        prepared: Preparation = self._provider.prepare(lease, devices)
        return replace(prepared, expects=replace(prepared.expects, **self._promise))

    def clients(self, lease: Lease) -> frozenset[int]:
        return clients_in(self._pipe)


@pytest.fixture
def promising(broker: Broker, pipe: Path) -> Callable[..., None]:
    """Exchanges the host's provider for one that promises a quarter under MPS."""

    def exchange(**changes: object) -> None:
        (provider,) = broker.devices.providers
        behind: Any = Behind(provider, pipe, {**PROMISE, **changes})
        exchange_providers(broker, behind)

    return exchange


async def test_kernel_under_mps_is_verified_by_the_granting_side(
    kernels: Any,
    broker: Broker,
    kernelspec: WriteKernel,
    promising: Callable[..., None],
    environment: Environment,
) -> None:
    promising()
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("mps", slice="cpu:1", env=environment())
    )
    lease = await active(broker, kernel_id)
    assert (lease.verified, conditions_text(lease.conditions)) == (True, "")


async def test_kernel_whose_slice_does_not_hold_is_told_and_keeps_it_where_that_is_the_policy(
    kernels: Any,
    broker: Broker,
    kernelspec: WriteKernel,
    promising: Callable[..., None],
    environment: Environment,
) -> None:
    promising()
    env = environment(CUDA_MPS_PIPE_DIRECTORY="/nowhere")
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("mps", slice="cpu:1", env=env)
    )
    lease = await active(broker, kernel_id)
    assert (lease.state, lease.verified) == (LeaseState.ACTIVE, False)
    (event,) = [
        event for event in broker.events() if event.kind.value == "LeaseNotEnforced"
    ]
    assert (
        event.detail
        == "not enforced: the process may take 19.6 GiB of memory instead of 5.0 GiB"
    )


class TestWhereSuchLeasesAreRevoked:
    @pytest.fixture
    def jp_server_config(self, jp_server_config: Config) -> Config:
        jp_server_config.AIStack.not_enforced_action = "revoke"
        return jp_server_config

    async def test_the_lease_ends_as_failed_and_the_kernel_is_told_and_goes_on(
        self,
        kernels: Any,
        broker: Broker,
        kernelspec: WriteKernel,
        promising: Callable[..., None],
        environment: Environment,
    ) -> None:
        assert broker.not_enforced_action is NotEnforcedAction.REVOKE
        promising(multiprocessors=8)
        name = kernelspec("mps", slice="cpu:1", argv=WITH_MAGICS, env=environment())
        kernel_id = await kernels.start_kernel(kernel_name=name)
        ended = await until(
            lambda: next((x for x in broker.leases(live=False) if not x.is_live), None)
        )
        why = "not enforced: the process may use 16 multiprocessors instead of 8"
        assert (ended.outcome, ended.verified, conditions_text(ended.conditions)) == (
            Outcome.FAILED,
            False,
            why,
        )
        assert {"LeaseFailed", "LeaseNotEnforced"} <= {
            event.kind.value for event in broker.events()
        }
        async with client_of(kernels.get_kernel(kernel_id)) as client:
            messages: list[str] = []

            def hear(message: Any) -> None:
                messages.append(message["content"].get("text", ""))

            await client.execute_interactive(
                "print('alive')", output_hook=hear, timeout=30
            )
            assert (
                f"the lease {ended.id} has ended: {why}; this kernel runs without a device now"
                in "".join(messages)
            )
            assert "".join(messages).rstrip().endswith("alive")

    async def test_a_kernel_that_asks_for_a_slice_gets_the_sentence_and_no_slice(
        self,
        kernels: Any,
        broker: Broker,
        kernelspec: WriteKernel,
        promising: Callable[..., None],
        environment: Environment,
    ) -> None:
        promising()
        name = kernelspec(
            "plain", argv=WITH_MAGICS, env=environment(FAKE_MPS_IGNORES="clients")
        )
        kernel_id = await kernels.start_kernel(kernel_name=name)
        async with client_of(kernels.get_kernel(kernel_id)) as client:
            ask = """
import jupyter_aistack
try:
    jupyter_aistack.request("cpu:1")
except jupyter_aistack.exceptions.AIStackError as error:
    said = [error.code, error.message]
"""
            await client.execute_interactive(ask, timeout=30)
            code, message = await evaluate(client, "said")
        assert code == "NotEnforced"
        assert (
            "the process is no client of the MPS server that limits its slice; the lease "
            in message
        )
        assert message.endswith(" has been revoked")
        assert broker.leases() == ()


async def test_a_kernel_that_asks_for_a_slice_has_its_server_look_for_the_child(
    kernels: Any,
    broker: Broker,
    kernelspec: WriteKernel,
    promising: Callable[..., None],
    environment: Environment,
) -> None:
    promising()
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("plain", argv=WITH_MAGICS, env=environment())
    )
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        ask = "[(held := __import__('jupyter_aistack').request('cpu:1')).verified, list(held.conditions)]"
        assert await evaluate(client, ask) == [True, []]
