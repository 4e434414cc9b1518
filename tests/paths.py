"""Where the repository and the data of the tests lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
FAKES = ROOT / "tests" / "fakes"
