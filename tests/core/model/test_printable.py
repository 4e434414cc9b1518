from __future__ import annotations

import pytest

from jupyter_aistack.core.model.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("paper.ipynb", "paper.ipynb"),
        ("Übung 3 – 学習.ipynb", "Übung 3 – 学習.ipynb"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("a\nl-1  free\r", "a\\nl-1  free\\r"),
        ("tab\there", "tab\\there"),
        ("\x9b31m", "\\x9b31m"),
        ("line\u2028end", "line\\u2028end"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("no\u00a0break", "no break"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_what_would_command_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert len(printable(text).splitlines()) == 1
