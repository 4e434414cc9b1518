"""Every problem of storage has a sentence that says what to do."""

from __future__ import annotations

from pathlib import Path

from jupyter_aistack.ledger.storage_words import storage_sentence
from jupyter_aistack.system.storage import StorageProblem


def test_every_problem_has_one_sentence_of_its_own(tmp_path: Path) -> None:
    sentences = {storage_sentence(each, tmp_path / "file") for each in StorageProblem}
    assert len(sentences) == len(StorageProblem)
    assert not any("{" in sentence or "\n" in sentence for sentence in sentences)
