from __future__ import annotations

import subprocess
import sys

import jupyter_aistack


def test_the_face_is_sorted_and_every_name_has_a_home() -> None:
    assert jupyter_aistack.__all__ == sorted(jupyter_aistack.__all__)
    assert set(jupyter_aistack.__all__) == set(jupyter_aistack._HOMES)
    for name in jupyter_aistack.__all__:
        assert getattr(jupyter_aistack, name).__name__ == name or callable(
            getattr(jupyter_aistack, name)
        )


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
