"""Standard streams that are closed, or that nothing can be written to."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_aistack.system.standard_streams import tell, write_line

CLOSED = """
import json, os, subprocess, sys
from jupyter_aistack.system.standard_streams import open_closed_streams
closed = json.loads(sys.argv[1])
open_closed_streams()
assert sys.stdin.read() == "" if 0 in closed else True
print("for nobody")
print("for nobody", file=sys.stderr)
with open(sys.argv[2], "w") as result:
    assert result.fileno() > 2
    json.dump([os.readlink(f"/proc/self/fd/{number}") for number in closed], result)
    result.flush()
    # What is started writes into no file of ours.
    subprocess.run(["sh", "-c", "echo lost; echo lost >&2"], check=True)
"""


class Failing(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_what_is_closed_leads_nowhere(tmp_path: Path, closed: list[int]) -> None:
    result = tmp_path / "result"
    redirections = " ".join(f"{number}>&-" for number in closed)
    program = [sys.executable, "-c", CLOSED, str(closed), str(result)]
    run = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *program],
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr[:9]) == (0, b"" if 2 in closed else b"for nobod")
    assert result.read_text() == str([os.devnull] * len(closed)).replace("'", '"')


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full")])
def test_news_that_cannot_be_written_ends_nobodys_work(error: Exception) -> None:
    write_line(Failing(error), "news")


def test_news_for_a_stream_that_is_closed_is_dropped() -> None:
    stream = io.StringIO()
    write_line(stream, "news", end="\r")
    assert stream.getvalue() == "news\r"
    stream.close()
    write_line(stream, "news")
    write_line(None, "news")


def test_people_are_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    tell("news")
    assert capsys.readouterr() == ("", "news\n")
