from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import jupyter_aistack as aistack
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.tracking.track import track


def test_track_is_the_packages_own() -> None:
    assert aistack.track is track


@pytest.mark.parametrize("experiment", ["", "  ", "x" * 501, None])
def test_an_experiment_needs_a_name(experiment: Any) -> None:
    with pytest.raises(InvalidRequest, match="experiment: expected a name"):
        track(experiment)


def test_importing_tracking_opens_nothing() -> None:
    code = "import sys, jupyter_aistack.tracking; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert not {"mlflow", "pandas", "numpy", "sqlalchemy", "IPython"} & set(
        done.stdout.split()
    )
