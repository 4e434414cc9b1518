"""Why something of Dask's did not start, in a sentence."""

from __future__ import annotations

MAX_REASONS = 4
"""How many causes of a failure are told."""


def reasons(error: BaseException) -> str:
    """What went wrong, and below it the causes: Dask's own words seldom name them."""
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(texts) < MAX_REASONS:
        text = (str(current) or type(current).__name__).rstrip(".")
        if text not in texts:
            texts.append(text)
        current = current.__cause__
    return ": ".join(texts)
