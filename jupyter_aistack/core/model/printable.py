"""Text of others that is shown in a terminal or a log: one line, and no commands to the
terminal.
"""

from __future__ import annotations

_JOINERS = "\u200c\u200d"
"""Characters without a shape that scripts and emoji need."""


def printable(text: str) -> str:
    """`text` with its control characters, line ends and invisible marks written out, as
    ``\\x1b`` or ``\\n``.

    A label, a path or a program's name may hold what moves the cursor, what hides or
    forges lines, or what turns the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if (
        character.isspace()
        and character not in "\t\n\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"
    ):
        return " "
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
