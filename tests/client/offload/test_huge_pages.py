"""Large pages for what is ours."""

from __future__ import annotations

import mmap

import pytest

from jupyter_aistack.client.offload import huge_pages

MIB = 1 << 20


def test_large_pages_are_asked_for_within_what_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(huge_pages, "_advise", lambda: lambda *wish: asked.append(wish))
    huge_pages.prefer_large(10 * MIB + 64, 8 * MIB)
    huge_pages.prefer_large(10 * MIB, huge_pages.LEAST_BYTES - 1)
    assert asked == [
        (10 * MIB + mmap.PAGESIZE, 8 * MIB - mmap.PAGESIZE, huge_pages.ADVISE_HUGE)
    ]
