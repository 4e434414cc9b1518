"""The wheel in an empty environment, on a machine without Node: what Jupyter finds
there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


class Installed:
    """An environment of its own that holds the wheel; the one that runs the tests lends
    the libraries it needs.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True
        )
        self.site_packages = Path(
            self.python("import sysconfig; print(sysconfig.get_path('purelib'))")
        )
        (self.site_packages / "lent.pth").write_text(
            sysconfig.get_path("purelib") + "\n"
        )
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(folder / "bin/python"),
            "install",
            "--quiet",
        ]
        subprocess.run(
            [*pip, "--no-deps", "--no-index", str(wheel)],
            check=True,
            env=self.environment,
        )

    @property
    def environment(self) -> dict[str, str]:
        """A home without settings, and a path without Node."""
        home = str(self.folder / "home")
        return {
            "PATH": str(self.folder / "bin"),
            "HOME": home,
            "JUPYTER_PREFER_ENV_PATH": "1",
            "LANG": "C.UTF-8",
        }

    def python(self, *arguments: str) -> str:
        """What `python -c ...` (or `python -m ...`) of the environment prints, standard
        error included.
        """
        command = [
            str(self.folder / "bin/python"),
            *(arguments if arguments[0] == "-m" else ("-c", *arguments)),
        ]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_it_is_the_wheel_that_is_imported(installed: Installed) -> None:
    where = Path(
        installed.python("import jupyter_aistack; print(jupyter_aistack.__file__)")
    )
    assert where.is_relative_to(installed.site_packages)


def test_server_extension_is_enabled_and_valid(installed: Installed) -> None:
    text = installed.python("-m", "jupyter_server.extension.serverextension", "list")
    enabled, _, validated = [
        line for line in text.splitlines() if "jupyter_aistack" in line
    ][:3]
    assert "enabled" in enabled
    assert "0.1.0" in validated
    assert "OK" in validated


def test_labextension_is_enabled_and_valid(installed: Installed) -> None:
    text = installed.python("-m", "jupyterlab.labextensions", "list")
    line = next(line for line in text.splitlines() if "jupyter-aistack" in line)
    assert "enabled" in line
    assert "OK" in line
    assert "python, jupyter_aistack" in line


def test_kernelspecs_are_found(installed: Installed) -> None:
    result = json.loads(
        installed.python("-m", "jupyter_client.kernelspecapp", "list", "--json")
    )["kernelspecs"]
    ours = {name: spec for name, spec in result.items() if name.startswith("aistack")}
    assert set(ours) == {"aistack", "aistack-quarter", "aistack-gpu"}
    assert all(
        Path(spec["resource_dir"]).is_relative_to(installed.folder)
        for spec in ours.values()
    )


def test_provisioner_is_offered_to_jupyter(installed: Installed) -> None:
    script = """
from jupyter_client.provisioning import KernelProvisionerFactory
print(KernelProvisionerFactory.instance().get_provisioner_entries()["aistack-provisioner"])
"""
    assert (
        installed.python(script).splitlines()[-1]
        == "jupyter_aistack.kernel.provisioner:SliceProvisioner"
    )


def test_command_is_there(installed: Installed) -> None:
    assert "demo" in installed.python("-m", "jupyter", "aistack", "--help")
    assert os.access(installed.folder / "bin/jupyter-aistack", os.X_OK)
