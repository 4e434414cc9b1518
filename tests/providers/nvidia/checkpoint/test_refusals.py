"""What the checkpoint API raises, as codes: by the sentences of the cuda-core that is
installed, and by CUDA's names.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jupyter_aistack.providers.nvidia.checkpoint.refusals import (
    CheckpointRefusal,
    refusal_of,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(1, "not permitted"), CheckpointRefusal.NOT_PERMITTED),
        (Exception("CUDA_ERROR_NOT_PERMITTED: x"), CheckpointRefusal.NOT_PERMITTED),
        (Exception("CUDA_ERROR_NOT_SUPPORTED: x"), CheckpointRefusal.NOT_SUPPORTED),
        (Exception("CUDA_ERROR_NOT_READY: x"), CheckpointRefusal.NOT_READY),
        (Exception("CUDA_ERROR_NOT_INITIALIZED"), CheckpointRefusal.NOT_INITIALIZED),
        (Exception("CUDA_ERROR_OUT_OF_MEMORY: x"), CheckpointRefusal.OUT_OF_MEMORY),
        (Exception("CUDA_ERROR_UNKNOWN: x"), CheckpointRefusal.OTHER),
        (Exception("after CUDA_ERROR_NOT_READY"), CheckpointRefusal.OTHER),
        (ValueError("pid must be a positive int"), CheckpointRefusal.OTHER),
    ],
)
def test_an_exception_has_a_code(error: Exception, code: CheckpointRefusal) -> None:
    assert refusal_of(error) is code


@pytest.mark.parametrize("name", ["CUDA_ERROR_NOT_SUPPORTED", "CUDA_ERROR_NOT_FOUND"])
def test_the_sentences_of_cuda_core_are_not_supported(name: str) -> None:
    checkpoint = pytest.importorskip("cuda.core.checkpoint")
    driver = pytest.importorskip("cuda.bindings.driver")
    answer = getattr(driver.CUresult, name)
    with pytest.raises(RuntimeError) as raised:
        checkpoint._call_driver(driver, lambda: (answer,))
    assert refusal_of(raised.value) is CheckpointRefusal.NOT_SUPPORTED


def test_bindings_without_the_api_do_not_support_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = pytest.importorskip("cuda.core.checkpoint")
    monkeypatch.setattr(checkpoint, "_driver_capability_checked", False)
    monkeypatch.setattr(checkpoint, "_driver", SimpleNamespace())
    with pytest.raises(RuntimeError) as raised:
        _ = checkpoint.Process(1).state
    assert refusal_of(raised.value) is CheckpointRefusal.NOT_SUPPORTED
