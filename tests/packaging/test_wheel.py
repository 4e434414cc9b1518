"""What a release contains: everything once, nothing of the machine that built it."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

DATA = "jupyter_aistack-0.1.0.data/data"
LABEXTENSION = f"{DATA}/share/jupyter/labextensions/jupyter-aistack"
KERNELS = f"{DATA}/share/jupyter/kernels"
HEAVY = {
    "anywidget",
    "dask",
    "distributed",
    "jupyterlab",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "torch",
}


@pytest.fixture(scope="module")
def archive(wheel: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(archive: zipfile.ZipFile) -> Message:
    return Parser().parsestr(
        archive.read("jupyter_aistack-0.1.0.dist-info/METADATA").decode()
    )


def test_every_file_is_there_once(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    assert len(names) == len(set(names))
    elsewhere = ("jupyter_aistack/labextension_static", "jupyter_aistack/etc", "tests")
    assert not [name for name in names if name.startswith(elsewhere)]
    assert not [
        name for name in names if "node_modules" in name or "__pycache__" in name
    ]


def test_every_file_of_the_package_is_there(
    archive: zipfile.ZipFile, root: Path
) -> None:
    package = root / "jupyter_aistack"
    files = {file.relative_to(package) for file in package.rglob("*") if file.is_file()}
    expected = {
        file
        for file in files
        if not {"labextension_static", "etc", "__pycache__"} & {*file.parts}
    }
    assert {f"jupyter_aistack/{file}" for file in expected} <= set(archive.namelist())


def test_tour_goes_with_the_package(archive: zipfile.ZipFile, root: Path) -> None:
    assert (
        archive.read("jupyter_aistack/tour.ipynb")
        == (root / "binder/tour.ipynb").read_bytes()
    )


def test_labextension_is_built_and_installable_by_its_name(
    archive: zipfile.ZipFile,
) -> None:
    names = [
        name.removeprefix(f"{LABEXTENSION}/")
        for name in archive.namelist()
        if name.startswith(LABEXTENSION)
    ]
    assert {"package.json", "install.json", "static/style.js"} <= set(names)
    built = json.loads(archive.read(f"{LABEXTENSION}/package.json"))
    assert f"{built['jupyterlab']['_build']['load']}" in names
    assert (
        json.loads(archive.read(f"{LABEXTENSION}/install.json"))["packageName"]
        == "jupyter_aistack"
    )
    assert built["version"] == "0.1.0"


def test_nothing_tells_of_the_machine_that_built_it(
    archive: zipfile.ZipFile, root: Path
) -> None:
    here = str(root).encode()
    assert not [name for name in archive.namelist() if here in archive.read(name)]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("aistack", {}),
        ("aistack-quarter", {"slice": "1/4"}),
        ("aistack-gpu", {"slice": "1"}),
    ],
)
def test_kernelspec_names_our_provisioner(
    archive: zipfile.ZipFile, name: str, config: dict[str, str]
) -> None:
    spec = json.loads(archive.read(f"{KERNELS}/{name}/kernel.json"))
    assert spec["metadata"]["kernel_provisioner"] == {
        "provisioner_name": "aistack-provisioner",
        "config": config,
    }
    assert (
        spec["argv"][0] == "python"
    )  # replaced by the server's own interpreter, so no path is shipped
    assert spec["argv"][-1] == "--ext=jupyter_aistack.magics"
    assert spec["metadata"]["supported_encryption"] == ["curve"]


@pytest.mark.parametrize("name", ["aistack", "aistack-quarter", "aistack-gpu"])
def test_kernelspec_has_logos_of_the_size_they_say(
    archive: zipfile.ZipFile, name: str
) -> None:
    for size in (32, 64):
        png = archive.read(f"{KERNELS}/{name}/logo-{size}x{size}.png")
        assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (size, size)
    assert archive.read(f"{KERNELS}/{name}/logo-svg.svg").startswith(b"<svg")


def test_types_and_licence_are_shipped(
    archive: zipfile.ZipFile, metadata: Message
) -> None:
    assert "jupyter_aistack/py.typed" in archive.namelist()
    assert "jupyter_aistack-0.1.0.dist-info/licenses/LICENSE" in archive.namelist()
    assert metadata["License-Expression"] == "BSD-3-Clause"


def test_pythons_that_are_supported(metadata: Message) -> None:
    supported = SpecifierSet(metadata["Requires-Python"])
    assert [f"3.{minor}" for minor in range(9, 16) if f"3.{minor}" in supported] == [
        "3.11",
        "3.12",
        "3.13",
    ]


def test_extras(metadata: Message) -> None:
    assert {"lab", "train", "gpu", "demo", "test", "all"} <= set(
        metadata.get_all("Provides-Extra")
    )


def test_bare_install_asks_for_nothing_heavy(metadata: Message) -> None:
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    bare = {
        canonicalize_name(requirement.name)
        for requirement in asked
        if requirement.marker is None
    }
    assert "jupyter-server" in bare
    assert not bare & HEAVY


def test_sdist_builds_without_node_because_the_labextension_is_in_it(
    dist: Path,
) -> None:
    (result,) = dist.glob("*.tar.gz")
    with tarfile.open(result) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert "jupyter_aistack/labextension_static/static/style.js" in names
    assert "labextension/hatch_build.py" in names
    assert not [name for name in names if "node_modules" in name]


def test_the_sdist_holds_what_the_build_needs_and_nothing_else(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [member.name.split("/", 1)[1] for member in archive.getmembers()]
    folders = {name.split("/", 1)[0] for name in names if "/" in name}
    assert folders == {"binder", "jupyter_aistack", "kernels", "labextension"}
    assert [name for name in names if name.startswith("binder/")] == [
        "binder/tour.ipynb"
    ]


def test_a_package_index_is_shown_no_link_that_leads_nowhere(
    metadata: Message, root: Path
) -> None:
    """There are no files beside the description there."""
    description = str(metadata.get_payload())
    targets = re.findall(r"\]\(([^)]*)\)", description)
    assert [target for target in targets if not target.startswith("http")] == []
    assert "what holds a slice" in description
    assert "(docs/enforcement.md)" in (root / "README.md").read_text()
