"""What the documents name is there: settings, commands, files, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jupyter_aistack.cli import _parser
from jupyter_aistack.hostbroker.settings import BrokerSettings
from jupyter_aistack.notebook.magics.arguments import gpu_parser
from tests.paths import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def headings(document: Path) -> set[str]:
    """The anchors of a document as GitHub makes them."""
    result = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in result
    }


@each
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / (path or document.name)
        linked = linked if linked.exists() else linked.with_suffix(".md")
        assert linked.exists(), target
        assert not anchor or anchor in headings(linked), target


@each
def test_settings_exist(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"\bAIStack\.([a-z_]+)", text)) | set(
        re.findall(r"setting `([a-z_]+)`", text)
    )
    assert named <= set(BrokerSettings.class_trait_names(config=True))


@each
def test_modules_that_are_run_exist(document: Path) -> None:
    for name in re.findall(
        r"python (?:-I )?-m ([a-z_.]*(?:jupyter_aistack|tests)[a-z_.]*)",
        document.read_text(),
    ):
        path = ROOT.joinpath(*name.strip(".").split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@each
def test_commands_exist(document: Path) -> None:
    shell = next(iter(_parser([])._subparsers._group_actions)).choices  # type: ignore[union-attr]
    for start, known in (
        ("jupyter aistack ", set(shell)),
        ("%gpu ", set(gpu_parser().words())),
    ):
        for named in re.findall(
            rf"(?<!%){start}([a-z]+(?: ?\| ?[a-z]+)*)", document.read_text()
        ):
            assert {word.strip() for word in named.split("|")} <= known, named
