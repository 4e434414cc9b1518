"""The build asks for a Node wheel only where Node is needed and missing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def hook(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "hatch_build", root / "labextension/hatch_build.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requirements(hook: ModuleType, root: Path) -> list[str]:
    asked: list[str] = hook.BuildHook(
        str(root), {}, None, None, "", "wheel"
    ).dependencies()
    return asked


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path that holds nothing but what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, says: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\necho {says}\n")
    (folder / name).chmod(0o755)


def test_without_node_the_wheel_is_asked_for(
    hook: ModuleType, node: Path, tmp_path: Path
) -> None:
    assert requirements(hook, tmp_path) == [hook.NODE]


@pytest.mark.parametrize(
    "version", ["v18.19.0", "v20.18.1", "v21.7.3", "v22.11.0", "nonsense", ""]
)
def test_a_node_that_the_bundler_refuses_does_not_count(
    hook: ModuleType, node: Path, tmp_path: Path, version: str
) -> None:
    put(node, "npm")
    put(node, "node", version)
    assert requirements(hook, tmp_path) == [hook.NODE]


@pytest.mark.parametrize("version", ["v20.19.0", "v22.12.0", "v24.1.0"])
def test_a_node_that_is_there_is_used(
    hook: ModuleType, node: Path, tmp_path: Path, version: str
) -> None:
    put(node, "npm")
    put(node, "node", version)
    assert requirements(hook, tmp_path) == []


def test_node_without_npm_does_not_count(
    hook: ModuleType, node: Path, tmp_path: Path
) -> None:
    put(node, "node", "v24.1.0")
    assert requirements(hook, tmp_path) == [hook.NODE]


def test_a_built_labextension_needs_no_node(
    hook: ModuleType, node: Path, tmp_path: Path
) -> None:
    built = tmp_path / hook.BUILT
    built.parent.mkdir(parents=True)
    built.touch()
    assert requirements(hook, tmp_path) == []


def test_both_halves_carry_one_version(root: Path, pyproject: dict[str, Any]) -> None:
    package = json.loads(
        (root / "labextension/package.json").read_text(encoding="utf-8")
    )
    assert package["version"] == pyproject["project"]["version"]
