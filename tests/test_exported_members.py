from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import jupyter_aistack
from tests.paths import ROOT


def test_the_face_is_sorted_and_every_name_has_a_home() -> None:
    assert jupyter_aistack.__all__ == sorted(jupyter_aistack.__all__)
    assert set(jupyter_aistack.__all__) == set(jupyter_aistack._HOMES)


@pytest.mark.parametrize("name", jupyter_aistack.__all__)
def test_a_name_is_what_its_home_defines(name: str) -> None:
    member = getattr(jupyter_aistack, name)
    home = f"{jupyter_aistack.__name__}.{jupyter_aistack._HOMES[name]}"
    assert member.__name__ == name
    assert f"{member.__module__}.".startswith(f"{home}.")


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert jupyter_aistack.__version__ == project["version"]


def test_importing_the_package_imports_nothing_of_others() -> None:
    code = """
import sys
before = set(sys.modules)
import jupyter_aistack
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"jupyter_aistack"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(jupyter_aistack, "nonsense")
