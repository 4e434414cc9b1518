"""The door to NVML, with the real nvidia-ml-py over a fake driver in a child
process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import DeviceLost, DriverNotFound, ProviderError
from tests.fakes.child import Child

GPU = "session 1\ngpu uuid=GPU-a name=NVIDIA_H200 memory=150754820096\n"
SETUP = """
from concurrent.futures import ThreadPoolExecutor
from jupyter_aistack.providers.nvidia.nvml import NVML
nvml = NVML()
"""


def test_making_a_door_opens_nothing() -> None:
    code = "import sys; import jupyter_aistack.providers.nvidia.nvml as n; n.NVML(); assert 'pynvml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_answers_what_the_driver_says(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    assert child("nvml.query('nvmlDeviceGetCount')") == 1
    assert (
        child(
            "nvml.query('nvmlDeviceGetUUID', nvml.query('nvmlDeviceGetHandleByIndex', 0))"
        )
        == "GPU-a"
    )


def test_without_a_driver_library_says_so(fake_nvml) -> None:
    child = fake_nvml.python(None, SETUP)
    with pytest.raises(DriverNotFound, match="no NVIDIA driver is installed") as caught:
        child("nvml.query('nvmlDeviceGetCount')")
    assert caught.value.facts["library_missing"]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (9, DriverNotFound, "not loaded"),
        (18, ProviderError, "reboot or reload"),
        (4, ProviderError, "is refused to this user"),
        (999, ProviderError, "NVML error 999"),
    ],
)
def test_a_driver_that_does_not_start_is_one_sentence(
    fake_nvml, code, kind, words
) -> None:
    child = fake_nvml.python(f"{GPU}fail nvmlInit {code}\n", SETUP)
    with pytest.raises(kind, match=words) as caught:
        child("nvml.query('nvmlDeviceGetCount')")
    assert type(caught.value) is kind
    assert not caught.value.facts.get("library_missing")


def test_opens_later_when_the_driver_comes_up(fake_nvml) -> None:
    child = fake_nvml.python(f"{GPU}fail nvmlInit 9\n", SETUP)
    with pytest.raises(DriverNotFound):
        child("nvml.query('nvmlDeviceGetCount')")
    fake_nvml.change(GPU)
    assert child("nvml.query('nvmlDeviceGetCount')") == 1


def test_opens_again_after_a_driver_reset(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    assert child("nvml.query('nvmlDeviceGetCount')") == 1
    fake_nvml.change(GPU.replace("session 1", "session 2"))
    assert child("nvml.query('nvmlDeviceGetCount')") == 1


def test_opens_again_after_someone_else_closed_nvml(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP + "import pynvml\n")
    assert child("nvml.query('nvmlDeviceGetCount')") == 1
    child.run("pynvml.nvmlShutdown()")
    assert child("nvml.query('nvmlDeviceGetCount')") == 1


@pytest.mark.parametrize("code", [3, 4, 6, 13, 25])
def test_what_cannot_be_known_is_the_default(fake_nvml, code) -> None:
    child = fake_nvml.python(f"{GPU}fail nvmlDeviceGetPowerUsage {code}\n", SETUP)
    child.run("handle = nvml.query('nvmlDeviceGetHandleByIndex', 0)")
    assert (
        child("nvml.query('nvmlDeviceGetPowerUsage', handle, default='unknown')")
        == "unknown"
    )
    with pytest.raises(ProviderError) as caught:
        child("nvml.query('nvmlDeviceGetPowerUsage', handle)")
    assert caught.value.facts["nvml_code"] == code


def test_a_lost_gpu_is_no_default(fake_nvml) -> None:
    child = fake_nvml.python(f"{GPU}fail nvmlDeviceGetPowerUsage 15\n", SETUP)
    with pytest.raises(DeviceLost, match="fell off the bus"):
        child(
            "nvml.query('nvmlDeviceGetPowerUsage', nvml.query('nvmlDeviceGetHandleByIndex', 0), default=None)"
        )


def test_not_found_may_be_an_answer_of_its_own(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    assert (
        child(
            "nvml.query('nvmlDeviceGetHandleByUUID', 'GPU-z', default=1, not_found=2)"
        )
        == 2
    )


def test_a_function_this_driver_or_package_lacks_is_unknown(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    assert (
        child("nvml.query('nvmlDeviceGetSomethingNew', default='too old')") == "too old"
    )
    fake_nvml.change(f"{GPU}fail nvmlDeviceGetComputeRunningProcesses_v3 13\n")
    child.run("handle = nvml.query('nvmlDeviceGetHandleByIndex', 0)")
    assert (
        child(
            "nvml.query('nvmlDeviceGetComputeRunningProcesses', handle, default='too old')"
        )
        == "too old"
    )


def test_closing_twice_is_allowed(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    child.run("nvml.query('nvmlDeviceGetCount'); nvml.close(); nvml.close()")
    assert child("nvml.query('nvmlDeviceGetCount')") == 1


def test_may_be_asked_from_many_threads_while_the_driver_resets(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    child.run(
        "ask = lambda _: nvml.query('nvmlDeviceGetCount')\npool = ThreadPoolExecutor(8)"
    )
    child.run("pending = [pool.submit(ask, n) for n in range(2000)]")
    fake_nvml.change(GPU.replace("session 1", "session 2"))
    assert child("{answer.result() for answer in pending}") == {1}


def with_package(fake_nvml, folder: Path, name: str, version: str) -> Child:
    """A process that sees a package installed in a version."""
    installed = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    installed.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (installed / "METADATA").write_text(text, encoding="utf-8")
    child: Child = fake_nvml.python("gpu uuid=GPU-a\n", SETUP)
    child.run(f"import sys; sys.path.insert(0, {str(folder)!r})")
    return child


@pytest.mark.parametrize(
    ("version", "is_refused"), [("11.5.3", True), ("8.0.4", True), ("13.0.1", False)]
)
def test_a_package_that_is_imported_in_place_of_nvidias_is_refused(
    fake_nvml, tmp_path, version: str, is_refused: bool
) -> None:
    child = with_package(fake_nvml, tmp_path, "pynvml", version)
    if not is_refused:
        assert child("nvml.query('nvmlDeviceGetCount')") == 1
        return
    with pytest.raises(ProviderError, match=rf"pynvml {version} hides .*uninstall it"):
        child("nvml.query('nvmlDeviceGetCount')")


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [
        ("12.535.77", True),
        ("11.525.84", True),
        ("12.535.108", False),
        ("13.615.71", False),
    ],
)
def test_a_binding_that_misreads_processes_is_refused_by_its_version(
    fake_nvml, tmp_path, version: str, is_refused: bool
) -> None:
    child = with_package(fake_nvml, tmp_path, "nvidia-ml-py", version)
    if not is_refused:
        assert child("nvml.query('nvmlDeviceGetCount')") == 1
        return
    with pytest.raises(
        ProviderError, match=rf"nvidia-ml-py {version} misreads .*12\.535\.108"
    ):
        child("nvml.query('nvmlDeviceGetCount')")
