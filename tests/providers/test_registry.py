"""The `providers` setting, and what `auto` makes of a host."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jupyter_aistack.core.enforcement.device_visibility import hidden_environment
from jupyter_aistack.exceptions import DriverNotFound, InvalidRequest
from jupyter_aistack.providers.amd.visibility import VISIBILITY as AMD
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY as NVIDIA
from jupyter_aistack.providers.registry import build_providers

BUILD = """
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.registry import build_providers
inventory = lambda text: Broker(MemoryLedger(), build_providers(text), host="box").inventory()
kinds = lambda text: [device.kind.value for device in inventory(text).devices]
"""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("auto", ["gpu", "amd", "cpu"]),
        ("gpu", ["gpu"]),
        ("cpu", ["cpu"]),
        (" cpu , gpu ", ["cpu", "gpu"]),
        ("auto,cpu", ["gpu", "amd", "cpu"]),
        ("simulated:2xH200-141GB+4xL4-24GB,cpu", ["simulated", "cpu"]),
    ],
)
def test_the_setting_names_providers_in_order(text: str, names: list[str]) -> None:
    assert [provider.name for provider in build_providers(text)] == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "allowed are auto, amd, cpu, gpu or simulated:TABLE"),
        (
            "tpu",
            "'tpu' is not a provider; allowed are auto, amd, cpu, gpu or simulated:TABLE",
        ),
        ("cpu,", "allowed are auto"),
        ("cpu:2", "allowed are auto"),
        ("simulated", "8xH100-80GB"),
        ("simulated:9xFPGA-1GB", "models known"),
        ("simulated:1xL4-24GB,simulated:1xL4-24GB", "given once; join tables with +"),
    ],
)
def test_a_bad_setting_names_the_field_and_what_is_allowed(
    text: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"^providers: ") as caught:
        build_providers(text)
    assert words in caught.value.message
    assert caught.value.facts == {"field": "providers"}


def test_building_opens_no_driver_and_imports_nothing_heavy() -> None:
    code = """
import sys
from jupyter_aistack.providers.registry import build_providers
build_providers("auto,simulated:1xL4-24GB")
assert not {"pynvml", "amdsmi", "psutil", "torch", "sqlalchemy"} & set(sys.modules), set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_finds_gpus_and_cpu(fake_nvml) -> None:
    child = fake_nvml.python(
        "gpu uuid=GPU-a name=NVIDIA_L4 memory=25769803776\n", BUILD
    )
    assert child("kinds('auto')") == ["gpu", "cpu"]


def test_auto_finds_the_gpus_of_two_makers(
    fake_nvml, fake_amdsmi, monkeypatch: pytest.MonkeyPatch
) -> None:
    amd = "gpu uuid=GPU-00000000000000a0 serial=a0 name=AMD_Instinct_MI300X memory=206158430208\n"
    for name, value in fake_amdsmi.environment(amd).items():
        monkeypatch.setenv(name, value)
    child = fake_nvml.python(
        "gpu uuid=GPU-a name=NVIDIA_L4 memory=25769803776\n", BUILD
    )
    assert child("kinds('auto')") == ["gpu", "gpu", "cpu"]
    child.run(
        "from jupyter_aistack.kernel.standalone import hidden_environment_of as hidden"
    )
    assert child("hidden(build_providers('auto'), 'box')") == hidden_environment(
        [NVIDIA, AMD]
    )
    fake_amdsmi.change(f"{amd}fail amdsmi_init 34\n")
    assert child("hidden(build_providers('auto'), 'box')") == NVIDIA.hidden
    with pytest.raises(DriverNotFound, match="amdgpu is not loaded"):
        child("hidden(build_providers('amd'), 'box')")


def test_auto_on_a_host_without_a_driver_is_a_healthy_cpu(fake_nvml) -> None:
    child = fake_nvml.python(None, BUILD)
    assert child("kinds('auto')") == ["cpu"]
    assert child("inventory('auto').problems") == ()


def test_insisting_on_gpus_without_a_driver_shows_the_problem(fake_nvml) -> None:
    child = fake_nvml.python(None, BUILD)
    assert child("inventory('gpu').problems") == (
        "gpu: no NVIDIA driver is installed on this host (libnvidia-ml.so.1 is missing)",
    )


def test_auto_shows_a_broken_driver_and_goes_on_with_the_cpu(fake_nvml) -> None:
    child = fake_nvml.python("fail nvmlInit 18\n", BUILD)
    assert child("kinds('auto')") == ["cpu"]
    assert "reboot" in child("inventory('auto').problems")[0]


def test_a_driver_that_comes_up_later_is_used(fake_nvml) -> None:
    child = fake_nvml.python("fail nvmlInit 9\n", BUILD)
    child.run("gpus = build_providers('auto')[0]")
    with pytest.raises(DriverNotFound):
        child("gpus.discover('box')")
    fake_nvml.change("gpu uuid=GPU-a memory=25769803776\n")
    assert child("gpus.discover('box')[0].id") == "GPU-a"
