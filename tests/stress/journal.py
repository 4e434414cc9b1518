"""How an outside observer knows who truly lives, and who was given what.

Each holder writes a file of its own and keeps a record lock on it. The system takes the
lock when the process dies, stopped processes keep it, and no child inherits it. Nothing
of the product has a part in this.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

HANDED = "handed"
"""The holder knows that it has a lease."""
GIVEN_BACK = "given-back"
"""The holder is about to give a lease back."""
LOST = "lost"
"""The holder was told, or saw, that a lease of its has ended."""
PROBLEM = "problem"


class Journal:
    """The file of one holder, written by that holder.

    Args:
        folder: where all holders write.
        holder_id: the holder.
    """

    def __init__(self, folder: Path, holder_id: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._descriptor = os.open(folder / holder_id, flags, 0o600)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def note(self, word: str, text: str) -> None:
        """Write one line, whole or not at all."""
        line = f"{word} {' '.join(text.split())}\n"
        os.write(self._descriptor, line.encode())


def lives(folder: Path, holder_id: str) -> bool:
    """Whether the process of a holder lives. Not to be asked by a holder of itself."""
    try:
        with (folder / holder_id).open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def notes(folder: Path, holder_id: str) -> list[tuple[str, str]]:
    """What a holder has written: words with their texts."""
    try:
        lines = (folder / holder_id).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(word, text) for word, _, text in (line.partition(" ") for line in lines)]
