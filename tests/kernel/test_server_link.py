"""What a provisioner says of what failed while it called the broker."""

from __future__ import annotations

import pytest

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.kernel.server_link import describe


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LedgerUnavailable("the disk is full"), "the disk is full"),
        (TimeoutError(), "the broker has not answered within 20 seconds"),
        (KeyError("k"), "KeyError: 'k'"),
    ],
)
def test_whatever_fails_is_said_in_one_sentence(
    error: Exception, sentence: str
) -> None:
    assert describe(error) == sentence
