"""Reading JSON that came from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`.

    Raises:
        InvalidRequest: it is not JSON, not an object, or holds text that no ledger can
            keep (a NUL, half a character).
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except (ValueError, RecursionError):
        raise InvalidRequest("body: expected JSON in UTF-8", field="body") from None
    if not isinstance(value, dict):
        raise InvalidRequest("body: expected a JSON object", field="body")
    if "\\u0000" in text:
        raise InvalidRequest("body: text may not hold the character NUL", field="body")
    return value


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def check_fields(body: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raises `InvalidRequest` naming the first field of `body` that is not in
    `known`.
    """
    for name in sorted(body.keys() - known):
        raise InvalidRequest(
            f"{name[:64]}: unknown field; there is {', '.join(sorted(known))}",
            field=name[:64],
        )
